//! Speed of the cheap components, and of BLEU and distinct-n beside NLTK on the same pairs in the same run.
//!
//!     cargo bench -p ecr-rewards --bench throughput -- --run RUN_DIR \
//!         [--redial TEST.jsonl.gz --python PYTHON --nltk nltk_metrics.py]
//!
//! RUN_DIR has prepared data (`ecr data prepare`). NLTK's script times itself; ours is timed the same way: tokens are
//! made before the clock starts, medians of several passes, one thread and two. The clock of both is the processor time
//! of the thread, where the system tells it (Linux), so that other work on the machine hardly counts.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use ecr_core::io::{read, read_maybe_gz};
use ecr_core::seam::{Reply, Reward};
use ecr_data::catalogue::Catalogue;
use ecr_data::recommend::{Cooccurrence, Interactions};
use ecr_data::records::{Example, read_jsonl};
use ecr_data::redial::Split;
use ecr_rewards::components::own;
use ecr_rewards::components::{
    bleu::Bleu,
    distinct::Distinct as DistinctReward,
    eos::Eos,
    format::Format,
    knowledge::Knowledge,
    length::Length,
    recommendation::{Recommendation, Settings},
    repetition::Repetition,
    wrong_moment::WrongMoment,
};
use ecr_rewards::gate::Gate;
use ecr_rewards::text::bleu::BleuCounts;
use ecr_rewards::text::distinct::Distinct;

/// Replies a batch, as in a rollout.
const BATCH: usize = 24;

/// Seconds of processor time of this thread; `None` where the system does not say.
fn cpu() -> Option<f64> {
    let text = String::from_utf8(read(Path::new("/proc/thread-self/schedstat")).ok()?).ok()?;
    Some(1e-9 * text.split_whitespace().next()?.parse::<f64>().ok()?)
}

/// Seconds that `f` takes. The system books processor time every few milliseconds: short work is repeated.
fn seconds(mut f: impl FnMut()) -> f64 {
    let (wall, from, mut times) = (Instant::now(), cpu(), 0.0);
    while times == 0.0 || wall.elapsed().as_secs_f64() < 0.2 {
        f();
        times += 1.0;
    }
    // Sleeping makes the system book what was used.
    std::thread::sleep(std::time::Duration::from_millis(1));
    let used = match (from, cpu()) {
        (Some(from), Some(to)) => to - from,
        _ => wall.elapsed().as_secs_f64(),
    };
    used / times
}

fn median(mut f: impl FnMut(), passes: usize) -> f64 {
    f();
    let mut t: Vec<f64> = (0..passes).map(|_| seconds(&mut f)).collect();
    t.sort_by(f64::total_cmp);
    t[passes / 2]
}

/// Seconds of the slower half, each on its own thread at the same time; median of several passes.
fn two_threads<T: Sync>(xs: &[T], f: impl Fn(&[T]) + Sync, passes: usize) -> f64 {
    let (a, b) = xs.split_at(xs.len() / 2);
    let mut t: Vec<f64> = (0..passes)
        .map(|_| {
            std::thread::scope(|s| {
                let other = s.spawn(|| seconds(|| f(a)));
                let mine = seconds(|| f(b));
                mine.max(other.join().unwrap())
            })
        })
        .collect();
    t.sort_by(f64::total_cmp);
    t[passes / 2]
}

/// Replies of the next context: fluent, about films, wrong.
fn replies(cases: &[Example]) -> Vec<Reply<'_>> {
    (0..cases.len())
        .map(|i| {
            let (e, text) = (&cases[i], cases[(i + 1) % cases.len()].reply.as_str());
            Reply {
                context: &e.context,
                text,
                finished: true,
                length: text.len() / 4 + 1,
                reference: Some(&e.reply),
                labels: &e.labels,
                mentioned: &e.mentioned,
                rejected: &e.rejected,
            }
        })
        .collect()
}

fn components(run: &Path) {
    let at = run.join("data/processed");
    let catalogue = Arc::new(Catalogue::read(&at.join("catalogue.jsonl")).unwrap());
    let interactions = Interactions::read(&at.join("interactions.jsonl"), Split::Train).unwrap();
    let recommender = Arc::new(Cooccurrence::tuned(&interactions));
    let mut cases: Vec<Example> = read_jsonl(&at.join("test_examples.jsonl")).unwrap();
    cases.retain(|e| !e.context.is_empty());
    cases.truncate(3000);
    let all = || -> Vec<Box<dyn Reward>> {
        let c = catalogue.clone();
        let mut all: Vec<Box<dyn Reward>> = vec![
            Box::new(Bleu),
            Box::new(DistinctReward),
            Box::new(Recommendation::new(
                c.clone(),
                recommender.clone(),
                "co-occurrence",
                Settings::default(),
            )),
            Box::new(Format),
            Box::new(WrongMoment(c.clone())),
            Box::new(Repetition),
            Box::new(Length::default()),
            Box::new(Eos),
            Box::new(Knowledge::new(c)),
        ];
        all.extend(own::OWN.iter().map(|o| (o.build)()));
        all
    };
    let score = |c: &mut Box<dyn Reward>, rs: &[Reply<'_>]| {
        rs.chunks(BATCH).for_each(|b| {
            std::hint::black_box(c.score(b).unwrap());
        });
    };
    let rs = replies(&cases);
    let mut total = 0.0;
    for mut c in all() {
        let t = median(|| score(&mut c, &rs), 3);
        total += t;
        println!("{:16} {:8.1} us a reply", c.name(), 1e6 * t / rs.len() as f64);
    }
    let gate = Gate::new(catalogue.clone());
    let t = median(
        || {
            rs.iter().for_each(|r| {
                std::hint::black_box(gate.closed(r));
            })
        },
        3,
    );
    total += t;
    println!("{:16} {:8.1} us a reply", "gate", 1e6 * t / rs.len() as f64);
    println!("together, 1 thread: {:.0} replies/s", rs.len() as f64 / total);
    let two = two_threads(
        &cases,
        |part| {
            let (rs, gate) = (replies(part), Gate::new(catalogue.clone()));
            all().iter_mut().for_each(|c| score(c, &rs));
            rs.iter().for_each(|r| {
                std::hint::black_box(gate.closed(r));
            });
        },
        3,
    );
    println!(
        "together, 2 threads (building the components included): {:.0} replies/s",
        cases.len() as f64 / two
    );
}

fn metrics(redial: &Path, python: &str, script: &Path) {
    let bytes = read_maybe_gz(redial).unwrap();
    let mut texts: Vec<(String, String)> = Vec::new();
    for line in bytes.split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
        let d: serde_json::Value = serde_json::from_slice(line).unwrap();
        let turns: Vec<String> = d["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["text"].as_str().unwrap().to_lowercase())
            .collect();
        texts.extend(turns.windows(2).map(|w| (w[0].clone(), w[1].clone())));
    }
    texts.retain(|(a, b)| !a.trim().is_empty() && !b.trim().is_empty());
    let pairs: Vec<(Vec<&str>, Vec<&str>)> = (0..10_000)
        .map(|i| &texts[i % texts.len()])
        .map(|(a, b)| (a.split_whitespace().collect(), b.split_whitespace().collect()))
        .collect();
    let replies: Vec<Vec<&str>> = pairs.iter().map(|p| p.0.clone()).collect();
    let bleu = |pairs: &[(Vec<&str>, Vec<&str>)]| -> [f64; 4] {
        let mut sum = [0.0; 4];
        for (reply, reference) in pairs {
            let c = BleuCounts::new(reply, &[reference]);
            for k in 1..=4 {
                sum[k - 1] += c.single_order(k);
            }
        }
        sum
    };
    let ones = vec![1; replies.len()];
    let dist = || Distinct::orders(&replies).map(|d| d.ratio(&ones).unwrap());
    let ours_bleu = median(
        || {
            std::hint::black_box(bleu(&pairs));
        },
        9,
    );
    let two = two_threads(
        &pairs,
        |p| {
            std::hint::black_box(bleu(p));
        },
        9,
    );
    let ours_dist = median(
        || {
            std::hint::black_box(dist());
        },
        9,
    );
    println!("BLEU-1..4 {:?}", bleu(&pairs).map(|s| s / pairs.len() as f64));
    println!("Dist-1..4 {:?}", dist());
    println!(
        "ours: BLEU {:.2} ms (2 threads {:.2} ms), Dist {:.2} ms",
        1e3 * ours_bleu,
        1e3 * two,
        1e3 * ours_dist
    );
    // NLTK's script by the same clock.
    let same_clock = "import runpy, sys, time; time.perf_counter = time.process_time; sys.argv = sys.argv[1:]; \
                      runpy.run_path(sys.argv[0], run_name='__main__')";
    let out =
        std::process::Command::new(python).args(["-c", same_clock]).arg(script).arg(redial).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for line in String::from_utf8_lossy(&out.stdout).lines() {
        let v: serde_json::Value = serde_json::from_str(line).unwrap();
        let (what, s) = (v["what"].as_str().unwrap(), v["seconds"].as_f64().unwrap());
        println!("NLTK {what}: {:.0} ms, {}", 1e3 * s, v["value"]);
        match what {
            "bleu1-4 single order" => {
                println!("BLEU: {:.0} x (1 thread), {:.0} x (2)", s / ours_bleu, s / two)
            }
            "dist1-4" => println!("Dist: {:.0} x (1 thread)", s / ours_dist),
            _ => {}
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let of =
        |flag: &str| args.iter().position(|a| a == flag).and_then(|i| args.get(i + 1)).map(PathBuf::from);
    match of("--run") {
        Some(run) => components(&run),
        None => eprintln!("skipped: components (give --run RUN_DIR with prepared data)"),
    }
    match (of("--redial"), of("--python"), of("--nltk")) {
        (Some(r), Some(p), Some(s)) => metrics(&r, &p.display().to_string(), &s),
        _ => eprintln!("skipped: NLTK (give --redial TEST.jsonl.gz --python PYTHON --nltk nltk_metrics.py)"),
    }
}
