//! The mirror: lines of JSONL logs in, formats out, warnings instead of errors.

use std::path::{Path, PathBuf};

use ecr_core::{Error, Result, io};
use serde_json::{Map, Value as Json};

use crate::point::{Cursor, Point};
use crate::redact::redact;
use crate::sink::{About, Fate, Sink};
use crate::tensorboard::TensorBoard;
use crate::wandb::Wandb;

/// What to write, and where.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Directory of everything that is tracked.
    pub dir: PathBuf,
    /// W&B offline runs in `dir/wandb`.
    pub wandb: bool,
    /// TensorBoard event files in `dir/tensorboard`.
    pub tensorboard: bool,
    /// Names.
    pub about: About,
}

/// A log that was opened.
struct Log {
    path: PathBuf,
    cursor: Cursor,
    /// Lines seen.
    lines: usize,
    /// Whether its last samples were told.
    ended: bool,
}

/// Mirrors the logs of one run. No method fails.
pub struct Tracker {
    sinks: Vec<Box<dyn Sink>>,
    logs: Vec<Log>,
    summaries: Vec<(String, Map<String, Json>)>,
    clock: fn() -> f64,
    warn: Box<dyn FnMut(&str) + Send>,
}

impl Tracker {
    /// Opens what `options` ask for and writes the settings (dotted keys), secrets redacted. `clock` gives seconds since
    /// 1970; `warn` hears of each format that is given up.
    pub fn open(
        options: &Options,
        config: &Map<String, Json>,
        clock: fn() -> f64,
        warn: impl FnMut(&str) + Send + 'static,
    ) -> Self {
        let mut out =
            Self { sinks: Vec::new(), logs: Vec::new(), summaries: Vec::new(), clock, warn: Box::new(warn) };
        let about = || options.about.clone();
        type Opened = Result<Box<dyn Sink>>;
        let mut opened: Vec<(&str, Opened)> = Vec::new();
        if options.wandb {
            let sink = Wandb::open(&options.dir.join("wandb"), about(), clock());
            opened.push(("wandb", sink.map(|s| Box::new(s) as Box<dyn Sink>)));
        }
        if options.tensorboard {
            let sink = TensorBoard::open(&options.dir.join("tensorboard"), about(), clock());
            opened.push(("tensorboard", sink.map(|s| Box::new(s) as Box<dyn Sink>)));
        }
        for (name, sink) in opened {
            match sink {
                Ok(s) => out.sinks.push(s),
                Err(e) => out.give_up(name, &e),
            }
        }
        let config = redact(config);
        out.each(|s, now| s.config(&config, now));
        out
    }

    /// A log was opened (or opened again) and holds what `kept` says; what of it is not tracked yet, is now.
    pub fn opened(&mut self, path: &Path, kept: &str) {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(cursor) = Cursor::new(&file) else { return };
        self.logs.retain(|l| l.path != path);
        self.logs.push(Log { path: path.into(), cursor, lines: 0, ended: false });
        kept.lines().for_each(|l| self.line(path, l));
    }

    /// A line was put at the end of a log.
    pub fn line(&mut self, path: &Path, text: &str) {
        let Some(log) = self.logs.iter_mut().find(|l| l.path == path) else { return };
        log.lines += 1;
        if let Some(point) = log.cursor.line(text) {
            self.tell(&point);
        }
    }

    /// A stage ended (or was found complete) with these numbers. Its logs have its name, or its name and `_`.
    pub fn stage_done(&mut self, stage: &str, summary: &Map<String, Json>) {
        let mut last = Vec::new();
        let mine = |l: &&mut Log| {
            l.cursor.name().strip_prefix(stage).is_some_and(|r| r.is_empty() || r.starts_with('_'))
        };
        for log in self.logs.iter_mut().filter(mine) {
            log.ended = true;
            last.extend(log.cursor.end());
        }
        last.iter().for_each(|p| self.tell(p));
        self.summaries.push((stage.into(), summary.clone()));
        self.each(|s, now| s.summary(stage, summary, now));
    }

    /// The end, with the exit code; `None` if the run was interrupted and is to be continued.
    pub fn finish(mut self, code: Option<u8>) {
        self.each(|s, now| s.finish(code, now));
    }

    fn tell(&mut self, point: &Point) {
        let (logs, summaries) = (std::mem::take(&mut self.logs), std::mem::take(&mut self.summaries));
        self.each(|s, now| match s.point(point, now)? {
            Fate::Written | Fate::Known => Ok(()),
            Fate::Conflict => again(s, &logs, &summaries, now),
        });
        (self.logs, self.summaries) = (logs, summaries);
    }

    /// Does something with every format; one that fails is given up.
    fn each(&mut self, mut f: impl FnMut(&mut dyn Sink, f64) -> Result<()>) {
        let now = (self.clock)();
        for mut sink in std::mem::take(&mut self.sinks) {
            match f(sink.as_mut(), now) {
                Ok(()) => self.sinks.push(sink),
                Err(e) => self.give_up(sink.name(), &e),
            }
        }
    }

    fn give_up(&mut self, name: &str, e: &Error) {
        (self.warn)(&format!(
            "tracking to {name} stops here; the run goes on, and logs/*.jsonl are complete\n  {e}\n  \
             hint: the same command, run again later, adds what is missing"
        ));
    }
}

/// Another run: the numbers differ from those under the old id. It begins with all that was seen so far.
fn again(s: &mut dyn Sink, logs: &[Log], summaries: &[(String, Map<String, Json>)], now: f64) -> Result<()> {
    s.restart(now)?;
    for log in logs {
        let text = io::read_to_string(&log.path)?;
        let file = log.path.file_name().unwrap_or_default().to_string_lossy();
        let Some(mut cursor) = Cursor::new(&file) else { continue };
        let mut points: Vec<Point> = text.lines().take(log.lines).filter_map(|l| cursor.line(l)).collect();
        if log.ended {
            points.extend(cursor.end());
        }
        for p in &points {
            s.point(p, now)?;
        }
    }
    summaries.iter().try_for_each(|(stage, summary)| s.summary(stage, summary, now))
}
