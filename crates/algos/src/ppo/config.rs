//! Settings of PPO, with their defaults, units and ranges.

use ecr_core::optim::Schedule;
use ecr_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::losses::{Aggregation, KlEstimator};

/// Settings of PPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PpoConfig {
    /// Peak learning rate of the policy, ≥ 0 (0 freezes it). Default 3e-6.
    pub learning_rate: f64,
    /// Peak learning rate of the value function, ≥ 0. Default 1e-5.
    pub value_learning_rate: f64,
    /// Shape of both rates over `steps`. Default linear to zero.
    pub schedule: Schedule,
    /// Steps of linear warm-up. Default 0.
    pub warmup_steps: u64,
    /// Updates of the whole run, which the schedule spans, ≥ 1. Default 100.
    pub steps: u64,
    /// Rollouts an update, ≥ 1. Default 64.
    pub batch_size: usize,
    /// Rollouts a minibatch, ≥ 1; `batch_size` or more is one minibatch an epoch. Default 64.
    pub minibatch_size: usize,
    /// Most tokens (prompts included) in one forward pass, ≥ 1; does not change results. Default 2048.
    pub micro_batch_tokens: usize,
    /// Passes over a batch, ≥ 1. Default 4.
    pub ppo_epochs: usize,
    /// ε of the clipped ratio, in (0, 1). Default 0.2.
    pub clip_range: f64,
    /// ε of the clipped value, units of reward, > 0; absent is off. Default absent.
    pub value_clip_range: Option<f64>,
    /// Weight of the value loss, ≥ 0 (matters only through gradient clipping). Default 0.5.
    pub vf_coef: f64,
    /// β of the KL reward, ≥ 0; where it starts if adaptive. Default 0.05.
    pub kl_coef: f64,
    /// KL that an adaptive β holds, nats a sequence, > 0; absent is a fixed β. Default absent.
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
    /// Largest norm of each gradient, > 0. Default 1.
    pub max_grad_norm: f64,
    /// The update ends when KL(π_old‖π) of a minibatch (k3, nats a token) passes 1.5 times this. Default absent.
    pub target_kl: Option<f64>,
    /// Whiten advantages over the batch. Default true.
    pub whiten: bool,
    /// How token losses are averaged. Default token-mean.
    pub aggregation: Aggregation,
    /// Temperature of sampling and of every log-probability, > 0. Default 1.
    pub temperature: f64,
    /// Subtracted from the score of an unfinished response, units of reward, ≥ 0. Default 1.
    pub missing_eos_penalty: f64,
    /// ε of Adam, > 0. Default 1e-5.
    pub adam_eps: f64,
    /// Largest |ratio − 1| in the first minibatch: 1e-5 in f32 (default), 1e-3 in bf16.
    pub ratio_tolerance: f64,
    /// Non-finite minibatches in a row that end the run, ≥ 1. Default 3.
    pub max_skipped: u32,
}

impl Default for PpoConfig {
    fn default() -> Self {
        Self {
            learning_rate: 3e-6,
            value_learning_rate: 1e-5,
            schedule: Schedule::Linear,
            warmup_steps: 0,
            steps: 100,
            batch_size: 64,
            minibatch_size: 64,
            micro_batch_tokens: 2048,
            ppo_epochs: 4,
            clip_range: 0.2,
            value_clip_range: None,
            vf_coef: 0.5,
            kl_coef: 0.05,
            kl_target: None,
            kl_horizon: 10_000.0,
            kl_estimator: KlEstimator::K1,
            gamma: 1.0,
            lambda: 0.95,
            entropy_coef: 0.0,
            max_grad_norm: 1.0,
            target_kl: None,
            whiten: true,
            aggregation: Aggregation::TokenMean,
            temperature: 1.0,
            missing_eos_penalty: 1.0,
            adam_eps: 1e-5,
            ratio_tolerance: 1e-5,
            max_skipped: 3,
        }
    }
}

impl PpoConfig {
    /// Checks the ranges that the fields document.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Config`] that names the field.
    pub fn check(&self) -> Result<()> {
        let unit = |x: f64| (0.0..=1.0).contains(&x);
        for (name, value, ok) in [
            ("learning_rate", self.learning_rate, self.learning_rate >= 0.0),
            ("value_learning_rate", self.value_learning_rate, self.value_learning_rate >= 0.0),
            ("clip_range", self.clip_range, self.clip_range > 0.0 && self.clip_range < 1.0),
            (
                "value_clip_range",
                self.value_clip_range.unwrap_or(1.0),
                self.value_clip_range.is_none_or(|c| c > 0.0),
            ),
            ("kl_coef", self.kl_coef, self.kl_coef >= 0.0),
            ("kl_target", self.kl_target.unwrap_or(1.0), self.kl_target.is_none_or(|t| t > 0.0)),
            ("kl_horizon", self.kl_horizon, self.kl_horizon > 0.0),
            ("gamma", self.gamma, unit(self.gamma)),
            ("lambda", self.lambda, unit(self.lambda)),
            ("entropy_coef", self.entropy_coef, self.entropy_coef >= 0.0),
            ("max_grad_norm", self.max_grad_norm, self.max_grad_norm > 0.0),
            ("temperature", self.temperature, self.temperature > 0.0),
            ("missing_eos_penalty", self.missing_eos_penalty, self.missing_eos_penalty >= 0.0),
            ("adam_eps", self.adam_eps, self.adam_eps > 0.0),
            ("steps", self.steps as f64, self.steps > 0),
            ("minibatch_size", self.minibatch_size as f64, self.minibatch_size > 0),
            ("ppo_epochs", self.ppo_epochs as f64, self.ppo_epochs > 0),
        ] {
            if !(ok && value.is_finite()) {
                return Err(Error::config(format!("use ppo.{name}"))
                    .expected("a value in its documented range")
                    .got(value.to_string()));
            }
        }
        Ok(())
    }
}
