//! Rewards of one reply.

use crate::{ItemId, Result, Utterance};

/// Whether a component may be trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// May be part of the training reward.
    Train,
    /// Evaluation only; training refuses it.
    Evaluate,
}

/// A film that the reference turn recommends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Label {
    /// The film.
    pub item: ItemId,
    /// Whether the seeker liked it; `None` = did not say.
    pub liked: Option<bool>,
}

/// One reply with everything that a reward may look at. Titles are filled in.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// Turns before the reply, oldest first.
    pub context: &'a [Utterance],
    /// The reply.
    pub text: &'a str,
    /// Whether it ended by itself (end token).
    pub finished: bool,
    /// Its length, tokens, the end token included.
    pub length: usize,
    /// The human reply, if known.
    pub reference: Option<&'a str>,
    /// Films that the human reply newly recommends; empty = not a recommending turn.
    pub labels: &'a [Label],
    /// Films named in the context.
    pub mentioned: &'a [ItemId],
    /// Films the seeker turned down.
    pub rejected: &'a [ItemId],
}

/// One reward component.
pub trait Reward {
    /// Config and log name, e.g. `bleu`; equals its file name.
    fn name(&self) -> &'static str;
    /// Least and greatest raw score.
    fn range(&self) -> (f64, f64);
    /// Changes whenever the same reply would score differently (code version, model hashes).
    fn version(&self) -> String;
    /// Training or evaluation only.
    fn purpose(&self) -> Purpose;
    /// Raw score of each reply of a batch, `[replies]`; `None` = not applicable (absent, not 0). The batch is
    /// visible as a whole because diversity is a property of the batch.
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>>;
    /// How many of the replies before this batch the score looks at; 0 for nearly all.
    fn memory(&self) -> usize {
        0
    }
    /// Takes those replies, oldest first, before [`Reward::score`]; whoever trains keeps them, in its checkpoints too.
    fn recall(&mut self, _recent: &[String]) {}
    /// What the score of one reply rests on, for people: the rule that applied, the classifier's answer. One line a
    /// fact; empty where the number says all.
    ///
    /// # Errors
    /// As [`Reward::score`].
    fn explain(&mut self, _reply: &Reply<'_>) -> Result<Vec<String>> {
        Ok(Vec::new())
    }
}
