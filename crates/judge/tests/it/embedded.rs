//! The judge on our own engine, with real weights where they are.

use std::path::PathBuf;

use ecr_judge::backend::Judge;
use ecr_judge::backend::Request;
use ecr_judge::backend::embedded::EmbeddedJudge;
use ecr_judge::item::Facts;
use ecr_judge::journal::Status;
use ecr_judge::output::records;
use ecr_judge::prompt::messages;
use ecr_judge::scores::parse;
use ecr_judge::session::{Options, prepare, score};
use ecr_kernels::{Engine, Precision};

use crate::mock::{Scratch, catalogue, items};

fn smol() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".cache/ecr/models"));
    let root = std::env::var_os("ECR_MODELS").map(PathBuf::from).or(home)?;
    let path = root.join("smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: no smollm2-135m-instruct among the cached models");
    None
}

#[test]
fn every_answer_of_a_small_model_is_five_numbers() {
    let Some(path) = smol() else { return };
    let judge = EmbeddedJudge::load(&path, Engine::detect(Precision::F32), 2).unwrap();
    let items = prepare(items(3), &catalogue(), &judge.identity()).unwrap();
    let o = Options { concurrency: 1, canaries: false, ..Options::default() };
    let dir = Scratch::new("embedded");
    let report = score(&items, &judge, &dir.journal(), &o, &|_| ()).unwrap();
    assert_eq!(report.requests, 3, "no answer is asked for twice");
    let all = records(&items, &report.folded, "smol");
    assert!(all.iter().all(|r| r.status == Status::Scored && r.tries == 1), "{all:?}");
    // The same alone as in a batch.
    let request = |i: usize| Request {
        messages: messages(&items[i].item, &Facts::of(&items[i].item, &catalogue()), 0),
        temperature: 0.0,
    };
    let alone = judge.ask(&[request(1)]).pop().unwrap().unwrap();
    let mut s = parse(&alone.text).unwrap();
    s.recommendation_score = 0.0;
    assert_eq!(all[1].scores, Some(s));
}
