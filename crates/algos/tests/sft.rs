//! Fine-tuning: accumulation equals the large batch, order is seeded, loss falls, stopping resumes.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code)]

mod mlp;

use ecr_algos::sft::*;
use ecr_core::optim::AdamW;
use ecr_core::{Packed, Params, Stream};
use mlp::{Mlp, V};

fn examples() -> Vec<Example> {
    let one = |c: u32, n: usize| Example {
        tokens: std::iter::once(c).chain((0..n as u32).map(|t| (c + t) % 8)).collect(),
        scored: (0..=n).map(|i| i > 0).collect(),
    };
    vec![one(0, 4), one(3, 1), one(5, 2), one(7, 3)]
}

fn run(batches: &[Packed], steps: usize) -> (Params, f64) {
    let mut policy = Mlp::new(V);
    let mut params = policy.init(Stream::new(3));
    let mut last = 0.0;
    for _ in 0..steps {
        last = sft_step(&mut policy, &mut params, batches, &AdamW::default(), 1e-2, 1.0).unwrap().loss;
    }
    (params, last)
}

#[test]
fn accumulation_equals_the_large_batch() {
    let e = examples();
    let parts: Vec<Packed> = (0..4).map(|i| pack(&e, &[i])).collect();
    let ((a, la), (b, lb)) = (run(&parts, 1), run(&[pack(&e, &[0, 1, 2, 3])], 1));
    assert!((la - lb).abs() < 1e-6);
    let norm = |x: &[f32]| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let off: Vec<f32> = a.grad.iter().zip(&b.grad).map(|(x, y)| x - y).collect();
    assert!(norm(&off) <= 1e-6 * norm(&b.grad) && norm(&b.grad) > 0.0);
}

#[test]
fn the_loss_falls() {
    let batch = pack(&examples(), &[0, 1, 2, 3]);
    let (params, last) = run(std::slice::from_ref(&batch), 100);
    assert!(last < 0.2, "{last}");
    let (sum, n) = evaluate(&mut Mlp::new(V), &params, &batch).unwrap();
    assert!(n == 10 && sum / 10.0 < 0.2);
}

#[test]
fn an_epoch_holds_everything_once_within_budget() {
    let lengths = [5, 9, 3, 3, 20, 1];
    let batches = epoch_batches(&lengths, 10, Stream::new(1), 0);
    let mut all: Vec<usize> = batches.concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4, 5]);
    assert!(batches.iter().all(|b| b.len() == 1 || b.iter().map(|&i| lengths[i]).sum::<usize>() <= 10));
    assert_eq!(batches, epoch_batches(&lengths, 10, Stream::new(1), 0));
    assert!((1..5).any(|e| epoch_batches(&lengths, 10, Stream::new(1), e) != batches));
}

#[test]
fn early_stopping_survives_serialisation() {
    let mut s = EarlyStopping::new(2);
    for (step, (loss, best, stop)) in
        [(3.0, true, false), (2.0, true, false), (2.5, false, false), (f64::NAN, false, true)]
            .into_iter()
            .enumerate()
    {
        s = serde_json::from_str(&serde_json::to_string(&s).unwrap()).unwrap();
        assert_eq!((s.observe(loss, step as u64), s.stop()), (best, stop));
    }
    assert_eq!((s.best, s.best_step), (Some(2.0), 1));
}
