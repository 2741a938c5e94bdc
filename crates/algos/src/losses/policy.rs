//! Clipped surrogate of PPO (Schulman et al. 2017, eq. 7), with `ρ = exp(log π − log π_old)`:
//! `l_t = max(−ρA, −clip(ρ, 1−ε_low, 1+ε_high)·A)`, and for A < 0 at most `−c·A` with the dual clip
//! (Ye et al. 2020). `∂l/∂log π = −ρA` where the first term holds, else 0.

/// The clip range of the probability ratio.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// ε below 1.
    pub low: f64,
    /// ε above 1 (DAPO's clip-higher sets it apart).
    pub high: f64,
    /// Dual clip c > 1: bound of the ratio for negative advantages.
    pub dual: Option<f64>,
}

impl Clip {
    /// The same ε on both sides, no dual clip.
    pub fn symmetric(epsilon: f64) -> Self {
        Self { low: epsilon, high: epsilon, dual: None }
    }
}

/// Loss, gradient and diagnostics. The sums are over the given tokens; divide by their number.
#[derive(Debug, Clone, Default)]
pub struct PolicyLoss {
    /// `Σ weight · l_t`.
    pub loss: f64,
    /// `∂loss/∂logp`, `[N]`.
    pub d_logp: Vec<f32>,
    /// Tokens at which the clipped term won.
    pub clipped: usize,
    /// Tokens at which the dual clip won.
    pub clipped_dual: usize,
    /// Sum of `log π_old − log π`: k1 of KL(π_old‖π).
    pub k1: f64,
    /// Sum of half the squared log-ratio (TRL's `approxkl`).
    pub k2: f64,
    /// Sum of `ρ − 1 − log ρ` (CleanRL's `approx_kl`).
    pub k3: f64,
    /// Sum of the ratios.
    pub ratio: f64,
    /// Largest ratio.
    pub ratio_max: f64,
    /// Largest `|ρ − 1|`.
    pub ratio_off: f64,
}

/// The surrogate for `logp` and `old_logp` `[N]`, `advantages` `[N]` and token `weights` `[N]`.
pub fn policy_loss(
    logp: &[f32],
    old_logp: &[f32],
    advantages: &[f64],
    weights: &[f64],
    clip: Clip,
) -> PolicyLoss {
    let mut out = PolicyLoss { d_logp: vec![0.0; logp.len()], ..PolicyLoss::default() };
    for t in 0..logp.len() {
        let d = f64::from(logp[t]) - f64::from(old_logp[t]);
        let (ratio, a) = (d.exp(), advantages[t]);
        let plain = -ratio * a;
        let clipped = -ratio.clamp(1.0 - clip.low, 1.0 + clip.high) * a;
        let mut loss = plain.max(clipped);
        let mut slope = plain;
        if clipped > plain {
            out.clipped += 1;
            slope = 0.0;
        }
        if let Some(bound) = clip.dual.filter(|c| a < 0.0 && -c * a < loss) {
            loss = -bound * a;
            slope = 0.0;
            out.clipped_dual += 1;
        }
        if plain.is_nan() {
            (loss, slope) = (f64::NAN, f64::NAN); // max() would drop it
        }
        out.loss += weights[t] * loss;
        out.d_logp[t] = (weights[t] * slope) as f32;
        out.k1 -= d;
        out.k2 += 0.5 * d * d;
        out.k3 += d.exp_m1() - d;
        out.ratio += ratio;
        out.ratio_max = out.ratio_max.max(ratio);
        out.ratio_off = if ratio.is_nan() { f64::INFINITY } else { out.ratio_off.max((ratio - 1.0).abs()) };
    }
    out
}
