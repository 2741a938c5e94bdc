//! What a composite learns while it scores, as plain numbers that a checkpoint restores to the bit.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

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

/// All that a checkpoint needs. JSON keeps every bit (shortest round-trip floats); what a composite does not use
/// is not written, so that the state of a plain weighted sum is its moments alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NormaliserState {
    /// Moments by component name, and of the sum where that is what is normalised ([`Self::SUM`]).
    #[serde(flatten)]
    pub moments: BTreeMap<String, Moments>,
    /// Lagrange multipliers by component name.
    #[serde(default, rename = "lagrange multipliers", skip_serializing_if = "BTreeMap::is_empty")]
    pub multipliers: BTreeMap<String, f64>,
    /// Components whose mean has passed the bar of a schedule.
    #[serde(default, rename = "schedules begun", skip_serializing_if = "BTreeSet::is_empty")]
    pub begun: BTreeSet<String>,
    /// The last replies scored, oldest first, as many as a component looks back at.
    #[serde(default, rename = "recent replies", skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<String>,
}

impl NormaliserState {
    /// Where the moments of the weighted sum are kept; no component can have a name with a blank.
    pub const SUM: &str = "weighted sum";
}
