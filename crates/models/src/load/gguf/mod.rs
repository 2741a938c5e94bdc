//! GGUF files (versions 2 and 3, little endian): F32, F16, BF16, Q8_0, Q4_0 and Q4_1 tensors, dequantised to f32.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! Nothing that the file says is believed: every count is checked against the bytes that are left before
//! anything is allocated, every offset against the file, every product against overflow.

//!
//! `parse`: the header · `quant`: number formats · `weights`: shape and tensors under HuggingFace names · `tokenizer`:
//! its tokenizer rebuilt.

mod parse;
mod quant;
mod tokenizer;
mod weights;

use std::collections::BTreeMap;
use std::path::Path;

use ecr_core::{Error, Result, io};

use quant::Quant;

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

/// A parsed file: metadata, and where the tensors lie.
#[derive(Debug)]
pub struct Gguf {
    meta: BTreeMap<String, Value>,
    tensors: Vec<Info>,
    bytes: Vec<u8>,
    what: String,
}

fn damaged(what: &str, got: impl Into<String>) -> Error {
    Error::data(format!("read {what}"))
        .expected("a whole GGUF file")
        .got(got)
        .hint("the file is truncated or damaged: fetch it again")
}

impl Gguf {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(io::read(path)?, &path.display().to_string())
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
}
