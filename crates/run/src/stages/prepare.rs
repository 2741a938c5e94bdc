//! `prepare`: conversations to records, catalogue, interactions, critic rows and, where a model is trained from
//! scratch, a tokenizer.

use std::path::{Path, PathBuf};

use ecr_core::{Error, Result, Stream, io};
use ecr_data::catalogue::Catalogue;
use ecr_data::critic_rows::{self, CriticRow};
use ecr_data::degradations::{Degradation, degrade};
use ecr_data::prepare::prepare;
use ecr_data::recommend::recall::{recall, targets};
use ecr_data::recommend::{Cooccurrence, Interactions};

use ecr_data::records::{RecordOptions, split_examples, to_jsonl};
use ecr_data::redial::{Corpus, Dialogue, ImportOptions, Split, check_limit, import, import_bytes};
use ecr_data::satisfaction::{self, TextIndex};
use ecr_data::tone::{self, Tone};
use ecr_data::{aspects, demo, records};
use ecr_models::chat::PLAIN_SPECIALS;
use ecr_models::tokenizer::Tokenizer;
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::graph::{Context, Stage};
use crate::rundir::RunDir;

/// Conversations that rated replies of the demo come from, per training dialogue.
const DEMO_RATED: f64 = 0.5;
/// Share of conversations held out, for validating the critic and again for reporting on it.
const HELD_OUT: f64 = 0.15;
/// Most replies to seekers of one tone that get a wrong emotion.
const TONES: usize = 1000;

pub(super) struct Prepare;

/// The raw ReDial files of a data directory.
fn redial_files(config: &Config) -> Vec<(Split, PathBuf)> {
    let dir = Path::new(&config.data.path).join("redial");
    [Split::Train, Split::Valid, Split::Test]
        .into_iter()
        .map(|s| {
            let gz = dir.join(format!("{}_data.jsonl.gz", s.name()));
            (s, if gz.exists() { gz } else { dir.join(format!("{}_data.jsonl", s.name())) })
        })
        .collect()
}

impl Stage for Prepare {
    fn name(&self) -> &'static str {
        "prepare"
    }
    fn settings(&self, c: &Config) -> Json {
        let mut data = json!(c.data);
        data["path"] = json!("");
        let scratch = c.policy.path.is_empty() || c.encoder.path.is_empty();
        json!([data, c.run.seed, scratch, c.policy.vocab_size])
    }
    fn inputs(&self, c: &Config, _: &RunDir) -> Vec<PathBuf> {
        if c.data.source == "demo" {
            return Vec::new();
        }
        let root = Path::new(&c.data.path);
        let mut files: Vec<PathBuf> = redial_files(c).into_iter().map(|f| f.1).collect();
        files.push(root.join("kg/movies.jsonl.gz"));
        files.push(root.join("redial/train_interactions.jsonl.gz"));
        files.push(root.join("redial/satisfaction_uss.jsonl.gz"));
        files.push(root.join("redial/aspects_abredial_turns.jsonl.gz"));
        files
    }
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf> {
        // What lies beside them, `data/labelled/`, is another stage's.
        let rows = ["train", "valid", "test"].map(|s| dir.data().join(format!("critic_{s}.jsonl")));
        [dir.data().join("processed"), dir.data().join("tokenizer.json")].into_iter().chain(rows).collect()
    }

    fn run(&self, cx: &mut Context) -> Result<()> {
        let c = cx.config.clone();
        let out = cx.dir.data();
        let demo = c.data.source == "demo";
        let (mut corpus, catalogue, interactions) = if demo { from_demo(&c)? } else { from_redial(&c)? };
        for bad in corpus.report.bad_lines() {
            cx.voice.warn(&format!("line not used: {bad}"));
        }
        let held_out: Vec<Dialogue> =
            corpus.dialogues.iter().filter(|d| d.split != Split::Train).cloned().collect();
        let train: Vec<Dialogue> = corpus.split(Split::Train).cloned().collect();
        if c.data.max_train > 0 {
            let mut kept = 0;
            corpus.dialogues.retain(|d| {
                kept += usize::from(d.split == Split::Train);
                d.split != Split::Train || kept <= c.data.max_train
            });
        }
        // Only now that everything could be read is older data replaced.
        io::remove_dir_all(&out)?;
        let processed = out.join("processed");
        for file in prepare(&corpus, &catalogue, RecordOptions { slots: c.data.slots }, &|_| None)? {
            io::atomic_write(&processed.join(&file.name), &file.bytes)?;
        }
        let rows = interactions.dialogues.iter().map(|d| {
            let movies: Vec<(u32, u8)> = d.iter().map(|(i, l)| (i.0, u8::from(*l == Some(true)))).collect();
            json!({"split": "train", "movies": movies})
        });
        io::atomic_write(&processed.join("interactions.jsonl"), &to_jsonl(rows)?)?;

        if c.data.critic_rows {
            write_critic_rows(cx, &corpus, &catalogue, &held_out, &train)?;
        }

        if c.policy.path.is_empty() || c.encoder.path.is_empty() {
            // Each film that training dialogues name is one token: a model this small cannot spell titles, but it
            // can choose among them.
            let texts = train.iter().flat_map(|d| d.turns.iter().map(|t| t.slots.clone()));
            let films = corpus.movies(Split::Train).into_iter().filter_map(|m| catalogue.name(m.item()));
            let tokenizer =
                Tokenizer::train(texts, c.policy.vocab_size, &PLAIN_SPECIALS)?.with_words(films)?;
            cx.note("vocabulary", tokenizer.vocab_size());
            io::atomic_write(&out.join("tokenizer.json"), tokenizer.to_json()?.as_bytes())?;
        }
        for split in [Split::Train, Split::Valid, Split::Test] {
            cx.note(&format!("dialogues_{}", split.name()), corpus.split(split).count());
        }
        cx.note("films", catalogue.len());
        cx.note("bad_lines", corpus.report.bad_lines().count());
        for (name, model) in [
            ("cooccurrence", Cooccurrence::new(&interactions)),
            ("cooccurrence_tuned", Cooccurrence::tuned(&interactions)),
        ] {
            let wanted = targets(corpus.split(Split::Test));
            let r = recall(&model, &wanted, &[1, 10, 50]);
            for (k, value) in &r.at {
                cx.note(&format!("{name}_recall@{k}"), *value);
            }
            cx.note("recall_targets", r.targets);
        }
        Ok(())
    }
}

/// The critic's rows: ratings by people (the demo's are simulated and say so), and degradations of known order, of
/// training dialogues alone. Three parts by conversation. `held_out` and `train`: all dialogues, to find rated ones.
fn write_critic_rows(
    cx: &mut Context,
    corpus: &Corpus,
    catalogue: &Catalogue,
    held_out: &[Dialogue],
    train: &[Dialogue],
) -> Result<()> {
    let c = cx.config.clone();
    let demo = c.data.source == "demo";
    let mut rows: Vec<CriticRow> = if demo {
        let n = (c.data.demo_train as f64 * DEMO_RATED) as usize;
        demo::ratings::ratings(Split::Train, n, c.run.seed).iter().map(CriticRow::from).collect()
    } else {
        let path = Path::new(&c.data.path).join("redial/satisfaction_uss.jsonl.gz");
        if path.exists() {
            let found = satisfaction::read(&path, &TextIndex::new(held_out), &TextIndex::new(train))?;
            cx.note("uss_dialogues_dropped", found.dropped);
            found.replies.iter().map(CriticRow::from).collect()
        } else {
            cx.voice.warn("no satisfaction_uss.jsonl.gz: the critic learns satisfaction from fewer people, or not at all");
            Vec::new()
        }
    };
    if !demo {
        rows.extend(rated_aspects(cx, &c, held_out, train)?);
    }
    let examples = split_examples(corpus, Split::Train);
    let few: Vec<records::Example> = examples.iter().step_by(if demo { 4 } else { 8 }).cloned().collect();
    let (stream, titles) = (cx.stream.child("degradations"), |i| catalogue.name(i).map(str::to_string));
    let rare = [Degradation::RejectedItem, Degradation::WrongEmotion];
    let by_degrees: Vec<Degradation> = Degradation::ALL.into_iter().filter(|k| !rare.contains(k)).collect();
    rows.extend(degrade(&few, &by_degrees, &titles, stream).iter().map(CriticRow::from));
    // Few replies come after a film was turned down: all of them.
    let spoilt = degrade(&examples, &[Degradation::RejectedItem], &titles, stream);
    rows.extend(spoilt.iter().map(CriticRow::from));
    let toned = plain_tones(examples, stream);
    rows.extend(degrade(&toned, &[Degradation::WrongEmotion], &titles, stream).iter().map(CriticRow::from));
    let (rest, test) = critic_rows::split(rows, HELD_OUT, cx.stream.child("critic test"));
    let (train_rows, valid) = critic_rows::split(rest, HELD_OUT, cx.stream.child("critic valid"));
    for (name, rows) in [("train", &train_rows), ("valid", &valid), ("test", &test)] {
        io::atomic_write(&cx.dir.data().join(format!("critic_{name}.jsonl")), &to_jsonl(rows)?)?;
        cx.note(&format!("critic_rows_{name}"), rows.len());
    }
    Ok(())
}

/// Examples after a seeker who plainly sounds glad, and as many after one who sounds low, at most [`TONES`] each: with
/// more of one, its opposite would be the wrong answer whatever the seeker says.
fn plain_tones(examples: Vec<records::Example>, stream: Stream) -> Vec<records::Example> {
    let (mut glad, mut low) = (Vec::new(), Vec::new());
    for e in examples {
        match tone::seeker(&e.context) {
            Some(Tone::Glad) => glad.push(e),
            Some(Tone::Low) => low.push(e),
            None => {}
        }
    }
    let n = glad.len().min(low.len()).min(TONES);
    let mut out = Vec::with_capacity(2 * n);
    for (name, mut some) in [("glad", glad), ("low", low)] {
        stream.child(name).rng().shuffle(&mut some);
        some.truncate(n);
        some.sort_by_key(|e| (e.conv_id, e.turn_idx));
        out.extend(some);
    }
    out
}

/// Rows of AB-ReDial, under the conversation names that the other rows bear.
fn rated_aspects(
    cx: &mut Context,
    c: &Config,
    held_out: &[Dialogue],
    train: &[Dialogue],
) -> Result<Vec<CriticRow>> {
    let root = Path::new(&c.data.path).join("redial");
    let path = root.join("aspects_abredial_turns.jsonl.gz");
    if !path.exists() {
        cx.voice.warn("no aspects_abredial_turns.jsonl.gz: the critic has no head for engagement");
        return Ok(Vec::new());
    }
    let uss = root.join("satisfaction_uss.jsonl.gz");
    let uss = uss.exists().then(|| TextIndex::of_uss(&uss)).transpose()?;
    let train = TextIndex::new(train);
    let known = |texts: &[String]| {
        let texts = || texts.iter().map(String::as_str);
        let redial = train.find(texts()).map(|id| format!("redial:{id}"));
        redial.or_else(|| Some(format!("uss:{}", uss.as_ref()?.find(texts())?)))
    };
    let found = aspects::read(&path, &TextIndex::new(held_out), &known)?;
    cx.note("abredial_lines_dropped", found.dropped);
    cx.note("abredial_lines_malformed", found.malformed);
    Ok(found.replies.iter().map(CriticRow::from).collect())
}

fn from_demo(c: &Config) -> Result<(Corpus, Catalogue, Interactions)> {
    let mut corpus = Corpus::default();
    for (split, n) in [
        (Split::Train, c.data.demo_train),
        (Split::Valid, c.data.demo_valid),
        (Split::Test, c.data.demo_test),
    ] {
        let text = demo::write_split(split, n, c.run.seed).join("\n");
        let name = format!("demo/{}_data.jsonl", split.name());
        let sha = io::sha256(text.as_bytes());
        import_bytes(&mut corpus, split, &name, sha, text.as_bytes())?;
    }
    check_limit(&corpus.report, ImportOptions { max_bad_lines: c.data.max_bad_lines })?;
    let interactions = Interactions::from_corpus(&corpus, Split::Train);
    Ok((corpus, demo::films::catalogue(), interactions))
}

fn from_redial(c: &Config) -> Result<(Corpus, Catalogue, Interactions)> {
    let root = Path::new(&c.data.path);
    if !root.is_dir() {
        return Err(Error::config("open the data")
            .expected("data.path = a directory that holds redial/train_data.jsonl(.gz) and the other parts")
            .got(format!("{:?}", c.data.path))
            .files("nothing was written")
            .hint("set data.path in the configuration, or --set data.path=DIR"));
    }
    let corpus = import(&redial_files(c), ImportOptions { max_bad_lines: c.data.max_bad_lines })?;
    let movies = root.join("kg/movies.jsonl.gz");
    let catalogue = if movies.exists() { Catalogue::read(&movies)? } else { Catalogue::new(Vec::new()) };
    let catalogue = catalogue.with(corpus.movies(Split::Train));
    let path = root.join("redial/train_interactions.jsonl.gz");
    let interactions = if path.exists() {
        Interactions::read(&path, Split::Train)?
    } else {
        Interactions::from_corpus(&corpus, Split::Train)
    };
    Ok((corpus, catalogue, interactions))
}
