//! Who is compared with whom, on what: the same prompts everywhere, runs that are copies counted once, and the draws
//! of conversations and of runs.
//!
//! Legend: `R` resamples, `S` runs of a model, `C` conversations.

use ecr_core::{Error, Result};

use super::estimate::{Estimate, Part, estimate, moments};
use super::{Entry, Run};
use crate::bootstrap::{Bootstrap, Resamples};
use crate::evaluation::{Evaluation, Units};
use crate::metric::Metric;

/// Draws of conversations (the same for all runs) and of runs.
pub(super) struct Design {
    replies: Resamples,
    dialogues: Resamples,
    clusters: [usize; 2],
    /// How often each run of each model is drawn, `[models][R][S]`.
    seeds: Vec<Vec<Vec<u32>>>,
    /// Models whose runs belong to the reference's one by one.
    paired: Vec<bool>,
}

/// Values of one metric, `[models]`, each by run; `None` for a model that was not measured so.
pub(super) struct Table {
    pub(super) point: Vec<Option<Vec<f64>>>,
    /// `[models][S][R]`; NaN where nothing applies in a resample.
    draws: Vec<Option<Vec<Vec<f64>>>>,
    clusters: usize,
}

/// Distinct values.
fn distinct(ids: &[u64]) -> usize {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids.len()
}

/// Whether two runs wrote the same to the letter. Their rewards may differ by the normaliser of their own student.
fn same_replies(a: &Run, b: &Run) -> bool {
    let (x, y) = (&a.evaluation.run, &b.evaluation.run);
    x.reference_nll == y.reference_nll && x.examples.iter().zip(&y.examples).all(|(x, y)| x.reply == y.reply)
}

/// Checks that all runs answered the same prompts, and drops runs that repeat another of their model; one sentence a
/// dropped run, but for the reference, which variants often share.
pub(super) fn check(entries: &mut [Entry]) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if entries.len() < 2 || entries.iter().any(|e| e.runs.is_empty()) {
        return Err(Error::config("compare models")
            .expected("at least two models with at least one run each")
            .got(entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>().join(", "))
            .hint("name run directories, models of --out, or replies.json files"));
    }
    for (i, e) in entries.iter().enumerate() {
        if entries[..i].iter().any(|o| o.name == e.name) {
            return Err(Error::internal("compare models").got(format!("two models called {}", e.name)));
        }
    }
    let (first, name) = (&entries[0].runs[0], &entries[0].name);
    for (e, r) in entries.iter().flat_map(|e| e.runs.iter().map(move |r| (e, r))) {
        let names = format!("{name} ({}) with {} ({})", first.label, e.name, r.label);
        same_prompts(&names, &first.evaluation, &r.evaluation)?;
    }
    for (i, e) in entries.iter_mut().enumerate() {
        let mut kept: Vec<Run> = Vec::new();
        for run in e.runs.drain(..) {
            match kept.iter().find(|k| same_replies(k, &run)) {
                Some(k) if i > 0 => notes.push(format!(
                    "`{}`: {} wrote the same as {} to the letter and is not counted as a run of its own.",
                    e.name, run.label, k.label
                )),
                Some(_) => {}
                None => kept.push(run),
            }
        }
        e.runs = kept;
    }
    if entries.iter().any(|e| e.runs.len() > 1) {
        for e in entries.iter().filter(|e| e.runs.len() == 1) {
            notes.push(format!(
                "`{}` has one run: how much it would vary over seeds is not in its intervals.",
                e.name
            ));
        }
    } else {
        notes.push(
            "One run of each model: intervals hold for these models, not for another seed of the same training."
                .into(),
        );
    }
    Ok(notes)
}

fn same_prompts(names: &str, a: &Evaluation, b: &Evaluation) -> Result<()> {
    let err = |expected: &str, got: String| {
        Err(Error::data(format!("compare {names}")).expected(expected).got(got).hint(
            "a comparison is made on the same test prompts: vary seeds with run.train_seed (run.seed also changes the \
             prompts), or evaluate the models in one run directory",
        ))
    };
    let (x, y) = (&a.run.examples, &b.run.examples);
    if x.len() != y.len() {
        return err("as many replies of each", format!("{} and {}", x.len(), y.len()));
    }
    for (i, (x, y)) in x.iter().zip(y).enumerate() {
        let what = [
            ("conversation", x.conversation == y.conversation),
            ("context", x.context == y.context),
            ("reference", x.reference == y.reference),
            ("labels", x.labels == y.labels),
        ];
        if let Some((what, _)) = what.iter().find(|w| !w.1) {
            return err("the same prompts in the same order", format!("another {what} at prompt {}", i + 1));
        }
    }
    let (x, y) = (&a.run.reference_nll, &b.run.reference_nll);
    let same = |(x, y): (&crate::ReferenceNll, &crate::ReferenceNll)| {
        x.conversation == y.conversation && x.tokens == y.tokens
    };
    if x.len() != y.len() || !x.iter().zip(y).all(same) {
        return err("likelihoods of the same tokens", "other dialogues or another tokenizer".into());
    }
    Ok(())
}

impl Design {
    pub(super) fn new(entries: &[Entry], bootstrap: Bootstrap) -> Result<Self> {
        let first = &entries[0].runs[0].evaluation;
        let clusters = [Units::Replies, Units::Dialogues].map(|u| first.clusters(u));
        let labels = |e: &Entry| e.runs.iter().map(|r| r.label.clone()).collect::<Vec<_>>();
        // Runs are pairs only where the reference itself was trained anew for each of them.
        let reference = labels(&entries[0]);
        let paired: Vec<bool> =
            entries.iter().map(|e| reference.len() > 1 && labels(e) == reference).collect();
        let stream = bootstrap.stream.child("runs");
        let seeds = entries
            .iter()
            .zip(&paired)
            .map(|(e, &paired)| {
                let stream = stream.child(if paired { "paired" } else { &e.name });
                let s = e.runs.len();
                // S − 1 of S: the variance of the drawn mean is then that of the mean, unbiased (Rao and Wu 1988).
                let draw = |r: usize| {
                    let mut rng = stream.at(r as u64).rng();
                    let mut times = vec![u32::from(s == 1); s];
                    (1..s).for_each(|_| times[rng.below(s)] += 1);
                    times
                };
                (0..bootstrap.resamples).map(draw).collect()
            })
            .collect();
        Ok(Self {
            replies: bootstrap.draw(&clusters[0])?,
            dialogues: bootstrap.draw(&clusters[1])?,
            clusters: clusters.map(|c| distinct(&c)),
            seeds,
            paired,
        })
    }
    /// Whether the runs of two models belong together one by one.
    pub(super) fn pairs(&self, a: usize, b: usize) -> bool {
        self.paired[a] && self.paired[b]
    }
    /// Runs of `a` and `b` that are held against each other: pairs, or each with each.
    pub(super) fn run_pairs(&self, entries: &[Entry], a: usize, b: usize) -> Vec<(usize, usize)> {
        let (n, m) = (entries[a].runs.len(), entries[b].runs.len());
        if self.pairs(a, b) {
            return (0..n).map(|i| (i, i)).collect();
        }
        (0..n).flat_map(|i| (0..m).map(move |j| (i, j))).collect()
    }
    /// Values over all prompts and over each resample of conversations. `metric` gives that of a run, if it has it.
    pub(super) fn table<'a>(
        &self,
        entries: &'a [Entry],
        units: Units,
        clusters: Option<usize>,
        metric: impl Fn(&'a Run) -> Option<Metric>,
    ) -> Table {
        let (draws, of) = match units {
            Units::Replies => (&self.replies, self.clusters[0]),
            Units::Dialogues => (&self.dialogues, self.clusters[1]),
        };
        let mut table = Table { point: vec![], draws: vec![], clusters: clusters.unwrap_or(of) };
        for e in entries {
            let runs: Option<Vec<(f64, Vec<f64>)>> = e
                .runs
                .iter()
                .map(|r| {
                    let m = metric(r)?;
                    let all = vec![1; m.applies().len()];
                    let point = m.value(&all).filter(|x| x.is_finite())?;
                    Some((
                        point,
                        draws.values(|t| m.value(t)).into_iter().map(|v| v.unwrap_or(f64::NAN)).collect(),
                    ))
                })
                .collect();
            let (point, draws) = runs.map(|r| r.into_iter().unzip()).unzip();
            table.point.push(point);
            table.draws.push(draws);
        }
        table
    }
    /// The difference of model `b` to model `a`, over prompts and runs.
    pub(super) fn difference(&self, t: &Table, a: usize, b: usize) -> Option<Estimate> {
        let (pa, pb) = (t.point[a].as_ref()?, t.point[b].as_ref()?);
        let (da, db) = (t.draws[a].as_ref()?, t.draws[b].as_ref()?);
        let at = |draws: &[Vec<f64>], seeds: &[u32], r: usize| {
            let drawn: u32 = seeds.iter().sum();
            // A run that is not drawn must not bring in its NaN.
            let sum: f64 =
                draws.iter().zip(seeds).filter(|(_, n)| **n > 0).map(|(d, &n)| f64::from(n) * d[r]).sum();
            sum / f64::from(drawn)
        };
        let resamples = self.seeds[a].len();
        let draws: Vec<f64> = (0..resamples)
            .map(|r| at(db, &self.seeds[b][r], r) - at(da, &self.seeds[a][r], r))
            .filter(|x| x.is_finite())
            .collect();
        let ((ma, va), (mb, vb)) = (moments(pa), moments(pb));
        let parts = if self.pairs(a, b) {
            let each: Vec<f64> = pa.iter().zip(pb).map(|(x, y)| y - x).collect();
            vec![part(moments(&each).1, each.len())]
        } else {
            vec![part(va, pa.len()), part(vb, pb.len())]
        };
        let runs: Vec<Part> = parts.into_iter().flatten().collect();
        Some(estimate(mb - ma, &draws, &runs, t.clusters, ma.abs().max(mb.abs())))
    }
    /// The difference to `null` of a quantity that runs of `a` and `b` have together: values over all prompts and draws
    /// by pair of runs, as [`Design::run_pairs`] orders them.
    pub(super) fn joint(
        &self,
        entries: &[Entry],
        a: usize,
        b: usize,
        metrics: &[Metric],
        null: f64,
    ) -> Option<Estimate> {
        let pairs = self.run_pairs(entries, a, b);
        let all = vec![1; metrics.first()?.applies().len()];
        let point: Vec<f64> = metrics.iter().map(|m| m.value(&all)).collect::<Option<_>>()?;
        let by_pair: Vec<Vec<Option<f64>>> =
            metrics.iter().map(|m| self.replies.values(|t| m.value(t))).collect();
        let draws: Vec<f64> = (0..self.seeds[a].len())
            .filter_map(|r| {
                let (mut sum, mut weight) = (0.0, 0.0);
                for (&(i, j), values) in pairs.iter().zip(&by_pair) {
                    let both = self.seeds[b][r][j];
                    let w = if self.pairs(a, b) { both } else { self.seeds[a][r][i] * both };
                    if w > 0 {
                        sum += f64::from(w) * values[r]?;
                        weight += f64::from(w);
                    }
                }
                (weight > 0.0).then(|| sum / weight)
            })
            .collect();
        let mean = moments(&point).0;
        let side = |of: &dyn Fn(&(usize, usize)) -> usize, n: usize| {
            let means: Vec<f64> = (0..n)
                .map(|k| {
                    let mine: Vec<f64> =
                        pairs.iter().zip(&point).filter(|(p, _)| of(p) == k).map(|(_, v)| *v).collect();
                    moments(&mine).0
                })
                .collect();
            part(moments(&means).1, n)
        };
        let (n, m) = (entries[a].runs.len(), entries[b].runs.len());
        let parts = if self.pairs(a, b) {
            vec![part(moments(&point).1, n)]
        } else {
            vec![side(&|p| p.0, n), side(&|p| p.1, m)]
        };
        let runs: Vec<Part> = parts.into_iter().flatten().collect();
        Some(estimate(mean - null, &draws, &runs, self.clusters[0], 1.0))
    }
}

/// The variance of a mean of `n` runs.
fn part(variance: f64, n: usize) -> Option<Part> {
    (n > 1 && variance > 0.0).then(|| Part { variance: variance / n as f64, df: (n - 1) as f64 })
}
