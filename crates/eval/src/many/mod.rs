//! Comparison of any number of models, each trained once or with several seeds: `comparison_all.json`.
//!
//! Every model is held against the first one (the reference). A difference varies because other prompts could have been
//! asked and because other seeds could have trained the model: conversations and runs are both resampled (hierarchical
//! bootstrap), and since three seeds say little about a spread, the interval is t·SE with degrees of freedom after Welch
//! and Satterthwaite. p-values are corrected over all metrics and models at once (Holm).
//!
//! Invariants as in [`mod@crate::compare`]: pure, the same prompts, no time, no path.

mod breakdown;
mod design;
mod estimate;
mod page;

use std::collections::BTreeMap;

use ecr_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::bootstrap::Bootstrap;
use crate::evaluation::{Evaluation, alias};
use crate::metric::Metric;
use crate::names::{Scorer, info};
use design::Design;
use estimate::{correct, effect, moments};

pub use breakdown::Group;
pub use estimate::{Effect, Estimate, holm};

/// Metrics compared where none are named.
pub const METRICS: [&str; 16] = [
    "mean_reward",
    "empathy",
    "empathy_eval",
    "empathy_plus_recommendation",
    "recommendation_accuracy",
    "recommendation_rate",
    "bleu_1",
    "bleu_2",
    "dist_1",
    "dist_2",
    "rouge_l",
    "length",
    "eos_rate",
    "reference_nll",
    "kl",
    "critic_value",
];

/// Metrics of the breakdown, those of them that are compared.
pub const BREAKDOWN: [&str; 4] = ["mean_reward", "empathy", "empathy_eval", "recommendation_accuracy"];

/// The scorer of win rates: no training ever saw it.
pub const JUDGE: &str = "empathy_eval";

/// One trained model, measured.
#[derive(Debug, Clone)]
pub struct Run {
    /// What tells it from the other runs of its model, e.g. `seed-2`.
    pub label: String,
    /// Its replies and metrics.
    pub evaluation: Evaluation,
}

/// A model: one run, or several that differ in the seed.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Name in the tables.
    pub name: String,
    /// Its runs.
    pub runs: Vec<Run>,
}

/// What to compare.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names of metrics; empty = [`METRICS`].
    pub metrics: Vec<String>,
    /// Resamples and their stream.
    pub bootstrap: Bootstrap,
}

/// A model's value of a metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Values {
    /// Mean over its runs.
    pub value: f64,
    /// Each run's value.
    pub runs: Vec<f64>,
    /// Standard deviation over runs; `None` of a single one.
    pub sd: Option<f64>,
}

/// A model against the reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// The model.
    pub model: String,
    /// The difference.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// Its size in spreads of single replies.
    #[serde(flatten)]
    pub effect: Effect,
    /// Replies, or dialogues, to which the metric applies in any run of either model.
    pub n: usize,
}

/// One metric of all models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricTable {
    /// Scorer behind it.
    pub scorer: Scorer,
    /// `Some(true)`: higher is better.
    pub higher_is_better: Option<bool>,
    /// Values by model.
    pub values: BTreeMap<String, Values>,
    /// Each model but the first against the first.
    pub against_reference: Vec<Against>,
}

/// How often one model's reply scores higher than another's to the same prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WinRate {
    /// Whose wins are counted.
    pub model: String,
    /// Whose replies they are held against.
    pub against: String,
    /// Share of wins, a tie counting half, 0..1.
    pub rate: f64,
    /// The difference of that share to one half.
    #[serde(flatten)]
    pub estimate: Estimate,
}

/// A model in `comparison_all.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Its name.
    pub name: String,
    /// Labels of its runs.
    pub runs: Vec<String>,
}

/// `comparison_all.json`: finite numbers; no time, no path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComparisonAll {
    /// Version of the file, 1.
    pub version: u32,
    /// The model that the others are held against.
    pub reference: String,
    /// All models.
    pub models: Vec<Model>,
    /// Prompts.
    pub prompts: usize,
    /// Conversations that the prompts are from.
    pub conversations: usize,
    /// Resamples.
    pub resamples: usize,
    /// What to keep in mind.
    pub notes: Vec<String>,
    /// Metrics by name.
    pub metrics: BTreeMap<String, MetricTable>,
    /// Scorer of the win rates; `None` if it was not measured in every run.
    pub judge: Option<String>,
    /// Win rates of all pairs.
    pub wins: Vec<WinRate>,
    /// Parts of the prompts.
    pub breakdown: Vec<Group>,
}

/// A comparison, ready to be written.
#[derive(Debug, Clone)]
pub struct Many {
    /// The numbers.
    pub comparison: ComparisonAll,
    /// Text of `comparison_all.json`.
    pub json: String,
    /// Text of `comparison_all.md`.
    pub markdown: String,
}

/// The metric of a name, short names included.
fn metric<'a>(e: &'a Evaluation, name: &str) -> Option<&'a (crate::evaluation::Units, Metric)> {
    e.metrics.get(name).or_else(|| e.metrics.get(&alias(name)?))
}

/// Compares all entries with the first.
///
/// # Errors
/// Data: runs that were not measured on the same prompts, with where they differ. Config: fewer than two models, a
/// metric that no run has, no resamples.
pub fn compare_many(mut entries: Vec<Entry>, options: &Options) -> Result<Many> {
    let notes = design::check(&mut entries)?;
    let design = Design::new(&entries, options.bootstrap)?;
    let mut metrics = BTreeMap::new();
    let wanted: Vec<&str> = if options.metrics.is_empty() {
        METRICS.to_vec()
    } else {
        options.metrics.iter().map(String::as_str).collect()
    };
    for &name in &wanted {
        let known = entries.iter().flat_map(|e| &e.runs).find_map(|r| metric(&r.evaluation, name));
        match known {
            Some((units, _)) => {
                let table = metric_table(&entries, &design, name, *units);
                metrics.insert(name.to_owned(), table);
            }
            None if options.metrics.is_empty() => {}
            None => return Err(unknown(name, &entries[0].runs[0].evaluation)),
        }
    }
    correct(metrics.values_mut().flat_map(|t| t.against_reference.iter_mut().map(|a| &mut a.estimate)));
    let judged = entries.iter().flat_map(|e| &e.runs).all(|r| r.evaluation.metrics.contains_key(JUDGE));
    let mut wins = if judged { win_rates(&entries, &design) } else { Vec::new() };
    correct(wins.iter_mut().map(|w| &mut w.estimate));
    let mut conversations = entries[0].runs[0].evaluation.clusters(crate::evaluation::Units::Replies);
    let prompts = conversations.len();
    conversations.sort_unstable();
    conversations.dedup();
    let comparison = ComparisonAll {
        version: 1,
        reference: entries[0].name.clone(),
        models: entries
            .iter()
            .map(|e| Model { name: e.name.clone(), runs: e.runs.iter().map(|r| r.label.clone()).collect() })
            .collect(),
        prompts,
        conversations: conversations.len(),
        resamples: options.bootstrap.resamples,
        notes,
        metrics,
        judge: judged.then(|| JUDGE.to_owned()),
        wins,
        breakdown: breakdown::groups(&entries, &design, &wanted),
    };
    let json = serde_json::to_string_pretty(&comparison)
        .map_err(|e| Error::internal("write comparison_all.json").got(e.to_string()))?;
    let markdown = page::render(&comparison);
    Ok(Many { comparison, json: json + "\n", markdown })
}

fn unknown(name: &str, e: &Evaluation) -> Error {
    Error::config(format!("compare the metric {name}"))
        .expected(format!("one of {}", e.metrics.keys().map(String::as_str).collect::<Vec<_>>().join(", ")))
        .got("no run has it")
        .hint("short names: bleu_1 to bleu_4, dist_1 to dist_4")
}

fn metric_table(
    entries: &[Entry],
    design: &Design,
    name: &str,
    units: crate::evaluation::Units,
) -> MetricTable {
    let table = design.table(entries, units, None, |r| Some(metric(&r.evaluation, name)?.1.clone()));
    let values = entries.iter().zip(&table.point).filter_map(|(e, runs)| {
        let runs = runs.clone()?;
        let (value, variance) = moments(&runs);
        Some((e.name.clone(), Values { value, sd: (runs.len() > 1).then(|| variance.sqrt()), runs }))
    });
    let of = |i: usize| -> Option<Vec<estimate::Units>> {
        entries[i].runs.iter().map(|r| metric(&r.evaluation, name)?.1.units()).collect()
    };
    let applies =
        |i: usize| entries[i].runs.iter().filter_map(|r| Some(metric(&r.evaluation, name)?.1.applies()));
    let against = (1..entries.len()).filter_map(|b| {
        let estimate = design.difference(&table, 0, b)?;
        let effect = match (of(0), of(b)) {
            (Some(x), Some(y)) => effect(&x, &y, &design.run_pairs(entries, 0, b)),
            _ => Effect::default(),
        };
        let mut any: Vec<bool> = Vec::new();
        for one in applies(0).chain(applies(b)) {
            any.resize(one.len(), false);
            any.iter_mut().zip(one).for_each(|(a, x)| *a |= x);
        }
        let n = any.iter().filter(|x| **x).count();
        Some(Against { model: entries[b].name.clone(), estimate, effect, n })
    });
    let i = info(name);
    MetricTable {
        scorer: i.scorer,
        higher_is_better: i.higher_is_better,
        values: values.collect(),
        against_reference: against.collect(),
    }
}

fn win_rates(entries: &[Entry], design: &Design) -> Vec<WinRate> {
    let scores = |e: &Entry| -> Vec<estimate::Units> {
        e.runs.iter().filter_map(|r| metric(&r.evaluation, JUDGE)?.1.units()).collect()
    };
    let all: Vec<Vec<estimate::Units>> = entries.iter().map(scores).collect();
    let mut out = Vec::new();
    for a in 0..entries.len() {
        for b in a + 1..entries.len() {
            let metrics: Vec<Metric> = design
                .run_pairs(entries, a, b)
                .into_iter()
                .map(|(i, j)| Metric::mean(all[a][i].iter().zip(&all[b][j]).map(|(x, y)| won((*x)?, (*y)?))))
                .collect();
            if let Some(estimate) = design.joint(entries, a, b, &metrics, 0.5) {
                out.push(WinRate {
                    model: entries[b].name.clone(),
                    against: entries[a].name.clone(),
                    rate: 0.5 + estimate.diff,
                    estimate,
                });
            }
        }
    }
    out
}

/// 1 where `y` is higher, ½ at a tie.
fn won(x: f64, y: f64) -> Option<f64> {
    Some(if y == x { 0.5 } else { f64::from(y > x) })
}
