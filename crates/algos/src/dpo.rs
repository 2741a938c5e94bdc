//! Direct preference optimisation and its kin, one step on pairs of responses.
//!
//! Sources: Rafailov et al. 2023 (DPO), and those of [`crate::losses::Preference`]; the SFT term is MACPO's `dpo_ftx`
//! (Lyu et al. 2025; `γ` times the token mean of the chosen response). Numbers checked against TRL, OpenRLHF and
//! LLaMA-Factory. Departures: the reference is an argument, never "whatever lies under the adapter", and its
//! log-probabilities are computed once for many steps; length normalisation is a switch of every loss (TRL
//! normalises IPO only); a pair may carry a weight.
//!
//! Legend: `B` pairs; each has a chosen (`+`) and a rejected (`−`) response.

use ecr_core::optim::{AdamW, Schedule, clip_grad_norm, grad_norm};
use ecr_core::seam::{Pass, Policy};
use ecr_core::{Error, Kind, Packed, Params, Result};
use serde::{Deserialize, Serialize};

use crate::Metrics;
use crate::losses::Preference;
use crate::update::in_range;

/// Two responses to one prompt, the first preferred.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// Prompt tokens, at least one.
    pub prompt: Vec<u32>,
    /// Preferred response, at least one token.
    pub chosen: Vec<u32>,
    /// The other, at least one token.
    pub rejected: Vec<u32>,
    /// Weight of the pair's loss, ≥ 0; 1 is plain.
    pub weight: f64,
}

/// Settings of DPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DpoConfig {
    /// Peak learning rate, ≥ 0. Default 1e-6.
    pub learning_rate: f64,
    /// Its shape over `steps`. Default linear to zero.
    pub schedule: Schedule,
    /// Steps of linear warm-up. Default 0.
    pub warmup_steps: u64,
    /// Optimiser steps of the whole run, ≥ 1. Default 100.
    pub steps: u64,
    /// Pairs a step, ≥ 1. Default 16.
    pub batch_size: usize,
    /// Most tokens (prompts included) in one forward pass, ≥ 1; does not change results. Default 2048.
    pub micro_batch_tokens: usize,
    /// Which loss. Default sigmoid.
    pub loss: Preference,
    /// β, strength of the tie to the reference, > 0. Default 0.1.
    pub beta: f64,
    /// Probability ε that a label is wrong, in [0, ½): conservative (sigmoid) or robust DPO. Default 0.
    pub label_smoothing: f64,
    /// Margins of log-probabilities a token instead of a response. Default false.
    pub length_normalize: bool,
    /// γ of the SFT term, the mean negative log-likelihood a token of the chosen response, ≥ 0. Default 0.
    pub sft_coef: f64,
    /// Largest norm of the gradient, > 0. Default 1.
    pub max_grad_norm: f64,
    /// ε of Adam, > 0. Default 1e-8.
    pub adam_eps: f64,
}

impl Default for DpoConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-6,
            schedule: Schedule::Linear,
            warmup_steps: 0,
            steps: 100,
            batch_size: 16,
            micro_batch_tokens: 2048,
            loss: Preference::Sigmoid,
            beta: 0.1,
            label_smoothing: 0.0,
            length_normalize: false,
            sft_coef: 0.0,
            max_grad_norm: 1.0,
            adam_eps: 1e-8,
        }
    }
}

impl DpoConfig {
    /// Checks the ranges that the fields document.
    ///
    /// # Errors
    /// [`Kind::Config`] that names the field.
    pub fn check(&self) -> Result<()> {
        in_range(
            "dpo",
            &[
                ("learning_rate", self.learning_rate, self.learning_rate >= 0.0),
                ("steps", self.steps as f64, self.steps > 0),
                ("batch_size", self.batch_size as f64, self.batch_size > 0),
                ("beta", self.beta, self.beta > 0.0),
                ("label_smoothing", self.label_smoothing, (0.0..0.5).contains(&self.label_smoothing)),
                ("sft_coef", self.sft_coef, self.sft_coef >= 0.0),
                ("max_grad_norm", self.max_grad_norm, self.max_grad_norm > 0.0),
                ("adam_eps", self.adam_eps, self.adam_eps > 0.0),
            ],
        )
    }
    /// Learning rate at `step`.
    pub fn rate(&self, step: u64) -> f64 {
        self.learning_rate * self.schedule.factor(step, self.warmup_steps, self.steps)
    }
}

/// Log-probabilities of a pair's responses, nats, summed over their tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PairLogp {
    /// Of the chosen response.
    pub chosen: f64,
    /// Of the rejected response.
    pub rejected: f64,
}

/// Loss of a pair and its slopes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PairLoss {
    /// Preference loss.
    pub preference: f64,
    /// SFT term, without its coefficient.
    pub sft: f64,
    /// `∂(preference + γ·sft)/∂` log-probability of the chosen response (the same for each of its tokens).
    pub d_chosen: f64,
    /// Of the rejected response.
    pub d_rejected: f64,
}

/// The loss of a pair whose responses have `lengths` (chosen, rejected) tokens.
pub fn pair_loss(now: PairLogp, reference: PairLogp, lengths: (usize, usize), cfg: &DpoConfig) -> PairLoss {
    let (plus, minus) = (lengths.0 as f64, lengths.1 as f64);
    let (per_plus, per_minus) = if cfg.length_normalize { (1.0 / plus, 1.0 / minus) } else { (1.0, 1.0) };
    let h = (now.chosen - reference.chosen) * per_plus - (now.rejected - reference.rejected) * per_minus;
    let (preference, slope) = cfg.loss.of(h, cfg.beta, cfg.label_smoothing);
    PairLoss {
        preference,
        sft: -now.chosen / plus,
        d_chosen: slope * per_plus - cfg.sft_coef / plus,
        d_rejected: -slope * per_minus,
    }
}

/// Log-probabilities of all `pairs` under `params`: of the reference once for a run, or of a policy to evaluate it.
///
/// # Errors
/// [`Kind::Data`] for an empty prompt or response, and what the policy refuses.
pub fn pair_logps(
    policy: &mut dyn Policy,
    params: &Params,
    pairs: &[Pair],
    budget: usize,
) -> Result<Vec<PairLogp>> {
    check_pairs(pairs)?;
    let mut out = Vec::with_capacity(pairs.len());
    for part in cut(pairs, budget) {
        let logp = policy.forward(params, &pack(&pairs[part.clone()]), Pass::SCORE)?.logp;
        out.extend(sums(&logp, &pairs[part]));
    }
    Ok(out)
}

/// Loss and accuracy of a set of pairs, without training: TRL's `eval_loss` and `rewards/accuracies`.
///
/// # Errors
/// As of [`pair_logps`].
pub fn evaluate(
    policy: &mut dyn Policy,
    params: &Params,
    pairs: &[Pair],
    reference: &[PairLogp],
    cfg: &DpoConfig,
) -> Result<(f64, f64)> {
    let now = pair_logps(policy, params, pairs, cfg.micro_batch_tokens)?;
    let (mut loss, mut right) = (0.0, 0.0);
    for ((p, now), r) in pairs.iter().zip(&now).zip(reference) {
        loss += pair_loss(*now, *r, (p.chosen.len(), p.rejected.len()), cfg).preference;
        right += f64::from(u8::from(now.chosen - r.chosen > now.rejected - r.rejected));
    }
    Ok((loss / pairs.len() as f64, right / pairs.len() as f64))
}

/// One optimiser step on `pairs`, whose log-probabilities under the reference are `reference` `[B]`. The loss is the
/// mean over pairs, weighted; metrics have TRL's names.
///
/// # Errors
/// [`Kind::Config`] for settings, [`Kind::Data`] for unusable pairs, [`Kind::Diverged`] for a non-finite loss or
/// gradient (parameters are untouched).
pub fn dpo_step(
    policy: &mut dyn Policy,
    params: &mut Params,
    pairs: &[Pair],
    reference: &[PairLogp],
    cfg: &DpoConfig,
    step: u64,
) -> Result<Metrics> {
    cfg.check()?;
    check_pairs(pairs)?;
    if reference.len() != pairs.len() {
        return Err(Error::internal("learn from pairs")
            .expected(format!("{} reference log-probabilities", pairs.len()))
            .got(reference.len().to_string()));
    }
    let n = pairs.len() as f64;
    params.zero_grad();
    let (mut preference, mut sft, mut right, mut lengths) = (0.0, 0.0, 0.0, (0.0, 0.0));
    let (mut logps, mut rewards) = (PairLogp::default(), PairLogp::default());
    for part in cut(pairs, cfg.micro_batch_tokens) {
        let logp = policy.forward(params, &pack(&pairs[part.clone()]), Pass::TRAIN)?.logp;
        let mut d = Vec::with_capacity(logp.len());
        for ((p, now), r) in
            pairs[part.clone()].iter().zip(sums(&logp, &pairs[part.clone()])).zip(&reference[part])
        {
            let l = pair_loss(now, *r, (p.chosen.len(), p.rejected.len()), cfg);
            let w = p.weight / n;
            d.extend(std::iter::repeat_n((w * l.d_chosen) as f32, p.chosen.len()));
            d.extend(std::iter::repeat_n((w * l.d_rejected) as f32, p.rejected.len()));
            preference += w * l.preference;
            sft += w * l.sft;
            logps.chosen += now.chosen / n;
            logps.rejected += now.rejected / n;
            let (plus, minus) = (cfg.beta * (now.chosen - r.chosen), cfg.beta * (now.rejected - r.rejected));
            rewards.chosen += plus / n;
            rewards.rejected += minus / n;
            right += f64::from(u8::from(plus > minus));
            lengths.0 += p.chosen.len() as f64 / n;
            lengths.1 += p.rejected.len() as f64 / n;
        }
        policy.backward(params, &d, &vec![0.0; d.len()])?;
    }
    let (loss, norm) = (preference + cfg.sft_coef * sft, grad_norm(params));
    if !(loss + norm).is_finite() {
        return Err(Error::new(Kind::Diverged, format!("learn from pairs in step {step}"))
            .expected("finite loss and gradient")
            .got(format!("loss {loss}, gradient norm {norm}"))
            .hint("lower dpo.learning_rate"));
    }
    clip_grad_norm(params, cfg.max_grad_norm);
    let adam = AdamW { eps: cfg.adam_eps, weight_decay: 0.0, ..AdamW::default() };
    adam.step(params, cfg.rate(step));
    let mut metrics = Metrics::default();
    for (name, number) in [
        ("loss", loss),
        ("loss/preference", preference),
        ("loss/sft", sft),
        ("rewards/chosen", rewards.chosen),
        ("rewards/rejected", rewards.rejected),
        ("rewards/margins", rewards.chosen - rewards.rejected),
        ("rewards/accuracies", right / n),
        ("logps/chosen", logps.chosen),
        ("logps/rejected", logps.rejected),
        ("response_length/chosen", lengths.0),
        ("response_length/rejected", lengths.1),
        ("grad_norm", norm),
        ("lr", cfg.rate(step)),
    ] {
        metrics.set(name, number);
    }
    Ok(metrics)
}

fn check_pairs(pairs: &[Pair]) -> Result<()> {
    let bad = |p: &Pair| {
        p.prompt.is_empty()
            || p.chosen.is_empty()
            || p.rejected.is_empty()
            || !(p.weight >= 0.0 && p.weight.is_finite())
    };
    match pairs.iter().position(bad) {
        None if !pairs.is_empty() => Ok(()),
        at => Err(Error::data("learn from pairs")
            .expected("at least one pair, each with a prompt, two responses and a weight >= 0")
            .got(at.map_or("no pairs".to_owned(), |i| format!("pair {i} without them")))),
    }
}

/// Chosen and rejected of each pair, in turn.
fn pack(pairs: &[Pair]) -> Packed {
    let mut batch = Packed::new();
    for p in pairs {
        batch.push_response(&p.prompt, &p.chosen);
        batch.push_response(&p.prompt, &p.rejected);
    }
    batch
}

fn sums(logp: &[f32], pairs: &[Pair]) -> Vec<PairLogp> {
    let mut at = 0;
    let mut next = |n: usize| -> f64 {
        at += n;
        logp[at - n..at].iter().map(|&l| f64::from(l)).sum()
    };
    pairs
        .iter()
        .map(|p| PairLogp { chosen: next(p.chosen.len()), rejected: next(p.rejected.len()) })
        .collect()
}

/// Cuts pairs into runs of at most `budget` tokens, at least one pair each.
fn cut(pairs: &[Pair], budget: usize) -> Vec<std::ops::Range<usize>> {
    let (mut out, mut start, mut used) = (Vec::new(), 0, 0);
    for (i, p) in pairs.iter().enumerate() {
        let tokens = 2 * p.prompt.len() + p.chosen.len() + p.rejected.len();
        if i > start && used + tokens > budget {
            out.push(start..i);
            (start, used) = (i, 0);
        }
        used += tokens;
    }
    out.push(start..pairs.len());
    out
}
