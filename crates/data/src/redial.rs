//! Importer of raw ReDial (Li et al., NeurIPS 2018): JSONL, one dialogue a line, optionally gzipped.
//!
//! What it copes with: forms and `movieMentions` that are an empty list instead of a map, null titles, `@id`s
//! that `movieMentions` lacks (left in the text as they are, and counted), ids as strings of digits, `@123`
//! inside `@12345` (ids are whole numbers), HTML entities and tags, line breaks, empty messages, runs of
//! messages by one speaker (merged into one turn), dialogues that the recommender opens, titles with double
//! spaces or without a year. A conversation that was read before (in this file or another split) is a bad line, so
//! that no split leaks into another. A line that cannot be used is kept as a [`BadLine`]; over the limit the import
//! fails.

mod convert;
mod counts;
mod raw;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ecr_core::{Error, ItemId, Result, Role, io};
use serde::{Deserialize, Serialize};

pub use counts::Counts;

/// Which part of the data a dialogue belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// For training.
    Train,
    /// For every choice.
    #[serde(alias = "validation", alias = "dev")]
    Valid,
    /// For the report, once.
    Test,
}

impl Split {
    /// `train`, `valid` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }
}

/// What the two forms say about one film. `None` = form not filled in, film absent, or "did not say".
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Like {
    /// Whether the seeker liked it, by the seeker's own form.
    pub liked_by_seeker: Option<bool>,
    /// Whether the seeker liked it, as the recommender understood it.
    pub liked_by_recommender: Option<bool>,
    /// Whether the seeker had seen it (seeker's form, else the recommender's).
    pub seen: Option<bool>,
    /// Whether the recommender suggested it (seeker's form, else the recommender's).
    pub suggested: Option<bool>,
}

/// A film named in a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mentioned {
    /// The film.
    pub item: ItemId,
    /// Whether nobody named it before in this dialogue.
    pub first_time: bool,
    /// First byte of its name in the turn's text.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// One message of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// ReDial's `messageId`.
    pub id: u64,
    /// Seconds since the dialogue began.
    pub time: f64,
    /// First byte in the turn's text.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

/// Consecutive messages of one speaker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// The messages joined by a space, titles filled in as `Title (Year)`.
    pub text: String,
    /// The same with `<movie>` for each title.
    pub slots: String,
    /// Films named, in order, repeats kept.
    pub mentions: Vec<Mentioned>,
    /// Where the messages lie in `text`; empty ones are left out.
    pub messages: Vec<Message>,
}

/// One conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dialogue {
    /// ReDial's conversation id.
    pub id: u32,
    /// The part of the data it came with.
    pub split: Split,
    /// Speakers alternate.
    pub turns: Vec<Turn>,
    /// Names of the films of this dialogue, cleaned (`Title (Year)` or `Title`).
    pub titles: BTreeMap<ItemId, String>,
    /// What both forms say, by film.
    pub likes: BTreeMap<ItemId, Like>,
}

impl Dialogue {
    /// What the forms say about a film; all `None` if nothing.
    pub fn like(&self, item: ItemId) -> Like {
        self.likes.get(&item).copied().unwrap_or_default()
    }
}

/// A line that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadLine {
    /// File name.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Why.
    pub reason: String,
}

impl std::fmt::Display for BadLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.reason)
    }
}

/// What was read from one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileReport {
    /// Path as given.
    pub file: String,
    /// Its part of the data.
    pub split: Split,
    /// SHA-256 of the file's bytes.
    pub sha256: String,
    /// Counts over the usable dialogues.
    pub counts: Counts,
    /// Lines that could not be used.
    pub bad_lines: Vec<BadLine>,
}

/// What was read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ImportReport {
    /// One entry a file.
    pub files: Vec<FileReport>,
}

impl ImportReport {
    /// All bad lines.
    pub fn bad_lines(&self) -> impl Iterator<Item = &BadLine> {
        self.files.iter().flat_map(|f| &f.bad_lines)
    }
}

/// Imported dialogues.
#[derive(Debug, Clone, Default)]
pub struct Corpus {
    /// In the order of the files and lines.
    pub dialogues: Vec<Dialogue>,
    /// What was read and what was wrong with it.
    pub report: ImportReport,
}

impl Corpus {
    /// The dialogues of one part.
    pub fn split(&self, split: Split) -> impl Iterator<Item = &Dialogue> {
        self.dialogues.iter().filter(move |d| d.split == split)
    }
    /// The films that the dialogues of `split` name, with their number of mentions: a catalogue's raw material.
    pub fn movies(&self, split: Split) -> Vec<crate::catalogue::Movie> {
        let mut out: BTreeMap<ItemId, crate::catalogue::Movie> = BTreeMap::new();
        for d in self.split(split) {
            for (&item, name) in &d.titles {
                out.entry(item).or_insert_with(|| crate::catalogue::Movie::from_name(item, name));
            }
            for m in d.turns.iter().flat_map(|t| &t.mentions) {
                if let Some(movie) = out.get_mut(&m.item) {
                    movie.train_mentions += 1;
                }
            }
        }
        out.into_values().collect()
    }
}

/// How to import.
#[derive(Debug, Clone, Copy)]
pub struct ImportOptions {
    /// More bad lines than this in all files together are an error.
    pub max_bad_lines: usize,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { max_bad_lines: 10 }
    }
}

/// Imports files.
///
/// # Errors
/// [`ecr_core::Kind::Io`] if a file cannot be read; [`ecr_core::Kind::Data`] over the limit of bad lines, with
/// the first of them, and for a file without a usable dialogue.
pub fn import(files: &[(Split, PathBuf)], options: ImportOptions) -> Result<Corpus> {
    let mut corpus = Corpus::default();
    for (split, path) in files {
        let (sha, bytes) = read_hashed(path)?;
        import_bytes(&mut corpus, *split, &path.display().to_string(), sha, &bytes)?;
    }
    check_limit(&corpus.report, options)?;
    Ok(corpus)
}

/// Reads a file: SHA-256 of the file, unpacked bytes.
fn read_hashed(path: &Path) -> Result<(String, Vec<u8>)> {
    Ok((io::sha256(&io::read(path)?), io::read_maybe_gz(path)?))
}

/// Fails if there are more bad lines than the options allow.
pub fn check_limit(report: &ImportReport, options: ImportOptions) -> Result<()> {
    let bad: Vec<String> = report.bad_lines().map(ToString::to_string).collect();
    if bad.len() <= options.max_bad_lines {
        return Ok(());
    }
    let shown = bad.iter().take(5).cloned().collect::<Vec<_>>().join("\n       ");
    let more = bad.len().saturating_sub(5);
    Err(Error::data("import dialogues")
        .expected(format!("at most {} bad lines", options.max_bad_lines))
        .got(format!(
            "{} bad lines:\n       {shown}{}",
            bad.len(),
            if more > 0 { format!("\n       and {more} more") } else { String::new() }
        ))
        .files("nothing was written")
        .hint("correct the lines, or raise the limit of bad lines"))
}

/// Imports one file's unpacked bytes into `corpus`; `sha256` is of the file as it lies on the disk.
pub fn import_bytes(
    corpus: &mut Corpus,
    split: Split,
    file: &str,
    sha256: String,
    bytes: &[u8],
) -> Result<()> {
    let mut tally = counts::Tally::default();
    let mut bad_lines = Vec::new();
    let before = corpus.dialogues.len();
    let mut ids: rustc_hash::FxHashSet<u32> = corpus.dialogues.iter().map(|d| d.id).collect();
    for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match raw::parse(line).and_then(|raw| Ok((convert::dialogue(&raw, split)?, raw))) {
            Ok((dialogue, _)) if !ids.insert(dialogue.id) => bad_lines.push(BadLine {
                file: file.into(),
                line: i + 1,
                reason: format!(
                    "conversation {} was read before (twice in a file, or in two splits)",
                    dialogue.id
                ),
            }),
            Ok((dialogue, raw)) => {
                tally.add(&raw);
                corpus.dialogues.push(dialogue);
            }
            Err(reason) => bad_lines.push(BadLine { file: file.into(), line: i + 1, reason }),
        }
    }
    if corpus.dialogues.len() == before {
        let got = bad_lines.first().map_or("an empty file".into(), |b| format!("first bad line: {b}"));
        return Err(Error::data(format!("import {file}"))
            .expected("at least one usable dialogue")
            .got(got)
            .files("nothing was written"));
    }
    corpus.report.files.push(FileReport {
        file: file.into(),
        split,
        sha256,
        counts: tally.finish(),
        bad_lines,
    });
    Ok(())
}
