//! The guide's test before a full scoring: 0.0 for the recommendation where nothing is recommended, above 0.0 where
//! something is.

use ecr_core::{Role, Utterance};
use serde::Serialize;

use crate::item::Item;
use crate::journal::Status;
use crate::output::Record;

/// Three built-in items (the films are those of the demo catalogue): one without a recommendation, two with one.
pub fn items() -> Vec<Item> {
    let says = "I need something exciting for tonight. I loved The Dark Knight (2008).";
    let item = |id: &str, response: &str| Item {
        id: id.into(),
        conversation: "selftest".into(),
        context: vec![Utterance { role: Role::Seeker, text: says.into() }],
        response: response.into(),
    };
    vec![
        item(
            "nothing recommended",
            "That sounds like a good evening! Do you prefer something newer or older?",
        ),
        item(
            "recommended",
            "Great choice! If you loved The Dark Knight (2008), you might enjoy Inception (2010): the same director, \
             and just as exciting.",
        ),
        item("recommended briefly", "How about The Matrix (1999)? It is thrilling from the first minute."),
    ]
}

/// What the test found. `None`: there was no such item, or none was scored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SelfTest {
    /// Every item without a recommendation has exactly 0.0.
    pub zero_without: Option<bool>,
    /// Every item with one is above 0.0.
    pub above_zero_with: Option<bool>,
    /// Items without usable scores.
    pub failed: usize,
}

impl SelfTest {
    /// Looks at records.
    pub fn of(records: &[Record]) -> Self {
        let scored = |rule: bool| {
            let all: Vec<f64> = records
                .iter()
                .filter(|r| r.rule_applied == rule)
                .filter_map(|r| r.scores.map(|s| s.recommendation_score))
                .collect();
            (!all.is_empty()).then_some(all)
        };
        Self {
            zero_without: scored(true).map(|all| all.iter().all(|&s| s == 0.0)),
            above_zero_with: scored(false).map(|all| all.iter().all(|&s| s > 0.0)),
            failed: records.iter().filter(|r| r.status != Status::Scored).count(),
        }
    }
    /// Whether nothing speaks against the judge.
    pub fn passed(&self) -> bool {
        self.zero_without != Some(false) && self.above_zero_with != Some(false) && self.failed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Facts;
    use crate::scores::Scores;

    #[test]
    fn the_built_in_items_are_of_both_kinds() {
        let c = ecr_data::demo::films::catalogue();
        let kinds: Vec<bool> = items().iter().map(|i| Facts::of(i, &c).recommends).collect();
        assert_eq!(kinds, [false, true, true]);
    }

    #[test]
    fn both_halves_of_the_test_can_fail() {
        let record = |rule, score| Record {
            id: String::new(),
            conversation: String::new(),
            judge: String::new(),
            prompt: String::new(),
            content: String::new(),
            status: Status::Scored,
            scores: Some(Scores::from_values([0.5, 0.5, score, 0.5, 0.5])),
            rule_applied: rule,
            recommendation_by_judge: None,
            why: None,
            tries: 1,
        };
        assert!(SelfTest::of(&[record(true, 0.0), record(false, 0.1)]).passed());
        assert!(!SelfTest::of(&[record(true, 0.1)]).passed());
        assert!(!SelfTest::of(&[record(false, 0.0)]).passed());
        let failed = Record { scores: None, status: Status::Failed, ..record(false, 0.5) };
        assert!(!SelfTest::of(&[failed]).passed());
    }
}
