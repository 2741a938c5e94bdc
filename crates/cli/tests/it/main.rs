//! The command line as a user meets it: bad input, guide flags, kills.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod bad_input;
mod experiments;
mod flags;
mod kill;
mod score;
mod students;
mod tracking;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory of this test, removed when it ends.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("ecr-it-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

pub(crate) fn ecr(args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_ecr"));
    c.args(args).env_remove("ECR_FAILPOINT");
    c
}

/// Runs to the end; exit code, stdout, stderr.
pub(crate) fn finish(c: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = c.output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
    (status.code().unwrap_or(-1), text(stdout), text(stderr))
}

/// The whole smoke run in `dir`.
pub(crate) fn smoke(dir: &Path, more: &[&str]) -> (i32, String, String) {
    let dir = dir.display().to_string();
    let mut args = vec!["run", "smoke", "--quiet", "--out", &dir];
    args.extend(more);
    finish(&mut ecr(&args))
}

/// Every file of a run that has to be equal: all but the clock's and the lock.
pub(crate) fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(d) = todo.pop() {
        for e in std::fs::read_dir(&d).unwrap() {
            let path = e.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            if path.is_dir() {
                todo.push(path);
            } else if name != "logs/timing.jsonl" && name != ".lock" {
                out.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    out
}

pub(crate) fn assert_same(a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>, what: &str) {
    let names = |m: &BTreeMap<String, Vec<u8>>| m.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(a), names(b), "{what}: files");
    for (name, bytes) in a {
        assert!(bytes == &b[name], "{what}: {name} differs");
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    for (name, bytes) in files(from) {
        let path = to.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}
