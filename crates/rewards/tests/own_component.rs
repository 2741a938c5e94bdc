//! The page on rewards shows the example component as it is, and it is as short as the page says.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::Path;

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    ecr_core::io::read_to_string(&path).unwrap()
}

#[test]
fn the_example_is_the_file_and_has_under_30_lines() {
    let file = text("src/components/own/safety.rs");
    let page = text("../../docs/rewards.md");
    let shown = page.split("```rust\n").nth(1).and_then(|t| t.split("```").next()).unwrap();
    assert_eq!(shown, file);
    assert!(file.lines().count() < 30, "{} lines", file.lines().count());
    assert!(ecr_rewards::components::own::find("safety").is_some());
}
