//! The PPO update once more, from the same losses, in the fewest lines, with a switch for each fault that such
//! updates are known for. Without a fault it is `ppo_step` to the bit (`faults.rs` checks it), so a bound that
//! catches the fault here catches it there.

use ecr_algos::losses::*;
use ecr_algos::ppo::{PpoConfig, Rollout};
use ecr_core::optim::{AdamW, clip_grad_norm};
use ecr_core::seam::{Pass, Policy, Value};
use ecr_core::{Packed, Params, Stream};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// `r_t = +β·kl_t`.
    KlSign,
    /// `r_t = −2β·kl_t`: the penalty in the reward and once more in the score.
    BetaTwice,
    /// KL to the policy that sampled.
    KlToOld,
    /// The score on the token after the last one, which is the first of the next response.
    ScoreLate,
    /// One recursion over the whole batch.
    GaeAcross,
    /// Responses padded to the longest, pads in every average.
    PaddingCounted,
    /// Prompt tokens scored like responses.
    PromptCounted,
    /// Old policy and reference at temperature 1.
    TemperatureOnlyInLoss,
    /// Temperature 1 everywhere but in sampling.
    NoTemperature,
    /// Each minibatch whitened by itself.
    WhitenMinibatch,
    /// The reference is the policy before the last update.
    StaleReference,
    /// The reference's log-probabilities are those of the last batch.
    StaleNumbers,
}

/// What stale faults remember.
#[derive(Default)]
pub struct Last {
    policy: Option<Params>,
    ref_logp: Vec<f32>,
}

/// One sequence: tokens, which count, and which of those holds the score.
struct Row {
    tokens: Vec<u32>,
    scored: Vec<bool>,
    end: usize,
}

const PAD: u32 = 7;

fn rows(fault: Fault, rollouts: &[Rollout]) -> Vec<Row> {
    let longest = rollouts.iter().map(|r| r.response.len()).max().unwrap();
    let row = |r: &Rollout| {
        let (p, n) = (r.prompt.len(), r.response.len());
        let pads = if fault == Fault::PaddingCounted { longest - n } else { 0 };
        let tokens = [&r.prompt[..], &r.response[..], &vec![PAD; pads]].concat();
        let first = if fault == Fault::PromptCounted { 1 } else { p };
        Row { scored: (0..tokens.len()).map(|t| t >= first).collect(), tokens, end: p + n - 1 - first }
    };
    rollouts.iter().map(row).collect()
}

fn pack(rows: &[Row], which: &[usize]) -> Packed {
    let mut batch = Packed::new();
    which.iter().for_each(|&i| batch.push(&rows[i].tokens, &rows[i].scored));
    batch
}

fn at<T: Copy>(xs: &[T], which: &[usize]) -> Vec<T> {
    which.iter().map(|&i| xs[i]).collect()
}

pub fn update(
    fault: Fault,
    policy: &mut dyn Policy,
    value: &mut dyn Value,
    params: &mut Params,
    value_params: &mut Params,
    reference: &Params,
    last: &mut Last,
    rollouts: &[Rollout],
    cfg: &PpoConfig,
    stream: Stream,
    step: u64,
) {
    let rows = rows(fault, rollouts);
    let everyone: Vec<usize> = (0..rows.len()).collect();
    let all = pack(&rows, &everyone);
    let lengths = all.scored_lengths();
    let cold = [Fault::TemperatureOnlyInLoss, Fault::NoTemperature].contains(&fault);
    let score = Pass { temperature: if cold { 1.0 } else { cfg.temperature as f32 }, ..Pass::SCORE };
    let old = policy.forward(params, &all, score).unwrap().logp;
    let before = params.frozen_copy();
    let reference = match (fault, &last.policy) {
        (Fault::KlToOld, _) => &before,
        (Fault::StaleReference, Some(stale)) => stale,
        _ => reference,
    };
    let mut ref_logp = policy.forward(reference, &all, score).unwrap().logp;
    let fresh = ref_logp.clone();
    if fault == Fault::StaleNumbers && last.ref_logp.len() == fresh.len() {
        ref_logp.clone_from(&last.ref_logp);
    }
    *last = Last { policy: Some(before), ref_logp: fresh };
    let values = value.forward(value_params, &all, false).unwrap();

    let beta = cfg.kl_coef
        * match fault {
            Fault::KlSign => -1.0,
            Fault::BetaTwice => 2.0,
            _ => 1.0,
        };
    let mut rewards: Vec<f64> =
        kl_tokens(cfg.kl_estimator, &old, &ref_logp).iter().map(|k| -beta * k).collect();
    let mut start = 0;
    for ((r, row), len) in rollouts.iter().zip(&rows).zip(&lengths) {
        let slot = start + row.end + usize::from(fault == Fault::ScoreLate);
        if let Some(x) = rewards.get_mut(slot) {
            *x += r.score - if r.finished { 0.0 } else { cfg.missing_eos_penalty };
        }
        start += len;
    }
    let cut = if fault == Fault::GaeAcross { vec![rewards.len()] } else { lengths.clone() };
    let Gae { mut advantages, returns } = gae(&rewards, &values, &cut, cfg.gamma, cfg.lambda);
    if fault != Fault::WhitenMinibatch {
        whiten(&mut advantages, true, Variance::Unbiased);
    }

    let factor = cfg.schedule.factor(step, cfg.warmup_steps, cfg.steps);
    let adam = AdamW { eps: cfg.adam_eps, weight_decay: 0.0, ..AdamW::default() };
    let temperature = if fault == Fault::NoTemperature { 1.0 } else { cfg.temperature as f32 };
    let offsets: Vec<usize> = lengths.iter().scan(0, |at, l| Some(std::mem::replace(at, *at + l))).collect();
    for epoch in 0..cfg.ppo_epochs {
        let mut order = everyone.clone();
        stream.child("minibatch").at(step).at(epoch as u64).rng().shuffle(&mut order);
        for part in order.chunks(cfg.minibatch_size) {
            let tokens: Vec<usize> = part.iter().flat_map(|&i| offsets[i]..offsets[i] + lengths[i]).collect();
            let w = cfg.aggregation.weights(&at(&lengths, part));
            let batch = pack(&rows, part);
            params.zero_grad();
            value_params.zero_grad();
            let now = policy.forward(params, &batch, Pass { temperature, ..Pass::TRAIN }).unwrap();
            let mut a = at(&advantages, &tokens);
            if fault == Fault::WhitenMinibatch {
                whiten(&mut a, true, Variance::Unbiased);
            }
            let l = policy_loss(&now.logp, &at(&old, &tokens), &a, &w, Clip::symmetric(cfg.clip_range));
            policy.backward(params, &l.d_logp, &vec![0.0; tokens.len()]).unwrap();
            let v = value.forward(value_params, &batch, true).unwrap();
            let vl = value_loss(&v, &at(&values, &tokens), &at(&returns, &tokens), &w, cfg.value_clip_range);
            let d: Vec<f32> = vl.d_value.iter().map(|d| (f64::from(*d) * cfg.vf_coef) as f32).collect();
            value.backward(value_params, &d).unwrap();
            clip_grad_norm(params, cfg.max_grad_norm);
            clip_grad_norm(value_params, cfg.max_grad_norm);
            adam.step(params, cfg.learning_rate * factor);
            adam.step(value_params, cfg.value_learning_rate * factor);
        }
    }
}
