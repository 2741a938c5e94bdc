//! Paired bootstrap, bias-shifted percentile intervals (Efron and Tibshirani 1993, ch. 10 and 13), clusters drawn
//! whole.
//!
//! Resample `r` draws from its own stream, so the result depends on neither threads nor order; the same resamples
//! serve all metrics of both models.

use ecr_core::{Error, Result, Stream};
use rayon::prelude::*;
use rustc_hash::FxHashMap;

/// How to resample.
#[derive(Debug, Clone, Copy)]
pub struct Bootstrap {
    /// Resamples; 2000 or more for a 95 % interval worth printing.
    pub resamples: usize,
    /// Stream of the draws.
    pub stream: Stream,
}

/// Drawn resamples: `times[r][i]` = how often unit `i` occurs in resample `r`.
#[derive(Debug, Clone)]
pub struct Resamples {
    times: Vec<Vec<u32>>,
}

impl Bootstrap {
    /// Draws resamples of units, keeping units of one cluster together; `clusters` is `[units]`.
    ///
    /// # Errors
    /// Config: no resamples asked for.
    pub fn draw(&self, clusters: &[u64]) -> Result<Resamples> {
        if self.resamples == 0 {
            return Err(Error::config("bootstrap").expected("at least one resample").got("0"));
        }
        let mut ids: FxHashMap<u64, usize> = FxHashMap::default();
        let index: Vec<usize> = clusters
            .iter()
            .map(|c| {
                let next = ids.len();
                *ids.entry(*c).or_insert(next)
            })
            .collect();
        let n = ids.len();
        let one = |r: usize| {
            let mut rng = self.stream.child("bootstrap").at(r as u64).rng();
            let mut drawn = vec![0u32; n];
            for _ in 0..n {
                drawn[rng.below(n)] += 1;
            }
            index.iter().map(|&c| drawn[c]).collect()
        };
        Ok(Resamples { times: (0..self.resamples).into_par_iter().map(one).collect() })
    }
}

impl Resamples {
    /// `statistic` on each resample, `[resamples]`, in their order.
    pub fn values(&self, statistic: impl Fn(&[u32]) -> Option<f64> + Sync) -> Vec<Option<f64>> {
        self.times.par_iter().map(|t| statistic(t)).collect()
    }
    /// 2.5th and 97.5th percentile of `statistic` over the resamples (those where it is `None` are left out), shifted by
    /// the bootstrap's estimate of bias. Means have none; a distinct-n ratio has much, since a resample repeats
    /// replies, and its plain percentiles can miss the value itself.
    pub fn interval(&self, statistic: impl Fn(&[u32]) -> Option<f64> + Sync) -> Option<(f64, f64)> {
        let values = self.values(&statistic);
        let mut values: Vec<f64> = values.into_iter().flatten().filter(|x| x.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let all = vec![1; self.times.first().map_or(0, Vec::len)];
        let shift = statistic(&all)? - values.iter().sum::<f64>() / values.len().max(1) as f64;
        (!values.is_empty() && shift.is_finite())
            .then(|| (quantile(&values, 0.025) + shift, quantile(&values, 0.975) + shift))
    }
}

/// Quantile of sorted values, linear between neighbours (NumPy's default).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let low = sorted[at.floor() as usize];
    let high = sorted[at.ceil() as usize];
    low + (high - low) * (at - at.floor())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metric;

    #[test]
    fn the_interval_of_a_mean_is_that_of_theory_and_clusters_widen_it() {
        let mut rng = Stream::new(3).rng();
        let x: Vec<f64> = (0..400).map(|_| rng.normal()).collect();
        let each: Vec<u64> = (0..400).collect();
        let b = Bootstrap { resamples: 2000, stream: Stream::new(1) };
        let m = Metric::mean(x.iter().map(|&v| Some(v)));
        let (low, high) = b.draw(&each).unwrap().interval(|t| m.value(t)).unwrap();
        let mean = x.iter().sum::<f64>() / 400.0;
        let sd = (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 400.0).sqrt();
        let half = 1.96 * sd / 20.0;
        assert!((low - (mean - half)).abs() < 0.15 * half && (high - (mean + half)).abs() < 0.15 * half);
        // Four copies of each of 100 values carry the information of 100: twice the width, not the same.
        let copied = Metric::mean((0..400).map(|i| Some(x[i / 4])));
        let clusters: Vec<u64> = (0..400).map(|i| i / 4).collect();
        let (l, h) = b.draw(&clusters).unwrap().interval(|t| copied.value(t)).unwrap();
        assert!((h - l) > 1.6 * (high - low), "{}", (h - l) / (high - low));
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[0.0, 1.0, 2.0, 3.0, 4.0], 0.25), 1.0);
        assert_eq!(quantile(&[0.0, 1.0], 0.975), 0.975);
    }
}
