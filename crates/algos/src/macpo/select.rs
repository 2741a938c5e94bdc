//! Choosing positives and negatives, and the guards against what low perplexity also likes.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{Criterion, MacpoConfig, NegativeKind};
use crate::Metrics;
use crate::dpo::Pair;

/// A response that may become a positive or a negative.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Which agent said it.
    pub source: usize,
    /// Its tokens, in the learner's vocabulary.
    pub response: Vec<u32>,
    /// Whether its end token was reached.
    pub finished: bool,
    /// Its log-probability under the learner, nats.
    pub logp: f64,
    /// Its reward; 0 where the criterion does not look.
    pub reward: f64,
}

impl Candidate {
    /// `exp(−logp / tokens)` under the learner, ≥ 1.
    pub fn perplexity(&self) -> f64 {
        (-self.logp / self.response.len().max(1) as f64).exp()
    }
}

/// What a positive must be like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CandidateGuards {
    /// It must have reached its end token. Default true.
    pub require_eos: bool,
    /// Fewest tokens. Default 2.
    pub min_tokens: usize,
    /// Most tokens; 0 is no limit. Default 0.
    pub max_tokens: usize,
    /// Length of the n-grams of `max_repetition`, ≥ 1. Default 3.
    pub ngram: usize,
    /// Largest share of n-grams that occurred before in the response, in [0, 1]. Default 0.2.
    pub max_repetition: f64,
    /// Similarity at which positive and negative count as the same, in [0, 1]. Default 0.95.
    pub max_similarity: f64,
}

impl Default for CandidateGuards {
    fn default() -> Self {
        Self {
            require_eos: true,
            min_tokens: 2,
            max_tokens: 0,
            ngram: 3,
            max_repetition: 0.2,
            max_similarity: 0.95,
        }
    }
}

/// Why a response may not be a positive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It was cut off.
    Unfinished,
    /// It repeats itself.
    Repetitive,
    /// It is too short or too long.
    Length,
}

/// Share of the n-grams of `tokens` that occurred earlier in it; 0 for fewer than two.
pub fn repetition(tokens: &[u32], n: usize) -> f64 {
    let grams = tokens.len().saturating_sub(n.max(1) - 1);
    if grams < 2 {
        return 0.0;
    }
    let different: HashSet<&[u32]> = tokens.windows(n.max(1)).collect();
    1.0 - different.len() as f64 / grams as f64
}

/// How much two responses share: Dice coefficient of their bigrams (of their tokens, if one has fewer than two),
/// counted with multiplicity; 1 for the same.
pub fn similarity(a: &[u32], b: &[u32]) -> f64 {
    if a == b {
        return 1.0;
    }
    let n = if a.len().min(b.len()) < 2 { 1 } else { 2 };
    let mut counts: HashMap<&[u32], i64> = HashMap::new();
    a.windows(n).for_each(|g| *counts.entry(g).or_default() += 1);
    let mut shared = 0.0;
    for g in b.windows(n) {
        if let Some(left) = counts.get_mut(g).filter(|left| **left > 0) {
            *left -= 1;
            shared += 1.0;
        }
    }
    let all = (a.windows(n).count() + b.windows(n).count()) as f64;
    // The same bigrams in another order are not the same response.
    if all > 0.0 { (2.0 * shared / all).min(1.0 - 1e-9) } else { 0.0 }
}

/// What is wrong with a response as a positive.
pub fn flaw(response: &[u32], finished: bool, guards: &CandidateGuards) -> Option<Flaw> {
    let n = response.len();
    if guards.require_eos && !finished {
        Some(Flaw::Unfinished)
    } else if n < guards.min_tokens || (guards.max_tokens > 0 && n > guards.max_tokens) {
        Some(Flaw::Length)
    } else if repetition(response, guards.ngram) > guards.max_repetition {
        Some(Flaw::Repetitive)
    } else {
        None
    }
}

/// The index of the positive among `candidates`; ties go to the first. `None` if the guards leave none.
pub fn choose_positive(candidates: &[Candidate], cfg: &MacpoConfig) -> Option<usize> {
    let (low, high) = cfg.perplexity_band;
    let sound: Vec<usize> = (0..candidates.len())
        .filter(|&i| {
            let c = &candidates[i];
            c.logp.is_finite()
                && c.reward.is_finite()
                && flaw(&c.response, c.finished, &cfg.guards).is_none()
                && (cfg.criterion != Criterion::PerplexityBand || (low..=high).contains(&c.perplexity()))
        })
        .collect();
    let rank = |i: usize, key: &dyn Fn(&Candidate) -> f64| {
        1 + sound.iter().filter(|&&j| key(&candidates[j]) < key(&candidates[i])).count()
    };
    let cost = |i: usize| match cfg.criterion {
        Criterion::PerplexityMin => candidates[i].perplexity(),
        Criterion::PerplexityBand | Criterion::Reward => -candidates[i].reward,
        Criterion::RewardPerplexity => (rank(i, &|c| -c.reward) * rank(i, &Candidate::perplexity)) as f64,
    };
    sound.iter().copied().min_by(|&a, &b| cost(a).total_cmp(&cost(b)))
}

/// The index of the negative among `candidates` for this positive: the most familiar (hard), or the first (easy), that
/// is not (nearly) the positive itself.
pub fn choose_negative(candidates: &[Candidate], chosen: &[u32], cfg: &MacpoConfig) -> Option<usize> {
    let differs = |i: &usize| {
        let c = &candidates[*i];
        !c.response.is_empty() && similarity(&c.response, chosen) < cfg.guards.max_similarity
    };
    let mut sound = (0..candidates.len()).filter(differs);
    match cfg.negatives {
        NegativeKind::Easy => sound.next(),
        NegativeKind::Hard => {
            sound.min_by(|&a, &b| candidates[a].perplexity().total_cmp(&candidates[b].perplexity()))
        }
    }
}

/// The pairs of a learner's round, one a prompt at most, and what became of the rest. `positives[i]` and
/// `negatives[i]` are the candidates of `prompts[i]`.
pub fn build_pairs(
    prompts: &[Vec<u32>],
    positives: &[Vec<Candidate>],
    negatives: &[Vec<Candidate>],
    cfg: &MacpoConfig,
) -> (Vec<Pair>, Metrics) {
    let mut pairs = Vec::new();
    let (mut flaws, mut none, mut same) = ([0usize; 3], 0usize, 0usize);
    let mut sources: Vec<usize> = Vec::new();
    let mut sums = [0.0; 7];
    for ((prompt, positives), negatives) in prompts.iter().zip(positives).zip(negatives) {
        for c in positives {
            if let Some(f) = flaw(&c.response, c.finished, &cfg.guards) {
                flaws[f as usize] += 1;
            }
        }
        let Some(plus) = choose_positive(positives, cfg).map(|i| &positives[i]) else {
            none += 1;
            continue;
        };
        let Some(minus) = choose_negative(negatives, &plus.response, cfg).map(|i| &negatives[i]) else {
            same += 1;
            continue;
        };
        if sources.len() <= plus.source {
            sources.resize(plus.source + 1, 0);
        }
        sources[plus.source] += 1;
        let numbers = [
            plus.response.len() as f64,
            minus.response.len() as f64,
            plus.perplexity(),
            minus.perplexity(),
            repetition(&plus.response, cfg.guards.ngram),
            plus.reward,
            mutual_similarity(positives),
        ];
        sums.iter_mut().zip(numbers).for_each(|(s, x)| *s += x);
        pairs.push(Pair {
            prompt: prompt.clone(),
            chosen: plus.response.clone(),
            rejected: minus.response.clone(),
            weight: 1.0,
        });
    }
    let mut metrics = Metrics::default();
    let n = pairs.len().max(1) as f64;
    for (name, count) in [
        ("pairs/kept", pairs.len()),
        ("pairs/without_positive", none),
        ("pairs/without_negative", same),
        ("candidates/unfinished", flaws[Flaw::Unfinished as usize]),
        ("candidates/repetitive", flaws[Flaw::Repetitive as usize]),
        ("candidates/length", flaws[Flaw::Length as usize]),
    ] {
        metrics.set(name, count as f64);
    }
    let names = [
        "response_length/chosen",
        "response_length/rejected",
        "perplexity/chosen",
        "perplexity/rejected",
        "repetition/chosen",
        "reward/chosen",
        "candidates/similarity",
    ];
    names.iter().zip(sums).for_each(|(name, s)| metrics.set(name, s / n));
    for (k, count) in sources.iter().enumerate() {
        metrics.set(&format!("chosen_from/{k}"), *count as f64 / n);
    }
    (pairs, metrics)
}

/// Mean similarity of all pairs of candidates: 1 when the teachers say the same.
fn mutual_similarity(candidates: &[Candidate]) -> f64 {
    let (mut sum, mut n) = (0.0, 0.0f64);
    for (i, a) in candidates.iter().enumerate() {
        for b in &candidates[i + 1..] {
            sum += similarity(&a.response, &b.response);
            n += 1.0;
        }
    }
    if n > 0.0 { sum / n } else { 1.0 }
}

/// Drops from `pairs` those whose positive is a negative of `others` (or of `pairs` itself) for the same prompt.
/// Returns how many.
pub fn drop_contradictions(pairs: &mut Vec<Pair>, others: &[Pair]) -> usize {
    let rejected: HashSet<(Vec<u32>, Vec<u32>)> =
        pairs.iter().chain(others).map(|p| (p.prompt.clone(), p.rejected.clone())).collect();
    let before = pairs.len();
    pairs.retain(|p| !rejected.contains(&(p.prompt.clone(), p.chosen.clone())));
    before - pairs.len()
}
