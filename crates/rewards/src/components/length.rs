//! `length`: 1 inside a band of words, less outside, 0..1.
//!
//! Below the band in proportion; above it down to 0 at twice the band's end. A band, not a bonus: within it a longer
//! reply is not a better one, so that padding does not pay.

use ecr_core::Result;
use ecr_core::seam::{Purpose, Reply, Reward};

/// The `length` component.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    /// Fewest words of the band; at least 1.
    pub least: usize,
    /// Most words of the band.
    pub most: usize,
}

impl Default for Length {
    /// 4 to 40 words: nine of ten human replies of ReDial lie between.
    fn default() -> Self {
        Self { least: 4, most: 40 }
    }
}

impl Reward for Length {
    fn name(&self) -> &'static str {
        "length"
    }
    fn range(&self) -> (f64, f64) {
        (0.0, 1.0)
    }
    fn version(&self) -> String {
        format!("length 1: {} to {} words", self.least, self.most)
    }
    fn purpose(&self) -> Purpose {
        Purpose::Train
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let one = |r: &Reply<'_>| {
            let n = r.text.split_whitespace().count() as f64;
            let (least, most) = (self.least.max(1) as f64, self.most.max(1) as f64);
            Some((n / least).min(2.0 - n / most).clamp(0.0, 1.0))
        };
        Ok(batch.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::reply;

    #[test]
    fn inside_the_band_nothing_is_to_be_gained() {
        let score = |n: usize| Length::default().score(&[reply(&"word ".repeat(n))]).unwrap()[0].unwrap();
        assert_eq!([0, 2, 4, 20, 40].map(score), [0.0, 0.5, 1.0, 1.0, 1.0]);
        assert!(score(41) < 1.0 && (score(60) - 0.5).abs() < 1e-12);
        assert_eq!([80, 300].map(score), [0.0, 0.0]);
    }
}
