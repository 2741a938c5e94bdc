//! Does empathy fall when a reply opens in the wrong tone? On a finished run:
//!
//!     ECR_RUN=runs/redial cargo test --release -p ecr-run --test wrong_emotion -- --nocapture

use std::path::PathBuf;

use ecr_core::Stream;
use ecr_core::seam::{Reply, Reward};
use ecr_data::degradations::{Degradation, Degraded, degrade};
use ecr_data::records::{Example, read_jsonl};
use ecr_data::tone::{self, Tone};
use ecr_eval::Bootstrap;
use ecr_kernels::{Engine, Precision};
use ecr_rewards::components::empathy::Empathy;
use ecr_run::config::Config;
use ecr_run::rewarding::{SCORER_FILE, response_map};
use ecr_run::rundir::RunDir;
use ecr_run::scorers::{EmotionScorer, Scorer};

/// Most pairs of each tone.
const PAIRS: usize = 300;

fn reply(d: &Degraded) -> Reply<'_> {
    Reply {
        context: &d.context,
        text: &d.reply,
        finished: true,
        length: d.reply.len() / 4 + 1,
        reference: None,
        labels: &[],
        mentioned: &[],
        rejected: &[],
    }
}

#[test]
fn empathy_falls_when_a_reply_to_a_glad_seeker_opens_low() {
    let Some(run) = std::env::var_os("ECR_RUN").map(PathBuf::from) else {
        eprintln!("skipped: ECR_RUN names no run with trained emotion scorers");
        return;
    };
    let dir = RunDir::new(run);
    let examples: Vec<Example> = read_jsonl(&dir.data().join("processed/test_examples.jsonl")).unwrap();
    let all = degrade(&examples, &[Degradation::WrongEmotion], &|_| None, Stream::new(1));
    let engine = Engine::detect(Precision::Bf16);
    for name in ["train", "evaluate"] {
        let scorer = EmotionScorer(Scorer::load(&dir.emotion(name), SCORER_FILE, engine).unwrap());
        let about =
            String::from_utf8(ecr_core::io::read(&dir.emotion(name).join("config.json")).unwrap()).unwrap();
        let mut c = Config::default();
        if about.contains("GoEmotions") {
            c.data.source = "redial".into();
        }
        let mut empathy = Empathy::evaluate(Box::new(scorer), response_map(&c));
        for want in [Tone::Glad, Tone::Low] {
            let pairs: Vec<&Degraded> = all
                .chunks(2)
                .filter(|p| tone::seeker(&p[0].context) == Some(want))
                .take(PAIRS)
                .flatten()
                .collect();
            let replies: Vec<Reply<'_>> = pairs.iter().map(|d| reply(d)).collect();
            let scores: Vec<f64> = empathy.score(&replies).unwrap().into_iter().flatten().collect();
            let falls: Vec<f64> = scores.chunks(2).map(|s| s[1] - s[0]).collect();
            let clusters: Vec<u64> = pairs.chunks(2).map(|p| u64::from(p[0].conv_id)).collect();
            let mean = |t: &[u32]| {
                let n: f64 = t.iter().map(|&t| f64::from(t)).sum();
                (n > 0.0).then(|| falls.iter().zip(t).map(|(f, &t)| f * f64::from(t)).sum::<f64>() / n)
            };
            let draws = Bootstrap { resamples: 2000, stream: Stream::new(2) }.draw(&clusters).unwrap();
            let (low, high) = draws.interval(mean).unwrap();
            let fitting = scores.chunks(2).map(|s| s[0]).sum::<f64>() / falls.len() as f64;
            println!(
                "{name}, {want:?} seekers, {} pairs: fitting {fitting:.3}, wrong {:+.3} ({low:+.3} to {high:+.3})",
                falls.len(),
                mean(&vec![1; falls.len()]).unwrap()
            );
            assert!(want == Tone::Low || high < 0.0, "{name}: {low} to {high}");
        }
    }
}
