//! MACPO: rounds in which a strong student and K weak teachers learn from one another's responses by contrast.
//!
//! Source: Lyu et al. 2025 "MACPO: Weak-to-Strong Alignment via Multi-Agent Contrastive Preference Optimization"
//! (ICLR; arXiv 2410.07672), the released scripts and data (youganglyu/MACPO). It is iterated DPO with an SFT term, not
//! a policy gradient. In each round
//!
//! 1. *student*: of the teachers' responses to a prompt (not its own, hence unfamiliar) one is the positive, as published
//!    the one of lowest perplexity under the student; the negative is a sample of the student's own negative agent
//!    (fine-tuned on bad behaviour: hard, because familiar); then DPO + 0.2·SFT;
//! 2. *teachers*: the positive is the student's new response, the negative a sample of the teacher's negative agent.
//!
//! Departures: the criterion is selectable; a positive must have ended, must not repeat itself nor leave a length
//! band; a pair whose sides are (nearly) the same, or whose positive is somebody's negative, is dropped; the reference
//! is explicit (the release uses the raw base by accident of its framework) and by default the policy at the start of
//! the round; negatives may be sampled anew each round; a round must earn its place on held-out prompts or is rolled
//! back. This module decides and learns; the caller samples, writes files and keeps checkpoints.

mod config;
mod round;
mod select;

use ecr_core::seam::Policy;
use ecr_core::{Params, Result, Stream};

pub use config::{Criterion, MacpoConfig, NegativeKind, ReferenceKind};
pub use round::{HeldOut, Phase, Progress, Verdict, judge};
pub use select::{
    Candidate, CandidateGuards, Flaw, build_pairs, choose_negative, choose_positive, drop_contradictions,
    flaw, repetition, similarity,
};

use crate::Metrics;
use crate::dpo::{DpoConfig, Pair, PairLogp, dpo_step, pair_logps};

/// The batches of one learner's round, all epochs: a seeded order, so that a run may stop between any two.
pub fn batches(pairs: usize, cfg: &MacpoConfig, stream: Stream) -> Vec<Vec<usize>> {
    let mut out = Vec::new();
    for epoch in 0..cfg.epochs as u64 {
        let mut order: Vec<usize> = (0..pairs).collect();
        stream.child("pairs").at(epoch).rng().shuffle(&mut order);
        out.extend(order.chunks(cfg.dpo.batch_size.max(1)).map(<[usize]>::to_vec));
    }
    out
}

/// DPO settings of one learner's round of `steps` steps.
pub fn round_dpo(cfg: &MacpoConfig, steps: usize) -> DpoConfig {
    DpoConfig { steps: steps.max(1) as u64, ..cfg.dpo.clone() }
}

/// Step `step` of a learner's round: the batch of [`batches`] with that number. `reference` are the log-probabilities
/// of all `pairs` under the reference ([`pair_logps`]).
///
/// # Errors
/// As of [`dpo_step`].
pub fn learn_step(
    policy: &mut dyn Policy,
    params: &mut Params,
    pairs: &[Pair],
    reference: &[PairLogp],
    batches: &[Vec<usize>],
    cfg: &MacpoConfig,
    step: usize,
) -> Result<Metrics> {
    let which = &batches[step];
    let some: Vec<Pair> = which.iter().map(|&i| pairs[i].clone()).collect();
    let logps: Vec<PairLogp> = which.iter().map(|&i| reference[i]).collect();
    dpo_step(policy, params, &some, &logps, &round_dpo(cfg, batches.len()), step as u64)
}

/// A learner's whole round. Returns the metrics of its last step, or none if there was nothing to learn from.
///
/// # Errors
/// As of [`dpo_step`].
pub fn learn(
    policy: &mut dyn Policy,
    params: &mut Params,
    reference: &Params,
    pairs: &[Pair],
    cfg: &MacpoConfig,
    stream: Stream,
) -> Result<Option<Metrics>> {
    if pairs.is_empty() {
        return Ok(None);
    }
    let logps = pair_logps(policy, reference, pairs, cfg.dpo.micro_batch_tokens)?;
    let batches = batches(pairs.len(), cfg, stream);
    let mut last = None;
    for step in 0..batches.len() {
        last = Some(learn_step(policy, params, pairs, &logps, &batches, cfg, step)?);
    }
    Ok(last)
}
