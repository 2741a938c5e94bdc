//! Learning algorithms as pure functions over the seams of `ecr_core`: no model, no file, no clock.

pub mod agreement;
pub mod classify;
pub mod critic;
pub mod dpo;
pub mod grpo;
pub mod guards;
pub mod levels;
pub mod losses;
pub mod macpo;
pub mod mappo;
mod metrics;
pub mod ppo;
pub mod preference;
pub mod rloo;
pub mod rollout;
pub mod sft;
pub mod update;
pub mod value_fit;

pub use metrics::Metrics;
