//! Repository chores: `cargo xtask ci | tidy | torture | bench`. See CONTRIBUTING.md.
#![allow(
    clippy::disallowed_methods,
    reason = "a chore of the repository, not of a run: no I/O seam below it"
)]

mod args;
mod bench;
mod ci;
mod tidy;
mod torture;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask ci                                    format, clippy, tidy, tests, docs; stops at the first failure
cargo xtask tidy                                  rules of the repository that no other tool checks
cargo xtask torture [--runs 30] [--preset demo] [--seed 1] [--kills A_RUN] [--vary-threads] [--keep]
                                                  kill -9 at random moments, resume, compare to the byte
cargo xtask bench [--peers DIR] [--python PYTHON] [--rounds 3] [--steps 6] [--threads N] [--only WORD]
                  [--compile] [--models DIR] [--tier avx2]  our training step and decoding beside PyTorch and llama.cpp";

/// Directory of the workspace.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map(PathBuf::from).unwrap_or(here)
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let rest: Vec<String> = words.collect();
    let done = match command.as_str() {
        "ci" => ci::run(&root(), &rest),
        "tidy" => tidy::run(&root(), &rest),
        "torture" => torture::run(&root(), &rest),
        "bench" => bench::run(&root(), &rest),
        "" | "help" | "--help" | "-h" => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        other => Err(format!("unknown command `{other}`\n{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
