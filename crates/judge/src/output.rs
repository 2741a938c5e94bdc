//! What comes out: one record an item, in the order of the items, and rows that the critic can learn from.

use std::collections::BTreeMap;
use std::path::Path;

use ecr_core::{Error, Result, io};
use ecr_data::critic_rows::{CriticRow, HeadScore};
use serde::{Deserialize, Serialize};

use crate::budget::Prices;
use crate::journal::{Folded, Status};
use crate::prompt::prompt_hash;
use crate::scores::{HEADS, Scores};
use crate::session::{Prepared, Report, Stop};

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
            rule_applied: o.scores.is_some() && !suspect && !p.facts.recommends,
            recommendation_by_judge: o.recommendation_by_judge.filter(|_| !suspect),
            why: if suspect { Some("the judge failed its canaries".into()) } else { o.why.clone() },
            tries: o.tries,
        });
    }
    out
}

/// What a run did, in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Records with scores.
    pub scored: usize,
    /// Records without, by the judge's fault.
    pub failed: usize,
    /// Records that were not sent.
    pub flagged: usize,
    /// Items without an end: the same command goes on with them.
    pub left: usize,
    /// Records whose recommendation score is 0.0 by the rule.
    pub rule_applied: usize,
    /// Mean of each score over scored records.
    pub means: BTreeMap<&'static str, f64>,
    /// Calls of this run, and of all runs.
    pub requests: [u64; 2],
    /// Tokens in and out, of all runs.
    pub tokens: [u64; 2],
    /// Money, of all runs; 0 without prices.
    pub cost: f64,
    /// Canary pairs told apart, and not.
    pub canaries: [u64; 2],
    /// Alarms of this run.
    pub alarms: u64,
    /// What stopped the run early: a limit, `canaries` or `server`.
    pub stopped: Option<&'static str>,
    /// Why records failed, by how many, the commonest first.
    pub reasons: Vec<(String, usize)>,
}

impl Summary {
    /// Of records and the run that ended with them.
    pub fn new(records: &[Record], report: &Report, prices: &Prices) -> Self {
        let count = |s: Status| records.iter().filter(|r| r.status == s).count();
        let scored: Vec<Scores> = records.iter().filter_map(|r| r.scores).collect();
        let mean = |h: usize| scored.iter().map(|s| s.values()[h]).sum::<f64>() / scored.len() as f64;
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for why in records.iter().filter_map(|r| r.why.as_deref()) {
            *reasons.entry(why).or_default() += 1;
        }
        let mut reasons: Vec<(String, usize)> = reasons.into_iter().map(|(w, n)| (w.into(), n)).collect();
        reasons.sort_by_key(|r| std::cmp::Reverse(r.1));
        reasons.truncate(5);
        Self {
            scored: scored.len(),
            failed: count(Status::Failed),
            flagged: count(Status::Flagged),
            left: report.left,
            rule_applied: records.iter().filter(|r| r.rule_applied).count(),
            means: HEADS
                .into_iter()
                .enumerate()
                .filter(|_| !scored.is_empty())
                .map(|(h, name)| (name, mean(h)))
                .collect(),
            requests: [report.requests, report.folded.requests],
            tokens: report.folded.tokens,
            cost: prices.of(report.folded.tokens),
            canaries: report.folded.probes,
            alarms: report.alarms,
            stopped: report.stop.as_ref().map(|s| match s {
                Stop::Budget(limit) => *limit,
                Stop::Drift => "canaries",
                Stop::Server(_) => "server",
            }),
            reasons,
        }
    }
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
            group: String::new(),
            scores: HEADS
                .iter()
                .zip(s.values())
                .map(|(h, score)| ((*h).to_string(), HeadScore { score, source: source.clone() }))
                .collect(),
        })
        .collect()
}
