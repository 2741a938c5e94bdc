//! The seams: small traits at which the stages meet. Algorithms see models and rewards only through these,
//! so that each side can be tested with a toy of the other.

mod emotion;
mod encoder;
mod generator;
mod policy;
mod recommender;
mod reward;
mod token_mask;
mod value;

pub use emotion::{EMOTIONS, Emotion, EmotionDistribution};
pub use encoder::{Encoded, Encoder};
pub use generator::{Completion, Decoding, Generator};
pub use policy::{Pass, Policy, Scores};
pub use recommender::{Query, Ranked, Recommender};
pub use reward::{Label, Purpose, Reply, Reward};
pub use token_mask::TokenMask;
pub use value::Value;
