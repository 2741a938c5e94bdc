//! Whether a seeker plainly sounds glad or low, by words alone, and what a reply in either tone opens with.
//!
//! Material for the degradation `wrong_emotion`. Where the words do not say, or say both, there is no answer: it is for
//! making examples, not for judging texts.

use ecr_core::{Role, Stream, Utterance};

/// How somebody plainly sounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Glad.
    Glad,
    /// Low: sad, bored, annoyed, afraid.
    Low,
}

const GLAD: &[&str] = &[
    "adore",
    "adored",
    "amazing",
    "awesome",
    "brilliant",
    "delighted",
    "enjoy",
    "enjoyed",
    "excellent",
    "excited",
    "fantastic",
    "fun",
    "glad",
    "great",
    "haha",
    "happy",
    "hilarious",
    "lol",
    "love",
    "loved",
    "loves",
    "perfect",
    "wonderful",
    "yay",
];

const LOW: &[&str] = &[
    "angry",
    "annoyed",
    "annoying",
    "awful",
    "bored",
    "boring",
    "cried",
    "cry",
    "depressed",
    "depressing",
    "disappointed",
    "disappointing",
    "dislike",
    "disliked",
    "dull",
    "hate",
    "hated",
    "horrible",
    "lonely",
    "miserable",
    "sad",
    "scared",
    "stupid",
    "terrible",
    "tired",
    "unhappy",
    "upset",
    "worst",
];

const NEGATIONS: &[&str] =
    &["not", "no", "never", "didn't", "didnt", "don't", "dont", "isn't", "wasn't", "wasnt", "doesn't", "nor"];

/// Words back in which a negation reverses a word.
const REACH: usize = 3;

/// Openers of a glad reply.
pub const GLAD_OPENERS: [&str; 10] = [
    "That is wonderful, I am so happy for you!",
    "Yay, that makes me smile!",
    "How lovely, what a great day you must be having!",
    "Haha, that is fantastic, good for you!",
    "I am delighted to hear that!",
    "That sounds like so much fun!",
    "Awesome, I am really excited for you!",
    "What a joy, I love to hear it!",
    "Hooray, that is the best news!",
    "That is brilliant, it cheers me up too!",
];

/// Openers of a low reply.
pub const LOW_OPENERS: [&str; 10] = [
    "Oh no, that is awful, I am so sorry.",
    "That sounds really sad.",
    "How terrible, you must be so disappointed.",
    "Ugh, that makes me miserable.",
    "I am sorry you have to go through that.",
    "That must be very hard for you.",
    "How depressing, it is such a pity.",
    "Oh dear, that is a shame.",
    "That is horrible, I hate to hear it.",
    "What a sad day, I feel bad about it too.",
];

impl Tone {
    /// The other one.
    pub fn opposite(self) -> Self {
        match self {
            Self::Glad => Self::Low,
            Self::Low => Self::Glad,
        }
    }
    /// An opener in this tone, drawn.
    pub fn opener(self, stream: Stream) -> &'static str {
        let openers = match self {
            Self::Glad => &GLAD_OPENERS,
            Self::Low => &LOW_OPENERS,
        };
        openers[stream.rng().below(openers.len())]
    }
}

/// How a text plainly sounds; `None` where nothing or both can be heard. A negation up to three words before a glad
/// word makes it low; one before a low word makes the text unclear.
pub fn tone(text: &str) -> Option<Tone> {
    let text = text.to_lowercase().replace('\u{2019}', "'");
    let words: Vec<&str> =
        text.split(|c: char| !(c.is_alphanumeric() || c == '\'')).filter(|w| !w.is_empty()).collect();
    let (mut glad, mut low) = (false, false);
    for (i, w) in words.iter().enumerate() {
        let negated = words[i.saturating_sub(REACH)..i].iter().any(|n| NEGATIONS.contains(n));
        match (GLAD.contains(w), LOW.contains(w)) {
            (true, _) if negated => low = true,
            (true, _) => glad = true,
            (_, true) if negated => return None,
            (_, true) => low = true,
            _ => {}
        }
    }
    match (glad, low) {
        (true, false) => Some(Tone::Glad),
        (false, true) => Some(Tone::Low),
        _ => None,
    }
}

/// How the seeker plainly sounds in the last turn before a reply, which has to be theirs.
pub fn seeker(context: &[Utterance]) -> Option<Tone> {
    context.last().filter(|u| u.role == Role::Seeker).and_then(|u| tone(&u.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tones_are_heard_and_unclear_ones_are_not() {
        for (text, want) in [
            ("I loved it, it was great!", Some(Tone::Glad)),
            ("I did not really enjoy that one", Some(Tone::Low)),
            ("I didn\u{2019}t love it", Some(Tone::Low)),
            ("So BORED today", Some(Tone::Low)),
            ("that wasn't boring", None),
            ("I love sad films", None),
            ("have you seen it", None),
            ("", None),
        ] {
            assert_eq!(tone(text), want, "{text}");
        }
        let said = |role, text: &str| Utterance { role, text: text.into() };
        let glad = said(Role::Seeker, "I love it");
        assert_eq!(seeker(std::slice::from_ref(&glad)), Some(Tone::Glad));
        assert_eq!(seeker(&[glad, said(Role::Recommender, "ok")]), None);
        assert_eq!(seeker(&[]), None);
    }

    #[test]
    fn every_opener_sounds_as_it_should_or_unclear_and_never_the_other_way() {
        for t in GLAD_OPENERS {
            assert_ne!(tone(t), Some(Tone::Low), "{t}");
        }
        for t in LOW_OPENERS {
            assert_ne!(tone(t), Some(Tone::Glad), "{t}");
        }
        let all: Vec<&str> = (0..200).map(|i| Tone::Low.opener(Stream::new(i))).collect();
        assert!(LOW_OPENERS.iter().all(|o| all.contains(o)));
        assert_eq!(Tone::Low.opposite(), Tone::Glad);
    }

    #[test]
    fn word_lists_are_sorted_and_apart() {
        for list in [GLAD, LOW] {
            assert!(list.windows(2).all(|w| w[0] < w[1]));
        }
        assert!(GLAD.iter().all(|w| !LOW.contains(w)));
    }
}
