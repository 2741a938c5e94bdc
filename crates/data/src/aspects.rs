//! Human aspects of recommender turns (AB-ReDial: Siro, Aliannejadi and de Rijke, TOIS 2023).
//!
//! A line is one annotator's view of a dialogue of twelve utterances, three turns of four: two before, the rated recommender
//! utterance, the seeker's answer. `relevance` 0..4, `interestingness` 1..3 and `overall` 1..5 are means over
//! annotators, scaled to 0..1. Values are texts (`"4"`, `"4.0"`), some are missing; the same id stands for two dialogues in
//! places, so a dialogue is its id and its texts; lines whose roles do not alternate are left out. Dialogues that
//! ReDial valid or test holds are dropped.

use std::collections::BTreeMap;
use std::path::Path;

use ecr_core::{Result, Role, Utterance};
use serde::Deserialize;

use crate::records::read_jsonl;
use crate::satisfaction::{TextIndex, plain, unquote_titles, without_titles};

/// Utterances of one rated turn; the third is the rated one.
const TURN: usize = 4;

/// A reply with its aspects.
#[derive(Debug, Clone, PartialEq)]
pub struct RatedAspects {
    /// Conversation as in [`crate::critic_rows::CriticRow`]; one that USS or ReDial train also has bears their name.
    pub conv_id: String,
    /// Turns before the reply.
    pub context: Vec<Utterance>,
    /// The rated recommender turn.
    pub reply: String,
    /// Does it fit the request? 0..1.
    pub relevance: Option<f64>,
    /// 0..1.
    pub interestingness: Option<f64>,
    /// Satisfaction with the turn, 0..1.
    pub overall: Option<f64>,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Aspects {
    /// Rated replies, by conversation.
    pub replies: Vec<RatedAspects>,
    /// Lines whose utterances do not alternate as they should.
    pub malformed: usize,
    /// Lines left out because ReDial valid or test holds the dialogue.
    pub dropped: usize,
}

#[derive(Deserialize)]
struct Said {
    role: String,
    text: String,
}

#[derive(Deserialize)]
struct Row {
    conv_id: String,
    utterances: Vec<Said>,
    labels: BTreeMap<String, String>,
}

/// Mean over annotators of one aspect, from `low..high` to 0..1.
fn mean(rows: &[&Row], key: &str, low: f64, high: f64) -> Option<f64> {
    let values: Vec<f64> = rows.iter().filter_map(|r| r.labels.get(key)?.trim().parse().ok()).collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (!values.is_empty()).then(|| ((mean - low) / (high - low)).clamp(0.0, 1.0))
}

/// Reads `aspects_abredial_turns.jsonl.gz`. `held_out` as for [`crate::satisfaction::read`]; `known` finds the name of a
/// dialogue that another source holds, by its texts.
pub fn read(
    path: &Path,
    held_out: &TextIndex,
    known: &dyn Fn(&[String]) -> Option<String>,
) -> Result<Aspects> {
    let rows: Vec<Row> = read_jsonl(path)?;
    let mut out = Aspects::default();
    let mut dialogues: BTreeMap<(&str, Vec<&str>), Vec<&Row>> = BTreeMap::new();
    for r in &rows {
        let role = |i: usize| if i.is_multiple_of(2) { "recommender" } else { "seeker" };
        let whole = !r.utterances.is_empty() && r.utterances.len().is_multiple_of(TURN);
        if !whole || r.utterances.iter().enumerate().any(|(i, u)| u.role != role(i)) {
            out.malformed += 1;
            continue;
        }
        let texts = r.utterances.iter().map(|u| u.text.as_str()).collect();
        dialogues.entry((&r.conv_id, texts)).or_default().push(r);
    }
    for ((id, texts), rows) in dialogues {
        let bare: Vec<String> = texts.iter().map(|t| without_titles(&plain(t))).collect();
        if held_out.find(bare.iter().map(String::as_str)).is_some() {
            out.dropped += rows.len();
            continue;
        }
        let conv_id = known(&bare).unwrap_or_else(|| format!("abredial:{id}"));
        let said: Vec<Utterance> = texts
            .iter()
            .enumerate()
            .map(|(i, t)| Utterance {
                role: if i % 2 == 0 { Role::Recommender } else { Role::Seeker },
                text: unquote_titles(&plain(t)),
            })
            .collect();
        for k in 1..=said.len() / TURN {
            let at = TURN * (k - 1) + 2;
            out.replies.push(RatedAspects {
                conv_id: conv_id.clone(),
                context: said[..at].to_vec(),
                reply: said[at].text.clone(),
                relevance: mean(&rows, &format!("relevance{k}"), 0.0, 4.0),
                interestingness: mean(&rows, &format!("interestingness{k}"), 1.0, 3.0),
                overall: mean(&rows, &format!("overall{k}"), 1.0, 5.0),
            });
        }
    }
    Ok(out)
}
