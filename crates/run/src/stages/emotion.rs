//! `emotion`: two nine-way classifiers from different label sources. `train` scores in training; its twin
//! `evaluate` is for evaluation only. Macro-F1 on their own test parts, beside the majority class.

use std::path::{Path, PathBuf};

use ecr_algos::{classify, sft};
use ecr_core::optim::{AdamW, Schedule};
use ecr_core::seam::EMOTIONS;
use ecr_core::{Error, Result};
use ecr_data::demo::emotions::{LabelSet, emotion_set};
use ecr_data::emotion_labels::{self, LabelledText};
use ecr_data::redial::Split;
use serde_json::{Value as Json, json};

use crate::checkpoint::ENCODER_STEPS;
use crate::config::Config;
use crate::graph::{Context, Stage};
use crate::measure::batches;
use crate::rewarding::SCORER_FILE;
use crate::rundir::RunDir;
use crate::scorers::{Scorer, pack};

pub(super) struct Emotion;

/// Most texts of a split that a scorer is measured on, seeded.
const MEASURED: usize = 3000;

/// More steps than a scorer can have.
const SCORER_STEPS: u64 = 1_000_000;

const SCORERS: [&str; 2] = ["train", "evaluate"];

impl Stage for Emotion {
    fn name(&self) -> &'static str {
        "emotion"
    }
    fn settings(&self, c: &Config) -> Json {
        json!([c.emotion, c.encoder, c.data.source, c.run.seed, c.run.precision])
    }
    fn inputs(&self, c: &Config, dir: &RunDir) -> Vec<PathBuf> {
        let mut files = vec![dir.data().join("tokenizer.json")];
        if c.data.source == "redial" {
            let root = Path::new(&c.data.path).join("empathy");
            for s in ["train", "valid", "test"] {
                files.push(root.join(format!("goemotions_{s}.jsonl.gz")));
                files.push(root.join(format!("empathetic_dialogues_{s}.jsonl.gz")));
            }
        }
        files
    }
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf> {
        vec![dir.join("emotion")]
    }
    fn run(&self, cx: &mut Context) -> Result<()> {
        for (i, name) in SCORERS.into_iter().enumerate() {
            train(cx, name, i as u64)?;
        }
        Ok(())
    }
}

/// Texts of a scorer's source. The training scorer borrows nothing from EmpatheticDialogues.
fn texts(c: &Config, scorer: &str, split: Split) -> Result<Vec<LabelledText>> {
    if c.data.source == "demo" {
        let set = if scorer == "train" { LabelSet::A } else { LabelSet::B };
        let n = match split {
            Split::Train => 2000,
            Split::Valid => 400,
            Split::Test => 600,
        };
        let one_hot = |label: usize| std::array::from_fn(|i| if i == label { 1.0 } else { 0.0 });
        return Ok(emotion_set(set, split, n, c.run.seed)
            .into_iter()
            .map(|(text, label)| LabelledText { text, target: one_hot(label), split })
            .collect());
    }
    let root = Path::new(&c.data.path).join("empathy");
    if scorer == "train" {
        emotion_labels::goemotions(&root.join(format!("goemotions_{}.jsonl.gz", split.name())), split)
    } else {
        let path = root.join(format!("empathetic_dialogues_{}.jsonl.gz", split.name()));
        emotion_labels::empathetic(&path, split)
    }
}

fn train(cx: &mut Context, name: &str, index: u64) -> Result<()> {
    let c = cx.config.clone();
    // Checkpoints of the two scorers share one count of steps; each holds what was noted before.
    let checkpoints = cx.checkpoints("emotion");
    let base = index * SCORER_STEPS;
    let found = checkpoints.latest(|w| cx.voice.warn(w))?.filter(|f| f.step >= base);
    let mut log_len = 0;
    if let Some(f) = &found {
        (log_len, cx.summary) = f.state()?;
        if f.step >= base + SCORER_STEPS {
            // It belongs to a later scorer: this one is finished.
            return Ok(());
        }
    }
    let stream = cx.stream.child("emotion").child(name);
    let mut rows = texts(&c, name, Split::Train)?;
    if c.emotion.max_texts > 0 {
        stream.child("subset").rng().shuffle(&mut rows);
        rows.truncate(c.emotion.max_texts);
    }
    if rows.is_empty() {
        return Err(Error::data(format!("train the {name} emotion scorer")).got("no labelled text"));
    }
    let outputs: Vec<String> = EMOTIONS.iter().map(|e| e.to_string()).collect();
    let mut s = Scorer::fresh(&c, &cx.dir, cx.engine, outputs, stream.child("init"))?;
    s.params.make_trainable();
    let inputs = rows.iter().map(|r| s.encode(&r.text)).collect::<Result<Vec<_>>>()?;
    let weights = match c.emotion.class_weights.as_str() {
        "inverse" => classify::inverse_frequency(
            &rows.iter().flat_map(|r| r.target).collect::<Vec<f32>>(),
            EMOTIONS.len(),
        ),
        _ => vec![1.0; rows.len()],
    };
    let lengths: Vec<usize> = inputs.iter().map(Vec::len).collect();
    let plan: Vec<Vec<usize>> = (0..c.emotion.epochs)
        .flat_map(|e| sft::epoch_batches(&lengths, c.emotion.batch_tokens, stream, e))
        .collect();

    let mut done = 0;
    if let Some(f) = found.filter(|f| f.step > base) {
        f.restore("encoder", &mut s.params)?;
        f.restore("head", &mut s.head)?;
        done = f.step - base;
    }
    let mut log = cx.log(&format!("emotion_{name}.metrics.jsonl"), log_len)?;
    let adam = AdamW::default();
    let total = plan.len() as u64;
    let every = cx.config.run.checkpoint_every * ENCODER_STEPS;
    let mut progress = cx.progress(&format!("emotion/{name}"), total, done);
    for step in done..total {
        let which = &plan[step as usize];
        let lengths: Vec<usize> = which.iter().map(|&i| inputs[i].len()).collect();
        let part = |range: std::ops::Range<usize>| {
            let which = &which[range];
            classify::Labelled {
                batch: pack(&which.iter().map(|&i| inputs[i].clone()).collect::<Vec<_>>()),
                targets: which.iter().flat_map(|&i| rows[i].target).collect(),
                weights: which.iter().map(|&i| weights[i]).collect(),
            }
        };
        let parts: Vec<_> = batches(&lengths, c.emotion.micro_batch_tokens).into_iter().map(part).collect();
        let lr = c.emotion.learning_rate * Schedule::Linear.factor(step, total / 10, total);
        let rates = (lr, 5.0 * lr);
        let loss = classify::classify_step(
            &mut s.bert,
            &mut s.params,
            &mut s.head,
            &parts,
            c.emotion.focal_gamma,
            &adam,
            rates,
            1.0,
        )?;
        log.write(&json!({"step": step, "loss": loss, "lr": lr}))?;
        let stop = cx.interrupted();
        if (stop || (step + 1).is_multiple_of(every)) && step + 1 < total {
            let state = (log.sync()?, &cx.summary);
            checkpoints.save(base + step + 1, &state, &[("encoder", &s.params), ("head", &s.head)])?;
            if stop {
                return Err(cx.stopped(&format!("emotion/{name}"), step + 1, total));
            }
        }
        progress.tick(&format!("loss {loss:.3}"));
    }
    drop(progress);

    let majority = count(&rows).iter().enumerate().max_by_key(|(i, n)| (**n, 9 - i)).map_or(0, |(i, _)| i);
    for split in [Split::Valid, Split::Test] {
        let mut rows = texts(&c, name, split)?;
        stream.child("measured").child(split.name()).rng().shuffle(&mut rows);
        rows.truncate(MEASURED);
        let inputs = rows.iter().map(|r| s.encode(&r.text)).collect::<Result<Vec<_>>>()?;
        let p = s.classify(&inputs)?;
        let predicted: Vec<usize> =
            p.chunks(9).map(|r| (0..9).fold(0, |b, i| if r[i] > r[b] { i } else { b })).collect();
        let labels: Vec<usize> = rows.iter().map(LabelledText::hard).collect();
        let f1 = classify::macro_f1(&classify::confusion(&labels, &predicted, 9));
        let right = labels.iter().zip(&predicted).filter(|(a, b)| a == b).count();
        cx.note(&format!("{name}_{}_macro_f1", split.name()), f1);
        cx.note(
            &format!("{name}_{}_majority_macro_f1", split.name()),
            classify::majority_macro_f1(&labels, majority, 9),
        );
        cx.note(&format!("{name}_{}_accuracy", split.name()), right as f64 / labels.len().max(1) as f64);
    }
    let missing = emotion_labels::missing(&rows);
    cx.note(&format!("{name}_labels_without_data"), json!(missing));
    let source = match (c.data.source.as_str(), name) {
        ("demo", _) => "the demo generator's own labelled utterances",
        (_, "train") => "GoEmotions",
        _ => "EmpatheticDialogues with listener intents",
    };
    cx.note(&format!("{name}_source"), source);
    let purpose = if name == "train" { "training and evaluation" } else { "evaluation only" };
    s.save(&cx.dir.emotion(name), SCORER_FILE, json!({"purpose": purpose, "source": source}))?;
    // The next scorer begins with an empty log.
    log.sync()?;
    checkpoints.save(base + SCORER_STEPS, &(0_u64, &cx.summary), &[])
}

fn count(rows: &[LabelledText]) -> [usize; 9] {
    let mut n = [0; 9];
    rows.iter().for_each(|r| n[r.hard()] += 1);
    n
}
