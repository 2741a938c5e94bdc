//! What comes out: one record an item, in the order of the items, and rows that the critic can learn from.

use std::collections::BTreeMap;
use std::path::Path;

use ecr_core::{Error, Result, io};
use ecr_data::critic_rows::{CriticRow, HeadScore};
use serde::{Deserialize, Serialize};

use crate::journal::{Folded, Status};
use crate::prompt::prompt_hash;
use crate::scores::{HEADS, Scores};
use crate::session::Prepared;

/// A line of `scores.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Record of the input.
    pub id: String,
    /// Its conversation.
    pub conversation: String,
    /// Name of the judge.
    pub judge: String,
    /// Hash of the prompt.
    pub prompt: String,
    /// Hash of context and reply: scores of two judges belong together only if it agrees.
    pub content: String,
    /// What became of it. Only `scored` has scores.
    pub status: Status,
    /// The scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<Scores>,
    /// Whether the recommendation score is 0.0 because nothing is recommended.
    pub rule_applied: bool,
    /// What the judge said in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommendation_by_judge: Option<f64>,
    /// Why there are no scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Calls that it took.
    pub tries: u32,
}

/// The records of all items that have an end. Items scored while the judge failed its canaries count as failed.
pub fn records(items: &[Prepared], folded: &Folded, judge: &str) -> Vec<Record> {
    let prompt = prompt_hash();
    let mut out = Vec::new();
    for p in items {
        let Some(o) = folded.ends.get(&p.item.id).filter(|o| o.key == p.key) else { continue };
        let suspect = folded.suspect.contains(&o.id);
        let text = format!("{:?}\u{0}{}", p.item.context, p.item.response);
        out.push(Record {
            id: o.id.clone(),
            conversation: p.item.conversation.clone(),
            judge: judge.into(),
            prompt: prompt.clone(),
            content: io::blake3(text.as_bytes())[..16].into(),
            status: if suspect { Status::Failed } else { o.status },
            scores: o.scores.filter(|_| !suspect),
            rule_applied: o.scores.is_some() && !p.facts.recommends,
            recommendation_by_judge: o.recommendation_by_judge.filter(|_| !suspect),
            why: if suspect { Some("the judge failed its canaries".into()) } else { o.why.clone() },
            tries: o.tries,
        });
    }
    out
}

/// Writes lines, whole or not at all.
pub fn write_lines<T: Serialize>(path: &Path, rows: &[T]) -> Result<()> {
    let mut text = Vec::new();
    for r in rows {
        serde_json::to_writer(&mut text, r)
            .map_err(|e| Error::internal(format!("write {}", path.display())).got(e.to_string()))?;
        text.push(b'\n');
    }
    io::atomic_write(path, &text)
}

/// Rows for the critic from scored records, every head with source `scorer:NAME`.
pub fn critic_rows(items: &[Prepared], records: &[Record], name: &str) -> Vec<CriticRow> {
    let by: BTreeMap<&str, &Prepared> = items.iter().map(|p| (p.item.id.as_str(), p)).collect();
    let source = format!("scorer:{name}");
    let scored = records.iter().filter_map(|r| Some((by.get(r.id.as_str())?, r.scores?)));
    scored
        .map(|(p, s)| CriticRow {
            conv_id: p.item.conversation.clone(),
            context: p.item.context.clone(),
            response: p.item.response.clone(),
            scores: HEADS
                .iter()
                .zip(s.values())
                .map(|(h, score)| ((*h).to_string(), HeadScore { score, source: source.clone() }))
                .collect(),
        })
        .collect()
}
