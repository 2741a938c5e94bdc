//! Rewards: text metrics, one file a component, and the composite that PPO trains on.
//!
//! Invariants: a component that does not apply is absent, never 0; an evaluation-only scorer never enters the
//! training reward; the normaliser's state is plain numbers that a checkpoint restores to the bit.

pub mod cached;
pub mod components;
pub mod composite;
pub mod gate;
pub mod panel;
#[cfg(test)]
mod panel_tests;
#[cfg(test)]
mod testing;
pub mod text;
