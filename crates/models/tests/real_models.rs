//! The real SmolLM2 (GGUF) and MiniLM (HuggingFace directory) against exact numbers, where their weights are in
//! `$ECR_MODELS` or `~/.cache/ecr/models`; skipped aloud elsewhere.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use ecr_core::seam::{Decoding, Encoder, Generator, Pass, Policy};
use ecr_core::{Packed, Stream, io};
use ecr_kernels::{Engine, Precision};
use ecr_models::chat::Message;
use ecr_models::generate::LlamaGenerator;
use ecr_models::load::{LoadedModel, load_model};
use ecr_models::{Bert, Llama};
use serde_json::Value as Json;

fn cached(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ECR_MODELS")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/ecr/models")))?;
    let path = root.join(name);
    if !path.exists() {
        eprintln!("skipped: no {name} among the cached models");
        return None;
    }
    Some(path)
}
fn fixture(name: &str) -> Json {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
    serde_json::from_slice(&io::read(&path).unwrap()).unwrap()
}
fn reals(v: &Json) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}
fn ids(v: &Json) -> Vec<u32> {
    reals(v).into_iter().map(|x| x as u32).collect()
}
fn smol() -> Option<LoadedModel> {
    Some(load_model(&cached("smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf")?).unwrap())
}

#[test]
fn smollm2_scores_and_greedy_text_equal_the_fixtures() {
    let Some(m) = smol() else { return };
    let config = m.llama().unwrap().clone();
    let expected = fixture("smollm2-135m-instruct.json");
    let e = Engine::detect(Precision::F32);
    let mut llama = Llama::full(config.clone(), e);
    let mut generator = LlamaGenerator::full(config, e, vec![], 8);
    for s in expected["sequences"].as_array().unwrap() {
        let prompt = ids(&s["ids"]);
        assert_eq!(m.tokenizer().unwrap().encode(s["text"].as_str().unwrap()).unwrap(), prompt);
        let mut b = Packed::new();
        b.push(&prompt, &vec![true; prompt.len()]);
        let out = Policy::forward(&mut llama, &m.params, &b, Pass::SCORE).unwrap();
        for (key, got) in [("logp", &out.logp), ("entropy", &out.entropy)] {
            for (g, w) in got.iter().zip(reals(&s[key])) {
                assert!((f64::from(*g) - w).abs() <= 1e-4 * w.abs().max(1.0), "{key}: {g} for {w}");
            }
        }
        let greedy = Decoding { temperature: 0.0, ..Decoding::plain(20) };
        let made = generator.generate(&m.params, &[prompt], greedy, &[Stream::new(0)]).unwrap();
        assert_eq!(made[0].tokens, ids(&s["greedy20_ids"]));
    }
}

#[test]
fn smollm2_tokenizer_and_template_equal_the_fixtures() {
    let Some(m) = smol() else { return };
    let tok = m.tokenizer().unwrap();
    let expected = fixture("smollm2-tokenizer.json");
    for c in expected["cases"].as_array().unwrap() {
        let text = c["text"].as_str().unwrap();
        let got = tok.encode(text).unwrap();
        assert_eq!(got, ids(&c["ids"]), "{text:?}");
        assert_eq!(tok.decode(&got, false).unwrap(), c["decoded"].as_str().unwrap());
    }
    let chat = m.chat_template().unwrap();
    let messages = [Message::user(expected["chat_template"]["messages"][0]["content"].as_str().unwrap())];
    assert_eq!(chat.render(&messages, true).unwrap(), expected["chat_template"]["text"].as_str().unwrap());
    assert_eq!(chat.encode_prompt(&messages, tok).unwrap(), ids(&expected["chat_template"]["ids"]));
}

#[test]
fn minilm_embeddings_equal_the_fixtures() {
    let Some(dir) = cached("all-minilm-l6-v2") else { return };
    let m = load_model(&dir).unwrap();
    let mut bert = Bert::new(m.bert().unwrap().clone(), Engine::detect(Precision::F32));
    let expected = fixture("all-minilm-l6-v2.json");
    let mut batch = Packed::new();
    let rows = expected["sentences"].as_array().unwrap();
    for s in rows {
        let got = m.tokenizer().unwrap().encode_with_specials(s["text"].as_str().unwrap()).unwrap();
        assert_eq!(got, ids(&s["ids"]));
        batch.push(&got, &vec![false; got.len()]);
    }
    let out = bert.forward(&m.params, &batch, false).unwrap();
    for (s, pooled) in rows.iter().zip(out.pooled.chunks(bert.width())) {
        for (g, w) in pooled.iter().zip(reals(&s["mean_pooled_first8"])) {
            assert!((f64::from(*g) - w).abs() <= 1e-4 * w.abs().max(1.0), "{g} for {w}");
        }
    }
}
