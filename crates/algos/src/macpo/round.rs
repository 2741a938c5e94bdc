//! Where a run stands, and whether a round is kept.

use serde::{Deserialize, Serialize};

use super::MacpoConfig;

/// What is done next in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Teachers (or with −mutual the student) and negative agents respond; the student's pairs are built.
    #[default]
    Respond,
    /// The student learns.
    Student,
    /// The student responds; each teacher's pairs are built.
    Answer,
    /// A teacher learns.
    Teacher(
        /// Which.
        usize,
    ),
    /// Held-out prompts decide whether the round is kept.
    Judge,
    /// All rounds are done.
    Done,
}

/// Where a run stands, between and inside rounds; belongs into checkpoints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Rounds completed.
    pub round: usize,
    /// What is done next.
    pub phase: Phase,
    /// Optimiser steps of this phase done.
    pub step: usize,
}

impl Progress {
    /// Moves past one step of a learning phase that has `steps`.
    pub fn stepped(&mut self, steps: usize, cfg: &MacpoConfig) {
        self.step += 1;
        if self.step >= steps {
            self.finish_phase(cfg);
        }
    }
    /// Moves to the next phase.
    pub fn finish_phase(&mut self, cfg: &MacpoConfig) {
        self.step = 0;
        self.phase = match self.phase {
            Phase::Respond => Phase::Student,
            Phase::Student if cfg.update_teachers => Phase::Answer,
            Phase::Student => Phase::Judge,
            Phase::Answer => Phase::Teacher(0),
            Phase::Teacher(k) if k + 1 < cfg.teachers => Phase::Teacher(k + 1),
            Phase::Teacher(_) => Phase::Judge,
            Phase::Judge | Phase::Done => {
                self.round += usize::from(self.phase == Phase::Judge);
                if self.round < cfg.rounds { Phase::Respond } else { Phase::Done }
            }
        };
    }
}

/// The student on held-out prompts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Mean team reward.
    pub reward: f64,
    /// KL to the baseline, nats a sequence.
    pub kl: f64,
    /// Mean response length, tokens.
    pub length: f64,
    /// Share of responses that ended by themselves.
    pub eos_rate: f64,
    /// Mean repetition ([`super::repetition`]).
    pub repetition: f64,
    /// Share of different responses.
    pub distinct: f64,
}

/// Whether a round is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is.
    Kept,
    /// It is undone, for these reasons.
    RolledBack(Vec<String>),
}

/// Decides on a round by the student on the same held-out prompts before and after it.
pub fn judge(before: &HeldOut, after: &HeldOut, cfg: &MacpoConfig) -> Verdict {
    let numbers = [after.reward, after.kl, after.length, after.eos_rate, after.repetition, after.distinct];
    let finite = numbers.iter().all(|x| x.is_finite());
    let drift = cfg.length_drift;
    let reasons: Vec<String> = [
        (!finite, "a number is not finite".to_owned()),
        (
            after.reward < before.reward + cfg.min_gain,
            format!("team reward {:.4} after {:.4}", after.reward, before.reward),
        ),
        (cfg.max_kl.is_some_and(|k| after.kl > k), format!("KL {:.3} over the limit", after.kl)),
        (
            after.length > before.length * drift || after.length * drift < before.length,
            format!("length {:.1} after {:.1}", after.length, before.length),
        ),
        (
            after.eos_rate < before.eos_rate - cfg.eos_fall,
            format!("{:.3} of responses end, after {:.3}", after.eos_rate, before.eos_rate),
        ),
        (
            after.repetition > before.repetition + cfg.repetition_rise,
            format!("repetition {:.3} after {:.3}", after.repetition, before.repetition),
        ),
        (
            after.distinct < before.distinct * cfg.distinct_floor,
            format!("{:.3} of responses differ, after {:.3}: collapse", after.distinct, before.distinct),
        ),
    ]
    .into_iter()
    .filter_map(|(bad, why)| bad.then_some(why))
    .collect();
    if reasons.is_empty() { Verdict::Kept } else { Verdict::RolledBack(reasons) }
}
