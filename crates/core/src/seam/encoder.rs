//! The encoder seam: hidden and pooled states out, their gradients back.
//!
//! Legend: `T` tokens, `S` sequences, `D` width.

use crate::{Packed, Params, Result};

/// Hidden and pooled states of a packed batch.
#[derive(Debug, Clone, Default)]
pub struct Encoded {
    /// Last hidden state of every token, `[T, D]`.
    pub hidden: Vec<f32>,
    /// Mean of a sequence's hidden states, `[S, D]`.
    pub pooled: Vec<f32>,
}

/// A text encoder (BERT, RoBERTa, or a decoder's trunk).
pub trait Encoder {
    /// Width `D`.
    fn width(&self) -> usize;
    /// Longest sequence, tokens.
    fn max_len(&self) -> usize;
    /// Encodes the batch; `keep` stores what `backward` needs.
    fn forward(&mut self, params: &Params, batch: &Packed, keep: bool) -> Result<Encoded>;
    /// Takes back gradients of the last kept forward: `d_hidden` is `[T, D]` or empty, `d_pooled` `[S, D]` or
    /// empty. Adds to `params.grad`.
    fn backward(&mut self, params: &mut Params, d_hidden: &[f32], d_pooled: &[f32]) -> Result<()>;
}
