//! Safetensors files: header and bounds are checked before any tensor is allocated; F64, F32, F16 and BF16 come
//! out as f32. Format: <https://github.com/huggingface/safetensors#format>.

use std::path::Path;

use ecr_core::{Error, Result, io};
use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::{Tensor, TensorMap};

/// Reads every tensor of a file.
pub fn read(path: &Path) -> Result<TensorMap> {
    parse(&io::read(path)?, &path.display().to_string())
}

/// Parses a file's bytes; `what` names it in errors.
///
/// # Errors
/// [`ecr_core::Kind::Data`] for a broken header, offsets outside the file or not covering it, an unknown number
/// type, and values that are NaN or infinite.
pub fn parse(bytes: &[u8], what: &str) -> Result<TensorMap> {
    let bad = |got: String| {
        Error::data(format!("read {what}"))
            .expected("a whole safetensors file")
            .got(got)
            .hint("the file is truncated or damaged: fetch or convert it again")
    };
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(bad("a Git LFS pointer".into()).hint("fetch the file itself: git lfs pull"));
    }
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02") {
        return Err(
            bad("a PyTorch pickle".into()).hint("put a .safetensors file there; pickles are not read")
        );
    }
    // The crate allows headers of 100 MB; a header can never be longer than the file.
    let header = bytes.first_chunk::<8>().map(|b| u64::from_le_bytes(*b));
    match header {
        None => return Err(bad(format!("{} bytes", bytes.len()))),
        Some(n) if n > bytes.len() as u64 - 8 => {
            return Err(bad(format!("a header of {n} bytes in a file of {} bytes", bytes.len())));
        }
        Some(_) => {}
    }
    let file = SafeTensors::deserialize(bytes).map_err(|e| bad(e.to_string()))?;
    // The crate keeps the last of two tensors with one name; which one was meant nobody knows.
    let end = 8 + header.unwrap_or(0) as usize;
    let Keys(mut names) = serde_json::from_slice(&bytes[8..end]).map_err(|e| bad(e.to_string()))?;
    names.sort_unstable();
    if let Some(w) = names.windows(2).find(|w| w[0] == w[1]) {
        return Err(bad(format!("tensor {} twice", w[0])));
    }
    let mut out = TensorMap::new();
    for (name, view) in file.iter() {
        let d = view.data();
        let data: Vec<f32> = match view.dtype() {
            Dtype::F32 => d.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            Dtype::F64 => d.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
            Dtype::F16 => d.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
            Dtype::BF16 => d.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            // Index buffers such as position_ids: no weights, of no interest.
            Dtype::I64 | Dtype::I32 | Dtype::BOOL | Dtype::U8 => continue,
            other => {
                return Err(Error::data(format!("read tensor {name} of {what}"))
                    .expected("numbers of type F32, F16, BF16 or F64")
                    .got(format!("{other}"))
                    .hint("convert the weights to one of these types"));
            }
        };
        if data.len() != view.shape().iter().product::<usize>() {
            return Err(bad(format!("tensor {name}: {} values for shape {:?}", data.len(), view.shape())));
        }
        check_finite(name, &data, what)?;
        out.insert(name.to_owned(), Tensor { shape: view.shape().to_vec(), data });
    }
    Ok(out)
}

/// Keys of a JSON object, repetitions included.
struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Keys;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }
        d.deserialize_map(Walk)
    }
}

/// Refuses weights that are not numbers.
pub(crate) fn check_finite(name: &str, data: &[f32], what: &str) -> Result<()> {
    match data.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(i) => Err(Error::data(format!("read tensor {name} of {what}"))
            .expected("finite values")
            .got(format!("{} at element {i}", data[i]))
            .hint("the file is damaged or the training that wrote it diverged")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut f = (header.len() as u64).to_le_bytes().to_vec();
        f.extend(header.as_bytes());
        f.extend(data);
        f
    }

    #[test]
    fn reads_every_float_type() {
        let h = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
            "b":{"dtype":"F16","shape":[1,1],"data_offsets":[4,6]},
            "c":{"dtype":"BF16","shape":[],"data_offsets":[6,8]},
            "d":{"dtype":"F64","shape":[1],"data_offsets":[8,16]}}"#;
        let mut d = 1.5f32.to_le_bytes().to_vec();
        d.extend(f16::from_f32(-0.25).to_le_bytes());
        d.extend(bf16::from_f32(3.0).to_le_bytes());
        d.extend(0.125f64.to_le_bytes());
        let t = parse(&file(h, &d), "test").unwrap();
        assert_eq!(t["a"].data, [1.5]);
        assert_eq!((t["b"].data[0], t["b"].shape.clone()), (-0.25, vec![1, 1]));
        assert_eq!((t["c"].data[0], t["c"].shape.len()), (3.0, 0));
        assert_eq!(t["d"].data, [0.125]);
    }
}
