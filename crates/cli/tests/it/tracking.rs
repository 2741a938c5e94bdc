//! Tracking beside a run: it changes no bit of the results, survives a kill, and a full disk stops only itself.

use std::collections::BTreeMap;
use std::path::Path;

use ecr_track::wandb::read::Transcript;
use ecr_track::wandb::{file_of, segments};

use crate::{Scratch, assert_same, ecr, files, finish, smoke};

/// The files of a run that tracking may not change.
fn results(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = files(dir);
    // The settings as they were given are kept for the next command.
    all.retain(|name, _| !name.starts_with("tracking/") && name != ".state/config.json");
    all
}

#[test]
fn a_kill_leaves_one_run_under_one_id_and_a_full_disk_is_a_warning() {
    let s = Scratch::new("tracking");
    let (code, _, err) = smoke(&s.join("calm"), &[]);
    assert_eq!(code, 0, "{err}");
    let calm = results(&s.join("calm"));

    let track = ["--use_wandb", "--set", "track.tensorboard=true"];
    let dir = s.join("killed").display().to_string();
    let args = ["run", "smoke", "--quiet", "--out", &dir, track[0], track[1], track[2]];
    // Somewhere in the emotion stage, and somewhere in PPO.
    for at in ["append.bytes=kill@40", "append.bytes=kill@75"] {
        let (code, _, _) = finish(ecr(&args).env("ECR_FAILPOINT", at));
        assert_ne!(code, 0, "{at} was not reached");
    }
    let (code, _, err) = finish(&mut ecr(&args));
    assert_eq!((code, err.as_str()), (0, ""));
    assert_same(&calm, &results(Path::new(&dir)), "tracked and killed");
    let [(run, id)] = segments(&s.join("killed/tracking/wandb")).unwrap().try_into().unwrap();
    let t = Transcript::of(&std::fs::read(file_of(&run, &id)).unwrap());
    assert_eq!((t.run, t.exit), (Some(id), Some(0)));
    let metrics = calm.iter().filter(|(name, _)| name.ends_with(".metrics.jsonl"));
    let lines: usize = metrics.map(|(_, b)| b.iter().filter(|c| **c == b'\n').count()).sum();
    let tables = t.files.len();
    assert!(tables > 0 && lines > 20);
    assert_eq!(t.history.len(), lines + tables, "every record once");

    let dir = s.join("full").display().to_string();
    let args = ["run", "smoke", "--quiet", "--out", &dir, track[0]];
    let (code, _, err) = finish(ecr(&args).env("ECR_FAILPOINT", "append.bytes=enospc@30"));
    assert_eq!(code, 0, "{err}");
    assert_eq!(err.matches("tracking to wandb stops here").count(), 1, "{err}");
    assert_same(&calm, &results(Path::new(&dir)), "tracked on a full disk");
}
