//! Settings of MACPO, with their defaults, units and ranges.

use ecr_core::Result;
use serde::{Deserialize, Serialize};

use super::CandidateGuards;
use crate::dpo::DpoConfig;
use crate::update::in_range;

/// Which of the others' responses becomes the positive.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// Lowest perplexity under the learner, as published. Repetition has low perplexity: keep the guards on.
    #[default]
    PerplexityMin,
    /// Highest reward among those whose perplexity is within `perplexity_band`.
    PerplexityBand,
    /// Highest reward.
    Reward,
    /// Smallest product of the ranks by reward (highest first) and by perplexity (lowest first).
    RewardPerplexity,
}

/// What negatives are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NegativeKind {
    /// Samples of the learner's own negative agent, the most familiar first.
    #[default]
    Hard,
    /// Samples that are not the learner's own (ablation −hard-negative), the first that differs from the positive.
    Easy,
}

/// What the DPO reference is. Logged with its hash by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReferenceKind {
    /// The learner at the start of the round.
    #[default]
    StartOfRound,
    /// The learner at the start of the run.
    StartOfRun,
    /// The base model without adapter (what the release does).
    Base,
}

/// Settings of MACPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MacpoConfig {
    /// Rounds, ≥ 1. Default 3.
    pub rounds: usize,
    /// Teachers K, ≥ 1. Default 3.
    pub teachers: usize,
    /// Positives come from the others; off (ablation −mutual), from the learner itself. Default true.
    pub mutual: bool,
    /// What negatives are. Default hard.
    pub negatives: NegativeKind,
    /// Sample negatives anew each round; off is once, as published. Default true.
    pub refresh_negatives: bool,
    /// Teachers learn from the student; off is the ablation with frozen teachers. Default true.
    pub update_teachers: bool,
    /// Which response becomes the positive. Default perplexity-min.
    pub criterion: Criterion,
    /// Least and largest perplexity of `perplexity-band`. Default 1.5 to 50.
    pub perplexity_band: (f64, f64),
    /// The DPO reference. Default start-of-round.
    pub reference: ReferenceKind,
    /// Passes over a round's pairs, ≥ 1. Default 1.
    pub epochs: usize,
    /// DPO settings of a round; `steps` is set by the number of pairs. Default: rate 1e-5 cosine, β .1, SFT .2.
    pub dpo: DpoConfig,
    /// What a positive must be like.
    pub guards: CandidateGuards,
    /// Least gain of the held-out team reward for a round to be kept; negative tolerates noise. Default 0.
    pub min_gain: f64,
    /// Largest KL to the baseline on held-out prompts, nats a sequence, > 0; absent is no limit. Default absent.
    pub max_kl: Option<f64>,
    /// Factor that held-out length may change by in a round, up or down, > 1. Default 1.5.
    pub length_drift: f64,
    /// Largest fall of the held-out share of finished responses in a round, in [0, 1]. Default 0.05.
    pub eos_fall: f64,
    /// Largest rise of held-out repetition in a round, in [0, 1]. Default 0.05.
    pub repetition_rise: f64,
    /// Share of different held-out responses that must remain of the round's start, in [0, 1]: with one teacher they
    /// collapse first. Default 0.5.
    pub distinct_floor: f64,
}

impl Default for MacpoConfig {
    fn default() -> Self {
        Self {
            rounds: 3,
            teachers: 3,
            mutual: true,
            negatives: NegativeKind::Hard,
            refresh_negatives: true,
            update_teachers: true,
            criterion: Criterion::PerplexityMin,
            perplexity_band: (1.5, 50.0),
            reference: ReferenceKind::StartOfRound,
            epochs: 1,
            dpo: DpoConfig {
                learning_rate: 1e-5,
                schedule: ecr_core::optim::Schedule::Cosine,
                sft_coef: 0.2,
                ..DpoConfig::default()
            },
            guards: CandidateGuards::default(),
            min_gain: 0.0,
            max_kl: None,
            length_drift: 1.5,
            eos_fall: 0.05,
            repetition_rise: 0.05,
            distinct_floor: 0.5,
        }
    }
}

impl MacpoConfig {
    /// Checks the ranges that the fields document.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Config`] that names the field.
    pub fn check(&self) -> Result<()> {
        self.dpo.check()?;
        let (low, high) = self.perplexity_band;
        let unit = |x: f64| (0.0..=1.0).contains(&x);
        in_range(
            "macpo",
            &[
                ("rounds", self.rounds as f64, self.rounds > 0),
                ("teachers", self.teachers as f64, self.teachers > 0),
                ("epochs", self.epochs as f64, self.epochs > 0),
                ("perplexity_band", low, low >= 1.0 && high > low),
                ("min_gain", self.min_gain, true),
                ("max_kl", self.max_kl.unwrap_or(1.0), self.max_kl.is_none_or(|k| k > 0.0)),
                ("length_drift", self.length_drift, self.length_drift > 1.0),
                ("eos_fall", self.eos_fall, unit(self.eos_fall)),
                ("repetition_rise", self.repetition_rise, unit(self.repetition_rise)),
                ("distinct_floor", self.distinct_floor, unit(self.distinct_floor)),
                ("guards.max_repetition", self.guards.max_repetition, unit(self.guards.max_repetition)),
                ("guards.max_similarity", self.guards.max_similarity, unit(self.guards.max_similarity)),
                ("guards.ngram", self.guards.ngram as f64, self.guards.ngram > 0),
            ],
        )
    }
}
