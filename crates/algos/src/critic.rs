//! Quality critic: sigmoid heads over the pooled state of a (context, reply) pair. `L = MSE over the labels
//! that exist + rank_coef · mean −log σ(z_better − z_worse)` over pairs of known order. Head parameters as in
//! [`crate::classify::zero_head`], one class a quality: a quality without a label source gets no row.

use ecr_core::optim::AdamW;
use ecr_core::seam::Encoder;
use ecr_core::{Packed, Params, Result};

use crate::Metrics;
use crate::classify::{logits, step};

/// Two replies of the batch of which one is better in one quality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Sequence of the better reply.
    pub better: usize,
    /// Sequence of the worse reply.
    pub worse: usize,
    /// Which quality.
    pub head: usize,
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// Scores in (0, 1), `[S, heads]`.
pub fn predict(
    encoder: &mut dyn Encoder,
    params: &Params,
    head: &Params,
    batch: &Packed,
) -> Result<Vec<f64>> {
    let pooled = encoder.forward(params, batch, false)?.pooled;
    Ok(logits(head, &pooled, encoder.width()).into_iter().map(sigmoid).collect())
}

/// One step; `targets` `[S, heads]` in [0, 1], `None` = no label. The encoder learns if its `params` are
/// trainable. Returns the loss.
///
/// # Errors
/// [`ecr_core::Kind::Diverged`] for a non-finite loss or gradient (parameters are untouched).
pub fn critic_step(
    encoder: &mut dyn Encoder,
    params: &mut Params,
    head: &mut Params,
    batch: &Packed,
    targets: &[Option<f64>],
    pairs: &[Pair],
    rank_coef: f64,
    adam: &AdamW,
    rates: (f64, f64),
    max_grad_norm: f64,
) -> Result<f64> {
    let heads = head.tensor(1).len();
    let train = params.trainable();
    let pooled = encoder.forward(params, batch, train)?.pooled;
    let z = logits(head, &pooled, encoder.width());
    let labelled = targets.iter().flatten().count().max(1) as f64;
    let (mut loss, mut d) = (0.0, vec![0.0; z.len()]);
    for (i, target) in targets.iter().enumerate() {
        if let Some(t) = target {
            let p = sigmoid(z[i]);
            loss += (p - t).powi(2) / labelled;
            d[i] += 2.0 * (p - t) * p * (1.0 - p) / labelled;
        }
    }
    for p in pairs {
        let (b, w) = (p.better * heads + p.head, p.worse * heads + p.head);
        let scale = rank_coef / pairs.len() as f64;
        let wrong = sigmoid(z[w] - z[b]);
        // −log σ(z_b − z_w) = softplus(z_w − z_b), without overflow.
        let d_z = z[w] - z[b];
        loss += scale * (d_z.max(0.0) + (-d_z.abs()).exp().ln_1p());
        d[b] -= scale * wrong;
        d[w] += scale * wrong;
    }
    step(encoder, params, head, &pooled, &d, loss, adam, rates, max_grad_norm)
}

/// MSE, R², Spearman and pairwise accuracy of one head, beside the MSE of predicting `train_mean`.
pub fn head_metrics(predictions: &[f64], labels: &[f64], train_mean: f64) -> Metrics {
    let n = labels.len().max(1) as f64;
    let mean = labels.iter().sum::<f64>() / n;
    let squares =
        |f: &dyn Fn(usize) -> f64| (0..labels.len()).map(|i| (f(i) - labels[i]).powi(2)).sum::<f64>() / n;
    let (mse, var) = (squares(&|i| predictions[i]), squares(&|_| mean));
    let (mut right, mut ordered) = (0.0, 0.0);
    for i in 0..labels.len() {
        for j in (0..labels.len()).filter(|&j| labels[i] > labels[j]) {
            ordered += 1.0;
            let gap = predictions[i] - predictions[j];
            right += if gap > 0.0 {
                1.0
            } else if gap == 0.0 {
                0.5
            } else {
                0.0
            };
        }
    }
    let mut m = Metrics::default();
    m.set("mse", mse);
    m.set("mse_predict_mean", squares(&|_| train_mean));
    m.set("r2", if var > 0.0 { 1.0 - mse / var } else { 0.0 });
    m.set("spearman", correlation(&ranks(predictions), &ranks(labels)));
    m.set("pairwise_accuracy", if ordered > 0.0 { right / ordered } else { 0.5 });
    m
}

/// Ranks, ties sharing their mean rank.
fn ranks(x: &[f64]) -> Vec<f64> {
    let rank = |v: &f64| {
        x.iter()
            .map(|o| {
                if o < v {
                    1.0
                } else if o == v {
                    0.5
                } else {
                    0.0
                }
            })
            .sum()
    };
    x.iter().map(rank).collect()
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let n = a.len().max(1) as f64;
    let (ma, mb) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
    let cov: f64 = a.iter().zip(b).map(|(x, y)| (x - ma) * (y - mb)).sum();
    let spread = |v: &[f64], m: f64| v.iter().map(|x| (x - m).powi(2)).sum::<f64>().sqrt();
    let scale = spread(a, ma) * spread(b, mb);
    if scale > 0.0 { cov / scale } else { 0.0 }
}
