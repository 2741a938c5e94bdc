//! Whitening over the tokens of the *whole* batch: `(x − mean) / √(var + ε)`, ε = 1e-8.

/// Which variance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variance {
    /// Divides by n (OpenRLHF).
    Biased,
    /// Divides by n − 1 (TRL, verl).
    Unbiased,
}

/// Whitens in place. `shift_mean = false` adds the mean back afterwards (TRL's meaning of the word; what
/// rewards need, whose mean matters). Fewer than two numbers have variance 0.
pub fn whiten(xs: &mut [f64], shift_mean: bool, variance: Variance) {
    let n = xs.len() as f64;
    if xs.is_empty() {
        return;
    }
    let mean = xs.iter().sum::<f64>() / n;
    let squares = xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    let divisor = match variance {
        Variance::Biased => n,
        Variance::Unbiased => (n - 1.0).max(1.0),
    };
    let scale = 1.0 / (squares / divisor + 1e-8).sqrt();
    let back = if shift_mean { 0.0 } else { mean };
    xs.iter_mut().for_each(|x| *x = (*x - mean) * scale + back);
}
