//! Many models with several runs each: constructed replies of known difference, and the coverage of the intervals.
#![allow(clippy::unwrap_used)] // helpers of tests

use ecr_core::{ItemId, Role, Stream, Utterance};
use ecr_eval::many::{Entry, Many, Options, Run, compare_many};
use ecr_eval::{Bootstrap, Evaluation, Example, ModelRun, ReferenceNll};

/// One reply to prompt `i` of `conversation`, judged `score`.
fn example(i: u64, conversation: u64, text: &str, score: f64) -> Example {
    Example {
        conversation,
        context: vec![Utterance { role: Role::Seeker, text: format!("prompt {i}") }],
        reply: text.into(),
        finished: true,
        length: 3,
        reference: None,
        labels: if i.is_multiple_of(2) { vec![ItemId(1)] } else { vec![] },
        named: if i.is_multiple_of(4) { vec![ItemId(1)] } else { vec![] },
        unknown: 0,
        reward: None,
        empathy_eval: Some(score),
        epitome_eval: None,
        kl: None,
        critic_value: None,
        seeker_emotion: Some(if i < 6 { "curious" } else { "happy" }.into()),
    }
}

/// A run whose reply to prompt `i`, of conversation `i / per`, is judged `score(i)`.
fn run(label: &str, n: u64, per: u64, score: impl Fn(u64) -> f64) -> Run {
    let one = |i| example(i, i / per, &format!("{label} says {i}"), score(i));
    let nll = vec![ReferenceNll { conversation: 0, nll: 2.0, tokens: 1 }];
    let run = ModelRun { model: label.into(), examples: (0..n).map(one).collect(), reference_nll: nll };
    Run { label: label.into(), evaluation: Evaluation::new(run).unwrap() }
}

fn entry(name: &str, runs: Vec<Run>) -> Entry {
    Entry { name: name.into(), runs }
}

fn options(resamples: usize) -> Options {
    Options {
        metrics: vec!["empathy_eval".into()],
        bootstrap: Bootstrap { resamples, stream: Stream::new(11) },
    }
}

/// Noise of prompt `i` in run `s`.
fn noise(name: &str, s: u64, i: u64) -> f64 {
    Stream::new(77).child(name).at(s).at(i).rng().normal()
}

/// Twelve prompts, three models: `high` is better by .3 everywhere, `mixed` wins four of twelve and ties four.
fn three(metrics: &[&str]) -> Many {
    let base = |i: u64| 0.1 * (i % 5) as f64;
    let mixed = |i: u64| {
        base(i)
            + match i % 3 {
                0 => 0.2,
                1 => 0.0,
                _ => -0.2,
            }
    };
    let entries = vec![
        entry("base", vec![run("a", 12, 1, base)]),
        entry("high", vec![run("b", 12, 1, |i| base(i) + 0.3)]),
        entry("mixed", vec![run("c", 12, 1, mixed)]),
    ];
    let metrics = metrics.iter().map(|m| m.to_string()).collect();
    compare_many(entries, &Options { metrics, ..options(4000) }).unwrap()
}

#[test]
fn one_run_each_by_hand() {
    let c = three(&["empathy_eval"]).comparison;
    let rows = &c.metrics["empathy_eval"].against_reference;
    let (high, mixed) = (&rows[0], &rows[1]);
    assert!((high.estimate.diff - 0.3).abs() < 1e-12 && high.estimate.p == 0.0 && high.n == 12);
    assert_eq!(high.effect.dz, None, "a constant difference has no spread");
    // Σ (x − mean)² of 0, .1, .2, .3, .4 in the counts 3, 3, 2, 2, 2: mean 2.1/12, squares .6375 − .3675.
    let squares = 3.0 * 0.01 + 2.0 * (0.04 + 0.09 + 0.16) - 12.0 * (2.1f64 / 12.0).powi(2);
    assert!((high.effect.d.unwrap() - 0.3 / (squares / 11.0).sqrt()).abs() < 1e-9);
    // Differences .2, 0, −.2, four times each: mean 0, variance 12 · .04 · (8/12) / 11.
    let variance: f64 = 8.0 * 0.04 / 11.0;
    assert!(mixed.estimate.diff == 0.0 && mixed.effect.dz.unwrap().abs() < 1e-12);
    let se = (variance / 12.0).sqrt();
    assert!((mixed.estimate.se / se - 1.0).abs() < 0.04, "{} and {se}", mixed.estimate.se);
    assert!((mixed.estimate.df - 11.0).abs() < 1e-9 && (mixed.estimate.p - 1.0).abs() < 1e-9);
    // (2.201 + .876) standard errors: t of 11 degrees at .025 and at .2.
    assert!((mixed.estimate.detectable / mixed.estimate.se - 3.0767).abs() < 1e-3);
    let rate =
        |m: &str, a: &str| c.wins.iter().find(|w| w.model == m && w.against == a).map(|w| w.rate).unwrap();
    assert!((rate("high", "base") - 1.0).abs() < 1e-12 && (rate("mixed", "base") - 0.5).abs() < 1e-12);
    assert!((rate("mixed", "high") - 0.0).abs() < 1e-12);
    // One of two tests is certain: Holm leaves the other as it is.
    assert_eq!(mixed.estimate.p_holm, mixed.estimate.p);
    assert!(c.notes[0].contains("One run of each model"));
}

#[test]
fn groups_by_hand() {
    let only = three(&["empathy_eval"]).comparison.breakdown;
    assert!(only.iter().all(|g| g.metrics.keys().all(|m| m == "empathy_eval")), "what was not asked for");
    assert!(three(&["length"]).comparison.breakdown.is_empty());
    let c = three(&["empathy_eval", "recommendation_accuracy"]).comparison;
    let group = |by: &str, name: &str| c.breakdown.iter().find(|g| g.by == by && g.name == name).unwrap();
    let curious = group("emotion", "curious");
    // Prompts 0 to 5: 0, .1, .2, .3, .4, 0.
    let value = |g: &ecr_eval::many::Group, m: &str| {
        g.metrics["empathy_eval"].iter().find(|p| p.model == m).map(|p| p.value).unwrap()
    };
    assert!(curious.prompts == 6 && (value(curious, "base") - 1.0 / 6.0).abs() < 1e-12);
    assert!((value(curious, "high") - (1.0 / 6.0 + 0.3)).abs() < 1e-12);
    let yes = group("turn", "recommending");
    assert_eq!((yes.prompts, yes.conversations), (6, 6));
    // Prompts 0, 4 and 8 of the six with a label name it.
    assert_eq!(yes.metrics["recommendation_accuracy"][0].value, 0.5);
    assert!(!group("turn", "not recommending").metrics.contains_key("recommendation_accuracy"));
    let of_high = yes.metrics["empathy_eval"][1].against_reference.unwrap();
    assert!((of_high.diff - 0.3).abs() < 1e-12);
}

/// Coverage of the 95 % interval of a true difference of .5, over simulated studies.
fn coverage(studies: u64, runs: u64, sd_seed: f64, sd_prompt: f64) -> f64 {
    let mut hits = 0;
    for study in 0..studies {
        let name = format!("study {study}");
        let one = |model: u64, s: u64, up: f64| {
            let seed = sd_seed * noise(&name, 1000 + 10 * model + s, 0);
            run(&format!("m{model} s{s}"), 40, 2, |i| {
                // Prompts of a conversation have much in common, also in how far the models differ.
                let shared = noise(&name, 0, i) + sd_prompt * noise(&name, 1 + model, i / 2);
                up + seed + shared + 0.5 * noise(&name, 100 + 10 * model + s, i)
            })
        };
        let model = |m: u64, up: f64| entry(&format!("m{m}"), (0..runs).map(|s| one(m, s, up)).collect());
        let boot = Bootstrap { resamples: 200, stream: Stream::new(study) };
        let o = Options { bootstrap: boot, ..options(0) };
        let c = compare_many(vec![model(0, 0.0), model(1, 0.5)], &o).unwrap().comparison;
        let e = c.metrics["empathy_eval"].against_reference[0].estimate;
        hits += u64::from(e.ci_low <= 0.5 && 0.5 <= e.ci_high);
    }
    hits as f64 / studies as f64
}

#[test]
fn intervals_cover_the_truth_as_often_as_they_say() {
    // Three standard errors of 400 studies are .033. The interval may be a little wide, never narrow.
    for (runs, sd_seed, sd_prompt) in [(1, 0.0, 0.7), (3, 0.0, 0.7), (3, 0.3, 0.7), (3, 1.0, 0.0)] {
        let c = coverage(400, runs, sd_seed, sd_prompt);
        assert!((0.92..=0.99).contains(&c), "{runs} runs, seeds {sd_seed}, prompts {sd_prompt}: {c}");
    }
}

#[test]
fn runs_widen_the_interval_and_shared_ones_are_pairs() {
    let seeds = [0.0, 0.4, 0.8];
    let model = |name: &str, up: f64, labels: [&str; 3]| {
        let runs =
            (0..3).map(|s| run(labels[s], 40, 1, move |i| up + seeds[s] + 0.01 * noise("x", s as u64, i)));
        entry(name, runs.collect())
    };
    let se = |labels: [&str; 3]| {
        let entries = vec![model("a", 0.0, ["s1", "s2", "s3"]), model("b", 0.1, labels)];
        let c = compare_many(entries, &options(2000)).unwrap().comparison;
        let e = c.metrics["empathy_eval"].against_reference[0].estimate;
        (e.se, e.df, c.metrics["empathy_eval"].values["a"].sd.unwrap())
    };
    let (apart, df, sd) = se(["t1", "t2", "t3"]);
    // .4 between neighbours: variance .16 a run, 2 · .16 / 3 of the difference of means; Welch: 4 degrees.
    assert!((sd - 0.4).abs() < 0.01 && (apart - (2.0 * 0.16 / 3.0f64).sqrt()).abs() < 0.02, "{apart}");
    assert!((df - 4.0).abs() < 0.3, "{df}");
    let (together, _, _) = se(["s1", "s2", "s3"]);
    assert!(together < 0.1 * apart, "{together} and {apart}");
}

#[test]
fn copies_count_once() {
    let same = |label: &str| {
        let mut r = run("x", 12, 1, |i| i as f64);
        r.label = label.into();
        r
    };
    let other = run("y", 12, 1, |i| i as f64 + 0.1);
    let entries =
        vec![entry("base", vec![same("s1"), same("s2")]), entry("new", vec![same("s1"), same("s2"), other])];
    let c = compare_many(entries, &options(50)).unwrap().comparison;
    assert_eq!(c.models[0].runs, ["s1"]);
    assert_eq!(c.models[1].runs, ["s1", "y"]);
    assert!(c.notes.iter().any(|n| n.contains("s2 wrote the same as s1")), "{:?}", c.notes);
    assert!(c.notes.iter().any(|n| n.contains("`base` has one run")), "{:?}", c.notes);
}

#[test]
fn other_prompts_unknown_metrics_and_lone_models_are_refused() {
    let make = || vec![entry("a", vec![run("a", 6, 1, |_| 0.0)]), entry("b", vec![run("b", 6, 1, |_| 1.0)])];
    let fails = |change: fn(&mut Example), says: &str| {
        let mut entries = make();
        let r = &mut entries[1].runs[0].evaluation.run;
        change(&mut r.examples[2]);
        let e = compare_many(entries, &options(10)).unwrap_err().to_string();
        assert!(e.contains(says) && e.contains("at prompt 3") && e.contains("run.train_seed"), "{e}");
    };
    fails(|e| e.labels = vec![ItemId(9)], "another labels");
    fails(|e| e.conversation = 99, "another conversation");
    fails(|e| e.context.clear(), "another context");
    fails(|e| e.reference = Some("x".into()), "another reference");
    let mut entries = make();
    entries[1].runs[0].evaluation.run.reference_nll[0].tokens = 9;
    assert!(compare_many(entries, &options(10)).unwrap_err().to_string().contains("same tokens"));
    let o = Options { metrics: vec!["empathy_evil".into()], ..options(10) };
    let e = compare_many(make(), &o).unwrap_err();
    assert!(e.exit_code() == 2 && e.to_string().contains("empathy_eval"), "{e}");
    let e = compare_many(make()[..1].to_vec(), &options(10)).unwrap_err();
    assert!(e.exit_code() == 2 && e.to_string().contains("at least two"), "{e}");
}

#[test]
fn the_same_bytes_at_one_thread_and_two_and_only_finite_numbers() {
    let at = |n| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        pool.install(|| {
            let model = |name: &str, up: f64| {
                let runs = (0..2).map(|s| run(&format!("{name}{s}"), 24, 2, |i| up + noise(name, s, i)));
                entry(name, runs.collect())
            };
            let o = Options { metrics: vec![], ..options(300) };
            compare_many(vec![model("p", 0.0), model("q", 1.0)], &o).unwrap()
        })
    };
    let (one, two) = (at(1), at(2));
    assert_eq!(one.json, two.json);
    assert_eq!(one.markdown, two.markdown);
    let back: ecr_eval::many::ComparisonAll = serde_json::from_str(&one.json).unwrap();
    assert_eq!(back, one.comparison, "a number that is not finite would come back as another");
    for part in ["## Win rates", "By kind of turn", "| curious (6 of 24)", "Spread over runs", "detectable"] {
        assert!(one.markdown.contains(part), "{part}\n{}", one.markdown);
    }
}
