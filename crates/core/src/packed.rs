//! Packed batches: sequences laid end to end, never padded.
//!
//! Legend: `T` tokens in the batch, `S` sequences, `N` scored tokens.

/// A batch of token sequences with block-diagonal causal attention between them implied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    /// Token ids of all sequences, `[T]`.
    pub tokens: Vec<u32>,
    /// Where each sequence begins, and `T` at the end, `[S + 1]`.
    pub starts: Vec<usize>,
    /// `scored[t]`: the log-probability of `tokens[t]` given the earlier tokens of its sequence is wanted,
    /// `[T]`. The first token of a sequence is never scored. This is the field's `loss_mask`.
    pub scored: Vec<bool>,
}

impl Packed {
    /// An empty batch.
    pub fn new() -> Self {
        Self { tokens: Vec::new(), starts: vec![0], scored: Vec::new() }
    }
    /// Appends one sequence. `scored` has its length; its first entry is ignored.
    pub fn push(&mut self, tokens: &[u32], scored: &[bool]) {
        assert_eq!(tokens.len(), scored.len(), "one scored flag a token");
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        self.tokens.extend_from_slice(tokens);
        self.scored.extend(scored.iter().enumerate().map(|(i, &s)| s && i > 0));
        self.starts.push(self.tokens.len());
    }
    /// Appends a prompt and a response; the response is scored.
    pub fn push_response(&mut self, prompt: &[u32], response: &[u32]) {
        let tokens: Vec<u32> = prompt.iter().chain(response).copied().collect();
        let scored: Vec<bool> = (0..tokens.len()).map(|i| i >= prompt.len()).collect();
        self.push(&tokens, &scored);
    }
    /// Number of sequences `S`.
    pub fn sequences(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }
    /// Token range of sequence `s`.
    pub fn range(&self, s: usize) -> std::ops::Range<usize> {
        self.starts[s]..self.starts[s + 1]
    }
    /// Number of scored tokens `N`.
    pub fn n_scored(&self) -> usize {
        self.scored.iter().filter(|&&s| s).count()
    }
    /// Positions of the scored tokens in `tokens`, ascending, `[N]`. The state that predicts `tokens[t]` is
    /// at `t - 1`.
    pub fn scored_positions(&self) -> Vec<usize> {
        (0..self.tokens.len()).filter(|&t| self.scored[t]).collect()
    }
    /// Number of scored tokens of each sequence, `[S]`; scored arrays are split by these.
    pub fn scored_lengths(&self) -> Vec<usize> {
        (0..self.sequences()).map(|s| self.scored[self.range(s)].iter().filter(|&&x| x).count()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_scored_and_prompts_are_not() {
        let mut b = Packed::new();
        b.push_response(&[1, 2], &[3, 4]);
        b.push_response(&[], &[5, 6]);
        assert_eq!(b.scored, [false, false, true, true, false, true]);
        assert_eq!(b.scored_positions(), [2, 3, 5]);
        assert_eq!(b.scored_lengths(), [2, 1]);
        assert_eq!(b.sequences(), 2);
    }
}
