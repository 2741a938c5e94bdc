//! `kill -9` at random moments: a run that was killed and resumed must end with the bits of one that was not.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::args::Args;

/// Runs the preset once undisturbed and `--runs` times disturbed, and compares. Without `--kills` a start is killed at
/// a moment anywhere in the run's length; with it every run is killed that often, a share of its length apart on
/// average, so that all kills together cost about one more run.
pub(crate) fn run(root: &Path, words: &[String]) -> Result<(), String> {
    let args =
        Args::parse(words, &["--runs", "--preset", "--seed", "--kills"], &["--vary-threads", "--keep"])?;
    let runs: usize = args.number("--runs", 30)?;
    let mut draws = SplitMix(args.number("--seed", 1)?);
    let preset = args.text("--preset").unwrap_or("demo");
    let build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .current_dir(root)
        .args(["build", "--release", "--locked", "-p", "ecr"])
        .status();
    if !build.map_err(|e| format!("start cargo: {e}"))?.success() {
        return Err("torture: the binary does not build".into());
    }
    let most_kills = args.number("--kills", 20)?;
    let job = Job {
        binary: root.join("target/release/ecr"),
        preset: preset.to_owned(),
        root: root.to_owned(),
        vary_threads: args.has("--vary-threads"),
        most_kills,
        reach: if args.text("--kills").is_some() { reach(most_kills) } else { 1.0 },
    };
    let scratch = root.join("target/torture");
    fresh(&scratch)?;

    let (kills, differing) = campaign(&job, &scratch, runs, args.has("--keep"), &mut draws)?;
    println!("torture: {runs} runs, {kills} kills, {differing} differing files");
    if differing > 0 {
        return Err(format!("torture: killed runs are kept in {}", scratch.display()));
    }
    if kills == 0 && runs > 0 {
        return Err("torture: nothing was killed, so nothing was shown; use more runs".into());
    }
    Ok(())
}

/// One undisturbed run and `runs` disturbed ones below `scratch`; returns kills and differing files.
fn campaign(
    job: &Job,
    scratch: &Path,
    runs: usize,
    keep: bool,
    draws: &mut SplitMix,
) -> Result<(usize, usize), String> {
    let clean = scratch.join("undisturbed");
    let t = Instant::now();
    job.to_the_end(&clean)?;
    let whole = t.elapsed();
    let files = contents(&clean)?;
    println!("torture: `{}` undisturbed: {:.1} s, {} files", job.preset, whole.as_secs_f64(), files.len());
    if files.is_empty() {
        return Err("torture: the run left no file to compare".into());
    }

    let (mut kills, mut differing) = (0, 0);
    for n in 1..=runs {
        let dir = scratch.join(format!("killed-{n}"));
        let mut moments = Vec::new();
        let mut done = false;
        while !done && moments.len() < job.most_kills {
            let moment = whole.mul_f64(job.reach * draws.unit());
            let threads = (job.vary_threads && moments.len() % 2 == 1).then_some("1");
            done = job.killed_after(&dir, moment, threads)?;
            if !done {
                moments.push(format!("{:.2}", moment.as_secs_f64()));
            }
        }
        if !done {
            job.to_the_end(&dir)?;
        }
        kills += moments.len();
        let wrong = differences(&clean, &dir)?;
        println!(
            "torture: run {n}/{runs}: killed {} times (seconds after each start: {}), {} files differ",
            moments.len(),
            if moments.is_empty() { "-".to_owned() } else { moments.join(", ") },
            wrong.len()
        );
        wrong.iter().for_each(|f| println!("  {f}"));
        differing += wrong.len();
        if wrong.is_empty() && !keep {
            std::fs::remove_dir_all(&dir).map_err(|e| format!("remove {}: {e}", dir.display()))?;
        }
    }
    Ok((kills, differing))
}

struct Job {
    binary: PathBuf,
    preset: String,
    root: PathBuf,
    /// Every other start of a run on one thread.
    vary_threads: bool,
    /// Kills of one run after which it is left alone.
    most_kills: usize,
    /// Latest moment of a kill, a share of the run's length.
    reach: f64,
}

/// How late kills may come, so that `kills` of them spread over about one run.
fn reach(kills: usize) -> f64 {
    (2.0 / (kills as f64 + 1.0)).min(1.0)
}

impl Job {
    fn command(&self, dir: &Path) -> Command {
        let mut c = Command::new(&self.binary);
        c.current_dir(&self.root).args(["run", &self.preset, "--quiet", "--out"]).arg(dir);
        c.stdin(Stdio::null()).stdout(Stdio::null());
        c
    }

    fn to_the_end(&self, dir: &Path) -> Result<(), String> {
        let status =
            self.command(dir).status().map_err(|e| format!("start {}: {e}", self.binary.display()))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("torture: a run in {} ended with {status}", dir.display()))
        }
    }

    /// Whether the run ended by itself, and well, before `moment`.
    fn killed_after(&self, dir: &Path, moment: Duration, threads: Option<&str>) -> Result<bool, String> {
        let mut command = self.command(dir);
        command.envs(threads.map(|t| ("RAYON_NUM_THREADS", t)));
        let mut child = command.spawn().map_err(|e| format!("start {}: {e}", self.binary.display()))?;
        let start = Instant::now();
        loop {
            match child.try_wait().map_err(|e| format!("wait: {e}"))? {
                Some(status) if status.success() => return Ok(true),
                Some(status) => {
                    return Err(format!("torture: a resumed run in {} ended with {status}", dir.display()));
                }
                None if start.elapsed() >= moment => {
                    child.kill().map_err(|e| format!("kill: {e}"))?;
                    child.wait().map_err(|e| format!("wait: {e}"))?;
                    return Ok(false);
                }
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

/// Seeded draws; SplitMix64 (Steele et al. 2014).
struct SplitMix(u64);

impl SplitMix {
    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn fresh(dir: &Path) -> Result<(), String> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(|e| format!("remove {}: {e}", dir.display()))?;
    }
    std::fs::create_dir_all(dir).map_err(|e| format!("make {}: {e}", dir.display()))
}

/// Files below `dir` that must be equal: all but wall-clock figures, `tracking/` (which holds them) and the lock.
fn contents(dir: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let mut out = BTreeSet::new();
    let mut open = vec![PathBuf::new()];
    while let Some(inner) = open.pop() {
        let here = dir.join(&inner);
        for entry in std::fs::read_dir(&here).map_err(|e| format!("list {}: {e}", here.display()))? {
            let entry = entry.map_err(|e| format!("list {}: {e}", here.display()))?;
            let name = inner.join(entry.file_name());
            if entry.path().is_dir() {
                if name != Path::new("tracking") {
                    open.push(name);
                }
            } else if entry.file_name() != ".lock" && name != Path::new("logs/timing.jsonl") {
                out.insert(name);
            }
        }
    }
    Ok(out)
}

/// Files that differ, each with how.
fn differences(a: &Path, b: &Path) -> Result<Vec<String>, String> {
    let (left, right) = (contents(a)?, contents(b)?);
    let mut out = Vec::new();
    for name in left.union(&right) {
        let shown = name.display();
        match (left.contains(name), right.contains(name)) {
            (true, false) => out.push(format!("{shown}: missing after kills")),
            (false, true) => out.push(format!("{shown}: left behind by kills")),
            _ => {
                if let Some(at) = first_difference(&a.join(name), &b.join(name))? {
                    out.push(format!("{shown}: differs from byte {at} on"));
                }
            }
        }
    }
    Ok(out)
}

/// First byte at which two files differ, the shorter one's end included.
fn first_difference(a: &Path, b: &Path) -> Result<Option<u64>, String> {
    let open = |p: &Path| std::fs::File::open(p).map_err(|e| format!("open {}: {e}", p.display()));
    let (mut a, mut b) = (open(a)?, open(b)?);
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let mut at = 0;
    loop {
        x.clear();
        y.clear();
        (&mut a).take(1 << 20).read_to_end(&mut x).map_err(|e| format!("read: {e}"))?;
        (&mut b).take(1 << 20).read_to_end(&mut y).map_err(|e| format!("read: {e}"))?;
        if x != y {
            let same = x.iter().zip(&y).take_while(|(p, q)| p == q).count();
            return Ok(Some(at + same as u64));
        }
        if x.is_empty() {
            return Ok(None);
        }
        at += x.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differing_missing_and_extra_files_are_found_and_clocks_are_not() {
        let root = std::env::temp_dir().join(format!("ecr-torture-{}", std::process::id()));
        let (a, b) = (root.join("a"), root.join("b"));
        fresh(&a.join("tracking/wandb")).unwrap();
        std::fs::write(a.join("tracking/wandb/clock"), "9").unwrap();
        for (dir, texts) in [
            (&a, [("same", "1"), ("one", "abc"), ("logs/timing.jsonl", "5"), (".lock", "")]),
            (&b, [("same", "1"), ("two", "x"), ("logs/timing.jsonl", "6"), ("one", "abd")]),
        ] {
            fresh(&dir.join("logs")).unwrap();
            texts.iter().for_each(|(n, t)| std::fs::write(dir.join(n), t).unwrap());
        }
        let found = differences(&a, &b).unwrap();
        assert_eq!(found, ["one: differs from byte 2 on", "two: left behind by kills"]);
        assert!(differences(&a, &a).unwrap().is_empty());
        std::fs::remove_dir_all(&root).unwrap();
    }

    /// A pretended `ecr` of shell built-ins: `begin`, then ten lines appended to a log, one each 10 ms.
    fn pretender(scratch: &Path, begin: &str) -> Job {
        use std::os::unix::fs::PermissionsExt;
        let binary = scratch.join("ecr");
        let script = format!(
            "#!/bin/sh\nd=$5; mkdir -p $d/logs; {begin}\n\
             for i in 0 1 2 3 4 5 6 7 8 9; do echo $i >> $d/log; sleep 0.01; done\n\
             echo $$ > $d/logs/timing.jsonl\n"
        );
        std::fs::write(&binary, script).unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        Job {
            binary,
            preset: "smoke".into(),
            root: scratch.to_owned(),
            vary_threads: true,
            most_kills: 3,
            reach: 1.0,
        }
    }

    #[test]
    fn a_faithful_resume_passes_and_a_forgetful_one_is_caught() {
        let root = std::env::temp_dir().join(format!("ecr-pretender-{}", std::process::id()));
        for (begin, passes) in [(": > $d/log", true), ("true", false)] {
            fresh(&root).unwrap();
            let job = pretender(&root, begin);
            let (kills, differing) = campaign(&job, &root, 3, false, &mut SplitMix(1)).unwrap();
            assert!(kills > 0);
            assert_eq!(differing == 0, passes, "{begin}: {differing}");
        }
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn moments_are_seeded_and_spread() {
        let draw = |seed| (0..1000).scan(SplitMix(seed), |s, _| Some(s.unit())).collect::<Vec<_>>();
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let mean = draw(1).iter().sum::<f64>() / 1000.0;
        assert!((mean - 0.5).abs() < 0.05 && draw(1).iter().all(|u| (0.0..1.0).contains(u)));
    }
}
