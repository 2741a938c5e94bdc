//! The hand-written phrases and how their slots are filled.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use ecr_core::rng::Draws;
use ecr_core::seam::EMOTIONS;

use super::films::{Film, GENRES};
use super::taste::Taste;

/// A phrase with slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phrase {
    /// `*` both label sets, `a` or `b` only that one, `t` kept for valid and test of both.
    pub set: char,
    /// Text with `{slots}`.
    pub text: &'static str,
}

type Sections = BTreeMap<&'static str, Vec<Phrase>>;

fn parse(text: &'static str) -> Sections {
    let mut out = Sections::new();
    let mut section = "";
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
        if let Some(name) = line.strip_prefix("## ") {
            section = name;
        } else if !line.starts_with("# ") {
            let phrase = match line.split_once(" | ") {
                Some((set, text)) => Phrase { set: set.chars().next().unwrap_or('*'), text },
                None => Phrase { set: '*', text: line },
            };
            out.entry(section).or_default().push(phrase);
        }
    }
    out
}

fn of(sections: &'static Sections, name: &str) -> &'static [Phrase] {
    sections.get(name).map_or(&[], Vec::as_slice)
}

/// Phrases of a seeker in this emotion (index into `EMOTIONS`).
pub fn seeker(emotion: usize) -> &'static [Phrase] {
    static S: OnceLock<Sections> = OnceLock::new();
    of(S.get_or_init(|| parse(include_str!("seeker.txt"))), EMOTIONS[emotion])
}

/// First clauses of a reply that express this emotion (index into `EMOTIONS`).
pub fn reply(emotion: usize) -> &'static [Phrase] {
    static S: OnceLock<Sections> = OnceLock::new();
    of(S.get_or_init(|| parse(include_str!("replies.txt"))), EMOTIONS[emotion])
}

/// Phrases of any other kind, by the section's name in `talk.txt`.
pub fn talk(kind: &str) -> &'static [Phrase] {
    static S: OnceLock<Sections> = OnceLock::new();
    of(S.get_or_init(|| parse(include_str!("talk.txt"))), kind)
}

/// One of the phrases' texts.
pub fn pick(rng: &mut Draws, phrases: &[Phrase]) -> &'static str {
    rng.choose(phrases).map_or("", |p| p.text)
}

/// What the slots of a phrase stand for.
#[derive(Debug, Clone, Copy)]
pub struct Slots<'a> {
    /// `{genre}` and `{mood}` of what is wanted.
    pub taste: &'a Taste,
    /// `{film}`, `{star}`, `{director}`; in a recommendation `{mood}` is this film's where it can be.
    pub film: Option<&'static Film>,
    /// `{last}`.
    pub last: Option<&'static Film>,
    /// Films as `@id`, not as `Title (Year)`.
    pub at_ids: bool,
}

/// The phrase with its slots filled.
pub fn fill(rng: &mut Draws, phrase: &str, slots: Slots<'_>) -> String {
    let name = |f: Option<&Film>| match f {
        Some(f) if slots.at_ids => format!("@{}", f.id),
        Some(f) => f.name(),
        None => "it".to_string(),
    };
    let spoken = |g: &str| GENRES.iter().find(|(k, _)| *k == g).map_or("", |(_, s)| s).to_string();
    let mut out = String::with_capacity(phrase.len() + 32);
    let mut rest = phrase;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let (slot, tail) = after.split_once('}').unwrap_or((after, ""));
        let value = match slot {
            "film" => name(slots.film),
            "last" => name(slots.last),
            "genre" => spoken(slots.taste.genre),
            "mood" => mood(slots).to_string(),
            "star" => slots.film.map_or("the lead", |f| f.stars[rng.below(f.stars.len())]).to_string(),
            "director" => slots.film.map_or("the director", |f| f.director).to_string(),
            kind => pick(rng, talk(kind)).to_string(),
        };
        let vowel = value.starts_with(['a', 'e', 'i', 'o', 'u']);
        if vowel && (out.ends_with(" a ") || out == "A ") {
            out.insert(out.len() - 1, 'n');
        }
        out.push_str(&value);
        rest = tail;
    }
    out.push_str(rest);
    capitalised(&out)
}

/// A recommendation speaks of the film's own mood; a wish of the wanted one.
fn mood(slots: Slots<'_>) -> &'static str {
    match slots.film {
        Some(f) if !f.moods.contains(&slots.taste.mood) => f.moods[0],
        _ => slots.taste.mood,
    }
}

fn capitalised(s: &str) -> String {
    let mut chars = s.chars();
    chars.next().map_or(String::new(), |c| c.to_uppercase().chain(chars).collect())
}
