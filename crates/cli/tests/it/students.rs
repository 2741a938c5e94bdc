//! Optional students and the guards of alignment: they train, are measured, and continue to the bit.

use std::process::Stdio;

use crate::{Scratch, assert_same, ecr, files, finish, smoke};

/// Optional students, and PPO with several rollouts a prompt, fine-tuning windows mixed in and looks at validation.
const ALSO: [&str; 12] = [
    "--set",
    "run.also=[\"rloo\",\"grpo\",\"mappo\",\"macpo\"]",
    "--set",
    "run.checkpoint_every=1",
    "--set",
    "ppo.rollouts_per_prompt=2",
    "--set",
    "ppo.ptx_coef=0.1",
    "--set",
    "select.every=3",
    "--set",
    "select.prompts=8",
];

#[test]
fn optional_students_are_trained_measured_and_continue_to_the_bit() {
    let s = Scratch::new("students");
    let (code, _, err) = smoke(&s.join("calm"), &ALSO);
    assert_eq!(code, 0, "{err}");
    let calm = files(&s.join("calm"));
    for name in ["rloo", "grpo", "mappo", "macpo"] {
        assert!(calm.contains_key(&format!("models/{name}_enhanced/model.safetensors")), "{name}");
        assert!(calm.contains_key(&format!("evaluation_results/{name}/replies.json")), "{name}");
        // With looks at validation the baseline may be what is kept, and then to the bit.
        let kept = calm.get(&format!("logs/{name}.selection.json")).map(|text| {
            let report: serde_json::Value = serde_json::from_slice(text).unwrap();
            report["kept_update"].as_u64().unwrap()
        });
        assert_eq!(kept.is_some(), ["rloo", "grpo"].contains(&name), "{name}");
        let model = &calm[&format!("models/{name}_enhanced/model.safetensors")];
        assert_eq!(*model == calm["models/baseline_ecr/model.safetensors"], kept == Some(0), "{name}");
    }
    assert!(
        calm.contains_key("macpo/round-2/student.jsonl") && calm.contains_key("macpo/round-1/verdict.json")
    );
    let log = String::from_utf8(calm["logs/ppo.metrics.jsonl"].clone()).unwrap();
    assert!(log.contains("loss/ptx_avg") && log.contains("\"reward_std\""));
    assert!(log.contains("valid/distinct_2") && calm.contains_key("logs/ppo.selection.json"));
    assert!(calm.contains_key("models/mappo_enhanced/agents/empathy/model.safetensors"));

    // What a round of MACPO leaves can be learnt from by itself.
    let other = s.join("dpo");
    crate::copy(&s.join("calm"), &other);
    let (out, pairs) = (
        other.display().to_string(),
        format!("preferences.path={}", other.join("macpo/round-1/student.jsonl").display()),
    );
    let (code, _, err) = finish(&mut ecr(&[
        "train",
        "dpo",
        "--quiet",
        "--out",
        &out,
        "--set",
        &pairs,
        "--set",
        "dpo.learning_rate=1e-3",
    ]));
    assert_eq!(code, 0, "{err}");
    assert!(
        files(&other)["models/dpo_enhanced/model.safetensors"]
            != calm["models/baseline_ecr/model.safetensors"]
    );

    // Killed again and again at a later and later checkpoint, then to the end.
    let dir = s.join("killed");
    let path = dir.display().to_string();
    let mut args = vec!["run", "smoke", "--quiet", "--out", &path];
    args.extend(ALSO);
    let mut kills = 0;
    for _ in 0..20 {
        let mut c = ecr(&args);
        let status =
            c.env("ECR_FAILPOINT", "commit.renamed=kill@4").stderr(Stdio::null()).stdout(Stdio::null());
        if status.status().unwrap().success() {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 5, "only {kills} kills");
    let (code, _, err) = smoke(&dir, &ALSO);
    assert_eq!(code, 0, "{err}");
    assert_same(&calm, &files(&dir), "students");
}

#[test]
fn guards_roll_back_and_end_the_run_with_code_6() {
    let s = Scratch::new("guard");
    // No KL is below this limit: every update raises G2.
    let never = ["--set", "guard.kl_limit=-1000", "--set", "guard.max_rollbacks=1"];
    let (code, _, err) = smoke(&s.join("run"), &never);
    assert_eq!(code, 6, "{err}");
    assert!(err.contains("G2") && err.contains("1 rollback"), "{err}");
    let log = String::from_utf8(files(&s.join("run"))["logs/ppo.metrics.jsonl"].clone()).unwrap();
    let last: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!((log.lines().count(), &last["guard/alarms"][0]), (2, &serde_json::json!("G2")));
    assert!(!s.join("run/models/rl_enhanced_ecr").exists());
    // One rollback at the first update, then none: the run ends well, on half the learning rate.
    let once = ["--set", "guard.kl_limit=-1000", "--set", "guard.max_rollbacks=100"];
    let dir = s.join("patient");
    let (code, _, err) = smoke(&dir, &once);
    assert_eq!(code, 0, "{err}");
    // Every update was undone: the student is the baseline.
    let f = files(&dir);
    assert_eq!(f["models/rl_enhanced_ecr/model.safetensors"], f["models/baseline_ecr/model.safetensors"]);
    let path = dir.display().to_string();
    assert_eq!(
        finish(&mut ecr(&["train", "ppo", "--quiet", "--out", &path, "--set", "guard.kl_limit=1000"])).0,
        0
    );
    let f = files(&dir);
    assert!(f["models/rl_enhanced_ecr/model.safetensors"] != f["models/baseline_ecr/model.safetensors"]);
}
