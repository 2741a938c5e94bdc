//! Experiments, sweeps and comparisons of many models, on smoke-sized runs.

use serde_json::Value as Json;

use crate::{Scratch, assert_same, ecr, files, finish, smoke};

fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn fails(args: &[&str], code: i32, says: &[&str]) {
    let (got, _, err) = finish(&mut ecr(args));
    assert_eq!(got, code, "{args:?}: {err}");
    for s in says {
        assert!(err.contains(s), "{args:?}: {s:?} is missing in\n{err}");
    }
}

#[test]
fn an_experiment_shares_what_is_equal_compares_seeds_and_continues() {
    let s = Scratch::new("experiment");
    let out = s.0.display().to_string();
    let args = ["experiment", "smoke", "--out", &out, "--json"];
    let (code, stdout, err) = finish(&mut ecr(&args));
    assert_eq!(code, 0, "{err}");
    // Four runs, one baseline: each stage before training is done once and taken over three times.
    for stage in ["prepare", "emotion", "critic", "sft"] {
        assert_eq!(err.matches(&format!("{stage}: done in")).count(), 1, "{stage}: {err}");
        assert_eq!(err.matches(&format!("{stage}: the same as in")).count(), 3, "{stage}: {err}");
    }
    assert_eq!(err.matches("ppo: done in").count(), 4, "{err}");
    let o = json(&stdout);
    let models = |o: &Json| -> Vec<(String, usize)> {
        let list = o["comparison"]["models"].as_array().unwrap();
        list.iter()
            .map(|m| (m["name"].as_str().unwrap().into(), m["runs"].as_array().unwrap().len()))
            .collect()
    };
    // The baseline of all runs is one model.
    let want = [("baseline", 1), ("usual/ppo", 2), ("usual/rloo", 2), ("still", 2)];
    let of = models(&o);
    assert_eq!(of[0], ("baseline".into(), 1));
    assert_eq!(of.iter().map(|m| m.0.as_str()).collect::<Vec<_>>(), want.map(|w| w.0));
    assert_eq!((of[1].1, of[2].1), (2, 2), "seeds differ: {of:?}");
    assert_eq!(o["expectations"][0]["held"], true);
    assert!(o["training"].as_array().unwrap().iter().any(|c| c["model"] == "usual/rloo"));
    assert!(o["comparison"]["breakdown"].as_array().unwrap().iter().any(|g| g["by"] == "emotion"));
    assert!(!stdout.contains(&out), "results hold no path");
    let page = std::fs::read_to_string(s.join("smoke/experiment.md")).unwrap();
    for part in ["# Experiment: smoke", "## Expected", "## Training", "### Metrics", "### Win rates"] {
        assert!(page.contains(part), "{part}");
    }
    // Once more: nothing is trained, the same bytes come out.
    let before = files(&s.join("smoke"));
    let (code, again, err) = finish(&mut ecr(&args));
    assert!(code == 0 && !err.contains("done in"), "{err}");
    assert_eq!(again, stdout);
    assert_same(&before, &files(&s.join("smoke")), "after a finished experiment");

    // The same models by hand: seeds of one name are runs of one model.
    let run = |v: &str, n: u32| s.join(&format!("smoke/{v}/seed-{n}")).display().to_string();
    let (one, two) = (run("usual", 1), run("usual", 2));
    let (code, stdout, err) = finish(&mut ecr(&["compare", &one, &two, "--json", "--metrics", "bleu_1,kl"]));
    assert_eq!(code, 0, "{err}");
    let c = json(&stdout);
    assert_eq!(c["models"][1]["runs"].as_array().unwrap().len(), 2, "{stdout}");
    assert_eq!(c["metrics"].as_object().unwrap().len(), 2);
    let still = format!("still={}:ppo", run("still", 1));
    let (code, page, err) = finish(&mut ecr(&["compare", "baseline", &still, "ppo", "--out", &one]));
    assert!(code == 0 && page.contains("# Comparison: still, rl_enhanced against baseline"), "{err}{page}");
    // A run with a third model has its own page of all of them.
    assert!(s.join("smoke/usual/seed-1/comparison_all.md").is_file());
    assert!(!s.join("smoke/still/seed-1/comparison_all.md").exists());
    // Another seed of the whole run asks other prompts.
    let other = s.join("other");
    assert_eq!(smoke(&other, &["--set", "run.seed=5"]).0, 0);
    fails(&["compare", &one, &other.display().to_string()], 3, &["same prompts", "run.train_seed"]);
    fails(&["compare", "mappo", "--out", &one], 2, &["mappo", "only baseline, rl_enhanced, rloo there"]);

    // A run of its own with that training seed gives the same bits: taking over changes nothing.
    let alone = s.join("alone");
    let set = ["--set", "run.train_seed=2", "--set", "run.also=[\"rloo\"]"];
    assert_eq!(smoke(&alone, &set).0, 0);
    for file in ["comparison.json", "comparison_all.json", "models/rloo_enhanced/model.safetensors"] {
        let read = |d: &std::path::Path| std::fs::read(d.join(file)).unwrap();
        assert!(read(&alone) == read(std::path::Path::new(&two)), "{file}");
    }
}

#[test]
fn a_sweep_judges_points_on_validation_prompts() {
    let s = Scratch::new("sweep");
    let out = s.0.display().to_string();
    let args = [
        "sweep",
        "smoke",
        "--grid",
        "ppo.steps=1,2",
        "--random",
        "ppo.learning_rate=log:1e-4..1e-3",
        "--budget",
        "2",
        "--goals",
        "mean_reward,kl",
        "--out",
        &out,
        "--json",
    ];
    let (code, stdout, err) = finish(&mut ecr(&args));
    assert_eq!(code, 0, "{err}");
    let o = json(&stdout);
    let points = o["points"].as_array().unwrap();
    assert_eq!((points.len(), o["split"].as_str()), (2, Some("valid")));
    assert!(points[0]["best"] == true && points[0]["set"][0].as_str().unwrap().starts_with("ppo.steps="));
    assert!(s.join("smoke/sweep.md").is_file());
    let settings = std::fs::read_to_string(s.join("smoke/point-001/seed-1/.state/config.json")).unwrap();
    assert!(settings.contains(r#""eval.split": "valid""#), "{settings}");
}

#[test]
fn mistakes_cost_nothing() {
    let s = Scratch::new("mistakes");
    let out = s.0.display().to_string();
    fails(&["experiment", "smoke", "--out", &out, "--set", "ppo.stepps=1"], 2, &["did you mean ppo.steps?"]);
    fails(&["experiment", "smoek", "--out", &out], 2, &["smoek", "algorithms, constant-reward"]);
    fails(&["experiment", "smoke", "--out", &out, "--seeds", "0"], 2, &["above 0"]);
    fails(&["sweep", "smoke", "--out", &out, "--grid", "ppo.stepps=1,2"], 2, &["did you mean ppo.steps?"]);
    fails(&["sweep", "smoke", "--out", &out, "--grid", "ppo.steps=1,2", "--budget", "1"], 2, &["--budget"]);
    fails(&["sweep", "smoke", "--out", &out], 2, &["--grid"]);
    fails(&["sweep", "smoke", "--out", &out, "--grid", "ppo.steps=1", "--goals", "length"], 2, &[":min"]);
    let other = s.join("other.toml");
    let text = "base = \"smoke\"\n[[variant]]\nname = \"a\"\n[[variant]]\nname = \"b\"\nset = [\"eval.prompts=3\"]\n";
    std::fs::write(&other, text).unwrap();
    let file = other.display().to_string();
    fails(&["experiment", &file, "--out", &out], 2, &["compare b with a", "eval.prompts"]);
    std::fs::remove_file(&other).unwrap();
    fails(&["compare", "--out", &out, "baseline"], 2, &["no evaluated model"]);
    assert_eq!(std::fs::read_dir(&s.0).unwrap().count(), 0, "nothing was written");
    let (code, listed, _) = finish(&mut ecr(&["experiment"]));
    assert!(code == 0 && listed.contains("constant-reward: A control."), "{listed}");
}
