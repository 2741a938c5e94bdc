//! Our training step and decoding beside PyTorch and llama.cpp: the same work in turn, medians over rounds, and
//! ratios to the fastest eager PyTorch setting of this CPU.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::args::Args;

/// A measured setting: which work, whose program, at what precision.
struct Setting {
    work: &'static str,
    who: &'static str,
    precision: &'static str,
    words: Vec<String>,
    speeds: Vec<f64>,
    megabytes: Vec<f64>,
}

const OURS: &str = "ecr";
const TORCH: &str = "torch";
const COMPILED: &str = "torch.compile";
const LLAMA_CPP: &str = "llama.cpp";

/// (work, arguments that our bench and torch_lm.py share).
const WORK: [(&str, &str); 4] = [
    ("train lora B2 T128", "train --mode lora --batch 2 --tokens 128"),
    ("train full B2 T128", "train --mode full --batch 2 --tokens 128"),
    ("decode B8", "decode --batch 8 --prompt 32 --new 64"),
    ("decode B1", "decode --batch 1 --prompt 32 --new 64"),
];

/// Measures and prints a table, then one JSON line a setting.
pub(crate) fn run(root: &Path, words: &[String]) -> Result<(), String> {
    let valued = ["--peers", "--python", "--rounds", "--steps", "--threads", "--only", "--models", "--tier"];
    let args = Args::parse(words, &valued, &["--compile"])?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (rounds, threads): (usize, usize) = (args.number("--rounds", 3)?, args.number("--threads", cores)?);
    let steps: usize = args.number("--steps", 6)?;
    let peers = args.text("--peers").map_or_else(|| root.join("../shared/tools/peers"), PathBuf::from);
    let python = args.text("--python").unwrap_or("python3");
    if rounds == 0 || steps == 0 || threads == 0 {
        return Err("bench: --rounds, --steps and --threads are at least 1".into());
    }
    if rounds < 3 {
        println!("bench: fewer than 3 rounds; good for a try, not for a figure");
    }

    let tier = args.text("--tier").unwrap_or("");
    if !["", "avx2"].contains(&tier) {
        return Err("bench: --tier is avx2: the only one that PyTorch can be held to as well".into());
    }
    let mut settings = ours(steps);
    let torch = peers.join("torch_lm.py");
    match absent(&torch, python, "torch") {
        Some(why) => println!("bench: skipped: PyTorch ({why}); no ratios"),
        None => settings.extend(torch_settings(&torch, steps, threads, args.has("--compile"))),
    }
    let llama = peers.join("llama_cpp_decode.py");
    let model = gguf(&models(&args));
    match (absent(&llama, python, "llama_cpp"), &model) {
        (Some(why), _) => println!("bench: skipped: llama.cpp ({why})"),
        (None, None) => println!("bench: skipped: llama.cpp (no GGUF file in {})", models(&args).display()),
        (None, Some(model)) => settings.extend(llama_cpp(&llama, model, threads)),
    }
    // What is compared runs side by side, so that both meet the same state of the machine.
    settings.sort_by_key(|s| WORK.iter().position(|(work, _)| *work == s.work));
    if let Some(word) = args.text("--only") {
        settings.retain(|s| s.work.contains(word));
    }

    let load = load();
    if load > 0.5 {
        println!(
            "bench: the machine is busy (load {load:.1} before the first round): figures are not fit to be reported"
        );
    }
    for round in 1..=rounds {
        for s in &mut settings {
            let line = s.measure(root, python, threads, tier)?;
            eprintln!("bench: round {round}/{rounds}: {} {} {}: {line}", s.work, s.who, s.precision);
        }
    }
    println!(
        "CPU: {}{}, {threads} threads, {rounds} rounds of {steps} steps, medians, load before {load:.1}",
        cpu(),
        if tier.is_empty() { String::new() } else { format!(" held to {tier}") }
    );
    print!("{}", table(&settings));
    settings
        .iter()
        .for_each(|s| println!("{}", s.json(best_torch(&settings, s.work), threads, rounds, load)));
    Ok(())
}

fn setting(work: &'static str, who: &'static str, precision: &'static str, words: Vec<String>) -> Setting {
    Setting { work, who, precision, words, speeds: vec![], megabytes: vec![] }
}

fn split(line: &str) -> Vec<String> {
    line.split(' ').map(String::from).collect()
}

fn ours(steps: usize) -> Vec<Setting> {
    let mut out = Vec::new();
    for (work, line) in WORK {
        for (name, flags) in [("f32", "--precision f32"), ("bf16", "--precision bf16")] {
            out.push(setting(work, OURS, name, split(&format!("{line} {flags} --steps {steps}"))));
        }
        if work.starts_with("decode") {
            let flags = "--precision f32 --store bf16";
            out.push(setting(
                work,
                OURS,
                "f32, weights bf16",
                split(&format!("{line} {flags} --steps {steps}")),
            ));
        }
    }
    out
}

fn torch_settings(script: &Path, steps: usize, threads: usize, compile: bool) -> Vec<Setting> {
    let mut out = Vec::new();
    for (work, line) in WORK {
        for precision in ["f32", "bf16"] {
            let mut words = vec![script.display().to_string()];
            words.extend(split(&format!(
                "{line} --precision {precision} --steps {steps} --threads {threads}"
            )));
            out.push(setting(work, TORCH, precision, words.clone()));
            if compile && work.starts_with("train") {
                words.push("--compile".into());
                out.push(setting(work, COMPILED, precision, words));
            }
        }
    }
    out
}

fn llama_cpp(script: &Path, model: &Path, threads: usize) -> Vec<Setting> {
    let one = |work, batch| {
        let mut words = vec![script.display().to_string(), model.display().to_string()];
        words.extend(split(&format!("--batch {batch} --prompt 32 --new 64 --threads {threads}")));
        setting(work, LLAMA_CPP, "of the file", words)
    };
    vec![one("decode B8", 8), one("decode B1", 1)]
}

/// Why a peer cannot be run, if so.
fn absent(script: &Path, python: &str, module: &str) -> Option<String> {
    if !script.exists() {
        return Some(format!("{} does not exist; see --peers", script.display()));
    }
    let found = Command::new(python).args(["-c", &format!("import {module}")]).output();
    match found {
        Err(e) => Some(format!("{python}: {e}; see --python")),
        Ok(out) if !out.status.success() => Some(format!("{python} cannot import {module}; see --python")),
        Ok(_) => None,
    }
}

fn models(args: &Args) -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/ecr/models");
    let given = args.text("--models").map(PathBuf::from);
    given.or_else(|| std::env::var_os("ECR_MODELS").map(PathBuf::from)).unwrap_or_else(home)
}

/// The first GGUF file of `dir` or of a directory in it, by name.
fn gguf(dir: &Path) -> Option<PathBuf> {
    let list = |d: &Path| -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> =
            std::fs::read_dir(d).into_iter().flatten().flatten().map(|e| e.path()).collect();
        all.sort();
        all
    };
    let inner = list(dir).into_iter().flat_map(|p| if p.is_dir() { list(&p) } else { vec![p] });
    inner.into_iter().find(|p| p.extension().is_some_and(|e| e == "gguf"))
}

impl Setting {
    /// Runs the program once and keeps its figures; returns them for display.
    ///
    /// With a tier both are held to it: ours by its flag, PyTorch (its own kernels and oneDNN's) by its environment.
    fn measure(&mut self, root: &Path, python: &str, threads: usize, tier: &str) -> Result<String, String> {
        let mut command = if self.who == OURS {
            let mut c = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
            c.args(["bench", "--quiet", "--locked", "-p", "ecr-models", "--bench", "lm", "--"]);
            c
        } else {
            Command::new(python)
        };
        command.current_dir(root).args(&self.words).env("RAYON_NUM_THREADS", threads.to_string());
        if tier == "avx2" {
            match self.who {
                OURS => command.args(["--tier", tier]),
                _ => command.env("ATEN_CPU_CAPABILITY", "avx2").env("ONEDNN_MAX_CPU_ISA", "AVX2"),
            };
        }
        let out = command.output().map_err(|e| format!("bench: start {}: {e}", self.who))?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let line = figures(&text).filter(|_| out.status.success()).ok_or_else(|| {
            let why = String::from_utf8_lossy(&out.stderr).into_owned();
            format!(
                "bench: {} {} gave no figure ({}): {}",
                self.who,
                self.words.join(" "),
                out.status,
                why.trim()
            )
        })?;
        self.speeds.push(line.0);
        self.megabytes.extend(line.1);
        Ok(format!("{:.1} tokens/s", line.0))
    }

    fn speed(&self) -> f64 {
        median(&self.speeds)
    }

    fn json(&self, torch: Option<&Setting>, threads: usize, rounds: usize, load: f64) -> String {
        let mut o = serde_json::json!({
            "bench": "xtask", "work": self.work, "who": self.who, "precision": self.precision, "cpu": cpu(),
            "threads": threads, "rounds": rounds, "load_before": load, "tok_s": self.speed(), "all_tok_s": self.speeds,
        });
        if !self.megabytes.is_empty() {
            o["peak_rss_mb"] = median(&self.megabytes).into();
        }
        if let Some(t) = torch {
            o["ratio_to_fastest_eager_torch"] = (self.speed() / t.speed()).into();
        }
        o.to_string()
    }
}

/// Speed and peak memory in the first JSON line that has a speed.
fn figures(text: &str) -> Option<(f64, Option<f64>)> {
    text.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok()).find_map(|o| {
        let speed = o.get("tok_s")?.as_f64().filter(|s| *s > 0.0)?;
        Some((speed, o.get("peak_rss_mb").and_then(|m| m.as_f64())))
    })
}

/// The fastest eager PyTorch setting of a work.
fn best_torch<'a>(settings: &'a [Setting], work: &str) -> Option<&'a Setting> {
    let eager = settings.iter().filter(|s| s.who == TORCH && s.work == work && !s.speeds.is_empty());
    eager.max_by(|a, b| a.speed().total_cmp(&b.speed()))
}

fn median(x: &[f64]) -> f64 {
    let mut x = x.to_vec();
    x.sort_by(f64::total_cmp);
    let (low, high) = (x.get(x.len().saturating_sub(1) / 2), x.get(x.len() / 2));
    low.zip(high).map_or(f64::NAN, |(a, b)| (a + b) / 2.0)
}

/// Processes that wanted to run in the last minute, on average: what others do to the figures.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|x| x.parse().ok()).unwrap_or(0.0)
}

fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or("unknown");
    line.trim_start_matches([' ', '\t', ':']).to_owned()
}

/// `x` is the ratio of speeds (more is better), `mem` that of peak memory (less is better), both to the fastest
/// eager PyTorch setting of the same work.
fn table(settings: &[Setting]) -> String {
    let mut out = format!(
        "{:<20} {:<14} {:<18} {:>10} {:>7} {:>9} {:>7}\n",
        "work", "program", "precision", "tokens/s", "x", "peak MB", "mem"
    );
    for s in settings {
        let torch = best_torch(settings, s.work);
        let ratio = torch.map_or("-".into(), |t| format!("{:.2}", s.speed() / t.speed()));
        let (mb, mem) = match (s.megabytes.is_empty(), torch.filter(|t| !t.megabytes.is_empty())) {
            (true, _) => ("-".into(), "-".into()),
            (false, None) => (format!("{:.0}", median(&s.megabytes)), "-".into()),
            (false, Some(t)) => {
                let mb = median(&s.megabytes);
                (format!("{mb:.0}"), format!("{:.2}", mb / median(&t.megabytes)))
            }
        };
        out += &format!(
            "{:<20} {:<14} {:<18} {:>10.1} {ratio:>7} {mb:>9} {mem:>7}\n",
            s.work,
            s.who,
            s.precision,
            s.speed()
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(
        work: &'static str,
        who: &'static str,
        precision: &'static str,
        speeds: &[f64],
        mb: f64,
    ) -> Setting {
        Setting { work, who, precision, words: vec![], speeds: speeds.to_vec(), megabytes: vec![mb] }
    }

    #[test]
    fn ratios_are_to_the_fastest_eager_setting_of_the_same_work() {
        let all = [
            measured("a", OURS, "f32", &[90.0, 300.0, 310.0], 50.0),
            measured("a", TORCH, "f32", &[100.0, 90.0, 500.0], 100.0),
            measured("a", TORCH, "bf16", &[150.0], 200.0),
            measured("a", COMPILED, "bf16", &[900.0], 200.0),
            measured("b", TORCH, "f32", &[700.0], 100.0),
        ];
        let best = best_torch(&all, "a").unwrap();
        assert_eq!((best.precision, best.speed()), ("bf16", 150.0));
        let first = table(&all).lines().nth(1).unwrap().to_owned();
        assert!(first.contains("2.00") && first.ends_with("0.25"), "{first}");
        assert!(all[0].json(Some(best), 2, 3, 0.0).contains("\"ratio_to_fastest_eager_torch\":2.0"));
        assert!(best_torch(&all, "c").is_none());
    }

    #[test]
    fn figures_are_found_among_other_lines() {
        assert_eq!(figures("note\n{\"x\":1}\n{\"tok_s\":2.5,\"peak_rss_mb\":3}\n"), Some((2.5, Some(3.0))));
        assert_eq!(figures("{\"tok_s\":0}"), None);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
