//! Runs an experiment and compares its models.

use std::path::{Path, PathBuf};

use ecr_core::io::{self, DirLock};
use ecr_core::{Error, Result, Stream};
use ecr_eval::Bootstrap;
use ecr_eval::many::{ComparisonAll, Entry, METRICS, Options, compare_many};
use serde::Serialize;

use super::entries::{add, model_of};
use super::expect::Checked;
use super::page;
use super::spec::{Spec, Variant};
use super::training::{Curve, curve, series};
use crate::graph::{self, Plan};
use crate::log::Voice;
use crate::rundir::RunDir;
use crate::stages::{self, REPLIES_FILE};

/// Name of the model that all others are held against: the baseline of the first variant.
pub(super) const REFERENCE: &str = "baseline";

/// The metric whose meaning depends on a run's settings.
pub(super) const MEAN_REWARD: &str = "mean_reward";

/// An experiment with its name and what the command line sets over it.
#[derive(Debug, Clone)]
pub struct Study {
    /// Name of its directory and page.
    pub name: String,
    /// What it does.
    pub spec: Spec,
    /// `key=value` over every run's settings.
    pub over: Vec<String>,
}

/// What came out: `experiment.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Version of the file, 1.
    pub version: u32,
    /// The experiment.
    pub name: String,
    /// What it was.
    pub spec: Spec,
    /// What the command line set over it.
    pub over: Vec<String>,
    /// Expectations held against the numbers.
    pub expectations: Vec<Checked>,
    /// Courses of training.
    pub training: Vec<Curve>,
    /// All models.
    pub comparison: ComparisonAll,
    /// Text of the page.
    #[serde(skip)]
    pub markdown: String,
    /// Text of `comparison_all.md`'s body.
    #[serde(skip)]
    pub(super) table: String,
}

impl Study {
    /// The directory of one run.
    pub fn dir(&self, root: &Path, v: &Variant, seed: u64) -> PathBuf {
        root.join(&v.name).join(format!("seed-{seed}"))
    }
    /// Trains what is not finished yet, seed by seed so that early seeds can already be looked at, and writes
    /// `experiment.md` and `experiment.json` into `root`. `None` of a dry run.
    ///
    /// # Errors
    /// Those of the stages; Config before anything runs, if any variant has a wrong setting.
    pub fn run(&self, root: &Path, plan: &Plan, voice: Voice) -> Result<Option<Outcome>> {
        let outcome = self.train(root, plan, voice)?;
        if let Some(o) = &outcome {
            io::atomic_write(&root.join("experiment.json"), json(o)?.as_bytes())?;
            io::atomic_write(&root.join("experiment.md"), o.markdown.as_bytes())?;
        }
        Ok(outcome)
    }
    /// As [`Study::run`], without writing a page.
    pub(super) fn train(&self, root: &Path, plan: &Plan, voice: Voice) -> Result<Option<Outcome>> {
        let spec = &self.spec;
        spec.check(&self.name)?;
        // A mistake in the last variant must not show after hours.
        let prompts = |v: &Variant| -> Result<_> {
            let c = spec.layers(v, spec.seeds[0], &self.over)?.config()?;
            let e = c.eval;
            Ok((c.run.seed, c.data, e.prompts, e.dialogues, e.split, c.policy.context_max))
        };
        let first = prompts(&spec.variants[0])?;
        for v in &spec.variants {
            if prompts(v)? != first {
                return Err(Error::config(format!("compare {} with {}", v.name, spec.variants[0].name))
                    .expected("the same test prompts: run.seed, data.*, eval.prompts, eval.dialogues, eval.split and \
                        policy.context_max of all variants alike")
                    .got(v.set.join(", "))
                    .files("nothing was changed")
                    .hint("put such settings into the experiment's own `set`"));
            }
        }
        self.metrics()?;
        let _lock = if plan.dry_run { None } else { Some(DirLock::acquire(root)?) };
        let dirs: Vec<(u64, &Variant)> =
            spec.seeds.iter().flat_map(|&s| spec.variants.iter().map(move |v| (s, v))).collect();
        let donors: Vec<PathBuf> = dirs.iter().map(|(s, v)| self.dir(root, v, *s)).collect();
        for (i, (seed, v)) in dirs.iter().enumerate() {
            voice.say(&format!("[{}/{}] {}, seed {seed}", i + 1, dirs.len(), v.name));
            let layers = spec.layers(v, *seed, &self.over)?;
            let plan = Plan { donors: donors.clone(), ..plan.clone() };
            graph::run(&stages::all(), &layers, RunDir::new(&donors[i]), &plan, voice)?;
        }
        if plan.dry_run {
            return Ok(None);
        }
        self.compare(root, &donors).map(Some)
    }
    /// Metrics to compare; empty = the usual ones. The mean reward is one quantity only where all variants have one reward.
    fn metrics(&self) -> Result<Vec<String>> {
        let spec = &self.spec;
        let reward = |v: &Variant| -> Result<_> {
            let mut r = serde_json::json!(spec.layers(v, spec.seeds[0], &self.over)?.config()?.reward);
            r["cache"].take();
            Ok(r)
        };
        let rewards = spec.variants.iter().map(reward).collect::<Result<Vec<_>>>()?;
        let Some(other) = rewards.iter().position(|r| *r != rewards[0]) else {
            return Ok(spec.metrics.clone());
        };
        if spec.metrics.iter().any(|m| m == MEAN_REWARD) {
            let (a, b) = (&spec.variants[0].name, &spec.variants[other].name);
            return Err(Error::config(format!("compare the mean reward of {b} with that of {a}"))
                .expected("one reward, to be compared")
                .got("other settings of `reward`")
                .files("nothing was changed")
                .hint("leave mean_reward out of the experiment's metrics"));
        }
        let usual = || METRICS.into_iter().filter(|m| *m != MEAN_REWARD).map(String::from).collect();
        Ok(if spec.metrics.is_empty() { usual() } else { spec.metrics.clone() })
    }
    fn compare(&self, root: &Path, dirs: &[PathBuf]) -> Result<Outcome> {
        let spec = &self.spec;
        let config = spec.layers(&spec.variants[0], spec.seeds[0], &self.over)?.config()?;
        let mut entries: Vec<Entry> = Vec::new();
        let replies = |v: &Variant, seed: u64, model: &str| {
            RunDir::new(self.dir(root, v, seed)).evaluation(model).join(REPLIES_FILE)
        };
        let label = |seed: u64| format!("seed-{seed}");
        for &seed in &spec.seeds {
            let file = replies(&spec.variants[0], seed, model_of("sft"));
            add(&mut entries, REFERENCE, &label(seed), &file)?;
        }
        let mut training = Vec::new();
        for (i, v) in spec.variants.iter().enumerate() {
            for stage in spec.stages_of(v).iter().filter(|s| i > 0 || *s != "sft") {
                let name = spec.entry(v, stage);
                for &seed in &spec.seeds {
                    add(&mut entries, &name, &label(seed), &replies(v, seed, model_of(stage)))?;
                }
                for number in &spec.training {
                    let log = |seed: &u64| {
                        let dir = RunDir::new(self.dir(root, v, *seed));
                        series(&dir.log(&format!("{stage}.metrics.jsonl")), number)
                    };
                    let runs = spec.seeds.iter().map(log).collect::<Result<Vec<_>>>()?;
                    training.extend(curve(&name, number, &runs));
                }
            }
        }
        let bootstrap = Bootstrap {
            resamples: config.eval.resamples,
            stream: Stream::new(config.run.seed).child("experiment"),
        };
        let all = compare_many(entries, &Options { metrics: self.metrics()?, bootstrap })?;
        let expectations =
            spec.expectations()?.iter().map(|e| e.check(&all.comparison)).collect::<Result<Vec<_>>>()?;
        let mut outcome = Outcome {
            version: 1,
            name: self.name.clone(),
            spec: without_paths(spec),
            over: self.over.iter().filter(|s| !is_path(s)).cloned().collect(),
            expectations,
            training,
            comparison: all.comparison,
            markdown: String::new(),
            table: all.markdown,
        };
        outcome.markdown = page::render(&outcome, dirs.len());
        Ok(outcome)
    }
}

impl Outcome {
    /// Expectations that the data contradict.
    pub fn failed(&self) -> Vec<&str> {
        self.expectations.iter().filter(|e| !e.held).map(|e| e.expect.as_str()).collect()
    }
    /// Text of `experiment.json`.
    ///
    /// # Errors
    /// Internal: a number that JSON has no word for.
    pub fn json(&self) -> Result<String> {
        json(self)
    }
}

/// Whether an assignment is of a path.
fn is_path(assignment: &str) -> bool {
    assignment.split('=').next().is_some_and(|key| key.trim().ends_with("path"))
}

/// An experiment as results show it: they hold no paths.
fn without_paths(spec: &Spec) -> Spec {
    let mut spec = spec.clone();
    spec.base = spec.base.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
    spec.set.retain(|s| !is_path(s));
    spec.variants.iter_mut().for_each(|v| v.set.retain(|s| !is_path(s)));
    spec
}

/// JSON text of a result.
pub(super) fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map(|s| s + "\n")
        .map_err(|e| Error::internal("write the results of an experiment").got(e.to_string()))
}
