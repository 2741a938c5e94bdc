//! What a comparison is made of, as a user names it: run directories, models in them, files of replies.

use std::path::{Path, PathBuf};

use ecr_core::{Error, Result, Stream, io};
use ecr_eval::Bootstrap;
use ecr_eval::many::{Entry, Many, Options, Run, compare_many};

use crate::rundir::RunDir;
use crate::stages::{REPLIES_FILE, read_replies};

/// Names of the evaluated models of a run directory: baseline, student of PPO, then the others by name.
pub fn evaluated(dir: &Path) -> Result<Vec<String>> {
    let mut names: Vec<String> = io::read_dir_sorted(&dir.join("evaluation_results"))?
        .iter()
        .filter(|p| p.join(REPLIES_FILE).is_file())
        .filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned()))
        .collect();
    let first = |n: &String| ["baseline", "rl_enhanced"].iter().position(|f| f == n).unwrap_or(2);
    names.sort_by_key(|n| (first(n), n.clone()));
    Ok(names)
}

/// The directory name under which a model is evaluated: `ppo` and `sft` name what their stages make.
pub(super) fn model_of(stage: &str) -> &str {
    match stage {
        "ppo" => "rl_enhanced",
        "sft" => "baseline",
        other => other,
    }
}

/// One model: name in the comparison, label of the run, file of its replies.
#[derive(Debug, PartialEq)]
struct Found {
    name: String,
    label: String,
    file: PathBuf,
}

/// What one argument stands for: `[LABEL=]DIR[:MODEL]`, `[LABEL=]FILE`, or a model of `out`.
fn find(arg: &str, out: &Path) -> Result<Vec<Found>> {
    let (label, rest) = match arg.split_once('=') {
        Some((l, r)) if !Path::new(arg).exists() => (Some(l), r),
        _ => (None, arg),
    };
    let (path, model) = match rest.rsplit_once(':') {
        Some((p, m)) if !Path::new(rest).exists() && Path::new(p).is_dir() => (p, Some(m)),
        _ => (rest, None),
    };
    let path = Path::new(path);
    let of = |dir: &Path, model: &str, name: String| Found {
        name,
        label: dir.file_name().map_or_else(|| "run".into(), |n| n.to_string_lossy().into_owned()),
        file: RunDir::new(dir).evaluation(model).join(REPLIES_FILE),
    };
    if path.is_file() {
        let model = path.parent().and_then(Path::file_name).map(|n| n.to_string_lossy().into_owned());
        let name = label.map(String::from).or(model).unwrap_or_else(|| rest.into());
        // The run directory: RUN/evaluation_results/MODEL/replies.json.
        let run = path.ancestors().nth(3).and_then(Path::file_name);
        let run = run.map_or_else(|| "run".into(), |n| n.to_string_lossy().into_owned());
        return Ok(vec![Found { name, label: run, file: path.to_path_buf() }]);
    }
    let known = evaluated(if path.is_dir() { path } else { out })?;
    let has = |model: &str| known.iter().any(|k| k == model_of(model));
    match model {
        Some(m) if has(m) => {
            let name = label.unwrap_or_else(|| model_of(m)).to_owned();
            return Ok(vec![of(path, model_of(m), name)]);
        }
        None if path.is_dir() && !known.is_empty() => {
            let name = |m: &String| label.map_or_else(|| m.clone(), |l| format!("{l}/{m}"));
            return Ok(known.iter().map(|m| of(path, m, name(m))).collect());
        }
        None if !path.is_dir() && has(rest) => {
            let name = label.unwrap_or_else(|| model_of(rest)).to_owned();
            return Ok(vec![of(out, model_of(rest), name)]);
        }
        _ => {}
    }
    let where_ = if path.is_dir() { path } else { out };
    Err(Error::config(format!("find {arg} to compare"))
        .expected(format!(
            "a run directory, DIR:MODEL, a replies.json, or a model evaluated in {}",
            where_.display()
        ))
        .got(if known.is_empty() {
            format!("no evaluated model in {}", where_.display())
        } else {
            format!("only {} there", known.join(", "))
        })
        .hint("`ecr eval --out DIR` evaluates the models of a run; LABEL=... gives a model another name"))
}

/// Reads everything that the arguments stand for; models of one name are runs of one entry, in the order given.
///
/// # Errors
/// Config: an argument that names nothing. Data: a damaged file.
pub fn entries(args: &[String], out: &Path) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    for arg in args {
        for f in find(arg, out)? {
            add(&mut entries, &f.name, &f.label, &f.file)?;
        }
    }
    Ok(entries)
}

/// Compares what the arguments stand for, the first model being the reference.
///
/// # Errors
/// As [`entries`]; Data: other prompts; Config: fewer than two models, an unknown metric.
pub fn compare_models(
    args: &[String],
    out: &Path,
    metrics: Vec<String>,
    resamples: usize,
    stream: Stream,
) -> Result<Many> {
    compare_many(entries(args, out)?, &Options { metrics, bootstrap: Bootstrap { resamples, stream } })
}

/// Adds a run to the entry of its name.
pub(super) fn add(entries: &mut Vec<Entry>, name: &str, label: &str, file: &Path) -> Result<()> {
    let evaluation = read_replies(file)?;
    let i = entries.iter().position(|e| e.name == name).unwrap_or_else(|| {
        entries.push(Entry { name: name.into(), runs: Vec::new() });
        entries.len() - 1
    });
    let runs = &mut entries[i].runs;
    // Labels tell runs apart.
    let mut unique = label.to_owned();
    let mut n = 1;
    while runs.iter().any(|r| r.label == unique) {
        n += 1;
        unique = format!("{label}-{n}");
    }
    runs.push(Run { label: unique, evaluation });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_name_a_model() {
        let root = std::env::temp_dir().join(format!("ecr-entries-{}", std::process::id()));
        for (run, models) in [("a", vec!["baseline", "rl_enhanced", "grpo"]), ("b", vec!["baseline"])] {
            for m in models {
                let file = root.join(run).join("evaluation_results").join(m).join(REPLIES_FILE);
                io::atomic_write(&file, b"{}").unwrap();
            }
        }
        let (a, b) = (root.join("a"), root.join("b").display().to_string());
        let names = |arg: &str| -> Vec<(String, String)> {
            find(arg, &a).unwrap().into_iter().map(|f| (f.name, f.label)).collect()
        };
        let pair = |n: &str, l: &str| (n.to_string(), l.to_string());
        assert_eq!(names("ppo"), [pair("rl_enhanced", "a")]);
        assert_eq!(names("x=grpo"), [pair("x", "a")]);
        assert_eq!(names(&b), [pair("baseline", "b")]);
        assert_eq!(names(&format!("base={b}:sft")), [pair("base", "b")]);
        let all = names(&format!("old={}", a.display()));
        assert_eq!(all, [pair("old/baseline", "a"), pair("old/rl_enhanced", "a"), pair("old/grpo", "a")]);
        let file = root.join("a/evaluation_results/grpo").join(REPLIES_FILE).display().to_string();
        assert_eq!(names(&file), [pair("grpo", "a")]);
        for bad in ["mappo", "nowhere/at/all", &format!("{b}:grpo")] {
            let e = find(bad, &a).unwrap_err();
            assert!(e.exit_code() == 2 && e.to_string().contains("only baseline"), "{e}");
        }
        io::remove_dir_all(&root).unwrap();
    }
}
