//! Probes whose answers are known: a judge that stops telling a good reply from none is noticed.
//!
//! A pair is one poor reply (nothing said, nothing recommended) and one good reply to the same seeker. The judge is
//! fine while the good one's overall score lies at least [`MARGIN`] above the poor one's. A pair that fails is
//! confirmed with another pair before the alarm, so that one odd answer does not stop a run.

use ecr_core::{Role, Utterance};

use crate::item::{Facts, Item};

/// Least distance between the overall scores of a pair.
pub const MARGIN: f64 = 0.2;
/// The canary bound: a poor reply scores at most this with a judge that is fit to be used.
pub const BOUND: f64 = 0.5;
/// Items between two pairs: two probes a hundred items.
pub const EVERY: usize = 100;

/// (what the seeker says, film named before, poor reply, good reply, film of the good reply).
const PAIRS: [[&str; 5]; 4] = [
    [
        "Hi! I had a rough week and need something warm and funny. I loved Paddington (2014).",
        "Paddington (2014)",
        "ok",
        "I am sorry your week was rough, you have earned a cosy evening! Since Paddington (2014) worked for you, try \
         Paddington 2 (2017): it is just as gentle and even funnier, with Hugh Grant as a vain old actor. Shall I \
         look for something more grown-up, too?",
        "Paddington 2 (2017)",
    ],
    [
        "I am in the mood for a tense science fiction film, like Alien (1979). Any ideas?",
        "Alien (1979)",
        "I do not know.",
        "Great taste, Alien (1979) still keeps me on edge! You might enjoy The Thing (1982): a team in the Antarctic \
         that cannot trust one another any more, slow dread and amazing practical effects. Do you like it that dark, \
         or should it be more of an adventure?",
        "The Thing (1982)",
    ],
    [
        "My kids adored Toy Story (1995). What could we watch together tonight?",
        "Toy Story (1995)",
        "hmm",
        "A film night together sounds lovely! If they adored Toy Story (1995), Finding Nemo (2003) should be a hit: a \
         father crosses the ocean to find his son, very funny and touching, and fine from about five years on. How \
         old are they?",
        "Finding Nemo (2003)",
    ],
    [
        "I just broke up and I want to cry properly. The Notebook (2004) always gets me.",
        "The Notebook (2004)",
        "Bye.",
        "Oh, I am so sorry, that hurts. A good cry can help. Eternal Sunshine of the Spotless Mind (2004) may be just \
         right: two people try to forget each other and find out why they should not. Would you rather end on a \
         hopeful note, or let it all out?",
        "Eternal Sunshine of the Spotless Mind (2004)",
    ],
];

/// A probe: the item and its facts, which need no catalogue.
pub type Probe = (Item, Facts);

/// The `n`-th pair, poor reply first; they repeat.
pub fn pair(n: usize) -> [Probe; 2] {
    let [says, before, poor, good, film] = PAIRS[n % PAIRS.len()];
    let probe = |which: &str, response: &str, named: &[&str]| {
        let item = Item {
            id: format!("canary {n} {which}"),
            conversation: "canary".into(),
            context: vec![Utterance { role: Role::Seeker, text: says.into() }],
            response: response.into(),
        };
        let named: Vec<String> = named.iter().map(|s| (*s).into()).collect();
        (item, Facts { earlier: Vec::new(), recommends: !named.is_empty(), named })
    };
    let named: Vec<&str> = [before, film].into_iter().filter(|f| good.contains(f)).collect();
    [probe("poor", poor, &[]), probe("good", good, &named)]
}

/// Whether a pair of overall scores (poor, good) is told apart.
pub fn told_apart(overall: [f64; 2]) -> bool {
    overall[1] - overall[0] >= MARGIN && overall[0] <= BOUND
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::flag;

    #[test]
    fn constant_and_inverted_judges_fail() {
        assert!(told_apart([0.1, 0.9]));
        for bad in [[0.5, 0.5], [0.9, 0.1], [0.0, 0.0], [1.0, 1.0], [0.7, 0.95]] {
            assert!(!told_apart(bad), "{bad:?}");
        }
    }

    #[test]
    fn probes_are_replies_that_would_be_sent() {
        for n in 0..8 {
            let [(poor, p), (good, g)] = pair(n);
            assert_eq!((flag(&poor.response), flag(&good.response)), (None, None));
            assert!(!p.recommends && g.recommends && poor.context == good.context);
            assert!(g.named.iter().all(|f| good.response.contains(f.as_str())), "{g:?}");
        }
    }
}
