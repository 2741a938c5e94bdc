//! A run's logs, their mirrors, and what kills, full disks and other numbers do to them.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::type_complexity)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ecr_core::io;
use ecr_track::tensorboard::{self, Value};
use ecr_track::wandb::read::Transcript;
use ecr_track::wandb::{file_of, segments};
use ecr_track::{About, Options, Tracker};
use serde_json::{Map, Value as Json, json};

fn scratch(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("ecr-track-{name}-{}", std::process::id()));
    io::remove_dir_all(&dir).unwrap();
    dir
}

fn clock() -> f64 {
    1_767_225_599.25
}

fn options(dir: &Path) -> Options {
    let about = About { project: "films".into(), name: "try".into(), host: "a.b".into(), pid: 7 };
    Options { dir: dir.join("tracking"), wandb: true, tensorboard: true, about }
}

fn map(v: Json) -> Map<String, Json> {
    v.as_object().unwrap().clone()
}

/// The logs of a pretended run; `x` makes it another one.
fn logs(x: f64) -> [(&'static str, Vec<String>); 3] {
    let sft = (0..3).map(|i| json!({"trial": i / 2, "step": i % 2, "loss": 0.1 * f64::from(i)}));
    let sft =
        sft.chain((0..2).map(|i| json!({"step": i, "loss": 7.1 + f64::from(i), "lr": 3.389830508474523e-6})));
    let ppo = (0..4).map(|i| {
        let rewards: Vec<f64> = (0..9).map(|k| f64::from(k * i) * 0.3 + x).collect();
        json!({"step": i, "objective/kl": 0.1 + x, "lr": null, "rewards": rewards, "note": "α|b"})
    });
    let samples = (0..8).map(|i| {
        // Long enough that a record spans blocks of 32 KiB.
        json!({"step": i / 2, "reply": "so it goes ".repeat(if i == 5 { 9000 } else { 1 }),
               "reward": {"total": x + f64::from(i), "parts": [{"name": "bleu", "raw": null}]}})
    });
    let text = |v: Vec<Json>| v.iter().map(Json::to_string).collect();
    [
        ("sft.metrics.jsonl", text(sft.collect())),
        ("ppo.metrics.jsonl", text(ppo.collect())),
        ("ppo.samples.jsonl", text(samples.collect())),
    ]
}

/// Runs (or repeats) the pretended run; returns warnings. It dies after `most` lines.
fn run(dir: &Path, x: f64, most: usize, code: Option<u8>) -> Vec<String> {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let heard = warnings.clone();
    let config = map(json!({"ppo.steps": 4, "judge.api_key": "hush", "run.seed": 42}));
    let warn = move |w: &str| heard.lock().unwrap().push(w.to_string());
    let mut t = Tracker::open(&options(dir), &config, clock, warn);
    let mut left = most;
    for (name, lines) in logs(x) {
        let path = dir.join("logs").join(name);
        let mut log = io::AppendLog::open(&path, 0).unwrap();
        t.opened(&path, "");
        for line in &lines {
            if left == 0 {
                return warnings.lock().unwrap().clone();
            }
            left -= 1;
            log.line(line).unwrap();
            t.line(&path, line);
        }
        if name != "ppo.metrics.jsonl" {
            t.stage_done(&name[..3], &map(json!({"best": 0.5, "by": [1, 2]})));
        }
    }
    t.finish(code);
    warnings.lock().unwrap().clone()
}

fn transcripts(dir: &Path) -> Vec<(String, PathBuf, Transcript)> {
    let found = segments(&dir.join("tracking/wandb")).unwrap();
    found
        .into_iter()
        .map(|(dir, id)| {
            let file = file_of(&dir, &id);
            let t = Transcript::of(&io::read(&file).unwrap());
            (id, file, t)
        })
        .collect()
}

fn event_file(dir: &Path, run: u32) -> PathBuf {
    io::read_dir_sorted(&dir.join(format!("tracking/tensorboard/run-{run}"))).unwrap().pop().unwrap()
}

/// What the mirrors say, without clocks and lengths: rows of W&B, events of TensorBoard.
fn said(dir: &Path) -> (Vec<Vec<(Vec<String>, String)>>, Vec<(u64, Vec<(String, Value)>)>) {
    let rows = transcripts(dir).into_iter().flat_map(|(_, _, t)| t.history).map(|r| r.items).collect();
    let (events, len) = tensorboard::read(&io::read(&event_file(dir, 1)).unwrap());
    assert!(len > 0);
    (rows, events.into_iter().map(|e| (e.step, e.values)).collect())
}

#[test]
fn both_formats_say_what_the_logs_say() {
    let dir = scratch("same");
    assert!(run(&dir, 0.0, usize::MAX, Some(0)).is_empty());
    let [(id, file, t)] = transcripts(&dir).try_into().unwrap();
    let name = file.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(name, format!("offline-run-20251231_235959-{id}"));
    assert_eq!((t.run.as_deref(), t.project.as_str(), t.name.as_str()), (Some(id.as_str()), "films", "try"));
    assert_eq!((t.start, t.exit, t.len), (clock(), Some(0), io::read(&file).unwrap().len() as u64));
    assert_eq!(t.config["judge"], r#"{"api_key":"[redacted]"}"#);
    assert_eq!(t.metrics, ["sft_trial_0", "sft_trial_1", "sft", "ppo"]);
    // 3 + 2 records of sft, 4 of ppo, samples of 4 steps; `_step` counts them.
    assert_eq!(t.history.iter().map(|r| r.step).collect::<Vec<_>>(), (0..13).collect::<Vec<_>>());
    let row = &t.history[4];
    assert_eq!((row.get("sft/loss"), row.get("sft/lr")), (Some("8.1"), Some("3.389830508474523e-6")));
    assert_eq!((row.get("_step"), row.get("sft/step")), (Some("4"), Some("1")));
    let row = &t.history[6];
    assert_eq!((row.get("ppo/lr"), row.get("ppo/objective/kl")), (None, Some("0.1")));
    assert_eq!(t.summary["ppo/rewards._type"], "\"histogram\"");
    assert_eq!((t.summary["summary/sft/best"].as_str(), t.summary["_step"].as_str()), ("0.5", "12"));
    assert_eq!(t.files.len(), 4);
    for path in &t.files {
        let text = io::read(&file.parent().unwrap().join("files").join(path)).unwrap();
        let table: Json = serde_json::from_slice(&text).unwrap();
        assert_eq!(table["columns"], json!(["step", "reply", "reward/total", "reward/bleu/raw"]));
        assert_eq!(table["data"].as_array().unwrap().len(), 2);
    }
    let (_, events) = said(&dir);
    assert_eq!(events[0].1[0].0, "config");
    assert!(!format!("{events:?}").contains("hush"));
    let of = |tag: &str| -> Vec<(u64, Value)> {
        let all = events.iter().flat_map(|(s, vs)| vs.iter().map(move |v| (s, v)));
        all.filter(|(_, v)| v.0 == tag).map(|(s, v)| (*s, v.1.clone())).collect()
    };
    assert_eq!(of("sft/loss"), [(0, Value::Scalar(7.1)), (1, Value::Scalar(8.1))]);
    assert_eq!(of("sft_trial_0/loss")[1], (1, Value::Scalar(0.1)));
    assert_eq!(of("ppo/samples").len(), 4);
    let Value::Histogram(limits, counts) = &of("ppo/rewards")[3].1 else { panic!("no histogram") };
    assert_eq!((limits.len(), counts.iter().sum::<f64>()), (30, 9.0));
    assert_eq!(of("ppo/note")[0].1, Value::Text(vec!["α|b".into()]));
    assert_eq!(of("summary/ppo").len(), 1);
    io::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_run_killed_anywhere_goes_on_under_its_id_and_says_nothing_twice() {
    let calm = scratch("calm");
    run(&calm, 0.0, usize::MAX, Some(0));
    let want = said(&calm);
    let dir = scratch("killed");
    for lines in [0, 1, 4, 6, 9, 12, 16, 17] {
        io::remove_dir_all(&dir).unwrap();
        run(&dir, 0.0, lines, None);
        let [(id, wandb, _)] = transcripts(&dir).try_into().unwrap();
        let events = event_file(&dir, 1);
        let whole: Vec<(PathBuf, Vec<u8>)> =
            [wandb, events].into_iter().map(|p| (p.clone(), io::read(&p).unwrap())).collect();
        for cut in [0, 3, 7, 20, 60, 200] {
            // A write that was torn: the last bytes of both files are missing.
            for (path, bytes) in &whole {
                io::atomic_write(path, &bytes[..bytes.len().saturating_sub(cut)]).unwrap();
            }
            assert!(run(&dir, 0.0, usize::MAX, Some(0)).is_empty());
            assert!(said(&dir) == want, "killed after {lines} lines, {cut} bytes torn off");
            let [(same, _, t)] = transcripts(&dir).try_into().unwrap();
            assert_eq!((same, t.exit), (id.clone(), Some(0)));
        }
    }
    io::remove_dir_all(&dir).unwrap();
    io::remove_dir_all(&calm).unwrap();
}

#[test]
fn a_closed_or_uploaded_run_goes_on_in_another_directory_under_the_same_id() {
    let dir = scratch("segments");
    run(&dir, 0.0, 9, None);
    let (_, file, first) = transcripts(&dir).pop().unwrap();
    let mut marker = file.into_os_string();
    marker.push(".synced");
    io::atomic_write(Path::new(&marker), b"").unwrap();
    run(&dir, 0.0, usize::MAX, Some(0));
    // Closed: a third one would hold nothing new but the same run's end.
    run(&dir, 0.0, usize::MAX, Some(0));
    let all = transcripts(&dir);
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|(id, _, t)| *id == all[0].0 && t.run == all[0].2.run && t.start == first.start));
    let rows: Vec<usize> = all.iter().map(|a| a.2.history.len()).collect();
    assert_eq!((rows[0], rows.iter().sum::<usize>(), rows[2]), (first.history.len(), 13, 0));
    assert_eq!(all[1].2.history[0].step as usize, rows[0], "steps go on");
    assert_eq!(all[1].2.config.len(), 3);
    io::remove_dir_all(&dir).unwrap();
}

#[test]
fn other_numbers_are_another_run_with_all_of_its_records() {
    let dir = scratch("conflict");
    run(&dir, 0.0, usize::MAX, None);
    // The settings of ppo changed: sft says the same, ppo does not.
    assert!(run(&dir, 1.0, usize::MAX, Some(0)).is_empty());
    let [(a, _, old), (b, _, new)] = transcripts(&dir).try_into().unwrap();
    assert_ne!(a, b);
    assert_eq!((old.history.len(), new.history.len(), new.config.len()), (13, 13, 3));
    assert_eq!(new.history[5].get("ppo/objective/kl"), Some("1.1"));
    assert_eq!(new.summary["summary/sft/best"], "0.5");
    let (events, _) = tensorboard::read(&io::read(&event_file(&dir, 2)).unwrap());
    assert_eq!(events.len(), 13 + 3, "with config and two summaries");
    // The newest goes on.
    run(&dir, 1.0, usize::MAX, Some(0));
    assert_eq!(transcripts(&dir).iter().filter(|t| t.0 == b).count(), 2);
    // So is a run of another project.
    let mut other = options(&dir);
    other.about.project = "books".into();
    Tracker::open(&other, &Map::new(), clock, |w| panic!("{w}")).finish(None);
    assert_eq!(transcripts(&dir).iter().filter(|t| t.2.project == "books").count(), 1);
    io::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_broken_writer_is_one_warning() {
    let dir = scratch("broken");
    io::atomic_write(&dir.join("tracking"), b"a file where a directory should be").unwrap();
    let warnings = run(&dir, 0.0, usize::MAX, Some(0));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("tracking to wandb") && warnings[0].contains("the run goes on"));
    io::remove_dir_all(&dir).unwrap();
}

/// Runs this test again as a child whose disk is full from the 9th write on.
#[test]
fn a_full_disk_is_one_warning_a_format_and_is_made_good_later() {
    if std::env::var_os("ECR_FAILPOINT").is_some() {
        let dir = PathBuf::from(std::env::var_os("ECR_TRACK_DIR").unwrap());
        let warnings = run(&dir, 0.0, usize::MAX, Some(0));
        assert_eq!(warnings.len(), 2, "one a format: {warnings:?}");
        assert!(warnings.iter().all(|w| w.contains("append to")), "{warnings:?}");
        return;
    }
    let (dir, calm) = (scratch("full"), scratch("enough"));
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_full_disk_is_one_warning_a_format_and_is_made_good_later"])
        .env("ECR_FAILPOINT", "append.bytes=enospc@9")
        .env("ECR_TRACK_DIR", &dir)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    run(&calm, 0.0, usize::MAX, Some(0));
    run(&dir, 0.0, usize::MAX, Some(0));
    assert!(said(&dir) == said(&calm));
    for d in [dir, calm] {
        io::remove_dir_all(&d).unwrap();
    }
}
