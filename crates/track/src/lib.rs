//! Tracking without Python: W&B offline runs and TensorBoard event files, written as the mirror of a run's JSONL logs.
//!
//! The JSONL logs are the truth. A [`Tracker`] is told of their lines and writes what its formats do not hold yet, so a
//! run that was killed and repeats steps says nothing twice, and a log that exists already can be tracked afterwards.
//! A format that cannot be written is given up with one warning; nothing here stops a run.
//!
//! Knows no clock: the caller gives it.

pub mod crc;
pub mod framing;
pub mod histogram;
pub mod point;
pub mod proto;
pub mod redact;
pub mod sink;
pub mod tensorboard;
mod tracker;
pub mod wandb;

pub use sink::About;
pub use tracker::{Options, Tracker};
