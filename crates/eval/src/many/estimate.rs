//! One difference with its standard error, interval and p-value; Holm's correction; effect sizes.
//!
//! Shapes: `R` resamples, `S` runs of a model.

use serde::{Deserialize, Serialize};

use crate::student;

/// A difference `other − reference` and what is known about it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The difference.
    pub diff: f64,
    /// Its standard error over prompts and runs.
    pub se: f64,
    /// Degrees of freedom of the standard error (Welch–Satterthwaite over prompts and runs).
    pub df: f64,
    /// Lower end of the 95 % interval, `diff − t·se`.
    pub ci_low: f64,
    /// Upper end.
    pub ci_high: f64,
    /// Two-sided p-value of "no difference", by Student's t.
    pub p: f64,
    /// The same after Holm's correction over its family of tests.
    pub p_holm: f64,
    /// Smallest true difference that a test at .05 (uncorrected) finds with probability .8.
    pub detectable: f64,
}

/// A part of a variance and the degrees of freedom that it was estimated with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) variance: f64,
    pub(super) df: f64,
}

/// Mean and unbiased variance; variance 0 of fewer than two values.
pub(super) fn moments(xs: &[f64]) -> (f64, f64) {
    let n = xs.len() as f64;
    let mean = xs.iter().sum::<f64>() / n.max(1.0);
    let squares: f64 = xs.iter().map(|x| (x - mean).powi(2)).sum();
    (mean, if xs.len() < 2 { 0.0 } else { squares / (n - 1.0) })
}

/// What `draws` `[R]` of a difference say about `diff`. `runs` are the parts of its variance that come from runs; the
/// rest comes from `clusters` resampled conversations, whose bootstrap variance is (C − 1)/C of the unbiased one.
/// `scale` is the size of the compared values: differences below rounding are none.
pub(super) fn estimate(diff: f64, draws: &[f64], runs: &[Part], clusters: usize, scale: f64) -> Estimate {
    let c = clusters.max(2) as f64;
    let from_runs: f64 = runs.iter().map(|p| p.variance).sum();
    let rest = (moments(draws).1 - from_runs).max(0.0) * c / (c - 1.0);
    let variance = from_runs + rest;
    let se = variance.sqrt();
    let rounding = 1e-12 * scale.abs().max(1e-3);
    let diff = if diff.abs() <= rounding { 0.0 } else { diff };
    if se <= rounding {
        let p = f64::from(diff == 0.0);
        return Estimate {
            diff,
            se: 0.0,
            df: c - 1.0,
            ci_low: diff,
            ci_high: diff,
            p,
            p_holm: p,
            detectable: 0.0,
        };
    }
    let squares: f64 = runs.iter().map(|p| p.variance.powi(2) / p.df).sum::<f64>() + rest.powi(2) / (c - 1.0);
    let df = variance.powi(2) / squares;
    let t = student::upper(0.025, df);
    let p = student::two_sided(diff / se, df);
    Estimate {
        diff,
        se,
        df,
        ci_low: diff - t * se,
        ci_high: diff + t * se,
        p,
        p_holm: p,
        detectable: (t + student::upper(0.2, df)) * se,
    }
}

/// Holm's step-down correction (1979): adjusted p-values, in the order given. Controls the chance of any false finding
/// in the family whatever the dependence between tests.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]).then(a.cmp(&b)));
    let mut out = vec![0.0; p.len()];
    let mut least: f64 = 0.0;
    for (rank, &i) in order.iter().enumerate() {
        least = least.max(((p.len() - rank) as f64 * p[i]).min(1.0));
        out[i] = least;
    }
    out
}

/// Corrects a family of estimates in place.
pub(super) fn correct<'a>(family: impl Iterator<Item = &'a mut Estimate>) {
    let mut family: Vec<&mut Estimate> = family.collect();
    let adjusted = holm(&family.iter().map(|e| e.p).collect::<Vec<_>>());
    family.iter_mut().zip(adjusted).for_each(|(e, p)| e.p_holm = p);
}

/// Sizes of a difference in units of the spread of single replies; `None` where replies have no values of their own or
/// no spread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Difference of means over the pooled standard deviation of replies, √((s_a² + s_b²)/2) (Cohen's d).
    pub d: Option<f64>,
    /// Mean over the standard deviation of the paired differences (Cohen's d_z).
    pub dz: Option<f64>,
}

/// Values of one run's units, `[units]`; `None` where the metric does not apply.
pub(super) type Units = Vec<Option<f64>>;

/// Effect sizes of `b` against `a`, each `[S]`; `pairs` are the runs that are held against each other.
pub(super) fn effect(a: &[Units], b: &[Units], pairs: &[(usize, usize)]) -> Effect {
    let ratio = |mean: f64, variance: f64| (variance > 1e-24).then(|| mean / variance.sqrt());
    let all = |runs: &[Units]| runs.iter().flatten().filter_map(|x| *x).collect::<Vec<f64>>();
    let ((ma, va), (mb, vb)) = (moments(&all(a)), moments(&all(b)));
    let (mut mean, mut variance) = (0.0, 0.0);
    for &(i, j) in pairs {
        let diffs: Vec<f64> = a[i].iter().zip(&b[j]).filter_map(|(x, y)| Some((*y)? - (*x)?)).collect();
        let (m, v) = moments(&diffs);
        mean += m / pairs.len() as f64;
        variance += v / pairs.len() as f64;
    }
    Effect { d: ratio(mb - ma, 0.5 * (va + vb)), dz: ratio(mean, variance) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holm_is_that_of_the_textbook() {
        // Sorted .005, .01, .03, .04 times 4, 3, 2, 1 = .02, .03, .06, .04; the last is raised to .06.
        let got = holm(&[0.01, 0.04, 0.03, 0.005]);
        for (g, w) in got.iter().zip([0.03, 0.06, 0.06, 0.02]) {
            assert!((g - w).abs() < 1e-15, "{got:?}");
        }
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }

    #[test]
    fn effect_sizes_by_hand() {
        let a = vec![vec![Some(1.0), Some(2.0), Some(3.0), None]];
        let b = vec![vec![Some(2.0), Some(4.0), Some(3.0), Some(9.0)]];
        let e = effect(&a, &b, &[(0, 0)]);
        // Means 2 and 4.5, variances 1 and 29/3; differences 1, 2, 0: mean 1, deviation 1.
        assert!((e.d.unwrap() - 2.5 / (0.5 * (1.0 + 29.0 / 3.0f64)).sqrt()).abs() < 1e-12);
        assert!((e.dz.unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(effect(&a, &a, &[(0, 0)]).dz, None);
    }

    #[test]
    fn an_estimate_by_hand() {
        // Draws of variance 2, of which runs give 1.5 with 2 degrees of freedom; 11 conversations.
        let e = estimate(3.0, &[1.0, 3.0, 2.0, 0.0, 4.0, 2.0, 2.0], &[], 11, 1.0);
        assert!((e.se - (10.0 / 6.0 * 1.1f64).sqrt()).abs() < 1e-12 && (e.df - 10.0).abs() < 1e-9);
        let e = estimate(3.0, &[-1.0, 1.0], &[Part { variance: 1.5, df: 2.0 }], 11, 1.0);
        assert!((e.se - 2.05f64.sqrt()).abs() < 1e-12);
        assert!((e.df - 2.05f64.powi(2) / (1.5f64.powi(2) / 2.0 + 0.55f64.powi(2) / 10.0)).abs() < 1e-9);
        assert!((e.ci_high - e.ci_low - 2.0 * student::upper(0.025, e.df) * e.se).abs() < 1e-9);
        // What cannot vary: certain, or nothing.
        let same = estimate(1e-17, &[0.0, 0.0], &[], 5, 1.0);
        assert_eq!((same.diff, same.p), (0.0, 1.0));
        assert_eq!(estimate(0.2, &[0.2, 0.2], &[], 5, 1.0).p, 0.0);
    }
}
