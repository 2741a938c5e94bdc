//! The Llama family (SmolLM2 and others): RMSNorm, half-split rotary positions, grouped-query attention,
//! SwiGLU, tied or own head.

mod config;

pub(crate) use config::int;
pub use config::{LayerIndex, LlamaConfig};
