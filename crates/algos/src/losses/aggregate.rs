//! How token losses become one number. The four usual ways give .072, .289, .298 and .145 on one batch
//! (rl-fixtures.json), so the way has a name. Names as in verl.

use serde::{Deserialize, Serialize};

/// How token losses become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aggregation {
    /// Mean over all tokens of the batch.
    #[default]
    TokenMean,
    /// Sum over a sequence's tokens, mean over sequences.
    SeqMeanTokenSum,
    /// Mean over a sequence's tokens, mean over sequences.
    SeqMeanTokenMean,
    /// Sum over all tokens divided by the longest length of the batch (Dr. GRPO).
    SeqMeanTokenSumNorm,
}

impl Aggregation {
    /// Weight of each token, `[N]`, for a whole batch with these `lengths`.
    pub fn weights(self, lengths: &[usize]) -> Vec<f64> {
        let n: usize = lengths.iter().sum();
        let s = lengths.iter().filter(|&&l| l > 0).count() as f64;
        let longest = lengths.iter().copied().max().unwrap_or(0) as f64;
        let mut out = Vec::with_capacity(n);
        for &l in lengths {
            let w = match self {
                Self::TokenMean => 1.0 / n as f64,
                Self::SeqMeanTokenSum => 1.0 / s,
                Self::SeqMeanTokenMean => 1.0 / (s * l as f64),
                Self::SeqMeanTokenSumNorm => 1.0 / longest,
            };
            out.extend(std::iter::repeat_n(w, l));
        }
        out
    }
}
