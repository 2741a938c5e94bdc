//! Embedded demo data: our own catalogue of real films as facts, hand-written phrases, and a seeded generator of
//! conversations in the raw ReDial schema. Nothing here is copied from a data set.
//!
//! A seeker has a hidden [`taste::Taste`] and an emotion in each turn, shown by wording. The recommender is of
//! mixed quality (about 45 % good, 35 % terse, 20 % poor), so that a model trained on it imitates a mixture and a
//! reward has room to move it upwards. Every draw comes from a stream named by purpose, split and index:
//! conversation `i` is the same however many are written.

pub mod emotions;
pub mod films;
pub mod generator;
pub mod lines;
pub mod ratings;
pub mod raw;
pub mod taste;

pub use emotions::{LabelSet, emotion_set};
pub use films::{Film, films};
pub use ratings::{Rated, ratings};
pub use raw::write_split;

use crate::redial::Split;

/// Conversations per split if nothing else is said: train, valid, test.
pub const DEFAULT_SIZES: [(Split, usize); 3] = [(Split::Train, 600), (Split::Valid, 80), (Split::Test, 160)];

/// One training conversation as plain text, with the latent emotion and quality of its turns, for people to read.
pub fn sample_dialogue(seed: u64) -> String {
    let c = generator::conversation(Split::Train, 0, seed);
    let t = &c.taste;
    let mut out = format!("[taste: {} / {} / {:?}]\n", t.genre, t.mood, t.era);
    for m in &c.messages {
        let who = if m.role == ecr_core::Role::Seeker { "Seeker" } else { "Recommender" };
        let mut notes = Vec::new();
        if let Some(e) = m.emotion {
            notes.push(ecr_core::seam::EMOTIONS[e].to_string());
        }
        if let Some(q) = &m.quality {
            notes.push(format!("{:?} {:.2}", q.kind, q.latent()));
        }
        let notes = if notes.is_empty() { String::new() } else { format!("  ({})", notes.join(", ")) };
        out.push_str(&format!("{who}: {}{notes}\n", films::with_titles(&m.text)));
    }
    out
}

#[cfg(test)]
mod tests;
