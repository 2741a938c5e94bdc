//! Sampling responses.

use super::TokenMask;
use crate::{Params, Result, Stream};

/// How to decode.
#[derive(Clone, Copy)]
pub struct Decoding<'a> {
    /// Sampling temperature; 0 is greedy.
    pub temperature: f32,
    /// Keep only the k most likely tokens; 0 is off.
    pub top_k: usize,
    /// Keep the smallest set of tokens with this mass; 1 is off.
    pub top_p: f32,
    /// Forbid repeating any n-gram of this length inside the response; 0 is off.
    pub no_repeat_ngram: usize,
    /// Longest response, tokens, the end token included.
    pub max_new: usize,
    /// Constrained decoding.
    pub mask: Option<&'a dyn TokenMask>,
}

impl Decoding<'_> {
    /// What PPO samples with: the plain distribution at temperature 1.
    pub fn plain(max_new: usize) -> Decoding<'static> {
        Decoding { temperature: 1.0, top_k: 0, top_p: 1.0, no_repeat_ngram: 0, max_new, mask: None }
    }
    /// Whether the sampled distribution is the plain softmax at `temperature` (what PPO requires).
    pub fn is_plain(&self) -> bool {
        self.temperature > 0.0 && self.top_k == 0 && self.top_p >= 1.0 && self.no_repeat_ngram == 0
    }
}

/// One sampled response.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Response tokens, the end token included if it was reached.
    pub tokens: Vec<u32>,
    /// Log-probability of each under the distribution sampled from. For checks and logs: training recomputes.
    pub logp: Vec<f32>,
    /// Whether the end token was reached.
    pub finished: bool,
}

/// Draws responses to prompts.
pub trait Generator {
    /// One response to each prompt (repeat a prompt for several samples). Row `i` draws from `streams[i]`, so
    /// its tokens do not depend on the rest of the batch.
    fn generate(
        &mut self,
        params: &Params,
        prompts: &[Vec<u32>],
        decoding: Decoding<'_>,
        streams: &[Stream],
    ) -> Result<Vec<Completion>>;
}
