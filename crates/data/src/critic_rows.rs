//! Rows of `critic_{train,valid}.jsonl`: what the critic's heads learn from.
//!
//! A row is (context, response) with scores in 0..1 for some heads, each with its source. A head that a row has
//! no source for is absent there, and a head that no row has is neither trained nor written: nothing here is
//! a constant.

use std::collections::BTreeMap;

use ecr_core::{Stream, Utterance};
use serde::{Deserialize, Serialize};

use crate::aspects::RatedAspects;
use crate::degradations::Degraded;
use crate::satisfaction::RatedReply;

/// A score and who gave it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeadScore {
    /// 0 worst .. 1 best.
    pub score: f64,
    /// "uss", "abredial", or the name of a degradation.
    pub source: String,
}

/// One row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CriticRow {
    /// Conversation with its origin, e.g. `uss:17` or `redial:391`; rows are split by it.
    pub conv_id: String,
    /// Turns before the response.
    pub context: Vec<Utterance>,
    /// The response, titles filled in.
    pub response: String,
    /// Rows of one group are versions of one reply in one context, made worse by one degradation: their scores are an
    /// order and mean nothing beside those of another group. Empty for a row that people rated.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Scores by head.
    pub scores: BTreeMap<String, HeadScore>,
}

/// Satisfaction with the reply, from people.
pub const OVERALL: &str = "overall";
/// How interesting the reply is, from people.
pub const ENGAGEMENT: &str = "engagement";
/// Whether the reply answers the seeker's wishes, from people and from films turned down.
pub const RECOMMENDATION: &str = "recommendation";

impl From<&RatedReply> for CriticRow {
    fn from(r: &RatedReply) -> Self {
        let score = HeadScore { score: r.score, source: "uss".into() };
        Self {
            conv_id: r.redial_id.map_or_else(|| format!("uss:{}", r.uss_id), |id| format!("redial:{id}")),
            context: r.context.clone(),
            response: r.reply.clone(),
            group: String::new(),
            scores: BTreeMap::from([(OVERALL.to_string(), score)]),
        }
    }
}

impl From<&RatedAspects> for CriticRow {
    fn from(r: &RatedAspects) -> Self {
        let heads = [(OVERALL, r.overall), (ENGAGEMENT, r.interestingness), (RECOMMENDATION, r.relevance)];
        let score = |(head, score): (&str, Option<f64>)| {
            Some((head.to_string(), HeadScore { score: score?, source: "abredial".into() }))
        };
        Self {
            conv_id: r.conv_id.clone(),
            context: r.context.clone(),
            response: r.reply.clone(),
            group: String::new(),
            scores: heads.into_iter().filter_map(score).collect(),
        }
    }
}

impl From<&Degraded> for CriticRow {
    fn from(d: &Degraded) -> Self {
        let score = HeadScore { score: d.score, source: d.kind.name().into() };
        Self {
            conv_id: format!("redial:{}", d.conv_id),
            context: d.context.clone(),
            response: d.reply.clone(),
            group: format!("{}:{}:{}", d.conv_id, d.turn_idx, d.kind.name()),
            scores: BTreeMap::from([(d.kind.head().to_string(), score)]),
        }
    }
}

/// Heads that have at least one label, with their number of rows.
pub fn heads(rows: &[CriticRow]) -> BTreeMap<String, usize> {
    let mut n = BTreeMap::new();
    for head in rows.iter().flat_map(|r| r.scores.keys()) {
        *n.entry(head.clone()).or_default() += 1;
    }
    n
}

/// Splits rows by conversation: all rows of about `share` of the conversations are for validation. Which ones
/// depends on the stream and the conversation only.
pub fn split(rows: Vec<CriticRow>, share: f64, stream: Stream) -> (Vec<CriticRow>, Vec<CriticRow>) {
    let key = stream.child("critic split");
    rows.into_iter().partition(|r| key.child(&r.conv_id).rng().uniform() >= share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_is_on_one_side() {
        let row = |id: usize| CriticRow {
            conv_id: format!("uss:{}", id / 3),
            context: vec![],
            response: "r".into(),
            group: String::new(),
            scores: BTreeMap::from([(OVERALL.into(), HeadScore { score: 0.5, source: "uss".into() })]),
        };
        let (train, valid) = split((0..300).map(row).collect(), 0.2, Stream::new(1));
        assert_eq!(train.len() + valid.len(), 300);
        assert!((30..90).contains(&valid.len()), "{}", valid.len());
        assert!(train.iter().all(|t| valid.iter().all(|v| v.conv_id != t.conv_id)));
        assert_eq!(heads(&train)[OVERALL], train.len());
    }
}
