//! Flags of the original training guide, taken out of the command line before it is parsed.

use ecr_core::{Error, Result};
use ecr_run::config::alias;

/// What the guide's flags ask for.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Guide {
    /// (flag, key, value) to set.
    pub(crate) set: Vec<(String, String, String)>,
    /// What to tell the user.
    pub(crate) warnings: Vec<String>,
    /// Last stage, by `--copy-only` or `--critic-only`.
    pub(crate) to: Option<&'static str>,
}

/// Flags without a value: what they set, and what to say about them.
fn switch(name: &str, guide: &mut Guide) -> bool {
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
        "copy_only" => guide.to = Some("prepare"),
        "critic_only" => guide.to = Some("critic"),
        "use_wandb" => set("track.wandb", "true"),
        // The ppo stage is what `--use_rl` asks for, and both models are always evaluated.
        "use_rl" | "use_rl_eval" => {}
        _ => return false,
    }
    true
}

/// Flags with a value that have no place here.
fn unused(name: &str) -> Option<&'static str> {
    Some(match name {
        "train_data" | "val_data" => "the critic learns from the rows that `ecr data prepare` writes",
        "model_path" => "both models of the run directory are evaluated",
        _ => return None,
    })
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
    let command: Vec<&str> =
        argv.iter().skip(1).map(String::as_str).filter(|a| !a.starts_with('-')).collect();
    let critic = command.first() == Some(&"train") && command.get(1) == Some(&"critic");
    let sft = command.first() == Some(&"train") && command.get(1) == Some(&"sft");
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
        if switch(&name, &mut guide) {
            continue;
        }
        let key = match name.as_str() {
            // The guide says --learning_rate for the critic and for the baseline.
            "learning_rate" if critic => Some("critic.learning_rate"),
            "num_epochs" | "batch_size" if sft => {
                Some(if name == "num_epochs" { "sft.epochs" } else { "sft.batch_size" })
            }
            _ => alias(&name),
        };
        let reason = unused(&name);
        if key.is_none() && reason.is_none() && name != "output_dir" {
            rest.push(arg.clone());
            continue;
        }
        // A flag is no value; a negative number is.
        let next = |a: &&String| !a.starts_with("--");
        let value = match value.or_else(|| args.next_if(next).cloned()) {
            Some(v) => v,
            None => return Err(Error::config(format!("read --{name}")).expected("a value").got("nothing")),
        };
        match (key, reason) {
            (Some(key), _) => guide.set.push((format!("--{name}"), key.into(), value)),
            (None, Some(reason)) => guide.warnings.push(format!("--{name} {value} is not used: {reason}")),
            (None, None) => rest.extend(["--out".to_string(), run_root(&value)]),
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
}
