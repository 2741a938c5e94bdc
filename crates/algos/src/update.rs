//! The clipped update of a policy without a value function: epochs over shuffled minibatches, as in `ppo.rs`, which
//! keeps its own loop because there the value function learns beside the policy. RLOO, GRPO and the agents of
//! MAPPO differ in their advantages only; this is what they share.

use ecr_core::optim::{AdamW, Schedule, clip_grad_norm, grad_norm};
use ecr_core::seam::{Pass, Policy};
use ecr_core::{Error, Kind, Params, Result, Stream};
use serde::{Deserialize, Serialize};

use crate::Metrics;
use crate::losses::{
    Aggregation, Clip, KlController, KlEstimator, entropy_bonus, kl_loss, kl_tokens, nll, policy_loss,
    sequence_sums,
};
use crate::rollout::{Rollout, Scored, at, micro_batches, offsets, pack};
use crate::sft::{self, Example};

/// What an update leaves behind besides parameters; belongs into checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpdateState {
    /// β and its controller.
    pub kl: KlController,
    /// Non-finite minibatches in a row so far.
    pub skipped_in_row: u32,
    /// Non-finite minibatches so far.
    pub skipped: u64,
}

impl UpdateState {
    /// The state before the first update.
    pub fn new(kl: KlController) -> Self {
        Self { kl, skipped_in_row: 0, skipped: 0 }
    }
    /// Counts a minibatch whose loss or gradient is not finite and must not be applied.
    ///
    /// # Errors
    /// [`Kind::Diverged`] when it is number `max` in a row.
    pub(crate) fn skip(&mut self, max: u32) -> Result<()> {
        self.skipped += 1;
        self.skipped_in_row += 1;
        if self.skipped_in_row < max.max(1) {
            return Ok(());
        }
        Err(Error::new(Kind::Diverged, "update the policy")
            .expected("finite losses and gradients")
            .got(format!("{} non-finite minibatches in a row", self.skipped_in_row))
            .hint("lower learning_rate or raise kl_coef"))
    }
}

/// Settings of the clipped update; each algorithm fills them from its own.
#[derive(Debug, Clone, PartialEq)]
pub struct UpdateConfig {
    /// Peak learning rate, ≥ 0.
    pub learning_rate: f64,
    /// Its shape over `steps`.
    pub schedule: Schedule,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Updates of the whole run, ≥ 1.
    pub steps: u64,
    /// Passes over a batch, ≥ 1.
    pub epochs: usize,
    /// Rollouts a minibatch, ≥ 1.
    pub minibatch_size: usize,
    /// Most tokens in one forward pass, ≥ 1; does not change results.
    pub micro_batch_tokens: usize,
    /// Clip of the ratio, each ε in (0, 1).
    pub clip: Clip,
    /// Weight of the entropy bonus, ≥ 0.
    pub entropy_coef: f64,
    /// KL to the reference as a loss: estimator and coefficient ≥ 0.
    pub kl_loss: Option<(KlEstimator, f64)>,
    /// Largest norm of the gradient, > 0.
    pub max_grad_norm: f64,
    /// The update ends when KL(π_old‖π) of a minibatch (k3, nats a token) passes 1.5 times this.
    pub target_kl: Option<f64>,
    /// How token losses are averaged.
    pub aggregation: Aggregation,
    /// Instead of `aggregation`: sums over tokens divided by this length and by the rollouts (Dr. GRPO).
    pub fixed_length: Option<usize>,
    /// Temperature of every log-probability, > 0.
    pub temperature: f64,
    /// ε of Adam, > 0.
    pub adam_eps: f64,
    /// Largest |ratio − 1| in the first minibatch.
    pub ratio_tolerance: f64,
    /// Non-finite minibatches in a row that end the run.
    pub max_skipped: u32,
}

impl UpdateConfig {
    /// Checks the ranges; `section` names the settings in messages.
    ///
    /// # Errors
    /// [`Kind::Config`] that names the field.
    pub fn check(&self, section: &str) -> Result<()> {
        let epsilon = |e: f64| e > 0.0 && e < 1.0;
        in_range(
            section,
            &[
                ("learning_rate", self.learning_rate, self.learning_rate >= 0.0),
                ("steps", self.steps as f64, self.steps > 0),
                ("epochs", self.epochs as f64, self.epochs > 0),
                ("minibatch_size", self.minibatch_size as f64, self.minibatch_size > 0),
                ("clip_range", self.clip.low, epsilon(self.clip.low)),
                ("clip_range_high", self.clip.high, self.clip.high > 0.0),
                ("dual_clip", self.clip.dual.unwrap_or(2.0), self.clip.dual.is_none_or(|c| c > 1.0)),
                ("entropy_coef", self.entropy_coef, self.entropy_coef >= 0.0),
                ("kl_coef", self.kl_loss.map_or(0.0, |k| k.1), self.kl_loss.is_none_or(|k| k.1 >= 0.0)),
                ("max_grad_norm", self.max_grad_norm, self.max_grad_norm > 0.0),
                ("target_kl", self.target_kl.unwrap_or(1.0), self.target_kl.is_none_or(|t| t > 0.0)),
                ("temperature", self.temperature, self.temperature > 0.0),
                ("adam_eps", self.adam_eps, self.adam_eps > 0.0),
            ],
        )
    }
    /// Learning rate at `step`.
    pub fn rate(&self, step: u64) -> f64 {
        self.learning_rate * self.schedule.factor(step, self.warmup_steps, self.steps)
    }
    fn weights(&self, lengths: &[usize]) -> Vec<f64> {
        match self.fixed_length {
            None => self.aggregation.weights(lengths),
            Some(l) => vec![1.0 / (lengths.len() * l) as f64; lengths.iter().sum()],
        }
    }
}

/// Refuses the first `(field, value, ok)` that is not in its range.
///
/// # Errors
/// [`Kind::Config`] that names `section` and the field.
pub(crate) fn in_range(section: &str, fields: &[(&str, f64, bool)]) -> Result<()> {
    match fields.iter().find(|(_, value, ok)| !(*ok && value.is_finite())) {
        None => Ok(()),
        Some((name, value, _)) => Err(Error::config(format!("use {section}.{name}"))
            .expected("a value in its documented range")
            .got(value.to_string())),
    }
}

/// Sums over tokens (losses and norms: over minibatches) of an update.
#[derive(Debug, Clone, Default)]
#[allow(missing_docs)]
pub struct Sums {
    pub minibatches: f64,
    pub applied: f64,
    pub stopped: bool,
    pub tokens: f64,
    pub policy: f64,
    pub bonus: f64,
    pub kl_loss: f64,
    pub k1: f64,
    pub k2: f64,
    pub k3: f64,
    pub ratio: f64,
    pub ratio_max: f64,
    pub clipped: f64,
    pub clipped_dual: f64,
    pub entropy: f64,
    pub grad_norm: f64,
}

impl Sums {
    fn add(&mut self, o: &Self) {
        self.minibatches += 1.0;
        self.tokens += o.tokens;
        self.policy += o.policy;
        self.bonus += o.bonus;
        self.kl_loss += o.kl_loss;
        self.k1 += o.k1;
        self.k2 += o.k2;
        self.k3 += o.k3;
        self.ratio += o.ratio;
        self.ratio_max = self.ratio_max.max(o.ratio_max);
        self.clipped += o.clipped;
        self.clipped_dual += o.clipped_dual;
        self.entropy += o.entropy;
        self.grad_norm += o.grad_norm;
    }
    /// The metrics of the update, under `ppo.rs`'s names. Averages over minibatches do not exist when every
    /// minibatch was skipped.
    pub(crate) fn report(&self, metrics: &mut Metrics) {
        let (b, t) = (self.minibatches.max(1.0), self.tokens.max(1.0));
        if self.minibatches > 0.0 {
            for (name, number) in [
                ("policy/approxkl_avg", self.k2 / t),
                ("policy/approxkl_k1", self.k1 / t),
                ("policy/approxkl_k3", self.k3 / t),
                ("policy/clipfrac_avg", self.clipped / t),
                ("policy/dualclipfrac_avg", self.clipped_dual / t),
                ("policy/entropy_avg", self.entropy / t),
                ("policy/grad_norm", self.grad_norm / b),
                ("loss/policy_avg", self.policy / b),
                ("loss/entropy_bonus", self.bonus / b),
                ("loss/kl_avg", self.kl_loss / b),
                ("val/ratio", self.ratio / t),
                ("val/ratio_max", self.ratio_max),
            ] {
                metrics.set(name, number);
            }
        }
        metrics.set("updates/applied", self.applied);
        metrics.set("updates/early_stop", f64::from(u8::from(self.stopped)));
    }
}

/// Updates `params` on `rollouts` with these token `advantages` `[N]`. `stream` names this update's minibatch order.
///
/// # Errors
/// [`Kind::Diverged`] after `max_skipped` non-finite minibatches in a row, [`Kind::Internal`] when the first ratio
/// is not one.
pub fn clipped_update(
    policy: &mut dyn Policy,
    params: &mut Params,
    rollouts: &[Rollout],
    x: &Scored,
    advantages: &[f64],
    pass: Pass<'_>,
    cfg: &UpdateConfig,
    state: &mut UpdateState,
    stream: Stream,
    step: u64,
) -> Result<Sums> {
    let adam = AdamW { eps: cfg.adam_eps, weight_decay: 0.0, ..AdamW::default() };
    let starts = offsets(&x.lengths);
    let mut sum = Sums::default();
    for epoch in 0..cfg.epochs {
        let mut order: Vec<usize> = (0..rollouts.len()).collect();
        stream.at(epoch as u64).rng().shuffle(&mut order);
        for (m, minibatch) in order.chunks(cfg.minibatch_size.max(1)).enumerate() {
            let weights = cfg.weights(&at(&x.lengths, minibatch));
            params.zero_grad();
            let (mut mine, mut done) = (Sums::default(), 0);
            for part in micro_batches(rollouts, minibatch, cfg.micro_batch_tokens) {
                let batch = pack(rollouts, part);
                let tokens: Vec<usize> =
                    part.iter().flat_map(|&i| starts[i]..starts[i] + x.lengths[i]).collect();
                let w = &weights[done..done + tokens.len()];
                done += tokens.len();
                let now = policy.forward(params, &batch, Pass { keep: true, ..pass })?;
                let mut l =
                    policy_loss(&now.logp, &at(&x.logp, &tokens), &at(advantages, &tokens), w, cfg.clip);
                if epoch == 0 && m == 0 && l.ratio_off.is_finite() && l.ratio_off > cfg.ratio_tolerance {
                    return Err(Error::internal(format!("compare probability ratios in update {step}"))
                        .expected(format!("|ratio - 1| <= {:e} in the first minibatch", cfg.ratio_tolerance))
                        .got(format!("{:e}", l.ratio_off)));
                }
                if let Some((estimator, coef)) = cfg.kl_loss {
                    let k = kl_loss(estimator, &now.logp, &at(&x.ref_logp, &tokens), coef, w);
                    mine.kl_loss += k.loss;
                    l.d_logp.iter_mut().zip(&k.d_logp).for_each(|(d, k)| *d += k);
                }
                let bonus = entropy_bonus(&now.entropy, cfg.entropy_coef, w);
                policy.backward(params, &l.d_logp, &bonus.d_entropy)?;
                mine.tokens += tokens.len() as f64;
                mine.policy += l.loss;
                mine.bonus += bonus.loss;
                mine.k1 += l.k1;
                mine.k2 += l.k2;
                mine.k3 += l.k3;
                mine.ratio += l.ratio;
                mine.ratio_max = mine.ratio_max.max(l.ratio_max);
                mine.clipped += l.clipped as f64;
                mine.clipped_dual += l.clipped_dual as f64;
                mine.entropy += now.entropy.iter().map(|&h| f64::from(h)).sum::<f64>();
            }
            // Guard first: a non-finite number must reach neither parameters nor moments.
            mine.grad_norm = grad_norm(params);
            if !(mine.policy + mine.bonus + mine.kl_loss + mine.grad_norm).is_finite() {
                state.skip(cfg.max_skipped)?;
                continue;
            }
            state.skipped_in_row = 0;
            sum.add(&mine);
            if cfg.target_kl.is_some_and(|t| mine.k3 / mine.tokens > 1.5 * t) {
                sum.stopped = true;
                return Ok(sum);
            }
            clip_grad_norm(params, cfg.max_grad_norm);
            adam.step(params, cfg.rate(step));
            sum.applied += 1.0;
        }
    }
    Ok(sum)
}

/// Adds the gradient of `coef` times the mean loss a token of the `examples` `which` (ptx), and returns that loss.
///
/// # Errors
/// What the policy refuses.
pub(crate) fn mix_in(
    policy: &mut dyn Policy,
    params: &mut Params,
    examples: &[Example],
    which: &[usize],
    coef: f64,
    budget: usize,
) -> Result<f64> {
    let scored = |i: &usize| examples[*i].scored.iter().skip(1).filter(|&&s| s).count();
    let tokens: usize = which.iter().map(scored).sum();
    let (mut loss, mut start) = (0.0, 0);
    while start < which.len() {
        let (mut end, mut used) = (start, 0);
        while end < which.len() && (end == start || used + examples[which[end]].tokens.len() <= budget) {
            used += examples[which[end]].tokens.len();
            end += 1;
        }
        let batch = sft::pack(examples, &which[start..end]);
        start = end;
        if batch.n_scored() > 0 {
            let logp = policy.forward(params, &batch, Pass::TRAIN)?.logp;
            let l = nll(&logp, &vec![coef / tokens as f64; logp.len()]);
            policy.backward(params, &l.d_logp, &vec![0.0; logp.len()])?;
            loss += l.loss;
        }
    }
    Ok(loss)
}

/// Metrics of a batch before the update, under `ppo.rs`'s names. `scores` `[S]` are after penalties; `beta` is the
/// KL coefficient, whose share of the reward is `non_score` (0 where the KL is in the loss).
pub(crate) fn describe(
    metrics: &mut Metrics,
    rollouts: &[Rollout],
    x: &Scored,
    scores: &[f64],
    beta: f64,
    non_score: f64,
    step: u64,
) {
    let (n, total) = (rollouts.len() as f64, x.logp.len() as f64);
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
    let finished = rollouts.iter().filter(|r| r.finished).count() as f64;
    let kl = kl_per_sequence(KlEstimator::K1, x);
    for (name, number) in [
        ("episode", (step + 1) as f64 * n),
        ("objective/kl", kl),
        ("objective/kl_k3", kl_per_sequence(KlEstimator::K3, x)),
        ("objective/kl_per_token", kl * n / total),
        ("objective/kl_coef", beta),
        ("objective/entropy", -x.logp.iter().map(|&l| f64::from(l)).sum::<f64>() / n),
        ("objective/non_score_reward", non_score),
        ("objective/rlhf_reward", mean(scores) + non_score),
        ("objective/scores", mean(scores)),
        ("val/num_eos_tokens", finished),
        ("eos_rate", finished / n),
        ("response_length/mean", total / n),
        ("response_length/max", x.lengths.iter().copied().max().unwrap_or(0) as f64),
    ] {
        metrics.set(name, number);
    }
}

/// Mean over the batch of KL(π‖π_ref) by `estimator`, nats a sequence.
pub(crate) fn kl_per_sequence(estimator: KlEstimator, x: &Scored) -> f64 {
    let sums = sequence_sums(&kl_tokens(estimator, &x.logp, &x.ref_logp), &x.lengths);
    sums.iter().sum::<f64>() / sums.len().max(1) as f64
}

/// Share of groups (of these `sizes`) whose `rewards` `[S]` are all the same, and the mean standard deviation
/// within a group: what a group method can learn from.
pub(crate) fn group_spread(rewards: &[f64], sizes: &[usize]) -> (f64, f64) {
    let (mut start, mut flat, mut spread) = (0, 0.0, 0.0);
    for &n in sizes {
        let g = &rewards[start..start + n];
        start += n;
        let mean = g.iter().sum::<f64>() / n as f64;
        let var = g.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n as f64 - 1.0).max(1.0);
        spread += var.sqrt();
        flat += f64::from(u8::from(g.iter().all(|r| *r == g[0])));
    }
    let n = sizes.len().max(1) as f64;
    (flat / n, spread / n)
}
