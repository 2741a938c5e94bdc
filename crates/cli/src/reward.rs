//! `ecr reward`: rewards audited and explained.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ecr_core::{Error, Kind, Result, io};
use ecr_run::auditing::{self, Size};
use ecr_run::config::Layers;
use ecr_run::explaining::{self, To};
use ecr_run::graph::{self, Context, Plan};
use ecr_run::log::Voice;
use ecr_run::rundir::RunDir;
use ecr_run::stages;

use crate::commands::{lay, over, print};
use crate::guide::Guide;

#[derive(Debug, Subcommand)]
pub(crate) enum Reward {
    /// Score degenerate replies beside human ones; exit 1 if one of them pays
    Audit(Audit),
    /// Where the reward of one reply comes from
    Explain(Explain),
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// Run directory whose data, scorers and settings are used
    #[arg(long, value_name = "DIR")]
    pub(crate) run: PathBuf,
    /// The nth recommender turn of the test dialogues, from 0
    #[arg(long, value_name = "N", conflicts_with = "context")]
    pub(crate) record: Option<usize>,
    /// Conversation in a JSON file: [{"role": "seeker", "text": "..."}, ...]
    #[arg(long, value_name = "FILE")]
    pub(crate) context: Option<PathBuf>,
    /// The reply to explain [default: the human one]
    #[arg(long, value_name = "TEXT")]
    pub(crate) response: Option<String>,
    /// Preset or configuration file to lay over the run's settings (repeatable)
    #[arg(long = "config", value_name = "PRESET|FILE")]
    pub(crate) layers: Vec<String>,
    /// Set one value, e.g. --set reward.knowledge=1 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Machine-readable output on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Preset or configuration file with the reward to audit
    pub(crate) what: String,
    /// Run directory whose data and scorers are used; without it they are made on the spot
    #[arg(long, value_name = "DIR")]
    pub(crate) run: Option<PathBuf>,
    /// Directory of real data, instead of the demo, where there is no --run
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Test contexts
    #[arg(long, default_value_t = 300)]
    pub(crate) contexts: usize,
    /// Set one value, e.g. --set reward.bleu=0 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Machine-readable output on stdout
    #[arg(long)]
    pub(crate) json: bool,
    /// Say only warnings and errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// Carries out a command.
pub(crate) fn execute(r: Reward, guide: &Guide) -> Result<()> {
    match r {
        Reward::Audit(a) => audit(a, guide),
        Reward::Explain(e) => explain(e, guide),
    }
}

/// Settings of a run directory, of the demo, or of real data, with the audited layer over them.
fn audit_layers(a: &Audit, guide: &Guide) -> Result<Layers> {
    let mut l = Layers::new();
    match (&a.run, &a.data) {
        (Some(run), _) => l.saved(&run.join(graph::CONFIG_FILE))?,
        (None, None) => lay(&mut l, "demo")?,
        (None, Some(_)) => l.set("data.source=redial")?,
    }
    lay(&mut l, &a.what)?;
    if let Some(data) = &a.data {
        l.flag("--data", "data.path", &data.display().to_string())?;
    }
    let settings = crate::args::Settings { set: a.set.clone(), ..Default::default() };
    over(&mut l, &settings, guide)?;
    Ok(l)
}

fn audit(a: Audit, guide: &Guide) -> Result<()> {
    let layers = audit_layers(&a, guide)?;
    let voice = Voice { quiet: a.quiet };
    let resamples = layers.config()?.eval.resamples;
    let size = Size { contexts: a.contexts, resamples };
    let report = match &a.run {
        Some(run) => auditing::audit(&Context::open(&layers, RunDir::new(run), voice)?, &a.what, size)?,
        None => {
            let dir = Temporary::new("ecr-audit");
            let mut only = vec!["prepare".into(), "emotion".into()];
            if layers.config()?.reward.critic > 0.0 {
                only.push("critic".into());
            }
            let plan = Plan { only, ..Plan::default() };
            graph::run(&stages::all(), &layers, RunDir::new(&dir.0), &plan, Voice { quiet: true })?;
            auditing::audit(&Context::open(&layers, RunDir::new(&dir.0), voice)?, &a.what, size)?
        }
    };
    if a.json {
        let text =
            serde_json::to_string(&report).map_err(|e| Error::internal(format!("write the audit: {e}")))?;
        print(&text);
    } else {
        print(&report.markdown());
    }
    let failed = report.failures();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Check, format!("audit the reward of {}", a.what))
        .expected("every hack below the human reply, by its interval")
        .got(format!("not below: {}", failed.join(", ")))
        .hint("the column \"best part\" names the component that pays for it"))
}

fn explain(e: Explain, guide: &Guide) -> Result<()> {
    let mut l = Layers::new();
    l.saved(&e.run.join(graph::CONFIG_FILE))?;
    e.layers.iter().try_for_each(|what| lay(&mut l, what))?;
    over(&mut l, &crate::args::Settings { set: e.set, ..Default::default() }, guide)?;
    let to = match (e.context, e.record) {
        (Some(file), _) => To::File(file),
        (None, n) => To::Record(n.unwrap_or(0)),
    };
    let cx = Context::open(&l, RunDir::new(&e.run), Voice { quiet: true })?;
    let found = explaining::explain(&cx, &to, e.response.as_deref())?;
    if e.json {
        let text = serde_json::to_string(&found)
            .map_err(|e| Error::internal(format!("write the explanation: {e}")))?;
        print(&text);
    } else {
        print(&found.text());
    }
    Ok(())
}

/// A directory that is gone when this is.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("{name}-{}", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let path: &Path = &self.0;
        if path.exists() {
            let _ = io::remove_dir_all(path);
        }
    }
}
