//! `empathy` and its evaluation-only twin `empathy_eval`: E = 1 − JS(p̂(y) ‖ t(q)), 0..1 (ecr.md §3.3).
//!
//! p̂(y) is the classifier's distribution on the reply; t(q) = Σ_e p̂(e | last seeker turn) · row_e mixes the rows
//! of a response map by how the seeker feels; JS in bits. Matching a target is harder to game than maximising
//! "caring" (rl.md §7.3). Absent when no seeker turn came before; an empty reply scores 0.

use std::collections::BTreeMap;

use ecr_core::seam::{EMOTIONS, Emotion, EmotionDistribution, Purpose, Reply, Reward};
use ecr_core::{Error, Result, Role};

/// Default rows: what a fitting reply sounds like when the seeker is in a state. Equal shares. From ecr.md §3.3;
/// rows that it leaves open keep the seeker's own tone beside a friendly one.
pub const DEFAULT_MAP: [(&str, &[&str]); 9] = [
    ("like", &["like", "happy"]),
    ("curious", &["like", "curious"]),
    ("happy", &["happy", "like"]),
    ("grateful", &["grateful", "happy"]),
    ("negative", &["agreement", "neutral", "like"]),
    ("neutral", &["neutral", "like", "curious"]),
    ("nostalgia", &["nostalgia", "like"]),
    ("agreement", &["agreement", "like"]),
    ("surprise", &["curious", "like"]),
];

/// How the seeker's emotion maps to that of a fitting reply: row = seeker's, column = reply's, rows sum to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct ResponseMap {
    rows: [[f64; 9]; 9],
}

fn label(name: &str) -> Result<usize> {
    EMOTIONS.iter().position(|e| *e == name).ok_or_else(|| {
        Error::config("read the response map of the empathy reward")
            .expected(format!("one of {}", EMOTIONS.join(", ")))
            .got(format!("\"{name}\""))
    })
}

impl ResponseMap {
    /// The default map.
    pub fn standard() -> Self {
        let mut rows = [[0.0; 9]; 9];
        let index = |name: &str| EMOTIONS.iter().position(|e| *e == name);
        for (state, replies) in DEFAULT_MAP {
            for r in replies {
                if let (Some(s), Some(r)) = (index(state), index(r)) {
                    rows[s][r] = 1.0 / replies.len() as f64;
                }
            }
        }
        Self { rows }
    }
    /// The default map with some rows replaced: seeker's label → labels of a fitting reply, equal shares.
    pub fn with_rows(rows: &BTreeMap<String, Vec<String>>) -> Result<Self> {
        let mut map = Self::standard();
        for (state, replies) in rows {
            let row = &mut map.rows[label(state)?];
            if replies.is_empty() {
                return Err(Error::config(format!("read row \"{state}\" of the response map"))
                    .expected("at least one label")
                    .got("an empty list"));
            }
            *row = [0.0; 9];
            for r in replies {
                row[label(r)?] += 1.0 / replies.len() as f64;
            }
        }
        Ok(map)
    }
    /// The map without reply labels that a scorer has never seen (it could not give them to any reply): each
    /// row's rest is scaled to sum 1; a row that loses all becomes uniform over the labels the scorer has.
    pub fn restricted(&self, known: [bool; 9]) -> Self {
        let mut rows = self.rows;
        let uniform = 1.0 / known.iter().filter(|k| **k).count().max(1) as f64;
        for row in &mut rows {
            for (x, k) in row.iter_mut().zip(known) {
                *x = if k { *x } else { 0.0 };
            }
            let sum: f64 = row.iter().sum();
            for (x, k) in row.iter_mut().zip(known) {
                *x = match (sum > 0.0, k) {
                    (true, _) => *x / sum,
                    (false, true) => uniform,
                    (false, false) => 0.0,
                };
            }
        }
        Self { rows }
    }
    /// t(q) for the seeker's distribution; sums to 1.
    pub fn target(&self, seeker: &EmotionDistribution) -> [f64; 9] {
        let mass: f64 = seeker.iter().map(|&p| f64::from(p)).sum();
        let mut t = [0.0; 9];
        for (row, &p) in self.rows.iter().zip(seeker) {
            for (t, r) in t.iter_mut().zip(row) {
                *t += f64::from(p) / mass * r;
            }
        }
        t
    }
    fn describe(&self) -> String {
        // Rows are exact numbers: the text changes whenever the score would.
        self.rows.iter().flatten().map(|x| format!("{x:.4}")).collect::<Vec<_>>().join(" ")
    }
}

/// Jensen–Shannon divergence of two distributions, bits, 0..1.
pub fn js_divergence(p: &[f64], q: &[f64]) -> f64 {
    let term = |a: f64, m: f64| if a > 0.0 { a * (a / m).log2() } else { 0.0 };
    let sum: f64 = p.iter().zip(q).map(|(&a, &b)| term(a, 0.5 * (a + b)) + term(b, 0.5 * (a + b))).sum();
    (0.5 * sum).clamp(0.0, 1.0)
}

/// The `empathy` component or its twin.
pub struct Empathy {
    scorer: Box<dyn Emotion>,
    map: ResponseMap,
    purpose: Purpose,
}

impl Empathy {
    /// The component that training may use.
    pub fn train(scorer: Box<dyn Emotion>, map: ResponseMap) -> Self {
        Self { scorer, map, purpose: Purpose::Train }
    }
    /// The evaluation-only twin: another classifier, from other data.
    pub fn evaluate(scorer: Box<dyn Emotion>, map: ResponseMap) -> Self {
        Self { scorer, map, purpose: Purpose::Evaluate }
    }
}

impl Reward for Empathy {
    fn name(&self) -> &'static str {
        match self.purpose {
            Purpose::Train => "empathy",
            Purpose::Evaluate => "empathy_eval",
        }
    }
    fn range(&self) -> (f64, f64) {
        (0.0, 1.0)
    }
    fn version(&self) -> String {
        format!("{} 1: {}; map {}", self.name(), self.scorer.version(), self.map.describe())
    }
    fn purpose(&self) -> Purpose {
        self.purpose
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let seeker = |r: &Reply<'_>| r.context.iter().rposition(|u| u.role == Role::Seeker);
        let rows: Vec<(usize, usize)> =
            batch.iter().enumerate().filter_map(|(i, r)| Some((i, seeker(r)?))).collect();
        let texts: Vec<&str> =
            rows.iter().flat_map(|&(i, u)| [batch[i].context[u].text.as_str(), batch[i].text]).collect();
        let p = self.scorer.distribution(&texts)?;
        if p.len() != texts.len() {
            return Err(Error::internal("score empathy")
                .expected(format!("{} distributions", texts.len()))
                .got(p.len().to_string()));
        }
        let mut out = vec![None; batch.len()];
        for (&(i, _), pair) in rows.iter().zip(p.chunks_exact(2)) {
            let mass: f64 = pair[1].iter().map(|&x| f64::from(x)).sum();
            let reply = pair[1].map(|x| f64::from(x) / mass);
            let empty = batch[i].text.trim().is_empty();
            out[i] = Some(if empty { 0.0 } else { 1.0 - js_divergence(&reply, &self.map.target(&pair[0])) });
        }
        Ok(out)
    }
    fn explain(&mut self, reply: &Reply<'_>) -> Result<Vec<String>> {
        let Some(seeker) = reply.context.iter().rfind(|u| u.role == Role::Seeker) else {
            return Ok(vec!["no seeker turn before: absent".into()]);
        };
        let p = self.scorer.distribution(&[seeker.text.as_str(), reply.text])?;
        let [seeker, own] = p.as_slice() else {
            return Err(Error::internal("explain empathy").got(format!("{} distributions", p.len())));
        };
        let wide = |d: &EmotionDistribution| d.map(f64::from);
        Ok(vec![
            format!("seeker sounds {}", top(&wide(seeker))),
            format!("a fitting reply sounds {}", top(&self.map.target(seeker))),
            format!("this one sounds {}", top(&wide(own))),
        ])
    }
}

/// The three likeliest labels of a distribution.
fn top(p: &[f64; 9]) -> String {
    let mut order: Vec<usize> = (0..9).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]));
    order[..3].iter().map(|&i| format!("{} {:.2}", EMOTIONS[i], p[i])).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{KeywordEmotion, reply, seeker};

    #[test]
    fn a_fitting_tone_scores_higher_and_no_seeker_is_absent() {
        let context = [seeker("I was so sad and bored, it was a negative day")];
        let mut e = Empathy::train(Box::new(KeywordEmotion), ResponseMap::standard());
        let texts = ["I agreement, that is hard.", "happy happy happy", "", "negative"];
        let batch: Vec<_> = texts.iter().map(|t| Reply { context: &context, ..reply(t) }).collect();
        let s: Vec<f64> = e.score(&batch).unwrap().into_iter().flatten().collect();
        assert!(s[0] > s[1] && s[0] > s[3] && s[2] == 0.0, "{s:?}");
        assert!(s.iter().all(|x| (0.0..=1.0).contains(x)));
        assert_eq!(e.score(&[reply("hello")]).unwrap(), [None]);
    }

    #[test]
    fn js_is_0_for_equal_and_1_for_disjoint() {
        assert_eq!(js_divergence(&[0.5, 0.5], &[0.5, 0.5]), 0.0);
        assert!((js_divergence(&[1.0, 0.0], &[0.0, 1.0]) - 1.0).abs() < 1e-12);
        // ½·(1·log2(1/.75)) + ½·(½·log2(.5/.75) + ½·log2(.5/.25))
        let want = 0.5 * (1.0f64 / 0.75).log2() + 0.25 * (0.5f64 / 0.75).log2() + 0.25;
        assert!((js_divergence(&[1.0, 0.0], &[0.5, 0.5]) - want).abs() < 1e-12);
    }

    #[test]
    fn rows_can_be_replaced_and_restricted_and_unknown_labels_are_refused() {
        let rows = BTreeMap::from([("happy".to_owned(), vec!["nostalgia".to_owned()])]);
        let map = ResponseMap::with_rows(&rows).unwrap();
        let mut p = [0.0; 9];
        p[2] = 1.0;
        assert_eq!(map.target(&p)[6], 1.0);
        let mut known = [true; 9];
        known[6] = false;
        let t = map.restricted(known).target(&p);
        assert!(t[6] == 0.0 && (t.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let bad = BTreeMap::from([("hapy".to_owned(), vec!["like".to_owned()])]);
        assert!(ResponseMap::with_rows(&bad).unwrap_err().to_string().contains("hapy"));
        assert_ne!(map.describe(), ResponseMap::standard().describe());
    }
}
