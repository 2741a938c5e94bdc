//! Quality critic: sigmoid heads over the states of a (context, reply) pair. `L = weighted squared (or Huber) error
//! of the labels that exist + rank_coef · weighted mean −log σ(z_better − z_worse)` over pairs of known order. Head
//! parameters as in [`crate::classify::zero_head`], one class a quality: a quality without a label source
//! gets no row.
//!
//! What a head reads is told by its width: `D` = mean state of the whole input, `2D` = that and, behind it, the mean state
//! of the reply alone (the tokens that the batch calls scored), which a long context cannot drown.
//!
//! Legend: `S` rows of the batch, `D` encoder width.

use ecr_core::optim::AdamW;
use ecr_core::seam::{Encoded, Encoder};
use ecr_core::{Packed, Params, Result};

use crate::Metrics;
use crate::agreement::{calibration_error, pairwise_accuracy, spearman};
use crate::classify::{backward, finish, logits};

/// Two replies of the batch of which one is better in one quality.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Row of the better reply, counted over the whole batch.
    pub better: usize,
    /// Row of the worse reply.
    pub worse: usize,
    /// Which quality.
    pub head: usize,
    /// Share in the ranking loss, > 0; only ratios matter.
    pub weight: f64,
}

/// A label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// In [0, 1].
    pub value: f64,
    /// Factor on its error, > 0: sources with narrow labels need a larger one to count.
    pub weight: f64,
}

/// The loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Objective {
    /// Weight of the ranking loss.
    pub rank_coef: f64,
    /// Errors above this grow linearly (Huber); `None` = squared throughout.
    pub huber: Option<f64>,
}

/// One batch, cut for memory; the cut does not change the gradient.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Its rows in order; scored tokens are the reply.
    pub micro_batches: &'a [Packed],
    /// `[S, heads]`; `None` = no label.
    pub targets: &'a [Option<Target>],
    /// Known orders, across micro-batches too.
    pub pairs: &'a [Pair],
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// Width of the inputs of a head.
pub(crate) fn head_width(head: &Params) -> usize {
    head.tensor(0).len() / head.tensor(1).len()
}

/// What the head reads of each row, `[S, head width]`.
pub(crate) fn features(e: &Encoded, batch: &Packed, width: usize, head_width: usize) -> Vec<f32> {
    if head_width == width {
        return e.pooled.clone();
    }
    let mut out = vec![0.0; batch.sequences() * 2 * width];
    for (s, row) in out.chunks_mut(2 * width).enumerate() {
        row[..width].copy_from_slice(&e.pooled[s * width..(s + 1) * width]);
        let reply: Vec<usize> = batch.range(s).filter(|&t| batch.scored[t]).collect();
        for &t in &reply {
            let state = &e.hidden[t * width..(t + 1) * width];
            row[width..].iter_mut().zip(state).for_each(|(y, x)| *y += x / reply.len() as f32);
        }
    }
    out
}

/// Gradients of hidden (`[T, D]`, or empty) and pooled (`[S, D]`) states from those of the features.
pub(crate) fn states_backward(
    d: &[f32],
    batch: &Packed,
    width: usize,
    head_width: usize,
) -> (Vec<f32>, Vec<f32>) {
    if head_width == width {
        return (Vec::new(), d.to_vec());
    }
    let (mut hidden, mut pooled) = (vec![0.0; batch.tokens.len() * width], Vec::new());
    for (s, row) in d.chunks(2 * width).enumerate() {
        pooled.extend_from_slice(&row[..width]);
        let reply: Vec<usize> = batch.range(s).filter(|&t| batch.scored[t]).collect();
        for &t in &reply {
            let to = &mut hidden[t * width..(t + 1) * width];
            to.iter_mut().zip(&row[width..]).for_each(|(y, x)| *y += x / reply.len() as f32);
        }
    }
    (hidden, pooled)
}

/// Logits, `[S, heads]`; a score is their sigmoid.
pub fn predict_logits(
    encoder: &mut dyn Encoder,
    params: &Params,
    head: &Params,
    batch: &Packed,
) -> Result<Vec<f64>> {
    let e = encoder.forward(params, batch, false)?;
    let width = head_width(head);
    Ok(logits(head, &features(&e, batch, encoder.width(), width), width))
}

/// Scores in (0, 1), `[S, heads]`.
pub fn predict(
    encoder: &mut dyn Encoder,
    params: &Params,
    head: &Params,
    batch: &Packed,
) -> Result<Vec<f64>> {
    Ok(predict_logits(encoder, params, head, batch)?.into_iter().map(sigmoid).collect())
}

/// The loss of logits `z` `[S, heads]` and its gradient.
fn loss(z: &[f64], heads: usize, batch: &Batch<'_>, o: &Objective) -> (f64, Vec<f64>) {
    let labelled = batch.targets.iter().flatten().count().max(1) as f64;
    let (mut loss, mut d) = (0.0, vec![0.0; z.len()]);
    for (i, target) in batch.targets.iter().enumerate() {
        if let Some(t) = target {
            let p = sigmoid(z[i]);
            let (e, w) = (p - t.value, t.weight / labelled);
            let (l, slope) = match o.huber {
                // Twice Huber's function: equal to the squared error below the bend.
                Some(bend) if e.abs() > bend => (bend * (2.0 * e.abs() - bend), 2.0 * bend * e.signum()),
                _ => (e * e, 2.0 * e),
            };
            loss += w * l;
            d[i] += w * slope * p * (1.0 - p);
        }
    }
    let total: f64 = batch.pairs.iter().map(|p| p.weight).sum();
    for p in batch.pairs {
        let (b, w) = (p.better * heads + p.head, p.worse * heads + p.head);
        let scale = o.rank_coef * p.weight / total;
        let d_z = z[w] - z[b];
        // −log σ(z_b − z_w) = softplus(z_w − z_b), without overflow.
        loss += scale * (d_z.max(0.0) + (-d_z.abs()).exp().ln_1p());
        d[b] -= scale * sigmoid(d_z);
        d[w] += scale * sigmoid(d_z);
    }
    (loss, d)
}

/// One step. The encoder learns if its `params` are trainable. With one micro-batch a forward and a backward pass; with
/// more, a pass that finds all logits (an order may hold between rows of two of them) and a second that learns.
/// Returns the loss.
///
/// # Errors
/// [`ecr_core::Kind::Diverged`] for a non-finite loss or gradient (parameters are untouched).
pub fn critic_step(
    encoder: &mut dyn Encoder,
    params: &mut Params,
    head: &mut Params,
    batch: &Batch<'_>,
    objective: &Objective,
    adam: &AdamW,
    rates: (f64, f64),
    max_grad_norm: f64,
) -> Result<f64> {
    let (heads, width, d) = (head.tensor(1).len(), head_width(head), encoder.width());
    let train = params.trainable();
    let (mut z, mut inputs) = (Vec::new(), Vec::new());
    for b in batch.micro_batches {
        // Kept although only the last one's is used: a pass for scoring alone may round differently.
        let x = features(&encoder.forward(params, b, train)?, b, d, width);
        z.extend(logits(head, &x, width));
        inputs.push(x);
    }
    let (loss, dz) = loss(&z, heads, batch, objective);
    head.zero_grad();
    params.zero_grad();
    let (mut at, single) = (0, batch.micro_batches.len() == 1);
    for (b, x) in batch.micro_batches.iter().zip(&inputs) {
        let n = b.sequences() * heads;
        let d_features = backward(head, x, width, &dz[at..at + n]);
        at += n;
        if train {
            if !single {
                encoder.forward(params, b, true)?;
            }
            let (d_hidden, d_pooled) = states_backward(&d_features, b, d, width);
            encoder.backward(params, &d_hidden, &d_pooled)?;
        }
    }
    finish(params, head, loss, adam, rates, max_grad_norm)
}

/// Errors of predicting labels, as far as squares go.
fn mse(labels: &[f64], prediction: impl Fn(usize) -> f64) -> f64 {
    let n = labels.len().max(1) as f64;
    labels.iter().enumerate().map(|(i, y)| (prediction(i) - y).powi(2)).sum::<f64>() / n
}

/// MSE, R², Spearman, pairwise accuracy and expected calibration error (10 bins) of one head, beside the MSE of
/// predicting `train_mean`.
pub fn head_metrics(predictions: &[f64], labels: &[f64], train_mean: f64) -> Metrics {
    let mean = labels.iter().sum::<f64>() / labels.len().max(1) as f64;
    let (error, var) = (mse(labels, |i| predictions[i]), mse(labels, |_| mean));
    let mut m = Metrics::default();
    m.set("mse", error);
    m.set("mse_predict_mean", mse(labels, |_| train_mean));
    m.set("r2", if var > 0.0 { 1.0 - error / var } else { 0.0 });
    m.set("spearman", spearman(predictions, labels));
    m.set("pairwise_accuracy", pairwise_accuracy(predictions, labels));
    m.set("calibration_error", calibration_error(predictions, labels, 10));
    m
}
