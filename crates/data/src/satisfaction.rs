//! Human satisfaction with recommender turns (USS: Sun et al., SIGIR 2021).
//!
//! Annotators rated each seeker turn 1..5: how satisfied is the seeker by now? The rating belongs to the
//! recommender turn before it. Consecutive messages of one speaker are merged; a merged
//! seeker turn has the mean of its messages' ratings. Dialogues that are also in ReDial valid or test
//! are dropped, found by their texts.

use std::path::Path;

use ecr_core::{Result, Role, Utterance};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use crate::records::read_jsonl;
use crate::redial::Dialogue;
use crate::text;

/// A rated reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RatedReply {
    /// USS's own dialogue number; split by it, never by reply.
    pub uss_id: u32,
    /// The ReDial conversation it is, where the text tells.
    pub redial_id: Option<u32>,
    /// Turns before the reply.
    pub context: Vec<Utterance>,
    /// The rated recommender turn.
    pub reply: String,
    /// Mean rating of all annotators, 1..5 scaled to 0..1.
    pub score: f64,
    /// Number of ratings in the mean.
    pub ratings: usize,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Satisfaction {
    /// The rated replies, in file order.
    pub replies: Vec<RatedReply>,
    /// Dialogues in the file.
    pub dialogues: usize,
    /// Dialogues dropped because ReDial valid or test holds them.
    pub dropped: usize,
    /// Dialogues that are known to be ReDial training dialogues.
    pub in_train: usize,
    /// Rated seeker turns that no recommender turn precedes.
    pub without_reply: usize,
}

#[derive(Deserialize)]
struct Said {
    role: Role,
    text: String,
    #[serde(default)]
    satisfaction: Vec<f64>,
}

#[derive(Deserialize)]
struct Row {
    uss_id: u32,
    turns: Vec<Said>,
}

/// USS writes a title as `"Title (Year)"`, percent-encoded in places, and an unknown one as `"@id."`.
pub(crate) fn plain(s: &str) -> String {
    let s = text::clean(s);
    let mut out: Vec<u8> = Vec::with_capacity(s.len());
    let b = s.as_bytes();
    let mut i = 0;
    while i < b.len() {
        let hex = s.get(i + 1..i + 3).filter(|h| h.bytes().all(|c| c.is_ascii_hexdigit()));
        match (b[i], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(c)) if c >= 0x20 => {
                out.push(c);
                i += 3;
            }
            _ => {
                out.push(b[i]);
                i += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or(s)
}

/// Title quotes removed: `"Title (Year)"` reads `Title (Year)`, as policies write it.
pub(crate) fn unquote_titles(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    let mut rest = s;
    while let Some(open) = rest.find('"') {
        let body = &rest[open + 1..];
        let Some(close) = body.find('"') else { break };
        let inner = &body[..close];
        out.push_str(&rest[..open]);
        if crate::catalogue::split_name(inner).1.is_some() {
            out.push_str(inner.trim());
            rest = &body[close + 1..];
        } else {
            out.push('"');
            rest = body;
        }
    }
    out.push_str(rest);
    out
}

/// Texts long enough to tell a dialogue by.
const TELLING: usize = 20;

/// Finds which dialogue a list of texts is: fingerprints of messages without titles.
pub struct TextIndex {
    by_text: FxHashMap<String, Vec<u32>>,
}

/// Fingerprint of a text without the titles in it.
fn print(s: &str) -> Option<String> {
    let f = text::fingerprint(s);
    (f.chars().count() >= TELLING).then_some(f)
}

impl TextIndex {
    /// Indexes dialogues by their messages and their turns (titles cut out).
    pub fn new<'a>(dialogues: impl IntoIterator<Item = &'a Dialogue>) -> Self {
        let mut by_text: FxHashMap<String, Vec<u32>> = FxHashMap::default();
        for d in dialogues {
            for t in &d.turns {
                let messages = t.messages.iter().map(|m| (m.start, m.end));
                // Some data sets merge a speaker's messages.
                let whole = (t.messages.len() > 1).then_some((0, t.text.len()));
                for (start, end) in messages.chain(whole) {
                    let mut s = String::new();
                    let mut from = start;
                    let inside = t.mentions.iter().filter(|x| x.start >= start && x.end <= end);
                    for x in inside {
                        s.push_str(&t.text[from..x.start]);
                        from = x.end;
                    }
                    s.push_str(&t.text[from..end]);
                    if let Some(f) = print(&s) {
                        by_text.entry(f).or_default().push(d.id);
                    }
                }
            }
        }
        Self { by_text }
    }
    /// Indexes the dialogues of a USS file by its own numbers, by messages and by turns.
    pub fn of_uss(path: &Path) -> Result<Self> {
        let mut by_text: FxHashMap<String, Vec<u32>> = FxHashMap::default();
        for row in read_jsonl::<Row>(path)? {
            let bare: Vec<(Role, String)> =
                row.turns.iter().map(|t| (t.role, without_titles(&plain(&t.text)))).collect();
            let turns = bare.chunk_by(|a, b| a.0 == b.0).filter(|run| run.len() > 1);
            let turns = turns.map(|run| run.iter().map(|(_, s)| s.as_str()).collect::<Vec<_>>().join(" "));
            for f in bare.iter().filter_map(|(_, s)| print(s)).chain(turns.filter_map(|s| print(&s))) {
                by_text.entry(f).or_default().push(row.uss_id);
            }
        }
        Ok(Self { by_text })
    }
    /// The dialogue that holds at least 60 % of the tellable texts, and two of them if there are two. On the data
    /// here a true match holds over 80 %, small talk in common under 50 %.
    pub fn find<'a>(&self, texts: impl IntoIterator<Item = &'a str>) -> Option<u32> {
        let mut votes: FxHashMap<u32, usize> = FxHashMap::default();
        let mut tellable = 0usize;
        for f in texts.into_iter().filter_map(print) {
            tellable += 1;
            let ids: FxHashSet<u32> = self.by_text.get(&f).into_iter().flatten().copied().collect();
            for id in ids {
                *votes.entry(id).or_default() += 1;
            }
        }
        let need = (tellable * 3).div_ceil(5).max(2.min(tellable)).max(1);
        votes
            .into_iter()
            .filter(|&(_, n)| n >= need)
            .max_by_key(|&(id, n)| (n, std::cmp::Reverse(id)))
            .map(|v| v.0)
    }
}

/// A USS text without its quoted titles and ids, for matching.
pub(crate) fn without_titles(s: &str) -> String {
    let mut out = String::new();
    let mut rest = s;
    while let Some(open) = rest.find('"') {
        let body = &rest[open + 1..];
        let Some(close) = body.find('"') else { break };
        let inner = &body[..close];
        let title = crate::catalogue::split_name(inner).1.is_some() || inner.starts_with('@');
        out.push_str(&rest[..open]);
        if !title {
            out.push_str(inner);
        }
        rest = &body[close + 1..];
    }
    out.push_str(rest);
    out
}

/// Reads `satisfaction_uss.jsonl.gz`; dialogues that `held_out` (ReDial valid and test) holds are dropped. `train`
/// tells which ReDial training dialogue a USS dialogue is, so that a split by conversation can keep both together.
pub fn read(path: &Path, held_out: &TextIndex, train: &TextIndex) -> Result<Satisfaction> {
    let rows: Vec<Row> = read_jsonl(path)?;
    let mut out = Satisfaction { dialogues: rows.len(), ..Satisfaction::default() };
    for row in &rows {
        let bare: Vec<String> = row.turns.iter().map(|t| without_titles(&plain(&t.text))).collect();
        if held_out.find(bare.iter().map(String::as_str)).is_some() {
            out.dropped += 1;
            continue;
        }
        let redial_id = train.find(bare.iter().map(String::as_str));
        out.in_train += usize::from(redial_id.is_some());
        let mut turns: Vec<(Utterance, Vec<f64>)> = Vec::new();
        for t in &row.turns {
            let text = unquote_titles(&plain(&t.text));
            match turns.last_mut().filter(|(u, _)| u.role == t.role) {
                Some((u, ratings)) => {
                    if !u.text.is_empty() && !text.is_empty() {
                        u.text.push(' ');
                    }
                    u.text.push_str(&text);
                    ratings.extend(&t.satisfaction);
                }
                None => turns.push((Utterance { role: t.role, text }, t.satisfaction.clone())),
            }
        }
        for i in 0..turns.len() {
            let (u, ratings) = &turns[i];
            if u.role != Role::Seeker || ratings.is_empty() {
                continue;
            }
            let Some(before) = i.checked_sub(1).filter(|&b| !turns[b].0.text.is_empty()) else {
                out.without_reply += 1;
                continue;
            };
            let mean = ratings.iter().sum::<f64>() / ratings.len() as f64;
            out.replies.push(RatedReply {
                uss_id: row.uss_id,
                redial_id,
                context: turns[..before].iter().map(|t| t.0.clone()).collect(),
                reply: turns[before].0.text.clone(),
                score: ((mean - 1.0) / 4.0).clamp(0.0, 1.0),
                ratings: ratings.len(),
            });
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_lose_quotes_and_percent_codes() {
        assert_eq!(
            unquote_titles(&plain("see \"Why%3F (2007)\" or \"great\" 100%")),
            "see Why? (2007) or \"great\" 100%"
        );
        assert_eq!(without_titles("see \"Why (2007)\" now \"ok\""), "see  now ok");
    }
}
