//! Simulated satisfaction with replies. Nobody rated these: each is the generator's latent quality of the reply
//! plus seeded noise of three simulated raters, and carries [`SOURCE`] so that no table can take it for people.

use std::collections::BTreeMap;

use ecr_core::{Role, Utterance};
use serde::Serialize;

use super::films::with_titles;
use super::generator::{Said, first_id, stream, talk_through};
use crate::critic_rows::{CriticRow, HeadScore, OVERALL};
use crate::redial::Split;

/// Who "gave" the ratings.
pub const SOURCE: &str = "demo-simulated";

/// Spread of a simulated rater, in steps of the 1..5 scale.
const NOISE: f64 = 0.7;

/// A rated reply.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rated {
    /// Conversation; none of those that `write_split` writes. Split by it.
    pub conversation_id: u32,
    /// Turns before the reply, titles filled in.
    pub context: Vec<Utterance>,
    /// The reply, titles filled in.
    pub reply: String,
    /// Ratings of three simulated raters, 1..5.
    pub raters: [u8; 3],
    /// Their mean, 1..5.
    pub satisfaction: f64,
    /// The latent quality behind it, 0..1; for tests, never for training.
    pub latent: f64,
    /// [`SOURCE`].
    pub source: &'static str,
}

impl From<&Rated> for CriticRow {
    fn from(r: &Rated) -> Self {
        let score = HeadScore { score: (r.satisfaction - 1.0) / 4.0, source: r.source.into() };
        Self {
            conv_id: format!("demo:{}", r.conversation_id),
            context: r.context.clone(),
            response: r.reply.clone(),
            group: String::new(),
            scores: BTreeMap::from([(OVERALL.to_string(), score)]),
        }
    }
}

/// Ratings of every answering reply of `conversations` conversations, which are made for this alone.
pub fn ratings(split: Split, conversations: usize, seed: u64) -> Vec<Rated> {
    let mut out = Vec::new();
    for i in 0..conversations {
        let stream = stream("ratings", split, i, seed);
        let c = talk_through(first_id(split) + 500_000 + i as u32, &stream);
        let mut noise = stream.child("raters").rng();
        for (k, m) in c.messages.iter().enumerate() {
            let Some(q) = m.quality else { continue };
            let mut context = turns(&c.messages[..k]);
            let mut reply = with_titles(&m.text);
            // The first message of the same turn belongs to the reply.
            if context.last().is_some_and(|u| u.role == Role::Recommender)
                && let Some(first) = context.pop()
            {
                reply = format!("{} {reply}", first.text);
            }
            let latent = q.latent();
            let raters = std::array::from_fn(|_| {
                (1.0 + 4.0 * latent + NOISE * noise.normal()).round().clamp(1.0, 5.0) as u8
            });
            let satisfaction = raters.iter().map(|&r: &u8| f64::from(r)).sum::<f64>() / 3.0;
            let conversation_id = c.id;
            out.push(Rated { conversation_id, context, reply, raters, satisfaction, latent, source: SOURCE });
        }
    }
    out
}

/// Messages as turns: a run of one speaker's messages is one turn.
fn turns(messages: &[Said]) -> Vec<Utterance> {
    let mut out: Vec<Utterance> = Vec::new();
    for m in messages {
        let text = with_titles(&m.text);
        match out.last_mut() {
            Some(last) if last.role == m.role => {
                last.text.push(' ');
                last.text.push_str(&text);
            }
            _ => out.push(Utterance { role: m.role, text }),
        }
    }
    out
}
