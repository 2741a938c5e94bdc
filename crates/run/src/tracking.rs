//! Mirrors a run's logs into `tracking/` (W&B, TensorBoard), if the configuration asks for it. It is no part of the
//! results: files there hold times, nothing reads them, and what goes wrong there is a warning.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use ecr_core::{Kind, Result, io};
use ecr_track::{About, Options, Tracker};
use serde_json::{Map, Value as Json};

use crate::config::{Layers, Track};
use crate::log::Voice;
use crate::rundir::RunDir;

/// The tracker of a run, if there is one; clones share it.
#[derive(Clone, Default)]
pub struct Tracking(Option<Arc<Mutex<Option<Tracker>>>>);

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

fn host() -> String {
    let file = io::read_to_string(Path::new("/etc/hostname")).ok();
    let name = file.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    if name.trim().is_empty() { "unknown".into() } else { name.trim().into() }
}

impl Tracking {
    /// Opens what the configuration asks for, in `tracking/` of the run directory.
    pub fn begin(track: &Track, layers: &Layers, dir: &RunDir, voice: Voice) -> Self {
        if !(track.wandb || track.tensorboard) {
            return Self::default();
        }
        let name = dir.root().file_name().map_or_else(|| "run".into(), |n| n.to_string_lossy().into_owned());
        let options = Options {
            dir: dir.join("tracking"),
            wandb: track.wandb,
            tensorboard: track.tensorboard,
            about: About { project: track.project.clone(), name, host: host(), pid: std::process::id() },
        };
        let values = layers.values().iter().filter(|(k, _)| !k.starts_with("track."));
        let config: Map<String, Json> = values.map(|(k, (v, _))| (k.clone(), v.clone())).collect();
        let tracker = Tracker::open(&options, &config, now, move |w| voice.warn(w));
        Self(Some(Arc::new(Mutex::new(Some(tracker)))))
    }

    fn with(&self, f: impl FnOnce(&mut Tracker)) {
        // A poisoned tracker is one that is not used any more.
        if let Some(shared) = &self.0
            && let Ok(mut guard) = shared.lock()
            && let Some(tracker) = guard.as_mut()
        {
            f(tracker);
        }
    }

    /// A log was opened: what it holds is tracked now, unless it was before.
    pub fn opened(&self, path: &Path) {
        self.with(|t| t.opened(path, &io::read_to_string(path).unwrap_or_default()));
    }

    /// A line was written to a log.
    pub fn line(&self, path: &Path, text: &str) {
        self.with(|t| t.line(path, text));
    }

    /// A stage ended with these numbers.
    pub fn stage_done(&self, stage: &str, summary: &Map<String, Json>) {
        self.with(|t| t.stage_done(stage, summary));
    }

    /// A stage was found complete: its logs are tracked now, unless they were before.
    pub fn stage_skipped(&self, stage: &str, dir: &RunDir, summary: &Json) {
        if self.0.is_none() {
            return;
        }
        let mine = |p: &PathBuf| {
            let rest = p.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_prefix(stage));
            rest.is_some_and(|r| r.starts_with(['.', '_']))
        };
        let logs = io::read_dir_sorted(&dir.join("logs")).unwrap_or_default();
        logs.iter().filter(|p| mine(p)).for_each(|p| self.opened(p));
        self.stage_done(stage, summary.as_object().unwrap_or(&Map::new()));
    }

    /// The run ended. An interrupted one stays open: the next process goes on with it.
    pub fn finish(&self, result: &Result<()>) {
        let code = match result {
            Ok(()) => Some(0),
            Err(e) if e.kind == Kind::Interrupted => None,
            Err(e) => Some(e.exit_code()),
        };
        if let Some(shared) = &self.0
            && let Ok(mut guard) = shared.lock()
            && let Some(tracker) = guard.take()
        {
            tracker.finish(code);
        }
    }
}
