//! Five scores, and the strict reading of what a judge wrote.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Keys of an answer, in order.
pub const KEYS: [&str; 5] =
    ["empathy_score", "informativeness_score", "recommendation_score", "engagement_score", "overall_score"];

/// Names of the same qualities, as the critic's heads bear them.
pub const HEADS: [&str; 5] = ["empathy", "informativeness", "recommendation", "engagement", "overall"];

/// Bytes that an answer may have; five scores need 130.
const MOST: usize = 2048;

/// Five scores, each in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// Understanding and emotional support.
    pub empathy_score: f64,
    /// Useful, specific content.
    pub informativeness_score: f64,
    /// Fit of what is recommended; exactly 0.0 where nothing is.
    pub recommendation_score: f64,
    /// Whether the seeker will want to go on.
    pub engagement_score: f64,
    /// Overall quality.
    pub overall_score: f64,
}

impl Scores {
    /// In the order of [`KEYS`] and [`HEADS`].
    pub fn values(&self) -> [f64; 5] {
        [
            self.empathy_score,
            self.informativeness_score,
            self.recommendation_score,
            self.engagement_score,
            self.overall_score,
        ]
    }
    /// From values in the order of [`KEYS`].
    pub fn from_values(v: [f64; 5]) -> Self {
        Self {
            empathy_score: v[0],
            informativeness_score: v[1],
            recommendation_score: v[2],
            engagement_score: v[3],
            overall_score: v[4],
        }
    }
}

/// Why an answer is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable(pub String);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads a generated suffix: exactly one JSON object with the five keys, each once, each a number in [0, 1], and
/// nothing beside it but white space. Fences, prose, lists, further, missing or doubled keys, texts for numbers, and
/// numbers that are none (`NaN`, `1e309`) are refused.
///
/// # Errors
/// [`Unusable`], with what is wrong.
pub fn parse(suffix: &str) -> Result<Scores, Unusable> {
    let no = |why: String| Err(Unusable(why));
    if suffix.len() > MOST {
        return no(format!("an answer of {} bytes", suffix.len()));
    }
    let text = suffix.trim_matches([' ', '\t', '\r', '\n']);
    // A struct may be written as a list in serde's JSON; an answer may not.
    if !text.starts_with('{') {
        return no(if text.is_empty() { "an empty answer".into() } else { "not a JSON object alone".into() });
    }
    let scores: Scores = match serde_json::from_str(text) {
        Ok(s) => s,
        Err(e) => return no(e.to_string()),
    };
    let mut values = scores.values();
    for (key, value) in KEYS.iter().zip(&mut values) {
        if !(0.0..=1.0).contains(value) {
            return no(format!("{key} = {value} lies outside [0, 1]"));
        }
        *value += 0.0; // -0.0 is 0.0
    }
    Ok(Scores::from_values(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"empathy_score": 0.5, "informativeness_score": 1, "recommendation_score": 0.0, "engagement_score": 2.5e-1, "overall_score": 0.75}"#;

    #[test]
    fn an_answer_is_read_in_any_order() {
        let s = parse(GOOD).unwrap();
        assert_eq!(s.values(), [0.5, 1.0, 0.0, 0.25, 0.75]);
        let turned = r#" {"overall_score":0.75,"engagement_score":0.25,"recommendation_score":-0.0,"informativeness_score":1.0,"empathy_score":0.5}
"#;
        assert_eq!(parse(turned).unwrap(), s);
        assert!(parse(turned).unwrap().recommendation_score.is_sign_positive());
        assert_eq!(Scores::from_values(s.values()), s);
    }

    #[test]
    fn everything_else_is_refused() {
        let bad = [
            String::new(),
            "0.5".into(),
            "[0.5, 1, 0, 0.25, 0.75]".into(),
            format!("```json\n{GOOD}\n```"),
            format!("Here you are: {GOOD}"),
            format!("{GOOD} I hope this helps."),
            format!("{GOOD}{GOOD}"),
            format!("[{GOOD}]"),
            GOOD.replace("0.75}", "0.75"),
            GOOD.replace("0.75}", "0.75,}"),
            GOOD.replace("0.75}", "0.75, \"reason\": \"x\"}"),
            GOOD.replace("0.75}", "0.75, \"overall_score\": 0.75}"),
            GOOD.replace(", \"overall_score\": 0.75", ""),
            GOOD.replace("0.75", "NaN"),
            GOOD.replace("0.75", "Infinity"),
            GOOD.replace("0.75", "1e309"),
            GOOD.replace("0.75", "-1e309"),
            GOOD.replace("0.75", "1.0000001"),
            GOOD.replace("0.75", "-0.1"),
            GOOD.replace("0.75", "7.5"),
            GOOD.replace("0.75", "\"0.75\""),
            GOOD.replace("0.75", "null"),
            GOOD.replace("0.75", "true"),
            GOOD.replace("0.75", "[0.75]"),
            GOOD.replace("0.75", "{\"score\": 0.75}"),
            GOOD.replace("0.75", ".75"),
            GOOD.replace("0.75", "075"),
            GOOD.replace("overall_score", "Overall_score"),
            GOOD.replace('"', "'"),
            format!("{GOOD}{}", " ".repeat(MOST)),
            format!("\u{feff}{GOOD}"),
        ];
        for text in bad {
            assert!(parse(&text).is_err(), "{text}");
        }
    }
}
