//! Repository chores: `cargo xtask ci|tidy|torture`.
fn main() {}
