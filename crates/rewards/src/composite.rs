//! The composite reward: score the components, normalise each, clip, weigh, sum.
//!
//! z = clip((x − mean) / sqrt(var + 1e-8), ±5) with running mean and population variance over all scores seen
//! (Welford), this batch included. An absent component contributes nothing, that is, the average. With
//! [`Mode::None`] raw scores are summed, and the weights of absent components are shared out among those
//! present, so that absence is not a 0 there either.
//! For a comparison the normaliser is fitted on the baseline and frozen: the same numbers for both models.

use std::collections::BTreeMap;

use ecr_core::seam::{Purpose, Reply, Reward};
use ecr_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Name and weight of each component of a composite.
pub type Weights = BTreeMap<String, f64>;

/// Weights of the guide's presets `balanced`, `empathy` and `recommendation`; `None` for another name.
///
/// A preset that says nothing of a component takes balanced's weight. `format` keeps the original's .1 (its
/// `format_penalty`): with normalised components that is one tenth of `bleu`, no longer lost in the scale.
pub fn preset(name: &str) -> Option<Weights> {
    let mut w: Weights =
        [("bleu", 1.0), ("empathy", 2.0), ("recommendation", 1.5), ("distinct", 0.5), ("format", 0.1)]
            .map(|(n, w)| (n.to_owned(), w))
            .into();
    let changes: &[(&str, f64)] = match name {
        "balanced" => &[],
        "empathy" => &[("empathy", 3.0), ("bleu", 0.5)],
        "recommendation" => &[("recommendation", 2.5), ("distinct", 0.3)],
        _ => return None,
    };
    w.extend(changes.iter().map(|&(n, w)| (n.to_owned(), w)));
    Some(w)
}

/// What happens to raw scores before weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Running normalisation; every batch updates it.
    Running,
    /// Normalisation by statistics that no longer change.
    Frozen,
    /// Raw scores.
    None,
}

/// Running mean and sum of squared deviations (Welford 1962).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Scores seen.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Sum of squared deviations from it.
    pub m2: f64,
}

impl Moments {
    /// Takes in one score.
    pub fn push(&mut self, x: f64) {
        self.count += 1;
        let d = x - self.mean;
        self.mean += d / self.count as f64;
        self.m2 += d * (x - self.mean);
    }
    /// Population variance; 0 before the first score.
    pub fn variance(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.m2 / self.count as f64 }
    }
    /// Clipped standard score of `x`; 0 while fewer than two scores were seen.
    pub fn standard(&self, x: f64, clip: f64) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        ((x - self.mean) / (self.variance() + 1e-8).sqrt()).clamp(-clip, clip)
    }
}

/// All that a checkpoint needs: moments by component name. JSON keeps every bit (shortest round-trip floats).
pub type NormaliserState = BTreeMap<String, Moments>;

/// One component's share of one reply's reward; `None` = absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Component.
    pub name: String,
    /// As scored.
    pub raw: Option<f64>,
    /// After normalisation and clip (equal to `raw` with [`Mode::None`]).
    pub normalised: Option<f64>,
    /// What it adds to the total.
    pub weighted: Option<f64>,
}

/// One reply's reward and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Breakdown {
    /// Sum of the weighted parts.
    pub total: f64,
    /// One entry a component, in the composite's order.
    pub parts: Vec<Part>,
}

impl Breakdown {
    /// The part of this component.
    pub fn part(&self, name: &str) -> Option<&Part> {
        self.parts.iter().find(|p| p.name == name)
    }
}

/// A weighted sum of components.
pub struct Composite {
    components: Vec<(Box<dyn Reward>, f64)>,
    mode: Mode,
    clip: f64,
    state: NormaliserState,
}

impl Composite {
    /// A composite of `components` weighed by name (weight 0: scored and logged, without influence).
    ///
    /// # Errors
    /// Config: an evaluation-only component where `purpose` is [`Purpose::Train`], a component without a
    /// weight, a weight without a component, two components of one name, a weight that is negative or no number.
    pub fn new(
        components: Vec<Box<dyn Reward>>,
        weights: &Weights,
        mode: Mode,
        purpose: Purpose,
    ) -> Result<Self> {
        const WHAT: &str = "build the composite reward";
        let mut rows: Vec<(Box<dyn Reward>, f64)> = Vec::new();
        for c in components {
            let name = c.name();
            if purpose == Purpose::Train && c.purpose() == Purpose::Evaluate {
                return Err(Error::config(WHAT)
                    .expected("components that training may use")
                    .got(format!("{name}, which is for evaluation only"))
                    .hint("take it out of the training reward; it is reported by `ecr eval`"));
            }
            if rows.iter().any(|(r, _)| r.name() == name) {
                return Err(Error::config(WHAT).got(format!("two components named {name}")));
            }
            let weight = *weights.get(name).ok_or_else(|| {
                Error::config(WHAT).expected(format!("a weight for {name} (0 turns it off)")).got("none")
            })?;
            if !weight.is_finite() || weight < 0.0 {
                return Err(Error::config(WHAT)
                    .expected(format!("a weight of {name} that is 0 or more"))
                    .got(weight.to_string()));
            }
            rows.push((c, weight));
        }
        if let Some(name) = weights.keys().find(|n| !rows.iter().any(|(r, _)| r.name() == n.as_str())) {
            let have: Vec<&str> = rows.iter().map(|(r, _)| r.name()).collect();
            return Err(Error::config(WHAT)
                .expected(format!("weights of {}", have.join(", ")))
                .got(format!("a weight for {name}")));
        }
        let state = rows.iter().map(|(r, _)| (r.name().to_owned(), Moments::default())).collect();
        Ok(Self { components: rows, mode, clip: 5.0, state })
    }
    /// Names and weights, in order.
    pub fn weights(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.components.iter().map(|(c, w)| (c.name(), *w))
    }
    /// Changes whenever the same reply would score differently under the same normaliser state.
    pub fn version(&self) -> String {
        let parts: Vec<String> =
            self.components.iter().map(|(c, w)| format!("{w} x [{}]", c.version())).collect();
        format!("composite 1, {:?}, clip {}: {}", self.mode, self.clip, parts.join(" + "))
    }
    /// The normaliser's statistics, for a checkpoint.
    pub fn state(&self) -> &NormaliserState {
        &self.state
    }
    /// Restores the statistics of a checkpoint.
    ///
    /// # Errors
    /// Data: the names are not those of this composite.
    pub fn set_state(&mut self, state: NormaliserState) -> Result<()> {
        if !state.keys().eq(self.state.keys()) {
            let names = |s: &NormaliserState| s.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(Error::data("restore the reward normaliser")
                .expected(names(&self.state))
                .got(names(&state)));
        }
        self.state = state;
        Ok(())
    }
    /// Stops (or resumes) updating the statistics.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }
    /// Scores a batch: `[replies]`. With [`Mode::Running`] the statistics first take in the whole batch.
    ///
    /// # Errors
    /// Of the components; internal: a component that breaks its contract (count, range, finiteness).
    pub fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Breakdown>> {
        let mut out: Vec<Breakdown> =
            batch.iter().map(|_| Breakdown { total: 0.0, parts: Vec::new() }).collect();
        for (c, weight) in &mut self.components {
            let raw = c.score(batch)?;
            check(c.as_ref(), &raw, batch.len())?;
            let moments = self.state.entry(c.name().to_owned()).or_default();
            if self.mode == Mode::Running {
                raw.iter().flatten().for_each(|&x| moments.push(x));
            }
            for (b, raw) in out.iter_mut().zip(raw) {
                let normalised = raw.map(|x| match self.mode {
                    Mode::None => x,
                    Mode::Running | Mode::Frozen => moments.standard(x, self.clip),
                });
                let weighted = normalised.map(|x| *weight * x);
                b.parts.push(Part { name: c.name().to_owned(), raw, normalised, weighted });
            }
        }
        let all: f64 = self.components.iter().map(|(_, w)| w).sum();
        for b in &mut out {
            if self.mode == Mode::None {
                let rows = b.parts.iter().zip(&self.components);
                let present: f64 = rows.filter(|(p, _)| p.raw.is_some()).map(|(_, (_, w))| w).sum();
                // Exactly 1 when nothing is absent, so that the plain sum of the original comes out.
                let share = if present > 0.0 && present < all { all / present } else { 1.0 };
                b.parts.iter_mut().for_each(|p| p.weighted = p.weighted.map(|x| x * share));
            }
            b.total = b.parts.iter().filter_map(|p| p.weighted).sum();
        }
        Ok(out)
    }
}

fn check(c: &dyn Reward, raw: &[Option<f64>], n: usize) -> Result<()> {
    let (low, high) = c.range();
    let what = || Error::internal(format!("score the {} component", c.name()));
    if raw.len() != n {
        return Err(what().expected(format!("{n} scores")).got(raw.len().to_string()));
    }
    match raw.iter().flatten().find(|x| !(low - 1e-9..=high + 1e-9).contains(*x)) {
        Some(x) => Err(what().expected(format!("a number from {low} to {high}")).got(x.to_string())),
        None => Ok(()),
    }
}
