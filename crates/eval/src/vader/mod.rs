//! VADER (Hutto and Gilbert, ICWSM 2014): sentiment of a text by a lexicon of rated words and rules for degree, negation,
//! contrast, capitals and punctuation. Here it is a baseline that a trained critic has to beat, nothing else.
//!
//! Follows `vaderSentiment` 3.3.2 (MIT; its licence and lexicon lie beside this file), except that emoji are not replaced by
//! their descriptions. Lexicon: entries that the original's look-up can reach.

use std::sync::LazyLock;

use rustc_hash::FxHashMap;

static LEXICON: LazyLock<FxHashMap<&'static str, f64>> = LazyLock::new(|| {
    let lines = include_str!("lexicon.tsv").lines();
    lines.filter_map(|l| l.split_once('\t')).filter_map(|(w, v)| Some((w, v.parse().ok()?))).collect()
});

/// Change by a word of degree.
const DEGREE: f64 = 0.293;
/// Change by capitals among lower case.
const CAPITALS: f64 = 0.733;
/// Factor of a negation.
const NEGATION: f64 = -0.74;

#[rustfmt::skip]
const MORE: &[&str] = &[
    "absolutely", "amazingly", "awfully", "completely", "considerable", "considerably", "decidedly", "deeply", "effing",
    "enormous", "enormously", "entirely", "especially", "exceptional", "exceptionally", "extreme", "extremely",
    "fabulously", "flipping", "flippin", "frackin", "fracking", "fricking", "frickin", "frigging", "friggin", "fully",
    "fuckin", "fucking", "fuggin", "fugging", "greatly", "hella", "highly", "hugely", "incredible", "incredibly",
    "intensely", "major", "majorly", "more", "most", "particularly", "purely", "quite", "really", "remarkably", "so",
    "substantially", "thoroughly", "total", "totally", "tremendous", "tremendously", "uber", "unbelievably",
    "unusually", "utter", "utterly", "very",
];
#[rustfmt::skip]
const LESS: &[&str] = &[
    "almost", "barely", "hardly", "just enough", "kind of", "kinda", "kindof", "kind-of", "less", "little", "marginal",
    "marginally", "occasional", "occasionally", "partly", "scarce", "scarcely", "slight", "slightly", "somewhat",
    "sort of", "sorta", "sortof", "sort-of",
];
/// Words that negate, apart from those with `n't`.
#[rustfmt::skip]
const NOT: &[&str] = &[
    "aint", "arent", "cannot", "cant", "couldnt", "darent", "didnt", "doesnt", "dont", "hadnt", "hasnt", "havent",
    "isnt", "mightnt", "mustnt", "neither", "neednt", "never", "none", "nope", "nor", "not", "nothing", "nowhere",
    "oughtnt", "shant", "shouldnt", "uhuh", "wasnt", "werent", "uh-uh", "without", "wont", "wouldnt", "rarely",
    "seldom", "despite",
];
#[rustfmt::skip]
const IDIOMS: &[(&str, f64)] = &[
    ("the shit", 3.0), ("the bomb", 3.0), ("bad ass", 1.5), ("badass", 1.5), ("bus stop", 0.0), ("yeah right", -2.0),
    ("kiss of death", -1.5), ("to die for", 3.0), ("beating heart", 3.5),
];

fn degree(word: &str) -> Option<f64> {
    let of = |list: &[&str], by: f64| list.contains(&word).then_some(by);
    of(MORE, DEGREE).or_else(|| of(LESS, -DEGREE))
}

fn idiom(words: &str) -> Option<f64> {
    IDIOMS.iter().find(|(w, _)| *w == words).map(|i| i.1)
}

fn negates(word: &str) -> bool {
    NOT.contains(&word) || word.contains("n't")
}

/// As Python's `isupper`.
fn capitals(word: &str) -> bool {
    word.chars().any(char::is_uppercase) && !word.chars().any(char::is_lowercase)
}

struct Text<'a> {
    words: Vec<&'a str>,
    lower: Vec<String>,
    /// Some words are capitals and some are not.
    mixed: bool,
}

impl<'a> Text<'a> {
    fn new(text: &'a str) -> Self {
        let strip = |w: &'a str| {
            let inner = w.trim_matches(|c: char| c.is_ascii_punctuation());
            // What is left of an emoticon is too short: keep it whole.
            if inner.chars().count() <= 2 { w } else { inner }
        };
        let words: Vec<&str> = text.split_whitespace().map(strip).collect();
        let loud = words.iter().filter(|w| capitals(w)).count();
        let lower = words.iter().map(|w| w.to_lowercase()).collect();
        Self { mixed: loud > 0 && loud < words.len(), words, lower }
    }
    fn known(&self, i: usize) -> bool {
        LEXICON.contains_key(self.lower[i].as_str())
    }
    fn is(&self, i: usize, words: &[&str]) -> bool {
        words.contains(&self.lower[i].as_str())
    }
    /// Words `from..=to` as one phrase.
    fn phrase(&self, from: usize, to: usize) -> String {
        self.lower[from..=to].join(" ")
    }

    fn valence(&self, i: usize) -> f64 {
        let last = self.words.len() - 1;
        if degree(&self.lower[i]).is_some() || (i < last && self.is(i, &["kind"]) && self.is(i + 1, &["of"]))
        {
            return 0.0;
        }
        let Some(&rated) = LEXICON.get(self.lower[i].as_str()) else { return 0.0 };
        let mut v = rated;
        if self.is(i, &["no"]) && i < last && self.known(i + 1) {
            v = 0.0;
        }
        let no = |back: usize| i >= back && self.is(i - back, &["no"]);
        if no(1) || no(2) || (no(3) && self.is(i - 1, &["or", "nor"])) {
            v = rated * NEGATION;
        }
        if self.mixed && capitals(self.words[i]) {
            v += if v > 0.0 { CAPITALS } else { -CAPITALS };
        }
        for back in 1..=3 {
            if i < back || self.known(i - back) {
                continue;
            }
            v += self.scalar(i - back, v) * [1.0, 0.95, 0.9][back - 1];
            v = self.negated(v, i, back);
            if back == 3 {
                v = self.idioms(v, i);
            }
        }
        // "least", unless "at least" or "very least".
        let least = i > 0 && self.is(i - 1, &["least"]) && !self.known(i - 1);
        if least && !(i > 1 && self.is(i - 2, &["at", "very"])) { v * NEGATION } else { v }
    }
    /// What a word of degree before a word of valence `v` adds.
    fn scalar(&self, i: usize, v: f64) -> f64 {
        let Some(d) = degree(&self.lower[i]) else { return 0.0 };
        let d = if v < 0.0 { -d } else { d };
        match self.mixed && capitals(self.words[i]) {
            true if v > 0.0 => d + CAPITALS,
            true => d - CAPITALS,
            false => d,
        }
    }
    fn negated(&self, v: f64, i: usize, back: usize) -> f64 {
        let this = ["so", "this"];
        let (never, without) = (self.is(i - back, &["never"]), self.is(i - back, &["without"]));
        let stronger = match back {
            1 => false,
            2 => never && self.is(i - 1, &this),
            // The original's precedence: "so" or "this" right before is enough.
            _ => (never && self.is(i - 2, &this)) || self.is(i - 1, &this),
        };
        let doubt = (back >= 2 && self.is(i - 1, &["doubt"])) || (back == 3 && self.is(i - 2, &["doubt"]));
        if stronger {
            v * 1.25
        } else if (back >= 2 && without && doubt) || !negates(&self.lower[i - back]) {
            v
        } else {
            v * NEGATION
        }
    }
    /// Fixed phrases around word `i` ≥ 3, and words of degree made of two.
    fn idioms(&self, mut v: f64, i: usize) -> f64 {
        let before = [(i - 1, i), (i - 2, i), (i - 2, i - 1), (i - 3, i - 1), (i - 3, i - 2)];
        if let Some(x) = before.iter().find_map(|&(a, b)| idiom(&self.phrase(a, b))) {
            v = x;
        }
        for to in [i + 1, i + 2] {
            if to < self.words.len()
                && let Some(x) = idiom(&self.phrase(i, to))
            {
                v = x;
            }
        }
        let two = [(i - 3, i - 1), (i - 3, i - 2), (i - 2, i - 1)];
        v + two.iter().filter_map(|&(a, b)| degree(&self.phrase(a, b))).sum::<f64>()
    }
}

/// VADER's compound score, -1 (most negative) .. 1.
pub fn compound(text: &str) -> f64 {
    let t = Text::new(text.trim());
    let mut v: Vec<f64> = (0..t.words.len()).map(|i| t.valence(i)).collect();
    if let Some(but) = t.lower.iter().position(|w| w == "but") {
        for k in 0..v.len() {
            // As the original: the first word of equal valence is the one that changes.
            let Some(i) = v.iter().position(|x| *x == v[k]) else { continue };
            v[i] *= match i.cmp(&but) {
                std::cmp::Ordering::Less => 0.5,
                std::cmp::Ordering::Equal => 1.0,
                std::cmp::Ordering::Greater => 1.5,
            };
        }
    }
    let count = |c: char| text.matches(c).count();
    let questions = match count('?') {
        n @ 2..=3 => 0.18 * n as f64,
        0 | 1 => 0.0,
        _ => 0.96,
    };
    let emphasis = 0.292 * count('!').min(4) as f64 + questions;
    let sum: f64 = v.iter().sum();
    let sum = if sum == 0.0 { 0.0 } else { sum + emphasis.copysign(sum) };
    sum / (sum * sum + 15.0).sqrt()
}

#[cfg(test)]
mod tests {
    use super::compound;

    /// `compound` of vaderSentiment 3.3.2 on its own examples and on a few more.
    #[test]
    fn scores_are_those_of_the_original() {
        let table = include_str!("expected.tsv");
        let mut rows = 0;
        for (score, text) in table.lines().filter_map(|l| l.split_once('\t')) {
            let want: f64 = score.parse().unwrap_or(9.0);
            let got = compound(text);
            assert!((got - want).abs() < 6e-5, "{text}: {got}, expected {want}");
            rows += 1;
        }
        assert!(rows > 40);
    }
}
