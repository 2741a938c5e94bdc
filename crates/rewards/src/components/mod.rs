//! Reward components: one file each, file name = config name.

pub mod bleu;
pub mod critic;
pub mod distinct;
pub mod empathy;
pub mod eos;
pub mod epitome;
pub mod external;
pub mod format;
pub mod knowledge;
pub mod length;
pub mod novelty;
pub mod own;
pub mod recommendation;
pub mod relevance;
pub mod repetition;
pub mod wrong_moment;
