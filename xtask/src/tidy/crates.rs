//! Rules about crates: their order, and how many there are.

use super::Tree;

/// The workspace's crates, lowest first. A crate may depend on earlier ones only.
const ORDER: [&str; 11] =
    ["core", "kernels", "data", "models", "rewards", "judge", "algos", "eval", "track", "run", "cli"];
/// Crates that Cargo.lock may hold. Twenty of them are for Windows alone and never built here.
const MOST: usize = 220;

/// Dependencies (all kinds) on crates that come later, and crates that the order does not know.
pub(super) fn layers(tree: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    let manifests =
        tree.named(|n| (n.starts_with("crates/") || n.starts_with("xtask/")) && n.ends_with("/Cargo.toml"));
    for (name, text) in manifests {
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(e) => {
                out.push(format!("{name}: {e}"));
                continue;
            }
        };
        let dir = name.trim_start_matches("crates/").trim_end_matches("/Cargo.toml");
        let rank = ORDER.iter().position(|c| *c == dir);
        if rank.is_none() && dir != "xtask" {
            out.push(format!("{name}: `{dir}` has no place in the order {}", ORDER.join(" < ")));
        }
        let mine = rank.unwrap_or(0); // xtask stands below everything: it builds from nothing of ours
        for dependency in dependencies(&table) {
            let Some(used) = dependency.strip_prefix("ecr-") else { continue };
            match ORDER.iter().position(|c| *c == used) {
                Some(r) if r < mine => {}
                Some(_) => {
                    out.push(format!("{name}: `{dir}` may not depend on `{used}`, which is not below it"))
                }
                None => {
                    out.push(format!("{name}: depends on `{dependency}`, which has no place in the order"))
                }
            }
        }
    }
    out
}

/// Names in every dependency table, those of targets included; a renamed one by its package.
fn dependencies(table: &toml::Table) -> Vec<String> {
    let mut out = Vec::new();
    for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
        for (name, spec) in table.get(kind).and_then(|t| t.as_table()).into_iter().flatten() {
            out.push(spec.get("package").and_then(|p| p.as_str()).unwrap_or(name).to_owned());
        }
    }
    let targets = table.get("target").and_then(|t| t.as_table());
    for target in targets.into_iter().flatten().filter_map(|(_, t)| t.as_table()) {
        out.extend(dependencies(target));
    }
    out
}

/// Too many crates.
pub(super) fn lock(tree: &Tree) -> Vec<String> {
    let Some((_, text)) = tree.named(|n| n == "Cargo.lock").next() else {
        return vec!["Cargo.lock: missing; it is under version control".into()];
    };
    match text.lines().filter(|l| l.trim() == "[[package]]").count() {
        n if n > MOST => vec![format!("Cargo.lock: {n} crates")],
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_upwards_is_found() {
        let low = "[dev-dependencies]\necr-models.workspace = true\n";
        let high = "[dependencies]\necr-data.workspace = true\n[target.'cfg(unix)'.dependencies]\nx = { package = \"ecr-run\" }\n";
        let tree = Tree::of(&[("crates/data/Cargo.toml", low), ("crates/models/Cargo.toml", high)]);
        let found = layers(&tree);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("`data` may not depend on `models`"));
        assert!(found[1].contains("`models` may not depend on `run`"));
    }

    #[test]
    fn a_crate_out_of_the_order_is_found() {
        let tree = Tree::of(&[
            ("crates/new/Cargo.toml", ""),
            ("xtask/Cargo.toml", "[dependencies]\necr-core = \"1\"\n"),
        ]);
        assert_eq!(layers(&tree).len(), 2);
        assert!(
            layers(&Tree::of(&[("crates/cli/Cargo.toml", "[dependencies]\necr-run = \"1\"\n")])).is_empty()
        );
    }

    #[test]
    fn too_many_crates_are_found() {
        assert_eq!(
            lock(&Tree::of(&[("Cargo.lock", &"[[package]]\n".repeat(MOST + 1))])),
            ["Cargo.lock: 221 crates"]
        );
        assert!(lock(&Tree::of(&[("Cargo.lock", &"[[package]]\n".repeat(MOST))])).is_empty());
        assert_eq!(lock(&Tree::default()).len(), 1);
    }
}
