//! `ecr score` as a user meets it: dry run, self-test, budget, keys, kills.

#[path = "../../../judge/tests/it/mock.rs"]
#[allow(dead_code)]
mod mock;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::{Scratch, ecr, finish};
use mock::{Mock, Plan, answer, faulty, response, response_of, truth};

fn honest() -> Mock {
    Mock::start(Box::new(|body, _| Plan::Say(answer(&truth(&response_of(body))))))
}

/// Items and a catalogue as files.
fn input(s: &Scratch, n: usize) -> (String, String) {
    let lines: Vec<String> = mock::items(n)
        .iter()
        .map(|i| {
            json!({"id": i.id, "conv_id": i.conversation, "context": [i.context[0].text], "response": i.response})
                .to_string()
        })
        .collect();
    fs::write(s.join("items.jsonl"), lines.join("\n")).unwrap();
    let film = json!({"movie_id": 1, "title": "Alien", "year": 1979}).to_string();
    fs::write(s.join("films.jsonl"), film).unwrap();
    (s.join("items.jsonl").display().to_string(), s.join("films.jsonl").display().to_string())
}

fn lines(path: &Path) -> Vec<Json> {
    fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn a_dry_run_sends_nothing_and_a_run_writes_scores_and_labels() {
    let s = Scratch::new("score");
    let (items, films) = input(&s, 30);
    let mock = honest();
    let (url, rows) = (mock.url(), s.join("rows.jsonl").display().to_string());
    let base =
        ["score", &items, "--catalogue", &films, "--url", &url, "--model", "a/mock", "--json", "--quiet"];
    let with = |more: &[&str]| finish(&mut ecr(&[&base[..], more].concat()));
    let (code, out, err) = with(&["--dry-run", "--price-in", "10"]);
    assert_eq!(code, 0, "{err}");
    let v: Json = serde_json::from_str(&out).unwrap();
    assert_eq!((v["files"][0]["calls"].as_u64(), mock.count()), (Some(32), 0));
    assert!(v["files"][0]["cost"].as_f64().unwrap() > 0.0);
    let (code, out, err) = with(&["--max-requests", "12"]);
    assert_eq!(code, 0, "{err}");
    let v: Json = serde_json::from_str(&out).unwrap();
    assert_eq!((v["files"][0]["stopped"].as_str(), mock.count()), (Some("requests"), 12));
    let (code, out, err) = with(&["--critic-rows", &rows]);
    assert_eq!(code, 0, "{err}");
    let v: Json = serde_json::from_str(&out).unwrap();
    assert_eq!((v["files"][0]["scored"].as_u64(), v["judge"].as_str()), (Some(30), Some("mock")));
    assert!(mock.count() <= 34, "{}", mock.count());
    let scores = lines(&s.join("scores.jsonl"));
    assert_eq!(
        scores.iter().map(|r| r["id"].as_str().unwrap()).collect::<Vec<_>>()[..2],
        ["item 0", "item 1"]
    );
    for r in &scores {
        let rule = r["rule_applied"] == true;
        assert_eq!(rule, r["scores"]["recommendation_score"] == 0.0, "{r}");
    }
    let rows = lines(Path::new(&rows));
    assert_eq!(rows.len(), 30);
    assert_eq!(rows[3]["scores"]["overall"]["source"], "scorer:mock");
    assert_eq!(rows[3]["conv_id"], "c0");
    // Two judges, one of them the other's copy.
    let (a, b) = (s.join("scores.jsonl").display().to_string(), s.join("b.jsonl").display().to_string());
    fs::copy(&a, &b).unwrap();
    let mean = s.join("mean.jsonl").display().to_string();
    let (code, out, err) = finish(&mut ecr(&["score", "--agree", &a, &b, "--out", &mean, "--json"]));
    assert_eq!(code, 0, "{err}");
    let v: Json = serde_json::from_str(&out).unwrap();
    assert!((v["agreement"][4]["spearman"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{out}");
    assert_eq!(lines(Path::new(&mean)).len(), 30);
}

#[test]
fn the_self_test_of_the_guide() {
    let mock = honest();
    let url = mock.url();
    let base = ["score", "--url", &url, "--model", "m", "--json", "--selftest"];
    let (code, out, err) = finish(&mut ecr(&base));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("\"zero_without\":true,\"above_zero_with\":true"), "{out}");
    let bad =
        Mock::start(Box::new(|_, _| Plan::Say(answer(&ecr_judge::scores::Scores::from_values([0.0; 5])))));
    let url = bad.url();
    let (code, _, err) = finish(&mut ecr(&["score", "--url", &url, "--model", "m", "--selftest"]));
    assert!(code == 1 && err.contains("above 0.0"), "{code} {err}");
    // --limit 3 takes both kinds from a file.
    let s = Scratch::new("limit");
    let (items, films) = input(&s, 30);
    let url = mock.url();
    let args =
        ["score", &items, "--catalogue", &films, "--url", &url, "--model", "m", "--limit", "3", "--json"];
    let (code, out, err) = finish(&mut ecr(&args));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("\"zero_without\":true,\"above_zero_with\":true"), "{out}");
    assert_eq!(lines(&s.join("scores.jsonl")).len(), 3);
}

#[test]
fn mistakes_have_their_exit_codes_and_keys_stay_hidden() {
    let s = Scratch::new("score-bad");
    let (items, films) = input(&s, 3);
    let with = |more: &[&str]| {
        let base = ["score", &items, "--catalogue", &films, "--model", "m"];
        finish(ecr(&[&base[..], more].concat()).env("ECR_JUDGE_KEY", "sk-hidden-42"))
    };
    let (code, _, err) = with(&["--url", "http://example.com/v1"]);
    assert!(code == 2 && err.contains("https"), "{err}");
    let (code, _, err) = with(&[]);
    assert!(code == 2 && err.contains("--url"), "{err}");
    let open = s.join("key");
    fs::write(&open, "sk-hidden-43").unwrap();
    let (code, _, err) = with(&["--url", "http://127.0.0.1:9/v1", "--key-file", &open.display().to_string()]);
    assert!(code == 2 && err.contains("0600") && !err.contains("sk-hidden"), "{err}");
    let (code, _, err) =
        finish(&mut ecr(&["score", &items, "--url", "http://127.0.0.1:9/v1", "--model", "m"]));
    assert!(code == 2 && err.contains("--catalogue"), "{err}");
    let echo =
        Mock::start(Box::new(|_, _| Plan::Raw(response("403 Forbidden", "", "you sent sk-hidden-42"))));
    let (code, out, err) = with(&["--url", &echo.url()]);
    assert!(code == 4 && err.contains("403"), "{err}");
    assert!(!out.contains("sk-hidden") && !err.contains("sk-hidden"), "{err}");
    for e in fs::read_dir(&s.0).unwrap() {
        let path = e.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        assert!(path == open || !text.contains("sk-hidden"), "{}", path.display());
    }
    // Evaluation replies are test conversations: no labels from them.
    let replies = s.join("replies.json");
    fs::write(&replies, json!({"model": "m", "examples": []}).to_string()).unwrap();
    let args = [
        "score",
        &replies.display().to_string(),
        "--catalogue",
        &films,
        "--url",
        &echo.url(),
        "--model",
        "m",
        "--critic-rows",
        "x.jsonl",
    ];
    let (code, _, err) = finish(&mut ecr(&args));
    assert!(code == 2 && err.contains("--split train"), "{err}");
}

/// Killed again and again, a run pays for the calls in flight again and for nothing else, and ends with the same file.
#[test]
fn a_kill_costs_at_most_the_calls_in_flight() {
    let n = 200;
    let whole = Scratch::new("score-whole");
    let (items, films) = input(&whole, n);
    let mock = Mock::start(slow(faulty(0.2, 9)));
    let url = mock.url();
    let run = |items: &str| {
        ecr(&[
            "score",
            items,
            "--catalogue",
            &films,
            "--url",
            &url,
            "--model",
            "m",
            "--quiet",
            "--timeout",
            "2",
            "--max-tries",
            "9",
            "--retry-share",
            "3",
            "--no-canaries",
        ])
    };
    let (code, _, err) = finish(&mut run(&items));
    assert_eq!(code, 0, "{err}");
    let expected = fs::read_to_string(whole.join("scores.jsonl")).unwrap();

    let cut = Scratch::new("score-cut");
    let (items, _) = input(&cut, n);
    let before = mock.count();
    let mut kills = 0;
    let mut draws = ecr_core::Stream::new(4).child("kills").rng();
    let file = cut.join("scores.jsonl.journal");
    let length = || fs::read(&file).map_or(0, |b| b.iter().filter(|&&c| c == b'\n').count());
    'runs: loop {
        let mut child = run(&items).spawn().unwrap();
        // By work done, not by time: a busy machine makes progress too.
        let target = length() + 5 + draws.below(60);
        while length() < target {
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break 'runs;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    let written = length() as u64;
    let paid = mock.count() - before;
    println!("{kills} kills, {written} calls in the journal, {paid} at the server");
    assert!(
        kills > 0 && paid <= written + 4 * kills,
        "{paid} calls for {written} in the journal, {kills} kills"
    );
    let strip = |text: &str| {
        text.lines()
            .map(|l| {
                let mut v: Json = serde_json::from_str(l).unwrap();
                v["tries"] = 0.into();
                v.to_string()
            })
            .collect::<Vec<_>>()
    };
    let got = fs::read_to_string(cut.join("scores.jsonl")).unwrap();
    assert_eq!(strip(&got), strip(&expected), "the same scores as without a kill");
}

/// A mind that takes a few milliseconds.
fn slow(mind: mock::Mind) -> mock::Mind {
    Box::new(move |body, n| {
        std::thread::sleep(Duration::from_millis(5));
        mind(body, n)
    })
}
