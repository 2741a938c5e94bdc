//! `ecr cache`: the file in which expensive scores are kept.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ecr_core::{Error, Kind, Result};
use ecr_run::cache::Cache as Store;
use serde_json::json;

use crate::commands::print;

#[derive(Debug, Subcommand)]
pub(crate) enum Cache {
    /// Entries and bytes, by version of the scorer
    Stats(File),
    /// Drop entries, and give back their space
    Prune {
        #[command(flatten)]
        file: File,
        /// Only versions whose text contains this, e.g. empathy or a model's hash
        #[arg(long, value_name = "TEXT", default_value = "")]
        version: String,
        /// Only versions that nothing was written to for so many days
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        unused: u64,
    },
    /// Check every entry; exit 1 if one is damaged
    Verify(File),
}

#[derive(Debug, Args)]
pub(crate) struct File {
    /// The cache: what reward.cache names
    pub(crate) file: PathBuf,
    /// Machine-readable output on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// Carries out a command.
pub(crate) fn execute(c: Cache) -> Result<()> {
    match c {
        Cache::Stats(f) => {
            let s = Store::new(&f.file).stats()?;
            if f.json {
                print(&json!(s).to_string());
                return Ok(());
            }
            print(&format!("{} entries, {} bytes", s.entries, s.bytes));
            for (version, (entries, days)) in &s.versions {
                print(&format!("{entries:8}  last written {days} days ago  {version}"));
            }
            Ok(())
        }
        Cache::Prune { file, version, unused } => {
            let gone = Store::new(&file.file).prune(&version, unused)?;
            print(&if file.json {
                json!({"dropped": gone}).to_string()
            } else {
                format!("{gone} entries dropped")
            });
            Ok(())
        }
        Cache::Verify(f) => {
            let (entries, damaged) = Store::new(&f.file).verify()?;
            let line = format!("{entries} entries, {damaged} damaged");
            print(&if f.json {
                json!({"entries": entries, "damaged": damaged}).to_string()
            } else {
                line.clone()
            });
            if damaged == 0 {
                return Ok(());
            }
            Err(Error::new(Kind::Check, format!("verify the reward cache {}", f.file.display()))
                .expected("no damaged entry")
                .got(line)
                .files("damaged entries are never used; `ecr cache prune` drops them"))
        }
    }
}
