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
}

/// Estimate of each token's KL(π‖π_ref), nats, `[N]`.
pub fn kl_tokens(estimator: KlEstimator, logp: &[f32], ref_logp: &[f32]) -> Vec<f64> {
    logp.iter().zip(ref_logp).map(|(&a, &b)| estimator.of(f64::from(a) - f64::from(b))).collect()
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
