//! `label`: the record files once more with the emotions of the seeker's turns, by the training scorer.
//!
//! Prepared records have none, because the scorer is trained after them. They are not rewritten: what a stage wrote
//! stays as it is, or it would run again. `data/labelled/` holds the same records with the fields filled in.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ecr_core::seam::{EMOTIONS, Emotion as _, EmotionDistribution};
use ecr_core::{Error, Result, Role, io};
use ecr_data::catalogue::Catalogue;
use ecr_data::records::{RecordOptions, SCHEMA, read_jsonl, records, to_jsonl};
use ecr_data::redial::{Dialogue, Split};
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::graph::{Context, Stage};
use crate::rewarding::emotion;
use crate::rundir::RunDir;

pub(super) struct Label;

/// Turns scored in one step. Fixed, so that a continued run packs the same turns together.
const STEP: usize = 256;
/// Steps between checkpoints.
const EVERY: u64 = 32;

/// The splits to label. A pretrained encoder takes minutes for all of ReDial, so training is left out there unless
/// asked for.
fn splits(c: &Config) -> Vec<Split> {
    let chosen = match c.label.splits.as_str() {
        "auto" if c.data.source == "demo" => "train,valid,test",
        "auto" => "valid,test",
        "all" => "train,valid,test",
        "off" => "",
        list => list,
    };
    let named = |s: &Split| chosen.split(',').any(|n| n.trim() == s.name());
    [Split::Train, Split::Valid, Split::Test].into_iter().filter(named).collect()
}

fn dialogues_file(dir: &RunDir, split: Split) -> PathBuf {
    dir.data().join("processed").join(format!("{}_dialogues.jsonl", split.name()))
}

impl Stage for Label {
    fn name(&self) -> &'static str {
        "label"
    }
    fn settings(&self, c: &Config) -> Json {
        let names: Vec<&str> = splits(c).iter().map(|s| s.name()).collect();
        json!([names, c.data.slots, c.run.precision])
    }
    fn inputs(&self, c: &Config, dir: &RunDir) -> Vec<PathBuf> {
        let splits = splits(c);
        if splits.is_empty() {
            return Vec::new();
        }
        let mut files = vec![dir.data().join("processed/catalogue.jsonl"), dir.emotion("train")];
        files.extend(splits.into_iter().map(|s| dialogues_file(dir, s)));
        files
    }
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf> {
        vec![dir.labelled()]
    }

    fn run(&self, cx: &mut Context) -> Result<()> {
        let c = cx.config.clone();
        let splits = splits(&c);
        if splits.is_empty() {
            return io::remove_dir_all(&cx.dir.labelled());
        }
        let catalogue = Catalogue::read(&cx.dir.data().join("processed/catalogue.jsonl"))?;
        let mut scorer = emotion(cx, "train")?;
        let mut dialogues: Vec<Dialogue> = Vec::new();
        for split in &splits {
            dialogues.extend(read_jsonl::<Dialogue>(&dialogues_file(&cx.dir, *split))?);
        }
        let seeker = |d: &&Dialogue| d.turns.iter().filter(|t| t.role == Role::Seeker).count();
        let texts: Vec<&str> = dialogues
            .iter()
            .flat_map(|d| &d.turns)
            .filter(|t| t.role == Role::Seeker)
            .map(|t| t.text.as_str())
            .collect();

        let checkpoints = cx.checkpoints("label");
        let mut scores: Vec<EmotionDistribution> = match checkpoints.latest(|w| cx.voice.warn(w))? {
            Some(found) => found.state()?,
            None => Vec::new(),
        };
        let total = texts.len().div_ceil(STEP) as u64;
        let begun = (scores.len() / STEP) as u64;
        let mut progress = cx.progress("label", total, begun);
        for (step, part) in (begun..total).zip(texts.chunks(STEP).skip(begun as usize)) {
            scores.extend(scorer.distribution(part)?);
            let (done, stop) = (step + 1, cx.interrupted());
            if (stop || done.is_multiple_of(EVERY)) && done < total {
                checkpoints.save(done, &scores, &[])?;
                if stop {
                    return Err(cx.stopped("label", done, total));
                }
            }
            progress.tick("");
        }
        drop(progress);

        // Only now that everything is scored are older files replaced.
        io::remove_dir_all(&cx.dir.labelled())?;
        let (mut counts, mut outputs) = (BTreeMap::new(), BTreeMap::new());
        let mut left = scores.as_slice();
        let mut by_dialogue = Vec::with_capacity(dialogues.len());
        for d in &dialogues {
            let (own, rest) = left.split_at(seeker(&d));
            left = rest;
            let mut own = own.iter();
            // Turns of the recommender are not read.
            let of = |role: Role| if role == Role::Seeker { own.next().copied() } else { None };
            let turns: Vec<EmotionDistribution> =
                d.turns.iter().map(|t| t.role).map(of).map(Option::unwrap_or_default).collect();
            by_dialogue.push(turns);
        }
        let options = RecordOptions { slots: c.data.slots };
        for split in splits {
            let here = dialogues.iter().zip(&by_dialogue).filter(|(d, _)| d.split == split);
            let rows: Vec<_> = here.flat_map(|(d, p)| records(d, &catalogue, Some(p), options)).collect();
            let name = format!("{}_data_processed.jsonl", split.name());
            let bytes = to_jsonl(&rows)?;
            counts.insert(split.name(), rows.len());
            outputs.insert(name.clone(), io::sha256(&bytes));
            io::atomic_write(&cx.dir.labelled().join(name), &bytes)?;
        }
        let mut most_likely = [0_usize; 9];
        for p in &scores {
            most_likely[(0..9).fold(0, |b, i| if p[i] > p[b] { i } else { b })] += 1;
        }
        let shares: BTreeMap<&str, f64> = EMOTIONS
            .iter()
            .zip(most_likely)
            .map(|(e, n)| (*e, n as f64 / scores.len().max(1) as f64))
            .collect();
        cx.note("seeker_turns", scores.len());
        cx.note("most_likely_emotion", json!(shares));
        let manifest = json!({
            "schema": SCHEMA, "scorer": scorer.version(), "seeker_turns": scores.len(), "records": counts,
            "outputs": outputs,
        });
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| Error::internal(format!("write the manifest of labelled records: {e}")))?;
        io::atomic_write(&cx.dir.labelled().join("manifest.json"), &text)
    }
}
