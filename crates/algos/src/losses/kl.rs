//! KL estimators from samples of π (Schulman 2020), with `d = log π − log π_ref`:
//! k1 = d (unbiased, may be negative), k2 = d²/2 (biased), k3 = e^{−d} − 1 + d (unbiased, ≥ 0).

use serde::{Deserialize, Serialize};

/// Which estimate of a token's KL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KlEstimator {
    /// `d`.
    #[default]
    K1,
    /// `d²/2`.
    K2,
    /// `e^{−d} − 1 + d`.
    K3,
}

impl KlEstimator {
    /// The estimate for the log-ratio `d = log π − log π_ref`.
    pub fn of(self, d: f64) -> f64 {
        match self {
            Self::K1 => d,
            Self::K2 => 0.5 * d * d,
            Self::K3 => (-d).exp_m1() + d,
        }
    }
    /// Its derivative by `d`.
    pub fn slope(self, d: f64) -> f64 {
        match self {
            Self::K1 => 1.0,
            Self::K2 => d,
            Self::K3 => -(-d).exp_m1(),
        }
    }
}

/// Estimate of each token's KL(π‖π_ref), nats, `[N]`.
pub fn kl_tokens(estimator: KlEstimator, logp: &[f32], ref_logp: &[f32]) -> Vec<f64> {
    logp.iter().zip(ref_logp).map(|(&a, &b)| estimator.of(f64::from(a) - f64::from(b))).collect()
}

/// Where the KL to the reference acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KlPlace {
    /// Subtracted from the reward: a policy gradient of the KL-regularised objective.
    #[default]
    Reward,
    /// A term of the loss.
    Loss,
}

/// Loss and gradient of a KL term.
#[derive(Debug, Clone, Default)]
pub struct KlLoss {
    /// `coef · Σ weight · k(d)`.
    pub loss: f64,
    /// `∂loss/∂logp`, `[N]`.
    pub d_logp: Vec<f32>,
}

/// KL to the reference as a term of the loss, for `logp` and `ref_logp` `[N]`, `coef` ≥ 0, token `weights` `[N]`.
/// Unlike the penalty in the reward it is not a policy gradient: of the three, only k2's gradient is that of the KL
/// in expectation (k1's is zero, k3's is that of KL(π_ref‖π)).
pub fn kl_loss(estimator: KlEstimator, logp: &[f32], ref_logp: &[f32], coef: f64, weights: &[f64]) -> KlLoss {
    let mut out = KlLoss { loss: 0.0, d_logp: Vec::with_capacity(logp.len()) };
    for t in 0..logp.len() {
        let d = f64::from(logp[t]) - f64::from(ref_logp[t]);
        out.loss += coef * weights[t] * estimator.of(d);
        out.d_logp.push((coef * weights[t] * estimator.slope(d)) as f32);
    }
    out
}

/// Sums token numbers `[N]` over each sequence, `[S]`.
pub fn sequence_sums(tokens: &[f64], lengths: &[usize]) -> Vec<f64> {
    let mut start = 0;
    lengths
        .iter()
        .map(|&l| {
            start += l;
            tokens[start - l..start].iter().sum()
        })
        .collect()
}
