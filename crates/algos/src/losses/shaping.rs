//! What a response's end does to its score: the missing-EOS penalty (Huang et al. 2024, detail 23, replaces the
//! score; TRL subtracts) and the overlong ramp (DAPO; Yu et al. 2025).

/// How ends are rewarded.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EndShaping {
    /// Subtracted from the score of an unfinished response, ≥ 0.
    pub missing_eos_penalty: f64,
    /// Replaces the score of an unfinished response, before the penalty.
    pub missing_eos_score: Option<f64>,
    /// Tokens before the limit over which the overlong ramp rises; 0 is off.
    pub overlong_buffer: usize,
    /// The ramp's height at the limit, ≥ 0.
    pub overlong_penalty: f64,
}

impl EndShaping {
    /// The shaped score of a response of `length` tokens where `max_new` are allowed.
    pub fn apply(self, score: f64, finished: bool, length: usize, max_new: usize) -> f64 {
        let (score, penalty) = match finished {
            true => (score, 0.0),
            false => (self.missing_eos_score.unwrap_or(score), self.missing_eos_penalty),
        };
        let over = (length + self.overlong_buffer).saturating_sub(max_new).min(self.overlong_buffer);
        let ramp = match self.overlong_buffer {
            0 => 0.0,
            buffer => self.overlong_penalty * over as f64 / buffer as f64,
        };
        score - penalty - ramp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        let s = EndShaping { missing_eos_penalty: 1.0, ..EndShaping::default() };
        assert_eq!((s.apply(0.5, true, 10, 10), s.apply(0.5, false, 10, 10)), (0.5, -0.5));
        let replaced = EndShaping { missing_eos_score: Some(-2.0), ..s };
        assert_eq!((replaced.apply(9.0, true, 1, 10), replaced.apply(9.0, false, 1, 10)), (9.0, -3.0));
        let ramp = EndShaping { overlong_buffer: 4, overlong_penalty: 2.0, ..EndShaping::default() };
        let got: Vec<f64> = [5, 6, 7, 8, 10].map(|n| ramp.apply(1.0, true, n, 10)).to_vec();
        assert_eq!(got, [1.0, 1.0, 0.5, 0.0, -1.0]);
        assert_eq!(ramp.apply(1.0, true, 99, 10), -1.0, "never more than the ramp's height");
    }
}
