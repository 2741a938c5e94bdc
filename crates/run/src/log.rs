//! What a run says: metrics as JSONL (equal to the bit on every run), times apart, progress on stderr.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ecr_core::io::AppendLog;
use ecr_core::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::interrupt::Steps;
use crate::tracking::Tracking;

/// How much a run says on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voice {
    /// Nothing but warnings and errors.
    pub quiet: bool,
}

impl Voice {
    /// A line of the log.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }
    /// A warning.
    pub fn warn(&self, text: &str) {
        eprintln!("warning: {text}");
    }
}

/// A JSONL file of one stage.
pub struct JsonLog {
    log: AppendLog,
    mirror: Option<(Tracking, PathBuf)>,
}

impl JsonLog {
    /// Continues a log at the length that a checkpoint recorded (0 to begin).
    pub fn open(path: &Path, len: u64) -> Result<Self> {
        Ok(Self { log: AppendLog::open(path, len)?, mirror: None })
    }
    /// The same, mirrored by the run's trackers.
    pub fn tracked(path: &Path, len: u64, tracking: &Tracking) -> Result<Self> {
        let log = AppendLog::open(path, len)?;
        tracking.opened(path);
        Ok(Self { log, mirror: Some((tracking.clone(), path.to_path_buf())) })
    }
    /// Appends one record.
    pub fn write(&mut self, record: &impl Serialize) -> Result<()> {
        let text =
            serde_json::to_string(record).map_err(|e| Error::internal(format!("write a log record: {e}")))?;
        self.log.line(&text)?;
        if let Some((tracking, path)) = &self.mirror {
            tracking.line(path, &text);
        }
        Ok(())
    }
    /// Flushes and gives the length.
    pub fn sync(&mut self) -> Result<u64> {
        self.log.sync()
    }
}

/// Progress of one loop: a bar with rate and time left on a terminal, a line every ten seconds elsewhere.
pub struct Progress {
    bar: Option<ProgressBar>,
    what: String,
    total: u64,
    done: u64,
    started: Instant,
    said: Instant,
    quiet: bool,
    _steps: Steps,
}

impl Progress {
    /// A loop of `total` steps of which `done` are behind us; `steps` says that an interruption waits for it.
    pub fn new(voice: Voice, steps: Steps, what: &str, total: u64, done: u64) -> Self {
        let bar = (!voice.quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(total).with_position(done).with_message(what.to_string());
            let plain = std::env::var_os("NO_COLOR").is_some();
            let template = if plain {
                "{msg:12} [{bar:30}] {pos}/{len} {per_sec} {eta} left"
            } else {
                "{msg:12} [{bar:30.cyan/blue}] {pos}/{len} {per_sec} {eta} left"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        let now = Instant::now();
        Self {
            bar,
            what: what.to_string(),
            total,
            done,
            started: now,
            said: now,
            quiet: voice.quiet,
            _steps: steps,
        }
    }
    /// One step further; `note` is shown now and then.
    pub fn tick(&mut self, note: &str) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
        } else if !self.quiet && self.said.elapsed() > Duration::from_secs(10) {
            self.said = Instant::now();
            let rate = self.started.elapsed().as_secs_f64() / self.done.max(1) as f64;
            let left = rate * self.total.saturating_sub(self.done) as f64;
            eprintln!("{}: {}/{}, about {left:.0} s left {note}", self.what, self.done, self.total);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
