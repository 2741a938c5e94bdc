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

/// One step of cross-entropy with soft `targets` `[S, C]` (a hard label is one-hot) and text `weights` `[S]`
/// (class weights go here). The encoder learns too if its `params` are trainable. Returns the weighted mean loss.
///
/// # Errors
/// [`Kind::Diverged`] for a non-finite loss or gradient (parameters are untouched).
pub fn classify_step(
    encoder: &mut dyn Encoder,
    params: &mut Params,
    head: &mut Params,
    batch: &Packed,
    targets: &[f32],
    weights: &[f64],
    adam: &AdamW,
    (lr, head_lr): (f64, f64),
    max_grad_norm: f64,
) -> Result<f64> {
    let (width, classes, train) = (encoder.width(), head.tensor(1).len(), params.trainable());
    let pooled = encoder.forward(params, batch, train)?.pooled;
    let total: f64 = weights.iter().sum();
    let (mut loss, mut d) = (0.0, Vec::with_capacity(targets.len()));
    for (s, z) in logits(head, &pooled, width).chunks(classes).enumerate() {
        let (p, t, w) = (softmax(z), &targets[s * classes..(s + 1) * classes], weights[s] / total);
        let mass: f64 = t.iter().map(|&x| f64::from(x)).sum();
        // Log-softmax directly: a probability may underflow, its logarithm does not.
        let top = z.iter().copied().fold(f64::MIN, f64::max);
        let lse = top + z.iter().map(|x| (x - top).exp()).sum::<f64>().ln();
        for c in 0..classes {
            let target = f64::from(t[c]);
            if target > 0.0 {
                loss -= w * target * (z[c] - lse);
            }
            d.push(w * (p[c] * mass - target));
        }
    }
    step(encoder, params, head, &pooled, &d, loss, adam, (lr, head_lr), max_grad_norm)
}

/// Backward pass and optimiser step shared by classifier and critic.
pub(crate) fn step(
    encoder: &mut dyn Encoder,
    params: &mut Params,
    head: &mut Params,
    pooled: &[f32],
    d: &[f64],
    loss: f64,
    adam: &AdamW,
    (lr, head_lr): (f64, f64),
    max_grad_norm: f64,
) -> Result<f64> {
    head.zero_grad();
    params.zero_grad();
    let d_pooled = backward(head, pooled, encoder.width(), d);
    if params.trainable() {
        encoder.backward(params, &[], &d_pooled)?;
    }
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
