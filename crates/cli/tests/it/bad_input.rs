//! Each mistake gets one clear message, the documented exit code, and loses nothing.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::{Scratch, assert_same, copy, ecr, files, finish, smoke};

fn fails(args: &[&str], code: i32, says: &[&str]) {
    let (got, _, err) = finish(&mut ecr(args));
    assert_eq!(got, code, "{args:?}: {err}");
    for s in says {
        assert!(err.contains(s), "{args:?}: {s:?} is missing in\n{err}");
    }
    assert!(!err.contains("panicked"), "{err}");
}

#[test]
fn configuration_mistakes_name_file_line_and_neighbour() {
    let s = Scratch::new("config");
    let file = s.join("a.toml");
    let name = file.display().to_string();
    for (text, says) in [
        ("[ppo]\n\nlerning_rate = 1\n", vec!["a.toml:3", "did you mean ppo.learning_rate?"]),
        ("[ppo]\nsteps = \"many\"\n", vec!["a.toml:2", "whole number"]),
        ("[ppo]\nclip_range = 2.0\n", vec!["ppo.clip_range", "between 0 and 1"]),
        ("[run]\nprecision = \"fp8\"\n", vec!["\"f32\" or \"bf16\""]),
        ("[ppo\n", vec!["a.toml:1"]),
    ] {
        fs::write(&file, text).unwrap();
        fails(&["config", "check", &name], 2, &says);
    }
    fails(&["config", "check", "absent.toml"], 2, &["absent.toml", "no such file"]);
    fails(&["run", "demmo"], 2, &["demmo", "demo"]);
    fails(&["run", "smoke", "--set", "ppo.stpes=1"], 2, &["did you mean ppo.steps?"]);
    fails(&["run", "smoke", "--from", "eval", "--to", "sft"], 2, &["--from before --to"]);
    fails(&["run", "smoke", "--from", "evaluate"], 2, &["prepare, emotion, empathy, label, critic"]);
    fails(&["frobnicate"], 2, &["frobnicate"]);
}

#[test]
fn missing_data_and_models_say_what_to_put_where() {
    let s = Scratch::new("missing");
    let out = s.join("run").display().to_string();
    let base = ["run", "smoke", "--quiet", "--out", &out];
    let with = |more: &[&str]| base.iter().chain(more).map(|x| x.to_string()).collect::<Vec<_>>();
    let run = |more: &[&str], code, says: &[&str]| {
        let args = with(more);
        fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, says);
    };
    run(&["--set", "data.source=redial", "--set", "data.path=/nowhere"], 2, &["data.path", "redial/"]);
    run(&["--model_name", "roberta-bose"], 2, &["roberta-bose", "config.json"]);
    run(&["--set", "policy.path=no-such-model", "--force"], 2, &["no-such-model"]);
    let avx = ["--set", "run.tier=sse9"];
    run(&avx, 2, &["run.tier"]);
}

/// A raw ReDial line of our own.
fn line(id: usize) -> String {
    format!(
        r#"{{"movieMentions":{{"7":"Made Up  (1999)"}},"respondentQuestions":[],"messages":[{{"timeOffset":0,"text":"Something like @7 please","senderWorkerId":1,"messageId":{id}1}},{{"timeOffset":9,"text":"Then try @7 again","senderWorkerId":2,"messageId":{id}2}}],"conversationId":"{id}","initiatorWorkerId":1,"respondentWorkerId":2,"initiatorQuestions":{{"7":{{"suggested":1,"seen":1,"liked":1}}}}}}"#
    )
}

#[test]
fn garbage_lines_are_counted_named_and_limited() {
    let s = Scratch::new("garbage");
    let redial = s.join("data/redial");
    fs::create_dir_all(&redial).unwrap();
    let write = |name: &str, lines: &[String]| {
        fs::write(redial.join(format!("{name}_data.jsonl")), lines.join("\n")).unwrap();
    };
    let good: Vec<String> = (1..6).map(line).collect();
    let mut bad = good.clone();
    bad.insert(2, "{ this is no JSON".into());
    write("train", &bad);
    write("valid", &[line(11), line(12)]);
    write("test", &[line(21), line(22)]);
    let (data, out) = (s.join("data").display().to_string(), s.join("run").display().to_string());
    let path = format!("data.path={data}");
    let args = [
        "data",
        "prepare",
        "--config",
        "smoke",
        "--out",
        &out,
        "--set",
        "data.source=redial",
        "--set",
        &path,
    ];
    let (code, stdout, err) = finish(&mut ecr(&args));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("train_data.jsonl:3"), "{err}");
    assert!(stdout.contains("bad_lines = 1") && stdout.contains("dialogues_train = 5"), "{stdout}");
    let before = files(&s.join("run"));
    let mut strict = args.to_vec();
    strict.extend(["--set", "data.max_bad_lines=0"]);
    fails(&strict, 3, &["train_data.jsonl:3", "at most 0 bad lines"]);
    let data_files = |m: &std::collections::BTreeMap<String, Vec<u8>>| {
        m.iter().filter(|(k, _)| k.starts_with("data/")).map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    assert_same(&data_files(&before), &data_files(&files(&s.join("run"))), "refused import");
    write("train", &["nonsense".into()]);
    fails(&args, 3, &["train_data.jsonl"]);
}

#[test]
fn a_second_run_in_one_directory_is_refused() {
    let s = Scratch::new("second");
    let dir = s.join("run").display().to_string();
    let mut first = ecr(&["run", "smoke", "--quiet", "--out", &dir])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !s.join("run/.state/config.json").exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let (code, _, err) = finish(&mut ecr(&["run", "smoke", "--quiet", "--out", &dir]));
    let still = first.try_wait().unwrap().is_none();
    first.wait().unwrap();
    assert!(still, "the first run ended before the second began: the test proves nothing");
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("another ecr process"), "{err}");
}

#[test]
fn a_full_disk_is_a_clean_stop_and_the_run_continues_later() {
    let s = Scratch::new("full");
    smoke(&s.join("calm"), &[]);
    let calm = files(&s.join("calm"));
    for n in [1, 7, 30, 60] {
        let dir = s.join(&format!("full-{n}"));
        let path = dir.display().to_string();
        let mut c = ecr(&["run", "smoke", "--quiet", "--out", &path]);
        let (code, _, err) = finish(c.env("ECR_FAILPOINT", format!("write=enospc@{n}")));
        assert_eq!(code, 5, "{err}");
        assert!(err.contains("intact") && err.contains("free"), "{err}");
        let (code, _, err) = smoke(&dir, &[]);
        assert_eq!(code, 0, "{err}");
        assert_same(&calm, &files(&dir), &format!("full disk at write {n}"));
    }
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_used() {
    let s = Scratch::new("damaged");
    smoke(&s.join("calm"), &[]);
    let calm = files(&s.join("calm"));
    let dir = s.join("run");
    let path = dir.display().to_string();
    // Stops in PPO with two checkpoints on the disk: the commit of the third is killed.
    let ppo = ["run", "smoke", "--quiet", "--out", &path, "--to", "sft"];
    assert_eq!(finish(&mut ecr(&ppo)).0, 0);
    let mut c = ecr(&["run", "smoke", "--quiet", "--out", &path]);
    c.env("ECR_FAILPOINT", "commit.renamed=kill@2").stderr(Stdio::null()).status().unwrap();
    let steps = dir.join("checkpoints/ppo");
    let newest = fs::read_dir(&steps).unwrap().map(|e| e.unwrap().path()).max().unwrap();
    assert!(fs::read_dir(&steps).unwrap().count() >= 2);
    let file = newest.join("student.data");
    let mut bytes = fs::read(&file).unwrap();
    bytes[100] ^= 4;
    fs::write(&file, bytes).unwrap();
    let (code, _, err) = smoke(&dir, &[]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("damaged") && err.contains("student.data"), "{err}");
    assert_same(&calm, &files(&dir), "after a damaged checkpoint");
}

#[test]
fn a_truncated_model_is_named() {
    let s = Scratch::new("truncated");
    smoke(&s.join("calm"), &[]);
    copy(&s.join("calm"), &s.join("run"));
    let file = s.join("run/models/baseline_ecr/model.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let dir = s.join("run").display().to_string();
    fails(&["train", "ppo", "--out", &dir], 3, &["model.safetensors"]);
}
