//! What an experiment says must hold: `ENTRY METRIC [not] better|worse`, or `ENTRY METRIC unchanged`, against the
//! reference, after Holm's correction.

use ecr_core::{Error, Result};
use ecr_eval::many::ComparisonAll;
use serde::Serialize;

/// One sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expectation {
    pub(super) entry: String,
    metric: String,
    verdict: Verdict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Better,
    NotBetter,
    Worse,
    NotWorse,
    /// No difference found in either direction.
    Unchanged,
}

impl Verdict {
    /// Whether it is so, of a difference that was found or not, in the better direction or not.
    fn holds(self, differs: bool, better: bool) -> bool {
        match self {
            Self::Better => differs && better,
            Self::NotBetter => !(differs && better),
            Self::Worse => differs && !better,
            Self::NotWorse => !differs || better,
            Self::Unchanged => !differs,
        }
    }
}

const VERDICTS: [(&str, Verdict); 5] = [
    ("better", Verdict::Better),
    ("not better", Verdict::NotBetter),
    ("worse", Verdict::Worse),
    ("not worse", Verdict::NotWorse),
    ("unchanged", Verdict::Unchanged),
];

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
        let of = |said: &str| VERDICTS.iter().find(|(name, _)| *name == said).map(|(_, v)| *v);
        if let [entry, metric, verdict @ ..] = words.as_slice()
            && let Some(verdict) = of(&verdict.join(" "))
        {
            return Ok(Self { entry: entry.to_string(), metric: metric.to_string(), verdict });
        }
        Err(Error::config("read what an experiment expects")
            .expected("ENTRY METRIC better, worse, not better, not worse or unchanged")
            .got(format!("{text:?}"))
            .files("nothing was changed"))
    }
    /// Holds the sentence against the numbers.
    ///
    /// # Errors
    /// Config: the metric was not compared, or has no better direction.
    pub(super) fn check(&self, c: &ComparisonAll) -> Result<Checked> {
        let table = c.metrics.get(&self.metric);
        let row = table.and_then(|t| {
            let row = t.against_reference.iter().find(|a| a.model == self.entry)?;
            let up = t.higher_is_better.or((self.verdict == Verdict::Unchanged).then_some(true))?;
            Some((row, up))
        });
        let Some((row, up)) = row else {
            return Err(Error::config(format!("check that {}", self.text()))
                .expected("a metric that was compared and has a better direction")
                .got(self.metric.clone())
                .hint("name it in the experiment's metrics"));
        };
        let e = &row.estimate;
        let differs = e.p_holm < 0.05;
        let better = (e.diff > 0.0) == up;
        let held = self.verdict.holds(differs, better);
        Ok(Checked {
            expect: self.text(),
            held,
            found: format!(
                "difference {:+.4} ({:+.4} to {:+.4}), p (Holm) {:.3}, detectable {:.4}",
                e.diff, e.ci_low, e.ci_high, e.p_holm, e.detectable
            ),
        })
    }
    fn text(&self) -> String {
        let word = VERDICTS.iter().find(|(_, v)| *v == self.verdict).map_or("", |(name, _)| name);
        format!("{} {} {word}", self.entry, self.metric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_of_a_gain_of_nothing_and_of_a_loss() {
        for (said, gain, nothing, loss) in [
            ("better", true, false, false),
            ("not better", false, true, true),
            ("worse", false, false, true),
            ("not worse", true, true, false),
            ("unchanged", false, true, false),
        ] {
            let e = Expectation::parse(&format!("a  bleu_1 {said}")).unwrap();
            assert_eq!(e.text(), format!("a bleu_1 {said}"));
            let holds = |differs, better| e.verdict.holds(differs, better);
            assert_eq!((holds(true, true), holds(true, false)), (gain, loss), "{said}");
            assert_eq!((holds(false, true), holds(false, false)), (nothing, nothing), "{said}");
        }
        assert!(Expectation::parse("a bleu_1 not unchanged").is_err());
        assert!(Expectation::parse("a better").is_err());
    }
}
