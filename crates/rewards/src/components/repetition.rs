//! `repetition`: 1 for a reply that says nothing twice, less for what it repeats, 0..1.
//!
//! 1 − the larger of two shares: 3-grams that occurred before in the reply, and 4-grams that the recommender's own
//! earlier turns have. `distinct` looks at one reply and the batch; this one at the conversation. An empty reply
//! scores 0, or saying nothing would be the way never to repeat oneself. Lower-case white-space tokens.

use ecr_core::seam::{Purpose, Reply, Reward};
use ecr_core::{Result, Role};
use rustc_hash::FxHashSet;

use super::format::repeated_trigrams;

/// The `repetition` component.
#[derive(Debug, Clone, Copy, Default)]
pub struct Repetition;

fn share_said_before(r: &Reply<'_>) -> f64 {
    let lower = r.text.to_lowercase();
    let own: Vec<&str> = lower.split_whitespace().collect();
    let earlier: Vec<String> =
        r.context.iter().filter(|u| u.role == Role::Recommender).map(|u| u.text.to_lowercase()).collect();
    let earlier: Vec<Vec<&str>> = earlier.iter().map(|t| t.split_whitespace().collect()).collect();
    if own.len() < 4 {
        // Too short for a 4-gram: "Yes" may be said twice, the same three words not.
        return f64::from(own.len() == 3 && earlier.contains(&own));
    }
    let grams: FxHashSet<&[&str]> = earlier.iter().flat_map(|t| t.windows(4)).collect();
    own.windows(4).filter(|g| grams.contains(g)).count() as f64 / (own.len() - 3) as f64
}

impl Reward for Repetition {
    fn name(&self) -> &'static str {
        "repetition"
    }
    fn range(&self) -> (f64, f64) {
        (0.0, 1.0)
    }
    fn version(&self) -> String {
        "repetition 1: 3-grams within, 4-grams of own turns".into()
    }
    fn purpose(&self) -> Purpose {
        Purpose::Train
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let one = |r: &Reply<'_>| {
            if r.text.trim().is_empty() {
                return Some(0.0);
            }
            Some(1.0 - repeated_trigrams(r.text).max(share_said_before(r)))
        };
        Ok(batch.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{reply, seeker};
    use ecr_core::Utterance;

    #[test]
    fn what_was_said_before_costs_and_what_the_seeker_said_does_not() {
        let said = "You should really watch that one tonight";
        let context =
            [Utterance { role: Role::Recommender, text: said.into() }, seeker("I like old comedies a lot")];
        let score =
            |text| Repetition.score(&[Reply { context: &context, ..reply(text) }]).unwrap()[0].unwrap();
        assert_eq!(score("I like old comedies a lot"), 1.0);
        assert_eq!(score(said), 0.0);
        let half = score("You should really watch that other one");
        assert!(half > 0.3 && half < 0.9, "{half}");
        assert_eq!(score(""), 0.0);
        assert!(score("so good so good so good so good") < 0.4);
        assert_eq!(score("Yes"), 1.0);
    }
}
