//! Flag names of the original training guide, and the keys they set.

/// (flag without dashes, key). Flags may be written with `-` or `_`.
pub const ALIASES: &[(&str, &str)] = &[
    ("learning_rate", "sft.learning_rate"),
    ("num_train_epochs", "sft.epochs"),
    ("per_device_train_batch_size", "sft.batch_size"),
    ("context_max_length", "policy.context_max"),
    ("resp_max_length", "eval.max_new"),
    ("dataset", "data.source"),
    ("rl_learning_rate", "ppo.learning_rate"),
    ("rl_batch_size", "ppo.batch_size"),
    ("rl_max_steps", "ppo.steps"),
    ("ppo_epochs", "ppo.ppo_epochs"),
    ("ppo_clip_epsilon", "ppo.clip_range"),
    ("num_agents", "team.num_agents"),
    ("mutual_learning_weight", "mappo.team_weight"),
    ("self_confidence_weight", "mappo.own_weight"),
    ("bleu_weight", "reward.bleu"),
    ("distinct_weight", "reward.distinct"),
    ("empathy_weight", "reward.empathy"),
    ("recommendation_weight", "reward.recommendation"),
    ("critic_pretrained_path", "critic.pretrained_path"),
    ("model_name", "encoder.path"),
    ("num_epochs", "critic.epochs"),
    ("max_length", "critic.max_length"),
    ("batch_size", "critic.batch_size"),
    ("seed", "run.seed"),
    ("project", "track.project"),
];

/// The key that a guide flag sets.
pub fn alias(flag: &str) -> Option<&'static str> {
    let name = flag.trim_start_matches('-').replace('-', "_");
    ALIASES.iter().find(|(f, _)| *f == name).map(|(_, key)| *key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    #[test]
    fn every_alias_sets_a_known_key() {
        let known = Layers::new();
        for (flag, key) in ALIASES {
            assert!(known.values().contains_key(*key), "{flag} -> {key}");
        }
        assert_eq!(alias("--rl-learning-rate"), Some("ppo.learning_rate"));
        assert_eq!(alias("--nonsense"), None);
    }
}
