//! Comparison of two models on the same prompts: `comparison.json` version 1 and `comparison.md`.

use std::collections::BTreeMap;

use ecr_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::bootstrap::{Bootstrap, Resamples};
use crate::evaluation::{Evaluation, Units, alias};
use crate::markdown;
use crate::names::{Scorer, info};

/// One metric of `comparison.json`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Baseline's value.
    pub baseline: f64,
    /// Value of the model after reinforcement learning.
    pub rl_enhanced: f64,
    /// `rl_enhanced − baseline`.
    pub diff: f64,
    /// Lower end of the 95 % interval of `diff`.
    pub ci_low: f64,
    /// Upper end.
    pub ci_high: f64,
    /// Units (replies, or dialogues) to which the metric applies in at least one model.
    pub n: usize,
    /// Scorer behind it.
    pub scorer: Scorer,
}

/// `comparison.json`: finite numbers by metric name; no time, no path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Version of the file, 1.
    pub version: u32,
    /// Metrics in order of name.
    pub metrics: BTreeMap<String, Row>,
}

/// Pairs of replies in which the second model scores higher, the same, lower (by the metric's better direction).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Wins {
    /// The second model is better.
    pub win: usize,
    /// Equal.
    pub tie: usize,
    /// The second model is worse.
    pub loss: usize,
}

impl Wins {
    /// Share of wins, ties half, 0..1.
    pub fn rate(&self) -> f64 {
        (self.win as f64 + 0.5 * self.tie as f64) / (self.win + self.tie + self.loss).max(1) as f64
    }
}

/// A comparison, ready to be written.
#[derive(Debug, Clone)]
pub struct Report {
    /// The numbers.
    pub comparison: Comparison,
    /// Win rates of the metrics that each reply has, by name.
    pub wins: BTreeMap<String, Wins>,
    /// What got worse, one sentence each.
    pub warnings: Vec<String>,
    /// Text of `comparison.json`.
    pub json: String,
    /// Text of `comparison.md`.
    pub markdown: String,
}

/// Compares `rl` with `baseline`; `samples` replies are shown side by side.
///
/// # Errors
/// Data: the two were not measured on the same prompts. Config: no resamples.
pub fn compare(
    baseline: &Evaluation,
    rl: &Evaluation,
    bootstrap: Bootstrap,
    samples: usize,
) -> Result<Report> {
    same_prompts(baseline, rl)?;
    let draws = |u: Units| bootstrap.draw(&baseline.clusters(u));
    let (replies, dialogues) = (draws(Units::Replies)?, draws(Units::Dialogues)?);
    let mut comparison = Comparison { version: 1, metrics: BTreeMap::new() };
    let mut wins = BTreeMap::new();
    for (name, (units, _)) in &baseline.metrics {
        let resamples = match units {
            Units::Replies => &replies,
            Units::Dialogues => &dialogues,
        };
        if let Some(row) = row(name, baseline, rl, resamples) {
            comparison.metrics.insert(name.clone(), row);
            wins.extend(count_wins(name, baseline, rl).map(|w| (name.clone(), w)));
        }
    }
    for k in 1..=4 {
        for short in [format!("bleu_{k}"), format!("dist_{k}")] {
            let long = alias(&short).and_then(|long| comparison.metrics.get(&long).copied());
            comparison.metrics.extend(long.map(|row| (short, row)));
        }
    }
    let warnings = warnings(&comparison);
    let json = serde_json::to_string_pretty(&comparison)
        .map_err(|e| Error::internal("write comparison.json").got(e.to_string()))?;
    let markdown =
        markdown::render(&comparison, &wins, &warnings, baseline, rl, bootstrap.resamples, samples);
    Ok(Report { comparison, wins, warnings, json: json + "\n", markdown })
}

fn same_prompts(a: &Evaluation, b: &Evaluation) -> Result<()> {
    let err = |expected: String, got: String| {
        Err(Error::data(format!("compare {} with {}", a.run.model, b.run.model))
            .expected(expected)
            .got(got)
            .hint("evaluate both models on the same prompts"))
    };
    let (x, y) = (&a.run.examples, &b.run.examples);
    if x.len() != y.len() {
        return err(format!("{} replies of each", x.len()), y.len().to_string());
    }
    let same = |i: &usize| {
        let (x, y) = (&x[*i], &y[*i]);
        x.conversation == y.conversation
            && x.context == y.context
            && x.reference == y.reference
            && x.labels == y.labels
    };
    if let Some(i) = (0..x.len()).find(|i| !same(i)) {
        return err(
            "the same prompts in the same order".into(),
            format!("another prompt, reference or label at {i}"),
        );
    }
    let (x, y) = (&a.run.reference_nll, &b.run.reference_nll);
    let same = x.len() == y.len()
        && x.iter().zip(y).all(|(x, y)| x.conversation == y.conversation && x.tokens == y.tokens);
    if !same {
        return err("likelihoods of the same tokens".into(), "other dialogues or tokens".into());
    }
    Ok(())
}

fn row(name: &str, a: &Evaluation, b: &Evaluation, resamples: &Resamples) -> Option<Row> {
    let (x, y) = (&a.metrics.get(name)?.1, &b.metrics.get(name)?.1);
    let (baseline, rl_enhanced) = (a.value(name)?, b.value(name)?);
    let (ci_low, ci_high) = resamples.interval(|t| Some(y.value(t)? - x.value(t)?))?;
    let n = x.applies().iter().zip(y.applies()).filter(|(p, q)| **p || *q).count();
    let diff = rl_enhanced - baseline;
    Some(Row { baseline, rl_enhanced, diff, ci_low, ci_high, n, scorer: info(name).scorer })
}

fn count_wins(name: &str, a: &Evaluation, b: &Evaluation) -> Option<Wins> {
    let up = info(name).higher_is_better?;
    let (x, y) = (a.metrics.get(name)?.1.units()?, b.metrics.get(name)?.1.units()?);
    let mut w = Wins::default();
    for (x, y) in x.into_iter().zip(y).filter_map(|(x, y)| Some((x?, y?))) {
        match (x == y, (y > x) == up) {
            (true, _) => w.tie += 1,
            (false, true) => w.win += 1,
            (false, false) => w.loss += 1,
        }
    }
    Some(w)
}

/// Metrics whose interval lies on the worse side of 0, and the guarded ones that lost more than 10 %.
fn warnings(c: &Comparison) -> Vec<String> {
    let mut out = Vec::new();
    for (name, r) in c.metrics.iter().filter(|(n, _)| alias(n).is_none()) {
        let Some(up) = info(name).higher_is_better else { continue };
        if (up && r.ci_high < 0.0) || (!up && r.ci_low > 0.0) {
            out.push(format!(
                "`{name}` got worse: {} -> {}, difference {} [{}, {}].",
                markdown::number(r.baseline),
                markdown::number(r.rl_enhanced),
                markdown::signed(r.diff),
                markdown::signed(r.ci_low),
                markdown::signed(r.ci_high)
            ));
        }
    }
    for name in ["dist.inter.ratio.2", "eos_rate", "reference_nll"] {
        let Some(r) = c.metrics.get(name) else { continue };
        let worse = if info(name).higher_is_better == Some(true) { -r.diff } else { r.diff };
        if worse > 0.1 * r.baseline.abs() {
            let percent = 100.0 * worse / r.baseline.abs().max(f64::MIN_POSITIVE);
            out.push(format!("`{name}` lost {percent:.0} % (limit 10 %)."));
        }
    }
    out
}
