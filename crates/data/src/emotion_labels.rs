//! One total mapping of foreign emotion labels to ECR's nine, and the labelled texts of two public data sets.
//!
//! Start: ECR's own mapping of 93 recognised types (paper Table 8, ecr.md §1.3). Labels that it lacks went where
//! its nearest word lies. Two data sets are kept apart on purpose: the scorer used in training learns from
//! GoEmotions only, its evaluation-only twin from EmpatheticDialogues and listener intents, so that what PPO
//! climbs is not what it is judged by. Neither has every label: see [`missing`].

use std::collections::BTreeMap;
use std::path::Path;

use ecr_core::seam::{EMOTIONS, EmotionDistribution};
use ecr_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::records::read_jsonl;
use crate::redial::Split;
use crate::text;

/// GoEmotions' 28 labels.
const GOEMOTIONS: &[(&str, &str)] = &[
    ("admiration", "like"),         // Table 8
    ("amusement", "happy"),         // Table 8
    ("anger", "negative"),          // as frustration
    ("annoyance", "negative"),      // Table 8
    ("approval", "like"),           // Table 8
    ("caring", "grateful"),         // as friendly
    ("confusion", "curious"),       // Table 8
    ("curiosity", "curious"),       // as curious
    ("desire", "like"),             // as longing
    ("disappointment", "negative"), // Table 8
    ("disapproval", "negative"),    // as dislike
    ("disgust", "negative"),        // as dislike
    ("embarrassment", "negative"),  // as regretful
    ("excitement", "like"),         // Table 8
    ("fear", "negative"),           // Table 8
    ("gratitude", "grateful"),      // as grateful
    ("grief", "negative"),          // as sad
    ("joy", "happy"),               // Table 8
    ("love", "like"),               // Table 8
    ("nervousness", "negative"),    // as scared
    ("neutral", "neutral"),         // Table 8
    ("optimism", "curious"),        // as hopeful
    ("pride", "happy"),             // as joy
    ("realization", "surprise"),    // sudden insight, as impressed
    ("relief", "happy"),            // as joy
    ("remorse", "negative"),        // as regretful
    ("sadness", "negative"),        // as sad
    ("surprise", "surprise"),       // Table 8
];

/// EmpatheticDialogues' 32 emotions.
const EMPATHETIC: &[(&str, &str)] = &[
    ("afraid", "negative"),       // as scared
    ("angry", "negative"),        // as frustration
    ("annoyed", "negative"),      // as annoyance
    ("anticipating", "curious"),  // as anticipation
    ("anxious", "negative"),      // as fear
    ("apprehensive", "negative"), // as fear
    ("ashamed", "negative"),      // as regretful
    ("caring", "grateful"),       // as friendly
    ("confident", "happy"),       // as joy
    ("content", "like"),          // Table 8
    ("devastated", "negative"),   // as sad
    ("disappointed", "negative"), // as disappointment
    ("disgusted", "negative"),    // as dislike
    ("embarrassed", "negative"),  // as regretful
    ("excited", "like"),          // as excitement
    ("faithful", "like"),         // as fondness
    ("furious", "negative"),      // as frustration
    ("grateful", "grateful"),     // Table 8
    ("guilty", "negative"),       // as regretful
    ("hopeful", "curious"),       // Table 8
    ("impressed", "surprise"),    // Table 8
    ("jealous", "negative"),      // as dissatisfaction
    ("joyful", "happy"),          // as joy
    ("lonely", "negative"),       // as sad
    ("nostalgic", "nostalgia"),   // as nostalgia
    ("prepared", "neutral"),      // as calm
    ("proud", "happy"),           // as joy
    ("sad", "negative"),          // Table 8
    ("sentimental", "nostalgia"), // as nostalgia
    ("surprised", "surprise"),    // as surprise
    ("terrified", "negative"),    // as scared
    ("trusting", "like"),         // as positive
];

/// Listener intents (EmpatheticIntents), weak and by hand.
const INTENTS: &[(&str, &str)] = &[
    ("acknowledging", "agreement"),          // as familiarity
    ("advising", "neutral"),                 // no emotion of its own
    ("agreeing", "agreement"),               // as agreement
    ("appreciating", "grateful"),            // as appreciative
    ("consoling", "grateful"),               // as friendly
    ("disapproving", "negative"),            // as disagreement
    ("encouraging", "like"),                 // as positive
    ("expressing_care_concern", "grateful"), // as friendly
    ("expressing_relief", "happy"),          // as joy
    ("neutral", "neutral"),                  // Table 8
    ("questioning", "curious"),              // as request
    ("sharing_experience", "neutral"),       // no emotion of its own
    ("sharing_opinions", "neutral"),         // no emotion of its own
    ("suggesting", "neutral"),               // no emotion of its own
    ("sympathizing", "negative"),            // sadness shared
    ("wishing", "grateful"),                 // as friendly
];

/// Where labels come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelSource {
    /// GoEmotions: the training scorer.
    GoEmotions,
    /// EmpatheticDialogues' emotions and listener intents: the evaluation-only scorer.
    Empathetic,
    /// The demo generator's own labels, which are ECR's nine.
    Demo,
}

/// Index in [`EMOTIONS`] of a label of `source`. `None` only for a label that the data do not have.
pub fn map(source: LabelSource, label: &str) -> Option<usize> {
    let find = |table: &'static [(&'static str, &'static str)]| {
        table.iter().find(|(l, _)| *l == label).map(|(_, e)| *e)
    };
    let emotion = match source {
        LabelSource::GoEmotions => find(GOEMOTIONS)?,
        LabelSource::Empathetic => find(EMPATHETIC).or_else(|| find(INTENTS))?,
        LabelSource::Demo => return EMOTIONS.iter().position(|e| *e == label),
    };
    EMOTIONS.iter().position(|e| *e == emotion)
}

/// A text with its emotion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabelledText {
    /// Cleaned text.
    pub text: String,
    /// Distribution over [`EMOTIONS`]: one label is 1, several share equally.
    pub target: EmotionDistribution,
    /// Part of the data.
    pub split: Split,
}

impl LabelledText {
    /// The most probable label, the first of equals.
    pub fn hard(&self) -> usize {
        (0..9).fold(0, |best, i| if self.target[i] > self.target[best] { i } else { best })
    }
}

fn target(source: LabelSource, labels: &[String], at: impl Fn() -> String) -> Result<EmotionDistribution> {
    let mut p = [0.0f32; 9];
    for l in labels {
        let i = map(source, l).ok_or_else(|| {
            Error::data(format!("map emotion label of {}", at()))
                .expected(format!("a label of {source:?}"))
                .got(format!("\"{l}\""))
        })?;
        p[i] += 1.0 / labels.len() as f32;
    }
    Ok(p)
}

/// Reads one `goemotions_*.jsonl.gz`. A text with several labels gets each share equally.
pub fn goemotions(path: &Path, split: Split) -> Result<Vec<LabelledText>> {
    #[derive(Deserialize)]
    struct Row {
        text: String,
        labels: Vec<String>,
    }
    let rows: Vec<Row> = read_jsonl(path)?;
    let mut out = Vec::with_capacity(rows.len());
    for (i, r) in rows.iter().enumerate().filter(|(_, r)| !r.labels.is_empty()) {
        let target = target(LabelSource::GoEmotions, &r.labels, || format!("{}:{}", path.display(), i + 1))?;
        out.push(LabelledText { text: text::clean(&r.text), target, split });
    }
    Ok(out)
}

/// Reads one `empathetic_dialogues_*.jsonl.gz`: the situation and the first speaker turn bear the dialogue's gold
/// `emotion` (later speaker turns drift from it and are left out), listener turns their weak `auto_label`.
pub fn empathetic(path: &Path, split: Split) -> Result<Vec<LabelledText>> {
    #[derive(Deserialize)]
    struct Said {
        role: String,
        text: String,
        #[serde(default)]
        auto_label: Option<String>,
    }
    #[derive(Deserialize)]
    struct Row {
        emotion: String,
        situation: String,
        turns: Vec<Said>,
    }
    let rows: Vec<Row> = read_jsonl(path)?;
    let mut out = Vec::new();
    for (i, r) in rows.iter().enumerate() {
        let mut push = |s: &str, label: &str| -> Result<()> {
            let text = text::clean(&s.replace("_comma_", ","));
            if !text.is_empty() {
                let at = || format!("{}:{}", path.display(), i + 1);
                let target = target(LabelSource::Empathetic, &[label.to_string()], at)?;
                out.push(LabelledText { text, target, split });
            }
            Ok(())
        };
        push(&r.situation, &r.emotion)?;
        if let Some(first) = r.turns.iter().find(|t| t.role == "speaker") {
            push(&first.text, &r.emotion)?;
        }
        for t in r.turns.iter().filter(|t| t.role == "listener") {
            if let Some(label) = &t.auto_label {
                push(&t.text, label)?;
            }
        }
    }
    Ok(out)
}

/// Reads `listener_intents_{manual,extended}.jsonl.gz`. Rows of another `split` are left out; rows without one
/// (the manual file) count as `split`.
pub fn intents(path: &Path, split: Split) -> Result<Vec<LabelledText>> {
    #[derive(Deserialize)]
    struct Row {
        intent: String,
        text: String,
        #[serde(default)]
        split: Option<Split>,
    }
    let rows: Vec<Row> = read_jsonl(path)?;
    let mut out = Vec::new();
    for (i, r) in rows.iter().enumerate().filter(|(_, r)| r.split.is_none_or(|s| s == split)) {
        let at = || format!("{}:{}", path.display(), i + 1);
        let target = target(LabelSource::Empathetic, std::slice::from_ref(&r.intent), at)?;
        out.push(LabelledText { text: text::clean(&r.text), target, split });
    }
    Ok(out)
}

/// The emotions that no text of `rows` has: what a scorer trained on them cannot know.
pub fn missing(rows: &[LabelledText]) -> Vec<&'static str> {
    (0..9).filter(|&i| rows.iter().all(|r| r.target[i] == 0.0)).map(|i| EMOTIONS[i]).collect()
}

/// Texts by hard label, in label order, labels without a text included.
pub fn histogram(rows: &[LabelledText]) -> BTreeMap<&'static str, usize> {
    let mut n: BTreeMap<_, _> = EMOTIONS.iter().map(|e| (*e, 0)).collect();
    for r in rows {
        *n.entry(EMOTIONS[r.hard()]).or_default() += 1;
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_has_one_place() {
        for (table, n) in [(GOEMOTIONS, 28), (EMPATHETIC, 32), (INTENTS, 16)] {
            assert_eq!(table.len(), n);
            assert!(table.windows(2).all(|w| w[0].0 < w[1].0), "sorted, no doubles");
            assert!(table.iter().all(|(_, e)| EMOTIONS.contains(e)));
        }
        let both: Vec<_> = EMPATHETIC.iter().filter(|(l, _)| INTENTS.iter().any(|(i, _)| i == l)).collect();
        assert!(both.is_empty(), "{both:?}");
        assert_eq!(map(LabelSource::GoEmotions, "nostalgic"), None);
        assert_eq!(map(LabelSource::Empathetic, "admiration"), None);
        for (i, e) in EMOTIONS.iter().enumerate() {
            assert_eq!(map(LabelSource::Demo, e), Some(i));
        }
    }

    #[test]
    fn the_training_scorer_lacks_nostalgia_and_agreement() {
        let has = |t: &[(&str, &str)], e: &str| t.iter().any(|(_, x)| *x == e);
        let lack: Vec<_> = EMOTIONS.iter().filter(|e| !has(GOEMOTIONS, e)).collect();
        assert_eq!(lack, [&"nostalgia", &"agreement"]);
        assert!(EMOTIONS.iter().all(|e| has(EMPATHETIC, e) || has(INTENTS, e)));
    }
}
