//! The reward cache under `kill -9` and with two processes at once.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use ecr_rewards::cached::ScoreStore as _;
use ecr_run::cache::Cache;

const FILE: &str = "ECR_TEST_CACHE";

fn temp(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("ecr-cache-{name}-{}", std::process::id()));
    if dir.exists() {
        ecr_core::io::remove_dir_all(&dir).unwrap();
    }
    ecr_core::io::create_dir_all(&dir).unwrap();
    dir
}

fn key(who: &str, i: usize) -> String {
    ecr_core::io::blake3(format!("{who} {i}").as_bytes())
}

fn score(i: usize) -> Option<f64> {
    (!i.is_multiple_of(5)).then(|| 1.0 / (i + 1) as f64)
}

/// Not a test of its own: the process that is killed. Writes 20 batches of ten.
#[test]
fn writer() {
    let Ok(file) = std::env::var(FILE) else { return };
    let who = std::env::var("ECR_TEST_WHO").unwrap();
    let cache = Cache::new(file);
    for batch in 0..20 {
        let rows: Vec<_> = (10 * batch..10 * batch + 10).map(|i| (key(&who, i), score(i))).collect();
        cache.put("a version", &rows);
    }
}

fn start(file: &Path, who: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["writer", "--exact", "--test-threads=1", "-q"])
        .env(FILE, file)
        .env("ECR_TEST_WHO", who)
        .spawn()
        .unwrap()
}

#[test]
fn whole_batches_or_nothing_after_a_kill() {
    let dir = temp("kill");
    let file = dir.join("rewards.redb");
    let mut whole = 0;
    for round in 0..6 {
        let who = format!("round {round}");
        let mut child = start(&file, &who);
        std::thread::sleep(Duration::from_millis(40 + 150 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        if !file.exists() {
            continue;
        }
        let cache = Cache::new(&file);
        let (entries, damaged) = cache.verify().unwrap();
        assert_eq!((entries % 10, damaged), (0, 0));
        for batch in 0..20 {
            let keys: Vec<String> = (10 * batch..10 * batch + 10).map(|i| key(&who, i)).collect();
            let found = cache.get(&keys);
            let there = found.iter().filter(|f| f.is_some()).count();
            assert!(there == 0 || there == 10, "{there} of 10");
            if there == 10 {
                whole += 1;
                assert!(found.iter().enumerate().all(|(k, f)| *f == Some(score(10 * batch + k))));
            }
        }
    }
    assert!(whole > 0, "no batch was written before a kill");
    ecr_core::io::remove_dir_all(&dir).unwrap();
}

#[test]
fn two_processes_share_a_file_and_pruning_keeps_the_rest() {
    let dir = temp("two");
    let file = dir.join("rewards.redb");
    let mut both = [start(&file, "a"), start(&file, "b")];
    assert!(both.iter_mut().all(|c| c.wait().unwrap().success()));
    let cache = Cache::new(&file);
    let stats = cache.stats().unwrap();
    assert_eq!((stats.entries, stats.versions["a version"].0), (400, 400));
    cache.put("another version", &[("k".into(), Some(2.0))]);
    assert_eq!(cache.prune("a version", 2).unwrap(), 0, "written to today");
    assert_eq!(cache.prune("a version", 0).unwrap(), 400);
    assert_eq!(cache.get(&["k".into(), key("a", 1)]), [Some(Some(2.0)), None]);
    assert_eq!(cache.verify().unwrap(), (1, 0));
    ecr_core::io::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_file_that_is_no_cache_costs_hits_and_no_score() {
    let dir = temp("junk");
    let file = dir.join("rewards.redb");
    ecr_core::io::atomic_write(&file, &b"this is no database, however long it may be".repeat(200)).unwrap();
    let cache = Cache::new(&file);
    cache.put("v", &[("k".into(), Some(1.0))]);
    assert_eq!(cache.get(&["k".into()]), [None]);
    assert!(cache.verify().is_err() && cache.stats().is_err());
    assert!(Cache::new(dir.join("none")).stats().unwrap_err().to_string().contains("no such file"));
    ecr_core::io::remove_dir_all(&dir).unwrap();
}
