//! Learning-rate schedules with warm-up.

use serde::{Deserialize, Serialize};

/// Shape of the learning rate over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Constant after warm-up.
    Constant,
    /// Linear to zero.
    Linear,
    /// Half a cosine to zero.
    Cosine,
}

impl Schedule {
    /// Factor on the peak rate at `step` (0-based) of `total`, after `warmup` steps of linear rise.
    pub fn factor(self, step: u64, warmup: u64, total: u64) -> f64 {
        if step < warmup {
            return (step + 1) as f64 / warmup as f64;
        }
        let span = total.saturating_sub(warmup).max(1) as f64;
        let x = ((step - warmup) as f64 / span).min(1.0);
        match self {
            Self::Constant => 1.0,
            Self::Linear => 1.0 - x,
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * x).cos()),
        }
    }
}
