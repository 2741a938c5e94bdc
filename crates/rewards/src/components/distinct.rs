//! `distinct`: half how little a reply repeats itself, half how little it repeats the batch, 0..1.
//!
//! Within: mean over n = 1..4 of distinct/all n-grams. Batch: mean over the reply's distinct n-grams (n = 2..4)
//! of 1 / (replies of the batch that have it), so that one phrase for every prompt scores near 0 (rl.md §7.5(5)).
//! Both are multiplied by min(1, tokens / 5): short text is distinct for free. Lower-case white-space tokens.

use ecr_core::Result;
use ecr_core::seam::{Purpose, Reply, Reward};
use rustc_hash::{FxHashMap, FxHashSet};

/// Replies shorter than this, tokens, are scaled down in proportion.
const FULL_LENGTH: usize = 5;

/// The `distinct` component.
#[derive(Debug, Clone, Copy, Default)]
pub struct Distinct;

fn within(tokens: &[&str]) -> f64 {
    let (mut sum, mut orders) = (0.0, 0);
    for n in (1..=4).filter(|&n| tokens.len() >= n) {
        let distinct: FxHashSet<&[&str]> = tokens.windows(n).collect();
        sum += distinct.len() as f64 / (tokens.len() + 1 - n) as f64;
        orders += 1;
    }
    sum / f64::from(orders.max(1))
}

fn grams<'t>(tokens: &'t [&'t str]) -> Vec<&'t [&'t str]> {
    // A one-word reply has no bigram: its word stands for it.
    let orders = if tokens.len() < 2 { 1..=1 } else { 2..=4 };
    let mut all: Vec<&[&str]> = orders.flat_map(|n| tokens.windows(n)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

impl Reward for Distinct {
    fn name(&self) -> &'static str {
        "distinct"
    }
    fn range(&self) -> (f64, f64) {
        (0.0, 1.0)
    }
    fn version(&self) -> String {
        "distinct 1: within 1-4 + batch 2-4, length 5".into()
    }
    fn purpose(&self) -> Purpose {
        Purpose::Train
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let lower: Vec<String> = batch.iter().map(|r| r.text.to_lowercase()).collect();
        let tokens: Vec<Vec<&str>> = lower.iter().map(|t| t.split_whitespace().collect()).collect();
        let grams: Vec<Vec<&[&str]>> = tokens.iter().map(|t| grams(t)).collect();
        let mut holders: FxHashMap<&[&str], u32> = FxHashMap::default();
        for &g in grams.iter().flatten() {
            *holders.entry(g).or_insert(0) += 1;
        }
        let one = |(t, own): (&Vec<&str>, &Vec<&[&str]>)| {
            let across: f64 = own.iter().map(|g| 1.0 / f64::from(holders[g])).sum();
            let across = across / own.len().max(1) as f64;
            let guard = t.len().min(FULL_LENGTH) as f64 / FULL_LENGTH as f64;
            Some(guard * 0.5 * (within(t) + across))
        };
        Ok(tokens.iter().zip(&grams).map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::reply;

    fn score(texts: &[&str]) -> Vec<f64> {
        let batch: Vec<_> = texts.iter().map(|t| reply(t)).collect();
        Distinct.score(&batch).unwrap().into_iter().flatten().collect()
    }

    #[test]
    fn repetition_within_the_reply_and_across_the_batch_costs() {
        let fresh = "You might enjoy a quiet drama about two old friends.";
        let s = score(&[fresh, "the the the the", "", "yes"]);
        assert!(s[0] > 0.99 && s[1] < 0.75 && s[2] == 0.0 && s[3] < 0.3, "{s:?}");
        assert!(score(&["the ".repeat(150).as_str()])[0] < 0.6);
        let same = score(&[fresh, fresh, fresh, fresh]);
        assert!(same[0] < 0.7 && same.iter().all(|&x| x == same[0]), "{same:?}");
    }
}
