//! Cross-entropy of the scored tokens: `L = −Σ_t w_t log p_t`, `∂L/∂log p_t = −w_t`.

/// Loss and gradient.
#[derive(Debug, Clone, Default)]
pub struct Nll {
    /// `−Σ weight · logp`, nats.
    pub loss: f64,
    /// `∂loss/∂logp`, `[N]`.
    pub d_logp: Vec<f32>,
}

/// Cross-entropy of `logp` `[N]` under token weights `[N]` (1 / tokens of the whole batch = the mean).
pub fn nll(logp: &[f32], weights: &[f64]) -> Nll {
    Nll {
        loss: -logp.iter().zip(weights).map(|(&l, w)| f64::from(l) * w).sum::<f64>(),
        d_logp: weights.iter().map(|w| -w as f32).collect(),
    }
}
