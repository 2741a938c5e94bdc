//! Softmax and quality heads over a toy encoder (token embeddings and their mean), and macro-F1.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ecr_algos::classify::*;
use ecr_algos::critic::{self, Batch, Objective, Pair, Target, critic_step, head_metrics};
use ecr_core::optim::AdamW;
use ecr_core::seam::{Encoded, Encoder};
use ecr_core::{Layout, Packed, Params, Result, Stream};

#[derive(Default)]
struct Bag(Packed);

impl Encoder for Bag {
    fn width(&self) -> usize {
        4
    }
    fn max_len(&self) -> usize {
        99
    }
    fn forward(&mut self, p: &Params, batch: &Packed, _: bool) -> Result<Encoded> {
        self.0 = batch.clone();
        let (mut hidden, mut pooled) = (Vec::new(), vec![0.0; batch.sequences() * 4]);
        for s in 0..batch.sequences() {
            let r = batch.range(s);
            for t in r.clone() {
                let state = &p.data[batch.tokens[t] as usize * 4..][..4];
                hidden.extend_from_slice(state);
                (0..4).for_each(|j| pooled[s * 4 + j] += state[j] / r.len() as f32);
            }
        }
        Ok(Encoded { hidden, pooled })
    }
    fn backward(&mut self, p: &mut Params, d_hidden: &[f32], d: &[f32]) -> Result<()> {
        for s in 0..self.0.sequences() {
            let r = self.0.range(s);
            for t in r.clone() {
                let grad = &mut p.grad[self.0.tokens[t] as usize * 4..][..4];
                for j in 0..4 {
                    grad[j] += d.get(s * 4 + j).unwrap_or(&0.0) / r.len() as f32;
                    grad[j] += d_hidden.get(t * 4 + j).unwrap_or(&0.0);
                }
            }
        }
        Ok(())
    }
}

fn embedding() -> Params {
    let mut layout = Layout::new();
    layout.push("embedding", &[6, 4], true);
    let mut draws = Stream::new(8).rng();
    let mut p = Params::from_data(Arc::new(layout), (0..24).map(|_| draws.normal() as f32).collect());
    p.make_trainable();
    p
}

/// Rows of two tokens; the second is the reply.
fn packed(rows: &[[u32; 2]]) -> Packed {
    let mut batch = Packed::new();
    rows.iter().for_each(|r| batch.push(r, &[false, true]));
    batch
}

/// A head with drawn weights, so that gradients of the encoder are not zero.
fn drawn_head(outputs: usize, width: usize) -> Params {
    let mut head = zero_head(outputs, width);
    let mut draws = Stream::new(5).rng();
    head.data.iter_mut().for_each(|x| *x = draws.normal() as f32);
    head
}

fn close(a: &[f32], b: &[f32], tol: f32) {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().any(|x| x.abs() > 1e-3), "a gradient of zeros shows nothing");
    assert!(a.iter().zip(b).all(|(x, y)| (x - y).abs() <= tol * (1.0 + x.abs())), "{a:?}\n{b:?}");
}

fn one_hot(labels: &[usize]) -> Vec<f32> {
    labels.iter().flat_map(|&l| (0..3).map(move |c| f32::from(u8::from(c == l)))).collect()
}

#[test]
fn the_head_learns_and_a_frozen_encoder_stays() {
    for frozen in [false, true] {
        let mut p = embedding();
        if frozen {
            p = p.frozen_copy();
        }
        let before = p.data.clone();
        let labels = [0usize, 1, 2, 0];
        let batch = packed(&[[0, 3], [1, 4], [2, 5], [0, 5]]);
        let all = [Labelled { batch: batch.clone(), targets: one_hot(&labels), weights: vec![1.0; 4] }];
        let (mut bag, mut head) = (Bag::default(), zero_head(3, 4));
        let mut go = |p: &mut Params| {
            classify_step(&mut bag, p, &mut head, &all, 0.0, &AdamW::default(), (0.05, 0.05), 1.0).unwrap()
        };
        assert!((go(&mut p) - 3f64.ln()).abs() < 1e-6);
        let last = (0..200).map(|_| go(&mut p)).last().unwrap();
        assert!(last < 0.3, "{last}");
        assert_eq!(p.data == before, frozen);
        let probabilities = predict(&mut bag, &p, &head, &batch).unwrap();
        assert!(labels.iter().enumerate().all(|(s, &l)| probabilities[s * 3 + l] > 0.5));
    }
}

/// Gradients of a classifier step, by (parts of the batch, γ).
fn classify_gradients(cut: &[usize], gamma: f64) -> (f64, Vec<f32>, Vec<f32>) {
    let rows = [[0, 3], [1, 4], [2, 5], [0, 5], [1, 1]];
    let targets = [0.7f32, 0.3, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.2, 0.2, 0.6];
    let weights = [1.0, 0.5, 2.0, 1.0, 0.25];
    let (mut parts, mut from) = (Vec::new(), 0);
    for &n in cut {
        parts.push(Labelled {
            batch: packed(&rows[from..from + n]),
            targets: targets[from * 3..(from + n) * 3].to_vec(),
            weights: weights[from..from + n].to_vec(),
        });
        from += n;
    }
    let (mut p, mut head) = (embedding(), drawn_head(3, 4));
    let adam = AdamW::default();
    let loss = classify_step(&mut Bag::default(), &mut p, &mut head, &parts, gamma, &adam, (0.0, 0.0), 1e9);
    (loss.unwrap(), p.grad, head.grad)
}

#[test]
fn micro_batches_of_a_classifier_step_are_the_whole_batch() {
    for gamma in [0.0, 2.0] {
        let (loss, p, head) = classify_gradients(&[5], gamma);
        for cut in [&[2, 3][..], &[1, 1, 1, 1, 1]] {
            let (l, q, h) = classify_gradients(cut, gamma);
            assert!((l - loss).abs() < 1e-12);
            close(&p, &q, 1e-6);
            close(&head, &h, 1e-6);
        }
    }
}

#[test]
fn the_focal_gradient_is_that_of_the_focal_loss() {
    for gamma in [0.0, 0.5, 2.0] {
        let all = [Labelled {
            batch: packed(&[[0, 3], [1, 4]]),
            targets: vec![0.7, 0.3, 0.0, 0.0, 0.0, 1.0],
            weights: vec![1.0, 3.0],
        }];
        let run = |mut head: Params| {
            let mut p = embedding().frozen_copy();
            let adam = AdamW::default();
            let l =
                classify_step(&mut Bag::default(), &mut p, &mut head, &all, gamma, &adam, (0.0, 0.0), 1e9);
            (l.unwrap(), head.grad)
        };
        let (loss, grad) = run(drawn_head(3, 4));
        for (i, analytic) in grad.iter().enumerate() {
            let at = |by: f32| {
                let mut h = drawn_head(3, 4);
                h.data[i] += by;
                run(h).0
            };
            let numeric = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((numeric - f64::from(*analytic)).abs() < 2e-3, "{gamma} {i}: {numeric} {analytic}");
        }
        // A text that is already right counts less the larger γ.
        let plain = classify_gradients(&[5], 0.0).0;
        assert!(loss > 0.0 && (gamma == 0.0 || classify_gradients(&[5], gamma).0 < plain));
    }
}

#[test]
fn inverse_frequency_makes_classes_equal() {
    let targets = one_hot(&[0, 0, 0, 2]);
    let w = inverse_frequency(&targets, 3);
    assert!((w[0] - 2.0 / 3.0).abs() < 1e-12 && (w[3] - 2.0).abs() < 1e-12);
    assert!((w.iter().sum::<f64>() - 4.0).abs() < 1e-12);
    let soft = inverse_frequency(&[0.5, 0.5, 1.0, 0.0], 2);
    assert!((soft[0] - (0.5 * 2.0 / 3.0 + 0.5 * 2.0)).abs() < 1e-12);
}

#[test]
fn macro_f1_counts_labels_with_support_only() {
    let c = confusion(&[0, 0, 1, 1], &[0, 1, 1, 2], 3);
    assert!((macro_f1(&c) - 0.5 * (2.0 / 3.0 + 0.5)).abs() < 1e-12);
    assert!((majority_macro_f1(&[0, 0, 1, 1], 0, 3) - 1.0 / 3.0).abs() < 1e-12);
}

const PAIRS: [Pair; 2] =
    [Pair { better: 0, worse: 1, head: 1, weight: 1.0 }, Pair { better: 1, worse: 2, head: 1, weight: 1.0 }];

fn label(value: f64) -> Option<Target> {
    Some(Target { value, weight: 1.0 })
}

#[test]
fn the_critic_learns_labels_and_order() {
    for width in [4, 8] {
        let (mut p, mut bag, mut head) = (embedding(), Bag::default(), zero_head(2, width));
        let batch = packed(&[[0, 5], [1, 5], [2, 5], [3, 5]]);
        let targets = [label(0.1), None, label(0.9), None, label(0.4), None, label(0.6), None];
        let all = Batch { micro_batches: std::slice::from_ref(&batch), targets: &targets, pairs: &PAIRS };
        let o = Objective { rank_coef: 0.5, huber: None };
        for _ in 0..300 {
            critic_step(&mut bag, &mut p, &mut head, &all, &o, &AdamW::default(), (0.05, 0.05), 1.0).unwrap();
        }
        let out = critic::predict(&mut bag, &p, &head, &batch).unwrap();
        assert!(out[1] > out[3] && out[3] > out[5], "{out:?}");
        let m = head_metrics(&[out[0], out[2], out[4], out[6]], &[0.1, 0.9, 0.4, 0.6], 0.5);
        assert!(m.get("mse").unwrap() < 0.01 && m.get("r2").unwrap() > 0.8);
        assert!(m.get("spearman").unwrap() > 0.99 && m.get("pairwise_accuracy") == Some(1.0));
        assert!(m.get("calibration_error").unwrap() < 0.1);
    }
}

/// Loss and gradients of a critic step over the rows cut into parts.
fn critic_gradients(
    cut: &[usize],
    width: usize,
    huber: Option<f64>,
    at: (usize, f32),
) -> (f64, Vec<f32>, Vec<f32>) {
    let rows = [[0, 5], [1, 4], [2, 3], [3, 5]];
    let (mut parts, mut from) = (Vec::new(), 0);
    for &n in cut {
        parts.push(packed(&rows[from..from + n]));
        from += n;
    }
    let heavy = Some(Target { value: 0.9, weight: 7.0 });
    let targets = [label(0.1), label(0.2), heavy, None, label(0.4), None, label(0.6), None];
    let (mut p, mut head) = (embedding(), drawn_head(2, width));
    p.data[at.0] += at.1;
    let pairs =
        [Pair { weight: 3.0, ..PAIRS[0] }, PAIRS[1], Pair { better: 3, worse: 0, head: 0, weight: 0.5 }];
    let batch = Batch { micro_batches: &parts, targets: &targets, pairs: &pairs };
    let (o, adam) = (Objective { rank_coef: 0.5, huber }, AdamW::default());
    let l = critic_step(&mut Bag::default(), &mut p, &mut head, &batch, &o, &adam, (0.0, 0.0), 1e9);
    (l.unwrap(), p.grad, head.grad)
}

#[test]
fn micro_batches_of_a_critic_step_are_the_whole_batch_though_pairs_cross_them() {
    for width in [4, 8] {
        let (loss, p, head) = critic_gradients(&[4], width, Some(0.2), (0, 0.0));
        for cut in [&[2, 2][..], &[1, 1, 1, 1], &[3, 1]] {
            let (l, q, h) = critic_gradients(cut, width, Some(0.2), (0, 0.0));
            assert!((l - loss).abs() < 1e-12);
            close(&p, &q, 1e-6);
            close(&head, &h, 1e-6);
        }
    }
}

#[test]
fn the_critic_gradient_is_that_of_its_loss_with_and_without_huber() {
    for (width, huber) in [(4, None), (8, None), (8, Some(0.15))] {
        let (_, grad, _) = critic_gradients(&[4], width, huber, (0, 0.0));
        for (i, analytic) in grad.iter().enumerate() {
            let f = |by| critic_gradients(&[4], width, huber, (i, by)).0;
            let numeric = (f(1e-2) - f(-1e-2)) / 2e-2;
            assert!((numeric - f64::from(*analytic)).abs() < 4e-3, "{width} {i}: {numeric} {analytic}");
        }
    }
}
