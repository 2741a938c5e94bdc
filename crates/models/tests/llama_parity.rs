//! Llama against exact numbers (`fixtures/tiny-llama`): log-probs, entropies, hidden states, gradients with and
//! without a value head, AdamW steps, LoRA; bits equal for 1 and 2 threads; bf16 within its own tolerance.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;

use ecr_core::optim::{AdamW, clip_grad_norm};
use ecr_core::seam::{Encoder, Pass, Policy};
use ecr_core::{Packed, Params, io};
use ecr_kernels::{Engine, Precision, Tier};
use ecr_models::load::peft::load_adapter;
use ecr_models::load::{fill_params, load_model, safetensors};
use ecr_models::{Base, Frozen, Llama, LlamaConfig};
use serde_json::Value as Json;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-llama").join(name)
}
fn json(name: &str) -> Json {
    serde_json::from_slice(&io::read(&fixture(name)).unwrap()).unwrap()
}
fn reals(v: &Json) -> Vec<f64> {
    match v {
        Json::Array(a) => a.iter().flat_map(reals).collect(),
        _ => vec![v.as_f64().unwrap()],
    }
}
fn ids(v: &Json) -> Vec<u32> {
    reals(v).into_iter().map(|x| x as u32).collect()
}
fn close(what: &str, got: &[f32], want: &[f64], tol: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(g) - w).abs() <= tol * w.abs().max(1.0), "{what}[{i}]: {g} for {w}");
    }
}
/// ‖Δ‖ ≤ tol · max(‖g‖ of the tensor, 1e-3 · ‖g‖ of all), tensor by tensor.
fn close_gradients(params: &Params, want: &Params, tol: f64) {
    let norm = |x: &[f32]| x.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
    let all = norm(&want.data);
    for t in &params.layout.tensors {
        let (g, w) = (&params.grad[t.range()], &want.data[t.range()]);
        let d: Vec<f32> = g.iter().zip(w).map(|(a, b)| a - b).collect();
        assert!(norm(&d) <= tol * norm(w).max(1e-3 * all), "{}: {} of {}", t.name, norm(&d), norm(w));
    }
}
fn engines() -> Vec<Engine> {
    [Tier::Portable, Tier::Avx2, Tier::Avx512]
        .into_iter()
        .filter_map(|t| {
            let e = Engine::with_tier(t, Precision::F32);
            if e.is_none() {
                eprintln!("skipped: no {} on this CPU", t.name());
            }
            e
        })
        .collect()
}
fn model() -> (LlamaConfig, Params) {
    let m = load_model(&fixture("")).unwrap();
    (m.llama().unwrap().clone(), m.params)
}
/// All sequences in one packed batch, every token after the first scored, and a, b, c of each.
struct Case {
    batch: Packed,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}
fn case(expected: &Json) -> Case {
    let mut k = Case { batch: Packed::new(), a: vec![], b: vec![], c: vec![] };
    for s in expected["sequences"].as_array().unwrap() {
        let t = ids(&s["ids"]);
        k.batch.push(&t, &vec![true; t.len()]);
        for (name, out) in [("a", &mut k.a), ("b", &mut k.b), ("c", &mut k.c)] {
            out.extend(reals(&s[name]).iter().map(|&x| x as f32));
        }
    }
    k
}
fn gather(expected: &Json, key: &str) -> Vec<f64> {
    expected["sequences"].as_array().unwrap().iter().flat_map(|s| reals(&s[key])).collect()
}
fn wanted(params: &Params, file: &str) -> Params {
    fill_params(&params.layout, &mut safetensors::read(&fixture(file)).unwrap(), file).unwrap()
}

#[test]
fn forward_and_gradients_equal_the_fixtures() {
    let expected = json("expected.json");
    let k = case(&expected);
    for e in engines() {
        let (config, mut params) = model();
        params.make_trainable();
        let mut llama = Llama::full(config, e);
        let scores = Policy::forward(&mut llama, &params, &k.batch, Pass::TRAIN).unwrap();
        close("logp", &scores.logp, &gather(&expected, "logp"), 1e-4);
        close("entropy", &scores.entropy, &gather(&expected, "entropy"), 1e-4);
        Policy::backward(&mut llama, &mut params, &k.a, &k.b).unwrap();
        close_gradients(&params, &wanted(&params, "grads.safetensors"), 1e-4);

        // The same with a value head on the trunk.
        params.zero_grad();
        Policy::forward(&mut llama, &params, &k.batch, Pass::TRAIN).unwrap();
        let w: Vec<f32> = reals(&expected["value_head"]["weight"]).iter().map(|&x| x as f32).collect();
        let values: Vec<f32> = llama
            .states()
            .chunks(w.len())
            .map(|h| h.iter().zip(&w).map(|(a, b)| a * b).sum::<f32>() + 0.1)
            .collect();
        close("value", &values, &gather(&expected, "value"), 1e-4);
        let d_states: Vec<f32> = k.c.iter().flat_map(|&c| w.iter().map(move |&w| c * w)).collect();
        llama.backward_with_states(&mut params, &k.a, &k.b, &d_states).unwrap();
        close_gradients(&params, &wanted(&params, "grads_with_value.safetensors"), 1e-4);

        let hidden = Encoder::forward(&mut llama, &params, &k.batch, false).unwrap().hidden;
        close("hidden", &hidden, &gather(&expected, "hidden"), 1e-4);
    }
}

#[test]
fn lora_equals_the_fixtures_and_zero_b_is_the_base() {
    let expected = json("lora/expected.json");
    let k = case(&json("expected.json"));
    let (config, base) = model();
    let (lora, mut adapter) = load_adapter(&fixture("lora"), &config).unwrap();
    adapter.make_trainable();
    for e in engines() {
        let frozen = Arc::new(Frozen::new(config.clone(), e, &base));
        let mut llama = Llama::adapted(Base::new(frozen, lora.clone()), e);
        let scores = Policy::forward(&mut llama, &adapter, &k.batch, Pass::TRAIN).unwrap();
        close("logp", &scores.logp, &gather(&expected, "logp"), 1e-4);
        close("entropy", &scores.entropy, &gather(&expected, "entropy"), 1e-4);
        adapter.zero_grad();
        Policy::backward(&mut llama, &mut adapter, &k.a, &k.b).unwrap();
        close_gradients(&adapter, &wanted(&adapter, "lora/grads.safetensors"), 1e-4);
        let zero = Params::zeros(adapter.layout.clone());
        let alone =
            Policy::forward(&mut llama, &ecr_models::llama::no_adapter(), &k.batch, Pass::SCORE).unwrap();
        let adapted = Policy::forward(&mut llama, &zero, &k.batch, Pass::SCORE).unwrap();
        assert_eq!(alone.logp, adapted.logp);
    }
}

#[test]
fn adamw_steps_equal_the_fixtures() {
    for name in ["adamw.json", "adamw_clip.json"] {
        let want = json(name);
        let (config, mut params) = model();
        // The fixture decays every tensor.
        let mut layout = (*params.layout).clone();
        layout.tensors.iter_mut().for_each(|t| t.decay = true);
        params.layout = Arc::new(layout);
        params.make_trainable();
        let mut llama = Llama::full(config, Engine::detect(Precision::F32));
        let mut batch = Packed::new();
        for s in want["sequences"].as_array().unwrap() {
            let t = ids(s);
            batch.push(&t, &vec![true; t.len()]);
        }
        let n = batch.n_scored();
        let opt = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
        for step in 0..5 {
            let scores = Policy::forward(&mut llama, &params, &batch, Pass::TRAIN).unwrap();
            let loss = -scores.logp.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
            let expect = want["loss_before_each_step"][step].as_f64().unwrap();
            assert!(
                (loss - expect).abs() < 1e-4 * expect.max(1.0),
                "{name} step {step}: {loss} for {expect}"
            );
            params.zero_grad();
            Policy::backward(&mut llama, &mut params, &vec![-1.0 / n as f32; n], &vec![0.0; n]).unwrap();
            let norm = clip_grad_norm(&mut params, want["clip_grad_norm"].as_f64().unwrap_or(f64::INFINITY));
            let expect = want["grad_norm_before_clip"][step].as_f64().unwrap();
            assert!(
                (norm - expect).abs() < 1e-4 * expect.max(1.0),
                "{name} step {step}: norm {norm} for {expect}"
            );
            opt.step(&mut params, 0.01);
        }
        for t in &params.layout.tensors {
            let got: f64 = params.data[t.range()].iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let expect = want["final_weights"][&t.name]["sum_sq"].as_f64().unwrap();
            assert!((got - expect).abs() < 1e-4 * expect.max(1.0), "{name} {}: {got} for {expect}", t.name);
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    let k = case(&json("expected.json"));
    let run = |threads: usize| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
            let (config, mut params) = model();
            params.make_trainable();
            let mut llama = Llama::full(config, Engine::detect(Precision::Bf16));
            let s = Policy::forward(&mut llama, &params, &k.batch, Pass::TRAIN).unwrap();
            Policy::backward(&mut llama, &mut params, &k.a, &k.b).unwrap();
            (s.logp, s.entropy, params.grad)
        })
    };
    assert!(run(1) == run(2));
}

#[test]
fn a_sequence_alone_and_packed_have_the_same_scores() {
    let expected = json("expected.json");
    let k = case(&expected);
    let (config, params) = model();
    let mut llama = Llama::full(config, Engine::detect(Precision::F32));
    let together = Policy::forward(&mut llama, &params, &k.batch, Pass::SCORE).unwrap();
    let mut alone = Vec::new();
    for s in 0..k.batch.sequences() {
        let mut b = Packed::new();
        let t = &k.batch.tokens[k.batch.range(s)];
        b.push(t, &vec![true; t.len()]);
        alone.extend(Policy::forward(&mut llama, &params, &b, Pass::SCORE).unwrap().logp);
    }
    assert_eq!(together.logp, alone);
}

#[test]
fn temperature_gradients_agree_with_differences() {
    let k = case(&json("expected.json"));
    let (config, mut params) = model();
    params.make_trainable();
    let mut llama = Llama::full(config, Engine::detect(Precision::F32));
    let pass = Pass { temperature: 0.7, mask: None, keep: true };
    let total = |llama: &mut Llama, p: &Params| {
        let s = Policy::forward(llama, p, &k.batch, pass).unwrap();
        let a: f64 = s.logp.iter().zip(&k.a).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
        let b: f64 = s.entropy.iter().zip(&k.b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
        a + b
    };
    total(&mut llama, &params);
    Policy::backward(&mut llama, &mut params, &k.a, &k.b).unwrap();
    for t in params.layout.clone().tensors.iter() {
        let i = t.offset + t.len() / 2;
        let (x, h) = (params.data[i], 2e-3f32);
        params.data[i] = x + h;
        let up = total(&mut llama, &params);
        params.data[i] = x - h;
        let down = total(&mut llama, &params);
        params.data[i] = x;
        let want = (up - down) / f64::from(2.0 * h);
        assert!(
            (f64::from(params.grad[i]) - want).abs() < 2e-2 * want.abs().max(1.0),
            "{}: {} for {want}",
            t.name,
            params.grad[i]
        );
    }
}
