//! BLEU (Papineni et al. 2002) from additive counts, in the variants that the field prints.
//!
//! * [`BleuCounts::single_order`]: NLTK `sentence_bleu`/`corpus_bleu` with all weight on one order (parity).
//! * [`BleuCounts::cumulative`]: NLTK with equal weights on orders 1..=k, smoothing none, 1 or 4.
//! * [`BleuCounts::sacrebleu`]: sacrebleu 2.6.0, exponential smoothing, 0..100, over its own `13a` tokens.
//!
//! Counts of several replies add up to the counts of a corpus, which is what a bootstrap resample needs.

use rustc_hash::FxHashMap;

/// Highest order counted.
pub const ORDERS: usize = 4;

/// How an order without a match is smoothed (Chen and Cherry 2014, numbers as in NLTK).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Smoothing {
    /// The smallest positive float stands for 0.
    None,
    /// Method 1: 0.1 counts as a match.
    Method1,
    /// Method 4: halved for each empty order, less for short replies.
    Method4,
}

/// Clipped matches and totals, per order, and lengths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BleuCounts {
    /// Clipped n-gram matches, order 1..=4.
    pub matches: [u64; ORDERS],
    /// N-grams of the replies.
    pub totals: [u64; ORDERS],
    /// Replies too short to have an n-gram of that order (NLTK counts 1 for them).
    pub empty: [u64; ORDERS],
    /// Tokens of the replies.
    pub reply_len: u64,
    /// Tokens of the closest references.
    pub reference_len: u64,
}

fn count<T: std::hash::Hash + Eq>(tokens: &[T], n: usize) -> FxHashMap<&[T], u64> {
    let mut m = FxHashMap::default();
    for g in tokens.windows(n) {
        *m.entry(g).or_insert(0) += 1;
    }
    m
}

/// Longest reference, tokens, for [`matches_by_mask`].
const MASK: usize = 128;

/// Clipped matches of orders 1..=4 against one reference of at most [`MASK`] tokens, without a hash map.
///
/// Bit `j` of `ends[n]` says that the n-gram of the reply that ends here equals the one that ends at token `j` of the
/// reference. Each n-gram of the reply takes one that no earlier one took: equal n-grams form classes, so that this
/// greedy choice takes the lesser of the two counts of each class, which is the clipped count.
fn matches_by_mask<T: Eq>(reply: &[T], reference: &[T]) -> [u64; ORDERS] {
    let (mut matches, mut used, mut ends) = ([0; ORDERS], [0u128; ORDERS], [0u128; ORDERS]);
    for token in reply {
        let mut same = 0u128;
        for (j, t) in reference.iter().enumerate() {
            same |= u128::from(t == token) << j;
        }
        // Highest order first: each needs the order below as it was at the token before.
        for n in (1..ORDERS).rev() {
            ends[n] = same & (ends[n - 1] << 1);
        }
        ends[0] = same;
        for n in 0..ORDERS {
            let free = ends[n] & !used[n];
            used[n] |= free & free.wrapping_neg();
            matches[n] += u64::from(free != 0);
        }
    }
    matches
}

impl BleuCounts {
    /// Counts of one reply against its references (of which there must be one at least to match anything).
    pub fn new<T: std::hash::Hash + Eq>(reply: &[T], references: &[&[T]]) -> Self {
        let mut c = Self { reply_len: reply.len() as u64, ..Self::default() };
        c.reference_len = references
            .iter()
            .map(|r| r.len() as u64)
            .min_by_key(|&l| (l.abs_diff(c.reply_len), l))
            .unwrap_or(0);
        for n in 0..ORDERS {
            c.totals[n] = (reply.len() + 1).saturating_sub(n + 1) as u64;
            c.empty[n] = u64::from(c.totals[n] == 0);
        }
        match references {
            [one] if one.len() <= MASK => c.matches = matches_by_mask(reply, one),
            _ => {
                for n in 1..=ORDERS {
                    let own = count(reply, n);
                    let refs: Vec<_> = references.iter().map(|r| count(r, n)).collect();
                    for (gram, &k) in &own {
                        let most = refs.iter().filter_map(|r| r.get(gram)).max().copied().unwrap_or(0);
                        c.matches[n - 1] += k.min(most);
                    }
                }
            }
        }
        c
    }
    /// Adds `times` copies of `other`.
    pub fn add(&mut self, other: &Self, times: u64) {
        for n in 0..ORDERS {
            self.matches[n] += times * other.matches[n];
            self.totals[n] += times * other.totals[n];
            self.empty[n] += times * other.empty[n];
        }
        self.reply_len += times * other.reply_len;
        self.reference_len += times * other.reference_len;
    }
    /// NLTK's brevity penalty: 1, or `exp(1 − r/c)` for replies not longer than the reference.
    pub fn brevity(&self) -> f64 {
        if self.reply_len > self.reference_len {
            1.0
        } else if self.reply_len == 0 {
            0.0
        } else {
            (1.0 - self.reference_len as f64 / self.reply_len as f64).exp()
        }
    }
    fn precision(&self, n: usize) -> f64 {
        self.matches[n] as f64 / (self.totals[n] + self.empty[n]).max(1) as f64
    }
    /// Precision of order `k` (1..=4) times brevity penalty, 0..1; 0 when no unigram matches.
    pub fn single_order(&self, k: usize) -> f64 {
        if self.matches[0] == 0 || !(1..=ORDERS).contains(&k) {
            return 0.0;
        }
        let p = self.precision(k - 1);
        self.brevity() * if p == 0.0 { f64::MIN_POSITIVE } else { p }
    }
    /// Geometric mean of the precisions of orders 1..=k times brevity penalty, 0..1.
    pub fn cumulative(&self, k: usize, smoothing: Smoothing) -> f64 {
        if self.matches[0] == 0 || !(1..=ORDERS).contains(&k) {
            return 0.0;
        }
        let mut sum = 0.0;
        let mut halvings = 1;
        for n in 0..k {
            let total = (self.totals[n] + self.empty[n]).max(1) as f64;
            let mut p = self.precision(n);
            if self.matches[n] == 0 {
                match smoothing {
                    Smoothing::None => p = f64::MIN_POSITIVE,
                    Smoothing::Method1 => p = 0.1 / total,
                    Smoothing::Method4 if self.reply_len > 1 => {
                        let k = 2f64.powi(halvings) * 5.0 / (self.reply_len as f64).ln();
                        p = 1.0 / k / total;
                        halvings += 1;
                    }
                    // NLTK leaves a one-token reply alone and then drops the empty orders.
                    Smoothing::Method4 => {}
                }
            }
            if p > 0.0 {
                sum += p.ln() / k as f64;
            }
        }
        self.brevity() * sum.exp()
    }
    /// sacrebleu's score, 0..100, of counts over [`super::tokenizer_13a`] tokens. `sentence`: stop at the
    /// highest order that the reply has (`effective_order`).
    pub fn sacrebleu(&self, sentence: bool) -> f64 {
        if self.matches.iter().all(|&m| m == 0) {
            return 0.0;
        }
        let (mut smooth, mut orders, mut p) = (1.0, ORDERS, [0.0f64; ORDERS]);
        for n in 0..ORDERS {
            if self.totals[n] == 0 {
                break;
            }
            if sentence {
                orders = n + 1;
            }
            let total = self.totals[n] as f64;
            p[n] = if self.matches[n] == 0 {
                smooth *= 2.0;
                100.0 / (smooth * total)
            } else {
                100.0 * self.matches[n] as f64 / total
            };
        }
        let log = |x: f64| if x == 0.0 { -9_999_999_999.0 } else { x.ln() };
        // Equal lengths give exp(0) = 1 in both conventions of the brevity penalty.
        self.brevity() * (p[..orders].iter().map(|&x| log(x)).sum::<f64>() / orders as f64).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_maps_count_the_same() {
        let mut draws = ecr_core::Stream::new(5).rng();
        for case in 0..2000 {
            // Few words, so that n-grams repeat; lengths beyond the mask now and then.
            let words = 1 + case % 6;
            let mut text =
                |most: usize| -> Vec<usize> { (0..draws.below(most)).map(|_| draws.below(words)).collect() };
            let (reply, reference) = (text(40), text(if case % 20 == 0 { 200 } else { 40 }));
            let mut by_map = [0; ORDERS];
            for n in 1..=ORDERS {
                let theirs = count(&reference, n);
                for (g, &k) in &count(&reply, n) {
                    by_map[n - 1] += k.min(theirs.get(g).copied().unwrap_or(0));
                }
            }
            let c = BleuCounts::new(&reply, &[&reference]);
            assert_eq!(c.matches, by_map, "{reply:?} {reference:?}");
            if reference.len() <= MASK {
                assert_eq!(matches_by_mask(&reply, &reference), by_map);
            }
        }
    }
}
