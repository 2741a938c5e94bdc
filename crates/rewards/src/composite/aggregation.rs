//! How weighted parts become one number.

use std::collections::BTreeMap;

use ecr_core::{Error, Result};

use super::Breakdown;

/// How weighted parts become one number.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Aggregation {
    /// Normalise each component, weigh, sum: weights act on comparable scales.
    #[default]
    Sum,
    /// Weigh raw scores, sum, normalise the sum: a component with a wide range counts for more. The weights of
    /// absent components are shared out among those present.
    SumThenNormalise,
    /// The sum, in which the worst of some components stands for all of them, with their joint weight: what one of
    /// several learned scorers is fooled by does not pay (worst-case optimisation, Coste et al. 2023).
    WorstCase {
        /// The ensemble; absent members do not count.
        of: Vec<String>,
    },
    /// The sum, in which the weights of some components are Lagrange multipliers: they rise while the batch's mean
    /// raw score is below the bar and fall to 0 above it, so that no component is pushed past the point to which it
    /// can be trusted (μ-PPO of Moskovitz et al., ICLR 2024, with constraints from below). They start at the configured
    /// weights and move by `rate` times the distance in standard deviations (1 at most) after each training batch.
    Constrained {
        /// Least mean raw score, by component.
        at_least: BTreeMap<String, f64>,
        /// Step of the multipliers, above 0.
        rate: f64,
        /// Greatest multiplier, above 0.
        most: f64,
    },
}

impl Aggregation {
    /// Components that it names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let (list, map) = match self {
            Self::WorstCase { of } => (Some(of.iter()), None),
            Self::Constrained { at_least, .. } => (None, Some(at_least.keys())),
            Self::Sum | Self::SumThenNormalise => (None, None),
        };
        list.into_iter().flatten().chain(map.into_iter().flatten()).map(String::as_str)
    }
    pub(super) fn check(&self) -> Result<()> {
        let bad = |expected: &str, got: String| {
            Err(Error::config("aggregate the reward").expected(expected).got(got))
        };
        match self {
            Self::WorstCase { of } if of.len() < 2 => {
                bad("an ensemble of at least two components", of.join(", "))
            }
            Self::Constrained { at_least, .. } if at_least.is_empty() => {
                bad("a constraint, e.g. \"distinct >= 0.8\"", "none".into())
            }
            Self::Constrained { at_least, .. } if at_least.values().any(|x| !x.is_finite()) => {
                bad("bars that are numbers", format!("{at_least:?}"))
            }
            Self::Constrained { rate, most, .. } if !(*rate > 0.0 && *most > 0.0 && most.is_finite()) => {
                bad("a rate and a greatest multiplier above 0", format!("{rate} and {most}"))
            }
            _ => Ok(()),
        }
    }
}

/// Gives the ensemble's joint weight (that of its members present) to its worst member.
pub(super) fn worst_case(b: &mut Breakdown, weights: &[f64], of: &[String]) {
    let members: Vec<usize> = (0..b.parts.len())
        .filter(|&i| of.contains(&b.parts[i].name) && b.parts[i].normalised.is_some())
        .collect();
    let score = |i: &usize| b.parts[*i].normalised.unwrap_or(f64::INFINITY);
    let Some(worst) = members.iter().copied().min_by(|i, j| score(i).total_cmp(&score(j))) else { return };
    let joint: f64 = members.iter().map(|&i| weights[i]).sum();
    for &i in &members {
        b.parts[i].weighted = b.parts[i].normalised.map(|x| if i == worst { joint * x } else { 0.0 });
    }
}
