//! Emotion scorers.

use crate::Result;

/// The nine labels of ECR, in the order of their ids.
pub const EMOTIONS: [&str; 9] =
    ["like", "curious", "happy", "grateful", "negative", "neutral", "nostalgia", "agreement", "surprise"];

/// Probability of each of [`EMOTIONS`]; sums to 1.
pub type EmotionDistribution = [f32; 9];

/// A trained emotion classifier.
pub trait Emotion {
    /// Name and hash of the model, for logs.
    fn version(&self) -> String;
    /// Distribution over the nine labels for each text, `[texts]`.
    fn distribution(&mut self, texts: &[&str]) -> Result<Vec<EmotionDistribution>>;
}
