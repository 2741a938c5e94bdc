//! The whole check, in the order in which a mistake is cheapest to find.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::args::Args;
use crate::tidy;

/// A step: its name, arguments of cargo (none: this process does it), an environment variable.
type Step = (&'static str, &'static [&'static str], Option<(&'static str, &'static str)>);

const STEPS: &[Step] = &[
    ("fmt", &["fmt", "--all", "--check"], None),
    (
        "clippy",
        &["clippy", "--workspace", "--all-targets", "--release", "--locked", "--", "-D", "warnings"],
        None,
    ),
    ("tidy", &[], None),
    ("test", &["test", "--workspace", "--release", "--locked"], None),
    (
        "doc",
        &["doc", "--workspace", "--no-deps", "--release", "--locked"],
        Some(("RUSTDOCFLAGS", "-D warnings")),
    ),
];

/// Runs every step; the first failure ends it with the command to rerun.
pub(crate) fn run(root: &Path, words: &[String]) -> Result<(), String> {
    Args::parse(words, &[], &[])?;
    let start = Instant::now();
    let mut times = Vec::new();
    for (i, (name, args, env)) in STEPS.iter().enumerate() {
        let mut again = format!("cargo {}", args.join(" "));
        if let Some((key, value)) = env {
            again = format!("{key}=\"{value}\" {again}");
        }
        if args.is_empty() {
            again = format!("cargo xtask {name}");
        }
        println!("[{}/{}] {again}", i + 1, STEPS.len());
        let t = Instant::now();
        let passed = if args.is_empty() {
            tidy::run(root, &[]).map_err(|e| eprintln!("{e}")).is_ok()
        } else {
            let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
            command.current_dir(root).args(*args).envs(env.iter().copied());
            command.status().map_err(|e| format!("start `{again}`: {e}"))?.success()
        };
        let seconds = t.elapsed().as_secs_f64();
        if !passed {
            return Err(format!("ci: `{name}` failed after {seconds:.1} s; rerun it with: {again}"));
        }
        println!("[{}/{}] {name}: passed in {seconds:.1} s", i + 1, STEPS.len());
        times.push(format!("{name} {seconds:.0} s"));
    }
    let all = start.elapsed().as_secs_f64();
    println!("ci: all {} steps passed in {all:.0} s ({})", STEPS.len(), times.join(", "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::STEPS;

    #[test]
    fn every_compiling_step_uses_the_one_profile_and_the_lock_file() {
        for (name, args, _) in STEPS.iter().filter(|(n, a, _)| *n != "fmt" && !a.is_empty()) {
            assert!(args.contains(&"--release") && args.contains(&"--locked"), "{name}");
        }
    }
}
