//! Sampled responses and how they become batches: shared by every algorithm that samples.
//!
//! Legend: `S` rollouts, `N` response tokens of all of them, laid end to end in rollout order.

use ecr_core::seam::{Decoding, Pass, Policy};
use ecr_core::{Error, Kind, Packed, Params, Result};

/// One sampled response and its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// Prompt tokens, at least one.
    pub prompt: Vec<u32>,
    /// Response tokens, at least one, the end token included if it was reached.
    pub response: Vec<u32>,
    /// Whether the end token was reached.
    pub finished: bool,
    /// Reward of the whole response, finite.
    pub score: f64,
}

/// What the training forward says of a batch before an update, `[N]` each.
#[derive(Debug, Clone, Default)]
pub struct Scored {
    /// Response tokens of each rollout, `[S]`.
    pub lengths: Vec<usize>,
    /// Log-probability under the policy, nats.
    pub logp: Vec<f32>,
    /// Entropy of the policy, nats.
    pub entropy: Vec<f32>,
    /// Log-probability under the reference, nats.
    pub ref_logp: Vec<f32>,
}

impl Scored {
    /// Scores `rollouts` under `params` and `reference`, at most `budget` tokens a pass.
    ///
    /// # Errors
    /// [`Kind::Diverged`] for a log-probability that is not finite.
    pub fn new(
        policy: &mut dyn Policy,
        params: &Params,
        reference: &Params,
        rollouts: &[Rollout],
        pass: Pass<'_>,
        budget: usize,
    ) -> Result<Self> {
        let everyone: Vec<usize> = (0..rollouts.len()).collect();
        let lengths = rollouts.iter().map(|r| r.response.len()).collect();
        let mut x = Self { lengths, ..Self::default() };
        for part in micro_batches(rollouts, &everyone, budget) {
            let batch = pack(rollouts, part);
            let old = policy.forward(params, &batch, pass)?;
            x.logp.extend(old.logp);
            x.entropy.extend(old.entropy);
            x.ref_logp.extend(policy.forward(reference, &batch, pass)?.logp);
        }
        if !x.logp.iter().chain(&x.ref_logp).all(|v| v.is_finite()) {
            return Err(Error::new(Kind::Diverged, "score rollouts")
                .expected("finite log-probabilities")
                .hint("resume from an earlier checkpoint with a lower learning rate"));
        }
        Ok(x)
    }
}

/// Refuses rollouts that cannot be learnt from, and sampling whose distribution is not the plain softmax at
/// `temperature`.
///
/// # Errors
/// [`Kind::Config`] for the sampling, [`Kind::Data`] for the rollouts.
pub(crate) fn check(rollouts: &[Rollout], decoding: &Decoding<'_>, temperature: f64) -> Result<()> {
    if !decoding.is_plain() || f64::from(decoding.temperature) != f64::from(temperature as f32) {
        return Err(Error::config("sample for reinforcement learning")
            .expected(format!("temperature {temperature}, top_k 0, top_p 1, no_repeat_ngram 0"))
            .hint("log-probabilities must be of the distribution that was sampled from"));
    }
    let bad = |r: &Rollout| r.prompt.is_empty() || r.response.is_empty() || !r.score.is_finite();
    match rollouts.iter().position(bad) {
        None if !rollouts.is_empty() => Ok(()),
        at => Err(Error::data("update a policy")
            .expected("at least one rollout, each with a prompt, a response and a finite score")
            .got(at.map_or("no rollouts".to_owned(), |i| format!("rollout {i} without them")))),
    }
}

/// Sizes of the groups in which `rollouts` come: runs of `size` responses to one prompt.
///
/// # Errors
/// [`Kind::Data`] if they do not come so.
pub(crate) fn groups(rollouts: &[Rollout], size: usize) -> Result<Vec<usize>> {
    let same = |g: &[Rollout]| g.len() == size && g.iter().all(|r| r.prompt == g[0].prompt);
    match rollouts.chunks(size.max(1)).position(|g| !same(g)) {
        None => Ok(vec![size; rollouts.len() / size]),
        Some(i) => Err(Error::data("group rollouts by prompt")
            .expected(format!("{size} responses to each prompt, one after another"))
            .got(format!("group {i} without them"))),
    }
}

/// Packs the rollouts `which`, responses scored.
pub(crate) fn pack(rollouts: &[Rollout], which: &[usize]) -> Packed {
    let mut batch = Packed::new();
    which.iter().for_each(|&i| batch.push_response(&rollouts[i].prompt, &rollouts[i].response));
    batch
}

/// The entries `which` of `xs`.
pub(crate) fn at<T: Copy>(xs: &[T], which: &[usize]) -> Vec<T> {
    which.iter().map(|&i| xs[i]).collect()
}

/// Where each of `lengths` begins.
pub(crate) fn offsets(lengths: &[usize]) -> Vec<usize> {
    lengths.iter().scan(0, |at, l| Some(std::mem::replace(at, *at + l))).collect()
}

/// Cuts `which` into runs of at most `budget` tokens, at least one rollout each.
pub(crate) fn micro_batches<'a>(rollouts: &[Rollout], which: &'a [usize], budget: usize) -> Vec<&'a [usize]> {
    let (mut out, mut start, mut used) = (Vec::new(), 0, 0);
    for (k, &i) in which.iter().enumerate() {
        let tokens = rollouts[i].prompt.len() + rollouts[i].response.len();
        if k > start && used + tokens > budget {
            out.push(&which[start..k]);
            (start, used) = (k, 0);
        }
        used += tokens;
    }
    out.push(&which[start..]);
    out
}
