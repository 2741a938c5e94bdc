//! Named presets, embedded. `smoke` and `demo` are whole runs; the others are layers to put over one.

use ecr_core::{Error, Result};

/// (name, TOML).
pub const PRESETS: &[(&str, &str)] = &[
    ("smoke", include_str!("../../../../configs/smoke.toml")),
    ("demo", include_str!("../../../../configs/demo.toml")),
    ("rewards-balanced", include_str!("../../../../configs/presets/rewards-balanced.toml")),
    ("rewards-empathy", include_str!("../../../../configs/presets/rewards-empathy.toml")),
    ("rewards-recommendation", include_str!("../../../../configs/presets/rewards-recommendation.toml")),
    ("ppo-balanced", include_str!("../../../../configs/presets/ppo-balanced.toml")),
    ("ppo-conservative", include_str!("../../../../configs/presets/ppo-conservative.toml")),
    ("ppo-aggressive", include_str!("../../../../configs/presets/ppo-aggressive.toml")),
    ("remedy-memory", include_str!("../../../../configs/presets/remedy-memory.toml")),
    ("remedy-instability", include_str!("../../../../configs/presets/remedy-instability.toml")),
    ("remedy-reward", include_str!("../../../../configs/presets/remedy-reward.toml")),
    ("remedy-critic", include_str!("../../../../configs/presets/remedy-critic.toml")),
    ("mappo-balanced", include_str!("../../../../configs/presets/mappo-balanced.toml")),
    ("mappo-conservative", include_str!("../../../../configs/presets/mappo-conservative.toml")),
    ("mappo-strong", include_str!("../../../../configs/presets/mappo-strong.toml")),
];

/// [`PRESETS`] and the preset that comes with each component of one's own.
pub fn all_presets() -> impl Iterator<Item = (&'static str, &'static str)> {
    let own = ecr_rewards::components::own::OWN.iter().map(|o| (o.preset, o.toml));
    PRESETS.iter().copied().chain(own)
}

/// The text of a preset.
///
/// # Errors
/// [`ecr_core::Kind::Config`] for an unknown name, with the known ones.
pub fn preset(name: &str) -> Result<&'static str> {
    all_presets().find(|(n, _)| *n == name).map(|(_, text)| text).ok_or_else(|| {
        let known: Vec<&str> = all_presets().map(|(n, _)| n).collect();
        Error::config(format!("find the preset {name}"))
            .expected(known.join(", "))
            .hint("or give a configuration file that exists")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Layers, Origin};

    #[test]
    fn every_preset_is_a_valid_configuration() {
        for (name, text) in all_presets() {
            let mut l = Layers::new();
            l.toml(text, name, |_| Origin::Preset(name.into())).unwrap();
            l.config().unwrap();
        }
        assert!(preset("smok").unwrap_err().to_string().contains("smoke"));
    }
}
