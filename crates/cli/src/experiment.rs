//! `ecr experiment`: variants of a run with several seeds, on one page.

use std::path::{Path, PathBuf};

use clap::Args;
use ecr_core::{Error, Kind, Result};
use ecr_run::experiments::{BUILTIN, Spec, Study};
use ecr_run::log::Voice;

use crate::args::Settings;
use crate::commands::{plan, print};
use crate::guide::Guide;

/// Runs lie in OUT/NAME/VARIANT/seed-N, the page in OUT/NAME/experiment.md. The same command continues an experiment
/// that was stopped; what is finished is not done again. Exit code 1 if an expectation of the experiment does not hold.
#[derive(Debug, Args)]
pub(crate) struct Experiment {
    /// A built-in experiment or a TOML file; without it, the built-in ones are listed
    pub(crate) what: Option<String>,
    /// Directory of all experiments
    #[arg(long, default_value = "runs/experiments")]
    pub(crate) out: PathBuf,
    /// Name of its directory [default: that of the experiment]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Training seeds instead of the experiment's
    #[arg(long, value_delimiter = ',', value_name = "N,N,...")]
    pub(crate) seeds: Vec<u64>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// What commands that make many runs have in common.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Set one value in all runs, e.g. --set ppo.steps=50 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Say only warnings and errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Machine-readable output on stdout
    #[arg(long)]
    pub(crate) json: bool,
    /// Run everything again
    #[arg(long)]
    pub(crate) force: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Continue on other kernels or another CPU than it began on
    #[arg(long)]
    pub(crate) allow_other_kernels: bool,
}

impl Common {
    /// `--set`, then flags of the guide, as assignments.
    pub(crate) fn over(&self, guide: &Guide) -> Vec<String> {
        let flags = guide.set.iter().map(|(_, key, value)| format!("{key}={value}"));
        self.set.iter().cloned().chain(flags).collect()
    }
    /// The plan of every run.
    pub(crate) fn plan(&self) -> Result<ecr_run::graph::Plan> {
        plan(&Settings {
            force: self.force,
            dry_run: self.dry_run,
            allow_other_kernels: self.allow_other_kernels,
            ..Settings::default()
        })
    }
}

/// The name that a directory gets from what it was made of.
pub(crate) fn stem(what: &str) -> String {
    Path::new(what).file_stem().map_or_else(|| "run".into(), |s| s.to_string_lossy().into_owned())
}

/// Carries out the command.
pub(crate) fn execute(e: Experiment, guide: &Guide) -> Result<()> {
    let Some(what) = e.what else {
        for (name, _) in BUILTIN {
            print(&format!("{name}: {}", Spec::load(name)?.about.trim().replace('\n', " ")));
        }
        return Ok(());
    };
    let mut spec = Spec::load(&what)?;
    if !e.seeds.is_empty() {
        spec.seeds = e.seeds;
    }
    let name = e.name.unwrap_or_else(|| stem(&what));
    let root = e.out.join(&name);
    let study = Study { name, spec, over: e.common.over(guide) };
    let voice = Voice { quiet: e.common.quiet };
    let Some(outcome) = study.run(&root, &e.common.plan()?, voice)? else { return Ok(()) };
    if e.common.json {
        print(&outcome.json()?);
    } else {
        print(outcome.markdown.split("\n### How to read").next().unwrap_or_default());
    }
    voice.say(&format!("everything is in {}", root.display()));
    let failed = outcome.failed();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Check, format!("check what the experiment {} expects", study.name))
        .expected(failed.join("; "))
        .got("the data say otherwise")
        .files("all runs are complete")
        .hint("see \"Expected\" on its page"))
}
