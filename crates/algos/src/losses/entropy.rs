//! Entropy bonus: `L = −c · Σ_t w_t H_t`, `∂L/∂H_t = −c·w_t`.

/// Loss and gradient of the entropy bonus.
#[derive(Debug, Clone, Default)]
pub struct EntropyBonus {
    /// `−coef · Σ weight · entropy`.
    pub loss: f64,
    /// `∂loss/∂entropy`, `[N]`.
    pub d_entropy: Vec<f32>,
}

/// The bonus for entropies (nats, `[N]`) with coefficient `coef` ≥ 0 and token weights `[N]`.
pub fn entropy_bonus(entropy: &[f32], coef: f64, weights: &[f64]) -> EntropyBonus {
    EntropyBonus {
        loss: -coef * entropy.iter().zip(weights).map(|(&h, w)| f64::from(h) * w).sum::<f64>(),
        d_entropy: weights.iter().map(|w| (-coef * w) as f32).collect(),
    }
}
