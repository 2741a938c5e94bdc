//! ROUGE-N and ROUGE-L (Lin 2004) as in rouge_score 0.1.2 without stemmer: lower case, ASCII letters and digits.

use rustc_hash::FxHashMap;

/// Precision, recall and F1, each 0..1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rouge {
    /// Matches / reply units.
    pub precision: f64,
    /// Matches / reference units.
    pub recall: f64,
    /// Harmonic mean.
    pub f1: f64,
}

impl Rouge {
    fn new(matches: usize, reply: usize, reference: usize) -> Self {
        let precision = matches as f64 / reply.max(1) as f64;
        let recall = matches as f64 / reference.max(1) as f64;
        let sum = precision + recall;
        Self { precision, recall, f1: if sum > 0.0 { 2.0 * precision * recall / sum } else { 0.0 } }
    }
}

fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let parts = lower.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit());
    parts.filter(|w| !w.is_empty()).map(str::to_owned).collect()
}

/// ROUGE-N of a reply against one reference.
pub fn rouge_n(reply: &str, reference: &str, n: usize) -> Rouge {
    let (reply, reference) = (words(reply), words(reference));
    let n = n.max(1);
    let mut have: FxHashMap<&[String], usize> = FxHashMap::default();
    for g in reply.windows(n) {
        *have.entry(g).or_insert(0) += 1;
    }
    let mut matches = 0;
    for g in reference.windows(n) {
        if let Some(k) = have.get_mut(g).filter(|k| **k > 0) {
            *k -= 1;
            matches += 1;
        }
    }
    Rouge::new(matches, (reply.len() + 1).saturating_sub(n), (reference.len() + 1).saturating_sub(n))
}

/// ROUGE-L of a reply against one reference: longest common subsequence.
pub fn rouge_l(reply: &str, reference: &str) -> Rouge {
    let (reply, reference) = (words(reply), words(reference));
    let mut row = vec![0usize; reply.len() + 1];
    for r in &reference {
        let mut diagonal = 0;
        for (j, h) in reply.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if r == h { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    Rouge::new(row[reply.len()], reply.len(), reference.len())
}
