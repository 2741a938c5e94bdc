//! GRPO: group-relative advantages, one update from groups of rollouts to new parameters. With `dr` it is Dr. GRPO.
//!
//! Sources: Shao et al. 2024 "DeepSeekMath" (GRPO), Liu et al. 2025 (Dr. GRPO: no division by the standard deviation
//! nor by a response's own length), Yu et al. 2025 "DAPO" (clip-higher, token mean, groups without spread dropped);
//! numbers checked against TRL and verl. Departures: the KL may be in the loss, as in the paper, or in the reward;
//! token mean by default (TRL's `dapo`), where the paper averages over each response first; Dr. GRPO divides by the
//! longest response that decoding allows and by the rollouts, so that the loss does not depend on the cut.
//!
//! Legend: `S` rollouts in runs of `group_size` to one prompt, `N` response tokens of all of them.

use ecr_core::optim::Schedule;
use ecr_core::seam::{Decoding, Pass, Policy};
use ecr_core::{Params, Result, Stream};
use serde::{Deserialize, Serialize};

use crate::Metrics;
use crate::losses::{
    Aggregation, Clip, KlController, KlEstimator, KlPlace, group_relative, kl_tokens, sequence_sums,
};
use crate::rollout::{Rollout, Scored, check, groups};
use crate::update::{
    UpdateConfig, UpdateState, clipped_update, describe, group_spread, in_range, kl_per_sequence,
};

/// Settings of GRPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpoConfig {
    /// Peak learning rate, ≥ 0. Default 3e-6.
    pub learning_rate: f64,
    /// Its shape over `steps`. Default linear to zero.
    pub schedule: Schedule,
    /// Steps of linear warm-up. Default 0.
    pub warmup_steps: u64,
    /// Updates of the whole run, ≥ 1. Default 100.
    pub steps: u64,
    /// Rollouts an update, a multiple of `group_size`. Default 64.
    pub batch_size: usize,
    /// Responses to each prompt, ≥ 2. Default 8.
    pub group_size: usize,
    /// Rollouts a minibatch, ≥ 1. Default 64.
    pub minibatch_size: usize,
    /// Most tokens (prompts included) in one forward pass, ≥ 1; does not change results. Default 2048.
    pub micro_batch_tokens: usize,
    /// Passes over a batch, ≥ 1. Default 1.
    pub epochs: usize,
    /// ε of the clipped ratio below 1, and above it unless `clip_range_high` is given, in (0, 1). Default 0.2.
    pub clip_range: f64,
    /// ε above 1 (clip-higher), > 0. Default absent.
    pub clip_range_high: Option<f64>,
    /// Dual clip c > 1: bound of the ratio where the advantage is negative. Default absent.
    pub dual_clip: Option<f64>,
    /// β of the KL, ≥ 0; where it starts if adaptive. Default 0.05.
    pub kl_coef: f64,
    /// Where the KL acts. Default reward.
    pub kl_in: KlPlace,
    /// KL that an adaptive β holds, nats a sequence, > 0; absent is a fixed β. Default absent.
    pub kl_target: Option<f64>,
    /// Horizon of the adaptive β, samples, > 0. Default 10000.
    pub kl_horizon: f64,
    /// Estimator of the KL. Default k1, right in the reward; in the loss k3 is the paper's, k2 has the KL's gradient.
    pub kl_estimator: KlEstimator,
    /// Dr. GRPO: advantages not divided by the group's standard deviation, losses summed over tokens and divided by
    /// the longest response allowed. Default false.
    pub dr: bool,
    /// ε added to the group's standard deviation, > 0. Default 1e-4 (TRL).
    pub std_eps: f64,
    /// Weight of the entropy bonus, ≥ 0. Default 0.
    pub entropy_coef: f64,
    /// Largest norm of the gradient, > 0. Default 1.
    pub max_grad_norm: f64,
    /// The update ends when KL(π_old‖π) of a minibatch (k3, nats a token) passes 1.5 times this. Default absent.
    pub target_kl: Option<f64>,
    /// How token losses are averaged, unless `dr`. Default token-mean.
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

impl Default for GrpoConfig {
    fn default() -> Self {
        Self {
            learning_rate: 3e-6,
            schedule: Schedule::Linear,
            warmup_steps: 0,
            steps: 100,
            batch_size: 64,
            group_size: 8,
            minibatch_size: 64,
            micro_batch_tokens: 2048,
            epochs: 1,
            clip_range: 0.2,
            clip_range_high: None,
            dual_clip: None,
            kl_coef: 0.05,
            kl_in: KlPlace::Reward,
            kl_target: None,
            kl_horizon: 10_000.0,
            kl_estimator: KlEstimator::K1,
            dr: false,
            std_eps: 1e-4,
            entropy_coef: 0.0,
            max_grad_norm: 1.0,
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

impl GrpoConfig {
    /// Checks the ranges that the fields document.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Config`] that names the field.
    pub fn check(&self) -> Result<()> {
        self.update(self.kl_coef, 1).check("grpo")?;
        let whole = self.group_size > 1 && self.batch_size.is_multiple_of(self.group_size);
        in_range(
            "grpo",
            &[
                ("group_size", self.group_size as f64, self.group_size > 1),
                ("batch_size", self.batch_size as f64, whole && self.batch_size > 0),
                ("kl_coef", self.kl_coef, self.kl_coef >= 0.0),
                ("kl_target", self.kl_target.unwrap_or(1.0), self.kl_target.is_none_or(|t| t > 0.0)),
                ("kl_horizon", self.kl_horizon, self.kl_horizon > 0.0),
                ("std_eps", self.std_eps, self.std_eps > 0.0),
                ("missing_eos_penalty", self.missing_eos_penalty, self.missing_eos_penalty >= 0.0),
            ],
        )
    }
    /// β and its controller before the first update.
    pub fn state(&self) -> UpdateState {
        UpdateState::new(KlController {
            coef: self.kl_coef,
            target: self.kl_target,
            horizon: self.kl_horizon,
        })
    }
    fn update(&self, beta: f64, longest: usize) -> UpdateConfig {
        let high = self.clip_range_high.unwrap_or(self.clip_range);
        UpdateConfig {
            learning_rate: self.learning_rate,
            schedule: self.schedule,
            warmup_steps: self.warmup_steps,
            steps: self.steps,
            epochs: self.epochs,
            minibatch_size: self.minibatch_size,
            micro_batch_tokens: self.micro_batch_tokens,
            clip: Clip { low: self.clip_range, high, dual: self.dual_clip },
            entropy_coef: self.entropy_coef,
            kl_loss: (self.kl_in == KlPlace::Loss).then_some((self.kl_estimator, beta)),
            max_grad_norm: self.max_grad_norm,
            target_kl: self.target_kl,
            aggregation: self.aggregation,
            fixed_length: self.dr.then_some(longest),
            temperature: self.temperature,
            adam_eps: self.adam_eps,
            ratio_tolerance: self.ratio_tolerance,
            max_skipped: self.max_skipped,
        }
    }
}

/// One GRPO update. Arguments as of [`crate::ppo::ppo_step`], without a value function; `rollouts` come in runs of
/// `group_size` to one prompt.
///
/// # Errors
/// [`ecr_core::Kind::Config`] for settings or sampling, [`ecr_core::Kind::Data`] for unusable rollouts,
/// [`ecr_core::Kind::Diverged`] after `max_skipped` non-finite minibatches in a row, [`ecr_core::Kind::Internal`]
/// when the first ratio is not one.
pub fn grpo_step(
    policy: &mut dyn Policy,
    params: &mut Params,
    reference: &Params,
    rollouts: &[Rollout],
    decoding: Decoding<'_>,
    cfg: &GrpoConfig,
    state: &mut UpdateState,
    stream: Stream,
    step: u64,
) -> Result<Metrics> {
    cfg.check()?;
    check(rollouts, &decoding, cfg.temperature)?;
    let sizes = groups(rollouts, cfg.group_size)?;
    let pass = Pass { temperature: cfg.temperature as f32, mask: decoding.mask, keep: false };

    // 1. Numbers of the old policy and the reference, by the training forward.
    let x = Scored::new(policy, params, reference, rollouts, pass, cfg.micro_batch_tokens)?;

    // 2. Reward of each response (less β times its KL); its distance from the group, the same at each token.
    let scores: Vec<f64> =
        rollouts.iter().map(|r| r.score - if r.finished { 0.0 } else { cfg.missing_eos_penalty }).collect();
    let beta = state.kl.coef;
    let in_reward = if cfg.kl_in == KlPlace::Reward { beta } else { 0.0 };
    let penalty = sequence_sums(&kl_tokens(cfg.kl_estimator, &x.logp, &x.ref_logp), &x.lengths);
    let rewards: Vec<f64> = scores.iter().zip(&penalty).map(|(s, k)| s - in_reward * k).collect();
    let of_sequence = group_relative(&rewards, &sizes, (!cfg.dr).then_some(cfg.std_eps));
    let advantages: Vec<f64> =
        of_sequence.iter().zip(&x.lengths).flat_map(|(&a, &n)| std::iter::repeat_n(a, n)).collect();

    // 3. Clipped updates.
    let update = cfg.update(beta, decoding.max_new.max(1));
    let order = stream.child("minibatch").at(step);
    let sums = clipped_update(policy, params, rollouts, &x, &advantages, pass, &update, state, order, step)?;

    // 4. Report, then move β.
    let mut metrics = Metrics::default();
    let non_score = -in_reward * penalty.iter().sum::<f64>() / penalty.len() as f64;
    describe(&mut metrics, rollouts, &x, &scores, beta, non_score, step);
    let (flat, spread) = group_spread(&scores, &sizes);
    metrics.set("reward_std", spread);
    metrics.set("frac_reward_zero_std", flat);
    sums.report(&mut metrics);
    metrics.set("updates/skipped", state.skipped as f64);
    metrics.set("lr", update.rate(step));
    state.kl.update(kl_per_sequence(KlEstimator::K1, &x), rollouts.len());
    Ok(metrics)
}
