//! The Llama family (SmolLM2 and others): RMSNorm, half-split rotary positions, grouped-query attention,
//! SwiGLU, tied or own head.

mod config;
mod model;
mod weights;

pub use config::{LayerIndex, LlamaConfig};
pub(crate) use config::{int, real};
pub use model::{Llama, no_adapter};
pub(crate) use weights::Weights;
pub use weights::{Base, Frozen};
