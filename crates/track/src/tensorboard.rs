//! TensorBoard event files: `DIR/run-N/events.out.tfevents.SECONDS.HOST.PID.0`, TFRecords of `Event` messages
//! (tensorflow/core/util/event.proto, framework/summary.proto): scalars, histograms, texts.
//!
//! A scalar is a 32-bit float there, so readers see the JSONL's number rounded to one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ecr_core::io::{self, AppendLog};
use ecr_core::{Error, Result};
use serde_json::{Map, Value as Json};

use crate::framing::{read_tfrecords, tfrecord};
use crate::histogram::Histogram;
use crate::point::{Point, Table};
use crate::proto::{Field, Message, fields};
use crate::sink::{About, Fate, Ledger, Sink, digest};

const VERSION: &str = "brain.Event:2";
const DT_STRING: i64 = 7;

/// A value as a reader sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `simple_value`.
    Scalar(f32),
    /// Texts of a string tensor.
    Text(Vec<String>),
    /// Right edges of the buckets and their counts.
    Histogram(Vec<f64>, Vec<f64>),
}

/// An event as a reader sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Seconds since 1970.
    pub wall_time: f64,
    /// Step of the series.
    pub step: u64,
    /// Values by tag.
    pub values: Vec<(String, Value)>,
    digest: u64,
}

/// The whole events of a file, and the length that they take; no length without the version that comes first.
pub fn read(file: &[u8]) -> (Vec<Event>, u64) {
    let whole = read_tfrecords(file);
    let mut events = Vec::new();
    for (i, record) in whole.records.iter().enumerate() {
        let Some(parts) = fields(record) else { continue };
        if i == 0 && !parts.iter().any(|(n, f)| *n == 3 && f.text() == VERSION) {
            return (events, 0);
        }
        let mut event = Event { wall_time: 0.0, step: 0, values: Vec::new(), digest: 0 };
        for (n, f) in parts {
            match n {
                1 => event.wall_time = f.number(),
                2 => event.step = f.number() as u64,
                5 => {
                    event.values = fields(f.inner()).unwrap_or_default().iter().filter_map(value).collect();
                    event.digest = digest(&(event.step, f.inner()));
                }
                _ => {}
            }
        }
        if !event.values.is_empty() {
            events.push(event);
        }
    }
    (events, if whole.records.is_empty() { 0 } else { whole.len })
}

fn value((_, f): &(u32, Field<'_>)) -> Option<(String, Value)> {
    let parts = fields(f.inner())?;
    let part = |n: u32| parts.iter().find(|(m, _)| *m == n).map(|(_, f)| *f);
    let value = if let Some(Field::Float(x)) = part(2) {
        Value::Scalar(x)
    } else if let Some(h) = part(5) {
        let inner = fields(h.inner())?;
        let list = |n: u32| inner.iter().find(|(m, _)| *m == n).map_or(Vec::new(), |(_, f)| f.doubles());
        Value::Histogram(list(6), list(7))
    } else {
        let tensor = fields(part(8)?.inner())?;
        Value::Text(tensor.iter().filter(|(n, _)| *n == 8).map(|(_, f)| f.text()).collect())
    };
    Some((part(1)?.text(), value))
}

/// The series that an event belongs to: its samples, or the stage before the first `/`.
fn series(event: &Event) -> Option<&str> {
    let (tag, value) = event.values.first()?;
    let stage = tag.split('/').next()?;
    let samples = matches!(value, Value::Text(_)) && tag.strip_prefix(stage) == Some("/samples");
    Some(if samples { tag } else { stage })
}

/// Writes event files below a directory.
pub struct TensorBoard {
    root: PathBuf,
    about: About,
    run: u64,
    log: AppendLog,
    ledger: Ledger,
    /// Digest of the last text by tag, for settings and summaries.
    texts: BTreeMap<String, u64>,
    config: Map<String, Json>,
}

impl TensorBoard {
    /// Continues the last run below `root`, or begins the first.
    ///
    /// # Errors
    /// I/O.
    pub fn open(root: &Path, about: About, now: f64) -> Result<Self> {
        let number = |p: &PathBuf| p.file_name()?.to_str()?.strip_prefix("run-")?.parse::<u64>().ok();
        let run = io::read_dir_sorted(root)?.iter().filter_map(number).max().unwrap_or(1);
        Self::at(root, about, run, now)
    }

    fn at(root: &Path, about: About, run: u64, now: f64) -> Result<Self> {
        let dir = root.join(format!("run-{run}"));
        let host: String = about.host.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        let fresh = dir.join(format!("events.out.tfevents.{}.{host}.{}.0", now as u64, about.pid));
        let files = io::read_dir_sorted(&dir)?;
        let path = files.last().unwrap_or(&fresh);
        let (events, len) = if path.exists() { read(&io::read(path)?) } else { Default::default() };
        let mut out = Self {
            root: root.into(),
            about,
            run,
            log: AppendLog::open(path, len)?,
            ledger: Ledger::default(),
            texts: BTreeMap::new(),
            config: Map::new(),
        };
        for e in &events {
            let Some(series) = series(e) else { continue };
            match e.values.first() {
                Some((tag, Value::Text(_))) if tag == "config" || series == "summary" => {
                    out.texts.insert(tag.clone(), e.digest);
                }
                _ => out.ledger.push(series, e.digest),
            }
        }
        if len == 0 {
            let version = Message::new().double(1, now).text(3, VERSION);
            let origin = Message::new().text(1, "ecr");
            out.put(&version.message(10, &origin))?;
        }
        Ok(out)
    }

    fn put(&mut self, event: &Message) -> Result<()> {
        self.log.bytes(&tfrecord(event.as_bytes()))
    }

    fn event(&mut self, step: u64, summary: &Message, now: f64) -> Result<()> {
        self.put(&Message::new().double(1, now).int(2, step as i64).message(5, summary))
    }

    /// A text that replaces the one of the same tag.
    fn replace(&mut self, tag: &str, text: &str, now: f64) -> Result<()> {
        let summary = Message::new().message(1, &text_value(tag, text));
        let digest = digest(&(0_u64, summary.as_bytes()));
        if self.texts.get(tag) != Some(&digest) {
            self.event(0, &summary, now)?;
            self.texts.insert(tag.into(), digest);
        }
        Ok(())
    }
}

fn text_value(tag: &str, text: &str) -> Message {
    let plugin = Message::new().message(1, &Message::new().text(1, "text"));
    let shape = Message::new().message(2, &Message::new().int(1, 1));
    let tensor = Message::new().int(1, DT_STRING).message(2, &shape).text(8, text);
    Message::new().text(1, tag).message(9, &plugin).message(8, &tensor)
}

fn histogram_value(tag: &str, h: &Histogram) -> Message {
    let (low, high) = (h.edges.first().copied(), h.edges.last().copied());
    let counts: Vec<f64> = h.counts.iter().map(|c| *c as f64).collect();
    let proto = Message::new()
        .double(1, low.unwrap_or(0.0))
        .double(2, high.unwrap_or(0.0))
        .double(3, counts.iter().sum())
        .double(4, h.sum)
        .double(5, h.sum_squares)
        .doubles(6, h.edges.get(1..).unwrap_or_default())
        .doubles(7, &counts);
    Message::new().text(1, tag).message(5, &proto)
}

fn text_of(v: &Json) -> String {
    v.as_str().map_or_else(|| if v.is_null() { String::new() } else { v.to_string() }, String::from)
}

/// A Markdown table, which the text plugin shows as one.
fn markdown<'a>(head: &[&str], rows: impl Iterator<Item = Vec<String>> + 'a) -> String {
    let line = |cells: Vec<String>| {
        let clean = |c: String| c.replace('|', "\\|").replace(['\n', '\r'], " ");
        format!("| {} |\n", cells.into_iter().map(clean).collect::<Vec<_>>().join(" | "))
    };
    let mut out = line(head.iter().map(ToString::to_string).collect());
    out += &line(vec!["---".into(); head.len()]);
    rows.for_each(|r| out += &line(r));
    out
}

fn table_text(t: &Table) -> String {
    let head: Vec<&str> = t.columns.iter().map(String::as_str).collect();
    markdown(&head, t.rows.iter().map(|r| r.iter().map(text_of).collect()))
}

fn map_text(m: &Map<String, Json>) -> String {
    markdown(&["name", "value"], m.iter().map(|(k, v)| vec![k.clone(), text_of(v)]))
}

impl Sink for TensorBoard {
    fn name(&self) -> &'static str {
        "tensorboard"
    }
    fn config(&mut self, config: &Map<String, Json>, now: f64) -> Result<()> {
        self.config.clone_from(config);
        self.replace("config", &map_text(config), now)
    }
    fn point(&mut self, p: &Point, now: f64) -> Result<Fate> {
        let mut summary = Message::new();
        if let Some(t) = &p.table {
            summary = summary.message(1, &text_value(&p.series, &table_text(t)));
        }
        let tag = |name: &String| format!("{}/{name}", p.series);
        for (name, n) in &p.scalars {
            let x = n.as_f64().ok_or_else(|| Error::internal(format!("read the number {n}")))? as f32;
            summary = summary.message(1, &Message::new().text(1, &tag(name)).float(2, x));
        }
        for (name, text) in &p.texts {
            summary = summary.message(1, &text_value(&tag(name), text));
        }
        for (name, h) in &p.histograms {
            summary = summary.message(1, &histogram_value(&tag(name), h));
        }
        let digest = digest(&(p.step, summary.as_bytes()));
        let fate = self.ledger.fate(p, digest);
        if fate == Fate::Written {
            self.event(p.step, &summary, now)?;
            self.ledger.push(&p.series, digest);
        }
        Ok(fate)
    }
    fn summary(&mut self, stage: &str, summary: &Map<String, Json>, now: f64) -> Result<()> {
        self.replace(&format!("summary/{stage}"), &map_text(summary), now)
    }
    fn restart(&mut self, now: f64) -> Result<()> {
        let config = std::mem::take(&mut self.config);
        *self = Self::at(&self.root, self.about.clone(), self.run + 1, now)?;
        self.config(&config, now)
    }
    fn finish(&mut self, _: Option<u8>, _: f64) -> Result<()> {
        Ok(())
    }
}
