//! Explained variance of a value function: `1 − Var(G − V) / Var(G)`; 1 is perfect, 0 a constant.

/// Of `values` against `returns`, `[N]` each. 0 where the returns do not vary.
pub fn explained_variance(values: &[f64], returns: &[f64]) -> f64 {
    let n = returns.len().max(1) as f64;
    let var = |f: &dyn Fn(usize) -> f64| {
        let mean = (0..returns.len()).map(f).sum::<f64>() / n;
        (0..returns.len()).map(|i| (f(i) - mean).powi(2)).sum::<f64>() / n
    };
    let total = var(&|i| returns[i]);
    if total <= 0.0 { 0.0 } else { 1.0 - var(&|i| returns[i] - values[i]) / total }
}
