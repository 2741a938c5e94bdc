//! Labelled utterances for the emotion classifier.
//!
//! Two sources of labels, so that the scorer used in training and its evaluation-only twin learn from partly
//! different phrases: each has phrases that the other never sees. A few phrases are kept for valid and test of
//! both: a score on them is not a score on phrases learnt by heart.

use ecr_core::rng::Draws;

use super::films::films;
use super::generator::{emotion::NEUTRAL, stream};
use super::lines::{self, Phrase, Slots, fill, pick, talk};
use super::taste::Taste;
use crate::redial::Split;

/// Where labels come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelSet {
    /// For the scorer that training uses.
    A,
    /// For the evaluation-only twin.
    B,
}

/// Usual sizes: train, valid, test.
pub const DEFAULT_SIZES: [(Split, usize); 3] =
    [(Split::Train, 2000), (Split::Valid, 400), (Split::Test, 600)];

/// Share of utterances in a recommender's manner.
const REPLIES: f64 = 0.35;
/// Share of the utterances of valid and test whose phrase is in no training set.
const UNSEEN: f64 = 0.25;

/// `n` utterances with their emotion (index into `EMOTIONS`), films as `Title (Year)`; classes about equally often.
pub fn emotion_set(source: LabelSet, split: Split, n: usize, seed: u64) -> Vec<(String, usize)> {
    let purpose = match source {
        LabelSet::A => "emotions a",
        LabelSet::B => "emotions b",
    };
    (0..n)
        .map(|i| {
            let mut rng = stream(purpose, split, i, seed).rng();
            let label = rng.below(9);
            (utterance(&mut rng, source, split, label), label)
        })
        .collect()
}

fn allowed(all: &[Phrase], source: LabelSet, unseen: bool) -> Vec<Phrase> {
    let own = if source == LabelSet::A { 'a' } else { 'b' };
    all.iter().filter(|p| if unseen { p.set == 't' } else { p.set == '*' || p.set == own }).copied().collect()
}

fn utterance(rng: &mut Draws, source: LabelSet, split: Split, label: usize) -> String {
    let taste = Taste::draw(rng);
    let about = taste.fitting(rng, &[]);
    let next = taste.fitting(rng, &[about]);
    let unseen = split != Split::Train && rng.uniform() < UNSEEN;
    let wanted = Slots { taste: &taste, film: None, last: Some(&films()[about]), at_ids: false };
    let here = Slots { film: Some(&films()[about]), ..wanted };
    let offered = Slots { film: Some(&films()[next]), ..wanted };
    let mut say = |kind: &str, slots| {
        let phrase = pick(rng, talk(kind));
        fill(rng, phrase, slots)
    };
    let (tail, more, wish) = (say("tail", wanted), say("more", wanted), say("wish", wanted));
    let (offer, terse, ask) = (say("rec_good", offered), say("rec_terse", offered), say("ask", offered));
    if rng.uniform() < REPLIES {
        if label == NEUTRAL && rng.uniform() < 0.4 {
            return terse;
        }
        let phrase = pick(rng, &allowed(lines::reply(label), source, unseen));
        let first = fill(rng, phrase, wanted);
        return match rng.below(4) {
            0 => first,
            1 => format!("{first} {offer}"),
            2 => format!("{first} {offer} {ask}"),
            _ => format!("{first} {terse}"),
        };
    }
    let phrase = pick(rng, &allowed(lines::seeker(label), source, unseen));
    let core = fill(rng, phrase, here);
    match rng.below(6) {
        0 => format!("{core} {tail}"),
        1 => format!("{core} {more}"),
        2 => format!("{wish} {core}"),
        3 => format!("{core} {wish}"),
        _ => core,
    }
}
