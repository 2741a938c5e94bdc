//! Reward components: one file each, file name = config name.

pub mod bleu;
pub mod distinct;
pub mod empathy;
pub mod format;
pub mod recommendation;
