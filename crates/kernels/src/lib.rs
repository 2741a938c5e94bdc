//! CPU kernels: matrix products in three tiers (portable, AVX2+FMA, AVX-512 with bf16), chosen at run time.
//! The only crate with `unsafe`.
//!
//! Work is cut into pieces that do not depend on the number of threads, and reductions have a fixed order.

pub mod engine;
pub mod gemm;
pub mod math;

pub use engine::{Engine, PackedWeight, Precision, Tier, Weight};
pub use gemm::View;
