//! Supervised fine-tuning: cross-entropy of the scored tokens, one optimiser step at a time, so that the
//! caller may checkpoint between any two. Everything that a resumed run needs is in [`Cursor`] and
//! [`EarlyStopping`].

use ecr_core::optim::{AdamW, clip_grad_norm, grad_norm};
use ecr_core::seam::{Pass, Policy};
use ecr_core::{Error, Kind, Packed, Params, Result, Stream};
use serde::{Deserialize, Serialize};

use crate::losses::nll;

/// One training sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Tokens of the whole dialogue.
    pub tokens: Vec<u32>,
    /// Which tokens carry loss, same length.
    pub scored: Vec<bool>,
}

/// Where training stands: epoch and batch within it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Epochs completed.
    pub epoch: u64,
    /// Batches of this epoch done.
    pub batch: usize,
}

impl Cursor {
    /// Moves past one batch of an epoch that has `batches`.
    pub fn advance(&mut self, batches: usize) {
        self.batch += 1;
        if self.batch >= batches {
            (self.epoch, self.batch) = (self.epoch + 1, 0);
        }
    }
}

/// Batches of one epoch: a seeded order, cut wherever `token_budget` would be passed (at least one sequence
/// each). `lengths` are tokens a sequence; the result depends on its arguments only.
pub fn epoch_batches(lengths: &[usize], token_budget: usize, stream: Stream, epoch: u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    stream.child("epoch").at(epoch).rng().shuffle(&mut order);
    let (mut out, mut used): (Vec<Vec<usize>>, usize) = (Vec::new(), 0);
    for i in order {
        match out.last_mut() {
            Some(batch) if used + lengths[i] <= token_budget => batch.push(i),
            _ => {
                out.push(vec![i]);
                used = 0;
            }
        }
        used += lengths[i];
    }
    out
}

/// Result of one step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SftStats {
    /// Mean negative log-likelihood of the batch before the step, nats a token.
    pub loss: f64,
    /// Scored tokens of the batch.
    pub tokens: usize,
    /// Gradient norm before clipping.
    pub grad_norm: f64,
}

/// One optimiser step over `micro_batches`, which together are the batch: the token count is global, so the
/// gradient does not depend on how the batch was cut.
///
/// # Errors
/// [`Kind::Diverged`] for a non-finite loss or gradient (parameters are untouched), [`Kind::Data`] for a batch
/// without scored tokens.
pub fn sft_step(
    policy: &mut dyn Policy,
    params: &mut Params,
    micro_batches: &[Packed],
    adam: &AdamW,
    lr: f64,
    max_grad_norm: f64,
) -> Result<SftStats> {
    let tokens: usize = micro_batches.iter().map(Packed::n_scored).sum();
    if tokens == 0 {
        return Err(Error::data("fine-tune on a batch").expected("at least one scored token"));
    }
    params.zero_grad();
    let mut loss = 0.0;
    for batch in micro_batches.iter().filter(|b| b.n_scored() > 0) {
        let scores = policy.forward(params, batch, Pass::TRAIN)?;
        let l = nll(&scores.logp, &vec![1.0 / tokens as f64; scores.logp.len()]);
        loss += l.loss;
        policy.backward(params, &l.d_logp, &vec![0.0; scores.logp.len()])?;
    }
    let norm = grad_norm(params);
    if !(loss + norm).is_finite() {
        return Err(Error::new(Kind::Diverged, "fine-tune on a batch")
            .expected("finite loss and gradient")
            .got(format!("loss {loss}, gradient norm {norm}"))
            .hint("lower the learning rate"));
    }
    clip_grad_norm(params, max_grad_norm);
    adam.step(params, lr);
    Ok(SftStats { loss, tokens, grad_norm: norm })
}

/// Packs the sequences `which` of `examples`.
pub fn pack(examples: &[Example], which: &[usize]) -> Packed {
    let mut batch = Packed::new();
    which.iter().for_each(|&i| batch.push(&examples[i].tokens, &examples[i].scored));
    batch
}

/// Summed negative log-likelihood (nats) and scored tokens of a batch; add them up over batches.
pub fn evaluate(policy: &mut dyn Policy, params: &Params, batch: &Packed) -> Result<(f64, usize)> {
    let scores = policy.forward(params, batch, Pass::SCORE)?;
    Ok((-scores.logp.iter().map(|&l| f64::from(l)).sum::<f64>(), scores.logp.len()))
}

/// Stops when the validation loss has not improved for `patience` evaluations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EarlyStopping {
    /// Evaluations without improvement that end training, ≥ 1.
    pub patience: usize,
    /// Best loss so far; `None` before the first.
    pub best: Option<f64>,
    /// Step of the best loss.
    pub best_step: u64,
    /// Evaluations since.
    pub bad: usize,
}

impl EarlyStopping {
    /// Nothing seen yet.
    pub fn new(patience: usize) -> Self {
        Self { patience, best: None, best_step: 0, bad: 0 }
    }
    /// Takes a validation loss; true if it is the best so far (keep these parameters).
    pub fn observe(&mut self, loss: f64, step: u64) -> bool {
        let better = loss.is_finite() && self.best.is_none_or(|b| loss < b);
        if better {
            (self.best, self.best_step, self.bad) = (Some(loss), step, 0);
        } else {
            self.bad += 1;
        }
        better
    }
    /// Whether training should end.
    pub fn stop(&self) -> bool {
        self.bad >= self.patience
    }
}
