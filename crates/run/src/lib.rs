//! Runs: configuration, the stage graph and its stages, checkpoints, logs.
//!
//! The only crate that reads configuration, the environment and the clock. Stages call pure algorithms over the
//! seams, write results atomically, and continue from their last checkpoint.

pub mod auditing;
pub mod cache;
pub mod checkpoint;
pub mod config;
pub mod critic;
pub mod curriculum;
pub mod diagnose;
pub mod experiments;
pub mod explaining;
pub mod graph;
pub mod guarding;
pub mod interrupt;
pub mod judges;
pub mod lm;
pub mod log;
pub mod measure;
pub mod preferences;
pub mod prompting;
pub mod rewarding;
pub mod rundir;
pub mod sampler;
pub mod scorers;
pub mod selecting;
pub mod stages;
pub mod tracking;
pub mod world;
