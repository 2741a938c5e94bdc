//! What an experiment says must hold: `ENTRY METRIC [not] better|worse`, against the reference, after Holm's correction.

use ecr_core::{Error, Result};
use ecr_eval::many::ComparisonAll;
use serde::Serialize;

/// One sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expectation {
    pub(super) entry: String,
    metric: String,
    not: bool,
    better: bool,
}

/// A sentence held against the numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    /// The sentence.
    pub expect: String,
    /// Whether the data agree.
    pub held: bool,
    /// What was found.
    pub found: String,
}

impl Expectation {
    pub(super) fn parse(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (entry, metric, not, verdict) = match words.as_slice() {
            [e, m, "not", v] => (*e, *m, true, *v),
            [e, m, v] => (*e, *m, false, *v),
            _ => ("", "", false, ""),
        };
        if !["better", "worse"].contains(&verdict) {
            return Err(Error::config("read what an experiment expects")
                .expected("ENTRY METRIC better, worse, not better or not worse")
                .got(format!("{text:?}"))
                .files("nothing was changed"));
        }
        Ok(Self { entry: entry.to_string(), metric: metric.to_string(), not, better: verdict == "better" })
    }
    /// Holds the sentence against the numbers.
    ///
    /// # Errors
    /// Config: the metric was not compared, or has no better direction.
    pub(super) fn check(&self, c: &ComparisonAll) -> Result<Checked> {
        let table = c.metrics.get(&self.metric);
        let row = table.and_then(|t| {
            let row = t.against_reference.iter().find(|a| a.model == self.entry)?;
            Some((row, t.higher_is_better?))
        });
        let Some((row, up)) = row else {
            return Err(Error::config(format!("check that {}", self.text()))
                .expected("a metric that was compared and has a better direction")
                .got(self.metric.clone())
                .hint("name it in the experiment's metrics"));
        };
        let e = &row.estimate;
        let found = e.p_holm < 0.05 && ((e.diff > 0.0) == up) == self.better;
        Ok(Checked {
            expect: self.text(),
            held: found != self.not,
            found: format!(
                "difference {:+.4} ({:+.4} to {:+.4}), p (Holm) {:.3}, detectable {:.4}",
                e.diff, e.ci_low, e.ci_high, e.p_holm, e.detectable
            ),
        })
    }
    fn text(&self) -> String {
        let word = if self.better { "better" } else { "worse" };
        format!("{} {} {}{word}", self.entry, self.metric, if self.not { "not " } else { "" })
    }
}
