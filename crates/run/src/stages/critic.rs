//! `critic`: encoder with quality heads on (context, reply). A head without a label source does not exist.

use std::path::PathBuf;

use ecr_algos::critic::{Batch, Objective, Pair, Target, critic_step, head_metrics};
use ecr_algos::sft;
use ecr_core::optim::{AdamW, Schedule};
use ecr_core::{Error, Result, io};
use ecr_data::critic_rows::{CriticRow, heads};
use ecr_data::records::read_jsonl;
use ecr_models::load::resolve_weights;
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::graph::{Context, Stage};
use crate::measure::batches;
use crate::rundir::RunDir;
use crate::scorers::{Scorer, pack};

pub(super) struct Critic;

/// File of the trained critic, without its ending.
pub(super) const CRITIC_FILE: &str = "critic_pretrained_final";

impl Stage for Critic {
    fn name(&self) -> &'static str {
        "critic"
    }
    fn settings(&self, c: &Config) -> Json {
        json!([c.critic, c.encoder, c.run.seed, c.run.precision])
    }
    fn inputs(&self, c: &Config, dir: &RunDir) -> Vec<PathBuf> {
        if !c.critic.pretrained_path.is_empty() {
            return vec![PathBuf::from(&c.critic.pretrained_path)];
        }
        let rows = ["train", "valid", "test"].map(|s| dir.data().join(format!("critic_{s}.jsonl")));
        rows.into_iter().chain([dir.data().join("tokenizer.json")]).collect()
    }
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf> {
        vec![dir.critic()]
    }

    fn run(&self, cx: &mut Context) -> Result<()> {
        let c = cx.config.clone();
        if !c.critic.pretrained_path.is_empty() {
            return take(cx, &c.critic.pretrained_path);
        }
        let read = |name: &str| read_jsonl::<CriticRow>(&cx.dir.data().join(format!("critic_{name}.jsonl")));
        let stream = cx.stream.child("critic");
        // Seeded subsets: of training rows as configured, of the others a quarter of that.
        let few = |name: &str, most: usize| -> Result<Vec<CriticRow>> {
            let mut rows = read(name)?;
            if c.critic.max_rows > 0 && rows.len() > most {
                stream.child("subset").child(name).rng().shuffle(&mut rows);
                rows.truncate(most);
            }
            Ok(rows)
        };
        let held = c.critic.max_rows.div_ceil(4);
        let (rows, valid, test) = (few("train", c.critic.max_rows)?, few("valid", held)?, few("test", held)?);
        let names: Vec<String> = heads(&rows).into_keys().collect();
        if names.is_empty() {
            return Err(Error::data("train the critic").expected("rows with a score").got("none"));
        }
        let mut s = Scorer::fresh(&c, &cx.dir, cx.engine, names.clone(), stream.child("init"))?;
        s.params.make_trainable();
        let encode = |s: &Scorer, rows: &[CriticRow]| -> Result<Vec<Vec<u32>>> {
            rows.iter().map(|r| s.encode_pair(&r.context, &r.response, c.critic.max_length)).collect()
        };
        let inputs = encode(&s, &rows)?;
        // A batch is a number of rows: each counts one.
        let ones = vec![1; rows.len()];
        let plan: Vec<Vec<usize>> = (0..c.critic.epochs)
            .flat_map(|e| sft::epoch_batches(&ones, c.critic.batch_size, stream, e))
            .collect();
        let checkpoints = cx.checkpoints("critic");
        let (mut done, mut log_len) = (0, 0);
        if let Some(found) = checkpoints.latest(|w| cx.voice.warn(w))? {
            found.restore("encoder", &mut s.params)?;
            found.restore("head", &mut s.head)?;
            (done, log_len) = (found.step, found.state()?);
        }
        let mut log = cx.log("critic.metrics.jsonl", log_len)?;
        let total = plan.len() as u64;
        let every = (c.run.checkpoint_every * 20).max(total / 4).max(1);
        let adam = AdamW::default();
        let mut progress = cx.progress("critic", total, done);
        for step in done..total {
            let which = &plan[step as usize];
            let part: Vec<Vec<u32>> = which.iter().map(|&i| inputs[i].clone()).collect();
            let lengths: Vec<usize> = part.iter().map(Vec::len).collect();
            let micro_batches: Vec<_> =
                batches(&lengths, c.critic.micro_batch_tokens).into_iter().map(|r| pack(&part[r])).collect();
            let part: Vec<&CriticRow> = which.iter().map(|&i| &rows[i]).collect();
            let targets: Vec<Option<Target>> = part.iter().flat_map(|r| targets(r, &names)).collect();
            let pairs = pairs(&part, &names);
            let lr = c.critic.learning_rate * Schedule::Linear.factor(step, total / 10, total);
            let loss = critic_step(
                &mut s.bert,
                &mut s.params,
                &mut s.head,
                &Batch { micro_batches: &micro_batches, targets: &targets, pairs: &pairs },
                &Objective { rank_coef: c.critic.rank_weight, huber: None },
                &adam,
                (lr, 5.0 * lr),
                1.0,
            )?;
            log.write(&json!({"step": step, "loss": loss, "lr": lr}))?;
            let stop = cx.interrupted();
            if (stop || (step + 1) % every == 0) && step + 1 < total {
                let len = log.sync()?;
                checkpoints.save(step + 1, &len, &[("encoder", &s.params), ("head", &s.head)])?;
                if stop {
                    return Err(cx.stopped("critic", step + 1, total));
                }
            }
            progress.tick(&format!("loss {loss:.3}"));
        }
        drop(progress);
        let mut history = serde_json::Map::new();
        for (split, held) in [("valid", &valid), ("test", &test)] {
            let scores = s.score(&encode(&s, held)?)?;
            let mut report = serde_json::Map::new();
            for (h, name) in names.iter().enumerate() {
                let mean = mean(rows.iter().filter_map(|r| r.scores.get(name)).map(|x| x.score));
                let (mut p, mut y) = (Vec::new(), Vec::new());
                for (i, r) in held.iter().enumerate() {
                    if let Some(label) = r.scores.get(name) {
                        p.push(scores[i * names.len() + h]);
                        y.push(label.score);
                    }
                }
                if y.len() >= 2 {
                    let metrics = head_metrics(&p, &y, mean);
                    for (key, value) in metrics.iter() {
                        cx.note(&format!("{split}_{name}_{key}"), value);
                    }
                    report.insert(name.clone(), json!(metrics));
                }
            }
            history.insert(split.to_string(), Json::Object(report));
        }
        history.insert("steps".into(), total.into());
        let text = serde_json::to_vec_pretty(&history)
            .map_err(|e| Error::internal(format!("write the critic's history: {e}")))?;
        let dir = cx.dir.critic();
        io::atomic_write(&dir.join("training_history.json"), &text)?;
        s.save(&dir, CRITIC_FILE, json!({"heads": names, "max_length": c.critic.max_length}))
    }
}

/// Uses a critic that was trained elsewhere; a `.pth` path means the safetensors beside it.
fn take(cx: &mut Context, path: &str) -> Result<()> {
    let file = resolve_weights(std::path::Path::new(path))?;
    let from = file.parent().unwrap_or(std::path::Path::new("."));
    let s = Scorer::load(from, CRITIC_FILE, cx.engine)?;
    cx.note("pretrained", s.hash());
    let to = cx.dir.critic();
    for name in [
        format!("{CRITIC_FILE}.safetensors"),
        "config.json".into(),
        "tokenizer.json".into(),
        "training_history.json".into(),
    ] {
        if from.join(&name).exists() {
            io::atomic_write(&to.join(&name), &io::read(&from.join(&name))?)?;
        }
    }
    Ok(())
}

fn targets(r: &CriticRow, names: &[String]) -> Vec<Option<Target>> {
    names.iter().map(|n| r.scores.get(n).map(|s| Target { value: s.score, weight: 1.0 })).collect()
}

/// Pairs of one batch whose order is known: same conversation and source, different scores.
fn pairs(rows: &[&CriticRow], names: &[String]) -> Vec<Pair> {
    let mut out = Vec::new();
    for (head, name) in names.iter().enumerate() {
        for (i, a) in rows.iter().enumerate() {
            for (j, b) in rows.iter().enumerate().skip(i + 1) {
                let (Some(x), Some(y)) = (a.scores.get(name), b.scores.get(name)) else { continue };
                if x.source == y.source && x.score != y.score {
                    let (better, worse) = if x.score > y.score { (i, j) } else { (j, i) };
                    out.push(Pair { better, worse, head, weight: 1.0 });
                }
            }
        }
    }
    out
}

fn mean(xs: impl Iterator<Item = f64>) -> f64 {
    let (mut n, mut sum) = (0.0, 0.0);
    for x in xs {
        n += 1.0;
        sum += x;
    }
    if n > 0.0 { sum / n } else { 0.0 }
}
