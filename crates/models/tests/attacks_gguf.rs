//! A GGUF writer, the values it must come back with, and hostile files made with it: each is refused by a clear
//! error, without a panic, quickly, and without allocating what the file merely claims.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Temp, refused, within_memory};
use ecr_core::{Kind, Result, Stream};
use ecr_models::load::gguf::Gguf;
use ecr_models::load::hf_dir::load_gguf;
use ecr_models::load::{LoadedModel, load_model};
use half::f16;

/// A metadata value: its type code and bytes.
#[derive(Clone)]
struct Meta(u32, Vec<u8>);

fn u32_(x: u32) -> Meta {
    Meta(4, x.to_le_bytes().to_vec())
}
fn u64_(x: u64) -> Meta {
    Meta(10, x.to_le_bytes().to_vec())
}
fn f32_(x: f32) -> Meta {
    Meta(6, x.to_le_bytes().to_vec())
}
fn raw_text(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat()
}
fn text(s: &str) -> Meta {
    Meta(8, raw_text(s))
}
/// An array of `n` (as announced) elements of type `kind`.
fn array(kind: u32, n: u64, elements: &[u8]) -> Meta {
    Meta(9, [&kind.to_le_bytes()[..], &n.to_le_bytes(), elements].concat())
}
fn texts(list: &[&str]) -> Meta {
    array(8, list.len() as u64, &list.iter().flat_map(|s| raw_text(s)).collect::<Vec<_>>())
}
fn i32s(list: &[i32]) -> Meta {
    array(5, list.len() as u64, &list.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())
}

/// A tensor: dimensions as GGUF orders them (innermost first), type code, bytes, and an offset that may lie.
#[derive(Clone)]
struct Tensor {
    name: String,
    dims: Vec<u64>,
    kind: u32,
    data: Vec<u8>,
    offset: Option<u64>,
}

/// A GGUF file in the making, with counts that may lie.
#[derive(Clone)]
struct Writer {
    magic: [u8; 4],
    version: u32,
    n_tensors: Option<u64>,
    n_meta: Option<u64>,
    meta: Vec<(String, Meta)>,
    tensors: Vec<Tensor>,
}

impl Writer {
    fn set(mut self, key: &str, value: Meta) -> Self {
        self.meta.retain(|(k, _)| k != key);
        self.meta.push((key.to_owned(), value));
        self
    }
    fn without(mut self, key: &str) -> Self {
        let before = self.meta.len();
        self.meta.retain(|(k, _)| k != key);
        assert!(self.meta.len() < before, "{key}");
        self
    }
    fn tensor(mut self, name: &str, change: impl FnOnce(&mut Tensor)) -> Self {
        change(self.tensors.iter_mut().find(|t| t.name == name).unwrap());
        self
    }
    /// The file, and the length of its header.
    fn write(&self) -> (Vec<u8>, usize) {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_meta.unwrap_or(self.meta.len() as u64).to_le_bytes());
        for (key, Meta(kind, bytes)) in &self.meta {
            out.extend(raw_text(key));
            out.extend(kind.to_le_bytes());
            out.extend(bytes);
        }
        let mut at = 0u64;
        for t in &self.tensors {
            out.extend(raw_text(&t.name));
            out.extend((t.dims.len() as u32).to_le_bytes());
            out.extend(t.dims.iter().flat_map(|d| d.to_le_bytes()));
            out.extend(t.kind.to_le_bytes());
            out.extend(t.offset.unwrap_or(at).to_le_bytes());
            at = (at + t.data.len() as u64).next_multiple_of(32);
        }
        let header = out.len();
        for t in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(&t.data);
        }
        (out, header)
    }
    fn load(&self) -> Result<LoadedModel> {
        load(self.write().0)
    }
}

fn load(bytes: Vec<u8>) -> Result<LoadedModel> {
    load_gguf(Gguf::parse(bytes, "model.gguf")?, Path::new("model.gguf"))
}

const HEADS: usize = 2;
const D: usize = 32;
const TOKENS: [&str; 5] = ["a", "b", "ab", "<|im_start|>", "<|im_end|>"];

/// `rows` rows of 32 quantised values: the bytes, and the values worked out one by one.
fn quantised(kind: u32, rows: usize, stream: &Stream) -> (Vec<u8>, Vec<f32>) {
    let mut draws = stream.rng();
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for _ in 0..rows {
        let scale = f16::from_f32(draws.uniform() as f32 * 0.1 + 0.01);
        let least = f16::from_f32(-draws.uniform() as f32);
        let (d, m) = (scale.to_f32(), least.to_f32());
        bytes.extend(scale.to_le_bytes());
        if kind == 8 {
            for _ in 0..D {
                let q = draws.below(256) as i32 - 128;
                bytes.push(q as u8);
                values.push(q as f32 * d);
            }
            continue;
        }
        if kind == 3 {
            bytes.extend(least.to_le_bytes());
        }
        // Element i and element i + 16 share byte i: low and high nibble.
        let q: Vec<u8> = (0..D).map(|_| draws.below(16) as u8).collect();
        bytes.extend((0..16).map(|i| q[i] | q[i + 16] << 4));
        values.extend(
            q.iter().map(|&q| if kind == 2 { (f32::from(q) - 8.0) * d } else { f32::from(q) * d + m }),
        );
    }
    (bytes, values)
}

/// A whole model of one layer in all four formats, and its tensors' values in file order.
fn model() -> (Writer, Vec<(String, Vec<f32>)>) {
    let meta = [
        ("general.architecture", text("llama")),
        ("llama.embedding_length", u32_(D as u32)),
        ("llama.attention.head_count", u32_(HEADS as u32)),
        ("llama.attention.head_count_kv", u32_(1)),
        ("llama.feed_forward_length", u32_(32)),
        ("llama.block_count", u32_(1)),
        ("llama.context_length", u32_(64)),
        ("llama.rope.freq_base", f32_(10_000.0)),
        ("llama.attention.layer_norm_rms_epsilon", f32_(1e-5)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("gpt-2")),
        ("tokenizer.ggml.tokens", texts(&TOKENS)),
        ("tokenizer.ggml.token_type", i32s(&[1, 1, 1, 3, 3])),
        ("tokenizer.ggml.merges", texts(&["a b"])),
        ("tokenizer.ggml.eos_token_id", u32_(4)),
    ];
    let tensors: [(&str, usize, u32); 11] = [
        ("token_embd", 5, 8),
        ("blk.0.attn_norm", 0, 0),
        ("blk.0.attn_q", 32, 2),
        ("blk.0.attn_k", 16, 3),
        ("blk.0.attn_v", 16, 8),
        ("blk.0.attn_output", 32, 0),
        ("blk.0.ffn_norm", 0, 0),
        ("blk.0.ffn_gate", 32, 2),
        ("blk.0.ffn_up", 32, 3),
        ("blk.0.ffn_down", 32, 0),
        ("output_norm", 0, 0),
    ];
    let mut w = Writer {
        magic: *b"GGUF",
        version: 3,
        n_tensors: None,
        n_meta: None,
        meta: meta.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        tensors: Vec::new(),
    };
    let mut want = Vec::new();
    for (i, (name, rows, kind)) in tensors.into_iter().enumerate() {
        let name = format!("{name}.weight");
        let stream = Stream::new(1).at(i as u64);
        let (data, values) = if kind == 0 {
            let mut draws = stream.rng();
            let v: Vec<f32> = (0..D * rows.max(1)).map(|_| draws.normal() as f32).collect();
            (v.iter().flat_map(|x| x.to_le_bytes()).collect(), v)
        } else {
            quantised(kind, rows, &stream)
        };
        let dims = if rows == 0 { vec![D as u64] } else { vec![D as u64, rows as u64] };
        w.tensors.push(Tensor { name: name.clone(), dims, kind, data, offset: None });
        want.push((name, values));
    }
    (w, want)
}

#[test]
fn nothing_here_needs_much_memory() {
    within_memory("nothing_here_needs_much_memory", 160);
}

#[test]
fn every_format_comes_back_to_the_bit() {
    let (w, want) = model();
    let dir = Temp::new("gguf");
    let path = dir.put("model.gguf", w.write().0);
    let m = load_model(&path).unwrap();
    let names = [
        ("token_embd", "model.embed_tokens"),
        ("blk.0.attn_norm", "model.layers.0.input_layernorm"),
        ("blk.0.attn_q", "model.layers.0.self_attn.q_proj"),
        ("blk.0.attn_k", "model.layers.0.self_attn.k_proj"),
        ("blk.0.attn_v", "model.layers.0.self_attn.v_proj"),
        ("blk.0.attn_output", "model.layers.0.self_attn.o_proj"),
        ("blk.0.ffn_norm", "model.layers.0.post_attention_layernorm"),
        ("blk.0.ffn_gate", "model.layers.0.mlp.gate_proj"),
        ("blk.0.ffn_up", "model.layers.0.mlp.up_proj"),
        ("blk.0.ffn_down", "model.layers.0.mlp.down_proj"),
        ("output_norm", "model.norm"),
    ];
    for ((ggml, hf), (name, values)) in names.iter().zip(&want) {
        assert_eq!(*name, format!("{ggml}.weight"));
        let got = m.params.get(&format!("{hf}.weight")).unwrap();
        assert_eq!(got.len(), values.len(), "{name}");
        let rotated = ggml.ends_with("attn_q") || ggml.ends_with("attn_k");
        for (row, g) in got.chunks(D).enumerate() {
            // llama.cpp puts element p of either half of a head side by side: rows 2p and 2p + 1.
            let (head, r) = (row / 16, row % 16);
            let from = if rotated { head * 16 + 2 * (r % 8) + r / 8 } else { row };
            assert_eq!(g, &values[from * D..(from + 1) * D], "{name} row {row}");
        }
    }
    let tok = m.tokenizer().unwrap();
    assert_eq!(tok.encode("<|im_start|>abba<|im_end|>").unwrap(), [3, 2, 1, 0, 4]);
    assert_eq!(m.chat_template().unwrap().end_token(), "<|im_end|>");
    assert_eq!(m.llama().unwrap().rms_norm_eps, 1e-5);
    assert_eq!(load(Writer { version: 2, ..w }.write().0).unwrap().params.data, m.params.data);
}

#[test]
fn truncated_files_are_refused() {
    let (bytes, header) = model().0.write();
    for n in (0..bytes.len()).step_by(16).chain(header - 8..header + 8) {
        refused(&format!("{n} bytes"), || load(bytes[..n].to_vec()));
    }
}

#[test]
fn flipped_bits_never_panic() {
    let (mut bytes, header) = model().0.write();
    let mut refusals = 0;
    for bit in (0..header * 8).chain((header * 8..bytes.len() * 8).step_by(997)) {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Err(e) = load(bytes.clone()) {
            assert!(matches!(e.kind, Kind::Data | Kind::Config), "bit {bit}: {e}");
            refusals += 1;
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(refusals > header * 4, "{refusals} refusals of {} header bits", header * 8);
}

#[test]
fn lying_files_are_refused() {
    let (w, _) = model();
    let w = || w.clone();
    w().load().unwrap();
    let (q, emb) = ("blk.0.attn_q.weight", "token_embd.weight");
    let mut cases: Vec<(String, Writer)> = vec![
        ("wrong magic".into(), Writer { magic: *b"GGML", ..w() }),
        ("big endian".into(), Writer { version: 3u32.swap_bytes(), ..w() }),
        ("version 1".into(), Writer { version: 1, ..w() }),
        ("version 4".into(), Writer { version: 4, ..w() }),
        ("another architecture".into(), w().set("general.architecture", text("bert"))),
        ("scaled RoPE".into(), w().set("llama.rope.scaling.type", text("yarn"))),
        ("unknown pre-tokenizer".into(), w().set("tokenizer.ggml.pre", text("mystery"))),
        ("SentencePiece".into(), w().set("tokenizer.ggml.model", text("llama"))),
        ("types of other length".into(), w().set("tokenizer.ggml.token_type", i32s(&[1, 1]))),
        ("a token twice".into(), w().set("tokenizer.ggml.tokens", texts(&["a", "b", "ab", "a", "e"]))),
        ("a merge of one".into(), w().set("tokenizer.ggml.merges", texts(&["ab"]))),
        ("a merge of unknown tokens".into(), w().set("tokenizer.ggml.merges", texts(&["x y"]))),
        ("tokens of another type".into(), w().set("tokenizer.ggml.tokens", i32s(&[1, 2, 3, 4, 5]))),
        ("unknown metadata type".into(), w().set("x", Meta(13, vec![0; 8]))),
        ("text not UTF-8".into(), w().set("x", Meta(8, [&2u64.to_le_bytes()[..], &[0xff, 0xfe]].concat()))),
        (
            "nested arrays".into(),
            w().set("x", array(9, 1, &[array(9, 1, &[array(9, 0, &[]).1].concat()).1].concat())),
        ),
        ("array of unknown type".into(), w().set("x", array(77, 1, &[0; 64]))),
        ("a key twice".into(), {
            let mut x = w();
            x.meta.push(x.meta[0].clone());
            x
        }),
        ("a tensor twice".into(), {
            let mut x = w();
            x.tensors.push(x.tensors[0].clone());
            x
        }),
        ("unknown tensor".into(), w().tensor(q, |t| t.name = "blk.0.attn_q.bias".into())),
        ("tensor of no layer".into(), w().tensor(q, |t| t.name = "blk.9.attn_q.weight".into())),
        ("no dimensions".into(), w().tensor(q, |t| t.dims.clear())),
        ("five dimensions".into(), w().tensor(q, |t| t.dims = vec![32, 32, 1, 1, 1])),
        ("an empty tensor".into(), w().tensor(q, |t| t.dims = vec![32, 0])),
        ("rows that are no blocks".into(), w().tensor(q, |t| t.dims = vec![16, 64])),
        ("overlap".into(), w().tensor(q, |t| t.offset = Some(0))),
        ("unaligned offset".into(), w().tensor(q, |t| t.offset = Some(8))),
        ("another width".into(), w().tensor(emb, |t| t.dims = vec![160, 1])),
        ("NaN scale".into(), w().tensor(emb, |t| t.data[..2].copy_from_slice(&f16::NAN.to_le_bytes()))),
        (
            "infinite value".into(),
            w().tensor("output_norm.weight", |t| t.data[..4].copy_from_slice(&f32::INFINITY.to_le_bytes())),
        ),
        ("rope_freqs".into(), w().tensor(q, |t| t.name = "rope_freqs.weight".into())),
    ];
    for kind in [4, 6, 7, 9, 12, 16, 31, 255, u32::MAX] {
        cases.push((format!("tensor type {kind}"), w().tensor(q, |t| t.kind = kind)));
    }
    for a in [0, 3, 33, u32::MAX] {
        cases.push((format!("alignment {a}"), w().set("general.alignment", u32_(a))));
    }
    cases.push(("alignment 2^63".into(), w().set("general.alignment", u64_(1 << 63))));
    for n in [1 << 20, 1u64 << 32, 1 << 62, 1 << 63, (1 << 63) + 1, u64::MAX - 31, u64::MAX] {
        cases.push((format!("{n} tensors"), Writer { n_tensors: Some(n), ..w() }));
        cases.push((format!("{n} metadata entries"), Writer { n_meta: Some(n), ..w() }));
        cases.push((format!("offset {n}"), w().tensor(q, |t| t.offset = Some(n & !31))));
        cases.push((format!("a text of {n} bytes"), w().set("x", Meta(8, n.to_le_bytes().to_vec()))));
        for kind in 0..13 {
            cases.push((format!("{n} elements of type {kind}"), w().set("x", array(kind, n, &[0; 16]))));
        }
        for at in 0..2 {
            cases.push((format!("dimension {at} of {n}"), w().tensor(q, |t| t.dims[at] = n)));
        }
        cases.push((format!("both dimensions of {n}"), w().tensor(q, |t| t.dims = vec![n & !31; 2])));
        for key in [
            "embedding_length",
            "feed_forward_length",
            "block_count",
            "attention.head_count",
            "attention.head_count_kv",
        ] {
            cases.push((format!("{key} of {n}"), w().set(&format!("llama.{key}"), u64_(n))));
        }
        let heads = w().set("llama.attention.head_count", u64_(n)).set("llama.attention.key_length", u64_(2));
        cases.push((format!("{n} heads of 2"), heads));
    }
    for key in [
        "embedding_length",
        "feed_forward_length",
        "block_count",
        "attention.head_count",
        "attention.head_count_kv",
        "context_length",
    ] {
        cases.push((format!("{key} of 0"), w().set(&format!("llama.{key}"), u32_(0))));
        cases.push((
            format!("{key} of -1"),
            w().set(&format!("llama.{key}"), Meta(5, (-1i32).to_le_bytes().to_vec())),
        ));
        cases.push((format!("{key} as text"), w().set(&format!("llama.{key}"), text("8"))));
    }
    for key in ["attention.key_length", "rope.freq_base", "attention.layer_norm_rms_epsilon"] {
        cases.push((format!("{key} as text"), w().set(&format!("llama.{key}"), text("16"))));
    }
    cases.push(("pre-tokenizer as number".into(), w().set("tokenizer.ggml.pre", u32_(1))));
    for key in [
        "general.architecture",
        "llama.embedding_length",
        "llama.attention.head_count",
        "llama.feed_forward_length",
        "llama.block_count",
        "llama.context_length",
        "llama.attention.layer_norm_rms_epsilon",
        "tokenizer.ggml.model",
        "tokenizer.ggml.tokens",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.merges",
    ] {
        cases.push((format!("no {key}"), w().without(key)));
    }
    for i in 0..w().tensors.len() {
        let mut x = w();
        let lost = x.tensors.remove(i);
        cases.push((format!("no {}", lost.name), x));
    }
    let many: Vec<String> = (0..200).map(|i| format!("token{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let bigger =
        w().set("tokenizer.ggml.tokens", texts(&many)).set("tokenizer.ggml.token_type", i32s(&[1; 200]));
    cases.push(("a tokenizer of another model".into(), bigger.set("tokenizer.ggml.merges", texts(&[]))));
    for (what, x) in cases {
        refused(&what, || x.load());
    }
}
