//! Losses of preference pairs (Rafailov et al. 2023 and its kin). With `Δ⁺ = log π(y⁺) − log π_ref(y⁺)` summed over
//! the response (or averaged: length-normalised), `Δ⁻` likewise and `h = Δ⁺ − Δ⁻`:
//!
//! | name | loss of a pair |
//! |---|---|
//! | sigmoid | `−(1−ε)·log σ(βh) − ε·log σ(−βh)` (ε > 0: conservative DPO, Mitchell 2023) |
//! | robust | `(−(1−ε)·log σ(βh) + ε·log σ(−βh)) / (1−2ε)` (Chowdhury et al. 2024) |
//! | hinge | `max(0, 1 − βh)` (SLiC; Zhao et al. 2023) |
//! | ipo | `(h − 1/(2β))²` (Azar et al. 2024; TRL length-normalises h, OpenRLHF does not) |

use serde::{Deserialize, Serialize};

/// Which loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preference {
    /// DPO; with label smoothing conservative DPO.
    #[default]
    Sigmoid,
    /// DPO made unbiased for labels that are flipped with probability ε.
    Robust,
    /// Hinge.
    Hinge,
    /// Squared distance to a margin of 1/(2β).
    Ipo,
}

/// `log σ(x)`, without overflow.
fn log_sigmoid(x: f64) -> f64 {
    if x >= 0.0 { -(-x).exp().ln_1p() } else { x - x.exp().ln_1p() }
}

fn sigmoid(x: f64) -> f64 {
    log_sigmoid(x).exp()
}

impl Preference {
    /// Loss of a pair with margin `h` (nats), and `∂loss/∂h`. `beta` > 0, `smoothing` ε in [0, ½).
    pub fn of(self, h: f64, beta: f64, smoothing: f64) -> (f64, f64) {
        let (e, x) = (smoothing, beta * h);
        match self {
            Self::Sigmoid => (
                -(1.0 - e) * log_sigmoid(x) - e * log_sigmoid(-x),
                beta * (e * sigmoid(x) - (1.0 - e) * sigmoid(-x)),
            ),
            Self::Robust => (
                (-(1.0 - e) * log_sigmoid(x) + e * log_sigmoid(-x)) / (1.0 - 2.0 * e),
                -beta * ((1.0 - e) * sigmoid(-x) + e * sigmoid(x)) / (1.0 - 2.0 * e),
            ),
            Self::Hinge if x >= 1.0 => (0.0, 0.0),
            Self::Hinge => (1.0 - x, -beta),
            Self::Ipo => {
                let off = h - 0.5 / beta;
                (off * off, 2.0 * off)
            }
        }
    }
}

/// Bradley–Terry loss of a reward model, `−log σ(r⁺ − r⁻ − margin)`, with its slope by `r⁺ − r⁻`.
pub fn bradley_terry(chosen: f64, rejected: f64, margin: f64) -> (f64, f64) {
    let x = chosen - rejected - margin;
    (-log_sigmoid(x), -sigmoid(-x))
}
