//! What each metric name means: direction, scorer, one line of description.

use serde::{Deserialize, Serialize};

/// Whether a learned or rule scorer stands behind a metric, and whether training used it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scorer {
    /// Training optimised this very score: a rise proves less.
    Train,
    /// A scorer that training never saw.
    Eval,
    /// Plain counting.
    None,
}

/// Meaning of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// `Some(true)`: higher is better; `None`: neither way is better in itself.
    pub higher_is_better: Option<bool>,
    /// Scorer behind it.
    pub scorer: Scorer,
    /// One line, with unit.
    pub about: &'static str,
}

/// Meaning of `name`. Short names (`bleu_1`, `dist_2`) mean the same as the long ones they stand for.
pub fn info(name: &str) -> Info {
    let new = |higher_is_better, scorer, about| Info { higher_is_better, scorer, about };
    let up = Some(true);
    let down = Some(false);
    match name {
        "mean_reward" => new(up, Scorer::Train, "composite reward a reply"),
        "empathy" => new(up, Scorer::Train, "fit of the reply's emotion, training scorer, 0..1"),
        "empathy_eval" => new(up, Scorer::Eval, "fit of the reply's emotion, evaluation-only scorer, 0..1"),
        "epitome_eval" => {
            new(up, Scorer::Eval, "nearness to the human reply's levels of empathy (EPITOME), 0..1")
        }
        "empathy_plus_recommendation" => new(up, Scorer::Train, "sum of the means of both components"),
        "recommendation_accuracy" => {
            new(up, Scorer::None, "share of recommending turns whose reply names a labelled film")
        }
        "recommendation_precision" => {
            new(up, Scorer::None, "share of the films newly named at recommending turns that are labelled")
        }
        "recommendation_rate" => new(None, Scorer::None, "share of replies that newly name a film"),
        "unknown_title_rate" => new(down, Scorer::None, "share of replies with a title that no film bears"),
        "length" => new(None, Scorer::None, "tokens a reply"),
        "eos_rate" => new(up, Scorer::None, "share of replies that end by themselves"),
        "repetition" => new(down, Scorer::None, "share of repeated 3-grams within a reply"),
        "rouge_l" => new(up, Scorer::None, "ROUGE-L F1 against the human reply, 0..1"),
        "reference_nll" => new(down, Scorer::None, "nats a token of the human replies"),
        "reference_perplexity" => new(down, Scorer::None, "perplexity of the human replies, a token"),
        "kl" => new(None, Scorer::None, "KL to the baseline, nats a reply"),
        "kl_per_token" => new(None, Scorer::None, "KL to the baseline, nats a token"),
        "critic_value" => {
            new(up, Scorer::Train, "quality critic's overall value (it warm-starts the value function)")
        }
        "bleu.sacre" => new(up, Scorer::None, "corpus BLEU as sacrebleu prints it, 0..100"),
        _ if name.starts_with("reward/") => new(up, Scorer::Train, "raw score of a reward component"),
        _ if name.starts_with("bleu_") || name.starts_with("bleu.single_order") => new(
            up,
            Scorer::None,
            "sentence BLEU of that order alone, a non-empty reply (parity with the field's scripts)",
        ),
        _ if name.starts_with("bleu.cumulative") => {
            new(up, Scorer::None, "corpus BLEU up to that order, 0..1")
        }
        _ if name.starts_with("dist_") || name.starts_with("dist.inter.ratio") => {
            new(up, Scorer::None, "distinct / all n-grams of all replies (falls with length)")
        }
        _ if name.starts_with("dist.inter.per_sentence") => {
            new(up, Scorer::None, "distinct n-grams / non-empty replies (parity; rises with length)")
        }
        _ if name.starts_with("dist.intra") => new(up, Scorer::None, "distinct / all n-grams within a reply"),
        _ => new(None, Scorer::None, ""),
    }
}
