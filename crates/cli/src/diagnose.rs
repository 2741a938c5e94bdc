//! `ecr diagnose`: what a run's metrics say about it.

use std::path::PathBuf;

use clap::Args;
use ecr_core::{Error, Result, io};
use ecr_run::diagnose::{FEWEST, diagnose, frontier};
use ecr_run::rundir::RunDir;
use serde_json::{Map, Value as Json, json};

use crate::commands::print;

/// Findings from the metrics of a run, each with a preset that may help.
#[derive(Debug, Args)]
pub(crate) struct Diagnose {
    /// Run directory
    run: PathBuf,
    /// Machine-readable output on stdout
    #[arg(long)]
    json: bool,
}

/// Algorithms whose logs are looked at.
const ALGORITHMS: [&str; 3] = ["ppo", "rloo", "grpo"];

pub(crate) fn execute(d: &Diagnose) -> Result<()> {
    let dir = RunDir::new(&d.run);
    let mut all = Map::new();
    for name in ALGORITHMS {
        let path = dir.log(&format!("{name}.metrics.jsonl"));
        if !path.exists() {
            continue;
        }
        let mut records: Vec<Map<String, Json>> = Vec::new();
        for (i, line) in io::read_to_string(&path)?.lines().enumerate() {
            records.push(
                serde_json::from_str(line).map_err(|e| {
                    Error::data(format!("read {}:{}", path.display(), i + 1)).got(e.to_string())
                })?,
            );
        }
        all.insert(
            name.into(),
            json!({
                "updates": records.len(), "findings": diagnose(&records), "frontier": frontier(&records)
            }),
        );
    }
    if all.is_empty() {
        return Err(Error::data(format!("diagnose {}", d.run.display()))
            .expected("logs/ppo.metrics.jsonl, logs/rloo.metrics.jsonl or logs/grpo.metrics.jsonl")
            .got("none of them")
            .hint("give the directory of a run that has begun to align a student"));
    }
    if d.json {
        print(&Json::Object(all).to_string());
        return Ok(());
    }
    let mut text = String::new();
    for (name, report) in &all {
        let updates = report["updates"].as_u64().unwrap_or(0);
        text += &format!("{name}: {updates} updates\n");
        let findings = report["findings"].as_array().map_or(&[][..], Vec::as_slice);
        if updates < FEWEST as u64 {
            text += &format!("  too few to say anything (at least {FEWEST})\n");
        } else if findings.is_empty() {
            text += "  nothing found\n";
        }
        for f in findings {
            let of = |key: &str| f[key].as_str().unwrap_or_default().to_owned();
            text += &format!(
                "  {} {}\n     {}\n     try --preset {}\n",
                of("code"),
                of("finding"),
                of("evidence"),
                of("preset")
            );
        }
        let points = report["frontier"].as_array().map_or(&[][..], Vec::as_slice);
        if !points.is_empty() {
            text +=
                "  looks at validation (* on the reward-KL frontier)\n  update      KL  reward  distinct-2\n";
        }
        for p in points {
            let of = |key: &str| p[key].as_f64().unwrap_or(f64::NAN);
            let mark = if p["on_frontier"] == true { "*" } else { "" };
            text += &format!(
                "  {:>6}  {:>6.2}  {:>6.2}  {:>10.3} {mark}\n",
                p["update"],
                of("kl"),
                of("reward"),
                of("distinct_2")
            );
        }
    }
    print(&text);
    Ok(())
}
