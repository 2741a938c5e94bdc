//! Conversations: taste, emotions, replies of mixed quality. The schema and its traps are put on in `raw`.

use ecr_core::rng::Draws;
use ecr_core::{Role, Stream};

use super::films::{Film, films};
use super::lines::{self, Phrase, Slots, fill, pick, talk};
use super::taste::{Era, FITS, Taste, index};
use crate::redial::Split;

/// `EMOTIONS` by name.
pub mod emotion {
    #![allow(missing_docs)]
    pub const LIKE: usize = 0;
    pub const CURIOUS: usize = 1;
    pub const HAPPY: usize = 2;
    pub const GRATEFUL: usize = 3;
    pub const NEGATIVE: usize = 4;
    pub const NEUTRAL: usize = 5;
    pub const NOSTALGIA: usize = 6;
    pub const AGREEMENT: usize = 7;
    pub const SURPRISE: usize = 8;
}
use emotion::*;

/// Emotions that suit as an answer to each of the seeker's (index = seeker's emotion), best first.
pub const RESPONSES: [&[usize]; 9] = [
    &[LIKE, AGREEMENT],
    &[CURIOUS, LIKE],
    &[HAPPY, LIKE],
    &[GRATEFUL, HAPPY],
    &[AGREEMENT, NEGATIVE],
    &[NEUTRAL, CURIOUS],
    &[NOSTALGIA, LIKE],
    &[AGREEMENT, HAPPY],
    &[SURPRISE, LIKE],
];

/// How well the recommender did in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Answers the emotion, names a film that fits, asks back.
    Good,
    /// A film and nothing else; fits half of the time.
    Terse,
    /// Off-mood, an unfitting film or none.
    Poor,
}

/// Share of each [`Kind`], in order.
pub const MIX: [f64; 3] = [0.45, 0.35, 0.20];

/// What the generator knows of a reply.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quality {
    /// Which manner.
    pub kind: Kind,
    /// Fit of the film to the taste, 0..1; `None` in a turn that need not name one.
    pub fit: Option<f64>,
    /// Whether the reply's emotion suits the seeker's, 0..1.
    pub empathy: f64,
}

impl Quality {
    /// Latent quality, 0..1: fit .5, empathy .35, not terse .15 (without fit: the rest, rescaled).
    pub fn latent(&self) -> f64 {
        let full = if self.kind == Kind::Good { 1.0 } else { 0.0 };
        match self.fit {
            Some(fit) => 0.5 * fit + 0.35 * self.empathy + 0.15 * full,
            None => 0.7 * self.empathy + 0.3 * full,
        }
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Who.
    pub role: Role,
    /// Text; films as `@id`.
    pub text: String,
    /// Emotion that it expresses, where the generator meant one.
    pub emotion: Option<usize>,
    /// Quality of the whole turn, on the last message of a recommender's answering turn.
    pub quality: Option<Quality>,
}

/// A film named in a conversation, with the forms' answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Index in [`films`].
    pub film: usize,
    /// By the recommender.
    pub suggested: bool,
    /// 0 no, 1 yes, 2 did not say.
    pub seen: u8,
    /// 0 no, 1 yes, 2 did not say.
    pub liked: u8,
}

/// A conversation before it is written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// Unique over all splits.
    pub id: u32,
    /// The seeker's hidden taste.
    pub taste: Taste,
    /// Messages in order.
    pub messages: Vec<Said>,
    /// Films in order of first mention.
    pub named: Vec<Named>,
}

/// First conversation id of a split.
pub fn first_id(split: Split) -> u32 {
    match split {
        Split::Train => 1_000_000,
        Split::Valid => 2_000_000,
        Split::Test => 3_000_000,
    }
}

/// The stream of everything about conversation `i` of a split, for one purpose.
pub(super) fn stream(purpose: &str, split: Split, i: usize, seed: u64) -> Stream {
    Stream::new(seed).child("demo").child(purpose).child(split.name()).at(i as u64)
}

/// Conversation `i` of a split.
pub fn conversation(split: Split, i: usize, seed: u64) -> Conversation {
    talk_through(first_id(split) + i as u32, &stream("conversation", split, i, seed))
}

pub(super) fn talk_through(id: u32, stream: &Stream) -> Conversation {
    let mut rng = stream.child("talk").rng();
    let taste = Taste::draw(&mut rng);
    let style = stream.child("manner").rng();
    let mut w = Writer { rng, style, taste: taste.clone(), messages: Vec::new(), named: Vec::new() };
    w.run();
    Conversation { id, taste, messages: w.messages, named: w.named }
}

struct Writer {
    rng: Draws,
    taste: Taste,
    messages: Vec<Said>,
    named: Vec<Named>,
    style: Draws,
}

impl Writer {
    fn chance(&mut self, p: f64) -> bool {
        self.rng.uniform() < p
    }
    fn say(&mut self, role: Role, text: String, emotion: Option<usize>) {
        self.messages.push(Said { role, text, emotion, quality: None });
    }
    fn fill(&mut self, phrase: &str, film: Option<usize>, last: Option<usize>) -> String {
        let at = |i: Option<usize>| i.map(|i| &films()[i]);
        let slots = Slots { taste: &self.taste, film: at(film), last: at(last), at_ids: true };
        fill(&mut self.rng, phrase, slots)
    }
    fn talk(&mut self, kind: &str, film: Option<usize>) -> String {
        let phrase = pick(&mut self.rng, talk(kind));
        self.fill(phrase, film, film)
    }
    fn used(&self) -> Vec<usize> {
        self.named.iter().map(|n| n.film).collect()
    }
    fn name(&mut self, film: usize, suggested: bool, seen: u8, liked: u8) {
        if !self.named.iter().any(|n| n.film == film) {
            self.named.push(Named { film, suggested, seen, liked });
        }
    }
    fn fits(&self, film: usize) -> bool {
        self.taste.fit(&films()[film]) >= FITS
    }

    fn run(&mut self) {
        if self.chance(0.65) {
            let hello = self.talk("greet_recommender", None);
            self.say(Role::Recommender, hello, None);
        }
        // A recommender keeps to a manner, half of the time.
        let habit = kind(&mut self.style);
        let (mut feels, mut last) = self.open();
        let n = 1 + index(&mut self.rng, &[0.25, 0.45, 0.3]);
        for k in 0..n {
            let manner = if self.chance(0.5) { habit } else { kind(&mut self.rng) };
            let film = self.recommend(manner, feels, last);
            feels = self.react(film, last, k + 1 < n);
            last = film.unwrap_or(last);
        }
        self.close(habit, feels, last);
    }

    /// The seeker's first turn: an emotion about a film, and a wish. Returns both.
    fn open(&mut self) -> (usize, usize) {
        if self.chance(0.4) {
            let hi = self.talk("greet_seeker", None);
            self.say(Role::Seeker, hi, None);
        }
        let weights = [0.22, 0.12, 0.12, 0.0, 0.17, 0.12, 0.14, 0.03, 0.08];
        let feels = index(&mut self.rng, &weights);
        let film = if feels == NEGATIVE {
            self.taste.unfitting(&mut self.rng, &[])
        } else {
            self.taste.fitting(&mut self.rng, &[])
        };
        let phrase = self.seeker_phrase(feels, &films()[film], true);
        let mut text = self.fill(phrase, Some(film), None);
        let liked = [1, 2, 1, 1, 0, 2, 1, 1, 1][feels];
        self.name(film, false, u8::from(feels != CURIOUS), liked);
        let used = self.used();
        if feels != NEGATIVE && self.chance(0.35) {
            let more = self.taste.fitting(&mut self.rng, &used);
            push(&mut text, &self.talk("also_liked", Some(more)));
            self.name(more, false, 1, 1);
        } else if feels != NEGATIVE && self.chance(0.15) {
            let bad = self.taste.unfitting(&mut self.rng, &used);
            push(&mut text, &self.talk("disliked", Some(bad)));
            self.name(bad, false, 1, 0);
        }
        let mut wish = self.talk("wish", None);
        if let Some(era) = self.taste.era {
            let kind = match era {
                Era::Old => "decade_old",
                Era::Middle => "decade_mid",
                Era::New => "decade_new",
            };
            push(&mut wish, &self.talk(kind, None));
        }
        // The wish comes after the feeling or before it, in one message or two.
        if self.chance(0.3) {
            std::mem::swap(&mut text, &mut wish);
        }
        if self.chance(0.35) {
            self.say(Role::Seeker, text, Some(feels));
            self.say(Role::Seeker, wish, Some(feels));
        } else {
            push(&mut text, &wish);
            self.say(Role::Seeker, text, Some(feels));
        }
        (feels, film)
    }

    fn seeker_phrase(&mut self, feels: usize, film: &Film, must_name: bool) -> &'static str {
        let ok = |p: &&Phrase| {
            let own_director = p.text.contains("{director}") && film.stars.contains(&film.director);
            !own_director && (!must_name || p.text.contains("{film}"))
        };
        let phrases: Vec<Phrase> = lines::seeker(feels).iter().filter(ok).copied().collect();
        pick(&mut self.rng, &phrases)
    }

    fn recommend(&mut self, manner: Kind, feels: usize, last: usize) -> Option<usize> {
        let used = [self.used(), vec![last]].concat();
        let fitting = match manner {
            Kind::Good => self.chance(0.95),
            Kind::Terse => self.chance(0.5),
            Kind::Poor => false,
        };
        let film = if fitting {
            self.taste.fitting(&mut self.rng, &used)
        } else {
            self.taste.unfitting(&mut self.rng, &used)
        };
        let nothing = manner == Kind::Poor && self.chance(0.4);
        let body = match manner {
            Kind::Good => self.talk("rec_good", Some(film)),
            Kind::Terse => self.talk("rec_terse", Some(film)),
            Kind::Poor if nothing => self.talk("poor_none", None),
            Kind::Poor => self.talk("rec_poor", Some(film)),
        };
        let shows = match manner {
            Kind::Good => self.answer(feels),
            Kind::Poor if self.chance(0.4) => self.wrong_answer(feels),
            _ => NEUTRAL,
        };
        let mut messages = Vec::new();
        if manner == Kind::Good || shows != NEUTRAL {
            let phrase = pick(&mut self.rng, lines::reply(shows));
            messages.push(self.fill(phrase, None, Some(last)));
        }
        messages.push(body);
        if manner == Kind::Good && self.chance(0.6) {
            messages.push(self.talk("ask", Some(film)));
        }
        let named = (!nothing).then_some(film);
        let quality = Quality {
            kind: manner,
            fit: Some(named.map_or(0.0, |f| self.taste.fit(&films()[f]))),
            empathy: empathy(feels, shows),
        };
        self.turn(messages, shows, quality);
        if let Some(f) = named {
            self.name(f, true, 2, 2); // the reaction settles what is liked
        }
        named
    }

    /// Writes a recommender's turn, at times as two messages.
    fn turn(&mut self, mut parts: Vec<String>, shows: usize, quality: Quality) {
        if parts.len() > 1 && self.chance(0.2) {
            let first = parts.remove(0);
            self.say(Role::Recommender, first, Some(shows));
        }
        self.say(Role::Recommender, parts.join(" "), Some(shows));
        if let Some(m) = self.messages.last_mut() {
            m.quality = Some(quality);
        }
    }

    fn answer(&mut self, feels: usize) -> usize {
        let fitting = RESPONSES[feels];
        fitting[usize::from(self.chance(0.35))]
    }
    fn wrong_answer(&mut self, feels: usize) -> usize {
        let wrong: Vec<usize> = (0..9).filter(|e| !RESPONSES[feels].contains(e)).collect();
        wrong[self.rng.below(wrong.len())]
    }

    fn react(&mut self, film: Option<usize>, last: usize, goes_on: bool) -> usize {
        let weights = match film {
            Some(f) if self.fits(f) => {
                let old = if films()[f].year < 2000 { 0.14 } else { 0.0 };
                [0.16, 0.14, 0.13, 0.10, 0.03, 0.08, old, 0.14, 0.11]
            }
            Some(_) => [0.0, 0.12, 0.0, 0.0, 0.5, 0.26, 0.0, 0.0, 0.12],
            None => [0.0, 0.2, 0.0, 0.0, 0.4, 0.4, 0.0, 0.0, 0.0],
        };
        let feels = index(&mut self.rng, &weights);
        let about = film.unwrap_or(last);
        let phrase = self.seeker_phrase(feels, &films()[about], false);
        let mut text = self.fill(phrase, Some(about), Some(about));
        let unsaid = if film.is_some_and(|f| self.fits(f)) { 1 } else { 2 };
        let liked = [1, unsaid, 1, 1, 0, 2, 1, 1, unsaid][feels];
        let seen = [1, 0, 1, 0, 1, 2, 1, 1, 0][feels];
        if let Some(n) = self.named.iter_mut().find(|n| Some(n.film) == film && n.suggested) {
            (n.seen, n.liked) = (seen, liked);
        }
        if goes_on && self.chance(0.8) {
            push(&mut text, &self.talk("more", None));
        }
        if self.chance(0.1) {
            text = text.trim_end_matches('.').to_string();
        }
        self.say(Role::Seeker, text, Some(feels));
        feels
    }

    fn close(&mut self, habit: Kind, feels: usize, last: usize) {
        let mut feels = feels;
        if self.chance(0.6) {
            // Nobody is happy about a film that was just turned down.
            let pleased = self.fits(last) && feels != NEGATIVE;
            feels = if !pleased || self.chance(0.7) { GRATEFUL } else { HAPPY };
            let mut text = if pleased {
                let phrase = self.seeker_phrase(feels, &films()[last], false);
                self.fill(phrase, Some(last), Some(last))
            } else {
                self.talk("thanks_anyway", None)
            };
            push(&mut text, &self.talk("bye_seeker", None));
            self.say(Role::Seeker, text, Some(feels));
        }
        let manner = if self.chance(0.5) { habit } else { kind(&mut self.rng) };
        let (parts, shows) = match manner {
            Kind::Good => {
                let shows = self.answer(feels);
                let phrase = pick(&mut self.rng, lines::reply(shows));
                let first = self.fill(phrase, None, Some(last));
                (vec![first, self.talk("bye_good", None)], shows)
            }
            Kind::Terse => (vec![self.talk("bye_terse", None)], NEUTRAL),
            Kind::Poor => (vec![self.talk("bye_poor", None)], NEUTRAL),
        };
        self.turn(parts, shows, Quality { kind: manner, fit: None, empathy: empathy(feels, shows) });
    }
}

fn kind(rng: &mut Draws) -> Kind {
    [Kind::Good, Kind::Terse, Kind::Poor][index(rng, &MIX)]
}

fn empathy(feels: usize, shows: usize) -> f64 {
    match RESPONSES[feels].iter().position(|&e| e == shows) {
        Some(0) => 1.0,
        Some(_) => 0.8,
        None if shows == NEUTRAL => 0.3,
        None => 0.0,
    }
}

fn push(text: &mut String, more: &str) {
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(more);
}
