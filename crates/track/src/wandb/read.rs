//! A reader of the file, for resuming and for tests.

use std::collections::BTreeMap;

use crate::framing::read_wandb;
use crate::proto::{Field, fields};
use crate::sink::digest;

/// A row of the history.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// `_step`.
    pub step: u64,
    /// Keys (with their nested parts) and values as JSON text, in order.
    pub items: Vec<(Vec<String>, String)>,
}

impl Row {
    /// The series of the point that it holds.
    pub fn series(&self) -> &str {
        let table = self.items.iter().find(|(k, v)| k.len() == 2 && k[1] == "_type" && v == "\"table-file\"");
        let stage = || self.items.first().and_then(|(k, _)| k.first()?.split('/').next());
        table.map(|(k, _)| k[0].as_str()).or_else(stage).unwrap_or_default()
    }
    /// Value of an unnested key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.items.iter().find(|(k, _)| k.len() == 1 && k[0] == key).map(|(_, v)| v.as_str())
    }
    pub(super) fn digest(&self) -> u64 {
        digest_of(&self.items)
    }
}

/// Digest of what a row says: not of when it was written, nor of the path that follows from that.
pub(super) fn digest_of(items: &[(Vec<String>, String)]) -> u64 {
    let says = |(k, _): &&(Vec<String>, String)| {
        !k[0].starts_with('_') && k.get(1).is_none_or(|part| part != "path")
    };
    digest(&items.iter().filter(says).collect::<Vec<_>>())
}

/// What a file holds up to its last whole record.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    /// Id, if it got so far.
    pub run: Option<String>,
    /// Project.
    pub project: String,
    /// Shown name.
    pub name: String,
    /// Start, seconds since 1970.
    pub start: f64,
    /// Settings as JSON text by section.
    pub config: BTreeMap<String, String>,
    /// Stages with axes of their own.
    pub metrics: Vec<String>,
    /// The history.
    pub history: Vec<Row>,
    /// The summary as JSON text by key, parts joined by `.`.
    pub summary: BTreeMap<String, String>,
    /// Files that belong to the run.
    pub files: Vec<String>,
    /// Exit code, if it was closed.
    pub exit: Option<i64>,
    /// Bytes up to the end of the last whole record.
    pub len: u64,
    /// Whole records.
    pub records: i64,
}

impl Transcript {
    /// Reads a file's bytes.
    pub fn of(file: &[u8]) -> Self {
        let whole = read_wandb(file);
        let mut out = Self { len: whole.len, records: whole.records.len() as i64, ..Self::default() };
        for record in &whole.records {
            for (n, f) in fields(record).unwrap_or_default() {
                out.take(n, f);
            }
        }
        out
    }

    fn take(&mut self, kind: u32, f: Field<'_>) {
        let parts = fields(f.inner()).unwrap_or_default();
        let of = |n: u32| parts.iter().filter(move |(m, _)| *m == n).map(|(_, f)| *f);
        let one = |n: u32| of(n).next();
        match kind {
            2 => {
                let step = one(2).map_or(0.0, |s| within(s, 1).map_or(0.0, Field::number)) as u64;
                self.history.push(Row { step, items: of(1).map(item).collect() });
            }
            3 => self.summary.extend(of(1).map(item).map(|(k, v)| (k.join("."), v))),
            5 => self.config.extend(of(1).map(item).map(|(k, v)| (k.join("."), v))),
            6 => self.files.extend(of(1).filter_map(|f| Some(within(f, 1)?.text()))),
            12 => self.metrics.extend(one(2).and_then(|g| g.text().strip_suffix("/*").map(String::from))),
            17 => {
                let text = |n| one(n).map(Field::text).unwrap_or_default();
                (self.run, self.project, self.name) = (Some(text(1)), text(3), text(8));
                if let Some(t) = one(17) {
                    let part = |n| within(t, n).map_or(0.0, Field::number);
                    self.start = part(1) + part(2) * 1e-9;
                }
                let config = one(4).and_then(|c| fields(c.inner())).unwrap_or_default();
                self.config.extend(config.into_iter().map(|(_, f)| item(f)).map(|(k, v)| (k.join("."), v)));
            }
            18 => self.exit = Some(one(1).map_or(0.0, Field::number) as i64),
            _ => {}
        }
    }
}

fn within(f: Field<'_>, n: u32) -> Option<Field<'_>> {
    fields(f.inner())?.into_iter().find(|(m, _)| *m == n).map(|(_, f)| f)
}

/// key 1 or nested_key 2, value_json 16.
fn item(f: Field<'_>) -> (Vec<String>, String) {
    let parts = fields(f.inner()).unwrap_or_default();
    let key: Vec<String> = parts.iter().filter(|(n, _)| *n == 1 || *n == 2).map(|(_, f)| f.text()).collect();
    let value = parts.iter().find(|(n, _)| *n == 16).map(|(_, f)| f.text()).unwrap_or_default();
    (if key.is_empty() { vec![String::new()] } else { key }, value)
}
