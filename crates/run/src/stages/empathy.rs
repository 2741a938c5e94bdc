//! `empathy`: classifiers of EPITOME's levels (three mechanisms, none, weak or strong) on (seeker's post, reply).
//! `train` may reward training; its twin `evaluate` is for evaluation only and learns from other posts. Macro-F1 of both
//! on the same test part, beside the majority class, and how far they are apart. Optional stage: `ecr train empathy`.

use std::path::{Path, PathBuf};

use ecr_algos::{classify, levels};
use ecr_core::optim::{AdamW, Schedule};
use ecr_core::{Error, Result, Role, Stream, Utterance};
use ecr_data::epitome::{self, LEVELS, MECHANISMS, RatedSupport};
use ecr_data::redial::Split;
use ecr_eval::Bootstrap;
use serde_json::{Value as Json, json};

use crate::checkpoint::ENCODER_STEPS;
use crate::config::Config;
use crate::graph::{Context, Stage};
use crate::measure::batches;
use crate::rewarding::SCORER_FILE;
use crate::rundir::RunDir;
use crate::scorers::{PairInput, Scorer, pack_pairs};

pub(super) struct Empathy;

/// More steps than a scorer can have.
const SCORER_STEPS: u64 = 1_000_000;

const SCORERS: [&str; 2] = ["train", "evaluate"];

impl Stage for Empathy {
    fn name(&self) -> &'static str {
        "empathy"
    }
    fn optional(&self) -> bool {
        true
    }
    fn settings(&self, c: &Config) -> Json {
        json!([c.empathy, c.encoder, c.run.seed, c.run.precision, c.eval.resamples])
    }
    fn inputs(&self, c: &Config, dir: &RunDir) -> Vec<PathBuf> {
        let tokenizer = c.encoder.path.is_empty().then(|| dir.data().join("tokenizer.json"));
        [file(c)].into_iter().chain(tokenizer).collect()
    }
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf> {
        vec![dir.join("empathy")]
    }
    fn run(&self, cx: &mut Context) -> Result<()> {
        let rows = read(&cx.config)?;
        let stream = cx.stream.child("empathy");
        let mut found = Vec::new();
        for (i, name) in SCORERS.into_iter().enumerate() {
            let mine: Vec<RatedSupport> =
                rows.iter().filter(|r| r.split == Split::Train && half(r, stream) == i).cloned().collect();
            cx.note(&format!("{name}_rows"), mine.len());
            let scorer = train(cx, name, i as u64, &mine)?;
            found.push((scorer, mine));
        }
        for split in [Split::Valid, Split::Test] {
            let rows: Vec<RatedSupport> = rows.iter().filter(|r| r.split == split).cloned().collect();
            report(cx, &mut found, split, &rows, stream)?;
        }
        Ok(())
    }
}

fn file(c: &Config) -> PathBuf {
    Path::new(&c.data.path).join("empathy/epitome_reddit.jsonl.gz")
}

fn read(c: &Config) -> Result<Vec<RatedSupport>> {
    let path = file(c);
    if c.data.path.is_empty() || !path.exists() {
        return Err(Error::config("train the classifiers of EPITOME's levels")
            .expected("data.path = a directory that holds empathy/epitome_reddit.jsonl.gz")
            .got(format!("{:?}", c.data.path))
            .files("nothing was written")
            .hint("people's ratings are needed; the demo has none of the kind"));
    }
    epitome::read(&path)
}

/// Which twin learns from this row: half of the posts each.
fn half(r: &RatedSupport, stream: Stream) -> usize {
    usize::from(stream.child("half").child(&r.post_id).rng().uniform() < 0.5)
}

fn encode(s: &Scorer, rows: &[RatedSupport], max_len: usize) -> Result<Vec<PairInput>> {
    let one = |r: &RatedSupport| {
        s.encode_pair(&[Utterance { role: Role::Seeker, text: r.post.clone() }], &r.reply, max_len)
    };
    rows.iter().map(one).collect()
}

/// Weight of each label `[rows, mechanisms]`: its frequency to the power of −`balance`, mean 1 in each mechanism.
fn weights(rows: &[RatedSupport], balance: f64) -> Vec<f64> {
    let mut counts = [[0.0f64; LEVELS]; 3];
    rows.iter().for_each(|r| (0..3).for_each(|m| counts[m][r.levels[m]] += 1.0));
    let raw = |m: usize, l: usize| if counts[m][l] > 0.0 { counts[m][l].powf(-balance) } else { 0.0 };
    let mean: [f64; 3] = std::array::from_fn(|m| {
        (0..LEVELS).map(|l| counts[m][l] * raw(m, l)).sum::<f64>() / rows.len().max(1) as f64
    });
    rows.iter().flat_map(|r| (0..3).map(|m| raw(m, r.levels[m]) / mean[m]).collect::<Vec<_>>()).collect()
}

fn train(cx: &mut Context, name: &str, index: u64, rows: &[RatedSupport]) -> Result<Scorer> {
    let c = cx.config.clone();
    // Checkpoints of the two share one count of steps; each holds what was noted before.
    let checkpoints = cx.checkpoints("empathy");
    let base = index * SCORER_STEPS;
    let found = checkpoints.latest(|w| cx.voice.warn(w))?.filter(|f| f.step >= base);
    let mut log_len = 0;
    if let Some(f) = &found {
        (log_len, cx.summary) = f.state()?;
        if f.step >= base + SCORER_STEPS {
            // It belongs to a later scorer: this one is finished.
            return Scorer::load(&cx.dir.empathy(name), SCORER_FILE, cx.engine);
        }
    }
    if rows.is_empty() {
        return Err(Error::data(format!("train the {name} classifier of empathy")).got("no rated reply"));
    }
    let stream = cx.stream.child("empathy").child(name);
    let outputs = MECHANISMS.iter().flat_map(|m| (0..LEVELS).map(move |l| format!("{m}_{l}"))).collect();
    let mut s = Scorer::fresh(&c, &cx.dir, cx.engine, outputs, stream.child("init"))?.reading_replies();
    s.params.make_trainable();
    let (inputs, weights) = (encode(&s, rows, c.empathy.max_length)?, weights(rows, c.empathy.balance));
    let ones = vec![1; rows.len()];
    let plan: Vec<Vec<usize>> = (0..c.empathy.epochs)
        .flat_map(|e| ecr_algos::sft::epoch_batches(&ones, c.empathy.batch_size, stream, e))
        .collect();
    let mut done = 0;
    if let Some(f) = found.filter(|f| f.step > base) {
        f.restore("encoder", &mut s.params)?;
        f.restore("head", &mut s.head)?;
        done = f.step - base;
    }
    let mut log = cx.log(&format!("empathy_{name}.metrics.jsonl"), log_len)?;
    let (adam, total) = (AdamW::default(), plan.len() as u64);
    let every = c.run.checkpoint_every * ENCODER_STEPS;
    let mut progress = cx.progress(&format!("empathy/{name}"), total, done);
    for step in done..total {
        let which = &plan[step as usize];
        let lengths: Vec<usize> = which.iter().map(|&i| inputs[i].tokens.len()).collect();
        let part = |range: std::ops::Range<usize>| {
            let which = &which[range];
            levels::Graded {
                batch: pack_pairs(&which.iter().map(|&i| inputs[i].clone()).collect::<Vec<_>>()),
                labels: which.iter().flat_map(|&i| rows[i].levels).collect(),
                weights: which.iter().flat_map(|&i| weights[3 * i..3 * i + 3].to_vec()).collect(),
            }
        };
        let parts: Vec<_> = batches(&lengths, c.empathy.micro_batch_tokens).into_iter().map(part).collect();
        let lr = c.empathy.learning_rate * Schedule::Linear.factor(step, total / 10, total);
        let rates = (lr, 10.0 * lr);
        let loss =
            levels::levels_step(&mut s.bert, &mut s.params, &mut s.head, &parts, LEVELS, &adam, rates, 1.0)?;
        log.write(&json!({"step": step, "loss": loss, "lr": lr}))?;
        let stop = cx.interrupted();
        if (stop || (step + 1).is_multiple_of(every)) && step + 1 < total {
            let state = (log.sync()?, &cx.summary);
            checkpoints.save(base + step + 1, &state, &[("encoder", &s.params), ("head", &s.head)])?;
            if stop {
                return Err(cx.stopped(&format!("empathy/{name}"), step + 1, total));
            }
        }
        progress.tick(&format!("loss {loss:.3}"));
    }
    drop(progress);
    let purpose = if name == "train" { "training and evaluation" } else { "evaluation only" };
    let about = json!({
        "purpose": purpose,
        "source": "EPITOME (Reddit), one half of the training posts",
        "max_length": c.empathy.max_length,
    });
    s.save(&cx.dir.empathy(name), SCORER_FILE, about)?;
    log.sync()?;
    checkpoints.save(base + SCORER_STEPS, &(0_u64, &cx.summary), &[])?;
    Ok(s)
}

/// Notes of both scorers on one part: per mechanism macro-F1 with a 95 % interval (bootstrap over posts), what the
/// majority class reaches, accuracy; and the gap between the two.
fn report(
    cx: &mut Context,
    scorers: &mut [(Scorer, Vec<RatedSupport>)],
    split: Split,
    rows: &[RatedSupport],
    stream: Stream,
) -> Result<()> {
    let max_len = cx.config.empathy.max_length;
    let mut posts: Vec<&str> = rows.iter().map(|r| r.post_id.as_str()).collect();
    posts.sort_unstable();
    let at = |id: &str| posts.partition_point(|p| *p < id) as u64;
    let clusters: Vec<u64> = rows.iter().map(|r| at(&r.post_id)).collect();
    let bootstrap =
        Bootstrap { resamples: cx.config.eval.resamples, stream: stream.child("report").child(split.name()) };
    let draws = bootstrap.draw(&clusters)?;
    let mut predicted = Vec::new();
    for (s, _) in scorers.iter_mut() {
        let p = s.levels(&encode(s, rows, max_len)?)?;
        predicted.push(p.iter().map(|l| l.map(|p| argmax(&p))).collect::<Vec<[usize; 3]>>());
    }
    cx.note(&format!("{}_rows", split.name()), rows.len());
    for (m, mechanism) in MECHANISMS.iter().enumerate() {
        let f1 = |which: &[[usize; 3]], times: &[u32]| {
            let mut counts = vec![vec![0usize; LEVELS]; LEVELS];
            for ((r, p), &t) in rows.iter().zip(which).zip(times) {
                counts[r.levels[m]][p[m]] += t as usize;
            }
            classify::macro_f1(&counts)
        };
        let once = vec![1; rows.len()];
        for ((name, which), (_, mine)) in SCORERS.iter().zip(&predicted).zip(scorers.iter()) {
            let key = |what: &str| format!("{name}_{}_{mechanism}_{what}", split.name());
            let labels: Vec<usize> = rows.iter().map(|r| r.levels[m]).collect();
            let right = labels.iter().zip(which).filter(|(l, p)| **l == p[m]).count();
            let majority =
                argmax(&std::array::from_fn(|l| mine.iter().filter(|r| r.levels[m] == l).count() as f64));
            cx.note(&key("macro_f1"), f1(which, &once));
            cx.note(&key("macro_f1_interval"), json!(draws.interval(|t| Some(f1(which, t)))));
            cx.note(&key("majority_macro_f1"), classify::majority_macro_f1(&labels, majority, LEVELS));
            cx.note(&key("accuracy"), right as f64 / labels.len().max(1) as f64);
        }
        let gap = |t: &[u32]| Some(f1(&predicted[0], t) - f1(&predicted[1], t));
        let key = |what: &str| format!("{}_{mechanism}_{what}", split.name());
        cx.note(&key("gap"), json!(gap(&once)));
        cx.note(&key("gap_interval"), json!(draws.interval(gap)));
        let agree = predicted[0].iter().zip(&predicted[1]).filter(|(a, b)| a[m] == b[m]).count();
        cx.note(&key("agreement"), agree as f64 / rows.len().max(1) as f64);
    }
    Ok(())
}

fn argmax(p: &[f64; LEVELS]) -> usize {
    (0..LEVELS).fold(0, |best, i| if p[i] > p[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(post: &str, levels: [usize; 3]) -> RatedSupport {
        RatedSupport {
            post_id: post.into(),
            post: String::new(),
            reply: String::new(),
            levels,
            split: Split::Train,
        }
    }

    #[test]
    fn rare_levels_count_more_and_weights_have_mean_one() {
        let mut rows = vec![row("a", [0, 0, 0]); 9];
        rows.push(row("b", [2, 0, 1]));
        for balance in [0.0, 0.5, 1.0] {
            let w = weights(&rows, balance);
            for m in 0..3 {
                let mean = (0..10).map(|i| w[3 * i + m]).sum::<f64>() / 10.0;
                assert!((mean - 1.0).abs() < 1e-12);
            }
            assert_eq!((w[27] / w[0]).round(), 9f64.powf(balance).round());
            assert!((w[28] - 1.0).abs() < 1e-12);
        }
    }

    #[test]
    fn a_post_teaches_one_twin_only() {
        let stream = Stream::new(1);
        let rows: Vec<RatedSupport> = (0..400).map(|i| row(&format!("p{}", i / 2), [0; 3])).collect();
        let halves: Vec<usize> = rows.iter().map(|r| half(r, stream)).collect();
        assert!(halves.chunks(2).all(|p| p[0] == p[1]));
        assert!((140..260).contains(&halves.iter().sum::<usize>()));
    }
}
