//! Rules about any text.

use super::Tree;

/// Bytes that a file may have.
const MOST: usize = 1 << 20;
/// Starts of paths that exist on one machine only (written in halves, so that this file keeps its own rule).
const FOREIGN: [&str; 3] = [concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Absolute paths of somebody's machine.
pub(super) fn machine_paths(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    for (name, text) in tree.texts() {
        for (i, line) in text.lines().enumerate() {
            if FOREIGN.iter().any(|p| starts_path(line, p)) {
                let shown: String = line.trim().chars().take(100).collect();
                out.push(format!("{name}:{}: {shown}", i + 1));
            }
        }
    }
    out
}

/// Whether `line` holds `prefix` as the start of a path, not as its middle.
fn starts_path(line: &str, prefix: &str) -> bool {
    let inner = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '~' | '}' | ')' | '*');
    line.match_indices(prefix).any(|(at, _)| !line[..at].ends_with(inner))
}

/// Relative links of the documentation that lead nowhere.
pub(super) fn links(tree: &Tree) -> Vec<String> {
    let page = |n: &str| n.ends_with(".md") && (!n.contains('/') || n.starts_with("docs/"));
    let mut out = Vec::new();
    for (name, text) in tree.named(page) {
        let mut fenced = false;
        for (i, line) in text.lines().enumerate() {
            fenced ^= line.trim_start().starts_with("```");
            for target in targets(line).into_iter().filter(|_| !fenced) {
                let path = target.split(['#', '?']).next().unwrap_or_default();
                if !target.contains("://")
                    && !target.starts_with("mailto:")
                    && !tree.has(&resolve(name, path))
                {
                    out.push(format!("{name}:{}: `{target}` does not exist", i + 1));
                }
            }
        }
    }
    out
}

/// Targets of `[text](target)` in a line, outside code spans.
fn targets(line: &str) -> Vec<&str> {
    let mut out = Vec::new();
    for plain in line.split('`').step_by(2) {
        for (at, _) in plain.match_indices("](") {
            if let Some(end) = plain[at + 2..].find(')') {
                out.push(plain[at + 2..at + 2 + end].split(' ').next().unwrap_or_default());
            }
        }
    }
    // A link whose text is a code span: the span's closing quote stands before `](`.
    out.sort_unstable();
    out.dedup();
    out.retain(|t| !t.is_empty());
    out
}

/// `path` as seen from the directory of `page`, from the root; out of the root is kept as `..`.
fn resolve(page: &str, path: &str) -> String {
    if path.is_empty() {
        return page.to_owned();
    }
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    parts.join("/")
}

/// Configuration files that are not TOML. (That their keys are known is a test of the run crate.)
pub(super) fn configs(tree: &Tree) -> Vec<String> {
    let files = tree.named(|n| n.starts_with("configs/") && n.ends_with(".toml"));
    files.filter_map(|(n, t)| t.parse::<toml::Table>().err().map(|e| format!("{n}: {e}"))).collect()
}

/// Files that are too heavy.
pub(super) fn weight(tree: &Tree) -> Vec<String> {
    tree.0.iter().filter(|(_, b)| b.len() > MOST).map(|(n, b)| format!("{n}: {} bytes", b.len())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_paths_are_found_and_relative_ones_are_not() {
        let bad = format!("see `{}me/data`", FOREIGN[0]);
        let fine = format!("target{0}x ..{0}y $HOME{0} https://x.example{0}", FOREIGN[1]);
        let tree = Tree::of(&[("a.md", &bad), ("b.md", &fine.replace("$HOME", "$A.b"))]);
        assert_eq!(machine_paths(&tree).len(), 1);
    }

    #[test]
    fn dead_links_are_found() {
        let text = "[a](b.md) [c](../README.md#x) [d](https://e.example) [`f`](gone.md)\n```\n[g](no.md)\n```\n`[h](no.md)` [i](#j)\n";
        let tree = Tree::of(&[("docs/a.md", text), ("docs/b.md", ""), ("README.md", "[docs](docs/)")]);
        assert_eq!(links(&tree), ["docs/a.md:1: `gone.md` does not exist"]);
    }

    #[test]
    fn a_broken_configuration_is_found() {
        let tree = Tree::of(&[("configs/a.toml", "[run]\nseed = \n"), ("configs/presets/b.toml", "a = 1\n")]);
        let found = configs(&tree);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("configs/a.toml"));
    }

    #[test]
    fn a_heavy_file_is_found() {
        let heavy = "x".repeat(MOST + 1);
        assert_eq!(weight(&Tree::of(&[("a.bin", &heavy), ("b.bin", &heavy[1..])])).len(), 1);
    }
}
