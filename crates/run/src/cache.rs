//! The cache of expensive scores: an embedded store (redb) that several processes may use at once.
//!
//! The file is opened for each batch and closed again, so that no process keeps another waiting for long; one that finds it
//! taken for two seconds goes on without. Every batch is one transaction: after `kill -9` it is there or not. Entries carry
//! a checksum; one that is damaged is computed again. redb opens its own file, the only one beside `ecr_core::io`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ecr_core::{Error, Result, io};
use ecr_rewards::cached::ScoreStore;
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;

/// Key → score: 8 bytes number, 1 whether present, 8 version, 8 checksum.
const SCORES: TableDefinition<&str, &[u8]> = TableDefinition::new("scores 1");
/// Version id → its text and the day (since 1970) it was last written to.
const VERSIONS: TableDefinition<&str, (&str, u64)> = TableDefinition::new("versions 1");

/// How long a process waits for another.
const PATIENCE: Duration = Duration::from_secs(2);

/// A cache file.
pub struct Cache {
    path: PathBuf,
    warned: Cell<bool>,
}

/// What a cache holds, by version.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Entries.
    pub entries: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Entries and days since the last write, by version.
    pub versions: BTreeMap<String, (u64, u64)>,
}

fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() / 86_400)
}

fn version_id(version: &str) -> String {
    io::blake3(version.as_bytes())[..16].to_string()
}

fn encode(key: &str, version: &str, score: Option<f64>) -> Vec<u8> {
    let mut row = score.unwrap_or(0.0).to_bits().to_le_bytes().to_vec();
    row.push(u8::from(score.is_some()));
    row.extend(version.as_bytes());
    let sum = io::blake3(&[key.as_bytes(), &row].concat());
    row.extend(&sum.as_bytes()[..16]);
    row
}

/// Version and score of a row; `None` for a damaged one.
fn decode(key: &str, row: &[u8]) -> Option<(String, Option<f64>)> {
    let (body, sum) = row.split_at_checked(row.len().checked_sub(16)?)?;
    if io::blake3(&[key.as_bytes(), body].concat()).as_bytes()[..16] != *sum {
        return None;
    }
    let number = f64::from_bits(u64::from_le_bytes(body.get(..8)?.try_into().ok()?));
    let version = String::from_utf8(body.get(9..)?.to_vec()).ok()?;
    Some((version, (*body.get(8)? == 1).then_some(number)))
}

impl Cache {
    /// A cache in this file, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), warned: Cell::new(false) }
    }
    fn fail(&self, what: &str, e: impl std::fmt::Display) -> Error {
        Error::new(ecr_core::Kind::Io, format!("{what} the reward cache {}", self.path.display()))
            .got(e.to_string())
            .hint("it holds nothing that cannot be computed again: the file may be deleted")
    }
    fn open(&self) -> Result<Database> {
        if let Some(dir) = self.path.parent().filter(|d| !d.as_os_str().is_empty()) {
            io::create_dir_all(dir)?;
        }
        let begun = Instant::now();
        loop {
            match Database::create(&self.path) {
                Err(DatabaseError::DatabaseAlreadyOpen) if begun.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                other => return other.map_err(|e| self.fail("open", e)),
            }
        }
    }
    fn existing(&self) -> Result<Database> {
        if self.path.is_file() {
            return self.open();
        }
        Err(Error::new(ecr_core::Kind::Io, format!("open the reward cache {}", self.path.display()))
            .got("no such file")
            .hint("reward.cache names the file of a run"))
    }
    fn warn(&self, e: &Error) {
        if !self.warned.replace(true) {
            eprintln!("warning: scores are computed without the cache: {e}");
        }
    }
    fn read(&self, keys: &[String]) -> Result<Vec<Option<Option<f64>>>> {
        if !self.path.is_file() {
            return Ok(vec![None; keys.len()]);
        }
        let db = self.open()?;
        let begin = db.begin_read().map_err(|e| self.fail("read", e))?;
        let table = match begin.open_table(SCORES) {
            Ok(t) => t,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(vec![None; keys.len()]),
            Err(e) => return Err(self.fail("read", e)),
        };
        keys.iter()
            .map(|k| {
                let row = table.get(k.as_str()).map_err(|e| self.fail("read", e))?;
                Ok(row.and_then(|r| decode(k, r.value())).map(|(_, score)| score))
            })
            .collect()
    }
    fn write(&self, version: &str, rows: &[(String, Option<f64>)]) -> Result<()> {
        let db = self.open()?;
        let fail = |e: &dyn std::fmt::Display| self.fail("write", e);
        let id = version_id(version);
        let txn = db.begin_write().map_err(|e| fail(&e))?;
        {
            let mut scores = txn.open_table(SCORES).map_err(|e| fail(&e))?;
            for (key, score) in rows {
                scores.insert(key.as_str(), encode(key, &id, *score).as_slice()).map_err(|e| fail(&e))?;
            }
            let mut versions = txn.open_table(VERSIONS).map_err(|e| fail(&e))?;
            versions.insert(id.as_str(), (version, today())).map_err(|e| fail(&e))?;
        }
        txn.commit().map_err(|e| fail(&e))
    }
    /// What it holds.
    ///
    /// # Errors
    /// Io: no such file, taken by another process, or damaged.
    pub fn stats(&self) -> Result<Stats> {
        let db = self.existing()?;
        let txn = db.begin_read().map_err(|e| self.fail("read", e))?;
        let mut stats = Stats { bytes: file_bytes(&self.path), ..Stats::default() };
        let mut names: BTreeMap<String, (String, u64)> = BTreeMap::new();
        if let Ok(table) = txn.open_table(VERSIONS) {
            for row in table.iter().map_err(|e| self.fail("read", e))? {
                let (id, v) = row.map_err(|e| self.fail("read", e))?;
                let (text, day) = v.value();
                names.insert(id.value().into(), (text.into(), today().saturating_sub(day)));
            }
        }
        if let Ok(table) = txn.open_table(SCORES) {
            for row in table.iter().map_err(|e| self.fail("read", e))? {
                let (k, v) = row.map_err(|e| self.fail("read", e))?;
                stats.entries += 1;
                let id = decode(k.value(), v.value()).map_or("damaged".into(), |d| d.0);
                let (text, days) = names.get(&id).cloned().unwrap_or((id, 0));
                stats.versions.entry(text).or_insert((0, days)).0 += 1;
            }
        }
        Ok(stats)
    }
    /// Drops the entries of every version that contains `text` (all of them for an empty one) and was last written to at
    /// least `unused_days` ago, and damaged entries; gives back the space. Returns how many went.
    ///
    /// # Errors
    /// As [`Cache::stats`].
    pub fn prune(&self, text: &str, unused_days: u64) -> Result<u64> {
        let mut db = self.existing()?;
        let fail = |e: &dyn std::fmt::Display| self.fail("prune", e);
        let txn = db.begin_write().map_err(|e| fail(&e))?;
        let mut gone = 0;
        {
            let mut versions = txn.open_table(VERSIONS).map_err(|e| fail(&e))?;
            let mut drop: Vec<String> = Vec::new();
            for row in versions.iter().map_err(|e| fail(&e))? {
                let (id, v) = row.map_err(|e| fail(&e))?;
                let (version, day) = v.value();
                if version.contains(text) && today().saturating_sub(day) >= unused_days {
                    drop.push(id.value().into());
                }
            }
            for id in &drop {
                versions.remove(id.as_str()).map_err(|e| fail(&e))?;
            }
            let mut scores = txn.open_table(SCORES).map_err(|e| fail(&e))?;
            let keep = |k: &str, v: &[u8]| decode(k, v).is_some_and(|(id, _)| !drop.contains(&id));
            scores
                .retain(|k, v| {
                    let stays = keep(k, v);
                    gone += u64::from(!stays);
                    stays
                })
                .map_err(|e| fail(&e))?;
        }
        txn.commit().map_err(|e| fail(&e))?;
        db.compact().map_err(|e| fail(&e))?;
        Ok(gone)
    }
    /// Checks the store's own structure and every entry's checksum; returns entries and how many of them are damaged.
    ///
    /// # Errors
    /// As [`Cache::stats`]; data: the store is damaged beyond repair.
    pub fn verify(&self) -> Result<(u64, u64)> {
        let mut db = self.existing()?;
        db.check_integrity().map_err(|e| self.fail("verify", e))?;
        let txn = db.begin_read().map_err(|e| self.fail("verify", e))?;
        let (mut all, mut damaged) = (0, 0);
        if let Ok(table) = txn.open_table(SCORES) {
            for row in table.iter().map_err(|e| self.fail("verify", e))? {
                let (k, v) = row.map_err(|e| self.fail("verify", e))?;
                all += 1;
                damaged += u64::from(decode(k.value(), v.value()).is_none());
            }
        }
        Ok((all, damaged))
    }
}

/// Bytes of a file; 0 where there is none.
fn file_bytes(path: &Path) -> u64 {
    path.metadata().map_or(0, |m| m.len())
}

impl ScoreStore for Cache {
    fn get(&self, keys: &[String]) -> Vec<Option<Option<f64>>> {
        self.read(keys).unwrap_or_else(|e| {
            self.warn(&e);
            vec![None; keys.len()]
        })
    }
    fn put(&self, version: &str, rows: &[(String, Option<f64>)]) {
        if let Err(e) = self.write(version, rows) {
            self.warn(&e);
        }
    }
}
