//! The header, every read checked.

use std::collections::BTreeMap;

use ecr_core::{Error, Result};

use super::{Gguf, Info, Quant, Value, damaged};

/// Elements of all metadata arrays together (a vocabulary has 10⁵; this bounds memory).
const MAX_ARRAY_ELEMENTS: u64 = 1 << 21;
/// Metadata entries or tensors.
const MAX_ENTRIES: u64 = 1 << 17;

/// Walks the header; every read is checked.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    elements_left: u64,
    what: &'a str,
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
}
