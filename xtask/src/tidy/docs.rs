//! Rules that hold documentation to the code it describes.

use super::Tree;

const PAGE: &str = "docs/configuration.md";
const ALIASES: &str = "crates/run/src/config/aliases.rs";
const PRESETS: &str = "crates/run/src/config/presets.rs";
const CONFIG: &str = "crates/run/src/config/mod.rs";
const PPO: &str = "crates/algos/src/ppo.rs";
const PPO_PAGE: &str = "docs/algorithms/ppo.md";

/// Flags, presets and sections of the configuration, and metrics of PPO, that their pages do not name.
pub(super) fn named(tree: &Tree) -> Vec<String> {
    let text = |name: &str| tree.named(|n| n == name).next().map_or("", |(_, t)| t);
    let mut wanted: Vec<(&str, String)> = Vec::new();
    for [flag, key] in pairs(text(ALIASES)) {
        // A row may stand for several flags; every flag and the section of its key are there.
        wanted.push((PAGE, format!("--{flag}`")));
        wanted.push((PAGE, format!("`{}.", key.split('.').next().unwrap_or_default())));
    }
    for name in first_texts(text(PRESETS), "include_str!") {
        wanted.push((PAGE, format!("`{name}`")));
    }
    let fields = text(CONFIG).split("pub struct Config {").nth(1).unwrap_or_default();
    let fields = fields.split('}').next().unwrap_or_default();
    for line in fields.lines().filter_map(|l| l.trim().strip_prefix("pub ")) {
        wanted.push((PAGE, format!("`{}`", line.split(':').next().unwrap_or_default())));
    }
    for name in metrics(text(PPO)) {
        wanted.push((PPO_PAGE, name.rsplit('/').next().unwrap_or_default().to_owned()));
    }
    wanted.retain(|(page, word)| !text(page).contains(word.as_str()));
    wanted.dedup();
    wanted
        .into_iter()
        .map(|(page, word)| format!("{page}: does not name {}", word.trim_matches('`')))
        .collect()
}

/// Every `("a", "b")` on a line of its own.
fn pairs(text: &str) -> Vec<[&str; 2]> {
    let inner = text.lines().filter_map(|l| l.trim().strip_prefix("(\"")?.strip_suffix("\"),"));
    inner.filter_map(|l| l.split_once("\", \"").map(|(a, b)| [a, b])).collect()
}

/// The first text of every `("a", …` line that holds `mark`.
fn first_texts<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
    let lines = text.lines().filter(|l| l.contains(mark));
    lines.filter_map(|l| l.trim().strip_prefix("(\"")?.split('"').next()).collect()
}

/// Names of the metrics that an update of PPO reports.
fn metrics(text: &str) -> Vec<&str> {
    let list = text.split("for (name, number) in [").nth(1).unwrap_or_default();
    let list = list.split("] {").next().unwrap_or_default();
    list.lines().filter_map(|l| l.trim().strip_prefix("(\"")?.split('"').next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_pages_leave_out_is_found() {
        let tree = Tree::of(&[
            (ALIASES, "    (\"rl_steps\", \"ppo.steps\"),\n    (\"gone\", \"sft.epochs\"),\n"),
            (PRESETS, "    (\"smoke\", include_str!(\"x\")),\n    (\"new\", include_str!(\"y\")),\n"),
            (CONFIG, "pub struct Config {\n    /// d\n    pub run: Run,\n    pub extra: Extra,\n}\n"),
            (PPO, "for (name, number) in [\n    (\"objective/kl\", kl),\n    (\"a/zeta\", 1.0),\n] {"),
            (PAGE, "`--rl_steps` `ppo.steps` `sft.x` `smoke` `run`"),
            (PPO_PAGE, "objective/kl"),
        ]);
        let found = named(&tree);
        let missing: Vec<&str> = found.iter().filter_map(|f| f.rsplit(' ').next()).collect();
        assert_eq!(missing, ["--gone", "new", "extra", "zeta"]);
    }
}
