//! Settings of MAPPO, with their defaults, units and ranges.

use ecr_core::Result;
use ecr_core::optim::Schedule;
use serde::{Deserialize, Serialize};

use crate::losses::{Aggregation, Clip, KlEstimator};
use crate::update::{UpdateConfig, in_range};

/// What an agent is paid for the team's success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Credit {
    /// The team reward.
    #[default]
    Team,
    /// The team reward less what the team would have got without the agent (difference reward).
    Difference,
}

/// Settings of MAPPO. Defaults follow the five suggestions of Yu et al. 2022: value normalisation, few epochs, one
/// minibatch, ε at most .2, and a critic that sees everything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MappoConfig {
    /// Peak learning rate of each agent, ≥ 0. Default 3e-6.
    pub learning_rate: f64,
    /// Peak learning rate of the critic, ≥ 0. Default 1e-5.
    pub value_learning_rate: f64,
    /// Shape of both rates over `steps`. Default linear to zero.
    pub schedule: Schedule,
    /// Steps of linear warm-up. Default 0.
    pub warmup_steps: u64,
    /// Updates of the whole run, ≥ 1. Default 100.
    pub steps: u64,
    /// Episodes (prompts) an update, ≥ 1. Default 16.
    pub batch_size: usize,
    /// Responses a minibatch, of an agent or for the critic, ≥ 1. Default 1024, which is all of them.
    pub minibatch_size: usize,
    /// Most tokens (prompts included) in one forward pass, ≥ 1; does not change results. Default 2048.
    pub micro_batch_tokens: usize,
    /// Passes over a batch, ≥ 1. Default 4.
    pub epochs: usize,
    /// ε of the clipped ratio, per agent and token, in (0, 1). Default 0.2.
    pub clip_range: f64,
    /// ε of the clipped value, units of normalised returns with `value_norm`, > 0; absent is off. Default 0.2.
    pub value_clip_range: Option<f64>,
    /// δ of Huber's value loss, > 0; absent is squares. Default 10.
    pub value_huber: Option<f64>,
    /// Fit the critic to normalised returns. Default true.
    pub value_norm: bool,
    /// Weight of an agent's own reward (the guide's `self_confidence_weight`), ≥ 0. Default 0.7.
    pub own_weight: f64,
    /// Weight of the team's reward (the guide's `mutual_learning_weight`), ≥ 0. Default 0.3.
    pub team_weight: f64,
    /// What an agent is paid for the team's success. Default team.
    pub credit: Credit,
    /// Agents act one after another on one product: advantages run through all turns of an episode, and the team
    /// reward falls on its last token. Otherwise turns are independent and each gets it. Default false.
    pub sequential: bool,
    /// β of the KL reward, ≥ 0. Default 0.05.
    pub kl_coef: f64,
    /// KL that an adaptive β (one an agent) holds, nats a sequence, > 0; absent is a fixed β. Default absent.
    pub kl_target: Option<f64>,
    /// Horizon of the adaptive β, samples, > 0. Default 10000.
    pub kl_horizon: f64,
    /// Estimator in the KL reward. Default k1.
    pub kl_estimator: KlEstimator,
    /// Discount γ, in [0, 1]. Default 1.
    pub gamma: f64,
    /// GAE's λ, in [0, 1]. Default 0.95.
    pub lambda: f64,
    /// Weight of the entropy bonus, ≥ 0. Default 0.
    pub entropy_coef: f64,
    /// Largest norm of each gradient, > 0. Default 10.
    pub max_grad_norm: f64,
    /// An agent's update ends when its KL(π_old‖π) (k3, nats a token) passes 1.5 times this. Default absent.
    pub target_kl: Option<f64>,
    /// How token losses are averaged. Default token-mean.
    pub aggregation: Aggregation,
    /// Temperature of sampling and of every log-probability, > 0. Default 1.
    pub temperature: f64,
    /// Subtracted from an agent's reward for an unfinished response, units of reward, ≥ 0. Default 1.
    pub missing_eos_penalty: f64,
    /// ε of Adam, > 0. Default 1e-5.
    pub adam_eps: f64,
    /// Largest |ratio − 1| in the first minibatch: 1e-5 in f32 (default), 1e-3 in bf16.
    pub ratio_tolerance: f64,
    /// Non-finite minibatches in a row that end the run, ≥ 1. Default 3.
    pub max_skipped: u32,
}

impl Default for MappoConfig {
    fn default() -> Self {
        Self {
            learning_rate: 3e-6,
            value_learning_rate: 1e-5,
            schedule: Schedule::Linear,
            warmup_steps: 0,
            steps: 100,
            batch_size: 16,
            minibatch_size: 1024,
            micro_batch_tokens: 2048,
            epochs: 4,
            clip_range: 0.2,
            value_clip_range: Some(0.2),
            value_huber: Some(10.0),
            value_norm: true,
            own_weight: 0.7,
            team_weight: 0.3,
            credit: Credit::Team,
            sequential: false,
            kl_coef: 0.05,
            kl_target: None,
            kl_horizon: 10_000.0,
            kl_estimator: KlEstimator::K1,
            gamma: 1.0,
            lambda: 0.95,
            entropy_coef: 0.0,
            max_grad_norm: 10.0,
            target_kl: None,
            aggregation: Aggregation::TokenMean,
            temperature: 1.0,
            missing_eos_penalty: 1.0,
            adam_eps: 1e-5,
            ratio_tolerance: 1e-5,
            max_skipped: 3,
        }
    }
}

impl MappoConfig {
    /// Checks the ranges that the fields document.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Config`] that names the field.
    pub fn check(&self) -> Result<()> {
        self.update().check("mappo")?;
        let unit = |x: f64| (0.0..=1.0).contains(&x);
        let above = |x: Option<f64>| x.is_none_or(|x| x > 0.0);
        in_range(
            "mappo",
            &[
                ("value_learning_rate", self.value_learning_rate, self.value_learning_rate >= 0.0),
                ("batch_size", self.batch_size as f64, self.batch_size > 0),
                ("value_clip_range", self.value_clip_range.unwrap_or(1.0), above(self.value_clip_range)),
                ("value_huber", self.value_huber.unwrap_or(1.0), above(self.value_huber)),
                ("own_weight", self.own_weight, self.own_weight >= 0.0),
                ("team_weight", self.team_weight, self.team_weight >= 0.0),
                ("kl_coef", self.kl_coef, self.kl_coef >= 0.0),
                ("kl_target", self.kl_target.unwrap_or(1.0), above(self.kl_target)),
                ("kl_horizon", self.kl_horizon, self.kl_horizon > 0.0),
                ("gamma", self.gamma, unit(self.gamma)),
                ("lambda", self.lambda, unit(self.lambda)),
                ("missing_eos_penalty", self.missing_eos_penalty, self.missing_eos_penalty >= 0.0),
            ],
        )
    }
    /// The agents' part.
    pub(super) fn update(&self) -> UpdateConfig {
        UpdateConfig {
            learning_rate: self.learning_rate,
            schedule: self.schedule,
            warmup_steps: self.warmup_steps,
            steps: self.steps,
            epochs: self.epochs,
            minibatch_size: self.minibatch_size,
            micro_batch_tokens: self.micro_batch_tokens,
            clip: Clip::symmetric(self.clip_range),
            entropy_coef: self.entropy_coef,
            kl_loss: None,
            max_grad_norm: self.max_grad_norm,
            target_kl: self.target_kl,
            aggregation: self.aggregation,
            fixed_length: None,
            temperature: self.temperature,
            adam_eps: self.adam_eps,
            ratio_tolerance: self.ratio_tolerance,
            max_skipped: self.max_skipped,
        }
    }
}
