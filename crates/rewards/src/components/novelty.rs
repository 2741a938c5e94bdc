//! `novelty`: how little a reply repeats what was said to others before, 0..1.
//!
//! Σ over the reply's distinct bigrams g of 1 / (1 + c(g)), divided by all its bigrams, where c counts the other replies
//! that have g: those of the batch and the last [`MEMORY`] before it. It is, up to sampling, what the reply adds to
//! distinct-2 over a few hundred replies (Li et al. 2016), which a batch alone is too small to show: a film named in one
//! reply of thirteen is rare in a batch of 32, and worn out after 500. Multiplied by min(1, tokens / 5), since short text
//! is new for free. Lower-case white-space tokens; a one-word reply counts by its word.

use ecr_core::Result;
use ecr_core::seam::{Purpose, Reply, Reward};
use rustc_hash::{FxHashMap, FxHashSet};

/// Replies looked back at: about as many as an evaluation compares.
pub const MEMORY: usize = 512;

/// Replies shorter than this, tokens, are scaled down in proportion.
const FULL_LENGTH: usize = 5;

/// The `novelty` component.
#[derive(Debug, Clone, Default)]
pub struct Novelty {
    /// How many of the recalled replies have a bigram.
    before: FxHashMap<(String, String), u32>,
}

/// A reply's distinct bigrams, and how many it has in all.
fn bigrams(text: &str) -> (FxHashSet<(String, String)>, usize, usize) {
    let lower = text.to_lowercase();
    let tokens: Vec<&str> = lower.split_whitespace().collect();
    let pair = |w: &[&str]| (w[0].to_owned(), w.get(1).copied().unwrap_or_default().to_owned());
    let own = tokens.windows(tokens.len().clamp(1, 2)).map(pair).collect();
    (own, tokens.len().saturating_sub(1).max(1), tokens.len())
}

impl Reward for Novelty {
    fn name(&self) -> &'static str {
        "novelty"
    }
    fn range(&self) -> (f64, f64) {
        (0.0, 1.0)
    }
    fn version(&self) -> String {
        format!("novelty 1: bigrams against batch and {MEMORY} before, length {FULL_LENGTH}")
    }
    fn purpose(&self) -> Purpose {
        Purpose::Train
    }
    fn memory(&self) -> usize {
        MEMORY
    }
    fn recall(&mut self, recent: &[String]) {
        self.before.clear();
        for text in recent {
            bigrams(text).0.into_iter().for_each(|g| *self.before.entry(g).or_insert(0) += 1);
        }
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let all: Vec<_> = batch.iter().map(|r| bigrams(r.text)).collect();
        let mut holders: FxHashMap<&(String, String), u32> = FxHashMap::default();
        for g in all.iter().flat_map(|(own, ..)| own) {
            *holders.entry(g).or_insert(0) += 1;
        }
        // The reply itself is among the holders: they are 1 + the others of the batch.
        let rarity =
            |g: &(String, String)| 1.0 / f64::from(holders[g] + self.before.get(g).copied().unwrap_or(0));
        let one = |(own, total, tokens): &(FxHashSet<_>, usize, usize)| {
            let guard = (*tokens).min(FULL_LENGTH) as f64 / FULL_LENGTH as f64;
            // Summed in order of size: a set has none of its own, and sums depend on it.
            let mut parts: Vec<f64> = own.iter().map(&rarity).collect();
            parts.sort_by(f64::total_cmp);
            Some(guard * parts.iter().sum::<f64>() / *total as f64)
        };
        Ok(all.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::reply;

    #[test]
    fn what_was_said_before_is_worth_less_each_time() {
        let text = "you might enjoy a quiet drama";
        let after = |before: &[&str]| {
            let mut c = Novelty::default();
            c.recall(&before.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
            c.score(&[reply(text)]).unwrap()[0].unwrap()
        };
        assert_eq!(after(&[]), 1.0);
        assert_eq!(after(&[text]), 0.5);
        assert_eq!(after(&[text, "unlike anything", text, "You Might ENJOY a quiet drama"]), 0.25);
        // One of five bigrams is known: 4 + 1/2 of 5.
        assert_eq!(after(&["a quiet evening"]), 0.9);
    }

    #[test]
    fn the_batch_counts_and_short_or_repeating_text_gains_nothing() {
        let score = |texts: &[&str]| -> Vec<f64> {
            let batch: Vec<_> = texts.iter().map(|t| reply(t)).collect();
            Novelty::default().score(&batch).unwrap().into_iter().flatten().collect()
        };
        let text = "you might enjoy a quiet drama";
        assert_eq!(score(&[text, text]), [0.5, 0.5]);
        assert_eq!(score(&["", "yes", "oh yes"]), [0.0, 0.2, 0.4]);
        assert!(score(&["the the the the the the"])[0] <= 0.2);
    }
}
