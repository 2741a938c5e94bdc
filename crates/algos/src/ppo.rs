//! Token-level PPO for language models, one update from rollouts to new parameters.
//!
//! Sources: Schulman et al. 2017 (surrogate), Schulman et al. 2016 (GAE), Ziegler et al. 2019 (KL reward,
//! adaptive β), Huang et al. 2024 "N+ implementation details"; checked against TRL, OpenRLHF and verl.
//! Departures from TRL: score at the end token, not one slot later; old log-probs recomputed by the training
//! forward; no padding, so nothing is averaged over it; whitening over the whole batch; gradients are clipped;
//! policy and value have optimisers of their own; a minibatch's loss does not depend on micro-batches.
//!
//! Legend: `S` rollouts, `N` response tokens of all of them, laid end to end in rollout order.

mod config;

use ecr_core::optim::{AdamW, clip_grad_norm, grad_norm};
use ecr_core::seam::{Decoding, Pass, Policy, Value};
use ecr_core::{Error, Kind, Params, Result, Stream};
use serde::{Deserialize, Serialize};

pub use config::PpoConfig;

pub use crate::rollout::Rollout;

use crate::Metrics;
use crate::losses::{
    KlController, KlEstimator, KlPlace, ValueNorm, Variance, entropy_bonus, explained_variance, gae,
    huber_value_loss, kl_loss, kl_tokens, policy_loss, sequence_sums, token_rewards, whiten,
};
use crate::rollout::{at, check, groups, micro_batches, offsets, pack};
use crate::sft::Example;
use crate::update::{group_spread, mix_in};

/// What an update leaves behind besides parameters; belongs into checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PpoState {
    /// β and its controller.
    pub kl: KlController,
    /// Non-finite minibatches in a row so far.
    pub skipped_in_row: u32,
    /// Non-finite minibatches so far.
    pub skipped: u64,
    /// Scale of the returns, if values are normalised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_norm: Option<ValueNorm>,
}

impl PpoState {
    /// The state before the first update.
    pub fn new(cfg: &PpoConfig) -> Self {
        let kl = KlController { coef: cfg.kl_coef, target: cfg.kl_target, horizon: cfg.kl_horizon };
        let value_norm = cfg.value_norm.then(|| ValueNorm::new(0.99999));
        Self { kl, skipped_in_row: 0, skipped: 0, value_norm }
    }
}

/// Token numbers of the batch before the update, `[N]` each, for traces.
#[derive(Debug, Clone, Default)]
pub struct Experience {
    /// Response tokens of each rollout, `[S]`.
    pub lengths: Vec<usize>,
    /// Log-probability under the policy, nats.
    pub logp: Vec<f32>,
    /// Entropy of the policy, nats.
    pub entropy: Vec<f32>,
    /// Log-probability under the reference, nats.
    pub ref_logp: Vec<f32>,
    /// Values.
    pub values: Vec<f32>,
    /// Advantages, whitened if so configured.
    pub advantages: Vec<f64>,
    /// Returns.
    pub returns: Vec<f64>,
}

/// What an update has to say.
#[derive(Debug, Clone, Default)]
pub struct PpoStats {
    /// Named numbers (TRL's names where TRL has one).
    pub metrics: Metrics,
    /// Token numbers before the update.
    pub experience: Experience,
}

/// One PPO update. `step` counts from 0; `stream` names the run's minibatch order; `decoding` is how the
/// rollouts were drawn. `reference` is scored by the same policy.
///
/// # Errors
/// [`Kind::Config`] for sampling that was not plain, [`Kind::Data`] for unusable rollouts, [`Kind::Diverged`]
/// after `max_skipped` non-finite minibatches in a row, [`Kind::Internal`] when the first ratio is not one.
pub fn ppo_step(
    policy: &mut dyn Policy,
    value: &mut dyn Value,
    params: &mut Params,
    value_params: &mut Params,
    reference: &Params,
    rollouts: &[Rollout],
    decoding: Decoding<'_>,
    cfg: &PpoConfig,
    state: &mut PpoState,
    stream: Stream,
    step: u64,
) -> Result<PpoStats> {
    ppo_step_mixed(
        policy,
        value,
        params,
        value_params,
        reference,
        rollouts,
        &[],
        decoding,
        cfg,
        state,
        stream,
        step,
    )
}

/// [`ppo_step`] with fine-tuning `examples` mixed in: each epoch sees all of them once, spread over its minibatches,
/// their mean loss a token weighted by `ptx_coef`. Without that weight they are not looked at.
///
/// # Errors
/// As of [`ppo_step`]; [`Kind::Config`] for a weight without examples.
pub fn ppo_step_mixed(
    policy: &mut dyn Policy,
    value: &mut dyn Value,
    params: &mut Params,
    value_params: &mut Params,
    reference: &Params,
    rollouts: &[Rollout],
    examples: &[Example],
    decoding: Decoding<'_>,
    cfg: &PpoConfig,
    state: &mut PpoState,
    stream: Stream,
    step: u64,
) -> Result<PpoStats> {
    cfg.check()?;
    check(rollouts, &decoding, cfg.temperature)?;
    let sizes = groups(rollouts, cfg.rollouts_per_prompt)?;
    if cfg.ptx_coef > 0.0 && examples.is_empty() {
        return Err(Error::config("use ppo.ptx_coef").expected("examples to mix in").got("none"));
    }
    let pass = Pass { temperature: cfg.temperature as f32, mask: decoding.mask, keep: false };

    // 1. Numbers of the old policy, the reference and the value function, by the training forward.
    let everyone: Vec<usize> = (0..rollouts.len()).collect();
    let mut x =
        Experience { lengths: rollouts.iter().map(|r| r.response.len()).collect(), ..Default::default() };
    for part in micro_batches(rollouts, &everyone, cfg.micro_batch_tokens) {
        let batch = pack(rollouts, part);
        let old = policy.forward(params, &batch, pass)?;
        x.logp.extend(old.logp);
        x.entropy.extend(old.entropy);
        x.ref_logp.extend(policy.forward(reference, &batch, pass)?.logp);
        x.values.extend(value.forward(value_params, &batch, false)?);
    }
    if !x.logp.iter().chain(&x.ref_logp).chain(&x.values).all(|v| v.is_finite()) {
        return Err(Error::new(Kind::Diverged, format!("score the rollouts of PPO step {step}"))
            .expected("finite log-probabilities and values")
            .hint("resume from an earlier checkpoint with a lower learning rate"));
    }

    // 2. Token rewards, advantages, returns.
    let shaped = |r: &Rollout| cfg.ends().apply(r.score, r.finished, r.response.len(), decoding.max_new);
    let scores: Vec<f64> = rollouts.iter().map(shaped).collect();
    let beta = state.kl.coef;
    let (in_reward, in_loss) = if cfg.kl_in == KlPlace::Reward { (beta, 0.0) } else { (0.0, beta) };
    let penalty = kl_tokens(cfg.kl_estimator, &x.logp, &x.ref_logp);
    let rewards = token_rewards(&scores, &penalty, in_reward, &x.lengths);
    let raw_values = x.values.clone(); // in the units that the value function is fitted in
    if let Some(norm) = &state.value_norm {
        x.values = norm.denormalize(&raw_values);
    }
    let g = gae(&rewards, &x.values, &x.lengths, cfg.gamma, cfg.lambda);
    (x.advantages, x.returns) = (g.advantages, g.returns);
    let targets = match &mut state.value_norm {
        None => x.returns.clone(),
        Some(norm) => {
            norm.update(&x.returns);
            norm.normalize(&x.returns)
        }
    };
    if cfg.whiten {
        whiten(&mut x.advantages, true, Variance::Unbiased);
    }

    let n = rollouts.len() as f64;
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
    let per_sequence = |e| mean(&sequence_sums(&kl_tokens(e, &x.logp, &x.ref_logp), &x.lengths));
    let kl = per_sequence(KlEstimator::K1);
    let over_budget = cfg.kl_budget.is_some_and(|b| kl > b);

    // 3. Epochs over shuffled minibatches.
    let factor = cfg.schedule.factor(step, cfg.warmup_steps, cfg.steps);
    let (lr, value_lr) = (cfg.learning_rate * factor, cfg.value_learning_rate * factor);
    let adam = AdamW { eps: cfg.adam_eps, weight_decay: 0.0, ..AdamW::default() };
    let starts = offsets(&x.lengths);
    let (mut sum, mut applied, mut stopped) = (Sums::default(), 0.0, false);
    'update: for epoch in 0..cfg.ppo_epochs {
        let mut order = everyone.clone();
        stream.child("minibatch").at(step).at(epoch as u64).rng().shuffle(&mut order);
        let mut mixed: Vec<usize> = (0..examples.len()).collect();
        stream.child("ptx").at(step).at(epoch as u64).rng().shuffle(&mut mixed);
        let share = examples.len().div_ceil(order.len().div_ceil(cfg.minibatch_size.max(1)));
        for (m, minibatch) in order.chunks(cfg.minibatch_size.max(1)).enumerate() {
            let lengths: Vec<usize> = minibatch.iter().map(|&i| x.lengths[i]).collect();
            let weights = cfg.aggregation.weights(&lengths);
            params.zero_grad();
            value_params.zero_grad();
            let mut mine = Sums::default();
            let mut done = 0;
            for part in micro_batches(rollouts, minibatch, cfg.micro_batch_tokens) {
                let batch = pack(rollouts, part);
                let tokens: Vec<usize> =
                    part.iter().flat_map(|&i| starts[i]..starts[i] + x.lengths[i]).collect();
                let w = &weights[done..done + tokens.len()];
                done += tokens.len();
                let now = policy.forward(params, &batch, Pass { keep: true, ..pass })?;
                let (old, advantages) = (at(&x.logp, &tokens), at(&x.advantages, &tokens));
                let mut l = policy_loss(&now.logp, &old, &advantages, w, cfg.clip());
                if epoch == 0 && m == 0 && l.ratio_off.is_finite() && l.ratio_off > cfg.ratio_tolerance {
                    return Err(Error::internal(format!("compare probability ratios in PPO step {step}"))
                        .expected(format!("|ratio - 1| <= {:e} in the first minibatch", cfg.ratio_tolerance))
                        .got(format!("{:e}", l.ratio_off)));
                }
                if in_loss > 0.0 {
                    let k = kl_loss(cfg.kl_estimator, &now.logp, &at(&x.ref_logp, &tokens), in_loss, w);
                    mine.kl_loss += k.loss;
                    l.d_logp.iter_mut().zip(&k.d_logp).for_each(|(d, k)| *d += k);
                }
                let bonus = entropy_bonus(&now.entropy, cfg.entropy_coef, w);
                policy.backward(params, &l.d_logp, &bonus.d_entropy)?;
                let v = value.forward(value_params, &batch, true)?;
                let (old, targets) = (at(&raw_values, &tokens), at(&targets, &tokens));
                let vl = huber_value_loss(&v, &old, &targets, w, cfg.value_clip_range, cfg.value_huber);
                let d: Vec<f32> = vl.d_value.iter().map(|d| (f64::from(*d) * cfg.vf_coef) as f32).collect();
                value.backward(value_params, &d)?;
                mine.tokens += tokens.len() as f64;
                mine.policy += l.loss;
                mine.bonus += bonus.loss;
                mine.value += vl.loss;
                mine.k1 += l.k1;
                mine.k2 += l.k2;
                mine.k3 += l.k3;
                mine.ratio += l.ratio;
                mine.ratio_max = mine.ratio_max.max(l.ratio_max);
                mine.clipped += l.clipped as f64;
                mine.clipped_dual += l.clipped_dual as f64;
                mine.value_clipped += vl.clipped as f64;
                mine.entropy += now.entropy.iter().map(|&h| f64::from(h)).sum::<f64>();
            }
            if cfg.ptx_coef > 0.0 {
                let part = mixed.chunks(share).nth(m).unwrap_or_default();
                mine.ptx = mix_in(policy, params, examples, part, cfg.ptx_coef, cfg.micro_batch_tokens)?;
            }
            // Guard first: a non-finite number must reach neither parameters nor moments.
            (mine.grad_norm, mine.value_grad_norm) = (grad_norm(params), grad_norm(value_params));
            let loss = mine.policy + mine.bonus + mine.kl_loss + mine.ptx + mine.value;
            if !(loss + mine.grad_norm + mine.value_grad_norm).is_finite() {
                state.skipped += 1;
                state.skipped_in_row += 1;
                if state.skipped_in_row >= cfg.max_skipped.max(1) {
                    return Err(Error::new(Kind::Diverged, format!("update the policy in PPO step {step}"))
                        .expected("finite losses and gradients")
                        .got(format!("{} non-finite minibatches in a row", state.skipped_in_row))
                        .hint("lower learning_rate or raise kl_coef"));
                }
                continue;
            }
            state.skipped_in_row = 0;
            sum.add(&mine);
            if cfg.target_kl.is_some_and(|t| mine.k3 / mine.tokens > 1.5 * t) {
                stopped = true;
                break 'update;
            }
            clip_grad_norm(params, cfg.max_grad_norm);
            clip_grad_norm(value_params, cfg.max_grad_norm);
            if step >= cfg.value_only_steps && !over_budget {
                adam.step(params, lr);
            }
            adam.step(value_params, value_lr);
            applied += 1.0;
        }
    }

    // 4. Report, then move β.
    let non_score = -in_reward * mean(&sequence_sums(&penalty, &x.lengths));
    let finished = rollouts.iter().filter(|r| r.finished).count() as f64;
    let total = x.logp.len() as f64;
    let (b, t) = (sum.minibatches.max(1.0), sum.tokens.max(1.0));
    let values: Vec<f64> = x.values.iter().map(|&v| f64::from(v)).collect();
    let mut metrics = Metrics::default();
    for (name, number) in [
        ("episode", (step + 1) as f64 * n),
        ("objective/kl", kl),
        ("objective/kl_k3", per_sequence(KlEstimator::K3)),
        ("objective/kl_per_token", kl * n / total),
        ("objective/kl_coef", beta),
        ("objective/entropy", -x.logp.iter().map(|&l| f64::from(l)).sum::<f64>() / n),
        ("objective/non_score_reward", non_score),
        ("objective/rlhf_reward", mean(&scores) + non_score),
        ("objective/scores", mean(&scores)),
        ("policy/approxkl_avg", sum.k2 / t),
        ("policy/approxkl_k1", sum.k1 / t),
        ("policy/approxkl_k3", sum.k3 / t),
        ("policy/clipfrac_avg", sum.clipped / t),
        ("policy/entropy_avg", sum.entropy / t),
        ("policy/grad_norm", sum.grad_norm / b),
        ("loss/policy_avg", sum.policy / b),
        ("loss/value_avg", sum.value / b),
        ("val/clipfrac_avg", sum.value_clipped / t),
        ("val/grad_norm", sum.value_grad_norm / b),
        ("val/ratio", sum.ratio / t),
        ("val/ratio_max", sum.ratio_max),
        ("val/explained_variance", explained_variance(&values, &x.returns)),
        ("val/num_eos_tokens", finished),
        ("eos_rate", finished / n),
        ("response_length/mean", total / n),
        ("response_length/max", x.lengths.iter().copied().max().unwrap_or(0) as f64),
        ("updates/applied", applied),
        ("loss/entropy_bonus", sum.bonus / b),
        ("updates/skipped", state.skipped as f64),
        ("updates/early_stop", f64::from(u8::from(stopped))),
        ("lr", lr),
        ("lr_value", value_lr),
    ] {
        // Averages over minibatches do not exist when every minibatch was skipped.
        let averaged = ["policy/", "loss/", "val/ratio", "val/clipfrac", "val/grad"];
        if sum.minibatches > 0.0 || !averaged.iter().any(|p| name.starts_with(p)) {
            metrics.set(name, number);
        }
    }
    // Numbers of what is off by default.
    let b = sum.minibatches.max(1.0);
    for (name, on, number) in [
        ("loss/kl_avg", cfg.kl_in == KlPlace::Loss, sum.kl_loss / b),
        ("loss/ptx_avg", cfg.ptx_coef > 0.0, sum.ptx / b),
        ("policy/dualclipfrac_avg", cfg.dual_clip.is_some(), sum.clipped_dual / sum.tokens.max(1.0)),
        ("updates/over_budget", cfg.kl_budget.is_some(), f64::from(u8::from(over_budget))),
        ("reward_std", cfg.rollouts_per_prompt > 1, group_spread(&scores, &sizes).1),
        ("val/norm_mean", cfg.value_norm, state.value_norm.map_or(0.0, |v| v.mean_std().0)),
        ("val/norm_std", cfg.value_norm, state.value_norm.map_or(0.0, |v| v.mean_std().1)),
    ] {
        if on {
            metrics.set(name, number);
        }
    }
    state.kl.update(kl, rollouts.len());
    Ok(PpoStats { metrics, experience: x })
}

/// Sums over tokens (losses and norms: over minibatches) of the updates that were made.
#[derive(Debug, Clone, Default)]
#[rustfmt::skip]
struct Sums {
    minibatches: f64, tokens: f64, policy: f64, bonus: f64, value: f64, k1: f64, k2: f64, k3: f64, ratio: f64,
    ratio_max: f64, clipped: f64, clipped_dual: f64, value_clipped: f64, entropy: f64, kl_loss: f64, ptx: f64,
    grad_norm: f64, value_grad_norm: f64,
}

impl Sums {
    #[rustfmt::skip]
    fn add(&mut self, o: &Self) {
        self.minibatches += 1.0;
        self.tokens += o.tokens; self.policy += o.policy; self.bonus += o.bonus; self.value += o.value;
        self.k1 += o.k1; self.k2 += o.k2; self.k3 += o.k3;
        self.ratio += o.ratio; self.ratio_max = self.ratio_max.max(o.ratio_max);
        self.clipped += o.clipped; self.clipped_dual += o.clipped_dual; self.kl_loss += o.kl_loss; self.ptx += o.ptx;
        self.value_clipped += o.value_clipped; self.entropy += o.entropy;
        self.grad_norm += o.grad_norm; self.value_grad_norm += o.value_grad_norm;
    }
}
