//! `critic`: encoder with quality heads on (context, reply). A head without a label source does not exist.

use std::path::PathBuf;

use ecr_algos::agreement::calibrate;
use ecr_algos::critic::{Batch, Objective, Target, critic_step};
use ecr_core::optim::{AdamW, Schedule};
use ecr_core::{Error, Result, io};
use ecr_data::critic_rows::CriticRow;
use ecr_models::load::resolve_weights;
use serde_json::{Value as Json, json};

use crate::checkpoint::ENCODER_STEPS;
use crate::config::Config;
use crate::critic::plan::{self, Budget, Labels};
use crate::critic::report::{self, Baselines};
use crate::critic::rows;
use crate::graph::{Context, Stage};
use crate::measure::batches;
use crate::rundir::RunDir;
use crate::scorers::{PairInput, Scorer, pack_pairs};

/// Most rated rows of a part that the critic is measured on, seeded.
const RATED: usize = 1500;
/// Most groups of each degradation that it is measured on, seeded.
const GROUPS: usize = 60;

pub(super) struct Critic;

/// File of the trained critic, without its ending.
pub(crate) const CRITIC_FILE: &str = "critic_pretrained_final";

impl Stage for Critic {
    fn name(&self) -> &'static str {
        "critic"
    }
    fn settings(&self, c: &Config) -> Json {
        json!([c.critic, c.encoder, c.run.seed, c.run.precision, c.eval.resamples])
    }
    fn inputs(&self, c: &Config, dir: &RunDir) -> Vec<PathBuf> {
        if !c.critic.pretrained_path.is_empty() {
            return vec![PathBuf::from(&c.critic.pretrained_path)];
        }
        rows::files(c, dir).into_iter().chain([dir.data().join("tokenizer.json")]).collect()
    }
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf> {
        vec![dir.critic()]
    }

    fn run(&self, cx: &mut Context) -> Result<()> {
        let c = cx.config.clone();
        if !c.critic.pretrained_path.is_empty() {
            return take(cx, &c.critic.pretrained_path);
        }
        let stream = cx.stream.child("critic");
        let [rows, valid, test] = rows::read(cx)?;
        let labels = Labels::new(&rows);
        let names = labels.names.clone();
        if names.is_empty() {
            return Err(Error::data("train the critic").expected("rows with a score").got("none"));
        }
        let fresh = Scorer::fresh(&c, &cx.dir, cx.engine, names.clone(), stream.child("init"))?;
        let mut s = fresh.reading_replies();
        s.params.make_trainable();
        // Training begins at each head's mean label.
        let bias = s.head.data.len() - names.len();
        for h in 0..names.len() {
            let mean = labels.mean(h).clamp(0.05, 0.95);
            s.head.data[bias + h] = (mean / (1.0 - mean)).ln() as f32;
        }
        let encode = |s: &Scorer, rows: &[&CriticRow]| -> Result<Vec<PairInput>> {
            rows.iter().map(|r| s.encode_pair(&r.context, &r.response, c.critic.max_length)).collect()
        };
        let budget = Budget {
            max_rows: c.critic.max_rows,
            rated_share: c.critic.rated_share,
            batch_size: c.critic.batch_size,
        };
        let plan: Vec<Vec<usize>> =
            (0..c.critic.epochs).flat_map(|e| plan::epoch(&rows, budget, stream, e)).collect();
        let objective = Objective {
            rank_coef: c.critic.rank_weight,
            huber: (c.critic.huber > 0.0).then_some(c.critic.huber),
        };
        let checkpoints = cx.checkpoints("critic");
        let (mut done, mut log_len) = (0, 0);
        if let Some(found) = checkpoints.latest(|w| cx.voice.warn(w))? {
            found.restore("encoder", &mut s.params)?;
            found.restore("head", &mut s.head)?;
            (done, log_len) = (found.step, found.state()?);
        }
        let mut log = cx.log("critic.metrics.jsonl", log_len)?;
        let total = plan.len() as u64;
        let every = c.run.checkpoint_every * ENCODER_STEPS;
        let adam = AdamW::default();
        let mut progress = cx.progress("critic", total, done);
        for step in done..total {
            let which = &plan[step as usize];
            let part: Vec<&CriticRow> = which.iter().map(|&i| &rows[i]).collect();
            let inputs = encode(&s, &part)?;
            let lengths: Vec<usize> = inputs.iter().map(|i| i.tokens.len()).collect();
            let micro_batches: Vec<_> = batches(&lengths, c.critic.micro_batch_tokens)
                .into_iter()
                .map(|range| pack_pairs(&inputs[range]))
                .collect();
            let targets: Vec<Option<Target>> = part.iter().flat_map(|r| labels.targets(r)).collect();
            let pairs = plan::pairs(&part, &labels, c.critic.form_weight);
            let lr = c.critic.learning_rate * Schedule::Linear.factor(step, total / 10, total);
            let loss = critic_step(
                &mut s.bert,
                &mut s.params,
                &mut s.head,
                &Batch { micro_batches: &micro_batches, targets: &targets, pairs: &pairs },
                &objective,
                &adam,
                (lr, 10.0 * lr),
                1.0,
            )?;
            log.write(&json!({"step": step, "loss": loss, "lr": lr}))?;
            let stop = cx.interrupted();
            if (stop || (step + 1).is_multiple_of(every)) && step + 1 < total {
                let len = log.sync()?;
                checkpoints.save(step + 1, &len, &[("encoder", &s.params), ("head", &s.head)])?;
                if stop {
                    return Err(cx.stopped("critic", step + 1, total));
                }
            }
            progress.tick(&format!("loss {loss:.3}"));
        }
        drop(progress);
        let baselines = Baselines::fit(&rows, &labels);
        let mut history = serde_json::Map::new();
        for (split, held) in [("valid", valid), ("test", test)] {
            let held = plan::measured(held, RATED, GROUPS, stream.child("measured").child(split));
            let mut z = s.logits(&encode(&s, &held.iter().collect::<Vec<_>>())?)?;
            if split == "valid" {
                let found = calibrate_heads(&mut s, &labels, &held, &mut z);
                history.insert("calibration".into(), found);
            }
            let stream = stream.child("report").child(split);
            let report = report::report(&held, &z, &labels, &baselines, c.eval.resamples, stream)?;
            for (key, value) in report::notes(&report) {
                cx.note(&format!("{split}_{key}"), value);
            }
            history.insert(split.to_string(), report);
        }
        let sources: Vec<Json> = labels
            .sources
            .iter()
            .map(|((head, source), x)| {
                json!({"head": head, "source": source, "rows": x.rows, "mean": x.mean, "sd": x.sd})
            })
            .collect();
        history.insert("sources".into(), sources.into());
        history.insert("steps".into(), total.into());
        let text = serde_json::to_vec_pretty(&history)
            .map_err(|e| Error::internal(format!("write the critic's history: {e}")))?;
        let dir = cx.dir.critic();
        io::atomic_write(&dir.join("training_history.json"), &text)?;
        s.save(&dir, CRITIC_FILE, json!({"heads": names, "max_length": c.critic.max_length}))
    }
}

/// Scale and shift of each head's logits that fit validation labels best, written into head and logits. What is reported on
/// validation is therefore fitted on it; the test part is not.
fn calibrate_heads(s: &mut Scorer, labels: &Labels, rows: &[CriticRow], z: &mut [f64]) -> Json {
    let (n, mut out) = (labels.names.len(), serde_json::Map::new());
    let width = s.head.tensor(0).len() / n;
    for (h, name) in labels.names.iter().enumerate() {
        let known: Vec<(f64, f64)> =
            rows.iter().enumerate().filter_map(|(i, r)| Some((z[i * n + h], labels.label(r, h)?))).collect();
        let (x, y): (Vec<f64>, Vec<f64>) = known.into_iter().unzip();
        if x.len() < 20 {
            continue;
        }
        let (scale, shift) = calibrate(&x, &y);
        s.head.data[h * width..(h + 1) * width].iter_mut().for_each(|w| *w *= scale as f32);
        let bias = &mut s.head.data[n * width + h];
        *bias = (scale * f64::from(*bias) + shift) as f32;
        z.iter_mut().skip(h).step_by(n).for_each(|z| *z = scale * *z + shift);
        out.insert(name.clone(), json!({"scale": scale, "shift": shift}));
    }
    Json::Object(out)
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
