//! What a conversation is made of.

use serde::{Deserialize, Serialize};

/// A film of the catalogue (ReDial's movie id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemId(pub u32);

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Wants a film.
    Seeker,
    /// Recommends one.
    Recommender,
}

/// One turn of a conversation, titles filled in as `Title (Year)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Utterance {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub text: String,
}
