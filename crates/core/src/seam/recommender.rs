//! Recommenders.

use crate::{ItemId, Utterance};

/// What a recommender may look at.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<'a> {
    /// Turns so far.
    pub context: &'a [Utterance],
    /// Films named so far, in order of first mention.
    pub mentioned: &'a [ItemId],
    /// Films the seeker turned down so far.
    pub rejected: &'a [ItemId],
}

/// An item and its score, best first.
pub type Ranked = (ItemId, f32);

/// Ranks the catalogue for a conversation.
pub trait Recommender: Send + Sync {
    /// The best `k` items, best first, ties by id; never an item of `mentioned`.
    fn rank(&self, query: Query<'_>, k: usize) -> Vec<Ranked>;
}
