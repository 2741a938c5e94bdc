//! `kill -9` anywhere, then the same command: the same bits.

use std::process::Stdio;
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
