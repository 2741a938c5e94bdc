//! The `ecr` command: glue between arguments and the run crate. stdout is data, stderr is everything else.

mod args;
mod cache;
mod commands;
mod compare;
mod diagnose;
mod experiment;
mod guide;
mod reward;
mod score;
mod sweep;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect();
    let result = guide::split(&argv).and_then(|(argv, guide)| {
        // clap prints its own usage errors and leaves with code 2.
        let cli = args::Cli::parse_from(argv);
        guide.warnings.iter().for_each(|w| eprintln!("warning: {w}"));
        commands::execute(cli, &guide)
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // An interruption is the user's choice, not an error.
            eprintln!("{}{e}", if e.kind == ecr_core::Kind::Interrupted { "" } else { "error: " });
            ExitCode::from(e.exit_code())
        }
    }
}
