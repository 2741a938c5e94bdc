//! How much may be spent, and what a run is going to cost.

use crate::prompt::Message;

/// Limits. `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Budget {
    /// Calls, all tries and probes included, those of interrupted runs too.
    pub requests: Option<u64>,
    /// Seconds of this run.
    pub seconds: Option<f64>,
    /// Money, in the currency of the prices.
    pub cost: Option<f64>,
}

/// Money a million tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Prices {
    /// Of prompts.
    pub input: f64,
    /// Of answers.
    pub output: f64,
}

/// Tokens of an answer, for estimates: five keys and numbers.
pub const ANSWER_TOKENS: u64 = 60;

impl Prices {
    /// What tokens in and out cost.
    pub fn of(&self, tokens: [u64; 2]) -> f64 {
        (tokens[0] as f64 * self.input + tokens[1] as f64 * self.output) / 1e6
    }
}

/// Tokens of a prompt, estimated: three bytes a token is more than most tokenizers need for English.
pub fn prompt_tokens(messages: &[Message]) -> u64 {
    messages.iter().map(|m| m.content.len() as u64).sum::<u64>() / 3 + 10
}

/// What a run is going to take, before any call.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// Items to ask about.
    pub items: u64,
    /// Calls if every answer is usable at once: items and probes.
    pub calls: u64,
    /// Calls at most: with every repeated try that is allowed.
    pub calls_most: u64,
    /// Tokens in and out for `calls`.
    pub tokens: [u64; 2],
    /// Seconds for `calls` at the assumed time a call.
    pub seconds: f64,
    /// Money for `calls`; 0 without prices.
    pub cost: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_tokens_times_price_a_million() {
        let p = Prices { input: 2.0, output: 10.0 };
        assert!((p.of([1_000_000, 100_000]) - 3.0).abs() < 1e-12);
        assert_eq!(prompt_tokens(&[Message { role: "user", content: "x".repeat(300) }]), 110);
    }
}
