//! Arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 a check failed; 2 usage or configuration; 3 data or model file; 4 network; 5 disk; \
6 training diverged; 70 a bug; 130 interrupted (an interrupted run continues with the same command).

Flags of the original training guide (--bleu_weight, --ppo_clip_epsilon, --rl_learning_rate, ...) are understood by \
every command that takes settings, with - or _; `ecr config flags` lists them.";

/// Empathetic conversational recommenders, aligned and measured.
#[derive(Debug, Parser)]
#[command(name = "ecr", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the whole pipeline, or continue it where it stopped
    Run(Run),
    /// Data commands
    #[command(subcommand)]
    Data(Data),
    /// Train one model of the pipeline
    #[command(subcommand)]
    Train(Train),
    /// Evaluate baseline and student of a run on the same prompts
    Eval(Stage),
    /// Compare the models of a run, or any models of any runs
    Compare(crate::compare::Compare),
    /// Train variants with several seeds and compare them on one page
    Experiment(crate::experiment::Experiment),
    /// Try settings on validation prompts and show which none beats
    Sweep(crate::sweep::Sweep),
    /// Audit and explain rewards
    #[command(subcommand)]
    Reward(crate::reward::Reward),
    /// What the metrics of a run say about it
    Diagnose(crate::diagnose::Diagnose),
    /// Rate replies with a language model as judge
    Score(Box<crate::score::Score>),
    /// The file in which expensive scores are kept
    #[command(subcommand)]
    Cache(crate::cache::Cache),
    /// Show and check settings
    #[command(subcommand)]
    Config(Config),
}

/// Settings in layers: defaults, presets and files in the order given, --set, flags.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Settings {
    /// Preset or configuration file to lay over the others (repeatable)
    #[arg(long = "config", value_name = "PRESET|FILE")]
    pub(crate) layers: Vec<String>,
    /// Preset to lay over the others (repeatable), e.g. rewards-empathy
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Vec<String>,
    /// Set one value, e.g. --set ppo.steps=50 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Threads; 0 = all (results do not depend on it)
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// f32 or bf16
    #[arg(long)]
    pub(crate) precision: Option<String>,
    /// Say only warnings and errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Machine-readable output on stdout
    #[arg(long)]
    pub(crate) json: bool,
    /// Run stages even if nothing changed
    #[arg(long)]
    pub(crate) force: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Continue a run on other kernels or another CPU than it began on
    #[arg(long)]
    pub(crate) allow_other_kernels: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// A preset (demo, smoke) or a configuration file
    pub(crate) what: String,
    /// Run directory [default: runs/NAME]
    #[arg(long, alias = "output-dir")]
    pub(crate) out: Option<PathBuf>,
    /// First stage
    #[arg(long, value_name = "STAGE")]
    pub(crate) from: Option<String>,
    /// Last stage
    #[arg(long, value_name = "STAGE")]
    pub(crate) to: Option<String>,
    /// These stages alone (repeatable)
    #[arg(long, value_name = "STAGE")]
    pub(crate) only: Vec<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// One stage in a run directory. Without --config it takes the settings that the directory was begun with.
#[derive(Debug, Args)]
pub(crate) struct Stage {
    /// Run directory
    #[arg(long, alias = "output-dir", default_value = "runs/demo")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Data {
    /// Import conversations and write records, catalogue, critic rows
    Prepare(Stage),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Train {
    /// The two emotion classifiers
    Emotion(Stage),
    /// The two classifiers of EPITOME's levels of empathy (optional)
    Empathy(Stage),
    /// The quality critic
    Critic(Stage),
    /// The supervised baseline
    Sft(Stage),
    /// The aligned student
    Ppo(Stage),
    /// A critic-free student: REINFORCE with a leave-one-out baseline
    Rloo(Stage),
    /// A critic-free student: group-relative advantages (`grpo.dr = true`: Dr. GRPO)
    Grpo(Stage),
    /// The baseline tuned on a file of preferences (preferences.path)
    Dpo(Stage),
    /// Several agents with one centralised critic
    Mappo(Stage),
    /// Rounds of contrast between weak teachers and a strong student
    Macpo(Stage),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Every setting, its value, and where the value came from
    Show {
        /// A preset or configuration file
        what: Option<String>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Check configuration files
    Check {
        /// Files or presets
        #[arg(required = true)]
        files: Vec<String>,
    },
    /// Names of the presets
    Presets,
    /// Flags of the original training guide and the settings that they set
    Flags,
}
