//! Token masks: scores under a mask are the softmax over the allowed tokens, and a masked response holds none other.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use ecr_core::seam::{Decoding, Generator, Pass, Policy, TokenMask};
use ecr_core::{Packed, Params, Stream};
use ecr_kernels::{Engine, Precision};
use ecr_models::generate::LlamaGenerator;
use ecr_models::load::load_model;
use ecr_models::{Llama, LlamaConfig};

fn model() -> (LlamaConfig, Params) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-llama");
    let m = load_model(&dir).unwrap();
    (m.llama().unwrap().clone(), m.params)
}

/// After a token only those of another remainder by three; which, depends on the last token and the length.
struct Thirds;
impl Thirds {
    fn allows(response: &[u32], v: u32) -> bool {
        let last = response.last().map_or(0, |t| t % 3);
        (v + response.len() as u32) % 3 != last
    }
}
impl TokenMask for Thirds {
    fn restrict(&self, response: &[u32], allowed: &mut [bool]) {
        allowed.iter_mut().enumerate().for_each(|(v, a)| *a = Self::allows(response, v as u32));
    }
}

/// A response that the mask allows, by the first allowed token from `seed` on.
fn response(n: usize, seed: u32, vocab: u32) -> Vec<u32> {
    let mut r = Vec::new();
    for i in 0..n as u32 {
        let from = (seed + 17 * i) % vocab;
        r.push((from..vocab).chain(0..from).find(|&v| Thirds::allows(&r, v)).unwrap());
    }
    r
}

#[test]
fn masked_scores_are_the_softmax_over_allowed_tokens() {
    let (config, params) = model();
    let v = config.vocab_size as u32;
    let mut llama = Llama::full(config, Engine::detect(Precision::F32));
    let prompt = [3, 1, 4];
    let (mut batch, mut all) = (Packed::new(), Vec::new());
    for (seed, n) in [(5, 6), (40, 9)] {
        all.push(response(n, seed, v));
        batch.push_response(&prompt, all.last().unwrap());
    }
    let temperature = 0.8;
    let masked =
        Policy::forward(&mut llama, &params, &batch, Pass { temperature, mask: Some(&Thirds), keep: false })
            .unwrap();
    let mut i = 0;
    for r in &all {
        for t in 0..r.len() {
            // Plain log-probabilities of every possible token here, one batch of single replies.
            let mut each = Packed::new();
            for token in 0..v {
                let mut context = prompt.to_vec();
                context.extend(&r[..t]);
                each.push_response(&context, &[token]);
            }
            let plain = Policy::forward(&mut llama, &params, &each, Pass { temperature, ..Pass::SCORE })
                .unwrap()
                .logp;
            let p: Vec<f64> = (0..v)
                .map(|u| if Thirds::allows(&r[..t], u) { f64::from(plain[u as usize]).exp() } else { 0.0 })
                .collect();
            let sum: f64 = p.iter().sum();
            assert!(sum < 0.999, "the mask takes something away");
            let want = (p[r[t] as usize] / sum).ln();
            let entropy: f64 = p.iter().filter(|&&p| p > 0.0).map(|p| -(p / sum) * (p / sum).ln()).sum();
            assert!((f64::from(masked.logp[i]) - want).abs() < 1e-4, "{} for {want}", masked.logp[i]);
            assert!(
                (f64::from(masked.entropy[i]) - entropy).abs() < 1e-4,
                "{} for {entropy}",
                masked.entropy[i]
            );
            i += 1;
        }
    }
    assert_eq!(i, masked.logp.len());
}

#[test]
fn masked_generation_keeps_to_the_mask_and_reports_masked_log_probs() {
    let (config, params) = model();
    let e = Engine::detect(Precision::F32);
    let prompts: Vec<Vec<u32>> = (0..5).map(|i| vec![2 + i, 7, 11 + 3 * i]).collect();
    let streams: Vec<Stream> = (0..5).map(|i| Stream::new(8).at(i)).collect();
    let d = Decoding { temperature: 0.8, mask: Some(&Thirds), ..Decoding::plain(10) };
    let out =
        LlamaGenerator::full(config.clone(), e, vec![], 3).generate(&params, &prompts, d, &streams).unwrap();
    let mut batch = Packed::new();
    for (p, c) in prompts.iter().zip(&out) {
        assert_eq!(c.tokens.len(), 10);
        for t in 0..c.tokens.len() {
            assert!(Thirds::allows(&c.tokens[..t], c.tokens[t]), "a token that the mask forbids");
        }
        batch.push_response(p, &c.tokens);
    }
    let pass = Pass { temperature: 0.8, mask: Some(&Thirds), keep: false };
    let scores = Policy::forward(&mut Llama::full(config, e), &params, &batch, pass).unwrap();
    for (a, b) in out.iter().flat_map(|c| &c.logp).zip(&scores.logp) {
        assert!((a - b).abs() < 1e-3, "{a} for {b}");
    }
}
