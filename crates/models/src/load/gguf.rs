//! GGUF files (versions 2 and 3, little endian): F32, F16, BF16, Q8_0, Q4_0 and Q4_1 tensors, dequantised to f32.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! Nothing that the file says is believed: every count is checked against the bytes that are left before
//! anything is allocated, every offset against the file, every product against overflow.

use std::collections::BTreeMap;
use std::path::Path;

use ecr_core::{Error, Result, io};
use half::{bf16, f16};
use serde_json::{Value as Json, json};

use super::{Tensor, TensorMap, safetensors::check_finite};

/// Elements of all metadata arrays together (a vocabulary has 10⁵; this bounds memory).
const MAX_ARRAY_ELEMENTS: u64 = 1 << 21;
/// Metadata entries or tensors.
const MAX_ENTRIES: u64 = 1 << 17;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Unsigned integers.
    Uint(u64),
    /// Signed integers.
    Int(i64),
    /// Floats.
    Float(f64),
    /// Booleans.
    Bool(bool),
    /// Text.
    Text(String),
    /// A homogeneous array.
    Array(Vec<Value>),
}

/// Where a tensor lies in the file.
#[derive(Debug, Clone)]
struct Info {
    name: String,
    /// Row major, outermost first (GGUF writes innermost first).
    shape: Vec<usize>,
    kind: Quant,
    start: usize,
    bytes: usize,
}

/// Number formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quant {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
}

impl Quant {
    fn of(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            30 => Self::Bf16,
            _ => return None,
        })
    }
    /// Elements and bytes of a block.
    fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
        }
    }
    fn dequantise(self, raw: &[u8]) -> Vec<f32> {
        let half = |b: &[u8]| f16::from_le_bytes([b[0], b[1]]).to_f32();
        let (elements, bytes) = self.block();
        let mut out = Vec::with_capacity(raw.len() / bytes * elements);
        for b in raw.chunks_exact(bytes) {
            match self {
                Self::F32 => out.push(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
                Self::F16 => out.push(half(b)),
                Self::Bf16 => out.push(bf16::from_le_bytes([b[0], b[1]]).to_f32()),
                Self::Q8_0 => {
                    let d = half(b);
                    out.extend(b[2..].iter().map(|&q| f32::from(q as i8) * d));
                }
                Self::Q4_0 => {
                    let d = half(b);
                    out.extend(b[2..].iter().map(|&q| (f32::from(q & 15) - 8.0) * d));
                    out.extend(b[2..].iter().map(|&q| (f32::from(q >> 4) - 8.0) * d));
                }
                Self::Q4_1 => {
                    let (d, m) = (half(b), half(&b[2..]));
                    out.extend(b[4..].iter().map(|&q| f32::from(q & 15) * d + m));
                    out.extend(b[4..].iter().map(|&q| f32::from(q >> 4) * d + m));
                }
            }
        }
        out
    }
}

/// A parsed file: metadata, and where the tensors lie.
#[derive(Debug)]
pub struct Gguf {
    meta: BTreeMap<String, Value>,
    tensors: Vec<Info>,
    bytes: Vec<u8>,
    what: String,
}

/// Walks the header; every read is checked.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    elements_left: u64,
    what: &'a str,
}

fn damaged(what: &str, got: impl Into<String>) -> Error {
    Error::data(format!("read {what}"))
        .expected("a whole GGUF file")
        .got(got)
        .hint("the file is truncated or damaged: fetch it again")
}

impl Cursor<'_> {
    fn bad(&self, got: impl Into<String>) -> Error {
        damaged(self.what, got)
    }
    fn left(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }
    fn take(&mut self, n: u64, of: &str) -> Result<&[u8]> {
        if n > self.left() {
            return Err(self.bad(format!(
                "{of} of {n} bytes at byte {}, where {} bytes are left",
                self.at,
                self.left()
            )));
        }
        let s = &self.bytes[self.at..self.at + n as usize];
        self.at += n as usize;
        Ok(s)
    }
    fn array<const N: usize>(&mut self, of: &str) -> Result<[u8; N]> {
        let mut a = [0; N];
        a.copy_from_slice(self.take(N as u64, of)?);
        Ok(a)
    }
    fn u32(&mut self, of: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(of)?))
    }
    fn u64(&mut self, of: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(of)?))
    }
    fn text(&mut self, of: &str) -> Result<String> {
        let n = self.u64(of)?;
        let at = self.at;
        let raw = self.take(n, of)?.to_vec();
        String::from_utf8(raw).map_err(|_| self.bad(format!("{of} that is not UTF-8 at byte {at}")))
    }
    fn value(&mut self, kind: u32, depth: usize) -> Result<Value> {
        Ok(match kind {
            0 => Value::Uint(u64::from(self.array::<1>("u8")?[0])),
            1 => Value::Int(i64::from(self.array::<1>("i8")?[0] as i8)),
            2 => Value::Uint(u64::from(u16::from_le_bytes(self.array("u16")?))),
            3 => Value::Int(i64::from(i16::from_le_bytes(self.array("i16")?))),
            4 => Value::Uint(u64::from(self.u32("u32")?)),
            5 => Value::Int(i64::from(i32::from_le_bytes(self.array("i32")?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array("f32")?))),
            7 => Value::Bool(self.array::<1>("bool")?[0] != 0),
            8 => Value::Text(self.text("a text")?),
            9 => {
                let (kind, n) = (self.u32("array type")?, self.u64("array length")?);
                let least: u64 = match kind {
                    0 | 1 | 7 => 1,
                    2 | 3 => 2,
                    4..=6 => 4,
                    9 => 12,
                    _ => 8,
                };
                if depth >= 2 || n > self.left() / least || n > self.elements_left {
                    return Err(self.bad(format!("an array of {n} elements at byte {}", self.at)));
                }
                self.elements_left -= n;
                let mut v = Vec::with_capacity(n as usize);
                for _ in 0..n {
                    v.push(self.value(kind, depth + 1)?);
                }
                Value::Array(v)
            }
            10 => Value::Uint(self.u64("u64")?),
            11 => Value::Int(i64::from_le_bytes(self.array("i64")?)),
            12 => Value::Float(f64::from_le_bytes(self.array("f64")?)),
            other => return Err(self.bad(format!("metadata type {other} at byte {}", self.at))),
        })
    }
}

impl Gguf {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(io::read(path)?, &path.display().to_string())
    }

    /// Parses a file's bytes; `what` names it in errors. No tensor is dequantised yet.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Data`] for anything that does not fit together.
    pub fn parse(bytes: Vec<u8>, what: &str) -> Result<Self> {
        let mut c = Cursor { bytes: &bytes, at: 0, elements_left: MAX_ARRAY_ELEMENTS, what };
        if c.array::<4>("magic")? != *b"GGUF" {
            return Err(damaged(what, "another kind of file (it does not begin with GGUF)"));
        }
        let version = c.u32("version")?;
        if !(2..=3).contains(&version) {
            return Err(damaged(what, format!("GGUF version {version}; 2 and 3 are read")));
        }
        let (n_tensors, n_meta) = (c.u64("tensor count")?, c.u64("metadata count")?);
        // An entry takes at least 13 bytes (key length, type, value), a tensor 24.
        if n_meta > MAX_ENTRIES
            || n_meta > c.left() / 13
            || n_tensors > MAX_ENTRIES
            || n_tensors > c.left() / 24
        {
            return Err(damaged(
                what,
                format!("{n_meta} metadata entries and {n_tensors} tensors announced"),
            ));
        }
        let mut meta = BTreeMap::new();
        for _ in 0..n_meta {
            let key = c.text("a metadata key")?;
            let kind = c.u32("metadata type")?;
            let value = c.value(kind, 0)?;
            if meta.insert(key.clone(), value).is_some() {
                return Err(damaged(what, format!("metadata key {key} twice")));
            }
        }
        let align = match meta.get("general.alignment") {
            None => 32,
            Some(Value::Uint(a)) if a.is_power_of_two() && (1..=1 << 20).contains(a) => *a as usize,
            Some(other) => return Err(damaged(what, format!("general.alignment {other:?}"))),
        };
        let mut announced = Vec::new();
        for _ in 0..n_tensors {
            let name = c.text("a tensor name")?;
            let dims = c.u32("dimension count")?;
            if !(1..=4).contains(&dims) {
                return Err(damaged(what, format!("tensor {name} with {dims} dimensions")));
            }
            let mut shape = Vec::new();
            for _ in 0..dims {
                shape.push(c.u64("a dimension")?);
            }
            let kind = c.u32("tensor type")?;
            announced.push((name, shape, kind, c.u64("tensor offset")?));
        }
        let data = c.at.next_multiple_of(align);
        let mut tensors: Vec<Info> = Vec::new();
        for (name, dims, code, offset) in announced {
            let bad = |got: String| damaged(what, format!("tensor {name}: {got}"));
            let kind = Quant::of(code).ok_or_else(|| {
                Error::data(format!("read tensor {name} of {what}"))
                    .expected("a tensor of type F32, F16, BF16, Q8_0, Q4_0 or Q4_1")
                    .got(format!("GGUF tensor type {code}"))
                    .hint("use a file quantised to one of these types")
            })?;
            let (per, block) = kind.block();
            if dims[0] % per as u64 != 0 {
                return Err(bad(format!("rows of {} elements in blocks of {per}", dims[0])));
            }
            let elements = dims.iter().try_fold(1u64, |a, &d| a.checked_mul(d));
            let size = elements.and_then(|e| (e / per as u64).checked_mul(block as u64));
            let (Some(elements), Some(size)) = (elements, size) else {
                return Err(bad(format!("dimensions {dims:?} overflow")));
            };
            let end = offset.checked_add(size).and_then(|e| e.checked_add(data as u64));
            if elements == 0 || offset % align as u64 != 0 || end.is_none_or(|e| e > bytes.len() as u64) {
                return Err(bad(format!(
                    "{size} bytes at offset {offset} of the data, which has {} bytes",
                    bytes.len().saturating_sub(data)
                )));
            }
            let shape = dims.iter().rev().map(|&d| d as usize).collect();
            tensors.push(Info { name, shape, kind, start: data + offset as usize, bytes: size as usize });
        }
        let mut order: Vec<&Info> = tensors.iter().collect();
        order.sort_by_key(|t| t.start);
        if let Some(w) = order.windows(2).find(|w| w[0].start + w[0].bytes > w[1].start) {
            return Err(damaged(what, format!("tensors {} and {} overlap", w[0].name, w[1].name)));
        }
        let mut names: Vec<&str> = tensors.iter().map(|t| t.name.as_str()).collect();
        names.sort_unstable();
        if let Some(w) = names.windows(2).find(|w| w[0] == w[1]) {
            return Err(damaged(what, format!("tensor {} twice", w[0])));
        }
        Ok(Self { meta, tensors, what: what.to_owned(), bytes })
    }

    /// A metadata value.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.meta.get(key)
    }
    /// A text.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::Text(s) => Some(s),
            _ => None,
        }
    }
    /// A non-negative integer.
    pub fn uint(&self, key: &str) -> Option<u64> {
        match *self.get(key)? {
            Value::Uint(n) => Some(n),
            Value::Int(n) => u64::try_from(n).ok(),
            _ => None,
        }
    }
    /// A number.
    pub fn float(&self, key: &str) -> Option<f64> {
        match *self.get(key)? {
            Value::Float(x) => Some(x),
            _ => self.uint(key).map(|n| n as f64),
        }
    }
    /// An array of texts.
    pub fn texts(&self, key: &str) -> Option<Vec<&str>> {
        let Value::Array(v) = self.get(key)? else { return None };
        v.iter().map(|x| if let Value::Text(s) = x { Some(s.as_str()) } else { None }).collect()
    }
    /// An array of integers.
    pub fn ints(&self, key: &str) -> Option<Vec<i64>> {
        let Value::Array(v) = self.get(key)? else { return None };
        v.iter()
            .map(|x| match *x {
                Value::Int(n) => Some(n),
                Value::Uint(n) => i64::try_from(n).ok(),
                _ => None,
            })
            .collect()
    }
    fn need<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| {
            Error::data(format!("read {}", self.what))
                .expected(format!("metadata {key}"))
                .got(if self.meta.contains_key(key) { "a value of another type" } else { "no such entry" })
        })
    }
    /// An optional value: absent is the default, another type an error.
    fn or<T>(&self, key: &str, value: Option<T>, default: T) -> Result<T> {
        if self.meta.contains_key(key) { self.need(key, value) } else { Ok(default) }
    }
    fn uint_or(&self, key: &str, default: u64) -> Result<u64> {
        self.or(key, self.uint(key), default)
    }
    fn need_uint(&self, key: &str) -> Result<u64> {
        self.need(key, self.uint(key))
    }

    /// The model's shape as a HuggingFace `config.json` of a Llama.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Data`] for another architecture or missing or impossible values.
    pub fn config_json(&self) -> Result<Json> {
        let arch = self.need("general.architecture", self.text("general.architecture"))?;
        if arch != "llama" {
            return Err(Error::data(format!("read {}", self.what))
                .expected("a model of the llama family")
                .got(arch));
        }
        let (d, heads) =
            (self.need_uint("llama.embedding_length")?, self.need_uint("llama.attention.head_count")?);
        let kv = self.uint_or("llama.attention.head_count_kv", heads)?;
        let head_dim = self.uint_or("llama.attention.key_length", d / heads.max(1))?;
        let theta = self.or("llama.rope.freq_base", self.float("llama.rope.freq_base"), 10_000.0)?;
        let tied = !self.tensors.iter().any(|t| t.name == "output.weight");
        let vocab = self
            .tensors
            .iter()
            .find(|t| t.name == "token_embd.weight" && t.shape.len() == 2)
            .map(|t| t.shape[0] as u64);
        let vocab = self.need("the tensor token_embd.weight", vocab)?;
        for scaling in ["llama.rope.scaling.type", "llama.rope.scaling.factor"] {
            if self.text(scaling).is_some_and(|s| s != "none")
                || self.float(scaling).is_some_and(|f| f != 1.0)
            {
                return Err(Error::data(format!("read {}", self.what)).expected("plain RoPE").got(scaling));
            }
        }
        // f32 in the file: 9 digits give back 1e-5 rather than 9.99999974e-6.
        let eps = self.float("llama.attention.layer_norm_rms_epsilon");
        let eps = self.need("llama.attention.layer_norm_rms_epsilon", eps)?;
        let id = |key: &str| self.uint(&format!("tokenizer.ggml.{key}_token_id"));
        Ok(json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "hidden_size": d,
            "intermediate_size": self.need_uint("llama.feed_forward_length")?,
            "num_hidden_layers": self.need_uint("llama.block_count")?,
            "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": head_dim, "hidden_act": "silu",
            "max_position_embeddings": self.need_uint("llama.context_length")?,
            "rms_norm_eps": (eps * 1e9).round() / 1e9,
            "rope_theta": theta,
            "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": tied,
            "bos_token_id": id("bos"), "eos_token_id": id("eos"), "pad_token_id": id("padding").or(id("eos")),
        }))
    }

    /// All tensors under HuggingFace names, q and k rows back in half-split RoPE order.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Data`] for an unknown tensor name, impossible head counts, or values that are not finite.
    pub fn tensors(&self) -> Result<TensorMap> {
        let heads = self.need_uint("llama.attention.head_count")? as usize;
        let kv = self.uint_or("llama.attention.head_count_kv", heads as u64)? as usize;
        let mut out = TensorMap::new();
        for t in &self.tensors {
            if t.name.starts_with("rope_freqs") {
                return Err(Error::data(format!("read {}", self.what))
                    .expected("plain RoPE")
                    .got("rope_freqs"));
            }
            let name = hf_name(&t.name).ok_or_else(|| {
                Error::data(format!("read {}", self.what))
                    .expected("tensors of the llama family")
                    .got(&t.name)
            })?;
            let mut data = t.kind.dequantise(&self.bytes[t.start..t.start + t.bytes]);
            check_finite(&t.name, &data, &self.what)?;
            let n = if t.name.ends_with("attn_q.weight") {
                heads
            } else if t.name.ends_with("attn_k.weight") {
                kv
            } else {
                0
            };
            if n > 0 || t.name.ends_with("attn_q.weight") || t.name.ends_with("attn_k.weight") {
                // The head count is the file's word: 2·n may not even be a number.
                let rows = t.shape[0];
                if n == 0
                    || t.shape.len() != 2
                    || n > rows
                    || !rows.is_multiple_of(n)
                    || !(rows / n).is_multiple_of(2)
                {
                    return Err(damaged(
                        &self.what,
                        format!("{} of shape {:?} with {n} heads", t.name, t.shape),
                    ));
                }
                data = half_split(&data, n, t.shape[0], t.shape[1]);
            }
            out.insert(name, Tensor { shape: t.shape.clone(), data });
        }
        Ok(out)
    }

    /// The tokenizer as a HuggingFace `tokenizer.json` (byte-level BPE only).
    ///
    /// # Errors
    /// [`ecr_core::Kind::Data`] for another kind of tokenizer or an unknown pre-tokenizer: never guessed.
    pub fn tokenizer_json(&self) -> Result<Json> {
        let model = self.need("tokenizer.ggml.model", self.text("tokenizer.ggml.model"))?;
        let pre = self.or("tokenizer.ggml.pre", self.text("tokenizer.ggml.pre"), "default")?;
        let byte_level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let pre_tokenizer = match (model, pre) {
            ("gpt2", "smollm") => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true}, byte_level(true)]}),
            ("gpt2", "gpt-2") => byte_level(true),
            // llama.cpp's rules for "default": each splits what the one before left (llama-vocab.cpp).
            ("gpt2", "default") => {
                let split = |r: &str| json!({"type": "Split", "pattern": {"Regex": r}, "behavior": "Isolated", "invert": false});
                json!({"type": "Sequence", "pretokenizers": [
                    split(r"[\p{P}\$\+<=>\^~\|]+"),
                    split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
                    split(r"\p{N}+"), split(r"[0-9][0-9][0-9]"), byte_level(false)]})
            }
            _ => {
                return Err(Error::data(format!("read the tokenizer of {}", self.what))
                    .expected("tokenizer.ggml.model gpt2 with pre-tokenizer smollm, gpt-2 or default")
                    .got(format!("{model} with {pre}"))
                    .hint("use the model's HuggingFace directory instead"));
            }
        };
        let tokens = self.need("tokenizer.ggml.tokens", self.texts("tokenizer.ggml.tokens"))?;
        let merges = self.need("tokenizer.ggml.merges", self.texts("tokenizer.ggml.merges"))?;
        let types = self.need("tokenizer.ggml.token_type", self.ints("tokenizer.ggml.token_type"))?;
        if types.len() != tokens.len() {
            return Err(damaged(
                &self.what,
                format!("{} token types for {} tokens", types.len(), tokens.len()),
            ));
        }
        // Token types: 3 control, 4 user defined (ggml's enum).
        let added: Vec<Json> = tokens
            .iter()
            .zip(&types)
            .enumerate()
            .filter(|(_, (_, t))| matches!(t, 3 | 4))
            .map(|(i, (t, kind))| {
                json!({"id": i, "content": t, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": *kind == 3})
            })
            .collect();
        let vocab: serde_json::Map<String, Json> =
            tokens.iter().enumerate().map(|(i, t)| ((*t).to_owned(), json!(i))).collect();
        if vocab.len() != tokens.len() {
            return Err(damaged(&self.what, "a token twice in the vocabulary"));
        }
        let merges: Vec<Json> = merges
            .iter()
            .map(|m| m.split_once(' ').map(|(a, b)| json!([a, b])))
            .collect::<Option<_>>()
            .ok_or_else(|| damaged(&self.what, "a merge that is not two tokens"))?;
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": byte_level(true),
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocab, "merges": merges}
        }))
    }

    /// What `tokenizer_config.json` would say: special tokens and the chat template.
    pub fn tokenizer_config_json(&self) -> Json {
        let tokens = self.texts("tokenizer.ggml.tokens").unwrap_or_default();
        let token = |key: &str| {
            let id = self.uint(&format!("tokenizer.ggml.{key}_token_id"))?;
            tokens.get(usize::try_from(id).ok()?).map(|s| (*s).to_owned())
        };
        json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": token("bos"), "eos_token": token("eos"),
            "pad_token": token("padding").or(token("eos")), "unk_token": token("unknown"),
            "model_max_length": self.uint("llama.context_length"), "clean_up_tokenization_spaces": false,
            "chat_template": self.text("tokenizer.chat_template"),
        })
    }
}

/// `blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`.
fn hf_name(name: &str) -> Option<String> {
    let p: Vec<&str> = name.split('.').collect();
    Some(match p[..] {
        ["token_embd", "weight"] => "model.embed_tokens.weight".into(),
        ["output_norm", "weight"] => "model.norm.weight".into(),
        ["output", "weight"] => "lm_head.weight".into(),
        ["blk", i, part, "weight"] => {
            i.parse::<u32>().ok()?;
            let part = match part {
                "attn_norm" => "input_layernorm",
                "ffn_norm" => "post_attention_layernorm",
                "attn_q" => "self_attn.q_proj",
                "attn_k" => "self_attn.k_proj",
                "attn_v" => "self_attn.v_proj",
                "attn_output" => "self_attn.o_proj",
                "ffn_gate" => "mlp.gate_proj",
                "ffn_up" => "mlp.up_proj",
                "ffn_down" => "mlp.down_proj",
                _ => return None,
            };
            format!("model.layers.{i}.{part}.weight")
        }
        _ => return None,
    })
}

/// Undoes llama.cpp's row order: rows `(head, pair, 2)` → `(head, 2, pair)`; `w` is `[rows, d]`.
fn half_split(w: &[f32], heads: usize, rows: usize, d: usize) -> Vec<f32> {
    let pairs = rows / heads / 2;
    let mut out = Vec::with_capacity(w.len());
    for h in 0..heads {
        for s in 0..2 {
            for p in 0..pairs {
                let r = (h * pairs + p) * 2 + s;
                out.extend_from_slice(&w[r * d..(r + 1) * d]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_dequantised() {
        let d = f16::from_f32(0.5).to_le_bytes();
        let m = f16::from_f32(-1.0).to_le_bytes();
        let mut q8 = d.to_vec();
        q8.extend((0..32).map(|i| (i as i8 - 16) as u8));
        assert_eq!(Quant::Q8_0.dequantise(&q8)[..3], [-8.0, -7.5, -7.0]);
        let mut q4 = d.to_vec();
        q4.extend((0..16).map(|i| i | (15 - i) << 4));
        let x = Quant::Q4_0.dequantise(&q4);
        assert_eq!((x[0], x[15], x[16], x[31]), (-4.0, 3.5, 3.5, -4.0));
        let mut q41 = d.to_vec();
        q41.extend(m);
        q41.extend((0..16).map(|i| i | (15 - i) << 4));
        let x = Quant::Q4_1.dequantise(&q41);
        assert_eq!((x[0], x[15], x[16], x[31]), (-1.0, 6.5, 6.5, -1.0));
    }

    #[test]
    fn rows_return_to_half_split_order() {
        // Two heads of four rows, one column: llama.cpp stores (0, 2, 1, 3) of each head.
        assert_eq!(half_split(&[0., 2., 1., 3., 4., 6., 5., 7.], 2, 8, 1), [0., 1., 2., 3., 4., 5., 6., 7.]);
    }
}
