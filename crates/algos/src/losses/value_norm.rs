//! Value normalisation (Yu et al. 2022, "MAPPO", after van Hasselt et al. 2016): the value function is fitted to
//! returns of mean 0 and variance 1 under a debiased running average, so that one learning rate and one clip range
//! serve rewards of any scale. Constants of marlbenchmark/on-policy.

use serde::{Deserialize, Serialize};

/// Running mean and mean square of returns; belongs into checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ValueNorm {
    /// Decay of the averages, in (0, 1).
    pub decay: f64,
    mean: f64,
    mean_square: f64,
    weight: f64,
}

impl ValueNorm {
    /// Nothing seen: mean 0, the smallest variance.
    pub fn new(decay: f64) -> Self {
        Self { decay, mean: 0.0, mean_square: 0.0, weight: 0.0 }
    }
    /// Takes the returns of a batch, `[N]`.
    pub fn update(&mut self, returns: &[f64]) {
        let n = returns.len().max(1) as f64;
        let mean = |f: fn(f64) -> f64| returns.iter().map(|&r| f(r)).sum::<f64>() / n;
        let keep = |old: f64, new: f64| self.decay * old + (1.0 - self.decay) * new;
        (self.mean, self.mean_square) =
            (keep(self.mean, mean(|r| r)), keep(self.mean_square, mean(|r| r * r)));
        self.weight = keep(self.weight, 1.0);
    }
    /// Debiased mean and standard deviation; the variance is at least .01.
    pub fn mean_std(&self) -> (f64, f64) {
        let weight = self.weight.max(1e-5);
        let (mean, square) = (self.mean / weight, self.mean_square / weight);
        (mean, (square - mean * mean).max(1e-2).sqrt())
    }
    /// Returns to the scale of the value function, `[N]`.
    pub fn normalize(&self, returns: &[f64]) -> Vec<f64> {
        let (mean, std) = self.mean_std();
        returns.iter().map(|r| (r - mean) / std).collect()
    }
    /// Values to the scale of the returns, `[N]`.
    pub fn denormalize(&self, values: &[f32]) -> Vec<f32> {
        let (mean, std) = self.mean_std();
        values.iter().map(|&v| (f64::from(v) * std + mean) as f32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_debiased_and_the_scale_goes_both_ways() {
        let mut n = ValueNorm::new(0.99999);
        assert_eq!(n.mean_std(), (0.0, 0.1));
        n.update(&[100.0, 300.0]);
        let (mean, std) = n.mean_std();
        assert!((mean - 200.0).abs() < 1e-6 && (std - 100.0).abs() < 1e-6, "{mean} {std}");
        let z = n.normalize(&[100.0, 300.0]);
        assert!((z[0] + 1.0).abs() < 1e-6 && (z[1] - 1.0).abs() < 1e-6);
        let back = n.denormalize(&[-1.0, 1.0]);
        assert!((back[0] - 100.0).abs() < 1e-3 && (back[1] - 300.0).abs() < 1e-3);
        // Half and half: the average of both batches, not drawn towards zero.
        n.update(&[0.0, 0.0]);
        assert!((n.mean_std().0 - 100.0).abs() < 1e-2);
    }
}
