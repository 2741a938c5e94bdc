//! `compare`: baseline against student, paired, with intervals: `comparison.json` and `comparison.md`; where a run has
//! more models, all of them against the baseline: `comparison_all.json` and `comparison_all.md`.

use std::path::{Path, PathBuf};

use ecr_core::{Error, Result, Stream, io};
use ecr_eval::many::{Entry, Options, Run, compare_many};
use ecr_eval::{Bootstrap, Evaluation, ModelRun, Report, compare};
use serde_json::{Value as Json, json};

use super::eval::{MODELS, REPLIES_FILE};
use crate::config::Config;
use crate::graph::{Context, Stage};
use crate::rundir::RunDir;

pub(super) struct Compare;

/// All models of a run against its baseline, numbers.
pub const ALL_JSON: &str = "comparison_all.json";
/// The same as a page.
pub const ALL_PAGE: &str = "comparison_all.md";

impl Stage for Compare {
    fn name(&self) -> &'static str {
        "compare"
    }
    fn settings(&self, c: &Config) -> Json {
        json!([c.eval.resamples, c.eval.samples, c.run.seed])
    }
    fn inputs(&self, _: &Config, dir: &RunDir) -> Vec<PathBuf> {
        super::models(dir).iter().map(|m| dir.evaluation(m).join(REPLIES_FILE)).collect()
    }
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf> {
        let mut files = vec![dir.join("comparison.json"), dir.join("comparison.md")];
        if super::models(dir).len() > MODELS.len() {
            files.extend([dir.join(ALL_JSON), dir.join(ALL_PAGE)]);
        }
        files
    }
    fn run(&self, cx: &mut Context) -> Result<()> {
        let [baseline, enhanced] = MODELS.map(|m| cx.dir.evaluation(m).join(REPLIES_FILE));
        let c = cx.config.eval.clone();
        let report =
            compare_files(&baseline, &enhanced, c.resamples, c.samples, cx.stream.child("bootstrap"))?;
        for (name, row) in &report.comparison.metrics {
            if ["mean_reward", "empathy", "empathy_eval", "recommendation_accuracy"].contains(&name.as_str())
            {
                cx.note(name, json!([row.baseline, row.rl_enhanced, row.ci_low, row.ci_high]));
            }
        }
        if super::models(&cx.dir).len() > MODELS.len() {
            let entry = |m: &&str| {
                let evaluation = read_replies(&cx.dir.evaluation(m).join(REPLIES_FILE))?;
                Ok(Entry { name: (*m).into(), runs: vec![Run { label: (*m).into(), evaluation }] })
            };
            let entries = super::models(&cx.dir).iter().map(entry).collect::<Result<Vec<_>>>()?;
            let bootstrap = Bootstrap { resamples: c.resamples, stream: cx.stream.child("bootstrap") };
            let all = compare_many(entries, &Options { metrics: vec![], bootstrap })?;
            io::atomic_write(&cx.dir.join(ALL_PAGE), all.markdown.as_bytes())?;
            io::atomic_write(&cx.dir.join(ALL_JSON), all.json.as_bytes())?;
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
    compare(&read_replies(a)?, &read_replies(b)?, Bootstrap { resamples, stream }, samples)
}

/// Reads the replies of an evaluated model (`evaluation_results/MODEL/replies.json`).
///
/// # Errors
/// [`ecr_core::Kind::Data`] for a damaged file.
pub fn read_replies(path: &Path) -> Result<Evaluation> {
    let run: ModelRun = serde_json::from_slice(&io::read(path)?).map_err(|e| {
        Error::data(format!("read {}", path.display()))
            .expected("the replies.json of an evaluated model")
            .got(e.to_string())
            .hint("run the eval stage again")
    })?;
    Evaluation::new(run)
}
