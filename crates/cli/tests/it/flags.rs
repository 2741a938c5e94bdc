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

#[test]
fn the_critics_rows_can_come_from_elsewhere() {
    let s = Scratch::new("rows");
    let dir = s.join("run").display().to_string();
    let (code, _, err) = finish(&mut ecr(&["run", "smoke", "--quiet", "--critic-only", "--out", &dir]));
    assert_eq!(code, 0, "{err}");
    assert!(!s.join("run/models").exists());
    let weights = || files(&s.join("run"))["critic_pretrained/critic_pretrained_final.safetensors"].clone();
    let own = weights();
    let train = |more: &[&str]| {
        let args = [&["train", "critic", "--quiet", "--json", "--out", dir.as_str()], more].concat();
        finish(&mut ecr(&args))
    };
    // The same rows under another name are the same critic; half of them are another.
    let rows = std::fs::read_to_string(s.join("run/data/critic_train.jsonl")).unwrap();
    let (all, half) = (s.join("all.jsonl"), s.join("half.jsonl"));
    std::fs::write(&all, &rows).unwrap();
    let few: Vec<&str> = rows.lines().step_by(2).collect();
    std::fs::write(&half, few.join("\n")).unwrap();
    assert_eq!(train(&["--train_data", &all.display().to_string()]).0, 0);
    assert!(weights() == own);
    assert_eq!(train(&["--train_data", &half.display().to_string()]).0, 0);
    assert!(weights() != own);
    // Validation on training rows would be no validation: they are left out, here all of them.
    let data = s.join("run/data").display().to_string();
    let (code, _, err) = train(&["--train_data", &data, "--val_data", &all.display().to_string()]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("held out are not used") && err.contains("rows with a score"), "{err}");
    let (code, _, err) = train(&["--train_data", "nowhere.jsonl"]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("nowhere.jsonl") && err.contains("ecr data prepare --critic-only"), "{err}");
}

#[test]
fn prepare_writes_records_or_the_critics_rows_too() {
    let s = Scratch::new("parts");
    let dir = s.join("run").display().to_string();
    let run = |args: &[&str]| finish(&mut ecr(&[args, &["--quiet", "--out", &dir]].concat()));
    assert_eq!(run(&["data", "prepare", "--config", "smoke", "--copy-only"]).0, 0);
    let records = files(&s.join("run/data"));
    assert!(records.contains_key("processed/train_data_processed.jsonl"));
    assert!(!records.contains_key("critic_train.jsonl"));
    let (code, _, err) = run(&["train", "critic"]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("ecr data prepare --critic-only"), "{err}");
    assert_eq!(run(&["data", "prepare", "--critic-only"]).0, 0);
    let all = files(&s.join("run/data"));
    assert!(all.contains_key("critic_train.jsonl"));
    assert!(records.iter().all(|(name, bytes)| &all[name] == bytes), "records changed");
    let (code, _, err) = run(&["train", "sft", "--copy-only"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("ecr data prepare"), "{err}");
}

#[test]
fn lengths_and_models_mean_what_the_command_says() {
    let s = Scratch::new("models");
    let dir = s.join("run").display().to_string();
    assert_eq!(smoke(&s.join("run"), &[]).0, 0);
    let run = |args: &[&str]| finish(&mut ecr(&[args, &["--out", &dir]].concat()));
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(s.join("run").join(name)).unwrap()).unwrap()
    };
    // The run's own model: nothing to do.
    let own = s.join("run/models/rl_enhanced_ecr").display().to_string();
    let (code, _, err) = run(&["eval", "--use_rl_eval", "--model_path", &own]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("both of its models") && err.contains("unchanged"), "{err}");
    // The baseline as student: the same replies.
    let elsewhere = s.join("elsewhere");
    copy(&s.join("run/models/baseline_ecr"), &elsewhere);
    let (code, _, err) = run(&["eval", "--model_path", &elsewhere.display().to_string()]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("as the student"), "{err}");
    let replies = |m: &str| read(&format!("evaluation_results/{m}/replies.json"))["examples"].clone();
    assert_eq!(replies("baseline"), replies("rl_enhanced"));
    let results = read("evaluation_results/rl_enhanced/evaluation_results.json");
    assert_eq!(results["replies_file"], "replies.json");
    assert!(!std::fs::read_to_string(s.join("run/run.json")).unwrap().contains("eval.rl_enhanced_path"));
    let (code, _, err) = run(&["eval", "--model_path", "no-such-dir"]);
    assert_eq!(code, 2, "{err}");
    // Prompt and response together; shorter prompts are other prompts.
    let student = || files(&s.join("run"))["models/rl_enhanced_ecr/model.safetensors"].clone();
    let before = student();
    let (code, _, err) = run(&["train", "ppo", "--max_length", "40"]);
    assert_eq!(code, 0, "{err}");
    assert!(student() != before);
    assert_eq!(read(".state/config.json")["policy.context_max"], 40 - 12);
    let (code, _, err) = run(&["train", "ppo", "--max_length", "12"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("eval.max_new = 12"), "{err}");
    let baseline = || files(&s.join("run"))["models/baseline_ecr/model.safetensors"].clone();
    let before = baseline();
    assert_eq!(run(&["train", "sft", "--max_length", "60"]).0, 0);
    assert!(baseline() != before);
}
