//! KL coefficient β, fixed or adaptive (Ziegler et al. 2019, §2.2): `e = clip(KL/target − 1, ±0.2)`,
//! `β ← β·(1 + e·n/horizon)`. The controller is plain data, so that checkpoints hold it.

use serde::{Deserialize, Serialize};

/// The KL coefficient and how it moves.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct KlController {
    /// β now, ≥ 0.
    pub coef: f64,
    /// KL to hold, nats a sequence; `None` keeps β fixed.
    pub target: Option<f64>,
    /// Samples over which β may change by the factor of `e`.
    pub horizon: f64,
}

impl KlController {
    /// A coefficient that never moves.
    pub fn fixed(coef: f64) -> Self {
        Self { coef, target: None, horizon: 10_000.0 }
    }
    /// A coefficient that steers the KL (nats a sequence) towards `target`.
    pub fn adaptive(coef: f64, target: f64, horizon: f64) -> Self {
        Self { coef, target: Some(target), horizon }
    }
    /// After a step of `samples` sequences whose mean KL was `kl`, nats a sequence.
    pub fn update(&mut self, kl: f64, samples: usize) {
        if let Some(target) = self.target.filter(|_| kl.is_finite()) {
            let e = (kl / target - 1.0).clamp(-0.2, 0.2);
            self.coef *= 1.0 + e * samples as f64 / self.horizon;
        }
    }
}
