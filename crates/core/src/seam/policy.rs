//! The narrow waist: to every algorithm a policy is packed sequences in, per-token numbers out.
//!
//! Legend: `N` scored tokens of the batch, in the order of [`Packed::scored_positions`].

use super::TokenMask;
use crate::{Packed, Params, Result};

/// How a forward pass is to be made.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Logits are divided by this before the softmax; > 0.
    pub temperature: f32,
    /// Restricts the distribution at each scored position, as it did when the tokens were sampled.
    pub mask: Option<&'a dyn TokenMask>,
    /// Keep what [`Policy::backward`] needs. Without it nothing is stored.
    pub keep: bool,
}

impl Pass<'_> {
    /// Temperature 1, no mask, nothing kept: plain scoring.
    pub const SCORE: Pass<'static> = Pass { temperature: 1.0, mask: None, keep: false };
    /// Temperature 1, no mask, kept for a backward pass: training.
    pub const TRAIN: Pass<'static> = Pass { temperature: 1.0, mask: None, keep: true };
}

/// Per-token results of a forward pass.
#[derive(Debug, Clone, Default)]
pub struct Scores {
    /// Log-probability of each scored token, nats, `[N]`.
    pub logp: Vec<f32>,
    /// Entropy of the distribution it was drawn from, nats, `[N]`.
    pub entropy: Vec<f32>,
}

/// A policy over token sequences. The trained parameters (all weights, or a LoRA adapter over a frozen base)
/// are a value given to each call: student, reference and agents are several [`Params`] over one policy.
pub trait Policy {
    /// Scores the batch under `params`.
    ///
    /// # Errors
    /// [`crate::Kind::Internal`] for parameters of another layout, [`crate::Kind::Data`] for a token outside
    /// the vocabulary or a sequence over the model's length.
    fn forward(&mut self, params: &Params, batch: &Packed, pass: Pass<'_>) -> Result<Scores>;

    /// Takes back `∂L/∂logp` and `∂L/∂entropy` (`[N]` each) of the last kept forward and **adds** `∂L/∂params`
    /// to `params.grad`. `params` must hold the values of that forward.
    fn backward(&mut self, params: &mut Params, d_logp: &[f32], d_entropy: &[f32]) -> Result<()>;
}
