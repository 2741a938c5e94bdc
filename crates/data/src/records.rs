//! What the stages are fed with: one [`Example`] a recommender turn, and [`Record`]s with ECR's field names.
//!
//! Policies read and write `Title (Year)`. With `slots` the reply holds `<movie>` instead, and
//! [`fill_slots`] puts titles back before anything is scored.

use std::collections::BTreeSet;
use std::path::Path;

use ecr_core::seam::{EMOTIONS, EmotionDistribution, Label};
use ecr_core::{Error, ItemId, Result, Role, Utterance, io};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::catalogue::Catalogue;
use crate::redial::{Corpus, Dialogue, ImportReport, Split};

/// Stands for a title in slot texts.
pub const SLOT: &str = "<movie>";

/// Schema of the record files, in their manifest.
pub const SCHEMA: &str = "ecr.records/1";

/// One recommender turn with everything that training, rewards and evaluation may look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Conversation.
    pub conv_id: u32,
    /// Turn of the conversation, from 0, after merging.
    pub turn_idx: usize,
    /// Its part of the data.
    pub split: Split,
    /// Turns before, oldest first, titles filled in. Empty if the recommender opens.
    pub context: Vec<Utterance>,
    /// The human reply, titles filled in.
    pub reply: String,
    /// The same with [`SLOT`]s.
    pub reply_slots: String,
    /// Films that the reply names and nobody named before, each once, with the seeker's own answer.
    pub labels: Vec<Label>,
    /// Films named in the context, each once, in order of first mention.
    pub mentioned: Vec<ItemId>,
    /// Those of `mentioned` that the seeker's form calls disliked. The form is filled in after the
    /// conversation; a film counts as turned down from its first mention on. For rewards and reports, which may
    /// look at labels; never an input of a policy or recommender.
    pub rejected: Vec<ItemId>,
    /// Whether the reply recommends (`labels` is not empty).
    pub recommending: bool,
}

/// The examples of a dialogue, one each recommender turn.
pub fn examples(d: &Dialogue) -> Vec<Example> {
    let mut context: Vec<Utterance> = Vec::new();
    let mut mentioned: Vec<ItemId> = Vec::new();
    let mut out = Vec::new();
    for (turn_idx, turn) in d.turns.iter().enumerate() {
        let fresh: Vec<ItemId> = turn.mentions.iter().filter(|m| m.first_time).map(|m| m.item).collect();
        if turn.role == Role::Recommender {
            let labels: Vec<Label> =
                fresh.iter().map(|&item| Label { item, liked: d.like(item).liked_by_seeker }).collect();
            out.push(Example {
                conv_id: d.id,
                turn_idx,
                split: d.split,
                context: context.clone(),
                reply: turn.text.clone(),
                reply_slots: turn.slots.clone(),
                recommending: !labels.is_empty(),
                labels,
                rejected: mentioned
                    .iter()
                    .copied()
                    .filter(|&i| d.like(i).liked_by_seeker == Some(false))
                    .collect(),
                mentioned: mentioned.clone(),
            });
        }
        mentioned.extend(fresh);
        context.push(Utterance { role: turn.role, text: turn.text.clone() });
    }
    out
}

/// The examples of one part of a corpus.
pub fn split_examples(corpus: &Corpus, split: Split) -> Vec<Example> {
    corpus.split(split).flat_map(examples).collect()
}

/// The whole dialogue as utterances, for packing it once with loss on every recommender turn.
pub fn utterances(d: &Dialogue) -> Vec<Utterance> {
    d.turns.iter().map(|t| Utterance { role: t.role, text: t.text.clone() }).collect()
}

/// Replaces the `<movie>` slots of `text` by `names` in order; slots without a name stay.
pub fn fill_slots<S: AsRef<str>>(text: &str, names: &[S]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut names = names.iter();
    for (i, part) in text.split(SLOT).enumerate() {
        if i > 0 {
            out.push_str(names.next().map_or(SLOT, |n| n.as_ref()));
        }
        out.push_str(part);
    }
    out
}

/// Replaces every film that `text` names by `<movie>`; returns the films, in order.
pub fn mask_slots(text: &str, catalogue: &Catalogue) -> (String, Vec<ItemId>) {
    let mut out = String::with_capacity(text.len());
    let mut items = Vec::new();
    let mut from = 0;
    for m in catalogue.mentions(text) {
        out.push_str(&text[from..m.start]);
        out.push_str(SLOT);
        items.push(m.item);
        from = m.end;
    }
    out.push_str(&text[from..]);
    (out, items)
}

/// ECR's record of one recommender turn (`process_mask.py`, ecr.md §1.5), without its faults: all per-film lists
/// are made together and stay aligned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Conversation.
    pub conv_id: u32,
    /// Turn, from 0, after merging.
    pub turn_idx: usize,
    /// ReDial `messageId`s of the turn: where it came from.
    pub source: Vec<u64>,
    /// Part of the data.
    pub split: Split,
    /// Always "recommender".
    pub role: Role,
    /// Utterances before, titles filled in; `""` first if the recommender opened, so that an even index is the
    /// seeker.
    pub context: Vec<String>,
    /// This turn; titles filled in, or `<movie>` with the `slots` option.
    pub resp: String,
    /// Films of this turn (ReDial ids), repeats kept.
    pub rec: Vec<ItemId>,
    /// Knowledge-graph id of each `rec`, where linked.
    pub rec_entity: Vec<Option<u32>>,
    /// Whether each `rec` was named before, by anyone (for the de-duplicated protocol).
    pub mentioned_before: Vec<bool>,
    /// Seeker's answer for each `rec`: -1 dislike, 1 like, 0 did not say.
    pub sentiment_loss: Vec<i8>,
    /// Seeker's own form for each `rec`.
    pub liked_by_seeker: Vec<Option<bool>>,
    /// Recommender's form for each `rec`.
    pub liked_by_recommender: Vec<Option<bool>>,
    /// Films named before this turn (ReDial ids), repeats kept.
    pub entity: Vec<ItemId>,
    /// Emotions of the turn that named each `entity`.
    pub emotion_entity: Vec<Vec<String>>,
    /// Their probabilities.
    pub emotion_probs_entity: Vec<Vec<f32>>,
    /// Emotions of the last seeker turn so far.
    pub emotion_lastest: Vec<String>,
    /// Their probabilities.
    pub emo_probs_lastest: Vec<f32>,
    /// Emotions of the next seeker turn; "neutral" if there is none.
    pub rec_weight: Vec<String>,
    /// Their probabilities.
    pub rec_weight_w: Vec<f32>,
    /// Full distribution of the last seeker turn so far, if emotions were scored.
    pub emotion: Option<EmotionDistribution>,
}

/// How records are made.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecordOptions {
    /// `resp` holds `<movie>` slots.
    pub slots: bool,
}

/// Least probability of an emotion that a record lists (ECR's value).
pub const EMOTION_THRESHOLD: f32 = 0.1;

/// Labels over the threshold, most likely first, ties in label order.
fn emotions(p: Option<&EmotionDistribution>) -> (Vec<String>, Vec<f32>) {
    let Some(p) = p else { return Default::default() };
    let mut idx: Vec<usize> = (0..9).filter(|&i| p[i] > EMOTION_THRESHOLD).collect();
    idx.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
    (idx.iter().map(|&i| EMOTIONS[i].to_string()).collect(), idx.iter().map(|&i| p[i]).collect())
}

/// The records of a dialogue. `scores` is the emotion distribution of every turn of the dialogue (`[turns]`,
/// only those of seeker turns are read), or `None` before emotions are scored. As in ECR, a recommender turn
/// has the emotions of the seeker turn after it.
pub fn records(
    d: &Dialogue,
    catalogue: &Catalogue,
    scores: Option<&[EmotionDistribution]>,
    options: RecordOptions,
) -> Vec<Record> {
    let next_seeker = |t: usize| (t..d.turns.len()).find(|&i| d.turns[i].role == Role::Seeker);
    let of = |t: Option<usize>| scores.and_then(|s| s.get(t?));
    let mut context: Vec<String> = Vec::new();
    let (mut entity, mut emotion_entity, mut emotion_probs_entity) = (Vec::new(), Vec::new(), Vec::new());
    let mut last_seeker = None;
    let mut named: BTreeSet<ItemId> = BTreeSet::new();
    let mut out = Vec::new();
    for (turn_idx, turn) in d.turns.iter().enumerate() {
        if turn_idx == 0 && turn.role == Role::Recommender {
            context.push(String::new());
        }
        let likes: Vec<_> = turn.mentions.iter().map(|m| d.like(m.item)).collect();
        if turn.role == Role::Recommender {
            let (emotion_lastest, emo_probs_lastest) = emotions(of(last_seeker));
            let (mut rec_weight, mut rec_weight_w) = emotions(of(next_seeker(turn_idx)));
            if rec_weight.is_empty() {
                (rec_weight, rec_weight_w) = (vec!["neutral".into()], vec![1.0]);
            }
            out.push(Record {
                conv_id: d.id,
                turn_idx,
                source: turn.messages.iter().map(|m| m.id).collect(),
                split: d.split,
                role: turn.role,
                context: context.clone(),
                resp: if options.slots { turn.slots.clone() } else { turn.text.clone() },
                rec: turn.mentions.iter().map(|m| m.item).collect(),
                rec_entity: turn
                    .mentions
                    .iter()
                    .map(|m| catalogue.get(m.item).and_then(|x| x.entity_id))
                    .collect(),
                mentioned_before: turn.mentions.iter().map(|m| named.contains(&m.item)).collect(),
                sentiment_loss: likes
                    .iter()
                    .map(|l| l.liked_by_seeker.map_or(0, |y| if y { 1 } else { -1 }))
                    .collect(),
                liked_by_seeker: likes.iter().map(|l| l.liked_by_seeker).collect(),
                liked_by_recommender: likes.iter().map(|l| l.liked_by_recommender).collect(),
                entity: entity.clone(),
                emotion_entity: emotion_entity.clone(),
                emotion_probs_entity: emotion_probs_entity.clone(),
                emotion_lastest,
                emo_probs_lastest,
                rec_weight,
                rec_weight_w,
                emotion: of(last_seeker).copied(),
            });
        } else {
            last_seeker = Some(turn_idx);
        }
        let (labels, probs) = emotions(of(next_seeker(turn_idx)));
        for m in &turn.mentions {
            named.insert(m.item);
            entity.push(m.item);
            emotion_entity.push(labels.clone());
            emotion_probs_entity.push(probs.clone());
        }
        context.push(turn.text.clone());
    }
    out
}

/// What prepared data came from: inputs by hash, and counts, so that a later stage can refuse a mismatch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// Inputs: counts, hashes, bad lines.
    pub inputs: ImportReport,
    /// Films in the catalogue.
    pub catalogue: usize,
    /// Records written, by split.
    pub records: std::collections::BTreeMap<String, usize>,
    /// SHA-256 of each file written, by name.
    pub outputs: std::collections::BTreeMap<String, String>,
}

/// Values as JSONL bytes.
pub fn to_jsonl<T: Serialize>(rows: impl IntoIterator<Item = T>) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut out, &row).map_err(|e| Error::internal(format!("write JSONL: {e}")))?;
        out.push(b'\n');
    }
    Ok(out)
}

/// Reads a JSONL file of our own (optionally gzipped); a bad line is an error that names file and line.
pub fn read_jsonl<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let bytes = io::read_maybe_gz(path)?;
    bytes
        .split(|&b| b == b'\n')
        .enumerate()
        .filter(|(_, l)| !l.iter().all(u8::is_ascii_whitespace))
        .map(|(i, l)| {
            serde_json::from_slice(l)
                .map_err(|e| Error::data(format!("read {}:{}", path.display(), i + 1)).got(e.to_string()))
        })
        .collect()
}
