//! Experiments: runs that differ in one setting, several seeds each, and what that did.

pub mod critic_warmstart;
