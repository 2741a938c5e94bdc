//! Measurements of a policy over the seams: likelihood of human turns, distance to a reference.

use ecr_core::seam::{Completion, Pass, Policy};
use ecr_core::{Packed, Params, Result};

use crate::prompting::Window;

/// Negative log-likelihood of a conversation's recommender turns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nll {
    /// Conversation.
    pub conv_id: u32,
    /// Sum over its target tokens, nats.
    pub sum: f64,
    /// Target tokens.
    pub tokens: usize,
}

/// Indices of consecutive items whose lengths sum to at most `budget` (a longer single item goes alone).
pub fn batches(lengths: &[usize], budget: usize) -> Vec<std::ops::Range<usize>> {
    let (mut out, mut from, mut sum) = (Vec::new(), 0, 0);
    for (i, &n) in lengths.iter().enumerate() {
        if i > from && sum + n > budget {
            out.push(from..i);
            (from, sum) = (i, 0);
        }
        sum += n;
    }
    if from < lengths.len() {
        out.push(from..lengths.len());
    }
    out
}

/// NLL of each conversation (its windows added up), in the order of first appearance. `budget`: tokens a batch.
pub fn nll(policy: &mut dyn Policy, params: &Params, windows: &[Window], budget: usize) -> Result<Vec<Nll>> {
    let lengths: Vec<usize> = windows.iter().map(|w| w.tokens.len()).collect();
    let mut out: Vec<Nll> = Vec::new();
    for range in batches(&lengths, budget) {
        let mut batch = Packed::new();
        for w in &windows[range.clone()] {
            batch.push(&w.tokens, &w.loss_mask);
        }
        let scores = policy.forward(params, &batch, Pass::SCORE)?;
        let mut at = 0;
        for (w, n) in windows[range].iter().zip(batch.scored_lengths()) {
            let sum: f64 = scores.logp[at..at + n].iter().map(|&l| -f64::from(l)).sum();
            at += n;
            match out.iter_mut().rev().find(|x| x.conv_id == w.conv_id) {
                Some(x) => {
                    x.sum += sum;
                    x.tokens += n;
                }
                None => out.push(Nll { conv_id: w.conv_id, sum, tokens: n }),
            }
        }
    }
    Ok(out)
}

/// Mean NLL a token over conversations: all nats by all tokens.
pub fn mean_nll(rows: &[Nll]) -> f64 {
    let (sum, tokens) = rows.iter().fold((0.0, 0), |(s, t), r| (s + r.sum, t + r.tokens));
    sum / tokens.max(1) as f64
}

/// Log-probability of each response under `params`, summed over its tokens, `[responses]`.
pub fn response_logp(
    policy: &mut dyn Policy,
    params: &Params,
    prompts: &[Vec<u32>],
    responses: &[Completion],
    budget: usize,
) -> Result<Vec<f64>> {
    let lengths: Vec<usize> = prompts.iter().zip(responses).map(|(p, r)| p.len() + r.tokens.len()).collect();
    let mut out = Vec::with_capacity(responses.len());
    for range in batches(&lengths, budget) {
        let mut batch = Packed::new();
        for i in range {
            batch.push_response(&prompts[i], &responses[i].tokens);
        }
        let scores = policy.forward(params, &batch, Pass::SCORE)?;
        let mut at = 0;
        for n in batch.scored_lengths() {
            out.push(scores.logp[at..at + n].iter().map(|&l| f64::from(l)).sum());
            at += n;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_the_budget_and_lose_nothing() {
        assert_eq!(batches(&[3, 3, 5, 20, 1], 8), [0..2, 2..3, 3..4, 4..5]);
        assert!(batches(&[], 8).is_empty());
    }

    /// Every token has probability 1/4.
    struct Flat;
    impl Policy for Flat {
        fn forward(&mut self, _: &Params, b: &Packed, _: Pass<'_>) -> Result<ecr_core::seam::Scores> {
            let n = b.n_scored();
            Ok(ecr_core::seam::Scores { logp: vec![-(4f32.ln()); n], entropy: vec![4f32.ln(); n] })
        }
        fn backward(&mut self, _: &mut Params, _: &[f32], _: &[f32]) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn windows_of_one_conversation_add_up() {
        let w = |conv_id, n: usize| Window { conv_id, tokens: vec![1; n], loss_mask: vec![true; n] };
        let params = Params::zeros(std::sync::Arc::new(ecr_core::Layout::new()));
        let rows = nll(&mut Flat, &params, &[w(1, 4), w(1, 3), w(2, 5)], 6).unwrap();
        assert_eq!(rows.iter().map(|r| (r.conv_id, r.tokens)).collect::<Vec<_>>(), [(1, 5), (2, 4)]);
        assert!((mean_nll(&rows) - 4f64.ln()).abs() < 1e-6);
    }
}
