//! Settings of PPO, with their defaults, units and ranges.

use ecr_core::Result;
use ecr_core::optim::Schedule;
use serde::{Deserialize, Serialize};

use crate::losses::{Aggregation, Clip, EndShaping, KlEstimator, KlPlace};
use crate::update::in_range;

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
    /// Rollouts of each prompt of a batch, ≥ 1, dividing `batch_size`; they come one after another. Default 1.
    pub rollouts_per_prompt: usize,
    /// Rollouts a minibatch, ≥ 1; `batch_size` or more is one minibatch an epoch. Default 64.
    pub minibatch_size: usize,
    /// Most tokens (prompts included) in one forward pass, ≥ 1; does not change results. Default 2048.
    pub micro_batch_tokens: usize,
    /// Passes over a batch, ≥ 1. Default 4.
    pub ppo_epochs: usize,
    /// ε of the clipped ratio, in (0, 1). Default 0.2.
    pub clip_range: f64,
    /// ε above 1 where it is to differ (clip-higher), > 0. Default absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_range_high: Option<f64>,
    /// Dual clip c > 1: bound of the ratio where the advantage is negative. Default absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual_clip: Option<f64>,
    /// ε of the clipped value, units of reward (of normalised returns with `value_norm`), > 0; absent is off. Default absent.
    pub value_clip_range: Option<f64>,
    /// Fit the value function to normalised returns. Default false.
    pub value_norm: bool,
    /// δ of Huber's value loss, > 0; absent is squares. Default absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_huber: Option<f64>,
    /// Updates at the start in which only the value function learns. Default 0.
    pub value_only_steps: u64,
    /// Weight of the value loss, ≥ 0 (matters only through gradient clipping). Default 0.5.
    pub vf_coef: f64,
    /// β of the KL reward, ≥ 0; where it starts if adaptive. Default 0.05.
    pub kl_coef: f64,
    /// KL that an adaptive β holds, nats a sequence, > 0; absent is a fixed β. Default absent.
    pub kl_target: Option<f64>,
    /// Horizon of the adaptive β, samples, > 0. Default 10000.
    pub kl_horizon: f64,
    /// Largest KL to the reference, nats a sequence, > 0: beyond it the policy is not moved and the update says
    /// `updates/over_budget`. Default absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_budget: Option<f64>,
    /// Where the KL acts, `reward` or `loss`. Default reward.
    pub kl_in: KlPlace,
    /// Estimator of the KL. Default k1, right in the reward; in the loss k2 has the KL's gradient, k1 has none.
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
    /// Replaces the score of an unfinished response, before the penalty. Default absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missing_eos_score: Option<f64>,
    /// Tokens before the length limit over which the overlong penalty rises; 0 is off. Default 0.
    pub overlong_buffer: usize,
    /// Overlong penalty at the limit, units of reward, ≥ 0. Default 1.
    pub overlong_penalty: f64,
    /// Weight of the fine-tuning loss mixed in (ptx), ≥ 0; needs examples. Default 0.
    pub ptx_coef: f64,
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
            rollouts_per_prompt: 1,
            minibatch_size: 64,
            micro_batch_tokens: 2048,
            ppo_epochs: 4,
            clip_range: 0.2,
            clip_range_high: None,
            dual_clip: None,
            value_clip_range: None,
            value_norm: false,
            value_huber: None,
            value_only_steps: 0,
            vf_coef: 0.5,
            kl_coef: 0.05,
            kl_target: None,
            kl_horizon: 10_000.0,
            kl_budget: None,
            kl_in: KlPlace::Reward,
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
            missing_eos_score: None,
            overlong_buffer: 0,
            overlong_penalty: 1.0,
            ptx_coef: 0.0,
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
        let above = |x: Option<f64>, least: f64| x.is_none_or(|x| x > least);
        let per_prompt = self.rollouts_per_prompt;
        in_range(
            "ppo",
            &[
                ("learning_rate", self.learning_rate, self.learning_rate >= 0.0),
                ("value_learning_rate", self.value_learning_rate, self.value_learning_rate >= 0.0),
                ("clip_range", self.clip_range, self.clip_range > 0.0 && self.clip_range < 1.0),
                ("clip_range_high", self.clip_range_high.unwrap_or(1.0), above(self.clip_range_high, 0.0)),
                ("dual_clip", self.dual_clip.unwrap_or(2.0), above(self.dual_clip, 1.0)),
                ("value_clip_range", self.value_clip_range.unwrap_or(1.0), above(self.value_clip_range, 0.0)),
                ("value_huber", self.value_huber.unwrap_or(1.0), above(self.value_huber, 0.0)),
                ("kl_coef", self.kl_coef, self.kl_coef >= 0.0),
                ("kl_target", self.kl_target.unwrap_or(1.0), above(self.kl_target, 0.0)),
                ("kl_horizon", self.kl_horizon, self.kl_horizon > 0.0),
                ("kl_budget", self.kl_budget.unwrap_or(1.0), above(self.kl_budget, 0.0)),
                ("gamma", self.gamma, unit(self.gamma)),
                ("lambda", self.lambda, unit(self.lambda)),
                ("entropy_coef", self.entropy_coef, self.entropy_coef >= 0.0),
                ("max_grad_norm", self.max_grad_norm, self.max_grad_norm > 0.0),
                ("temperature", self.temperature, self.temperature > 0.0),
                ("missing_eos_penalty", self.missing_eos_penalty, self.missing_eos_penalty >= 0.0),
                ("missing_eos_score", self.missing_eos_score.unwrap_or(0.0), true),
                ("overlong_penalty", self.overlong_penalty, self.overlong_penalty >= 0.0),
                ("ptx_coef", self.ptx_coef, self.ptx_coef >= 0.0),
                ("adam_eps", self.adam_eps, self.adam_eps > 0.0),
                ("steps", self.steps as f64, self.steps > 0),
                ("minibatch_size", self.minibatch_size as f64, self.minibatch_size > 0),
                ("ppo_epochs", self.ppo_epochs as f64, self.ppo_epochs > 0),
                (
                    "rollouts_per_prompt",
                    per_prompt as f64,
                    per_prompt > 0 && self.batch_size.is_multiple_of(per_prompt),
                ),
            ],
        )
    }
    /// The clip of the ratio.
    pub(super) fn clip(&self) -> Clip {
        let high = self.clip_range_high.unwrap_or(self.clip_range);
        Clip { low: self.clip_range, high, dual: self.dual_clip }
    }
    /// What a response's end does to its score.
    pub(super) fn ends(&self) -> EndShaping {
        EndShaping {
            missing_eos_penalty: self.missing_eos_penalty,
            missing_eos_score: self.missing_eos_score,
            overlong_buffer: self.overlong_buffer,
            overlong_penalty: self.overlong_penalty,
        }
    }
}
