//! Rules of the repository that no other tool checks. A rule is a function from the tree to complaints.

mod crates;
mod docs;
mod scan;
mod source;
mod text;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::args::Args;

/// Every file that is, or is about to be, under version control: path from the root with `/` → contents.
#[derive(Default)]
pub(crate) struct Tree(BTreeMap<String, Vec<u8>>);

impl Tree {
    /// Reads the checkout at `root`; new files count unless ignored, deleted ones do not.
    fn load(root: &Path) -> Result<Self, String> {
        let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let out = Command::new("git").current_dir(root).args(list).output();
        let out = out.map_err(|e| format!("list files: start git: {e}"))?;
        if !out.status.success() {
            let why = String::from_utf8_lossy(&out.stderr).into_owned();
            return Err(format!("list files: {}\nhint: tidy needs a git checkout", why.trim()));
        }
        let mut tree = Self::default();
        for name in out.stdout.split(|b| *b == 0).filter(|n| !n.is_empty()) {
            let name = String::from_utf8_lossy(name).into_owned();
            let path = root.join(&name);
            if path.is_file() {
                let bytes = std::fs::read(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
                tree.0.insert(name, bytes);
            }
        }
        Ok(tree)
    }

    /// A tree for tests.
    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(n, t)| ((*n).to_owned(), t.as_bytes().to_vec())).collect())
    }

    /// Files that hold text, with it.
    fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(n, b)| Some((n.as_str(), std::str::from_utf8(b).ok()?)))
    }

    /// Text files whose name `keep` accepts.
    fn named(&self, keep: impl Fn(&str) -> bool) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(move |(n, _)| keep(n))
    }

    /// Whether `path` is a file, or a directory with files.
    fn has(&self, path: &str) -> bool {
        let inside = format!("{}/", path.trim_end_matches('/'));
        path.is_empty() || self.0.contains_key(path) || self.0.keys().any(|n| n.starts_with(&inside))
    }
}

/// A rule: what it demands, and the function that lists offences.
type Rule = (&'static str, fn(&Tree) -> Vec<String>);

const RULES: &[Rule] = &[
    ("a crate depends on lower ones only (ARCHITECTURE.md)", crates::layers),
    ("Cargo.lock holds at most 220 crates", crates::lock),
    ("a source file has at most 800 lines, tests excluded", source::size),
    ("`unsafe` is found in crates/kernels alone", source::unsafe_code),
    ("no unwrap, expect, todo or unimplemented outside tests", source::unwraps),
    ("no path of somebody's machine", text::machine_paths),
    ("pages name every flag, preset, section and metric that they document", docs::named),
    ("links of the documentation lead somewhere", text::links),
    ("configuration files parse", text::configs),
    ("a file has at most 1 MiB", text::weight),
];

/// Checks every rule and prints long files as a warning.
pub(crate) fn run(root: &Path, words: &[String]) -> Result<(), String> {
    Args::parse(words, &[], &[])?;
    let tree = Tree::load(root)?;
    let mut offences = 0;
    for (demand, rule) in RULES {
        let found = rule(&tree);
        if !found.is_empty() {
            offences += found.len();
            eprintln!("tidy: {demand}");
            found.iter().for_each(|f| eprintln!("  {f}"));
        }
    }
    for (name, lines) in source::long(&tree) {
        println!("tidy: note: {name} has {lines} lines, over {} is long", source::LONG);
    }
    if offences > 0 {
        return Err(format!("tidy: {offences} offences against {} rules", RULES.len()));
    }
    println!("tidy: {} files keep all {} rules", tree.0.len(), RULES.len());
    Ok(())
}
