//! What is written comes back: models, adapters, tokenizers; and names are found where they may lie.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::{Temp, fixture, refused};
use ecr_core::{Params, Stream, io};
use ecr_models::chat::{ChatTemplate, PLAIN_SPECIALS};
use ecr_models::load::peft::load_adapter;
use ecr_models::load::resolve::ModelDirs;
use ecr_models::load::{Architecture, load_model, resolve_model, resolve_weights};
use ecr_models::save::{TokenizerFiles, save_adapter, save_model, tokenizer_config};
use ecr_models::tokenizer::Tokenizer;

const TEXTS: [&str; 4] =
    ["have you seen Alien (1979)?", "no, tell me more", "Amélie – 映画 🎬", "have you seen it?"];

fn random(architecture: &Architecture) -> Params {
    let layout = Arc::new(architecture.layout());
    let mut draws = Stream::new(3).rng();
    let data = (0..layout.len).map(|_| draws.normal() as f32).collect();
    Params::from_data(layout, data)
}

#[test]
fn saved_models_come_back_to_the_bit() {
    let tok = Tokenizer::train(TEXTS.iter(), 300, &PLAIN_SPECIALS).unwrap();
    let chat = ChatTemplate::plain().unwrap();
    for name in ["tiny-llama", "tiny-bert", "tiny-roberta"] {
        let dir = Temp::new(name);
        // As the fixture is, without a tokenizer.
        let m = load_model(&fixture(name)).unwrap();
        assert!(m.tokenizer.is_none());
        save_model(dir.path(), &m.architecture, &m.params, None).unwrap();
        let back = load_model(dir.path()).unwrap();
        assert_eq!((&back.architecture, &back.params.data), (&m.architecture, &m.params.data), "{name}");
        let e = refused("no tokenizer", || back.tokenizer().map(|_| ()));
        assert!(e.contains("tokenizer.json"), "{e}");
        // Random, with a tokenizer and a chat template.
        let architecture = match m.architecture.clone() {
            Architecture::Llama(mut c) => {
                (c.vocab_size, c.tie_word_embeddings) = (tok.vocab_size(), false);
                Architecture::Llama(c)
            }
            Architecture::Bert(mut c) => {
                c.vocab_size = tok.vocab_size();
                Architecture::Bert(c)
            }
        };
        let params = random(&architecture);
        let config = tokenizer_config(None, chat.end_token(), "<|pad|>", Some(&chat), 64);
        let files = TokenizerFiles { tokenizer: &tok, config: &config };
        save_model(dir.path(), &architecture, &params, Some(files)).unwrap();
        let back = load_model(dir.path()).unwrap();
        assert_eq!(back.architecture, architecture, "{name}");
        assert!(back.params.data.iter().zip(&params.data).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}");
        assert!(back.extra.is_empty());
        assert_eq!(back.tokenizer().unwrap().to_json().unwrap(), tok.to_json().unwrap());
        assert_eq!(back.tokenizer_config, config);
        let template = back.chat_template().unwrap();
        assert_eq!((template.source(), template.end_token()), (chat.source(), chat.end_token()));
        if name == "tiny-llama" {
            let end = chat.end_id(&tok).unwrap();
            assert_eq!(back.config["eos_token_id"], end);
            let g: serde_json::Value =
                serde_json::from_slice(&io::read(&dir.path().join("generation_config.json")).unwrap())
                    .unwrap();
            assert_eq!(g["eos_token_id"], end);
        }
    }
}

#[test]
fn saved_adapters_come_back_to_the_bit() {
    let base = load_model(&fixture("tiny-llama")).unwrap().llama().unwrap().clone();
    let (lora, params) = load_adapter(&fixture("tiny-llama/lora"), &base).unwrap();
    let dir = Temp::new("adapter");
    save_adapter(dir.path(), &lora, &params, "tiny-llama").unwrap();
    let (lora2, params2) = load_adapter(dir.path(), &base).unwrap();
    assert_eq!((lora2, params2.data), (lora, params.data));
    assert_eq!(params2.layout.tensors, params.layout.tensors);
}

#[test]
fn pickle_paths_mean_the_safetensors_beside_them() {
    let dir = Temp::new("pth");
    let pth = dir.path().join("critic_pretrained_final.pth");
    let e = refused("nothing there", || resolve_weights(&pth));
    assert!(e.contains("critic_pretrained_final.safetensors") && e.contains("pickles are not read"), "{e}");
    let shared = dir.put("model.safetensors", "x");
    assert_eq!(resolve_weights(&pth).unwrap(), shared);
    let own = dir.put("critic_pretrained_final.safetensors", "x");
    assert_eq!(resolve_weights(&pth).unwrap(), own);
    // A pickle that exists is still not read.
    dir.put("critic_pretrained_final.pth", "x");
    assert_eq!(resolve_weights(&pth).unwrap(), own);
    assert_eq!(resolve_weights(dir.path()).unwrap(), shared);
    refused("no weights", || resolve_weights(&dir.path().join("nothing.safetensors")));
}

#[test]
fn names_are_found_where_they_may_lie() {
    let dir = Temp::new("names");
    let at = |p: &str| dir.path().join(p);
    let dirs = ModelDirs { models: vec![at("models")], hub: vec![at("hub")] };
    let e = refused("nothing there", || resolve_model("roberta-base", &dirs));
    let home = at("models").join("roberta-base").display().to_string();
    for part in
        ["roberta-base", "config.json", "tokenizer.json", "model.safetensors", "nothing is downloaded", &home]
    {
        assert!(e.contains(part), "{part} in {e}");
    }
    let model = |p: &str| -> PathBuf {
        dir.put(&format!("{p}/config.json"), "{}");
        dir.put(&format!("{p}/model.safetensors"), "");
        at(p)
    };
    // A hub cache, with and without the organisation; a snapshot that is not whole is passed over.
    dir.put("hub/models--FacebookAI--roberta-base/snapshots/0aa/config.json", "{}");
    let snapshot = model("hub/models--FacebookAI--roberta-base/snapshots/e2da8e2f");
    for name in ["roberta-base", "FacebookAI/roberta-base"] {
        assert_eq!(resolve_model(name, &dirs).unwrap(), snapshot, "{name}");
    }
    assert!(resolve_model("Other/roberta-base", &dirs).is_err());
    // The models' own directory goes first, by the short name; a single GGUF stands for its directory.
    let own = model("models/roberta-base");
    assert_eq!(resolve_model("FacebookAI/roberta-base", &dirs).unwrap(), own);
    let gguf = dir.put("models/smollm2-135m-instruct/x.gguf", "");
    assert_eq!(resolve_model("HuggingFaceTB/SmolLM2-135M-Instruct", &dirs).unwrap(), gguf);
    dir.put("models/smollm2-135m-instruct/y.gguf", "");
    assert!(resolve_model("SmolLM2-135M-Instruct", &dirs).is_err(), "two GGUF files: which?");
    assert_eq!(resolve_model(&own.display().to_string(), &dirs).unwrap(), own);
}

#[test]
fn training_a_tokenizer_depends_on_the_texts_only() {
    let mut texts: Vec<String> = Vec::new();
    let mut draws = Stream::new(5).rng();
    let words =
        ["film", "films", "filming", "see", "seen", "seeing", "Amélie", "映画", "1979", "don't", "🎬"];
    for _ in 0..400 {
        let n = 3 + draws.below(8);
        texts.push((0..n).map(|_| words[draws.below(words.len())]).collect::<Vec<_>>().join(" "));
    }
    let train = |threads: usize, texts: &[String]| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| Tokenizer::train(texts.iter(), 300, &PLAIN_SPECIALS).unwrap().to_json().unwrap())
    };
    let one = train(1, &texts);
    assert_eq!(one, train(2, &texts), "threads");
    assert_eq!(one, train(2, &texts), "again");
    texts.reverse();
    assert_eq!(one, train(2, &texts), "order");
    draws.shuffle(&mut texts);
    assert_eq!(one, train(1, &texts), "order");
    texts.truncate(200);
    assert_ne!(one, train(1, &[texts, vec!["zzz zzz zzz zzz".to_owned(); 99]].concat()), "other texts");
}

#[test]
fn word_piece_splits_as_bert() {
    let vocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nun\n##aff\n##able\nfilm\n##s\n!\ncafe\n映\n画";
    let tok = Tokenizer::word_piece(vocab, true).unwrap();
    assert_eq!(tok.encode_with_specials("Unaffable FILMS! xyz").unwrap(), [2, 5, 6, 7, 8, 9, 10, 1, 3]);
    assert_eq!(tok.encode("café 映画[MASK]").unwrap(), [11, 12, 13, 4], "accents go, ideographs stand alone");
    assert_eq!(tok.encode("").unwrap(), [0u32; 0]);
    let cased = Tokenizer::word_piece(vocab, false).unwrap();
    assert_eq!(cased.encode("Film film").unwrap(), [1, 8]);
}

#[test]
fn byte_level_gives_the_published_ids() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/tokenizers");
    if !root.is_dir() {
        eprintln!("skipped: no shared/data/tokenizers beside the checkout");
        return;
    }
    let load = |name: &str, roberta: bool| {
        let text = |f: &str| String::from_utf8(io::read_maybe_gz(&root.join(name).join(f)).unwrap()).unwrap();
        Tokenizer::byte_level(&text("vocab.json.gz"), &text("merges.txt.gz"), roberta).unwrap()
    };
    let roberta = load("roberta-base", true);
    assert_eq!(roberta.vocab_size(), 50265);
    for (text, ids) in [
        ("Hello world", &[0, 31414, 232, 2][..]),
        ("Hello, how are you?", &[0, 31414, 6, 141, 32, 47, 116, 2]),
        ("The capital of France is <mask>.", &[0, 133, 812, 9, 1470, 16, 50264, 4, 2]),
        ("", &[0, 2]),
    ] {
        assert_eq!(roberta.encode_with_specials(text).unwrap(), ids, "{text:?}");
    }
    let gpt2 = load("dialogpt-gpt2", false);
    assert_eq!(gpt2.encode("Hello world").unwrap(), [15496, 995]);
    assert_eq!(gpt2.encode_with_specials("Hello world<|endoftext|>").unwrap(), [15496, 995, 50256]);
    for tok in [&roberta, &gpt2] {
        for text in ["Amélie – 映画 🎬\n\ttabs  and   spaces ", "I'm, you've; 1979!", " \u{0}\u{7f}ﬀ"]
        {
            assert_eq!(tok.decode(&tok.encode(text).unwrap(), false).unwrap(), text);
        }
    }
}
