//! What each command does.

use std::io::Write;
use std::path::{Path, PathBuf};

use ecr_core::{Error, Result, io};
use ecr_run::config::{ALIASES, Layers, Origin, all_presets, preset};
use ecr_run::graph::{self, Plan};
use ecr_run::interrupt::Interrupt;
use ecr_run::log::Voice;
use ecr_run::rundir::RunDir;
use ecr_run::stages;
use serde_json::{Value as Json, json};

use crate::args::{Cli, Command, Config, Data, Run, Settings, Stage, Train};
use crate::guide::Guide;

/// Writes to stdout; a closed pipe is the reader's choice, not an error.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{}", text.trim_end());
}

/// Carries out a command.
pub(crate) fn execute(cli: Cli, guide: &Guide) -> Result<()> {
    match cli.command {
        Command::Run(r) => run(r, guide),
        Command::Data(Data::Prepare(s)) => stage("prepare", s, guide),
        Command::Train(Train::Emotion(s)) => stage("emotion", s, guide),
        Command::Train(Train::Empathy(s)) => stage("empathy", s, guide),
        Command::Train(Train::Critic(s)) => stage("critic", s, guide),
        Command::Train(Train::Sft(s)) => stage("sft", s, guide),
        Command::Train(Train::Ppo(s)) => stage("ppo", s, guide),
        Command::Train(Train::Rloo(s)) => stage("rloo", s, guide),
        Command::Train(Train::Grpo(s)) => stage("grpo", s, guide),
        Command::Train(Train::Dpo(s)) => stage("dpo", s, guide),
        Command::Train(Train::Mappo(s)) => stage("mappo", s, guide),
        Command::Train(Train::Macpo(s)) => stage("macpo", s, guide),
        Command::Eval(s) => stage("eval", s, guide),
        Command::Compare(c) => crate::compare::execute(c, guide),
        Command::Experiment(e) => crate::experiment::execute(e, guide),
        Command::Sweep(s) => crate::sweep::execute(s, guide),
        Command::Reward(r) => crate::reward::execute(r, guide),
        Command::Diagnose(d) => crate::diagnose::execute(&d),
        Command::Score(s) => crate::score::execute(&s),
        Command::Cache(c) => crate::cache::execute(c),
        Command::Config(c) => config(c, guide),
    }
}

/// Lays a preset or a file over what is there.
pub(crate) fn lay(layers: &mut Layers, what: &str) -> Result<()> {
    let path = Path::new(what);
    if path.is_file() {
        return layers.file(path);
    }
    if what.ends_with(".toml") {
        return Err(Error::config(format!("read the configuration {what}"))
            .expected("a file that exists, or the name of a preset")
            .got("no such file")
            .files("nothing was changed")
            .hint("`ecr config presets` lists the presets"));
    }
    layers.toml(preset(what)?, what, |_| Origin::Preset(what.into()))
}

/// All layers of a command line.
pub(crate) fn layers(first: Option<&str>, settings: &Settings, guide: &Guide) -> Result<Layers> {
    let mut l = Layers::new();
    for what in first.into_iter().chain(settings.layers.iter().chain(&settings.preset).map(String::as_str)) {
        lay(&mut l, what)?;
    }
    over(&mut l, settings, guide)?;
    Ok(l)
}

/// `--set` and flags.
pub(crate) fn over(l: &mut Layers, settings: &Settings, guide: &Guide) -> Result<()> {
    settings.set.iter().try_for_each(|s| l.set(s))?;
    for (flag, key, value) in &guide.set {
        l.flag(flag, key, value)?;
    }
    if let Some(text) = &guide.sequence {
        // The guide's trainer counts prompt and response together.
        let response = l.config()?.eval.max_new;
        let prompt = text.parse::<usize>().ok().and_then(|n| n.checked_sub(response)).filter(|&n| n > 0);
        let prompt = prompt.ok_or_else(|| {
            Error::config("read --max_length")
                .expected(format!("tokens of prompt and response, more than eval.max_new = {response}"))
                .got(text.clone())
        })?;
        l.flag("--max_length", "policy.context_max", &prompt.to_string())?;
    }
    if let Some(n) = settings.threads {
        l.flag("--threads", "run.threads", &n.to_string())?;
    }
    if let Some(p) = &settings.precision {
        l.flag("--precision", "run.precision", p)?;
    }
    Ok(())
}

pub(crate) fn plan(settings: &Settings) -> Result<Plan> {
    Ok(Plan {
        force: settings.force,
        dry_run: settings.dry_run,
        allow_other_kernels: settings.allow_other_kernels,
        interrupt: Interrupt::on_signals(again(std::env::args()))?,
        ..Plan::default()
    })
}

/// The command that continues this one: the same, but `--force` would begin afresh.
pub(crate) fn again(args: impl Iterator<Item = String>) -> String {
    let plain =
        |a: &String| !a.is_empty() && a.chars().all(|c| c.is_alphanumeric() || "-_=./:,@+%".contains(c));
    let quoted = |a: String| if plain(&a) { a } else { format!("'{}'", a.replace('\'', r"'\''")) };
    args.filter(|a| a != "--force").map(quoted).collect::<Vec<_>>().join(" ")
}

fn run(r: Run, guide: &Guide) -> Result<()> {
    let layers = layers(Some(&r.what), &r.settings, guide)?;
    let name =
        Path::new(&r.what).file_stem().map_or_else(|| "run".into(), |s| s.to_string_lossy().into_owned());
    let out = r.out.unwrap_or_else(|| PathBuf::from("runs").join(name));
    let plan = Plan {
        from: r.from,
        to: r.to.or_else(|| guide.to.map(String::from)),
        only: r.only,
        ..plan(&r.settings)?
    };
    let voice = Voice { quiet: r.settings.quiet };
    graph::run(&stages::all(), &layers, RunDir::new(&out), &plan, voice)?;
    if !plan.dry_run {
        show(&out, r.settings.json)?;
        voice.say(&format!("everything is in {}", out.display()));
    }
    Ok(())
}

/// Prints the comparison of a run, if it got so far.
fn show(out: &Path, json: bool) -> Result<()> {
    let path = out.join(if json { "comparison.json" } else { "comparison.md" });
    if path.exists() {
        let text = io::read_to_string(&path)?;
        // The page's samples and explanations stay in the file.
        let head = if json { text.as_str() } else { text.split("\n## Samples").next().unwrap_or(&text) };
        print(head);
    }
    Ok(())
}

/// One stage of a run directory.
pub(crate) fn stage(name: &str, s: Stage, guide: &Guide) -> Result<()> {
    let saved = s.out.join(graph::CONFIG_FILE);
    let mut layers = if s.settings.layers.is_empty() && saved.exists() {
        let mut l = Layers::new();
        l.saved(&saved)?;
        s.settings.preset.iter().try_for_each(|p| lay(&mut l, p))?;
        over(&mut l, &s.settings, guide)?;
        l
    } else if s.settings.layers.is_empty() {
        layers(Some("demo"), &s.settings, guide)?
    } else {
        layers(None, &s.settings, guide)?
    };
    let voice = Voice { quiet: s.settings.quiet };
    if let Some(path) = &guide.model {
        evaluate_model(&mut layers, &s.out, path, voice)?;
    }
    // Scorers fill in the records' emotions, if there are records.
    let labels = name == "emotion" && s.out.join("data/processed/manifest.json").exists();
    let only = [name].into_iter().chain(labels.then_some("label")).map(String::from).collect();
    let plan = Plan { only, ..plan(&s.settings)? };
    graph::run(&stages::all(), &layers, RunDir::new(&s.out), &plan, voice)?;
    if plan.dry_run {
        return Ok(());
    }
    if name == "compare" {
        return show(&s.out, s.settings.json);
    }
    let run: Json = serde_json::from_slice(&io::read(&s.out.join("run.json"))?)
        .map_err(|e| Error::data("read run.json").got(e.to_string()))?;
    let summary = &run["stages"][name]["summary"];
    if s.settings.json {
        print(&summary.to_string());
    } else if let Json::Object(rows) = summary {
        let lines: Vec<String> = rows.iter().map(|(k, v)| format!("{k} = {v}")).collect();
        print(&lines.join("\n"));
    }
    Ok(())
}

/// `--model_path` of `ecr eval`: the run's own models are evaluated anyway; another directory takes the place of the
/// baseline if it is called so, else of the student.
fn evaluate_model(layers: &mut Layers, out: &Path, path: &str, voice: Voice) -> Result<()> {
    let given = Path::new(path);
    if !given.is_dir() {
        return Err(Error::config("read --model_path")
            .expected("a directory with a model, such as models/rl_enhanced_ecr of a run")
            .got(path)
            .files("nothing was changed"));
    }
    let dir = RunDir::new(out);
    let real = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.to_path_buf());
    if [dir.baseline(), dir.rl_enhanced()].iter().any(|own| real(own) == real(given)) {
        voice.say(&format!("{path} is a model of this run: both of its models are evaluated"));
        return Ok(());
    }
    let baseline = real(given).file_name() == dir.baseline().file_name();
    let (key, role) =
        if baseline { ("eval.baseline_path", "baseline") } else { ("eval.rl_enhanced_path", "student") };
    voice.say(&format!("{path} is evaluated as the {role} ({key})"));
    layers.flag("--model_path", key, path)
}

fn config(c: Config, guide: &Guide) -> Result<()> {
    match c {
        Config::Presets => print(&all_presets().map(|p| p.0).collect::<Vec<_>>().join("\n")),
        Config::Flags => {
            print(&ALIASES.iter().map(|(f, k)| format!("--{f} = {k}")).collect::<Vec<_>>().join("\n"));
            print(crate::guide::BY_COMMAND);
        }
        Config::Check { files } => {
            for f in files {
                let mut l = Layers::new();
                lay(&mut l, &f)?;
                l.config()?;
                eprintln!("{f}: fine");
            }
        }
        Config::Show { what, settings } => {
            let l = layers(what.as_deref(), &settings, guide)?;
            l.config()?;
            if settings.json {
                let all: serde_json::Map<String, Json> = l
                    .values()
                    .iter()
                    .map(|(k, (v, o))| (k.clone(), json!({"value": v, "origin": o.to_string()})))
                    .collect();
                print(&Json::Object(all).to_string());
            } else {
                let lines: Vec<String> =
                    l.values().iter().map(|(k, (v, o))| format!("{k} = {v}    # {o}")).collect();
                print(&lines.join("\n"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_continues_can_be_pasted_and_does_not_begin_afresh() {
        let args = ["ecr", "run", "demo", "--force", "--out", "my runs/a", "--set", "policy.system=it's"];
        assert_eq!(
            again(args.iter().map(ToString::to_string)),
            r"ecr run demo --out 'my runs/a' --set 'policy.system=it'\''s'"
        );
    }
}
