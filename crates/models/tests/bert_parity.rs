//! BERT and RoBERTa against exact numbers (`fixtures/tiny-bert`, `fixtures/tiny-roberta`): hidden and pooled
//! states, gradients, bits for 1 and 2 threads.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use ecr_core::seam::Encoder;
use ecr_core::{Packed, io};
use ecr_kernels::{Engine, Precision, Tier};
use ecr_models::Bert;
use ecr_models::load::{fill_params, load_model, safetensors};
use serde_json::Value as Json;

fn reals(v: &Json) -> Vec<f64> {
    match v {
        Json::Array(a) => a.iter().flat_map(reals).collect(),
        _ => vec![v.as_f64().unwrap()],
    }
}

#[test]
fn states_and_gradients_equal_the_fixtures() {
    for name in ["tiny-bert", "tiny-roberta"] {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
        let expected: Json = serde_json::from_slice(&io::read(&dir.join("expected.json")).unwrap()).unwrap();
        let model = load_model(&dir).unwrap();
        let config = model.bert().unwrap().clone();
        let mut params = model.params;
        params.make_trainable();
        let d = 32;
        let (mut batch, mut hidden, mut pooled) = (Packed::new(), vec![], vec![]);
        let (mut d_hidden, mut d_pooled) = (vec![], vec![]);
        for s in expected["sequences"].as_array().unwrap() {
            let ids: Vec<u32> = reals(&s["ids"]).iter().map(|&x| x as u32).collect();
            batch.push(&ids, &vec![false; ids.len()]);
            hidden.extend(reals(&s["hidden"]));
            pooled.extend(reals(&s["mean_pooled"]));
            d_pooled.extend(reals(&s["c_mean"]).iter().map(|&x| x as f32));
            d_hidden.extend(reals(&s["c_first"]).iter().map(|&x| x as f32));
            d_hidden.extend(vec![0.0; (ids.len() - 1) * d]);
        }
        let tensors = safetensors::read(&dir.join("grads.safetensors")).unwrap();
        let prefix = if name == "tiny-roberta" { "roberta." } else { "" };
        let mut tensors =
            tensors.into_iter().map(|(k, v)| (k.trim_start_matches(prefix).to_string(), v)).collect();
        let want = fill_params(&params.layout, &mut tensors, "grads").unwrap();
        let norm = |x: &[f32]| x.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
        let mut seen = Vec::new();
        for tier in [Tier::Portable, Tier::Avx2, Tier::Avx512] {
            let Some(e) = Engine::with_tier(tier, Precision::F32) else {
                eprintln!("skipped: no {} on this CPU", tier.name());
                continue;
            };
            for threads in [1, 2] {
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                    let mut bert = Bert::new(config.clone(), e);
                    let scored = bert.forward(&params, &batch, false).unwrap();
                    let out = bert.forward(&params, &batch, true).unwrap();
                    assert_eq!(scored.hidden, out.hidden);
                    for (what, got, want) in
                        [("hidden", &out.hidden, &hidden), ("pooled", &out.pooled, &pooled)]
                    {
                        for (g, w) in got.iter().zip(want) {
                            assert!(
                                (f64::from(*g) - w).abs() <= 1e-4 * w.abs().max(1.0),
                                "{name} {what}: {g} for {w}"
                            );
                        }
                    }
                    params.zero_grad();
                    bert.backward(&mut params, &d_hidden, &d_pooled).unwrap();
                });
                for t in &params.layout.tensors {
                    let (g, w) = (&params.grad[t.range()], &want.data[t.range()]);
                    let diff: Vec<f32> = g.iter().zip(w).map(|(a, b)| a - b).collect();
                    let bound = 1e-4 * norm(w).max(1e-3 * norm(&want.data));
                    assert!(norm(&diff) <= bound, "{name} {}: {} of {}", t.name, norm(&diff), norm(w));
                }
                seen.push((tier, params.grad.clone()));
            }
        }
        for pair in seen.chunks(2) {
            assert!(pair[0].1 == pair[1].1, "{name}: bits differ between 1 and 2 threads");
        }
    }
}
