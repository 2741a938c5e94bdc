//! `kill -9` or an interruption anywhere, then the same command: the same bits.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ecr_core::Stream;

use crate::{Scratch, assert_same, ecr, files, smoke};

/// Runs smoke in `dir`, killed after each of `moments`, then to the end. Returns how often it was killed.
fn killed(dir: &std::path::Path, moments: &[Duration]) -> usize {
    let path = dir.display().to_string();
    let mut kills = 0;
    for after in moments {
        let mut child = ecr(&["run", "smoke", "--quiet", "--out", &path])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        loop {
            if child.try_wait().unwrap().is_some() {
                return kills;
            }
            if started.elapsed() >= *after {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let (code, _, err) = smoke(dir, &[]);
    assert_eq!(code, 0, "{err}");
    kills
}

#[test]
fn ten_kills_change_no_bit() {
    let s = Scratch::new("kill");
    let started = Instant::now();
    let (code, _, err) = smoke(&s.join("calm"), &[]);
    assert_eq!(code, 0, "{err}");
    let whole = started.elapsed();
    let calm = files(&s.join("calm"));
    assert!(calm.keys().any(|k| k == "comparison.json"));
    let mut draws = Stream::new(11).child("kill").rng();
    let mut kills = 0;
    let mut round = 0;
    while kills < 10 {
        let dir = s.join(&format!("killed-{round}"));
        let moments: Vec<Duration> = (0..3).map(|_| whole.mul_f64(0.05 + 0.6 * draws.uniform())).collect();
        kills += killed(&dir, &moments);
        // A run that ended before its last kill was finished by itself.
        let (code, _, err) = smoke(&dir, &[]);
        assert_eq!(code, 0, "{err}");
        assert_same(&calm, &files(&dir), &format!("round {round}"));
        round += 1;
        assert!(round < 30, "only {kills} kills in {round} rounds");
    }
}

#[test]
fn one_thread_and_two_give_the_same_bits() {
    let s = Scratch::new("threads");
    for n in ["1", "2"] {
        let (code, _, err) = smoke(&s.join(n), &["--threads", n]);
        assert_eq!(code, 0, "{err}");
    }
    assert_same(&files(&s.join("1")), &files(&s.join("2")), "threads");
}

#[test]
fn a_kill_at_every_point_of_a_checkpoint_changes_no_bit() {
    let s = Scratch::new("points");
    let (code, _, err) = smoke(&s.join("calm"), &[]);
    assert_eq!(code, 0, "{err}");
    let calm = files(&s.join("calm"));
    for point in ["write", "atomic_write.rename", "commit.manifest", "commit.rename", "commit.renamed"] {
        let dir = s.join(point);
        let path = dir.display().to_string();
        let mut c = ecr(&["run", "smoke", "--quiet", "--out", &path]);
        let status =
            c.env("ECR_FAILPOINT", format!("{point}=kill@3")).stderr(Stdio::null()).status().unwrap();
        assert!(!status.success(), "{point} was not passed three times");
        let (code, _, err) = smoke(&dir, &[]);
        assert_eq!(code, 0, "{err}");
        assert_same(&calm, &files(&dir), point);
    }
}

/// Sends a signal, as a terminal or a service manager would.
fn send(child: &Child, signal: &str) {
    let ok = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
    assert!(ok.success(), "kill -{signal}");
}

/// Runs smoke in `dir`, sends `signal` after `moment`; exit code and stderr.
fn interrupted(dir: &std::path::Path, moment: Duration, signal: &str) -> (i32, String) {
    let path = dir.display().to_string();
    let mut child = ecr(&["run", "smoke", "--quiet", "--out", &path])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(moment);
    if child.try_wait().unwrap().is_none() {
        send(&child, signal);
    }
    let out = child.wait_with_output().unwrap();
    (out.status.code().unwrap_or(-1), String::from_utf8(out.stderr).unwrap())
}

#[test]
fn an_interrupted_run_says_how_to_go_on_and_changes_no_bit() {
    let s = Scratch::new("int");
    let started = Instant::now();
    assert_eq!(smoke(&s.join("calm"), &[]).0, 0);
    let whole = started.elapsed();
    let calm = files(&s.join("calm"));
    let mut draws = Stream::new(12).child("interrupt").rng();
    let (mut stops, mut in_loops, mut round) = (0, 0, 0);
    while stops < 8 || in_loops < 2 {
        let dir = s.join(&format!("int-{round}"));
        for _ in 0..3 {
            // Late enough for the handler to be there.
            let moment = Duration::from_millis(40) + whole.mul_f64(0.6 * draws.uniform());
            let (code, err) = interrupted(&dir, moment, if round % 2 == 0 { "INT" } else { "TERM" });
            if code == 0 {
                break;
            }
            assert_eq!(code, 130, "{err}");
            assert!(err.contains("to continue: ") && err.contains("run smoke --quiet --out"), "{err}");
            assert!(!err.contains("error:"), "{err}");
            stops += 1;
            if err.contains("a checkpoint after step") {
                in_loops += 1;
                let found = std::fs::read_dir(dir.join("checkpoints")).unwrap().count();
                assert!(found > 0, "no checkpoint: {err}");
            }
        }
        let (code, _, err) = smoke(&dir, &[]);
        assert_eq!(code, 0, "{err}");
        assert_same(&calm, &files(&dir), &format!("interrupted, round {round}"));
        round += 1;
        assert!(round < 30, "only {stops} interruptions, {in_loops} of them in a loop, in {round} rounds");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    let s = Scratch::new("twice");
    // Steps of seconds: all texts in one batch of a wide encoder, again and again.
    let slow = ["emotion.max_texts=0", "emotion.batch_tokens=1000000", "emotion.epochs=100"];
    let wide = ["encoder.hidden_size=192", "encoder.intermediate_size=384", "encoder.num_layers=2"];
    for attempt in 0.. {
        let dir = s.join(&format!("run-{attempt}"));
        let path = dir.display().to_string();
        let mut args = vec!["run", "smoke", "--quiet", "--out", &path, "--threads", "1"];
        slow.iter().chain(&wide).for_each(|set| args.extend(["--set", set]));
        let mut child = ecr(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // The log is opened right before the first step.
        while !dir.join("logs/emotion_train.metrics.jsonl").exists() {
            assert!(child.try_wait().unwrap().is_none(), "ended too early");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(100));
        send(&child, "INT");
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        err.read_line(&mut line).unwrap();
        send(&child, "INT");
        let mut rest = String::new();
        err.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130));
        // The step may have ended between the two.
        if line.contains("once more") && !rest.contains("a checkpoint after step") {
            return;
        }
        assert!(attempt < 10, "never stopped at once: {line}{rest}");
    }
}
