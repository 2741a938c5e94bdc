//! From replies to `comparison.json`, on constructed replies of known difference.
#![allow(clippy::unwrap_used)] // helpers of tests

use ecr_core::seam::{Label, Reply};
use ecr_core::{ItemId, Role, Stream, Utterance};
use ecr_data::catalogue::{Catalogue, Movie};
use ecr_eval::{Bootstrap, Evaluation, Example, ModelRun, ReferenceNll, Report, compare};
use ecr_rewards::composite::{Breakdown, Part};
use serde_json::Value;

fn films() -> Catalogue {
    let names = ["The Blue Lantern (1999)", "Copper Valley (2001)"];
    Catalogue::new((1..).zip(names).map(|(i, n)| Movie::from_name(ItemId(i), n)).collect())
}

fn breakdown(empathy: f64, recommendation: Option<f64>) -> Breakdown {
    let part = |name: &str, raw: Option<f64>| Part {
        name: name.into(),
        raw,
        normalised: raw,
        weighted: raw.map(|x| 2.0 * x),
    };
    let parts = vec![part("empathy", Some(empathy)), part("recommendation", recommendation)];
    Breakdown { total: parts.iter().filter_map(|p| p.weighted).sum(), parts, gate: None }
}

/// 200 prompts; the better model is more empathic by .2 each time and names the label twice as often.
fn run(model: &str, better: bool) -> ModelRun {
    let catalogue = films();
    let examples = (0..200u64)
        .map(|i| {
            let mut rng = Stream::new(9).at(i).rng();
            let context = [Utterance { role: Role::Seeker, text: format!("Prompt {i} | <b>") }];
            let label = [Label { item: ItemId(1), liked: Some(true) }];
            let hit = i % 4 == 0 || (better && i % 4 == 1);
            let text =
                if hit { "Try The Blue Lantern (1999) tonight" } else { "Try Copper Valley (2001) tonight" };
            let text = format!("{text} number {}", rng.below(50));
            let reply = Reply {
                context: &context,
                text: &text,
                finished: i % 10 != 0,
                length: 9,
                reference: Some("Try The Blue Lantern (1999)"),
                labels: if i % 2 == 0 || hit { &label } else { &[] },
                mentioned: &[],
                rejected: &[],
            };
            let empathy = 0.3 + 0.3 * rng.uniform() + if better { 0.2 } else { 0.0 };
            let mut e = Example::new(&catalogue, &reply, i / 2);
            // The labels are the prompt's: the same for both models.
            e.labels = if i % 4 < 2 { vec![ItemId(1)] } else { vec![] };
            e.reward = Some(breakdown(empathy, (i % 2 == 0).then_some(0.1)));
            e.empathy_eval = Some(rng.uniform());
            e.kl = better.then_some(1.5);
            e
        })
        .collect();
    let nll = |i: u64| ReferenceNll {
        conversation: i,
        nll: if better { 21.0 } else { 20.0 } + i as f64,
        tokens: 10,
    };
    ModelRun { model: model.into(), examples, reference_nll: (0..30).map(nll).collect() }
}

fn report(resamples: usize) -> Report {
    let a = Evaluation::new(run("baseline", false)).unwrap();
    let b = Evaluation::new(run("rl_enhanced", true)).unwrap();
    compare(&a, &b, Bootstrap { resamples, stream: Stream::new(4) }, 3).unwrap()
}

#[test]
fn known_differences_are_found_with_their_intervals() {
    let c = report(2000).comparison.metrics;
    let e = c["empathy"];
    assert!((e.diff - 0.2).abs() < 1e-12 && (e.ci_low - 0.2).abs() < 1e-9 && (e.ci_high - 0.2).abs() < 1e-9);
    assert_eq!(e.n, 200);
    let r = c["mean_reward"];
    assert!((r.diff - 0.4).abs() < 1e-12 && r.ci_low > 0.0);
    let a = c["recommendation_accuracy"];
    assert_eq!((a.baseline, a.rl_enhanced, a.n), (0.5, 1.0, 100));
    assert!(a.ci_low > 0.3 && a.ci_high < 0.7);
    let p = c["recommendation_precision"];
    assert_eq!((p.baseline, p.rl_enhanced), (0.5, 1.0));
    assert_eq!((c["eos_rate"].diff, c["eos_rate"].ci_low, c["eos_rate"].ci_high), (0.0, 0.0, 0.0));
    // No model differs on the untouched scorer.
    assert_eq!(c["empathy_eval"].diff, 0.0);
    assert!((c["empathy_plus_recommendation"].diff - 0.2).abs() < 1e-12);
    // (20·30 + 435) / 300 and one tenth of a nat more.
    assert!(
        (c["reference_nll"].baseline - 3.45).abs() < 1e-12 && (c["reference_nll"].diff - 0.1).abs() < 1e-12
    );
    assert!((c["reference_perplexity"].baseline - 3.45f64.exp()).abs() < 1e-9);
    assert_eq!(c["reference_nll"].n, 30);
    // KL was taken of one model only: nothing to compare.
    assert!(!c.contains_key("kl"));
}

#[test]
fn the_file_has_exactly_the_agreed_fields() {
    let r = report(200);
    let v: Value = serde_json::from_str(&r.json).unwrap();
    assert_eq!(v["version"], 1);
    assert_eq!(v.as_object().unwrap().len(), 2);
    let metrics = v["metrics"].as_object().unwrap();
    for name in [
        "mean_reward",
        "empathy",
        "empathy_eval",
        "recommendation_accuracy",
        "bleu_1",
        "bleu_2",
        "dist_1",
        "dist_2",
    ] {
        let keys: Vec<&str> = metrics[name].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["baseline", "rl_enhanced", "diff", "ci_low", "ci_high", "n", "scorer"], "{name}");
    }
    for (name, scorer) in [("mean_reward", "train"), ("empathy_eval", "eval"), ("bleu_1", "none")] {
        assert_eq!(metrics[name]["scorer"], scorer);
    }
    let names: Vec<&String> = metrics.keys().collect();
    assert!(names.is_sorted());
    assert_eq!(metrics["dist_2"], metrics["dist.inter.ratio.2"]);
}

#[test]
fn the_same_bytes_at_one_thread_and_two() {
    let at = |n| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        pool.install(|| report(300))
    };
    let (one, two) = (at(1), at(2));
    assert_eq!(one.json, two.json);
    assert_eq!(one.markdown, two.markdown);
}

#[test]
fn the_text_shows_marks_wins_samples_and_what_got_worse() {
    let r = report(500);
    assert!(r.warnings.iter().any(|w| w.starts_with("`reference_nll` got worse")), "{:?}", r.warnings);
    assert!(!r.warnings.iter().any(|w| w.contains("eos_rate")));
    assert_eq!(r.wins["empathy"].rate(), 1.0);
    assert_eq!(r.wins["eos_rate"].rate(), 0.5);
    let m = &r.markdown;
    assert!(m.contains("| empathy | 0.") && m.contains("used in training") && m.contains("evaluation only"));
    assert!(m.contains("### Prompt 1\n") && m.contains("Prompt 0 \\| &lt;b>"));
    assert_eq!(m.matches("### Prompt").count(), 3);
}

#[test]
fn a_run_survives_its_file_to_the_bit() {
    let r = run("baseline", false);
    let back: ModelRun = serde_json::from_str(&serde_json::to_string(&r).unwrap()).unwrap();
    assert_eq!(back, r);
    let e = Evaluation::new(r).unwrap();
    let v: Value = serde_json::from_str(&e.results_json("replies.json")).unwrap();
    assert_eq!(v["metrics"]["length"], 9.0);
    assert_eq!(v["metrics"]["bleu_1"], v["parity"]["bleu@1"]);
    assert!(v["parity"]["dist@1"].as_f64().unwrap() > v["metrics"]["dist_1"].as_f64().unwrap());
}

#[test]
fn other_prompts_no_replies_and_nan_are_refused() {
    let a = Evaluation::new(run("baseline", false)).unwrap();
    let mut other = run("rl_enhanced", true);
    other.examples.swap(0, 5);
    let b = Evaluation::new(other).unwrap();
    let boot = Bootstrap { resamples: 10, stream: Stream::new(1) };
    assert!(compare(&a, &b, boot, 0).unwrap_err().to_string().contains("same prompts"));
    let mut other = run("rl_enhanced", true);
    other.examples[2].labels.push(ecr_core::ItemId(9));
    let b = Evaluation::new(other).unwrap();
    assert!(compare(&a, &b, boot, 0).unwrap_err().to_string().contains("label at 2"));
    let mut bad = run("x", false);
    bad.examples[3].empathy_eval = Some(f64::NAN);
    assert!(Evaluation::new(bad).unwrap_err().to_string().contains("empathy_eval"));
    let none = ModelRun { model: "x".into(), examples: vec![], reference_nll: vec![] };
    assert!(Evaluation::new(none).is_err());
}

/// ecr.md §4.2 through the whole of [`Evaluation`].
#[test]
fn golden_vector_of_the_parity_script() {
    let pairs = [
        ("i would recommend <movie> , it is a great movie", "i would recommend <movie> it is great"),
        ("have you seen <movie> ?", "have you seen the new <movie> ?"),
        ("", "hello"),
        ("i love that movie", "i love that movie too"),
        ("the the the the", "the cat"),
    ];
    let catalogue = films();
    let example = |(i, (text, reference)): (usize, &(&str, &'static str))| {
        let reply = Reply {
            context: &[],
            text,
            finished: true,
            length: 1,
            reference: Some(reference),
            labels: &[],
            mentioned: &[],
            rejected: &[],
        };
        Example::new(&catalogue, &reply, i as u64)
    };
    let examples = pairs.iter().enumerate().map(example).collect();
    let e = Evaluation::new(ModelRun { model: "g".into(), examples, reference_nll: vec![] }).unwrap();
    for (k, (bleu, dist)) in
        [(0.59978, 4.25), (0.431496, 4.25), (0.31306, 3.5), (0.230414, 2.75)].into_iter().enumerate()
    {
        assert!((e.value(&format!("bleu_{}", k + 1)).unwrap() - bleu).abs() < 1e-6);
        assert_eq!(e.value(&format!("dist.inter.per_sentence.{}", k + 1)), Some(dist));
    }
}
