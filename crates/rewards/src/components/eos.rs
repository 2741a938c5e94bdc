//! `eos`: 1 for a reply that ended by itself, 0 for one that was cut off or says nothing.

use ecr_core::Result;
use ecr_core::seam::{Purpose, Reply, Reward};

/// The `eos` component.
#[derive(Debug, Clone, Copy, Default)]
pub struct Eos;

impl Reward for Eos {
    fn name(&self) -> &'static str {
        "eos"
    }
    fn range(&self) -> (f64, f64) {
        (0.0, 1.0)
    }
    fn version(&self) -> String {
        "eos 1".into()
    }
    fn purpose(&self) -> Purpose {
        Purpose::Train
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        // Ending at once is not ending well.
        let one = |r: &Reply<'_>| Some(f64::from(r.finished && !r.text.trim().is_empty()));
        Ok(batch.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::reply;

    #[test]
    fn only_a_reply_that_ended_by_itself_counts() {
        let cut = Reply { finished: false, ..reply("and then he") };
        let s = Eos.score(&[reply("Hello there!"), cut, reply("")]).unwrap();
        assert_eq!(s, [Some(1.0), Some(0.0), Some(0.0)]);
    }
}
