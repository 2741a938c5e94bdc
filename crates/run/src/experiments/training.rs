//! What training logs say over seeds: where a number began and ended, and how much it varied.

use std::path::Path;

use ecr_core::{Result, io};
use serde::Serialize;
use serde_json::Value as Json;

/// One number of a training log over the runs of a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Curve {
    /// The model.
    pub model: String,
    /// The number, e.g. `objective/scores`.
    pub name: String,
    /// Runs that logged it.
    pub runs: usize,
    /// Mean over the first quarter of the steps, then over runs.
    pub start: f64,
    /// Mean over the last quarter.
    pub end: f64,
    /// Standard deviation over runs of the last quarter's mean; `None` of a single run.
    pub sd_runs: Option<f64>,
    /// Standard deviation from step to step, √(mean of squared changes / 2), root mean square over runs.
    pub sd_steps: f64,
    /// Standard deviation around each run's straight-line trend, root mean square over runs; `None` below three steps.
    pub sd_trend: Option<f64>,
}

/// A number of a log by step; steps that lack it are left out.
pub(super) fn series(log: &Path, name: &str) -> Result<Vec<f64>> {
    if !log.is_file() {
        return Ok(Vec::new());
    }
    let text = io::read_to_string(log)?;
    let number = |line: &str| serde_json::from_str::<Json>(line).ok()?.get(name)?.as_f64();
    Ok(text.lines().filter_map(number).collect())
}

fn mean(xs: &[f64]) -> f64 {
    xs.iter().sum::<f64>() / xs.len().max(1) as f64
}

/// Variance of `y` around its least-squares line over the index, `n - 2` degrees of freedom; `None` below three points.
fn variance_around_trend(y: &[f64]) -> Option<f64> {
    let n = y.len() as f64;
    let (mx, my) = ((n - 1.0) / 2.0, mean(y));
    let (mut xy, mut xx) = (0.0, 0.0);
    for (i, y) in y.iter().enumerate() {
        xy += (i as f64 - mx) * (y - my);
        xx += (i as f64 - mx).powi(2);
    }
    let line = |i: usize| my + xy / xx * (i as f64 - mx);
    let squares = y.iter().enumerate().map(|(i, y)| (y - line(i)).powi(2)).sum::<f64>();
    (y.len() > 2).then(|| squares / (n - 2.0))
}

/// Summarises one number over the runs that have at least two steps of it.
pub(super) fn curve(model: &str, name: &str, runs: &[Vec<f64>]) -> Option<Curve> {
    let runs: Vec<&Vec<f64>> = runs.iter().filter(|r| r.len() > 1).collect();
    if runs.is_empty() {
        return None;
    }
    let quarter = |r: &[f64]| r.len().div_ceil(4);
    let starts: Vec<f64> = runs.iter().map(|r| mean(&r[..quarter(r)])).collect();
    let ends: Vec<f64> = runs.iter().map(|r| mean(&r[r.len() - quarter(r)..])).collect();
    let end = mean(&ends);
    let squares: f64 = ends.iter().map(|e| (e - end).powi(2)).sum();
    let steps: Vec<f64> = runs
        .iter()
        .map(|r| mean(&r.windows(2).map(|w| 0.5 * (w[1] - w[0]).powi(2)).collect::<Vec<_>>()))
        .collect();
    let trends: Vec<f64> = runs.iter().filter_map(|r| variance_around_trend(r)).collect();
    Some(Curve {
        model: model.into(),
        name: name.into(),
        runs: runs.len(),
        start: mean(&starts),
        end,
        sd_runs: (ends.len() > 1).then(|| (squares / (ends.len() - 1) as f64).sqrt()),
        sd_steps: mean(&steps).sqrt(),
        sd_trend: (!trends.is_empty()).then(|| mean(&trends).sqrt()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_is_no_variance_and_noise_around_it_is() {
        let line: Vec<f64> = (0..20).map(|i| 0.3 * f64::from(i) - 1.0).collect();
        assert!(variance_around_trend(&line).unwrap() < 1e-20);
        let noisy: Vec<f64> =
            line.iter().enumerate().map(|(i, y)| y + [0.5, -0.5, -0.5, 0.5][i % 4]).collect();
        let v = variance_around_trend(&noisy).unwrap();
        assert!((v - 0.25 * 20.0 / 18.0).abs() < 0.01, "{v}");
        assert_eq!(variance_around_trend(&[1.0, 2.0]), None);
        let c = curve("ppo", "x", &[line, noisy]).unwrap();
        assert!((c.sd_trend.unwrap() - (0.5 * v).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_curve_by_hand() {
        let c = curve("ppo", "x", &[vec![1.0, 3.0, 3.0, 7.0], vec![0.0, 2.0, 2.0, 4.0], vec![9.0]]).unwrap();
        assert_eq!((c.runs, c.start, c.end), (2, 0.5, 5.5));
        assert!((c.sd_runs.unwrap() - 4.5f64.sqrt()).abs() < 1e-12);
        // Changes 2, 0, 4 and 2, 0, 2: half of 20/3 and of 8/3, averaged.
        assert!((c.sd_steps - (14.0 / 6.0f64).sqrt()).abs() < 1e-12);
        assert_eq!(curve("ppo", "x", &[vec![1.0]]), None);
        let log = std::env::temp_dir().join(format!("ecr-curve-{}.jsonl", std::process::id()));
        io::atomic_write(&log, b"{\"a\": 1.5}\n{\"b\": 2}\n{\"a\": null}\n{\"a\": 2}\n").unwrap();
        assert_eq!(series(&log, "a").unwrap(), [1.5, 2.0]);
    }
}
