//! What has been paid for: a log of one line a call, on the disk before the next call of the same worker begins.
//!
//! A process killed at any moment has lost the calls in flight and nothing else: every answer, and every failed try,
//! is read back. A last line that was cut by the kill is dropped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ecr_core::io::{self, AppendLog};
use ecr_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::scores::Scores;

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has five scores.
    Scored,
    /// The judge gave no usable answer.
    Failed,
    /// The reply speaks to the judge; it was not sent.
    Flagged,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Event {
    /// A call that gave nothing usable, and that is followed by another.
    Try {
        /// Record.
        id: String,
        /// Hash of everything that its score depends on.
        key: String,
        /// Whether the judge answered, and could not be read.
        unreadable: bool,
        /// What was wrong.
        why: String,
        /// Tokens in and out.
        tokens: [u64; 2],
    },
    /// The end of an item.
    Item(Outcome),
    /// A pair of canary probes.
    Probe {
        /// Calls that it took.
        requests: u64,
        /// Overall score of the poor reply and of the good one.
        overall: [Option<f64>; 2],
        /// Whether the judge told them apart; `None` if it did not answer.
        good: Option<bool>,
        /// Tokens in and out.
        tokens: [u64; 2],
    },
}

/// The end of an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Record.
    pub id: String,
    /// Hash of everything that its score depends on.
    pub key: String,
    /// What became of it.
    pub status: Status,
    /// The scores, rule applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<Scores>,
    /// What the judge itself said of the recommendation, where the rule replaced it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommendation_by_judge: Option<f64>,
    /// Why it has no scores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Calls for it in all.
    pub tries: u32,
    /// Whether this line stands for a call (a flagged item has none).
    pub called: bool,
    /// Tokens in and out of that call.
    pub tokens: [u64; 2],
}

/// What the log says, folded.
#[derive(Debug, Default)]
pub struct Folded {
    /// Last end of each record.
    pub ends: BTreeMap<String, Outcome>,
    /// Tries since then: key, calls, of them unreadable.
    pub tries: BTreeMap<String, (String, u32, u32)>,
    /// Records scored while the judge did not tell canaries apart.
    pub suspect: std::collections::BTreeSet<String>,
    /// Calls in all.
    pub requests: u64,
    /// Of them repeated tries.
    pub retries: u64,
    /// Tokens in and out.
    pub tokens: [u64; 2],
    /// Probe pairs that were told apart, and not.
    pub probes: [u64; 2],
    since_good: Vec<String>,
    bad: bool,
}

impl Folded {
    /// Takes one line more.
    pub fn add(&mut self, event: &Event) {
        let mut spend = |requests: u64, tokens: &[u64; 2]| {
            self.requests += requests;
            (0..2).for_each(|i| self.tokens[i] += tokens[i]);
        };
        match event {
            Event::Try { id, key, unreadable, tokens, .. } => {
                spend(1, tokens);
                self.retries += 1;
                let t = self.tries.entry(id.clone()).or_insert_with(|| (key.clone(), 0, 0));
                if t.0 != *key {
                    *t = (key.clone(), 0, 0);
                }
                t.1 += 1;
                t.2 += u32::from(*unreadable);
            }
            Event::Item(o) => {
                spend(u64::from(o.called), &o.tokens);
                self.tries.remove(&o.id);
                self.suspect.remove(&o.id);
                self.since_good.push(o.id.clone());
                if self.bad && o.status == Status::Scored {
                    self.suspect.insert(o.id.clone());
                }
                self.ends.insert(o.id.clone(), o.clone());
            }
            Event::Probe { requests, good, tokens, .. } => {
                spend(*requests, tokens);
                match good {
                    Some(true) => {
                        self.probes[0] += 1;
                        self.since_good.clear();
                        self.bad = false;
                    }
                    Some(false) => {
                        self.probes[1] += 1;
                        let scored =
                            |id: &String| self.ends.get(id).is_some_and(|o| o.status == Status::Scored);
                        let doubtful: Vec<String> = self.since_good.drain(..).filter(scored).collect();
                        self.suspect.extend(doubtful);
                        self.bad = true;
                    }
                    None => {}
                }
            }
        }
    }
}

/// The open log.
pub struct Journal {
    log: AppendLog,
    /// What it says.
    pub folded: Folded,
}

impl Journal {
    /// Opens or begins a log.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Data`] for a line, other than a cut last one, that is none of ours.
    pub fn open(path: &Path) -> Result<Self> {
        let mut folded = Folded::default();
        let log = AppendLog::open_exclusive(path, |bytes| fold(path, bytes, &mut folded))?;
        Ok(Self { log, folded })
    }
    /// What a log says, without opening it for writing; a log that does not exist says nothing.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn peek(path: &Path) -> Result<Folded> {
        let mut folded = Folded::default();
        if path.exists() {
            fold(path, &io::read(path)?, &mut folded)?;
        }
        Ok(folded)
    }
    /// Writes a line; it is on the disk when this returns.
    pub fn write(&mut self, event: &Event) -> Result<()> {
        let line = serde_json::to_string(event)
            .map_err(|e| Error::internal("write to the journal").got(e.to_string()))?;
        self.log.line(&line)?;
        self.log.sync()?;
        self.folded.add(event);
        Ok(())
    }
}

/// Folds whole lines; how many bytes they have.
fn fold(path: &Path, bytes: &[u8], folded: &mut Folded) -> Result<usize> {
    let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
    for (i, line) in bytes[..whole].split(|&b| b == b'\n').enumerate().filter(|(_, l)| !l.is_empty()) {
        let event = serde_json::from_slice(line).map_err(|e| {
            Error::data(format!("read the journal {}:{}", path.display(), i + 1))
                .expected("a line that `ecr score` wrote")
                .got(e.to_string())
                .files("nothing was changed")
                .hint("move the file away to score everything again")
        })?;
        folded.add(&event);
    }
    Ok(whole)
}

/// Where the journal of an output file lies.
pub fn journal_path(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".journal");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(id: &str) -> Event {
        Event::Item(Outcome {
            id: id.into(),
            key: "k".into(),
            status: Status::Scored,
            scores: Some(Scores::from_values([0.5; 5])),
            recommendation_by_judge: None,
            why: None,
            tries: 1,
            called: true,
            tokens: [10, 2],
        })
    }
    fn probe(good: Option<bool>) -> Event {
        Event::Probe { requests: 2, overall: [Some(0.0), Some(1.0)], good, tokens: [0, 0] }
    }

    #[test]
    fn a_cut_line_is_dropped_and_the_rest_is_read_back() {
        let dir = std::env::temp_dir().join(format!("ecr-judge-journal-{}", std::process::id()));
        let path = dir.join("j");
        let mut j = Journal::open(&path).unwrap();
        let failed =
            Event::Try { id: "b".into(), key: "k".into(), unreadable: true, why: "x".into(), tokens: [1, 1] };
        [end("a"), failed].iter().for_each(|e| j.write(e).unwrap());
        drop(j);
        let whole = io::read(&path).unwrap();
        let mut log = AppendLog::open(&path, whole.len() as u64).unwrap();
        log.line("{\"kind\":\"item\",\"id\":\"c").unwrap();
        log.sync().unwrap();
        drop(log);
        let cut = io::read(&path).unwrap();
        AppendLog::open(&path, cut.len() as u64 - 1).unwrap();
        let j = Journal::open(&path).unwrap();
        assert_eq!((j.folded.ends.len(), j.folded.requests, j.folded.retries), (1, 2, 1));
        assert_eq!(j.folded.tries["b"], ("k".into(), 1, 1));
        assert_eq!(j.folded.tokens, [11, 3]);
        assert_eq!(io::read(&path).unwrap(), whole);
        io::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_was_scored_beside_failed_canaries_is_suspect_until_scored_again() {
        let mut f = Folded::default();
        let take = |f: &mut Folded, e: &[Event]| e.iter().for_each(|e| f.add(e));
        take(&mut f, &[end("a"), probe(Some(true)), end("b"), probe(Some(false)), end("c")]);
        assert_eq!(f.suspect.iter().collect::<Vec<_>>(), ["b", "c"]);
        take(&mut f, &[probe(None), end("d")]);
        assert!(f.suspect.contains("d"));
        take(&mut f, &[probe(Some(true)), end("b"), end("e")]);
        assert_eq!(f.suspect.iter().collect::<Vec<_>>(), ["c", "d"]);
        assert_eq!(f.probes, [2, 1]);
    }
}
