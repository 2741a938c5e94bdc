//! Metrics that can be computed on any resample of their units (replies, or dialogues).
//!
//! A resample is given as `times[i]`, how often unit `i` occurs in it.

use ecr_rewards::text::bleu::{BleuCounts, Smoothing};
use ecr_rewards::text::distinct::Distinct;

/// One metric with its per-unit values.
#[derive(Debug, Clone, PartialEq)]
pub enum Metric {
    /// Σ num / Σ den: means (den 1), means over applicable units (den 0 elsewhere), rates per token.
    Ratio {
        /// Numerators, `[units]`.
        num: Vec<f64>,
        /// Denominators, `[units]`, 0 or more.
        den: Vec<f64>,
    },
    /// exp(Σ num / Σ den): perplexity.
    Exp {
        /// Numerators, `[units]`.
        num: Vec<f64>,
        /// Denominators, `[units]`.
        den: Vec<f64>,
    },
    /// Cumulative corpus BLEU of orders 1..=k, no smoothing, 0..1 (NLTK `corpus_bleu`).
    CumulativeBleu(Vec<BleuCounts>, usize),
    /// sacrebleu's corpus score, 0..100.
    SacreBleu(Vec<BleuCounts>),
    /// Distinct n-grams / all n-grams.
    DistinctRatio(Distinct),
    /// Distinct n-grams / non-empty replies.
    DistinctPerReply(Distinct),
    /// Sum of metrics over the same units.
    Sum(Vec<Metric>),
}

impl Metric {
    /// Mean of the values that are there.
    pub fn mean(values: impl IntoIterator<Item = Option<f64>>) -> Self {
        let (num, den) = values.into_iter().map(|v| (v.unwrap_or(0.0), f64::from(v.is_some()))).unzip();
        Self::Ratio { num, den }
    }
    /// Value on a resample; `None` where nothing applies.
    pub fn value(&self, times: &[u32]) -> Option<f64> {
        let ratio = |num: &[f64], den: &[f64]| {
            let (mut a, mut b) = (0.0, 0.0);
            for ((n, d), &t) in num.iter().zip(den).zip(times) {
                a += f64::from(t) * n;
                b += f64::from(t) * d;
            }
            (b > 0.0).then(|| a / b)
        };
        let total = |counts: &[BleuCounts]| {
            let mut sum = BleuCounts::default();
            counts.iter().zip(times).for_each(|(c, &t)| sum.add(c, u64::from(t)));
            sum
        };
        match self {
            Self::Ratio { num, den } => ratio(num, den),
            Self::Exp { num, den } => ratio(num, den).map(f64::exp),
            Self::CumulativeBleu(c, k) => Some(total(c).cumulative(*k, Smoothing::None)),
            Self::SacreBleu(c) => Some(total(c).sacrebleu(false)),
            Self::DistinctRatio(d) => d.ratio(times),
            Self::DistinctPerReply(d) => d.per_reply(times),
            Self::Sum(parts) => parts.iter().map(|m| m.value(times)).sum(),
        }
    }
    /// Whether the metric applies to each unit by itself, `[units]`.
    pub fn applies(&self) -> Vec<bool> {
        match self {
            Self::Ratio { den, .. } | Self::Exp { den, .. } => den.iter().map(|&d| d > 0.0).collect(),
            Self::CumulativeBleu(c, _) | Self::SacreBleu(c) => vec![true; c.len()],
            Self::DistinctRatio(d) | Self::DistinctPerReply(d) => {
                (0..d.len()).map(|i| d.has_tokens(i)).collect()
            }
            Self::Sum(parts) => {
                let mut all = parts.iter().map(Self::applies);
                let first = all.next().unwrap_or_default();
                all.fold(first, |a, b| a.iter().zip(b).map(|(x, y)| *x || y).collect())
            }
        }
    }
    /// The metric over some units alone, for resamples of all of them; `None` for metrics that only a corpus has.
    pub fn within(&self, keep: &[bool]) -> Option<Self> {
        let cut = |xs: &[f64]| xs.iter().zip(keep).map(|(x, &k)| if k { *x } else { 0.0 }).collect();
        match self {
            Self::Ratio { num, den } => Some(Self::Ratio { num: cut(num), den: cut(den) }),
            Self::Exp { num, den } => Some(Self::Exp { num: cut(num), den: cut(den) }),
            Self::Sum(parts) => Some(Self::Sum(parts.iter().map(|m| m.within(keep)).collect::<Option<_>>()?)),
            _ => None,
        }
    }
    /// Value of each unit by itself, `[units]`; `None` for metrics that only a corpus has.
    pub fn units(&self) -> Option<Vec<Option<f64>>> {
        match self {
            Self::Ratio { num, den } | Self::Exp { num, den } => {
                Some(num.iter().zip(den).map(|(n, d)| (*d > 0.0).then(|| n / d)).collect())
            }
            _ => None,
        }
    }
    /// Whether every number that it is made of is finite.
    pub fn is_finite(&self) -> bool {
        match self {
            Self::Ratio { num, den } | Self::Exp { num, den } => num.iter().chain(den).all(|x| x.is_finite()),
            Self::Sum(parts) => parts.iter().all(Self::is_finite),
            _ => true,
        }
    }
}
