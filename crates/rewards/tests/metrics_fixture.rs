//! Text metrics against NLTK 3.10.4, sacrebleu 2.6.0 and rouge_score 0.1.2 (fixtures/metrics.json), to 1e-9.

#![allow(clippy::unwrap_used)] // helpers of tests

use ecr_rewards::text::bleu::{BleuCounts, Smoothing};
use ecr_rewards::text::distinct::Distinct;
use ecr_rewards::text::rouge::{Rouge, rouge_l, rouge_n};
use ecr_rewards::text::tokenizer_13a::tokenize_13a;
use ecr_rewards::text::tokens;
use serde_json::Value;

fn fixture() -> Value {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/metrics.json");
    serde_json::from_slice(&ecr_core::io::read(&path).unwrap()).unwrap()
}

fn close(got: f64, want: &Value, what: &str) {
    let want = want.as_f64().unwrap_or_else(|| panic!("{what}: no number in the fixture: {want}"));
    assert!((got - want).abs() <= 1e-9 * want.abs().max(1.0), "{what}: got {got}, want {want}");
}

struct Pair {
    reply: String,
    references: Vec<String>,
    row: Value,
}

fn pairs(f: &Value) -> Vec<Pair> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let rows = f["pairs"].as_array().unwrap();
    assert!(rows.len() > 50);
    rows.iter()
        .map(|r| Pair {
            reply: text(&r["reply"]),
            references: r["references"].as_array().unwrap().iter().map(text).collect(),
            row: r.clone(),
        })
        .collect()
}

fn nltk(p: &Pair) -> BleuCounts {
    let refs: Vec<Vec<&str>> = p.references.iter().map(|r| tokens(r)).collect();
    let refs: Vec<&[&str]> = refs.iter().map(Vec::as_slice).collect();
    BleuCounts::new(&tokens(&p.reply), &refs)
}

fn sacre(reply: &str, references: &[String]) -> BleuCounts {
    let refs: Vec<Vec<String>> = references.iter().map(|r| tokenize_13a(r)).collect();
    let refs: Vec<&[String]> = refs.iter().map(Vec::as_slice).collect();
    BleuCounts::new(&tokenize_13a(reply), &refs)
}

#[test]
fn sentence_bleu() {
    for p in pairs(&fixture()) {
        let (c, want) = (nltk(&p), &p.row["nltk"]);
        for k in 1..=4 {
            close(c.single_order(k), &want["single_order"][k - 1], &format!("order {k} of {:?}", p.reply));
        }
        for (key, s) in [
            ("cumulative4", Smoothing::None),
            ("cumulative4_method1", Smoothing::Method1),
            ("cumulative4_method4", Smoothing::Method4),
        ] {
            close(c.cumulative(4, s), &want[key], &format!("{key} of {:?}", p.reply));
        }
        let s = sacre(&p.reply, &p.references).sacrebleu(true);
        close(s, &p.row["sacrebleu"]["sentence_bleu"], &format!("sacrebleu of {:?}", p.reply));
    }
}

#[test]
fn corpus_bleu() {
    let f = fixture();
    let (mut all, mut first) = (BleuCounts::default(), BleuCounts::default());
    for p in pairs(&f) {
        all.add(&nltk(&p), 1);
        first.add(&sacre(&p.reply, &p.references[..1]), 1);
    }
    let want = &f["corpus"];
    for k in 1..=4 {
        close(all.single_order(k), &want["nltk_single_order"][k - 1], "corpus single order");
        let (c, t) =
            (&want["sacrebleu_first_reference"]["counts"], &want["sacrebleu_first_reference"]["totals"]);
        assert_eq!(first.matches[k - 1], c[k - 1].as_u64().unwrap());
        assert_eq!(first.totals[k - 1], t[k - 1].as_u64().unwrap());
    }
    close(all.cumulative(4, Smoothing::None), &want["nltk_cumulative4"], "corpus cumulative");
    close(all.cumulative(4, Smoothing::Method1), &want["nltk_cumulative4_method1"], "corpus method 1");
    close(first.sacrebleu(false), &want["sacrebleu_first_reference"]["score"], "corpus sacrebleu");
}

#[test]
fn rouge() {
    for p in pairs(&fixture()) {
        let r = &p.references[0];
        for (key, got) in [
            ("rouge1", rouge_n(&p.reply, r, 1)),
            ("rouge2", rouge_n(&p.reply, r, 2)),
            ("rougeL", rouge_l(&p.reply, r)),
        ] {
            let Rouge { precision, recall, f1 } = got;
            for (i, x) in [precision, recall, f1].into_iter().enumerate() {
                close(x, &p.row["rouge"][key][i], &format!("{key} of {:?}", p.reply));
            }
        }
    }
}

#[test]
fn distinct() {
    let f = fixture();
    let all = pairs(&f);
    for (name, group) in f["dist"].as_object().unwrap() {
        let replies: Vec<&str> = group["pairs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| all[i.as_u64().unwrap() as usize].reply.as_str())
            .collect();
        for o in group["orders"].as_array().unwrap() {
            let d = Distinct::new(&replies, o["n"].as_u64().unwrap() as usize);
            let once = vec![1; replies.len()];
            let own: Vec<f64> = d.intra().into_iter().flatten().collect();
            let intra = (!own.is_empty()).then(|| own.iter().sum::<f64>() / own.len() as f64);
            for (key, got) in [
                ("inter_ratio", d.ratio(&once)),
                ("inter_per_reply", d.per_reply(&once)),
                ("intra_mean", intra),
            ] {
                match got {
                    Some(x) => close(x, &o[key], &format!("{name} {key}")),
                    None => assert!(o[key].is_null(), "{name} {key}"),
                }
            }
        }
    }
}

/// ecr.md §4.2: the field's parity scripts on five replies, of which one is empty.
#[test]
fn golden_vector_of_the_parity_script() {
    let replies = [
        "i would recommend <movie> , it is a great movie",
        "have you seen <movie> ?",
        "",
        "i love that movie",
        "the the the the",
    ];
    let references = [
        "i would recommend <movie> it is great",
        "have you seen the new <movie> ?",
        "hello",
        "i love that movie too",
        "the cat",
    ];
    let counts: Vec<BleuCounts> =
        replies.iter().zip(&references).map(|(h, r)| BleuCounts::new(&tokens(h), &[&tokens(r)])).collect();
    for (k, (bleu, dist)) in
        [(0.59978, 4.25), (0.431496, 4.25), (0.31306, 3.5), (0.230414, 2.75)].into_iter().enumerate()
    {
        let mean = counts.iter().map(|c| c.single_order(k + 1)).sum::<f64>() / 4.0;
        assert!((mean - bleu).abs() < 1e-6, "bleu@{}: {mean}", k + 1);
        assert_eq!(Distinct::new(&replies, k + 1).per_reply(&[1; 5]), Some(dist));
    }
}

/// ecr.md §3.2: B of the original reward.
#[test]
fn golden_bleu_of_the_original_reward() {
    for (reply, reference, want) in [
        ("have you seen <movie> ?", "have you seen the new <movie> ?", 0.349125),
        ("the the the the", "the cat", 0.0625),
    ] {
        let c = BleuCounts::new(&tokens(reply), &[&tokens(reference)]);
        let mean = (1..=4).map(|k| c.single_order(k)).sum::<f64>() / 4.0;
        assert!((mean - want).abs() < 1e-6, "{reply}: {mean}");
    }
}
