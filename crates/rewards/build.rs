//! Finds the components in `src/components/own`: one file each, so that adding one touches no other file.

// A build script runs before there is any `ecr_core::io`.
#![allow(clippy::disallowed_methods)]

use std::fmt::Write as _;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::env::var("CARGO_MANIFEST_DIR")?;
    let dir = Path::new(&root).join("src/components/own");
    println!("cargo::rerun-if-changed={}", dir.display());
    let mut names: Vec<String> = std::fs::read_dir(&dir)?
        .filter_map(|e| e.ok()?.file_name().into_string().ok()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort();
    let (mut modules, mut rows) = (String::new(), String::new());
    for n in &names {
        let path = dir.join(format!("{n}.rs"));
        write!(
            modules,
            "#[path = {:?}]\n#[allow(missing_docs)]\npub mod {n};\n",
            path.display().to_string()
        )?;
        writeln!(
            rows,
            "    Own {{ name: {n:?}, preset: \"rewards-{n}\", toml: {n}::PRESET, \
             build: || Box::<{n}::Component>::default() }},"
        )?;
    }
    let text =
        format!("{modules}\n/// Every component of `own/`, by name.\npub const OWN: &[Own] = &[\n{rows}];\n");
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("own.rs"), text)?;
    Ok(())
}
