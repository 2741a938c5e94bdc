//! Value loss of PPO: `l_t = ½·max((V − G)², (clip(V, V_old ± ε) − G)²)`, or `½(V − G)²` without clipping.
//! With Huber's δ, ½e² beyond |e| = δ goes on as δ·(|e| − δ/2). The clip is in units of reward, so it only makes sense with bounded rewards; hence optional.

/// Loss, gradient and clip count.
#[derive(Debug, Clone, Default)]
pub struct ValueLoss {
    /// `Σ weight · l_t`.
    pub loss: f64,
    /// `∂loss/∂V`, `[N]`.
    pub d_value: Vec<f32>,
    /// Tokens at which the clipped term won.
    pub clipped: usize,
}

/// The loss of `values` `[N]` against `returns` `[N]`, clipped around `old_values` `[N]` by `clip_range`
/// (`None` = off), with token `weights` `[N]`.
pub fn value_loss(
    values: &[f32],
    old_values: &[f32],
    returns: &[f64],
    weights: &[f64],
    clip_range: Option<f64>,
) -> ValueLoss {
    huber_value_loss(values, old_values, returns, weights, clip_range, None)
}

/// [`value_loss`] with Huber's `delta` > 0 (`None` = off, squares everywhere).
pub fn huber_value_loss(
    values: &[f32],
    old_values: &[f32],
    returns: &[f64],
    weights: &[f64],
    clip_range: Option<f64>,
    delta: Option<f64>,
) -> ValueLoss {
    // Twice the loss of an error, and the loss's slope.
    let of = |e: f64| match delta.filter(|d| e.abs() > *d) {
        None => (e * e, e),
        Some(d) => (d * (2.0 * e.abs() - d), d * e.signum()),
    };
    let mut out = ValueLoss { d_value: vec![0.0; values.len()], ..ValueLoss::default() };
    for t in 0..values.len() {
        let v = f64::from(values[t]);
        let (mut square, mut slope) = of(v - returns[t]);
        if let Some(range) = clip_range {
            let old = f64::from(old_values[t]);
            let clipped = v.clamp(old - range, old + range) - returns[t];
            if of(clipped).0 > square {
                square = of(clipped).0;
                slope = 0.0;
                out.clipped += 1;
            }
        }
        out.loss += weights[t] * 0.5 * square;
        out.d_value[t] = (weights[t] * slope) as f32;
    }
    out
}
