//! The softmax head over a toy encoder (mean of token embeddings), and macro-F1.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ecr_algos::classify::*;
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
        let mut pooled = vec![0.0; batch.sequences() * 4];
        for s in 0..batch.sequences() {
            let r = batch.range(s);
            for t in r.clone() {
                (0..4).for_each(|j| {
                    pooled[s * 4 + j] += p.data[batch.tokens[t] as usize * 4 + j] / r.len() as f32
                });
            }
        }
        Ok(Encoded { hidden: Vec::new(), pooled })
    }
    fn backward(&mut self, p: &mut Params, _: &[f32], d: &[f32]) -> Result<()> {
        for s in 0..self.0.sequences() {
            let r = self.0.range(s);
            for t in r.clone() {
                (0..4)
                    .for_each(|j| p.grad[self.0.tokens[t] as usize * 4 + j] += d[s * 4 + j] / r.len() as f32);
            }
        }
        Ok(())
    }
}

#[test]
fn the_head_learns_and_a_frozen_encoder_stays() {
    for frozen in [false, true] {
        let mut layout = Layout::new();
        layout.push("embedding", &[6, 4], true);
        let mut draws = Stream::new(8).rng();
        let mut p = Params::from_data(Arc::new(layout), (0..24).map(|_| draws.normal() as f32).collect());
        if !frozen {
            p.make_trainable();
        }
        let before = p.data.clone();
        let mut batch = Packed::new();
        let labels = [0usize, 1, 2, 0];
        for text in [[0u32, 3], [1, 4], [2, 5], [0, 5]] {
            batch.push(&text, &[false; 2]);
        }
        let targets: Vec<f32> =
            labels.iter().flat_map(|&l| (0..3).map(move |c| f32::from(u8::from(c == l)))).collect();
        let (mut bag, mut head) = (Bag::default(), zero_head(3, 4));
        let mut go = |p: &mut Params| {
            classify_step(
                &mut bag,
                p,
                &mut head,
                &batch,
                &targets,
                &[1.0; 4],
                &AdamW::default(),
                (0.05, 0.05),
                1.0,
            )
            .unwrap()
        };
        assert!((go(&mut p) - 3f64.ln()).abs() < 1e-6);
        let last = (0..200).map(|_| go(&mut p)).last().unwrap();
        assert!(last < 0.3, "{last}");
        assert_eq!(p.data == before, frozen);
        let probabilities = predict(&mut bag, &p, &head, &batch).unwrap();
        assert!(labels.iter().enumerate().all(|(s, &l)| probabilities[s * 3 + l] > 0.5));
    }
}

#[test]
fn macro_f1_counts_labels_with_support_only() {
    let c = confusion(&[0, 0, 1, 1], &[0, 1, 1, 2], 3);
    assert!((macro_f1(&c) - 0.5 * (2.0 / 3.0 + 0.5)).abs() < 1e-12);
    assert!((majority_macro_f1(&[0, 0, 1, 1], 0, 3) - 1.0 / 3.0).abs() < 1e-12);
}

#[test]
fn the_critic_learns_labels_and_order() {
    use ecr_algos::critic::{Pair, critic_step, head_metrics, predict};
    let mut layout = Layout::new();
    layout.push("embedding", &[6, 4], true);
    let mut draws = Stream::new(8).rng();
    let mut p = Params::from_data(Arc::new(layout), (0..24).map(|_| draws.normal() as f32).collect());
    p.make_trainable();
    let mut batch = Packed::new();
    (0..4u32).for_each(|t| batch.push(&[t, 5], &[false; 2]));
    let targets = [Some(0.1), None, Some(0.9), None, Some(0.4), None, Some(0.6), None];
    let pairs = [Pair { better: 0, worse: 1, head: 1 }, Pair { better: 1, worse: 2, head: 1 }];
    let (mut bag, mut head) = (Bag::default(), zero_head(2, 4));
    for _ in 0..300 {
        let adam = AdamW::default();
        critic_step(&mut bag, &mut p, &mut head, &batch, &targets, &pairs, 0.5, &adam, (0.05, 0.05), 1.0)
            .unwrap();
    }
    let out = predict(&mut bag, &p, &head, &batch).unwrap();
    assert!(out[1] > out[3] && out[3] > out[5], "{out:?}");
    let m = head_metrics(&[out[0], out[2], out[4], out[6]], &[0.1, 0.9, 0.4, 0.6], 0.5);
    assert!(m.get("mse").unwrap() < 0.01 && m.get("r2").unwrap() > 0.8);
    assert!(m.get("spearman").unwrap() > 0.99 && m.get("pairwise_accuracy") == Some(1.0));
}
