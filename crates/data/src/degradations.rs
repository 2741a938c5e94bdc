//! Replies made worse on purpose, in a known order: label source for critic heads.
//!
//! Each kind spoils one human reply in [`Degradation::levels`] steps: level 0 is the reply itself and every level is worse
//! than the one before. One kind, `wrong_emotion`, puts a sentence before the reply: in a fitting tone at level 0, in the
//! opposite one at level 1. Both tones serve both ways, so that only the seeker's turn tells which is which. Scores fall evenly from 1 to 0. They order replies to one context; they say nothing about
//! different contexts. All draws come from the given stream, by (example, kind).

use ecr_core::{ItemId, Stream, Utterance};
use serde::{Deserialize, Serialize};

use crate::records::{Example, SLOT, fill_slots};
use crate::tone;

/// Levels of the kinds that spoil by degrees, the untouched reply included.
const LEVELS: usize = 4;

/// What is done to the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Degradation {
    /// A growing share of the words is shuffled.
    ShuffledWords,
    /// A phrase of the reply is repeated 1, 3, 6 times more.
    RepeatedPhrase,
    /// Cut in mid-sentence to 2/3, 1/3, then to its first word.
    Truncated,
    /// Words are replaced by those of another dialogue's reply: a third, two thirds, all.
    OtherReply,
    /// Ends in a copy of the last utterance: before the reply, instead of its half, instead of all of it.
    CopiedContext,
    /// A growing share of the words is dropped.
    DroppedWords,
    /// Every film of a recommending reply gives way to one that the seeker's form calls disliked.
    RejectedItem,
    /// Opens glad after a seeker who plainly sounds low, or low after a glad one.
    WrongEmotion,
}

impl Degradation {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::ShuffledWords,
        Self::RepeatedPhrase,
        Self::Truncated,
        Self::OtherReply,
        Self::CopiedContext,
        Self::DroppedWords,
        Self::RejectedItem,
        Self::WrongEmotion,
    ];
    /// Levels, the untouched reply included.
    pub fn levels(self) -> usize {
        if matches!(self, Self::RejectedItem | Self::WrongEmotion) { 2 } else { LEVELS }
    }
    /// Whether it spoils form, which shows without knowing films or people; else content.
    pub fn of_form(self) -> bool {
        !matches!(self, Self::OtherReply | Self::RejectedItem | Self::WrongEmotion)
    }
    /// Name in files; also the source of a critic label.
    pub fn name(self) -> &'static str {
        match self {
            Self::ShuffledWords => "shuffled_words",
            Self::RepeatedPhrase => "repeated_phrase",
            Self::Truncated => "truncated",
            Self::OtherReply => "other_reply",
            Self::CopiedContext => "copied_context",
            Self::DroppedWords => "dropped_words",
            Self::RejectedItem => "rejected_item",
            Self::WrongEmotion => "wrong_emotion",
        }
    }
    /// The critic head that this kind teaches: what it spoils.
    pub fn head(self) -> &'static str {
        match self {
            Self::ShuffledWords | Self::DroppedWords | Self::Truncated => "fluency",
            Self::RepeatedPhrase => "diversity",
            Self::OtherReply | Self::CopiedContext => "relevance",
            Self::RejectedItem => "recommendation",
            Self::WrongEmotion => "empathy",
        }
    }
}

/// A reply of known rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Degraded {
    /// Conversation; split by it.
    pub conv_id: u32,
    /// Turn of the conversation.
    pub turn_idx: usize,
    /// Turns before the reply.
    pub context: Vec<Utterance>,
    /// The spoilt reply.
    pub reply: String,
    /// What was done.
    pub kind: Degradation,
    /// 0 = unspoilt, up to `levels() - 1` = worst.
    pub level: usize,
    /// 1 - level / (levels - 1).
    pub score: f64,
}

fn shuffle_share(words: &[&str], share: f64, stream: Stream) -> Vec<String> {
    let mut rng = stream.rng();
    let mut places: Vec<usize> = (0..words.len()).collect();
    rng.shuffle(&mut places);
    let n = ((words.len() as f64 * share).round() as usize).clamp(2.min(words.len()), words.len());
    let mut chosen = places[..n].to_vec();
    chosen.sort_unstable();
    let mut out: Vec<String> = words.iter().map(ToString::to_string).collect();
    // Rotation by a random step moves every chosen word.
    let step = 1 + rng.below(n.saturating_sub(1).max(1));
    for (i, &p) in chosen.iter().enumerate() {
        out[p] = words[chosen[(i + step) % n]].to_string();
    }
    out
}

/// Titles of films.
pub type Titles<'a> = &'a dyn Fn(ItemId) -> Option<String>;

/// One degraded reply; `None` where the kind cannot spoil it (too short, nothing to copy).
fn spoil(
    e: &Example,
    other: &str,
    kind: Degradation,
    level: usize,
    titles: Titles<'_>,
    stream: Stream,
) -> Option<String> {
    let words: Vec<&str> = e.reply.split_whitespace().collect();
    let (n, third) = (words.len(), level as f64 / (LEVELS - 1) as f64);
    if n < 6 {
        return None;
    }
    let out = match kind {
        Degradation::ShuffledWords => shuffle_share(&words, third, stream).join(" "),
        Degradation::RepeatedPhrase => {
            let mut rng = stream.rng();
            let len = 2 + rng.below(3);
            let at = rng.below(n - len + 1);
            let phrase = words[at..at + len].join(" ");
            let times = [0, 1, 3, 6][level];
            let mut out: Vec<String> = words[..at + len].iter().map(ToString::to_string).collect();
            out.extend(std::iter::repeat_n(phrase, times));
            out.extend(words[at + len..].iter().map(ToString::to_string));
            out.join(" ")
        }
        Degradation::Truncated => {
            let keep = if level == LEVELS - 1 {
                1
            } else {
                ((n as f64 * (1.0 - third)).round() as usize).clamp(2, n - 1)
            };
            words[..keep].join(" ")
        }
        Degradation::OtherReply => {
            let other: Vec<&str> = other.split_whitespace().collect();
            if other.len() < 6 || other == words {
                return None;
            }
            let keep = ((n as f64) * (1.0 - third)).round() as usize;
            let take = ((other.len() as f64) * third).round() as usize;
            words[..keep].iter().chain(&other[other.len() - take..]).copied().collect::<Vec<_>>().join(" ")
        }
        Degradation::CopiedContext => {
            let last = e.context.iter().rev().find(|u| u.text.split_whitespace().count() >= 4)?;
            match level {
                1 => format!("{} {}", last.text, e.reply),
                2 => format!("{} {}", last.text, words[..n / 2].join(" ")),
                _ => last.text.clone(),
            }
        }
        Degradation::DroppedWords => {
            let mut places: Vec<usize> = (0..n).collect();
            stream.rng().shuffle(&mut places);
            let drop = ((n as f64) * [0.0, 0.2, 0.4, 0.7][level]).round() as usize;
            let gone = &places[..drop.clamp(level, n - 1)];
            (0..n).filter(|i| !gone.contains(i)).map(|i| words[i]).collect::<Vec<_>>().join(" ")
        }
        Degradation::RejectedItem => {
            let disliked: Vec<String> = e.rejected.iter().filter_map(|&i| titles(i)).collect();
            if disliked.is_empty() || !e.recommending {
                return None;
            }
            let slots = e.reply_slots.matches(SLOT).count();
            fill_slots(&e.reply_slots, &disliked.iter().cycle().take(slots).collect::<Vec<_>>())
        }
        Degradation::WrongEmotion => {
            let tone = tone::seeker(&e.context)?;
            let tone = if level == 0 { tone } else { tone.opposite() };
            format!("{} {}", tone.opener(stream), e.reply)
        }
    };
    (out != e.reply).then_some(out)
}

/// All levels of the `kinds` that apply to each example, in order. Replies of other dialogues are drawn from
/// `examples`.
pub fn degrade(
    examples: &[Example],
    kinds: &[Degradation],
    titles: Titles<'_>,
    stream: Stream,
) -> Vec<Degraded> {
    let mut out = Vec::new();
    for e in examples {
        let here = stream.child("degrade").at(u64::from(e.conv_id)).at(e.turn_idx as u64);
        let mut rng = here.child("other").rng();
        let other = (0..16)
            .map(|_| &examples[rng.below(examples.len())])
            .find(|o| o.conv_id != e.conv_id)
            .map_or("", |o| o.reply.as_str());
        for &kind in kinds {
            let key = here.child(kind.name());
            let spoilt: Option<Vec<String>> =
                (1..kind.levels()).map(|l| spoil(e, other, kind, l, titles, key)).collect();
            let Some(spoilt) = spoilt else { continue };
            let best = match kind {
                Degradation::WrongEmotion => spoil(e, other, kind, 0, titles, key),
                _ => Some(e.reply.clone()),
            };
            for (level, reply) in best.into_iter().chain(spoilt).enumerate() {
                out.push(Degraded {
                    conv_id: e.conv_id,
                    turn_idx: e.turn_idx,
                    context: e.context.clone(),
                    reply,
                    kind,
                    level,
                    score: 1.0 - level as f64 / (kind.levels() - 1) as f64,
                });
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redial::Split;
    use ecr_core::Role;

    fn example(conv_id: u32, reply: &str) -> Example {
        Example {
            conv_id,
            turn_idx: 1,
            split: Split::Train,
            context: vec![Utterance {
                role: Role::Seeker,
                text: "what should i watch on a rainy day".into(),
            }],
            reply: reply.into(),
            reply_slots: reply.into(),
            labels: vec![],
            mentioned: vec![],
            rejected: vec![],
            recommending: false,
        }
    }

    #[test]
    fn every_kind_spoils_in_order_and_by_its_stream_only() {
        let a = example(1, "have you seen the new one about a lonely robot on mars yet");
        let b = example(2, "my sister adores every musical that was ever made i think");
        let all =
            |examples: &[Example], seed| degrade(examples, &Degradation::ALL, &|_| None, Stream::new(seed));
        let both = all(&[a.clone(), b.clone()], 7);
        assert_eq!(both.len(), 2 * (Degradation::ALL.len() - 2) * LEVELS);
        assert_eq!(both, all(&[a.clone(), b.clone()], 7));
        assert_ne!(both, all(&[a.clone(), b], 8));
        for set in both.chunks(LEVELS) {
            assert!(set.iter().enumerate().all(|(i, d)| d.level == i && d.kind == set[0].kind));
            assert!(set.windows(2).all(|w| w[0].score > w[1].score && w[0].reply != w[1].reply), "{set:#?}");
            let len = |d: &Degraded| d.reply.split_whitespace().count();
            match set[0].kind {
                Degradation::Truncated | Degradation::DroppedWords => {
                    assert!(set.windows(2).all(|w| len(&w[0]) > len(&w[1])));
                }
                Degradation::RepeatedPhrase => assert!(set.windows(2).all(|w| len(&w[0]) < len(&w[1]))),
                Degradation::ShuffledWords => {
                    let sorted = |d: &Degraded| {
                        let mut w: Vec<String> = d.reply.split(' ').map(str::to_string).collect();
                        w.sort();
                        w
                    };
                    assert_eq!(sorted(&set[0]), sorted(&set[3]));
                }
                _ => {}
            }
        }
    }

    #[test]
    fn what_cannot_be_spoilt_is_left_out() {
        let all = |e| degrade(&[e], &Degradation::ALL, &|_| None, Stream::new(1));
        assert!(all(example(1, "hi there")).is_empty());
        let kinds: Vec<_> = all(example(1, "this is a reply without any other dialogue around"))
            .iter()
            .map(|d| d.kind)
            .collect();
        assert!(!kinds.is_empty() && !kinds.contains(&Degradation::OtherReply));
    }

    #[test]
    fn a_wrong_tone_differs_from_a_fitting_one_by_the_opener_alone() {
        let mut e = example(1, "have you seen the new one about a lonely robot");
        let of = |e: &Example| {
            degrade(std::slice::from_ref(e), &[Degradation::WrongEmotion], &|_| None, Stream::new(1))
        };
        assert!(of(&e).is_empty(), "no plain tone");
        let mut openers = Vec::new();
        for text in ["i loved that one, it was great", "i am so bored and sad today"] {
            e.context[0].text = text.into();
            let d = of(&e);
            assert_eq!(d.iter().map(|d| d.score).collect::<Vec<_>>(), [1.0, 0.0]);
            let opener = |i: usize| d[i].reply.strip_suffix(&format!(" {}", e.reply)).unwrap().to_owned();
            openers.push([opener(0), opener(1)]);
        }
        let [glad, low] = [&openers[0], &openers[1]];
        assert!(
            tone::GLAD_OPENERS.contains(&glad[0].as_str()) && tone::LOW_OPENERS.contains(&glad[1].as_str())
        );
        assert!(
            tone::LOW_OPENERS.contains(&low[0].as_str()) && tone::GLAD_OPENERS.contains(&low[1].as_str())
        );
    }

    #[test]
    fn films_give_way_to_those_turned_down() {
        let mut e = example(1, "you could watch Up (2009) or else Heat (1995)");
        e.reply_slots = "you could watch <movie> or else <movie>".into();
        (e.recommending, e.rejected) = (true, vec![ItemId(7)]);
        let titles = |i: ItemId| (i == ItemId(7)).then(|| "Saw (2004)".to_string());
        let d = degrade(&[e.clone()], &[Degradation::RejectedItem], &titles, Stream::new(1));
        assert_eq!(d.iter().map(|d| d.score).collect::<Vec<_>>(), [1.0, 0.0]);
        assert_eq!(d[1].reply, "you could watch Saw (2004) or else Saw (2004)");
        e.recommending = false;
        assert!(degrade(&[e], &[Degradation::RejectedItem], &titles, Stream::new(1)).is_empty());
    }
}
