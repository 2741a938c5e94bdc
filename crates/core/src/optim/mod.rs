//! Optimiser pieces on flat buffers: AdamW, global-norm clipping, learning-rate schedules.

mod adamw;
mod clip;
mod schedule;

pub use adamw::AdamW;
pub use clip::{clip_grad_norm, grad_norm};
pub use schedule::Schedule;
