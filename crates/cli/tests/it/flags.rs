//! The guide's flags do something: each that can changes the trajectory of PPO.

use crate::{Scratch, copy, ecr, files, finish, smoke};

#[test]
fn every_training_flag_of_the_guide_changes_the_trajectory() {
    let s = Scratch::new("flags");
    let (code, _, err) = smoke(&s.join("base"), &[]);
    assert_eq!(code, 0, "{err}");
    let weights = |dir: &std::path::Path| files(dir)["models/rl_enhanced_ecr/model.safetensors"].clone();
    let base = weights(&s.join("base"));
    let critic = s.join("other-critic");
    copy(&s.join("base/critic_pretrained"), &critic);
    // Another critic: one that was trained longer.
    let long = s.join("long");
    copy(&s.join("base"), &long);
    let path = long.display().to_string();
    assert_eq!(finish(&mut ecr(&["train", "critic", "--num_epochs", "3", "--quiet", "--out", &path])).0, 0);
    let pth = long.join("critic_pretrained/critic_pretrained_final.pth").display().to_string();
    for (flag, value) in [
        ("--rl_learning_rate", "2e-3"),
        ("--rl_batch_size", "6"),
        ("--rl_max_steps", "3"),
        ("--bleu_weight", "0.2"),
        ("--empathy_weight", "5.0"),
        ("--recommendation_weight", "0.1"),
        ("--distinct_weight", "3.0"),
        ("--ppo_clip_epsilon", "0.001"),
        ("--ppo_epochs", "1"),
        ("--critic_pretrained_path", &pth),
    ] {
        let dir = s.join(flag.trim_start_matches('-'));
        copy(&s.join("base"), &dir);
        let path = dir.display().to_string();
        let stages: &[&str] = if flag.contains("critic") { &["critic", "ppo"] } else { &["ppo"] };
        for stage in stages {
            let args = ["train", stage, "--use_rl", "--quiet", "--out", &path, flag, value];
            let (code, _, err) = finish(&mut ecr(&args));
            assert_eq!(code, 0, "{flag}: {err}");
        }
        assert!(weights(&dir) != base, "{flag} {value} changed nothing");
    }
}

#[test]
fn the_guides_other_flags_are_accepted() {
    let s = Scratch::new("other");
    let out = s.join("x/models/rl_enhanced_ecr").display().to_string();
    let args = [
        "data",
        "prepare",
        "--config",
        "smoke",
        "--dataset",
        "demo",
        "--use_wandb",
        "--project",
        "p",
        "--log_all",
        "--debug",
        "--output_dir",
        &out,
        "--json",
    ];
    let (code, stdout, err) = finish(&mut ecr(&args));
    assert_eq!(code, 0, "{err}");
    assert!(!err.contains("not used"), "{err}");
    assert!(s.join("x/tracking/wandb").exists());
    assert!(serde_json::from_str::<serde_json::Value>(&stdout).is_ok(), "{stdout}");
    assert!(s.join("x/data/processed/manifest.json").exists());
    let (_, shown, _) = finish(&mut ecr(&["config", "show", "demo", "--ppo_clip_epsilon", "0.3", "--json"]));
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["ppo.clip_range"]["value"], 0.3);
    assert_eq!(shown["ppo.clip_range"]["origin"], "--ppo_clip_epsilon");
}
