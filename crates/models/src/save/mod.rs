//! Writing models: HuggingFace directories and PEFT adapters. Every file is written atomically.

pub mod hf_dir;
pub mod peft;

use std::collections::HashMap;
use std::path::Path;

use ecr_core::{Error, Params, Result, io};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::Value as Json;

pub use hf_dir::{TokenizerFiles, save_model, tokenizer_config};
pub use peft::save_adapter;

/// Named f32 tensors as the bytes of a safetensors file.
///
/// # Errors
/// [`ecr_core::Kind::Internal`] if a shape does not fit its values.
pub fn safetensors_bytes(tensors: &[(&str, &[usize], &[f32])]) -> Result<Vec<u8>> {
    let raw: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, x)| x.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let fail = |e: safetensors::SafeTensorError| Error::internal("write safetensors").got(e.to_string());
    let views = tensors
        .iter()
        .zip(&raw)
        .map(|((name, shape, _), b)| Ok((*name, TensorView::new(Dtype::F32, shape.to_vec(), b)?)))
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(fail)?;
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(metadata)).map_err(fail)
}

/// Writes the values of parameters as one safetensors file, each name with `prefix` before it.
pub fn save_params(path: &Path, params: &Params, prefix: &str) -> Result<()> {
    let names: Vec<String> = params.layout.tensors.iter().map(|t| format!("{prefix}{}", t.name)).collect();
    let list: Vec<(&str, &[usize], &[f32])> = params
        .layout
        .tensors
        .iter()
        .zip(&names)
        .map(|(t, n)| (n.as_str(), t.shape.as_slice(), &params.data[t.range()]))
        .collect();
    io::atomic_write(path, &safetensors_bytes(&list)?)
}

/// Writes pretty JSON with a newline at the end.
pub(crate) fn save_json(path: &Path, v: &Json) -> Result<()> {
    io::atomic_write(path, format!("{v:#}\n").as_bytes())
}
