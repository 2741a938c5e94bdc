//! Warm start of the token-level value function: first to rewards predicted from the critic's score of each
//! reply, then to the returns of baseline rollouts. One optimiser step at a time.

use ecr_core::optim::{AdamW, clip_grad_norm, grad_norm};
use ecr_core::seam::Value;
use ecr_core::{Error, Kind, Packed, Params, Result};
use serde::{Deserialize, Serialize};

use crate::losses::{explained_variance, value_loss};

/// A rollout with the number that its value should predict.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueExample {
    /// Prompt tokens, at least one.
    pub prompt: Vec<u32>,
    /// Response tokens, at least one.
    pub response: Vec<u32>,
    /// Reward at the last token: the true one, or one mapped from the critic's score.
    pub reward: f64,
}

/// Affine map from critic scores to rewards, by least squares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ScoreMap {
    /// Units of reward a unit of score.
    pub slope: f64,
    /// Reward at score 0.
    pub intercept: f64,
}

impl ScoreMap {
    /// Fits `reward ≈ slope·score + intercept`; constant scores map to the mean reward.
    pub fn fit(scores: &[f64], rewards: &[f64]) -> Self {
        let n = scores.len().max(1) as f64;
        let (ms, mr) = (scores.iter().sum::<f64>() / n, rewards.iter().sum::<f64>() / n);
        let var: f64 = scores.iter().map(|s| (s - ms).powi(2)).sum();
        let cov: f64 = scores.iter().zip(rewards).map(|(s, r)| (s - ms) * (r - mr)).sum();
        let slope = if var > 0.0 { cov / var } else { 0.0 };
        Self { slope, intercept: mr - slope * ms }
    }
    /// The reward that `score` stands for.
    pub fn apply(self, score: f64) -> f64 {
        self.slope * score + self.intercept
    }
}

/// Returns of each response token, `[N]`: `γ^(tokens left) · reward`. Policy = reference here, so KL is 0.
fn pack(examples: &[ValueExample], which: &[usize], gamma: f64) -> (Packed, Vec<f64>) {
    let (mut batch, mut returns) = (Packed::new(), Vec::new());
    for &i in which {
        let e = &examples[i];
        batch.push_response(&e.prompt, &e.response);
        let n = e.response.len() as i32;
        returns.extend((0..n).map(|t| gamma.powi(n - 1 - t) * e.reward));
    }
    (batch, returns)
}

/// One step on the rollouts of `micro_batches` (indices), together one batch with one token mean. Returns the
/// value loss before the step.
///
/// # Errors
/// [`Kind::Diverged`] for a non-finite loss or gradient (parameters are untouched).
pub fn value_fit_step(
    value: &mut dyn Value,
    params: &mut Params,
    examples: &[ValueExample],
    micro_batches: &[Vec<usize>],
    gamma: f64,
    adam: &AdamW,
    lr: f64,
    max_grad_norm: f64,
) -> Result<f64> {
    let tokens: usize = micro_batches.iter().flatten().map(|&i| examples[i].response.len()).sum();
    params.zero_grad();
    let mut loss = 0.0;
    for which in micro_batches {
        let (batch, returns) = pack(examples, which, gamma);
        let values = value.forward(params, &batch, true)?;
        let weights = vec![1.0 / tokens as f64; returns.len()];
        let l = value_loss(&values, &values, &returns, &weights, None);
        loss += l.loss;
        value.backward(params, &l.d_value)?;
    }
    if !(loss + grad_norm(params)).is_finite() {
        return Err(Error::new(Kind::Diverged, "fit the value function")
            .expected("finite loss and gradient")
            .got(format!("loss {loss}"))
            .hint("lower the learning rate of the value function"));
    }
    clip_grad_norm(params, max_grad_norm);
    adam.step(params, lr);
    Ok(loss)
}

/// Explained variance of the returns of held-out rollouts, `micro_batches` (indices) at a time.
pub fn held_out_explained_variance(
    value: &mut dyn Value,
    params: &Params,
    examples: &[ValueExample],
    micro_batches: &[Vec<usize>],
    gamma: f64,
) -> Result<f64> {
    let (mut values, mut returns) = (Vec::new(), Vec::new());
    for which in micro_batches {
        let (batch, r) = pack(examples, which, gamma);
        values.extend(value.forward(params, &batch, false)?.into_iter().map(f64::from));
        returns.extend(r);
    }
    Ok(explained_variance(&values, &returns))
}
