//! The rows of the three parts: prepared ones, or files that the configuration names.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ecr_core::{Error, Result};
use ecr_data::critic_rows::CriticRow;
use ecr_data::records::read_jsonl;

use crate::config::Config;
use crate::graph::Context;
use crate::rundir::RunDir;

/// The files of train, valid and test.
pub fn files(c: &Config, dir: &RunDir) -> [PathBuf; 3] {
    let given =
        [("train", c.critic.train_data.as_str()), ("valid", c.critic.valid_data.as_str()), ("test", "")];
    given.map(|(part, given)| {
        let name = format!("critic_{part}.jsonl");
        match Path::new(given) {
            _ if given.is_empty() => dir.data().join(name),
            path if path.is_dir() => path.join(name),
            path => path.to_path_buf(),
        }
    })
}

/// Rows of train, valid and test. Where files are given, training rows of a conversation that is validated or tested
/// on are left out, counted and said; prepared parts share none.
///
/// # Errors
/// [`ecr_core::Kind::Data`] for a file that is missing or damaged.
pub fn read(cx: &mut Context) -> Result<[Vec<CriticRow>; 3]> {
    let c = cx.config.critic.clone();
    let [train, valid, test] = files(&cx.config, &cx.dir);
    let (mut rows, valid) = (part(&train)?, part(&valid)?);
    // With rows of one's own the run needs none of its own to test on.
    let test = if !c.train_data.is_empty() && !test.exists() { Vec::new() } else { part(&test)? };
    if !c.train_data.is_empty() || !c.valid_data.is_empty() {
        let held: BTreeSet<&str> = valid.iter().chain(&test).map(|r| r.conv_id.as_str()).collect();
        let before = rows.len();
        rows.retain(|r| !held.contains(r.conv_id.as_str()));
        let dropped = before - rows.len();
        cx.note("rows_dropped", dropped);
        if dropped > 0 {
            cx.voice.warn(&format!("{dropped} training rows of conversations held out are not used"));
        }
    }
    Ok([rows, valid, test])
}

fn part(path: &Path) -> Result<Vec<CriticRow>> {
    if !path.exists() {
        return Err(Error::data(format!("read the critic's rows in {}", path.display()))
            .got("no such file")
            .files("nothing was changed")
            .hint("`ecr data prepare --critic-only` writes the run's own; --train_data and --val_data name others"));
    }
    read_jsonl(path)
}
