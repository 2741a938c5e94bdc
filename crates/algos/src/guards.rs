//! Guards of a reinforcement-learning run: alarms from the numbers of each update, and what to do about them. Pure
//! decisions; the caller keeps checkpoints, restores them and stops.
//!
//! | code | alarm | raised when |
//! |---|---|---|
//! | G1 | non-finite | a loss, gradient or metric of the update was not finite |
//! | G2 | KL spike | KL to the reference passes `kl_limit`, or `kl_spike` times the largest of the last `window` good updates (and `kl_floor`) |
//! | G3 | entropy collapse | entropy a token is below `entropy_floor` times that of the first `window` updates |
//! | G4 | reward up, held-out down | over the last `held_out_falls` evaluations the held-out score fell each time while the training score rose |
//! | G5 | length drift | mean response length left the band of `length_drift` times that of the first `window` updates, either way |
//!
//! An alarm rolls back to the last good state with the step size times `lr_factor` and β times `kl_factor`; after
//! `max_rollbacks` of them the next alarm ends the run (exit 6). The remedies that the codes stand for: G1, G2 lower
//! `learning_rate`; G2, G4 raise `kl_coef`; G3 raise `entropy_coef`; G4 look at the samples before anything else; G5
//! raise `missing_eos_penalty` or add an overlong penalty.

use ecr_core::{Error, Kind};
use serde::{Deserialize, Serialize};

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alarm {
    /// G1.
    NonFinite,
    /// G2.
    KlSpike,
    /// G3.
    EntropyCollapse,
    /// G4.
    HeldOutFalls,
    /// G5.
    LengthDrift,
}

impl Alarm {
    /// The documented code.
    pub fn code(self) -> &'static str {
        match self {
            Self::NonFinite => "G1",
            Self::KlSpike => "G2",
            Self::EntropyCollapse => "G3",
            Self::HeldOutFalls => "G4",
            Self::LengthDrift => "G5",
        }
    }
    /// What it means, in a few words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::NonFinite => "a number is not finite",
            Self::KlSpike => "KL to the reference jumped",
            Self::EntropyCollapse => "entropy collapsed",
            Self::HeldOutFalls => "the reward rises while the held-out score falls",
            Self::LengthDrift => "response length drifted",
        }
    }
}

/// When to raise alarms, and what rolling back changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardConfig {
    /// Good updates that later ones are compared with, ≥ 1. Default 5.
    pub window: usize,
    /// Largest KL to the reference, nats a sequence; absent is no fixed limit. Default absent.
    pub kl_limit: Option<f64>,
    /// Factor over the largest KL of the window that is a spike, > 1. Default 3.
    pub kl_spike: f64,
    /// KL below which nothing is a spike, nats a sequence. Default 1.
    pub kl_floor: f64,
    /// Share of the first entropy that must remain, in [0, 1); 0 is off. Default 0.2.
    pub entropy_floor: f64,
    /// Evaluations in a row with falling held-out and rising training score; 0 is off. Default 3.
    pub held_out_falls: usize,
    /// Factor that the mean length may change by, up or down, > 1; 0 is off. Default 2.
    pub length_drift: f64,
    /// Factor on learning rates at each rollback, in (0, 1]. Default 0.5.
    pub lr_factor: f64,
    /// Factor on β at each rollback, ≥ 1. Default 1.5.
    pub kl_factor: f64,
    /// Rollbacks before an alarm ends the run. Default 3.
    pub max_rollbacks: u32,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            window: 5,
            kl_limit: None,
            kl_spike: 3.0,
            kl_floor: 1.0,
            entropy_floor: 0.2,
            held_out_falls: 3,
            length_drift: 2.0,
            lr_factor: 0.5,
            kl_factor: 1.5,
            max_rollbacks: 3,
        }
    }
}

/// Numbers of one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Signals {
    /// Whether every loss, gradient and metric was finite (no minibatch skipped).
    pub finite: bool,
    /// KL to the reference, nats a sequence.
    pub kl: f64,
    /// Entropy of the policy, nats a token.
    pub entropy: f64,
    /// Mean training score.
    pub score: f64,
    /// Mean score by a scorer that is not trained on, on held-out prompts, where it was measured at this update.
    pub held_out: Option<f64>,
    /// Mean response length, tokens.
    pub length: f64,
}

/// What the caller is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Go on; this state is good and may be rolled back to.
    Continue,
    /// Restore the last good state; take learning rates times `lr` and β times `kl` of the configuration from now on.
    RollBack {
        /// Why.
        alarms: Vec<Alarm>,
        /// Factor on the configured learning rates.
        lr: f64,
        /// Factor on the configured β.
        kl: f64,
    },
    /// Restore the last good state and end the run.
    Stop {
        /// Why.
        alarms: Vec<Alarm>,
    },
}

/// The guards' memory; belongs into checkpoints, but is not rolled back with them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Guards {
    first_entropy: Vec<f64>,
    first_length: Vec<f64>,
    recent_kl: Vec<f64>,
    evaluations: Vec<(f64, f64)>,
    /// Rollbacks so far.
    pub rollbacks: u32,
}

impl Guards {
    /// Takes the numbers of an update and decides.
    pub fn observe(&mut self, s: &Signals, cfg: &GuardConfig) -> Decision {
        let alarms = self.alarms(s, cfg);
        if alarms.is_empty() {
            self.remember(s, cfg);
            return Decision::Continue;
        }
        // The evaluations that raised it belong to the states that are thrown away.
        self.evaluations.clear();
        if self.rollbacks >= cfg.max_rollbacks {
            return Decision::Stop { alarms };
        }
        self.rollbacks += 1;
        let (lr, kl) = self.factors(cfg);
        Decision::RollBack { alarms, lr, kl }
    }
    /// Factors on the configured learning rates and β after the rollbacks so far.
    pub fn factors(&self, cfg: &GuardConfig) -> (f64, f64) {
        let n = self.rollbacks as i32;
        (cfg.lr_factor.powi(n), cfg.kl_factor.powi(n))
    }
    fn alarms(&self, s: &Signals, cfg: &GuardConfig) -> Vec<Alarm> {
        let numbers = [s.kl, s.entropy, s.score, s.length, s.held_out.unwrap_or(0.0)];
        if !s.finite || numbers.iter().any(|x| !x.is_finite()) {
            return vec![Alarm::NonFinite];
        }
        let mut out = Vec::new();
        let full = self.recent_kl.len() >= cfg.window.max(1);
        let largest = self.recent_kl.iter().copied().fold(0.0, f64::max);
        let spike = full && s.kl > cfg.kl_floor && s.kl > cfg.kl_spike * largest;
        if spike || cfg.kl_limit.is_some_and(|limit| s.kl > limit) {
            out.push(Alarm::KlSpike);
        }
        if let Some(first) = settled(&self.first_entropy, cfg)
            && s.entropy < cfg.entropy_floor * first
        {
            out.push(Alarm::EntropyCollapse);
        }
        if let Some(held_out) = s.held_out
            && cfg.held_out_falls > 0
            && self.evaluations.len() >= cfg.held_out_falls
        {
            let last = &self.evaluations[self.evaluations.len() - cfg.held_out_falls..];
            let mut all = last.to_vec();
            all.push((s.score, held_out));
            if all.windows(2).all(|w| w[1].0 > w[0].0 && w[1].1 < w[0].1) {
                out.push(Alarm::HeldOutFalls);
            }
        }
        if let Some(first) = settled(&self.first_length, cfg)
            && cfg.length_drift > 0.0
            && (s.length > cfg.length_drift * first || s.length * cfg.length_drift < first)
        {
            out.push(Alarm::LengthDrift);
        }
        out
    }
    fn remember(&mut self, s: &Signals, cfg: &GuardConfig) {
        let window = cfg.window.max(1);
        for (first, x) in [(&mut self.first_entropy, s.entropy), (&mut self.first_length, s.length)] {
            if first.len() < window {
                first.push(x);
            }
        }
        self.recent_kl.push(s.kl);
        if self.recent_kl.len() > window {
            self.recent_kl.remove(0);
        }
        if let Some(held_out) = s.held_out {
            self.evaluations.push((s.score, held_out));
            if self.evaluations.len() > cfg.held_out_falls.max(1) {
                self.evaluations.remove(0);
            }
        }
    }
}

/// Mean of the first updates once there are enough of them.
fn settled(first: &[f64], cfg: &GuardConfig) -> Option<f64> {
    (first.len() >= cfg.window.max(1)).then(|| first.iter().sum::<f64>() / first.len() as f64)
}

/// The error with which a stopped run ends (exit 6).
pub fn stopped(alarms: &[Alarm], rollbacks: u32, step: u64) -> Error {
    let why: Vec<String> = alarms.iter().map(|a| format!("{} ({})", a.code(), a.meaning())).collect();
    Error::new(Kind::Diverged, format!("train beyond update {step}"))
        .expected("no alarm")
        .got(format!("{} after {rollbacks} rollbacks", why.join(", ")))
        .files("the last good state is kept")
        .hint("read the samples; lower learning_rate, raise kl_coef, or relax the guard that fired")
}
