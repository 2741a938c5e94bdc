//! Hostile model directories and adapters: each is refused by a clear error, without a panic, quickly, and without
//! allocating what the file merely claims.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{Temp, fixture, refused, within_memory};
use ecr_core::io;
use ecr_models::load::hf_dir::check_vocab;
use ecr_models::load::peft::load_adapter;
use ecr_models::load::{Architecture, fill_params, load_model, safetensors};
use ecr_models::tokenizer::Tokenizer;
use serde_json::{Value as Json, json};

fn read(name: &str) -> Vec<u8> {
    io::read(&fixture(name)).unwrap()
}
fn config(name: &str) -> Json {
    serde_json::from_slice(&read(name)).unwrap()
}
/// A safetensors file of a header and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn nothing_here_needs_much_memory() {
    within_memory("nothing_here_needs_much_memory", 160);
}

#[test]
fn truncated_safetensors_are_refused() {
    let whole = read("tiny-llama/model.safetensors");
    for n in (0..whole.len()).step_by(16) {
        refused(&format!("{n} bytes"), || safetensors::parse(&whole[..n], "model"));
    }
}

#[test]
fn a_flipped_header_bit_is_refused_or_changes_nothing() {
    let whole = read("tiny-llama/model.safetensors");
    let layout = Arc::new(Architecture::from_hf(&config("tiny-llama/config.json")).unwrap().layout());
    let load = |b: &[u8]| fill_params(&layout, &mut safetensors::parse(b, "model")?, "model");
    let want = load(&whole).unwrap().data;
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let (mut refusals, mut flipped) = (0, whole.clone());
    for bit in (0..64).chain((64..header * 8).step_by(5)) {
        flipped[bit / 8] ^= 1 << (bit % 8);
        match load(&flipped) {
            Ok(p) => assert!(p.data == want, "bit {bit} changed weights unseen"),
            Err(e) => {
                assert_eq!(e.kind, ecr_core::Kind::Data, "bit {bit}: {e}");
                refusals += 1;
            }
        }
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(refusals > header / 2, "{refusals} of {header} bytes");
}

#[test]
fn lying_safetensors_are_refused() {
    let one = |dtype: &str, shape: &str, offsets: &str| {
        file(&format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#), &[0; 16])
    };
    let mut long = file("{}", &[]);
    let nan = [f32::NAN.to_le_bytes(), f32::INFINITY.to_le_bytes(), [0; 4], [0; 4]].concat();
    let header = r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    let two = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":"#;
    let twice = r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#;
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("seven bytes", vec![0; 7]),
        ("no header", vec![0; 8]),
        ("garbage header", file("{]", &[])),
        ("a list", file("[]", &[])),
        ("deep", file(&"[".repeat(50_000), &[])),
        ("not UTF-8", [&3u64.to_le_bytes()[..], &[0xff, 0xfe, 0x7b]].concat()),
        ("shape too large", one("F32", "[5]", "[0,16]")),
        ("shape too small", one("F32", "[3]", "[0,16]")),
        ("shape overflows", one("F32", "[4294967296,4294967296,4]", "[0,16]")),
        ("bytes overflow", one("F32", "[4611686018427387904]", "[0,16]")),
        ("negative shape", one("F32", "[-4]", "[0,16]")),
        ("huge shape", one("F32", "[18446744073709551616]", "[0,16]")),
        ("offset beyond the file", one("F32", "[8]", "[0,32]")),
        ("offset near 2^64", one("F32", "[4]", "[18446744073709551600,18446744073709551615]")),
        ("offsets backwards", one("F32", "[4]", "[16,0]")),
        ("a hole first", one("F32", "[2]", "[8,16]")),
        ("bytes left over", one("F32", "[2]", "[0,8]")),
        ("unknown type", one("Q9", "[4]", "[0,16]")),
        ("type not read", one("I16", "[8]", "[0,16]")),
        ("another width", one("F64", "[4]", "[0,16]")),
        ("overlap", file(&format!("{two}[4,12]}}}}"), &[0; 12])),
        ("gap", file(&format!("{two}[12,20]}}}}"), &[0; 20])),
        ("one name twice", file(twice, &[0; 16])),
        ("NaN", file(header, &nan)),
        ("Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n".to_vec()),
        ("pickle", b"PK\x03\x04archive/data.pkl".to_vec()),
    ];
    for n in [9u64, 1 << 31, 1 << 62, 1 << 63, u64::MAX, u64::MAX - 7] {
        long[..8].copy_from_slice(&n.to_le_bytes());
        cases.push(("header longer than the file", long.clone()));
    }
    for (what, bytes) in cases {
        refused(what, || safetensors::parse(&bytes, "model"));
    }
    let e = refused("NaN", || safetensors::parse(&file(header, &nan), "model"));
    assert!(e.contains("NaN at element 0"), "NaN weights are refused by name and place: {e}");
    assert!(safetensors::parse(&file(header, &[0; 16]), "model").is_ok());
}

/// tiny-llama or tiny-bert with changes to its configuration.
fn with_config(dir: &Temp, model: &str, changes: &[(&str, Json)]) {
    let mut c = config(&format!("{model}/config.json"));
    for (k, v) in changes {
        c[*k] = v.clone();
    }
    dir.put("config.json", c.to_string());
}

#[test]
fn hostile_configurations_are_refused() {
    let dir = Temp::new("hostile-config");
    let huge = [1u64 << 20, 1 << 31, 1 << 62, u64::MAX];
    for (model, keys) in [
        (
            "tiny-llama",
            &[
                "vocab_size",
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "num_key_value_heads",
                "head_dim",
            ][..],
        ),
        (
            "tiny-bert",
            &[
                "vocab_size",
                "hidden_size",
                "intermediate_size",
                "num_hidden_layers",
                "num_attention_heads",
                "type_vocab_size",
                "max_position_embeddings",
            ],
        ),
    ] {
        dir.put("model.safetensors", read(&format!("{model}/model.safetensors")));
        with_config(&dir, model, &[]);
        load_model(dir.path()).unwrap();
        for key in keys {
            let small = [
                json!(0),
                json!(-1),
                json!(1.5),
                json!("8"),
                json!(1e300),
                json!([]),
                json!({}),
                json!(true),
            ];
            for v in small.into_iter().chain(huge.map(|h| json!(h))) {
                with_config(&dir, model, &[(key, v.clone())]);
                refused(&format!("{model}: {key} = {v}"), || load_model(dir.path()));
            }
        }
        // Sizes whose product wraps, or that hide behind one another.
        let pairs: [&[(&str, Json)]; 5] = [
            &[("vocab_size", json!(1u64 << 32)), ("hidden_size", json!(1u64 << 32))],
            &[("hidden_size", json!(1)), ("num_hidden_layers", json!(u64::MAX)), ("vocab_size", json!(1))],
            &[
                ("hidden_size", json!(1)),
                ("num_hidden_layers", json!(22_000)),
                ("intermediate_size", json!(1)),
            ],
            &[("num_attention_heads", json!(1u64 << 63)), ("head_dim", json!(2))],
            &[
                ("num_attention_heads", json!(22_000)),
                ("num_key_value_heads", json!(22_000)),
                ("head_dim", json!(22_000)),
            ],
        ];
        for p in pairs {
            with_config(&dir, model, p);
            refused(&format!("{model}: {p:?}"), || load_model(dir.path()));
        }
    }
    // A file of few tensors but many values: its size alone would let hundreds of thousands of layers through.
    let header = r#"{"x":{"dtype":"F32","shape":[1048576],"data_offsets":[0,4194304]}}"#;
    dir.put("model.safetensors", file(header, &vec![0; 1 << 22]));
    let one =
        ["vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"];
    let mut changes: Vec<(&str, Json)> = one.map(|k| (k, json!(1))).to_vec();
    changes.extend([("head_dim", json!(2)), ("num_hidden_layers", json!(400_000))]);
    with_config(&dir, "tiny-llama", &changes);
    let e = refused("many layers", || load_model(dir.path()));
    assert!(e.contains("400000 layers"), "{e}");
    dir.put("model.safetensors", read("tiny-llama/model.safetensors"));
    for (key, v) in [
        ("model_type", json!("mamba")),
        ("model_type", json!(7)),
        ("hidden_act", json!("relu")),
        ("attention_bias", json!(true)),
        ("rope_scaling", json!({"type": "yarn"})),
        ("rms_norm_eps", json!(-1.0)),
        ("rope_theta", json!(-1.0)),
        ("rope_theta", json!("10000")),
        ("rope_parameters", json!({"rope_theta": "1e4"})),
        ("rms_norm_eps", json!([])),
        ("tie_word_embeddings", json!("yes")),
        ("tie_word_embeddings", json!(false)),
    ] {
        with_config(&dir, "tiny-llama", &[(key, v.clone())]);
        refused(&format!("{key} = {v}"), || load_model(dir.path()));
    }
    for text in ["", "{", "null", "[1]", "7", "{\"model_type\":\"llama\"}", "\u{0}"] {
        dir.put("config.json", text);
        refused(&format!("config.json {text:?}"), || load_model(dir.path()));
    }
}

#[test]
fn incomplete_directories_are_refused_by_name() {
    let dir = Temp::new("incomplete");
    let e = refused("empty directory", || load_model(dir.path()));
    assert!(e.contains("config.json"), "{e}");
    with_config(&dir, "tiny-llama", &[]);
    let e = refused("no weights", || load_model(dir.path()));
    assert!(e.contains("model.safetensors") && e.contains("pickles"), "{e}");
    refused("no directory", || load_model(&dir.path().join("nothing")));
    // The weights of another model, and one tensor missing.
    dir.put("model.safetensors", read("tiny-bert/model.safetensors"));
    refused("another model's weights", || load_model(dir.path()));
    let whole = read("tiny-llama/model.safetensors");
    let n = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let header = std::str::from_utf8(&whole[8..n]).unwrap().replace("model.norm.weight", "model.lost.weight");
    dir.put("model.safetensors", file(&header, &whole[n..]));
    let e = refused("a missing tensor", || load_model(dir.path()));
    assert!(e.contains("model.norm.weight"), "{e}");
    // One tensor under two names, and in two shards.
    let header = header.replace("model.lost.weight", "model.norm.weight");
    with_config(&dir, "tiny-bert", &[]);
    let bert = read("tiny-bert/model.safetensors");
    let n_bert = 8 + u64::from_le_bytes(*bert.first_chunk().unwrap()) as usize;
    let names = std::str::from_utf8(&bert[8..n_bert]).unwrap();
    let both = names.replacen(
        '{',
        r#"{"bert.embeddings.LayerNorm.bias":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"#,
        1,
    );
    dir.put("model.safetensors", file(&both, &bert[n_bert..]));
    let e = refused("two names", || load_model(dir.path()));
    assert!(e.contains("under two names"), "{e}");
    io::remove_dir_all(dir.path()).unwrap();
    with_config(&dir, "tiny-llama", &[]);
    dir.put("a.safetensors", file(&header, &whole[n..]));
    dir.put("b.safetensors", &whole);
    dir.put(
        "model.safetensors.index.json",
        json!({"weight_map": {"model.norm.weight": "a.safetensors", "model.embed_tokens.weight": "b.safetensors"}}).to_string(),
    );
    let e = refused("two shards", || load_model(dir.path()));
    assert!(e.contains("in two shards"), "{e}");
    // Sharded: a shard outside the directory, one that is lost, an index that lies.
    io::remove_dir_all(dir.path()).unwrap();
    with_config(&dir, "tiny-llama", &[]);
    dir.put("part.safetensors", &whole);
    for map in [
        json!({"weight_map": {"model.norm.weight": "../part.safetensors"}}),
        json!({"weight_map": {"model.norm.weight": 7}}),
        json!({"weight_map": {"model.norm.weight": "part.safetensors", "x": "part.safetensors"}}),
        json!({"weight_map": []}),
        json!({}),
    ] {
        dir.put("model.safetensors.index.json", map.to_string());
        refused(&map.to_string(), || load_model(dir.path()));
    }
}

#[test]
fn hostile_tokenizers_are_refused() {
    let dir = Temp::new("hostile-tokenizer");
    dir.put("model.safetensors", read("tiny-llama/model.safetensors"));
    with_config(&dir, "tiny-llama", &[]);
    let trained = Tokenizer::train(["a b c", "a b"].iter(), 300, &["<|end|>"]).unwrap();
    let good = trained.to_json().unwrap();
    dir.put("tokenizer.json", &good);
    let e = refused("a tokenizer of another model", || load_model(dir.path()));
    assert!(e.contains("belongs to another model"), "{e}");
    refused("too few tokens", || check_vocab("model", &trained, 1000));
    assert!(check_vocab("model", &trained, trained.vocab_size() + 8).is_ok());
    let bpe = |vocab: Json, merges: Json| {
        json!({"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": vocab, "merges": merges}}).to_string()
    };
    let mut cases = vec![
        ("empty", String::new()),
        ("garbage", "\u{1}\u{2}".into()),
        ("no model", "{}".into()),
        ("unknown model", r#"{"version":"1.0","model":{"type":"Magic"}}"#.into()),
        ("deep", "[".repeat(100_000)),
        ("merge of unknown tokens", bpe(json!({"a": 0}), json!([["a", "zzz"]]))),
        ("merge of three", bpe(json!({"a": 0}), json!(["a a a"]))),
        ("negative id", bpe(json!({"a": -1}), json!([]))),
        ("id of 2^32 - 1", bpe(json!({"a": u32::MAX}), json!([]))),
        (
            "broken character map",
            json!({"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []},
                "normalizer": {"type": "Precompiled", "precompiled_charsmap": 7}})
            .to_string(),
        ),
        ("id of 2^40", bpe(json!({"a": 1u64 << 40}), json!([]))),
    ];
    for n in (0..good.chars().count() - 2).step_by(97) {
        cases.push(("truncated", good.chars().take(n).collect()));
    }
    for (what, text) in cases {
        dir.put("tokenizer.json", &text);
        refused(what, || load_model(dir.path()));
    }
    for (v, m) in [("{", ""), ("{}", "a"), ("[]", "a b"), (r#"{"a":0}"#, "a b")] {
        refused(&format!("vocab.json {v} merges.txt {m}"), || Tokenizer::byte_level(v, m, true));
    }
    for v in ["", "[CLS]\n[SEP]", "a\nb"] {
        refused(&format!("vocab.txt {v:?}"), || Tokenizer::word_piece(v, true));
    }
    refused("a vocabulary below the bytes", || Tokenizer::train(["a"].iter(), 200, &[]));
}

fn adapter(dir: &Temp, changes: &[(&str, Json)]) {
    let mut c = config("tiny-llama/lora/adapter_config.json");
    for (k, v) in changes {
        c[*k] = v.clone();
    }
    dir.put("adapter_config.json", c.to_string());
}

#[test]
fn hostile_adapters_are_refused() {
    let dir = Temp::new("hostile-adapter");
    dir.put("adapter_model.safetensors", read("tiny-llama/lora/adapter_model.safetensors"));
    let Architecture::Llama(base) = Architecture::from_hf(&config("tiny-llama/config.json")).unwrap() else {
        panic!("a decoder");
    };
    adapter(&dir, &[]);
    load_adapter(dir.path(), &base).unwrap();
    for (key, v) in [
        ("r", json!(8)),
        ("r", json!(0)),
        ("r", json!(-4)),
        ("r", json!(1u64 << 15)),
        ("r", json!(u64::MAX)),
        ("r", Json::Null),
        ("lora_alpha", json!("x")),
        ("target_modules", json!(["q_proj"])),
        ("target_modules", json!(["q_proj", "v_proj", "up_proj"])),
        ("target_modules", json!(["lm_head"])),
        ("target_modules", json!([])),
        ("target_modules", json!([7])),
        ("target_modules", json!("all-linear")),
        ("peft_type", json!("IA3")),
        ("use_dora", json!(true)),
        ("use_rslora", json!(true)),
        ("bias", json!("all")),
        ("rank_pattern", json!({"q_proj": 2})),
        ("modules_to_save", json!(["lm_head"])),
    ] {
        adapter(&dir, &[(key, v.clone())]);
        refused(&format!("{key} = {v}"), || load_adapter(dir.path(), &base));
    }
    adapter(&dir, &[]);
    let wider = ecr_models::LlamaConfig { hidden_size: 64, ..base.clone() };
    let deeper = ecr_models::LlamaConfig { num_layers: 3, ..base.clone() };
    let flatter = ecr_models::LlamaConfig { num_layers: 1, ..base.clone() };
    for (what, other) in [("wider", wider), ("deeper", deeper), ("flatter", flatter)] {
        refused(&format!("a {what} base"), || load_adapter(dir.path(), &other));
    }
    let whole = read("tiny-llama/lora/adapter_model.safetensors");
    for n in (0..whole.len()).step_by(509) {
        dir.put("adapter_model.safetensors", &whole[..n]);
        refused(&format!("{n} bytes"), || load_adapter(dir.path(), &base));
    }
    dir.put("adapter_config.json", "{");
    refused("garbage", || load_adapter(dir.path(), &base));
    assert!(load_adapter(Path::new("nowhere"), &base).is_err());
}
