//! The composite reward: score the components, normalise each, clip, weigh, sum (or see [`Aggregation`]).
//!
//! z = clip((x − mean) / sqrt(var + 1e-8), ±5) with running mean and population variance over all scores seen
//! (Welford), this batch included. An absent component contributes nothing, that is, the average. With
//! [`Mode::None`] raw scores are summed, and the weights of absent components are shared out among those
//! present, so that absence is not a 0 there either.
//! For a comparison the normaliser is fitted on the baseline and frozen: the same numbers for both models, and the
//! weights are the configured ones, without schedules and multipliers.

mod aggregation;
mod schedule;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use ecr_core::seam::{Purpose, Reply, Reward};
use ecr_core::{Error, Result};
use serde::{Deserialize, Serialize};

pub use aggregation::Aggregation;
pub use schedule::{Schedule, When};
pub use state::{Moments, NormaliserState};

use crate::gate::Gate;

/// Standard scores (or raw ones, with [`Mode::None`]) that every component is given at most where the gate is closed.
const CLOSED: (f64, f64) = (-2.0, -1.0);

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
    /// Sum of the weighted parts; less behind a closed gate; their standard score with
    /// [`Aggregation::SumThenNormalise`].
    pub total: f64,
    /// One entry a component, in the composite's order.
    pub parts: Vec<Part>,
    /// Why the gate is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
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
    aggregation: Aggregation,
    gate: Option<Gate>,
    schedules: Vec<Schedule>,
    /// Step of training, for schedules.
    step: Option<u64>,
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
        let moments = rows.iter().map(|(r, _)| (r.name().to_owned(), Moments::default())).collect();
        Ok(Self {
            components: rows,
            mode,
            clip: 5.0,
            state: NormaliserState { moments, ..NormaliserState::default() },
            aggregation: Aggregation::Sum,
            gate: None,
            schedules: Vec::new(),
            step: None,
        })
    }
    /// Aggregates otherwise than by the plain sum.
    ///
    /// # Errors
    /// Config: a component that is not there, or constraints with a rate or bound that is not above 0.
    pub fn aggregated(mut self, aggregation: Aggregation) -> Result<Self> {
        aggregation.names().try_for_each(|n| self.has(n, "aggregate the reward"))?;
        aggregation.check()?;
        match &aggregation {
            Aggregation::SumThenNormalise => {
                self.state.moments.insert(NormaliserState::SUM.into(), Moments::default());
            }
            Aggregation::Constrained { at_least, .. } => {
                let of = |n: &String| (n.clone(), self.configured(n));
                self.state.multipliers = at_least.keys().map(of).collect();
            }
            Aggregation::Sum | Aggregation::WorstCase { .. } => {}
        }
        self.aggregation = aggregation;
        Ok(self)
    }
    /// Puts a gate before the sum: a reply to which it is closed is worth no more than one that scores two standard
    /// deviations below the mean in every component (1 below 0 with [`Mode::None`]).
    pub fn gated(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }
    /// Lets weights change while training.
    ///
    /// # Errors
    /// Config: a component that is not there, or that has two schedules or a constraint as well.
    pub fn scheduled(mut self, schedules: Vec<Schedule>) -> Result<Self> {
        const WHAT: &str = "schedule the weights of the reward";
        for (i, s) in schedules.iter().enumerate() {
            self.has(&s.component, WHAT)?;
            if let When::Metric { of, .. } = &s.when {
                self.has(of, WHAT)?;
            }
            let twice = schedules[..i].iter().any(|o| o.component == s.component);
            if twice || self.state.multipliers.contains_key(&s.component) {
                return Err(Error::config(WHAT)
                    .expected("one rule for a weight")
                    .got(format!("two for {}", s.component)));
            }
        }
        self.schedules = schedules;
        Ok(self)
    }
    fn has(&self, name: &str, what: &str) -> Result<()> {
        if self.components.iter().any(|(c, _)| c.name() == name) {
            return Ok(());
        }
        let have: Vec<&str> = self.components.iter().map(|(c, _)| c.name()).collect();
        Err(Error::config(what)
            .expected(format!("a component of this reward: {}", have.join(", ")))
            .got(format!("{name:?}"))
            .hint("an optional component has to have a weight"))
    }
    fn configured(&self, name: &str) -> f64 {
        self.components.iter().find(|(c, _)| c.name() == name).map_or(0.0, |(_, w)| *w)
    }
    /// Step of training that the next batches belong to, for schedules.
    pub fn set_step(&mut self, step: u64) {
        self.step = Some(step);
    }
    /// Whether there is a gate.
    pub fn is_gated(&self) -> bool {
        self.gate.is_some()
    }
    /// Whether weights change while training.
    pub fn is_adaptive(&self) -> bool {
        !self.schedules.is_empty() || !self.state.multipliers.is_empty()
    }
    /// The weights of the next batch, in order: the configured ones, unless training has changed them.
    pub fn current_weights(&self) -> Vec<f64> {
        let one = |(c, w): &(Box<dyn Reward>, f64)| {
            if self.mode != Mode::Running {
                return *w;
            }
            if let Some(&m) = self.state.multipliers.get(c.name()) {
                return m;
            }
            match (self.schedules.iter().find(|s| s.component == c.name()), self.step) {
                (Some(s), Some(step)) => s.weight(*w, step, self.state.begun.contains(c.name())),
                _ => *w,
            }
        };
        self.components.iter().map(one).collect()
    }
    /// The component of this name.
    pub fn component(&mut self, name: &str) -> Option<&mut dyn Reward> {
        self.components.iter_mut().find(|(c, _)| c.name() == name).map(|(c, _)| c.as_mut() as &mut dyn Reward)
    }
    /// Names and weights, in order.
    pub fn weights(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        self.components.iter().map(|(c, w)| (c.name(), *w))
    }
    /// Changes whenever the same reply would score differently under the same normaliser state.
    pub fn version(&self) -> String {
        let parts: Vec<String> =
            self.components.iter().map(|(c, w)| format!("{w} x [{}]", c.version())).collect();
        let mut text = format!("composite 1, {:?}, clip {}: {}", self.mode, self.clip, parts.join(" + "));
        if self.aggregation != Aggregation::Sum {
            text += &format!("; {:?}", self.aggregation);
        }
        for s in &self.schedules {
            text += &format!("; {s:?}");
        }
        if let Some(g) = &self.gate {
            text += &format!("; {}", g.version());
        }
        text
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
        let same = state.moments.keys().eq(self.state.moments.keys())
            && state.multipliers.keys().eq(self.state.multipliers.keys());
        if !same {
            let names = |s: &NormaliserState| {
                s.moments.keys().chain(s.multipliers.keys()).cloned().collect::<Vec<_>>().join(", ")
            };
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
        let weights = self.current_weights();
        let mut out: Vec<Breakdown> =
            batch.iter().map(|_| Breakdown { total: 0.0, parts: Vec::new(), gate: None }).collect();
        let whole_sum = self.aggregation == Aggregation::SumThenNormalise;
        for ((c, _), weight) in self.components.iter_mut().zip(&weights) {
            if c.memory() > 0 {
                c.recall(&self.state.recent);
            }
            let raw = c.score(batch)?;
            check(c.as_ref(), &raw, batch.len())?;
            let moments = self.state.moments.entry(c.name().to_owned()).or_default();
            if self.mode == Mode::Running {
                raw.iter().flatten().for_each(|&x| moments.push(x));
            }
            for (b, raw) in out.iter_mut().zip(raw) {
                let normalised = raw.map(|x| match self.mode {
                    _ if whole_sum => x,
                    Mode::None => x,
                    Mode::Running | Mode::Frozen => moments.standard(x, self.clip),
                });
                let weighted = normalised.map(|x| *weight * x);
                b.parts.push(Part { name: c.name().to_owned(), raw, normalised, weighted });
            }
        }
        if let Aggregation::WorstCase { of } = &self.aggregation {
            out.iter_mut().for_each(|b| aggregation::worst_case(b, &weights, of));
        }
        if whole_sum || self.mode == Mode::None {
            out.iter_mut().for_each(|b| share_out(b, &weights));
        }
        for b in &mut out {
            b.total = b.parts.iter().filter_map(|p| p.weighted).sum();
        }
        if whole_sum && self.mode != Mode::None {
            let moments = self.state.moments.entry(NormaliserState::SUM.to_owned()).or_default();
            if self.mode == Mode::Running {
                out.iter().for_each(|b| moments.push(b.total));
            }
            out.iter_mut().for_each(|b| b.total = moments.standard(b.total, self.clip));
        }
        if let Some(gate) = &self.gate {
            let all: f64 = if whole_sum && self.mode != Mode::None { 1.0 } else { weights.iter().sum() };
            let floor = all * if self.mode == Mode::None { CLOSED.1 } else { CLOSED.0 };
            for (b, r) in out.iter_mut().zip(batch) {
                if let Some(why) = gate.closed(r) {
                    b.total = b.total.min(floor);
                    b.gate = Some(why.to_owned());
                }
            }
        }
        if self.mode == Mode::Running {
            self.learn(&out);
            let memory = self.components.iter().map(|(c, _)| c.memory()).max().unwrap_or(0);
            if memory > 0 {
                self.state.recent.extend(batch.iter().map(|r| r.text.to_owned()));
                let old = self.state.recent.len().saturating_sub(memory);
                self.state.recent.drain(..old);
            }
        }
        Ok(out)
    }
    /// After a batch: multipliers move towards their constraints, schedules begin whose bar is reached.
    fn learn(&mut self, batch: &[Breakdown]) {
        let mean = |name: &str| {
            let raw: Vec<f64> = batch.iter().filter_map(|b| b.part(name)?.raw).collect();
            (!raw.is_empty()).then(|| raw.iter().sum::<f64>() / raw.len() as f64)
        };
        if let Aggregation::Constrained { at_least, rate, most } = &self.aggregation {
            for (name, bar) in at_least {
                let sd = self.state.moments.get(name).map_or(0.0, |m| (m.variance() + 1e-8).sqrt());
                if let (Some(m), Some(x)) = (mean(name), self.state.multipliers.get_mut(name)) {
                    *x = (*x + rate * ((bar - m) / sd).clamp(-1.0, 1.0)).clamp(0.0, *most);
                }
            }
        }
        for s in &self.schedules {
            if let When::Metric { of, bar, .. } = &s.when
                && mean(of).is_some_and(|m| m >= *bar)
            {
                self.state.begun.insert(s.component.clone());
            }
        }
    }
}

/// Shares the weights of absent components out among those present: without normalisation 0 is not the average.
fn share_out(b: &mut Breakdown, weights: &[f64]) {
    let all: f64 = weights.iter().sum();
    let present: f64 = b.parts.iter().zip(weights).filter(|(p, _)| p.raw.is_some()).map(|(_, w)| w).sum();
    // Exactly 1 when nothing is absent, so that the plain sum of the original comes out.
    let share = if present > 0.0 && present < all { all / present } else { 1.0 };
    b.parts.iter_mut().for_each(|p| p.weighted = p.weighted.map(|x| x * share));
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
