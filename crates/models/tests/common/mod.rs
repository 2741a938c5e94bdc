//! Helpers of the attack and round-trip tests.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ecr_core::{Kind, Result, io};

/// A file of the workspace's fixtures.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

/// An empty directory of its own, removed when dropped.
pub struct Temp(PathBuf);

impl Temp {
    pub fn new(name: &str) -> Self {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        io::remove_dir_all(&dir).unwrap();
        io::create_dir_all(&dir).unwrap();
        Self(dir)
    }
    pub fn path(&self) -> &Path {
        &self.0
    }
    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let p = self.0.join(name);
        io::atomic_write(&p, bytes.as_ref()).unwrap();
        p
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        let _ = io::remove_dir_all(&self.0);
    }
}

/// The attack is refused in time by an error about data or configuration that says what it found.
pub fn refused<T>(what: &str, f: impl FnOnce() -> Result<T>) -> String {
    let start = Instant::now();
    let e = match f() {
        Ok(_) => panic!("{what}: accepted"),
        Err(e) => e,
    };
    assert!(start.elapsed() < Duration::from_secs(5), "{what}: took {:?}", start.elapsed());
    assert!(matches!(e.kind, Kind::Data | Kind::Config), "{what}: {:?}, {e}", e.kind);
    assert!(e.got.is_some() || e.expected.is_some(), "{what}: {e}");
    e.to_string()
}

/// Runs all tests of this binary but the calling one once more, one after another, in a process that may map
/// `mib` MiB only: an allocation that a hostile size asks for aborts it.
pub fn within_memory(caller: &str, mib: usize) {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: memory is limited on Linux only");
        return;
    }
    let out = std::process::Command::new("sh")
        .args(["-c", &format!("ulimit -v {} && exec \"$0\" \"$@\"", mib * 1024)])
        .arg(std::env::current_exe().unwrap())
        .args(["--test-threads=1", "--skip", caller])
        .env("MALLOC_ARENA_MAX", "1")
        .env("RAYON_NUM_THREADS", "1")
        .output()
        .unwrap();
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    assert!(out.status.success(), "within {mib} MiB:\n{}\n{}", text(&out.stdout), text(&out.stderr));
    assert!(text(&out.stdout).contains("test result: ok"), "{}", text(&out.stdout));
}
