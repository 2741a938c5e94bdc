//! `ecr compare`: the models of a run, or any models of any runs.

use std::path::Path;

use clap::Args;
use ecr_core::{Result, Stream, io};
use ecr_run::experiments::compare_models;
use ecr_run::stages::{self, ALL_PAGE};

use crate::args::Stage;
use crate::commands::{layers, print, stage};
use crate::guide::Guide;

/// Without arguments, the models of --out. Each argument is [LABEL=]DIR (all evaluated models of a run directory),
/// [LABEL=]DIR:MODEL, a model of --out, or a replies.json. Models of one name are runs (seeds) of one model; the first
/// model is what the others are held against. Two files of replies give the two-model report.
#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// Models to compare, the reference first
    #[arg(value_name = "MODEL")]
    pub(crate) models: Vec<String>,
    /// Metrics to compare, by name [default: the usual ones]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) metrics: Vec<String>,
    #[command(flatten)]
    pub(crate) stage: Stage,
}

/// Carries out the command.
pub(crate) fn execute(c: Compare, guide: &Guide) -> Result<()> {
    if c.models.is_empty() && c.metrics.is_empty() {
        let page = c.stage.out.join(ALL_PAGE);
        let json = c.stage.settings.json;
        stage("compare", c.stage, guide)?;
        if page.is_file() && !json {
            let text = io::read_to_string(&page)?;
            print(&format!("\n{}", text.split("\n## How to read").next().unwrap_or(&text)));
        }
        return Ok(());
    }
    let config = layers(None, &c.stage.settings, guide)?.config()?;
    let stream = Stream::new(config.run.seed).child("bootstrap");
    let resamples = config.eval.resamples;
    if let [a, b] = c.models.as_slice()
        && c.metrics.is_empty()
        && Path::new(a).is_file()
        && Path::new(b).is_file()
    {
        let report =
            stages::compare_files(Path::new(a), Path::new(b), resamples, config.eval.samples, stream)?;
        print(if c.stage.settings.json { &report.json } else { &report.markdown });
        return Ok(());
    }
    let here = c.stage.out.display().to_string();
    let models = if c.models.is_empty() { vec![here] } else { c.models };
    let all = compare_models(&models, &c.stage.out, c.metrics, resamples, stream)?;
    print(if c.stage.settings.json { &all.json } else { &all.markdown });
    Ok(())
}
