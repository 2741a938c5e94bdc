//! W&B offline runs: `DIR/offline-run-DATE_TIME-ID/run-ID.wandb`, which `wandb sync` uploads.
//!
//! The file holds `Record` messages (wandb/proto/wandb_internal.proto) in the order header, run, metric definitions,
//! history, summary, exit. Tables lie beside it as `files/media/table/…`, as the official client writes them, but
//! without the artifact that it also makes of each.

mod date;
pub mod read;
mod records;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ecr_core::io::{self, AppendLog};
use ecr_core::{Error, Result};
use serde_json::{Map, Value as Json};

use crate::framing::{WANDB_HEADER, wandb_record};
use crate::point::Point;
use crate::proto::Message;
use crate::sink::{About, Fate, Ledger, Sink};

use read::Transcript;
use records::{Item, items};

/// Writes an offline run.
pub struct Wandb {
    root: PathBuf,
    about: About,
    /// Directory of the segment that is written.
    dir: PathBuf,
    id: String,
    log: AppendLog,
    /// Records in the file.
    num: i64,
    /// Next `_step`.
    step: u64,
    /// Start of the run, seconds since 1970.
    start: f64,
    ledger: Ledger,
    /// Last value of every key that is not in the file's summary yet.
    last: BTreeMap<Vec<String>, String>,
    /// Settings as the run holds them.
    written: BTreeMap<String, String>,
    config: Map<String, Json>,
    /// Stages whose axes are defined.
    defined: Vec<String>,
}

/// Run directories below `root`, oldest first, with the ids in their names.
pub fn segments(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let id = |p: &PathBuf| {
        Some(p.file_name()?.to_str()?.strip_prefix("offline-run-")?.split_once('-')?.1.to_string())
    };
    let found = io::read_dir_sorted(root)?;
    Ok(found.into_iter().filter_map(|p| id(&p).map(|id| (p, id))).collect())
}

/// The file of a run directory.
pub fn file_of(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("run-{id}.wandb"))
}

/// Eight letters and digits that no other run has.
fn new_id(about: &About, now: f64) -> String {
    let digest = io::blake3(format!("{about:?} {now:?}").as_bytes());
    let mut n = u64::from_str_radix(&digest[..16], 16).unwrap_or(0);
    let mut id = String::new();
    for _ in 0..8 {
        id.push(char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[(n % 36) as usize]));
        n /= 36;
    }
    id
}

impl Wandb {
    /// Continues the last run below `root` under its id, or begins one. A run whose file is closed by an exit record, or
    /// was uploaded already, goes on in another directory under the same id; one of another project stays as it is.
    ///
    /// # Errors
    /// I/O.
    pub fn open(root: &Path, about: About, now: f64) -> Result<Self> {
        let all = segments(root)?;
        let Some((_, id)) = all.last() else {
            let id = new_id(&about, now);
            return Self::begin(root, about, id, &[], now);
        };
        let mine: Vec<&PathBuf> = all.iter().filter(|(_, i)| i == id).map(|(p, _)| p).collect();
        let mut read = Vec::new();
        for dir in &mine {
            let file = file_of(dir, id);
            let whole = if file.exists() { io::read(&file)? } else { Vec::new() };
            read.push(Transcript::of(&whole));
        }
        if read.iter().any(|t| t.run.is_some() && t.project != about.project) {
            let id = new_id(&about, now);
            return Self::begin(root, about, id, &[], now);
        }
        let (Some(dir), Some(last)) = (mine.last(), read.last()) else {
            return Err(Error::internal("find the run that was found"));
        };
        let file = file_of(dir, id);
        if last.run.is_none() {
            // Killed before it had said anything.
            let dir = (*dir).clone();
            return Self::begin_in(root, about, id.clone(), dir, &read, now);
        }
        let mut marker = file.clone().into_os_string();
        marker.push(".synced");
        if last.exit.is_some() || Path::new(&marker).exists() {
            return Self::begin(root, about, id.clone(), &read, now);
        }
        let log = AppendLog::open(&file, last.len)?;
        let mut out = Self::new(root, about, (*dir).clone(), id.clone(), log, now);
        out.num = last.records;
        out.recall(&read);
        Ok(out)
    }

    /// A new directory for `id`, after the segments that were read.
    fn begin(root: &Path, about: About, id: String, before: &[Transcript], now: f64) -> Result<Self> {
        let newest = segments(root)?.pop().and_then(|(p, _)| Some(p.file_name()?.to_str()?.to_string()));
        let name = format!("offline-run-{}-{id}", date::stamp_after(now as u64, newest.as_deref()));
        let dir = root.join(name);
        Self::begin_in(root, about, id, dir, before, now)
    }

    fn begin_in(
        root: &Path,
        about: About,
        id: String,
        dir: PathBuf,
        before: &[Transcript],
        now: f64,
    ) -> Result<Self> {
        let log = AppendLog::open(&file_of(&dir, &id), 0)?;
        let mut out = Self::new(root, about, dir, id, log, now);
        out.recall(before);
        // What earlier segments defined is not in this file.
        out.written.clear();
        out.defined.clear();
        out.log.bytes(&WANDB_HEADER)?;
        out.put(records::header())?;
        Ok(out)
    }

    fn new(root: &Path, about: About, dir: PathBuf, id: String, log: AppendLog, now: f64) -> Self {
        Self {
            root: root.into(),
            about,
            dir,
            id,
            log,
            num: 0,
            step: 0,
            start: now,
            ledger: Ledger::default(),
            last: BTreeMap::new(),
            written: BTreeMap::new(),
            config: Map::new(),
            defined: Vec::new(),
        }
    }

    /// Takes up what the segments hold.
    fn recall(&mut self, read: &[Transcript]) {
        if let Some(start) = read.iter().find_map(|t| t.run.as_ref().map(|_| t.start)) {
            self.start = start;
        }
        for t in read {
            for row in &t.history {
                self.ledger.push(row.series(), row.digest());
                self.step = self.step.max(row.step + 1);
                row.items.iter().for_each(|(k, v)| {
                    self.last.insert(k.clone(), v.clone());
                });
            }
            self.written.extend(t.config.clone());
            self.defined.extend(t.metrics.iter().cloned());
        }
    }

    fn put(&mut self, record: Message) -> Result<()> {
        self.num += 1;
        let bytes = Message::new().int(1, self.num).into_bytes();
        let payload = [bytes, record.into_bytes()].concat();
        self.log.bytes(&wandb_record(self.log.size(), &payload))
    }

    /// Puts the last value of every changed key into the summary.
    fn flush(&mut self, now: f64) -> Result<()> {
        let mut last: Vec<Item> = std::mem::take(&mut self.last).into_iter().collect();
        if !last.is_empty() {
            let runtime = (now - self.start).max(0.0) as u64;
            last.push((vec!["_wandb".into(), "runtime".into()], runtime.to_string()));
            self.put(records::summary(&last))?;
        }
        Ok(())
    }
}

impl Sink for Wandb {
    fn name(&self) -> &'static str {
        "wandb"
    }
    fn config(&mut self, config: &Map<String, Json>, _: f64) -> Result<()> {
        self.config.clone_from(config);
        let mut sections: BTreeMap<&str, Map<String, Json>> = BTreeMap::new();
        for (key, value) in config {
            let (section, name) = key.split_once('.').unwrap_or(("", key));
            sections.entry(section).or_default().insert(name.into(), value.clone());
        }
        let now: BTreeMap<String, String> =
            sections.into_iter().map(|(k, v)| (k.to_string(), Json::Object(v).to_string())).collect();
        let begun = self.num > 1;
        let changed: Vec<Item> = now
            .iter()
            .filter(|(k, v)| self.written.get(*k) != Some(v))
            .map(|(k, v)| (vec![k.clone()], v.clone()))
            .collect();
        self.written = now;
        if !begun {
            let record = records::run(&self.about, &self.id, &changed, self.start);
            self.put(record)
        } else if changed.is_empty() {
            Ok(())
        } else {
            self.put(records::config(&changed))
        }
    }
    fn point(&mut self, p: &Point, now: f64) -> Result<Fate> {
        let mut row = items(p);
        let mut file = None;
        if let Some(t) = &p.table {
            let (path, text) = records::table(&p.series, t, self.step, &mut row);
            file = Some((path, text));
        }
        let digest = read::digest_of(&row);
        let fate = self.ledger.fate(p, digest);
        if fate != Fate::Written {
            return Ok(fate);
        }
        let stage = p.series.split('/').next().unwrap_or_default().to_string();
        if !self.defined.contains(&stage) {
            records::metrics(&stage).into_iter().try_for_each(|m| self.put(m))?;
            self.defined.push(stage);
        }
        if let Some((path, text)) = file {
            // Not fsynced: a run that is killed here writes it again before a record names it.
            AppendLog::open(&self.dir.join("files").join(&path), 0)?.bytes(text.as_bytes())?;
            self.put(records::files(&path))?;
        }
        row.extend(records::clock(self.step, now, now - self.start));
        self.put(records::history(&row, self.step))?;
        self.last.extend(row);
        self.step += 1;
        self.ledger.push(&p.series, digest);
        Ok(Fate::Written)
    }
    fn summary(&mut self, stage: &str, summary: &Map<String, Json>, now: f64) -> Result<()> {
        for (name, value) in summary {
            self.last.insert(vec![format!("summary/{stage}/{name}")], value.to_string());
        }
        self.flush(now)
    }
    fn restart(&mut self, now: f64) -> Result<()> {
        let config = std::mem::take(&mut self.config);
        let id = new_id(&self.about, now + self.num as f64);
        *self = Self::begin(&self.root, self.about.clone(), id, &[], now)?;
        self.config(&config, now)
    }
    fn finish(&mut self, code: Option<u8>, now: f64) -> Result<()> {
        self.flush(now)?;
        code.map_or(Ok(()), |c| self.put(records::exit(c, now - self.start)))
    }
}
