//! Where points go: one trait, one file an implementation.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use ecr_core::Result;
use serde_json::{Map, Value as Json};

use crate::point::Point;

/// What became of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was put at the end.
    Written,
    /// It was there already: a resumed run repeats the steps since its last checkpoint.
    Known,
    /// Another point is in its place: this is another run, to be begun with [`Sink::restart`].
    Conflict,
}

/// A tracking format. Time is seconds since 1970, given by the caller.
pub trait Sink: Send {
    /// Its name in messages.
    fn name(&self) -> &'static str;
    /// The settings by dotted key, free of secrets; written where they differ from what was written last.
    fn config(&mut self, config: &Map<String, Json>, now: f64) -> Result<()>;
    /// A point, unless it is there.
    fn point(&mut self, point: &Point, now: f64) -> Result<Fate>;
    /// Numbers of a finished stage.
    fn summary(&mut self, stage: &str, summary: &Map<String, Json>, now: f64) -> Result<()>;
    /// Begins another run beside the one that is there.
    fn restart(&mut self, now: f64) -> Result<()>;
    /// The end, with the exit code; `None` if the run is to be continued.
    fn finish(&mut self, code: Option<u8>, now: f64) -> Result<()>;
}

/// What a run is called, and what tells it from others.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Project of W&B.
    pub project: String,
    /// Shown name of the run.
    pub name: String,
    /// Machine.
    pub host: String,
    /// Process.
    pub pid: u32,
}

/// Digests of the points that a format holds, by series.
#[derive(Debug, Default)]
pub(crate) struct Ledger(BTreeMap<String, Vec<u64>>);

impl Ledger {
    /// Notes a point that was read back.
    pub(crate) fn push(&mut self, series: &str, digest: u64) {
        self.0.entry(series.into()).or_default().push(digest);
    }
    /// Whether a point is there already.
    pub(crate) fn fate(&self, point: &Point, digest: u64) -> Fate {
        match self.0.get(&point.series).and_then(|s| s.get(point.index)) {
            None => Fate::Written,
            Some(d) if *d == digest => Fate::Known,
            Some(_) => Fate::Conflict,
        }
    }
}

/// Digest within this process.
pub(crate) fn digest(value: &impl Hash) -> u64 {
    let mut h = DefaultHasher::new();
    value.hash(&mut h);
    h.finish()
}
