//! `critic`: one head of the trained quality critic on (context, reply), 0..1.
//!
//! A learned score is a proxy, trusted near the data that it was trained on: keep its weight small, or let it be one
//! of an ensemble of which the worst counts (`reward.aggregation = "worst_case"`). An empty reply scores 0 whatever
//! the critic says.

use ecr_core::seam::{Purpose, Reply, Reward};
use ecr_core::{Error, Result, Utterance};

/// Judges replies in their contexts; implemented over an encoder with a head.
pub trait Judge {
    /// Name, head and hash of the model, for logs.
    fn version(&self) -> String;
    /// One score 0..1 a pair, `[pairs]`.
    fn judge(&mut self, pairs: &[(&[Utterance], &str)]) -> Result<Vec<f64>>;
}

/// The `critic` component.
pub struct Critic(pub Box<dyn Judge>);

impl Reward for Critic {
    fn name(&self) -> &'static str {
        "critic"
    }
    fn range(&self) -> (f64, f64) {
        (0.0, 1.0)
    }
    fn version(&self) -> String {
        format!("critic 1: {}", self.0.version())
    }
    fn purpose(&self) -> Purpose {
        Purpose::Train
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let pairs: Vec<(&[Utterance], &str)> = batch.iter().map(|r| (r.context, r.text)).collect();
        let scores = self.0.judge(&pairs)?;
        if scores.len() != batch.len() {
            return Err(Error::internal("score with the critic")
                .expected(format!("{} scores", batch.len()))
                .got(scores.len().to_string()));
        }
        let one = |(r, s): (&Reply<'_>, f64)| Some(if r.text.trim().is_empty() { 0.0 } else { s });
        Ok(batch.iter().zip(scores).map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::reply;

    /// Likes whatever is long.
    struct Longest;

    impl Judge for Longest {
        fn version(&self) -> String {
            "longest".into()
        }
        fn judge(&mut self, pairs: &[(&[Utterance], &str)]) -> Result<Vec<f64>> {
            Ok(pairs.iter().map(|p| 0.5 + (p.1.len() as f64 / 200.0).min(0.5)).collect())
        }
    }

    #[test]
    fn an_empty_reply_is_worth_nothing_to_any_critic() {
        let s = Critic(Box::new(Longest)).score(&[reply("A fine reply."), reply(" ")]).unwrap();
        assert!(s[0].unwrap() > 0.5 && s[1] == Some(0.0));
    }
}
