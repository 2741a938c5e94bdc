//! `format`: 1 for a well-formed reply, less for each fault, 0 at worst.
//!
//! Faults: empty 1; fewer than 3 words .5; repeated 3-grams, their share; not ended by the end token .25; an
//! unfilled `<movie>` slot .5; garbage (replacement or control characters, chat markup, hardly any letters) .5.

use ecr_core::Result;
use ecr_core::seam::{Purpose, Reply, Reward};
use rustc_hash::FxHashSet;

/// The `format` component.
#[derive(Debug, Clone, Copy, Default)]
pub struct Format;

/// Share of the 3-grams of `text` that occurred before in it, 0..1.
pub fn repeated_trigrams(text: &str) -> f64 {
    let lower = text.to_lowercase();
    let tokens: Vec<&str> = lower.split_whitespace().collect();
    let distinct: FxHashSet<&[&str]> = tokens.windows(3).collect();
    let total = (tokens.len() + 1).saturating_sub(3);
    if total == 0 { 0.0 } else { 1.0 - distinct.len() as f64 / total as f64 }
}

/// Whether a `<movie>` slot was left unfilled.
pub fn unfilled_slot(text: &str) -> bool {
    text.contains("<movie>") || text.contains("<mask>")
}

/// Whether the text is hardly a sentence of any language, or has markup of a chat template in it.
pub fn garbage(text: &str) -> bool {
    let bad = |c: char| c == '\u{fffd}' || (c.is_control() && !c.is_whitespace());
    let all = text.chars().filter(|c| !c.is_whitespace()).count();
    let letters = text.chars().filter(|c| c.is_alphanumeric()).count();
    text.chars().any(bad) || text.contains("<|") || (all > 0 && letters * 2 < all)
}

impl Reward for Format {
    fn name(&self) -> &'static str {
        "format"
    }
    fn range(&self) -> (f64, f64) {
        (0.0, 1.0)
    }
    fn version(&self) -> String {
        "format 1".into()
    }
    fn purpose(&self) -> Purpose {
        Purpose::Train
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let one = |r: &Reply<'_>| {
            let words = r.text.split_whitespace().count();
            if words == 0 {
                return Some(0.0);
            }
            let mut fault = repeated_trigrams(r.text);
            fault += if words < 3 { 0.5 } else { 0.0 };
            fault += if r.finished { 0.0 } else { 0.25 };
            fault += if unfilled_slot(r.text) { 0.5 } else { 0.0 };
            fault += if garbage(r.text) { 0.5 } else { 0.0 };
            Some((1.0 - fault).max(0.0))
        };
        Ok(batch.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::reply;

    fn score(r: Reply<'_>) -> f64 {
        Format.score(&[r]).unwrap()[0].unwrap()
    }

    #[test]
    fn every_fault_costs() {
        let good = reply("Have you seen Up (2009)?");
        assert_eq!(score(good), 1.0);
        assert_eq!(score(reply("")), 0.0);
        assert_eq!(score(Reply { finished: false, ..good }), 0.75);
        assert_eq!(score(reply("Try it")), 0.5);
        assert_eq!(score(reply("Have you seen <movie> ?")), 0.5);
        assert_eq!(score(reply("Have you \u{fffd} seen it?")), 0.5);
        assert_eq!(score(reply("?!?! ... --- !!! ok")), 0.5);
        assert_eq!(score(reply(&"<movie> ".repeat(150))), 0.0);
        assert!(score(reply("the the the the")) < score(good));
        assert!(score(reply("I like it a lot I like it a lot")) < score(good));
    }
}
