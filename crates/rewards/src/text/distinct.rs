//! Distinct-n (Li et al. 2016) in the variants that the field prints.
//!
//! Over all replies of a system: [`Distinct::ratio`] = distinct / all n-grams (the headline);
//! [`Distinct::per_reply`] = distinct n-grams / non-empty replies (UniCRS's and ECR's `dist@n`, unbounded);
//! [`Distinct::intra`] = mean over replies of their own ratio. N-grams are numbered once, so that resampling
//! costs one pass over small integers.

use rustc_hash::{FxHashMap, FxHashSet};

use super::tokens;

/// N-grams of one order over a list of replies.
#[derive(Debug, Clone, PartialEq)]
pub struct Distinct {
    /// Distinct n-grams of each reply, as numbers below `vocabulary`, `[replies][distinct]`.
    grams: Vec<Vec<u32>>,
    /// All n-grams of each reply, `[replies]`.
    total: Vec<u64>,
    /// Whether the reply has any token, `[replies]`.
    non_empty: Vec<bool>,
    vocabulary: usize,
}

impl Distinct {
    /// The n-grams of order `n` of `replies`, over white-space tokens.
    pub fn new(replies: &[&str], n: usize) -> Self {
        let token_lists: Vec<Vec<&str>> = replies.iter().map(|r| tokens(r)).collect();
        let mut ids: FxHashMap<&[&str], u32> = FxHashMap::default();
        let mut out = Self {
            grams: Vec::with_capacity(replies.len()),
            total: Vec::with_capacity(replies.len()),
            non_empty: token_lists.iter().map(|t| !t.is_empty()).collect(),
            vocabulary: 0,
        };
        for t in &token_lists {
            let mut own = FxHashSet::default();
            let mut total = 0;
            for g in t.windows(n.max(1)) {
                let next = ids.len() as u32;
                own.insert(*ids.entry(g).or_insert(next));
                total += 1;
            }
            let mut own: Vec<u32> = own.into_iter().collect();
            own.sort_unstable();
            out.grams.push(own);
            out.total.push(total);
        }
        out.vocabulary = ids.len();
        out
    }
    /// Number of replies.
    pub fn len(&self) -> usize {
        self.grams.len()
    }
    /// Whether there is no reply.
    pub fn is_empty(&self) -> bool {
        self.grams.is_empty()
    }
    /// Whether reply `i` has a token.
    pub fn has_tokens(&self, i: usize) -> bool {
        self.non_empty[i]
    }
    fn unique(&self, times: &[u32]) -> u64 {
        let mut seen = vec![false; self.vocabulary];
        let mut unique = 0;
        for (own, _) in self.grams.iter().zip(times).filter(|(_, t)| **t > 0) {
            for &g in own {
                unique += u64::from(!std::mem::replace(&mut seen[g as usize], true));
            }
        }
        unique
    }
    /// Distinct n-grams / all n-grams when reply `i` occurs `times[i]` times; `None` without n-grams.
    pub fn ratio(&self, times: &[u32]) -> Option<f64> {
        let total: u64 = self.total.iter().zip(times).map(|(&n, &t)| n * u64::from(t)).sum();
        (total > 0).then(|| self.unique(times) as f64 / total as f64)
    }
    /// Distinct n-grams / non-empty replies; `None` if all are empty.
    pub fn per_reply(&self, times: &[u32]) -> Option<f64> {
        let n: u64 = self.non_empty.iter().zip(times).filter(|(e, _)| **e).map(|(_, &t)| u64::from(t)).sum();
        (n > 0).then(|| self.unique(times) as f64 / n as f64)
    }
    /// Own ratio of each reply, `[replies]`; `None` for a reply without n-grams of this order.
    pub fn intra(&self) -> Vec<Option<f64>> {
        let rows = self.grams.iter().zip(&self.total);
        rows.map(|(g, &t)| (t > 0).then(|| g.len() as f64 / t as f64)).collect()
    }
}
