//! Reading models: safetensors, HuggingFace directories, GGUF, PEFT adapters, and where a name lies on disk.

pub mod gguf;
pub mod hf_dir;
pub mod peft;
pub mod resolve;
pub mod safetensors;

use std::collections::BTreeMap;
use std::sync::Arc;

use ecr_core::{Error, Layout, Params, Result};

pub use hf_dir::{Architecture, LoadedModel, load_model};
pub use resolve::{resolve_model, resolve_weights};

/// One tensor read from a file, row major, as f32.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Row-major shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Values, as many as the shape says.
    pub data: Vec<f32>,
}

/// Tensors of a file by name.
pub type TensorMap = BTreeMap<String, Tensor>;

/// Fills a layout from named tensors, taking them out of `tensors`; what is left over is the caller's to judge.
///
/// # Errors
/// [`ecr_core::Kind::Data`] for a missing tensor or one of another shape.
pub fn fill_params(layout: &Arc<Layout>, tensors: &mut TensorMap, what: &str) -> Result<Params> {
    // Everything is compared before anything is allocated: a shape is only believed once the file holds it.
    for spec in &layout.tensors {
        let t = tensors.get(&spec.name).ok_or_else(|| {
            Error::data(format!("load {what}"))
                .expected(format!("a tensor {} of shape {:?}", spec.name, spec.shape))
                .got(format!("no such tensor; left in the file: {}", some_names(tensors)))
                .hint("the file is incomplete or belongs to another architecture")
        })?;
        if t.shape != spec.shape {
            return Err(Error::data(format!("load {what}"))
                .expected(format!("{} of shape {:?}, as config.json says", spec.name, spec.shape))
                .got(format!("shape {:?}", t.shape))
                .hint("config.json and the weights do not belong together"));
        }
    }
    let mut params = Params::zeros(layout.clone());
    for spec in &layout.tensors {
        if let Some(t) = tensors.remove(&spec.name) {
            params.data[spec.range()].copy_from_slice(&t.data);
        }
    }
    Ok(params)
}

/// A few names for an error message.
pub(crate) fn some_names(tensors: &TensorMap) -> String {
    let mut s = tensors.keys().take(4).cloned().collect::<Vec<_>>().join(", ");
    if tensors.is_empty() {
        s.push_str("none");
    } else if tensors.len() > 4 {
        s.push_str(&format!(", … ({} in all)", tensors.len()));
    }
    s
}
