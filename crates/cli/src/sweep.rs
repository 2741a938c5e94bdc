//! `ecr sweep`: settings tried on validation prompts.

use std::path::PathBuf;

use clap::Args;
use ecr_core::{Error, Result, Stream};
use ecr_run::experiments::{Goal, Sweep as Study, grid, random};
use ecr_run::log::Voice;

use crate::commands::print;
use crate::experiment::{Common, stem};
use crate::guide::Guide;

/// Every combination of --grid with every random point of --random is trained on the shared baseline and judged on
/// validation prompts, never on test. Runs lie in OUT/NAME/point-N/seed-N, the page in OUT/NAME/sweep.md.
#[derive(Debug, Args)]
pub(crate) struct Sweep {
    /// A preset (demo, smoke) or a configuration file
    pub(crate) what: String,
    /// Values to try, e.g. ppo.kl_coef=0.05,0.1,0.2 (repeatable: all combinations)
    #[arg(long, value_name = "KEY=A,B,...")]
    pub(crate) grid: Vec<String>,
    /// A range to draw from: A..B, log:A..B or int:A..B, e.g. ppo.learning_rate=log:1e-5..1e-3 (repeatable)
    #[arg(long, value_name = "KEY=RANGE")]
    pub(crate) random: Vec<String>,
    /// Training runs at most; --random draws as many points as fit
    #[arg(long, default_value_t = 12, value_name = "N")]
    pub(crate) budget: usize,
    /// What is wanted: metrics, with :max or :min where neither way is better in itself
    #[arg(long, value_delimiter = ',', default_value = "mean_reward,kl,reference_nll,dist_2")]
    pub(crate) goals: Vec<String>,
    /// Training stage whose model is judged
    #[arg(long, default_value = "ppo")]
    pub(crate) stage: String,
    /// Training seeds of each point
    #[arg(long, value_delimiter = ',', default_value = "1", value_name = "N,N,...")]
    pub(crate) seeds: Vec<u64>,
    /// Seed of the random points
    #[arg(long, default_value_t = 1)]
    pub(crate) draw: u64,
    /// Directory of all sweeps
    #[arg(long, default_value = "runs/sweeps")]
    pub(crate) out: PathBuf,
    /// Name of its directory [default: that of the preset or file]
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Grid times random points, within the budget.
fn points(s: &Sweep) -> Result<Vec<Vec<String>>> {
    let grid = grid(&s.grid)?;
    let each = grid.len() * s.seeds.len().max(1);
    let draws = if s.random.is_empty() { 1 } else { s.budget / each };
    if draws == 0 || draws * each > s.budget {
        return Err(Error::config("plan the sweep")
            .expected(format!("at most {} training runs (--budget)", s.budget))
            .got(format!("{} points of the grid times {} seeds", grid.len(), s.seeds.len()))
            .files("nothing was changed")
            .hint("raise --budget or try fewer values"));
    }
    if s.random.is_empty() {
        return Ok(if s.grid.is_empty() { Vec::new() } else { grid });
    }
    let drawn = random(&s.random, draws, Stream::new(s.draw).child("sweep"))?;
    Ok(drawn.iter().flat_map(|d| grid.iter().map(move |g| [g.as_slice(), d].concat())).collect())
}

/// Carries out the command.
pub(crate) fn execute(s: Sweep, guide: &Guide) -> Result<()> {
    let name = s.name.clone().unwrap_or_else(|| stem(&s.what));
    let root = s.out.join(&name);
    let study = Study {
        name,
        base: s.what.clone(),
        stage: s.stage.clone(),
        points: points(&s)?,
        seeds: s.seeds.clone(),
        goals: s.goals.iter().map(|g| Goal::parse(g)).collect::<Result<_>>()?,
        over: s.common.over(guide),
    };
    let voice = Voice { quiet: s.common.quiet };
    let Some(out) = study.run(&root, &s.common.plan()?, voice)? else { return Ok(()) };
    print(&if s.common.json { out.json()? } else { out.markdown });
    voice.say(&format!("everything is in {}", root.display()));
    Ok(())
}
