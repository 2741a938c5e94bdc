//! Flags of the original training guide, taken out of the command line before it is parsed.

use ecr_core::{Error, Result};
use ecr_run::config::alias;

/// Flags whose meaning depends on the command, for `ecr config flags`.
pub(crate) const BY_COMMAND: &str = "\
--learning_rate = critic.learning_rate (train critic)
--num_epochs, --batch_size = sft.epochs, sft.batch_size (train sft)
--max_length = policy.window_max (train sft); policy.context_max + eval.max_new (train ppo)
--train_data, --val_data = critic.train_data, critic.valid_data (train critic, run)
--model_path = policy.path (train sft, run); eval.baseline_path or eval.rl_enhanced_path (eval)
--copy-only, --critic-only = data.critic_rows (data prepare); last stage (run)
--output_dir = the run directory, --out
--debug, --log_all, --use_rl, --use_rl_eval, --use_wandb = track.wandb";

/// What the guide's flags ask for.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Guide {
    /// (flag, key, value) to set.
    pub(crate) set: Vec<(String, String, String)>,
    /// What to tell the user.
    pub(crate) warnings: Vec<String>,
    /// Last stage of `ecr run`, by `--copy-only` or `--critic-only`.
    pub(crate) to: Option<&'static str>,
    /// `--model_path` of `ecr eval`: a model to evaluate.
    pub(crate) model: Option<String>,
    /// `--max_length` of `ecr train ppo`: tokens of prompt and response together.
    pub(crate) sequence: Option<String>,
}

/// Whose settings the flags of a command are about: the stage of a single-stage command, else "run".
fn stage_of(argv: &[String]) -> &str {
    let mut words = argv.iter().skip(1).map(String::as_str).filter(|a| !a.starts_with('-'));
    match (words.next(), words.next()) {
        (Some("train"), Some(stage)) => stage,
        (Some("data"), _) => "prepare",
        (Some(one @ ("eval" | "compare")), _) => one,
        _ => "run",
    }
}

fn misplaced(name: &str, expected: &str, hint: &str) -> Error {
    Error::config(format!("use --{name}"))
        .expected(format!("{name} with {expected}"))
        .got("another command")
        .files("nothing was changed")
        .hint(hint)
}

/// Flags without a value: what they set, and what to say about them.
fn switch(name: &str, stage: &str, guide: &mut Guide) -> Result<bool> {
    let mut set = |key: &str, value: &str| guide.set.push((format!("--{name}"), key.into(), value.into()));
    match name {
        "debug" => {
            // Small data, and traces of prompts, samples and token log-probabilities.
            set("run.debug", "true");
            set("data.demo_train", "120");
            set("data.max_train", "200");
            set("eval.prompts", "40");
        }
        "log_all" => set("run.log_all", "true"),
        // As with the guide's script of preparation: the records alone, or the critic's rows too.
        "copy_only" | "critic_only" if stage == "prepare" => {
            set("data.critic_rows", if name == "copy_only" { "false" } else { "true" });
        }
        "copy_only" if stage == "run" => guide.to = Some("prepare"),
        "critic_only" if stage == "run" => guide.to = Some("critic"),
        "critic_only" if stage == "critic" => {}
        "copy_only" | "critic_only" => {
            return Err(misplaced(
                name,
                "`ecr run` or `ecr data prepare`",
                "this command runs one stage already; leave the flag out",
            ));
        }
        "use_wandb" => set("track.wandb", "true"),
        // The ppo stage is what `--use_rl` asks for, and both models are always evaluated.
        "use_rl" | "use_rl_eval" => {}
        _ => return Ok(false),
    }
    Ok(true)
}

/// What a flag with a value means.
enum Meaning {
    /// Sets a key.
    Key(&'static str),
    /// [`Guide::model`].
    Model,
    /// [`Guide::sequence`].
    Sequence,
    /// The run directory, or one in it.
    Output,
}

/// The meaning of a flag of the guide, which says one name for several things; `None`: not a flag of the guide.
fn meaning(name: &str, stage: &str) -> Result<Option<Meaning>> {
    use Meaning::{Key, Model, Output, Sequence};
    Ok(Some(match (name, stage) {
        ("output_dir", _) => Output,
        ("learning_rate", "critic") => Key("critic.learning_rate"),
        ("num_epochs", "sft") => Key("sft.epochs"),
        ("batch_size", "sft") => Key("sft.batch_size"),
        ("max_length", "sft") => Key("policy.window_max"),
        ("max_length", "ppo") => Sequence,
        ("train_data", "critic" | "run") => Key("critic.train_data"),
        ("val_data", "critic" | "run") => Key("critic.valid_data"),
        ("train_data" | "val_data", _) => {
            return Err(misplaced(
                name,
                "`ecr train critic` or `ecr run`",
                "conversations are read from the directory that data.path names: --set data.path=DIR",
            ));
        }
        ("model_path", "eval") => Model,
        ("model_path", "sft" | "run") => Key("policy.path"),
        ("model_path", _) => {
            return Err(misplaced(
                name,
                "`ecr eval` (a model to evaluate), `ecr train sft` or `ecr run` (the model to begin with)",
                "the student starts from the run's models/baseline_ecr; an encoder is named by --model_name",
            ));
        }
        _ => match alias(name) {
            Some(key) => Key(key),
            None => return Ok(None),
        },
    }))
}

/// The run directory that an output directory of the guide lies in.
fn run_root(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    for tail in [
        "models/baseline_ecr",
        "models/rl_enhanced_ecr",
        "critic_pretrained",
        "evaluation_results/baseline",
        "evaluation_results/rl_enhanced",
        "models/mappo_enhanced",
    ] {
        if let Some(root) = trimmed.strip_suffix(tail) {
            let root = root.trim_end_matches('/');
            return if root.is_empty() { ".".into() } else { root.into() };
        }
    }
    path.into()
}

/// Splits the command line into our own arguments and the guide's.
///
/// # Errors
/// [`ecr_core::Kind::Config`] for a guide flag without its value.
pub(crate) fn split(argv: &[String]) -> Result<(Vec<String>, Guide)> {
    let (mut rest, mut guide) = (Vec::new(), Guide::default());
    let stage = stage_of(argv);
    let mut args = argv.iter().peekable();
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix("--").filter(|f| !f.is_empty()) else {
            rest.push(arg.clone());
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((n, v)) => (n.replace('-', "_"), Some(v.to_string())),
            None => (flag.replace('-', "_"), None),
        };
        if switch(&name, stage, &mut guide)? {
            continue;
        }
        let Some(meaning) = meaning(&name, stage)? else {
            rest.push(arg.clone());
            continue;
        };
        // A flag is no value; a negative number is.
        let next = |a: &&String| !a.starts_with("--");
        let value = match value.or_else(|| args.next_if(next).cloned()) {
            Some(v) => v,
            None => return Err(Error::config(format!("read --{name}")).expected("a value").got("nothing")),
        };
        match meaning {
            Meaning::Key(key) => guide.set.push((format!("--{name}"), key.into(), value)),
            Meaning::Model => guide.model = Some(value),
            Meaning::Sequence => guide.sequence = Some(value),
            Meaning::Output => rest.extend(["--out".to_string(), run_root(&value)]),
        }
    }
    Ok((rest, guide))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> (Vec<String>, Guide) {
        split(&line.split(' ').map(String::from).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn the_guides_commands_are_understood() {
        let (rest, g) = of(
            "ecr train ppo --dataset redial --use_rl --rl_learning_rate 1e-5 --rl-batch-size=8 --rl_max_steps 5000 \
                            --bleu_weight 1.0 --ppo_clip_epsilon 0.2 --output_dir ./x/models/rl_enhanced_ecr --use_wandb --project films",
        );
        assert_eq!(rest, ["ecr", "train", "ppo", "--out", "./x"]);
        let keys: Vec<&str> = g.set.iter().map(|s| s.1.as_str()).collect();
        assert_eq!(
            keys,
            [
                "data.source",
                "ppo.learning_rate",
                "ppo.batch_size",
                "ppo.steps",
                "reward.bleu",
                "ppo.clip_range",
                "track.wandb",
                "track.project"
            ]
        );
        assert!(g.warnings.is_empty());
        let (_, g) = of("ecr train critic --learning_rate 2e-5 --num_epochs 5");
        assert_eq!(g.set[0].1, "critic.learning_rate");
        let (_, g) = of("ecr train sft --learning_rate 2e-5");
        assert_eq!(g.set[0].1, "sft.learning_rate");
        assert_eq!(of("ecr run demo --critic-only").1.to, Some("critic"));
        assert!(split(&["ecr".into(), "--bleu_weight".into()]).is_err());
    }

    #[test]
    fn one_name_means_what_its_command_says() {
        let key = |line: &str| of(line).1.set[0].1.clone();
        assert_eq!(key("ecr train critic --max_length 512"), "critic.max_length");
        assert_eq!(key("ecr train sft --max_length 300"), "policy.window_max");
        assert_eq!(of("ecr train ppo --max_length 300").1.sequence.as_deref(), Some("300"));
        assert_eq!(key("ecr train critic --train_data a.jsonl"), "critic.train_data");
        assert_eq!(key("ecr run demo --val-data=b.jsonl"), "critic.valid_data");
        assert_eq!(of("ecr eval --model_path x").1.model.as_deref(), Some("x"));
        assert_eq!(key("ecr train sft --model_path x"), "policy.path");
        assert_eq!(key("ecr data prepare --copy-only"), "data.critic_rows");
        assert!(of("ecr train critic --critic-only").1.set.is_empty());
        for bad in ["train ppo --copy-only", "train sft --train_data x", "train critic --model_path x"] {
            let argv: Vec<String> = format!("ecr {bad}").split(' ').map(String::from).collect();
            assert_eq!(split(&argv).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
