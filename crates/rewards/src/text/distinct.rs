//! Distinct-n (Li et al. 2016) in the variants that the field prints.
//!
//! Over all replies of a system: [`Distinct::ratio`] = distinct / all n-grams (the headline);
//! [`Distinct::per_reply`] = distinct n-grams / non-empty replies (UniCRS's and ECR's `dist@n`, unbounded);
//! [`Distinct::intra`] = mean over replies of their own ratio. N-grams are numbered once, so that resampling
//! costs one pass over small integers.

use rustc_hash::FxHashMap;

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

/// Words of replies as numbers, equal words as equal numbers.
fn number(replies: &[Vec<&str>]) -> Vec<Vec<u32>> {
    let mut ids: FxHashMap<&str, u32> = FxHashMap::default();
    replies
        .iter()
        .map(|t| {
            t.iter()
                .map(|&w| {
                    let next = ids.len() as u32;
                    *ids.entry(w).or_insert(next)
                })
                .collect()
        })
        .collect()
}

impl Distinct {
    /// The n-grams of order `n` of `replies`, over white-space tokens.
    pub fn new(replies: &[&str], n: usize) -> Self {
        let lists: Vec<Vec<&str>> = replies.iter().map(|r| tokens(r)).collect();
        Self::numbered(&number(&lists), n)
    }
    /// Orders 1..=4 of replies that are tokens already; words are numbered once for all.
    pub fn orders(replies: &[Vec<&str>]) -> [Self; 4] {
        let numbered = number(replies);
        [1, 2, 3, 4].map(|n| Self::numbered(&numbered, n))
    }
    fn numbered(replies: &[Vec<u32>], n: usize) -> Self {
        let n = n.max(1);
        let mut out = Self {
            grams: Vec::with_capacity(replies.len()),
            total: replies.iter().map(|t| (t.len() + 1).saturating_sub(n) as u64).collect(),
            non_empty: replies.iter().map(|t| !t.is_empty()).collect(),
            vocabulary: 0,
        };
        let all = out.total.iter().sum::<u64>() as usize;
        // Four word numbers fit one integer exactly: no two n-grams share a key.
        let mut short: FxHashMap<u128, u32> = FxHashMap::default();
        let mut long: FxHashMap<&[u32], u32> = FxHashMap::default();
        if n <= 4 {
            short.reserve(all / 2);
        }
        let mask = if n >= 4 { u128::MAX } else { (1u128 << (32 * n)) - 1 };
        for t in replies {
            let mut own: Vec<u32> = Vec::with_capacity(t.len());
            if n <= 4 {
                let mut key = 0u128;
                for (i, &w) in t.iter().enumerate() {
                    // One more than the number, so that a shorter n-gram is no prefix of zeros.
                    key = (key << 32 | u128::from(w + 1)) & mask;
                    if i + 1 >= n {
                        let next = short.len() as u32;
                        own.push(*short.entry(key).or_insert(next));
                    }
                }
            } else {
                for g in t.windows(n) {
                    let next = long.len() as u32;
                    own.push(*long.entry(g).or_insert(next));
                }
            }
            own.sort_unstable();
            own.dedup();
            out.grams.push(own);
        }
        out.vocabulary = short.len().max(long.len());
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
