//! What an experiment file says.

use std::path::{Path, PathBuf};

use ecr_core::{Error, Result, io};
use ecr_eval::names::info;
use serde::{Deserialize, Serialize};

use super::builtin::BUILTIN;
use super::expect::Expectation;
use crate::config::{Layers, Origin, preset};
use crate::stages;

/// An experiment, as its TOML file describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spec {
    /// What it asks, for its page.
    pub about: String,
    /// Preset or configuration file that all runs begin with; a relative path is from the experiment's file.
    pub base: String,
    /// Settings of all runs, `key=value`.
    pub set: Vec<String>,
    /// Training seeds, each above 0.
    pub seeds: Vec<u64>,
    /// First stage that the seed changes (`run.train_seed_from`).
    pub seeds_from: String,
    /// Stages whose models are compared: `ppo`, `sft`, and optional ones, which are then trained.
    pub stages: Vec<String>,
    /// Metrics to compare; empty = the usual ones.
    pub metrics: Vec<String>,
    /// Numbers of the training logs whose course and spread the page shows.
    pub training: Vec<String>,
    /// What must hold, e.g. `"constant bleu_1 not better"`.
    pub expect: Vec<String>,
    /// What differs.
    #[serde(rename = "variant")]
    pub variants: Vec<Variant>,
}

/// One arm of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Variant {
    /// Name of its directory and in the tables.
    pub name: String,
    /// Its settings, `key=value`, over those of the experiment.
    pub set: Vec<String>,
    /// Its own `stages`; empty = those of the experiment.
    pub stages: Vec<String>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            about: String::new(),
            base: "demo".into(),
            set: Vec::new(),
            seeds: vec![1, 2, 3],
            seeds_from: "ppo".into(),
            stages: vec!["ppo".into()],
            metrics: Vec::new(),
            training: Vec::new(),
            expect: Vec::new(),
            variants: Vec::new(),
        }
    }
}

/// Stages that belong to a run only when they are asked for.
fn optional() -> Vec<&'static str> {
    stages::all().into_iter().filter(|s| s.optional()).map(|s| s.name()).collect()
}

impl Spec {
    /// A built-in experiment or a file.
    ///
    /// # Errors
    /// Config: unknown name, TOML that is none, a mistake in it.
    pub fn load(what: &str) -> Result<Self> {
        if let Some((_, text)) = BUILTIN.iter().find(|(n, _)| *n == what) {
            return Self::parse(text, what);
        }
        let path = Path::new(what);
        if !path.is_file() {
            return Err(Error::config(format!("find the experiment {what}"))
                .expected(format!(
                    "a TOML file, or one of {}",
                    BUILTIN.iter().map(|b| b.0).collect::<Vec<_>>().join(", ")
                ))
                .got("neither")
                .files("nothing was changed"));
        }
        let mut spec = Self::parse(&io::read_to_string(path)?, what)?;
        let beside: PathBuf = path.parent().unwrap_or(Path::new(".")).join(&spec.base);
        if beside.is_file() {
            spec.base = beside.display().to_string();
        }
        Ok(spec)
    }
    /// Reads and checks an experiment.
    ///
    /// # Errors
    /// Config: names line and mistake.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let spec: Self = toml::from_str(text).map_err(|e: toml::de::Error| {
            let line = e.span().map_or(1, |s| text[..s.start].matches('\n').count() + 1);
            Error::config(format!("read {name}:{line}"))
                .expected("an experiment: base, set, seeds, stages, metrics, expect, and [[variant]] with name and set")
                .got(e.message().to_string())
                .files("nothing was changed")
        })?;
        spec.check(name)?;
        Ok(spec)
    }
    /// Checks all that can be checked before anything runs.
    pub(super) fn check(&self, name: &str) -> Result<()> {
        let fail = |expected: String, got: String| {
            Err(Error::config(format!("check the experiment {name}"))
                .expected(expected)
                .got(got)
                .files("nothing was changed"))
        };
        if self.variants.is_empty() {
            return fail("at least one [[variant]]".into(), "none".into());
        }
        for (i, v) in self.variants.iter().enumerate() {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if v.name.is_empty() || v.name.starts_with('.') || !v.name.chars().all(plain) {
                return fail("names of letters, digits, - and _".into(), format!("{:?}", v.name));
            }
            if self.variants[..i].iter().any(|o| o.name == v.name) {
                return fail("another name for each variant".into(), format!("two called {:?}", v.name));
            }
        }
        let mut seeds = self.seeds.clone();
        seeds.sort_unstable();
        seeds.dedup();
        if seeds.len() != self.seeds.len() || seeds.first().is_none_or(|s| *s == 0) {
            return fail("different seeds, each above 0".into(), format!("{:?}", self.seeds));
        }
        for s in self.variants.iter().flat_map(|v| self.stages_of(v)) {
            if !["sft", "ppo"].contains(&s.as_str()) && !optional().contains(&s.as_str()) {
                let known = [&["sft", "ppo"], optional().as_slice()].concat();
                return fail(format!("stages that make a model: {}", known.join(", ")), s.clone());
            }
        }
        for m in &self.metrics {
            if info(m).about.is_empty() {
                return fail("names of metrics, as in comparison.json".into(), m.clone());
            }
        }
        let names = self.names();
        for e in self.expectations()? {
            if !names.contains(&e.entry) {
                return fail(format!("expectations of {}", names.join(", ")), e.entry);
            }
        }
        Ok(())
    }
    /// Stages whose models of a variant are compared.
    pub fn stages_of<'a>(&'a self, v: &'a Variant) -> &'a [String] {
        if v.stages.is_empty() { &self.stages } else { &v.stages }
    }
    /// Name of a model in the tables: of its variant, its stage, or both, whichever tells it apart.
    pub fn entry(&self, v: &Variant, stage: &str) -> String {
        match (self.variants.len(), self.stages_of(v).len()) {
            (1, _) => stage.to_owned(),
            (_, 1) => v.name.clone(),
            _ => format!("{}/{stage}", v.name),
        }
    }
    /// All names in the tables but the reference's.
    pub fn names(&self) -> Vec<String> {
        self.variants.iter().flat_map(|v| self.stages_of(v).iter().map(|s| self.entry(v, s))).collect()
    }
    pub(super) fn expectations(&self) -> Result<Vec<Expectation>> {
        self.expect.iter().map(|e| Expectation::parse(e)).collect()
    }
    /// Settings of one run; `over` come last.
    ///
    /// # Errors
    /// Config: an unknown base or key, a value out of range.
    pub fn layers(&self, v: &Variant, seed: u64, over: &[String]) -> Result<Layers> {
        let mut l = Layers::new();
        let base = Path::new(&self.base);
        if base.is_file() {
            l.file(base)?;
        } else {
            l.toml(preset(&self.base)?, &self.base, |_| Origin::Preset(self.base.clone()))?;
        }
        self.set.iter().chain(&v.set).chain(over).try_for_each(|s| l.set(s))?;
        l.set(&format!("run.train_seed={seed}"))?;
        l.set(&format!("run.train_seed_from={}", self.seeds_from))?;
        let mut also = l.config()?.run.also;
        for s in self.stages_of(v).iter().filter(|s| optional().contains(&s.as_str())) {
            if !also.contains(s) {
                also.push(s.clone());
            }
        }
        let also: Vec<String> = also.iter().map(|s| format!("{s:?}")).collect();
        l.set(&format!("run.also=[{}]", also.join(",")))?;
        l.config()?;
        Ok(l)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_with_the_program_is_valid_down_to_each_setting() {
        for (name, text) in BUILTIN {
            let spec = Spec::parse(text, name).unwrap();
            assert!(!spec.about.is_empty(), "{name}");
            for v in &spec.variants {
                let c = spec.layers(v, 3, &[]).unwrap().config().unwrap();
                assert_eq!((c.run.train_seed, c.run.seed), (3, 42), "{name}");
            }
        }
    }

    #[test]
    fn names_are_as_short_as_they_can_be() {
        let of = |text: &str| Spec::parse(text, "x").unwrap().names();
        assert_eq!(of("stages = [\"ppo\", \"rloo\"]\n[[variant]]\nname = \"a\""), ["ppo", "rloo"]);
        assert_eq!(of("[[variant]]\nname = \"a\"\n[[variant]]\nname = \"b\""), ["a", "b"]);
        let both = "[[variant]]\nname = \"a\"\nstages = [\"ppo\", \"grpo\"]\n[[variant]]\nname = \"b\"";
        assert_eq!(of(both), ["a/ppo", "a/grpo", "b"]);
    }

    #[test]
    fn mistakes_are_named_before_anything_runs() {
        let a = "[[variant]]\nname = \"a\"\n";
        for (text, says) in [
            ("seeds = [1]", "at least one [[variant]]"),
            ("sedes = [1]\n", "x:1"),
            (&format!("seeds = [1, 1]\n{a}"), "different seeds"),
            (&format!("seeds = [0]\n{a}"), "above 0"),
            (&format!("stages = [\"ppp\"]\n{a}"), "rloo"),
            (&format!("metrics = [\"blue_1\"]\n{a}"), "blue_1"),
            (&format!("expect = [\"b bleu_1 not better\"]\n{a}"), "expectations of ppo"),
            (&format!("expect = [\"ppo bleu_1 improves\"]\n{a}"), "not better"),
            (&format!("{a}{a}"), "two called"),
            ("[[variant]]\nname = \"../a\"\n", "letters"),
        ] {
            let e = Spec::parse(text, "x").unwrap_err();
            assert!(e.exit_code() == 2 && e.to_string().contains(says), "{text}: {e}");
        }
        let spec = Spec::parse(&format!("{a}set = [\"ppo.stepps=1\"]"), "x").unwrap();
        assert!(spec.layers(&spec.variants[0], 1, &[]).unwrap_err().to_string().contains("ppo.steps"));
        assert!(Spec::load("algorithm").unwrap_err().to_string().contains("algorithms"));
    }
}
