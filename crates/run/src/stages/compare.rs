//! `compare`: baseline against student, paired, with intervals: `comparison.json` and `comparison.md`.

use std::path::{Path, PathBuf};

use ecr_core::{Error, Result, Stream, io};
use ecr_eval::{Bootstrap, Evaluation, ModelRun, Report, compare};
use serde_json::{Value as Json, json};

use super::eval::{MODELS, REPLIES_FILE};
use crate::config::Config;
use crate::graph::{Context, Stage};
use crate::rundir::RunDir;

pub(super) struct Compare;

impl Stage for Compare {
    fn name(&self) -> &'static str {
        "compare"
    }
    fn settings(&self, c: &Config) -> Json {
        json!([c.eval.resamples, c.eval.samples, c.run.seed])
    }
    fn inputs(&self, _: &Config, dir: &RunDir) -> Vec<PathBuf> {
        MODELS.iter().map(|m| dir.evaluation(m).join(REPLIES_FILE)).collect()
    }
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf> {
        vec![dir.join("comparison.json"), dir.join("comparison.md")]
    }
    fn run(&self, cx: &mut Context) -> Result<()> {
        let [baseline, enhanced] = MODELS.map(|m| cx.dir.evaluation(m).join(REPLIES_FILE));
        let c = &cx.config.eval;
        let report =
            compare_files(&baseline, &enhanced, c.resamples, c.samples, cx.stream.child("bootstrap"))?;
        for (name, row) in &report.comparison.metrics {
            if ["mean_reward", "empathy", "empathy_eval", "recommendation_accuracy"].contains(&name.as_str())
            {
                cx.note(name, json!([row.baseline, row.rl_enhanced, row.ci_low, row.ci_high]));
            }
        }
        io::atomic_write(&cx.dir.join("comparison.md"), report.markdown.as_bytes())?;
        io::atomic_write(&cx.dir.join("comparison.json"), report.json.as_bytes())
    }
}

/// Compares two files of replies (`evaluation_results/MODEL/replies.json`).
///
/// # Errors
/// [`ecr_core::Kind::Data`] for a damaged file or different prompts.
pub fn compare_files(a: &Path, b: &Path, resamples: usize, samples: usize, stream: Stream) -> Result<Report> {
    let read = |path: &Path| -> Result<Evaluation> {
        let run: ModelRun = serde_json::from_slice(&io::read(path)?).map_err(|e| {
            Error::data(format!("read {}", path.display()))
                .expected("the replies.json of an evaluated model")
                .got(e.to_string())
                .hint("run the eval stage again")
        })?;
        Evaluation::new(run)
    };
    compare(&read(a)?, &read(b)?, Bootstrap { resamples, stream }, samples)
}
