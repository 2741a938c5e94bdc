//! `bleu`: smoothed cumulative BLEU-4 of the reply against the human reply, 0..1; absent without one.
//!
//! Lower case, `13a` tokens (so that "film." matches "film"), NLTK's smoothing method 1. One reference makes
//! this nearly noise for dialogue (rl.md §7.2): it is a small anchor, not a goal.

use ecr_core::Result;
use ecr_core::seam::{Purpose, Reply, Reward};

use crate::text::bleu::{BleuCounts, Smoothing};
use crate::text::tokenizer_13a::tokenize_13a;

/// The `bleu` component.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bleu;

impl Reward for Bleu {
    fn name(&self) -> &'static str {
        "bleu"
    }
    fn range(&self) -> (f64, f64) {
        (0.0, 1.0)
    }
    fn version(&self) -> String {
        "bleu 1: cumulative-4, method 1, 13a lower".into()
    }
    fn purpose(&self) -> Purpose {
        Purpose::Train
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let one = |r: &Reply<'_>| {
            let reference = tokenize_13a(&r.reference?.to_lowercase());
            if reference.is_empty() {
                return None;
            }
            let reply = tokenize_13a(&r.text.to_lowercase());
            Some(BleuCounts::new(&reply, &[&reference]).cumulative(4, Smoothing::Method1).min(1.0))
        };
        Ok(batch.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::reply;

    #[test]
    fn more_overlap_scores_higher_and_no_reference_is_absent() {
        let human = "Have you seen Up (2009)? It is a lovely film.";
        let reference = Some(human);
        let texts = ["", "the the the the", "It is a film.", "Have you seen it? It is a lovely film.", human];
        let batch: Vec<_> = texts.iter().map(|t| Reply { reference, ..reply(t) }).collect();
        let s: Vec<f64> = Bleu.score(&batch).unwrap().into_iter().flatten().collect();
        assert!(s[0] == 0.0 && s[1] == 0.0 && s[2] < s[3] && s[3] < s[4], "{s:?}");
        assert!((s[4] - 1.0).abs() < 1e-12);
        assert_eq!(Bleu.score(&[reply("hello")]).unwrap(), [None]);
    }
}
