//! A conversation as a line of raw ReDial, with the traps of the real data.
//!
//! Common traps (runs of messages by one speaker, a recommender who opens, titles with a double space, titles
//! without a year) are drawn at about the rates of the real data. Rare ones have a fixed place, one conversation
//! in [`PERIOD`] each, so that even a small split has them all.

use ecr_core::Role;
use ecr_core::rng::Draws;
use serde_json::{Map, Value, json};

use super::films::films;
use super::generator::{Conversation, conversation, stream};
use crate::redial::Split;

/// Of this many conversations in a row, one has each of the [`Trap`]s.
pub const PERIOD: usize = 40;

/// Rare peculiarities of raw ReDial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trap {
    /// The seeker's form is an empty list.
    NoSeekerForm,
    /// The recommender's form is an empty list.
    NoRecommenderForm,
    /// A message without text.
    EmptyMessage,
    /// `&amp;` and the like.
    HtmlEntity,
    /// Characters beyond ASCII.
    NonAscii,
    /// A line break inside a message.
    Newline,
    /// An `@id` that `movieMentions` lacks.
    UnknownId,
    /// A title that is null.
    NullTitle,
    /// No film at all: forms and mentions are empty lists.
    NoFilms,
}

/// All rare traps, in the order of their places.
pub const TRAPS: [Trap; 9] = [
    Trap::NoSeekerForm,
    Trap::NoRecommenderForm,
    Trap::EmptyMessage,
    Trap::HtmlEntity,
    Trap::NonAscii,
    Trap::Newline,
    Trap::UnknownId,
    Trap::NullTitle,
    Trap::NoFilms,
];

/// The rare trap of conversation `i`.
pub fn trap(i: usize) -> Option<Trap> {
    // Four apart, so that traps do not come in a block.
    let place = i % PERIOD;
    place.checked_sub(3).filter(|p| p % 4 == 0).and_then(|p| TRAPS.get(p / 4)).copied()
}

/// A film id outside the catalogue, for the traps.
pub const UNKNOWN_ID: u32 = 99_991;

/// `n` conversations of a split as JSON lines in the raw ReDial schema.
pub fn write_split(split: Split, n: usize, seed: u64) -> Vec<String> {
    (0..n)
        .map(|i| {
            let mut rng = stream("schema", split, i, seed).rng();
            line(conversation(split, i, seed), trap(i), &mut rng)
        })
        .collect()
}

fn line(mut c: Conversation, trap: Option<Trap>, rng: &mut Draws) -> String {
    let seeker = 1 + rng.below(400);
    let recommender = 1 + (seeker + rng.below(399)) % 400;
    bend_texts(&mut c, trap, rng);

    let mut mentions = Map::new();
    for n in &c.named {
        let film = &films()[n.film];
        let title = match rng.uniform() {
            u if u < 0.05 => format!("{} ", film.title),
            u if u < 0.40 => format!("{}  ({})", film.title, film.year),
            _ => film.name(),
        };
        mentions.insert(film.id.to_string(), title.into());
    }
    if trap == Some(Trap::NullTitle) {
        mentions.insert(UNKNOWN_ID.to_string(), Value::Null);
    }
    let mut form = |trap_here: bool, sure: f64| {
        let mut m = Map::new();
        for n in &c.named {
            // The other side's form knows a little less.
            let (seen, liked) = if rng.uniform() < sure { (n.seen, n.liked) } else { (2, 2) };
            let answers = json!({"suggested": u8::from(n.suggested), "seen": seen, "liked": liked});
            m.insert(films()[n.film].id.to_string(), answers);
        }
        if trap_here { json!([]) } else { map_or_list(m) }
    };
    let of_seeker = form(trap == Some(Trap::NoSeekerForm), 1.0);
    let of_recommender = form(trap == Some(Trap::NoRecommenderForm), 0.93);

    let mut time = 0;
    let messages: Vec<Value> = (c.messages.iter().enumerate())
        .map(|(k, m)| {
            let worker = if m.role == Role::Seeker { seeker } else { recommender };
            let message = json!({"timeOffset": time, "text": m.text, "senderWorkerId": worker,
                "messageId": u64::from(c.id) * 100 + k as u64});
            time += 5 + rng.below(40);
            message
        })
        .collect();
    json!({
        "movieMentions": map_or_list(mentions),
        "respondentQuestions": of_recommender,
        "messages": messages,
        "conversationId": c.id.to_string(),
        "respondentWorkerId": recommender,
        "initiatorWorkerId": seeker,
        "initiatorQuestions": of_seeker,
    })
    .to_string()
}

fn map_or_list(m: Map<String, Value>) -> Value {
    if m.is_empty() { json!([]) } else { Value::Object(m) }
}

/// Traps that sit in the messages.
fn bend_texts(c: &mut Conversation, trap: Option<Trap>, rng: &mut Draws) {
    let of_seeker: Vec<usize> =
        (0..c.messages.len()).filter(|&k| c.messages[k].role == Role::Seeker).collect();
    let Some(&k) = rng.choose(&of_seeker) else { return };
    let text = c.messages[k].text.clone();
    let bent = match trap {
        Some(Trap::EmptyMessage) => {
            let mut empty = c.messages[k].clone();
            empty.text.clear();
            c.messages.insert(k + 1, empty);
            return;
        }
        Some(Trap::NoFilms) => {
            c.named.clear();
            c.messages.retain(|m| !m.text.contains('@'));
            return;
        }
        Some(Trap::HtmlEntity) if text.contains('\'') => text.replace('\'', "&#39;"),
        Some(Trap::HtmlEntity) => format!("{text} Popcorn &amp; blanket are ready."),
        Some(Trap::NonAscii) if text.contains('\'') => text.replace('\'', "\u{2019}"),
        Some(Trap::NonAscii) => format!("{text} \u{1F60A}"),
        Some(Trap::Newline) if text.contains(". ") => text.replacen(". ", ".\n", 1),
        Some(Trap::Newline) => format!("{text}\nPlease."),
        Some(Trap::UnknownId) => format!("{text} @{UNKNOWN_ID} was good too."),
        _ => return,
    };
    c.messages[k].text = bent;
}
