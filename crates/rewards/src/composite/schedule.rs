//! Weights that change while training: the guide's curriculum.
//!
//! A schedule is a line of text, so that it fits a configuration value:
//! * `bleu linear 1.0 to 0.2 over 20`: from the first value at step 0 to the second at step 20, then constant;
//! * `empathy 3.0 from step 10`: the configured weight before;
//! * `recommendation 2.5 once empathy >= 0.6`: from the batch after the one whose mean raw score first got there.

use ecr_core::{Error, Result};

/// What a weight depends on.
#[derive(Debug, Clone, PartialEq)]
pub enum When {
    /// Linear in the step.
    Linear {
        /// Weight at step 0.
        from: f64,
        /// Weight from step `over` on.
        to: f64,
        /// Steps.
        over: u64,
    },
    /// Another weight from a step on.
    Step {
        /// The weight.
        weight: f64,
        /// First step that has it.
        at: u64,
    },
    /// Another weight once a component's batch mean (raw) has reached a bar; it stays.
    Metric {
        /// The weight.
        weight: f64,
        /// The component watched.
        of: String,
        /// The bar.
        bar: f64,
    },
}

/// The schedule of one component's weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The component.
    pub component: String,
    /// When its weight is what.
    pub when: When,
}

impl Schedule {
    /// Reads a line of the forms above.
    ///
    /// # Errors
    /// Config: another form, or a weight that is negative or no number.
    pub fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let bad = || {
            Error::config("read a schedule of the reward")
                .expected("NAME linear A to B over STEPS, NAME W from step N, or NAME W once NAME >= X")
                .got(format!("{line:?}"))
        };
        let weight = |t: &str| t.parse::<f64>().ok().filter(|w| w.is_finite() && *w >= 0.0).ok_or_else(bad);
        let step = |t: &str| t.parse::<u64>().map_err(|_| bad());
        let (component, when) = match words.as_slice() {
            [c, "linear", a, "to", b, "over", n] => {
                (c, When::Linear { from: weight(a)?, to: weight(b)?, over: step(n)? })
            }
            [c, w, "from", "step", n] => (c, When::Step { weight: weight(w)?, at: step(n)? }),
            [c, w, "once", of, ">=", x] => {
                let bar = x.parse::<f64>().ok().filter(|x| x.is_finite()).ok_or_else(bad)?;
                (c, When::Metric { weight: weight(w)?, of: (*of).into(), bar })
            }
            _ => return Err(bad()),
        };
        Ok(Self { component: (*component).into(), when })
    }
    /// The weight at `step`; `begun`: whether the watched mean has reached the bar.
    pub fn weight(&self, configured: f64, step: u64, begun: bool) -> f64 {
        match self.when {
            When::Linear { from, to, over } => {
                let done = if over == 0 { 1.0 } else { step.min(over) as f64 / over as f64 };
                from + (to - from) * done
            }
            When::Step { weight, at } => {
                if step >= at {
                    weight
                } else {
                    configured
                }
            }
            When::Metric { weight, .. } => {
                if begun {
                    weight
                } else {
                    configured
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_read_and_others_refused() {
        let s = Schedule::parse("bleu linear 1.0 to 0.2 over 20").unwrap();
        assert_eq!(s.component, "bleu");
        assert_eq!(
            [0, 10, 20, 99].map(|t| (s.weight(7.0, t, false) * 1e9).round() / 1e9),
            [1.0, 0.6, 0.2, 0.2]
        );
        let s = Schedule::parse("empathy 3 from step 10").unwrap();
        assert_eq!([0, 9, 10, 11].map(|t| s.weight(2.0, t, false)), [2.0, 2.0, 3.0, 3.0]);
        let s = Schedule::parse("recommendation 2.5 once empathy >= 0.6").unwrap();
        assert_eq!((s.weight(1.5, 3, false), s.weight(1.5, 3, true)), (1.5, 2.5));
        for bad in [
            "",
            "bleu",
            "bleu linear 1 to",
            "bleu -1 from step 2",
            "bleu NaN from step 2",
            "bleu 1 from step x",
        ] {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
    }
}
