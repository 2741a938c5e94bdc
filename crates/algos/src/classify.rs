//! A softmax head over the pooled state of an [`Encoder`], and its training, one step at a time.
//! Head parameters are a [`Params`] value: `classifier.weight` `[C, D]`, `classifier.bias` `[C]`.
//!
//! Legend: `S` texts, `C` classes, `D` encoder width.

use std::sync::Arc;

use ecr_core::optim::{AdamW, clip_grad_norm, grad_norm};
use ecr_core::seam::Encoder;
use ecr_core::{Error, Kind, Layout, Packed, Params, Result};

/// A head of zeros (uniform predictions), trainable.
pub fn zero_head(classes: usize, width: usize) -> Params {
    let mut layout = Layout::new();
    layout.push("classifier.weight", &[classes, width], true);
    layout.push("classifier.bias", &[classes], false);
    let data = vec![0.0; layout.len];
    let mut p = Params::from_data(Arc::new(layout), data);
    p.make_trainable();
    p
}

/// Logits of pooled states `[S, D]`: `[S, C]`.
pub(crate) fn logits(head: &Params, pooled: &[f32], width: usize) -> Vec<f64> {
    let (w, b) = (head.tensor(0), head.tensor(1));
    let dot =
        |x: &[f32], row: &[f32]| x.iter().zip(row).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    pooled
        .chunks(width)
        .flat_map(|x| w.chunks(width).zip(b).map(|(row, &b)| dot(x, row) + f64::from(b)).collect::<Vec<_>>())
        .collect()
}

/// Takes back `∂L/∂logits` `[S, C]`: adds to the head's gradient, returns `∂L/∂pooled` `[S, D]`.
pub(crate) fn backward(head: &mut Params, pooled: &[f32], width: usize, d: &[f64]) -> Vec<f32> {
    let classes = head.tensor(1).len();
    let mut d_pooled = vec![0.0f32; pooled.len()];
    for (s, row) in d.chunks(classes).enumerate() {
        for (c, &g) in row.iter().enumerate() {
            let g = g as f32;
            for j in 0..width {
                d_pooled[s * width + j] += g * head.data[c * width + j];
                head.grad[c * width + j] += g * pooled[s * width + j];
            }
            head.grad[classes * width + c] += g;
        }
    }
    d_pooled
}

/// Class probabilities, `[S, C]`.
pub fn predict(
    encoder: &mut dyn Encoder,
    params: &Params,
    head: &Params,
    batch: &Packed,
) -> Result<Vec<f64>> {
    let pooled = encoder.forward(params, batch, false)?.pooled;
    Ok(logits(head, &pooled, encoder.width()).chunks(head.tensor(1).len()).flat_map(softmax).collect())
}

fn softmax(z: &[f64]) -> Vec<f64> {
    let top = z.iter().copied().fold(f64::MIN, f64::max);
    let e: Vec<f64> = z.iter().map(|x| (x - top).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|x| x / sum).collect()
}

/// Texts of a batch with their labels; several make one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    /// The texts.
    pub batch: Packed,
    /// Soft labels `[S, C]`; a hard label is one-hot.
    pub targets: Vec<f32>,
    /// Weight of each text `[S]`; class weights go here.
    pub weights: Vec<f64>,
}

/// Cross-entropy of one text and its gradient, by focusing parameter `gamma`: `−Σ t_c (1 − p_c)^γ log p_c` (Lin et al.
/// 2017, eq. 4); 0 is plain cross-entropy.
fn focal(z: &[f64], t: &[f32], gamma: f64) -> (f64, Vec<f64>) {
    let p = softmax(z);
    // Log-softmax directly: a probability may underflow, its logarithm does not.
    let top = z.iter().copied().fold(f64::MIN, f64::max);
    let lse = top + z.iter().map(|x| (x - top).exp()).sum::<f64>().ln();
    let (mut loss, mut slopes) = (0.0, vec![0.0; z.len()]);
    for c in (0..z.len()).filter(|&c| t[c] > 0.0) {
        let (t, log_p, miss) = (f64::from(t[c]), z[c] - lse, (1.0 - p[c]).max(1e-12));
        let focus = miss.powf(gamma);
        loss -= t * focus * log_p;
        // p · d/dp of −(1 − p)^γ log p.
        slopes[c] = t * (gamma * p[c] * focus / miss * log_p - focus);
    }
    let sum: f64 = slopes.iter().sum();
    (loss, slopes.iter().zip(&p).map(|(s, p)| s - p * sum).collect())
}

/// One step over `micro_batches`, which together are the batch: weights are normalised over all of them, so the
/// gradient does not depend on how the batch was cut. Cross-entropy, or focal loss where `gamma` > 0. The
/// encoder learns too if its `params` are trainable. Returns the weighted mean loss.
///
/// # Errors
/// [`Kind::Diverged`] for a non-finite loss or gradient (parameters are untouched).
pub fn classify_step(
    encoder: &mut dyn Encoder,
    params: &mut Params,
    head: &mut Params,
    micro_batches: &[Labelled],
    gamma: f64,
    adam: &AdamW,
    rates: (f64, f64),
    max_grad_norm: f64,
) -> Result<f64> {
    let (width, classes, train) = (encoder.width(), head.tensor(1).len(), params.trainable());
    let total: f64 = micro_batches.iter().flat_map(|b| &b.weights).sum();
    head.zero_grad();
    params.zero_grad();
    let mut loss = 0.0;
    for b in micro_batches {
        let pooled = encoder.forward(params, &b.batch, train)?.pooled;
        let mut d = Vec::with_capacity(b.targets.len());
        for (s, z) in logits(head, &pooled, width).chunks(classes).enumerate() {
            let (l, dz) = focal(z, &b.targets[s * classes..(s + 1) * classes], gamma);
            let w = b.weights[s] / total;
            loss += w * l;
            d.extend(dz.into_iter().map(|x| w * x));
        }
        let d_pooled = backward(head, &pooled, width, &d);
        if train {
            encoder.backward(params, &[], &d_pooled)?;
        }
    }
    finish(params, head, loss, adam, rates, max_grad_norm)
}

/// Optimiser step on gradients that are there, shared by classifier and critic.
pub(crate) fn finish(
    params: &mut Params,
    head: &mut Params,
    loss: f64,
    adam: &AdamW,
    (lr, head_lr): (f64, f64),
    max_grad_norm: f64,
) -> Result<f64> {
    if !(loss + grad_norm(head) + grad_norm(params)).is_finite() {
        return Err(Error::new(Kind::Diverged, "train a head on the encoder")
            .expected("finite loss and gradient")
            .got(format!("loss {loss}"))
            .hint("lower the learning rate"));
    }
    clip_grad_norm(head, max_grad_norm);
    adam.step(head, head_lr);
    if params.trainable() {
        clip_grad_norm(params, max_grad_norm);
        adam.step(params, lr);
    }
    Ok(loss)
}

/// Weight of each text `[S]` that makes every class that occurs count alike in sum (inverse frequency, mean 1 over the
/// texts); `targets` is `[S, C]`.
pub fn inverse_frequency(targets: &[f32], classes: usize) -> Vec<f64> {
    let mut mass = vec![0.0; classes];
    for t in targets.chunks(classes) {
        (0..classes).for_each(|c| mass[c] += f64::from(t[c]));
    }
    let (total, present) = (mass.iter().sum::<f64>(), mass.iter().filter(|&&m| m > 0.0).count());
    let weight = |c: usize| total / (present as f64 * mass[c]);
    let text = |t: &[f32]| (0..classes).filter(|&c| t[c] > 0.0).map(|c| f64::from(t[c]) * weight(c)).sum();
    targets.chunks(classes).map(text).collect()
}

/// Counts `[label][prediction]` of hard labels.
pub fn confusion(labels: &[usize], predictions: &[usize], classes: usize) -> Vec<Vec<usize>> {
    let mut counts = vec![vec![0; classes]; classes];
    labels.iter().zip(predictions).for_each(|(&l, &p)| counts[l][p] += 1);
    counts
}

/// Macro-F1 over the labels that occur.
pub fn macro_f1(confusion: &[Vec<usize>]) -> f64 {
    let support: Vec<usize> = confusion.iter().map(|row| row.iter().sum()).collect();
    let f1 = |c: usize| {
        let predicted: usize = confusion.iter().map(|row| row[c]).sum();
        2.0 * confusion[c][c] as f64 / (support[c] + predicted) as f64
    };
    let present: Vec<usize> = (0..confusion.len()).filter(|&c| support[c] > 0).collect();
    present.iter().map(|&c| f1(c)).sum::<f64>() / present.len().max(1) as f64
}

/// Macro-F1 of always predicting the class `majority` (the training set's most frequent).
pub fn majority_macro_f1(labels: &[usize], majority: usize, classes: usize) -> f64 {
    macro_f1(&confusion(labels, &vec![majority; labels.len()], classes))
}
