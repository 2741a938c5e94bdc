//! Experiments that come with the program.

/// (name, TOML).
pub const BUILTIN: &[(&str, &str)] = &[
    ("algorithms", include_str!("../../../../configs/experiments/algorithms.toml")),
    ("constant-reward", include_str!("../../../../configs/experiments/constant-reward.toml")),
    ("critic-warmstart", include_str!("../../../../configs/experiments/critic-warmstart.toml")),
    ("smoke", include_str!("../../../../configs/experiments/smoke.toml")),
];
