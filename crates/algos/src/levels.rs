//! Several ordinal or nominal qualities at once: groups of classes, each with its own softmax, over the states of a
//! (context, reply) pair. `L = Σ w · cross-entropy / Σ w` over rows and groups. Head parameters as in
//! [`crate::classify::zero_head`], `G · C` classes; what the head reads as in [`crate::critic`].
//!
//! Legend: `S` rows, `G` groups, `C` classes of each group, `D` encoder width.

use ecr_core::optim::AdamW;
use ecr_core::seam::Encoder;
use ecr_core::{Packed, Params, Result};

use crate::classify::{backward, finish, logits};
use crate::critic::{features, head_width, states_backward};

/// Rows of a batch with their labels; several make one step.
#[derive(Debug, Clone, PartialEq)]
pub struct Graded {
    /// The pairs; scored tokens are the reply.
    pub batch: Packed,
    /// Class of each row in each group, `[S, G]`, below `C`.
    pub labels: Vec<usize>,
    /// Weight of each label, `[S, G]`, at least 0.
    pub weights: Vec<f64>,
}

fn log_softmax(z: &[f64]) -> Vec<f64> {
    let top = z.iter().copied().fold(f64::MIN, f64::max);
    let lse = top + z.iter().map(|x| (x - top).exp()).sum::<f64>().ln();
    z.iter().map(|x| x - lse).collect()
}

/// Probabilities, `[S, G, C]`.
///
/// # Errors
/// Those of the encoder.
pub fn predict(
    encoder: &mut dyn Encoder,
    params: &Params,
    head: &Params,
    batch: &Packed,
    classes: usize,
) -> Result<Vec<f64>> {
    let e = encoder.forward(params, batch, false)?;
    let width = head_width(head);
    let z = logits(head, &features(&e, batch, encoder.width(), width), width);
    Ok(z.chunks(classes).flat_map(log_softmax).map(f64::exp).collect())
}

/// Loss and gradient of logits `[S, G, C]`; `total` is the sum of all weights of the step.
fn loss(z: &[f64], classes: usize, labels: &[usize], weights: &[f64], total: f64) -> (f64, Vec<f64>) {
    let (mut loss, mut d) = (0.0, Vec::with_capacity(z.len()));
    for ((z, &label), w) in z.chunks(classes).zip(labels).zip(weights) {
        let log_p = log_softmax(z);
        loss -= w / total * log_p[label];
        d.extend(
            log_p.iter().enumerate().map(|(c, lp)| w / total * (lp.exp() - f64::from(u8::from(c == label)))),
        );
    }
    (loss, d)
}

/// One step over `micro_batches`, which together are the batch: the gradient does not depend on how it was cut. The
/// encoder learns too if its `params` are trainable. Returns the loss.
///
/// # Errors
/// [`ecr_core::Kind::Diverged`] for a non-finite loss or gradient (parameters are untouched).
pub fn levels_step(
    encoder: &mut dyn Encoder,
    params: &mut Params,
    head: &mut Params,
    micro_batches: &[Graded],
    classes: usize,
    adam: &AdamW,
    rates: (f64, f64),
    max_grad_norm: f64,
) -> Result<f64> {
    let (width, d, train) = (head_width(head), encoder.width(), params.trainable());
    let total: f64 = micro_batches.iter().flat_map(|b| &b.weights).sum();
    head.zero_grad();
    params.zero_grad();
    let mut sum = 0.0;
    for b in micro_batches {
        let x = features(&encoder.forward(params, &b.batch, train)?, &b.batch, d, width);
        let (l, dz) = loss(&logits(head, &x, width), classes, &b.labels, &b.weights, total);
        sum += l;
        let d_features = backward(head, &x, width, &dz);
        if train {
            let (d_hidden, d_pooled) = states_backward(&d_features, &b.batch, d, width);
            encoder.backward(params, &d_hidden, &d_pooled)?;
        }
    }
    finish(params, head, sum, adam, rates, max_grad_norm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_that_of_finite_differences_and_groups_are_apart() {
        let z = [0.3, -1.2, 0.7, 2.0, 0.1, -0.4, -0.9, 0.5, 0.2, 1.1, -0.3, 0.8];
        let (labels, weights) = ([2, 0, 1, 1], [1.0, 0.5, 2.0, 0.0]);
        let (_, d) = loss(&z, 3, &labels, &weights, 3.5);
        for i in 0..z.len() {
            let at = |h: f64| {
                let mut z = z;
                z[i] += h;
                loss(&z, 3, &labels, &weights, 3.5).0
            };
            let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((d[i] - numeric).abs() < 1e-8, "{i}: {} {numeric}", d[i]);
        }
        assert!(d[9..].iter().all(|x| *x == 0.0), "a label of weight 0 teaches nothing");
        for group in d.chunks(3) {
            assert!(group.iter().sum::<f64>().abs() < 1e-12, "each group's softmax sums to 1");
        }
    }
}
