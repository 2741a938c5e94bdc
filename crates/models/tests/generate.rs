//! Decoding: log-probs equal the training forward's, rows do not depend on their batch, waiting prompts move up.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;

use ecr_core::seam::{Decoding, Generator, Pass, Policy};
use ecr_core::{Packed, Params, Stream};
use ecr_kernels::{Engine, Precision};
use ecr_models::generate::LlamaGenerator;
use ecr_models::load::{load_model, peft::load_adapter};
use ecr_models::{Base, Frozen, Llama};

fn dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-llama")
}
fn prompts() -> Vec<Vec<u32>> {
    (0..19u32).map(|i| (0..1 + i % 7).map(|j| (i * 13 + j * 5) % 97).collect()).collect()
}
fn streams() -> Vec<Stream> {
    (0..19).map(|i| Stream::new(4).child("sample").at(i)).collect()
}
fn check_logp(policy: &mut dyn Policy, params: &Params, out: &[ecr_core::seam::Completion], tol: f32) {
    let mut b = Packed::new();
    for (p, c) in prompts().iter().zip(out) {
        b.push_response(p, &c.tokens);
    }
    let scores = policy.forward(params, &b, Pass { temperature: 0.8, ..Pass::SCORE }).unwrap();
    let sampled: Vec<f32> = out.iter().flat_map(|c| c.logp.clone()).collect();
    assert_eq!(sampled.len(), scores.logp.len());
    for (a, b) in sampled.iter().zip(&scores.logp) {
        assert!((a - b).abs() <= tol, "{a} for {b}");
    }
}

#[test]
fn rows_alone_and_in_batches_are_equal_and_scores_match_training() {
    let m = load_model(&dir()).unwrap();
    let config = m.llama().unwrap().clone();
    let d = Decoding { temperature: 0.8, ..Decoding::plain(12) };
    for precision in [Precision::F32, Precision::Bf16] {
        let e = Engine::detect(precision);
        let tol = if precision == Precision::F32 { 1e-3 } else { 0.1 };
        let whole = LlamaGenerator::full(config.clone(), e, vec![1], 8)
            .generate(&m.params, &prompts(), d, &streams())
            .unwrap();
        let mut one = LlamaGenerator::full(config.clone(), e, vec![1], 1);
        assert_eq!(whole, one.generate(&m.params, &prompts(), d, &streams()).unwrap());
        let alone = one.generate(&m.params, &prompts()[7..8], d, &streams()[7..8]).unwrap();
        assert_eq!(whole[7], alone[0]);
        assert!(whole.iter().any(|c| c.finished) || whole.iter().all(|c| c.tokens.len() == 12));
        check_logp(&mut Llama::full(config.clone(), e), &m.params, &whole, tol);

        let (lora, adapter) = load_adapter(&dir().join("lora"), &config).unwrap();
        let base = Base::new(Arc::new(Frozen::new(config.clone(), e, &m.params)), lora);
        let adapted = LlamaGenerator::adapted(base.clone(), e, vec![1], 8)
            .generate(&adapter, &prompts(), d, &streams())
            .unwrap();
        assert_ne!(adapted, whole);
        check_logp(&mut Llama::adapted(base, e), &adapter, &adapted, tol);
    }
    let stored = LlamaGenerator::full(config, Engine::detect(Precision::F32), vec![1], 8)
        .store_bf16(true)
        .generate(&m.params, &prompts(), d, &streams())
        .unwrap();
    assert_eq!(stored.len(), 19);
}

#[test]
fn prompts_read_in_together_are_as_those_read_in_alone() {
    // 17 prompts of 40 tokens: more than one pass takes, and one prompt lies across the cut.
    let m = load_model(&dir()).unwrap();
    let config = m.llama().unwrap().clone();
    let prompts: Vec<Vec<u32>> =
        (0..17u32).map(|i| (0..40).map(|j| (i * 29 + j * j * 3 + 1) % 97).collect()).collect();
    let d = Decoding { temperature: 0.9, ..Decoding::plain(6) };
    let run = |batch: usize| {
        LlamaGenerator::full(config.clone(), Engine::detect(Precision::F32), vec![1], batch)
            .generate(&m.params, &prompts, d, &streams()[..17])
            .unwrap()
    };
    assert_eq!(run(17), run(1));
}

#[test]
fn impossible_requests_are_refused() {
    let m = load_model(&dir()).unwrap();
    let mut g = LlamaGenerator::full(m.llama().unwrap().clone(), Engine::detect(Precision::F32), vec![1], 8);
    let s = [Stream::new(1)];
    for (prompt, new) in [(vec![], 4), (vec![1; 60], 10), (vec![500], 4), (vec![1], 0)] {
        assert!(g.generate(&m.params, &[prompt], Decoding::plain(new), &s).is_err());
    }
}
