//! What can be scored: replies of an evaluation, human replies of prepared data, or a file of one's own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ecr_core::{Error, Result, Role, Utterance, io};
use ecr_data::catalogue::Catalogue;
use ecr_data::critic_rows::HeadScore;
use ecr_data::records::{examples, read_jsonl};
use ecr_data::redial::Dialogue;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::item::{Facts, Item};

/// A turn as a text (an even place is the seeker's) or with its role.
#[derive(Deserialize)]
#[serde(untagged)]
enum Turn {
    Text(String),
    Said(Utterance),
}

/// A line of a file of one's own; ECR's records are such lines.
#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    id: Json,
    #[serde(default)]
    conv_id: Json,
    #[serde(default)]
    turn_idx: Json,
    context: Vec<Turn>,
    #[serde(alias = "resp", alias = "reply")]
    response: String,
    #[serde(default)]
    scores: BTreeMap<String, HeadScore>,
}

/// Labels that an input brings along: by id, then by quality.
pub type Labels = BTreeMap<String, BTreeMap<String, HeadScore>>;

/// A text or a whole number as a name.
fn name(v: &Json) -> Option<String> {
    match v {
        Json::String(s) if !s.is_empty() => Some(s.clone()),
        Json::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

/// Reads JSONL lines of `{id, context, response}`: `context` holds texts (seeker first, `""` where the recommender
/// opened) or `{role, text}`; `conv_id` groups lines of one conversation; without `id` it is `conv_id:turn_idx`, or
/// `conv_id#n` for its n-th line. Critic rows are such lines; with `source` only those that it has labelled.
///
/// # Errors
/// [`ecr_core::Kind::Data`] that names the line.
pub fn rows(path: &Path, source: Option<&str>) -> Result<(Vec<Item>, Labels)> {
    let bytes = io::read_maybe_gz(path)?;
    let (mut out, mut labels) = (Vec::new(), Labels::new());
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let bad = |got: String| {
            Error::data(format!("read {}:{}", path.display(), i + 1))
                .expected("an object with `id`, `context` (texts, or objects with `role` and `text`) and `response`")
                .got(got)
                .files("nothing was sent")
        };
        let row: Row = serde_json::from_slice(line).map_err(|e| bad(e.to_string()))?;
        let conversation = name(&row.conv_id);
        let counted = conversation.as_ref().map(|c| {
            let n = seen.entry(c.clone()).or_default();
            *n += 1;
            format!("{c}#{n}")
        });
        let turn = conversation.as_ref().zip(name(&row.turn_idx)).map(|(c, t)| format!("{c}:{t}"));
        let id =
            name(&row.id).or(turn).or(counted).ok_or_else(|| bad("neither `id` nor `conv_id`".into()))?;
        if source.is_some_and(|s| !row.scores.values().any(|l| l.source == s)) {
            continue;
        }
        let context = row.context.into_iter().enumerate().filter_map(|(k, t)| match t {
            Turn::Said(u) => Some(u),
            Turn::Text(text) if text.is_empty() => None,
            Turn::Text(text) => {
                Some(Utterance { role: if k % 2 == 0 { Role::Seeker } else { Role::Recommender }, text })
            }
        });
        out.push(Item {
            conversation: conversation.unwrap_or_else(|| id.clone()),
            context: context.collect(),
            response: row.response,
            id: id.clone(),
        });
        labels.insert(id, row.scores);
    }
    if out.is_empty() {
        return Err(Error::data(format!("read {}", path.display()))
            .got("no line to score")
            .files("nothing was sent"));
    }
    Ok((out, labels))
}

/// Replies of one model in an evaluation, as `replies.json` holds them.
#[derive(Deserialize)]
struct Replies {
    model: String,
    examples: Vec<Reply>,
}

#[derive(Deserialize)]
struct Reply {
    conversation: u64,
    context: Vec<Utterance>,
    reply: String,
}

/// Reads `evaluation_results/MODEL/replies.json`; ids are `MODEL:NUMBER`.
///
/// # Errors
/// [`ecr_core::Kind::Data`] for another file.
pub fn replies(path: &Path) -> Result<Vec<Item>> {
    let r: Replies = serde_json::from_slice(&io::read(path)?).map_err(|e| {
        Error::data(format!("read {}", path.display()))
            .expected("replies that `ecr eval` wrote")
            .got(e.to_string())
    })?;
    let item = |(i, e): (usize, Reply)| Item {
        id: format!("{}:{i}", r.model),
        conversation: format!("redial:{}", e.conversation),
        context: e.context,
        response: e.reply,
    };
    Ok(r.examples.into_iter().enumerate().map(item).collect())
}

/// Human replies of a part of a run's prepared data; ids are `CONVERSATION:TURN`.
pub fn human(run: &Path, split: &str) -> Result<Vec<Item>> {
    let path = run.join("data/processed").join(format!("{split}_dialogues.jsonl"));
    let dialogues: Vec<Dialogue> = read_jsonl(&path)?;
    let mut out = Vec::new();
    for e in dialogues.iter().flat_map(examples).filter(|e| !e.context.is_empty()) {
        out.push(Item {
            id: format!("{}:{}", e.conv_id, e.turn_idx),
            conversation: format!("redial:{}", e.conv_id),
            context: e.context,
            response: e.reply,
        });
    }
    Ok(out)
}

/// One input and where its scores go.
#[derive(Debug, Clone)]
pub struct Task {
    /// What to score.
    pub items: Vec<Item>,
    /// The catalogue that belongs to it, if there is a run directory around it.
    pub catalogue: Option<PathBuf>,
    /// File of scores.
    pub out: Option<PathBuf>,
    /// Labels to compare with.
    pub labels: Labels,
    /// Whether these are replies to test conversations, which no training may read.
    pub test_data: bool,
}

/// What a path means: a run directory is its evaluated models, or with `split` the human replies of its data; a file
/// is `replies.json` or JSONL lines. `source`: see [`rows`]. `name` is the file of scores beside the input.
///
/// # Errors
/// [`ecr_core::Kind::Data`] for a directory without replies, or what the file holds.
pub fn tasks(path: &Path, split: Option<&str>, source: Option<&str>, name: &str) -> Result<Vec<Task>> {
    let task = |items, file: &Path, out: PathBuf, test_data| Task {
        items,
        catalogue: catalogue_near(file),
        out: Some(out),
        labels: Labels::new(),
        test_data,
    };
    if let Some(split) = split {
        let out = path.join("evaluation_results/human").join(split).join(name);
        return Ok(vec![task(human(path, split)?, &path.join("."), out, split == "test")]);
    }
    if path.is_dir() {
        let mut out = Vec::new();
        for dir in io::read_dir_sorted(&path.join("evaluation_results"))? {
            let file = dir.join("replies.json");
            if file.is_file() {
                out.push(task(replies(&file)?, &file, dir.join(name), true));
            }
        }
        if out.is_empty() {
            return Err(Error::data(format!("find replies in {}", path.display()))
                .expected("evaluation_results/MODEL/replies.json, as `ecr eval` writes them")
                .got("none")
                .hint("evaluate the run first, or give --split to score human replies"));
        }
        return Ok(out);
    }
    let beside = path.with_file_name(name);
    if path.extension().is_some_and(|e| e == "json") {
        return Ok(vec![task(replies(path)?, path, beside, true)]);
    }
    let (items, labels) = rows(path, source)?;
    Ok(vec![Task { labels, ..task(items, path, beside, false) }])
}

/// The catalogue that belongs to a file: that of the run directory around it.
pub fn catalogue_near(path: &Path) -> Option<PathBuf> {
    let here = path.ancestors().map(|a| a.join("data/processed/catalogue.jsonl"));
    here.take(5).find(|p| p.is_file())
}

/// The first `n` items; where those are all of one kind (recommending or not), the first of the other kind takes the
/// last place, so that a test sees both.
pub fn few(items: Vec<Item>, n: usize, catalogue: &Catalogue) -> Vec<Item> {
    if n == 0 || items.len() <= n {
        return items;
    }
    let recommends = |i: &Item| Facts::of(i, catalogue).recommends;
    let mut out = items;
    let rest = out.split_off(n);
    if n > 1 {
        let kind = recommends(&out[0]);
        if out.iter().all(|i| recommends(i) == kind)
            && let Some(other) = rest.into_iter().find(|i| recommends(i) != kind)
        {
            out[n - 1] = other;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::tests::catalogue;

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ecr-judge-input-{name}-{}", std::process::id()));
        io::atomic_write(&path, text.as_bytes()).unwrap();
        path
    }

    #[test]
    fn lines_of_both_forms_are_read() {
        let path = file(
            "good",
            "{\"id\": 7, \"context\": [\"hi\", \"hello\"], \"response\": \"r\"}\n\n\
             {\"conv_id\": 3, \"turn_idx\": 2, \"context\": [\"\", \"opening\", \"hi\"], \"resp\": \"s\", \"rec\": []}\n\
             {\"id\": \"a\", \"conv_id\": \"c\", \"context\": [{\"role\": \"recommender\", \"text\": \"x\"}], \"response\": \"t\"}\n",
        );
        let (items, _) = rows(&path, None).unwrap();
        let ids: Vec<(&str, &str)> = items.iter().map(|i| (i.id.as_str(), i.conversation.as_str())).collect();
        assert_eq!(ids, [("7", "7"), ("3:2", "3"), ("a", "c")]);
        assert_eq!(items[1].context[0].role, Role::Recommender);
        assert_eq!(items[0].context[1].role, Role::Recommender);
        assert_eq!(items[2].context[0].text, "x");
    }

    #[test]
    fn critic_rows_bring_their_labels() {
        let row = |c: &str, source: &str| {
            format!(
                "{{\"conv_id\": \"{c}\", \"context\": [], \"response\": \"r\", \
                 \"scores\": {{\"overall\": {{\"score\": 0.5, \"source\": \"{source}\"}}}}}}\n"
            )
        };
        let path = file(
            "critic",
            &[row("a", "uss"), row("a", "shuffled"), row("a", "uss"), row("b", "uss")].concat(),
        );
        let (items, labels) = rows(&path, Some("uss")).unwrap();
        assert_eq!(items.iter().map(|i| i.id.as_str()).collect::<Vec<_>>(), ["a#1", "a#3", "b#1"]);
        assert_eq!(labels["a#3"]["overall"].score, 0.5);
        assert_eq!(rows(&path, None).unwrap().0.len(), 4);
        assert!(rows(&path, Some("nobody")).is_err());
    }

    #[test]
    fn a_bad_line_is_named() {
        for (name, text) in [
            ("none", "\n"),
            ("noid", "{\"context\": [], \"response\": \"r\"}\n"),
            ("text", "hello\n"),
            ("type", "{\"id\": 1, \"context\": \"hi\", \"response\": \"r\"}\n"),
            ("missing", "{\"id\": 1, \"context\": []}\n"),
        ] {
            let e = rows(&file(name, text), None).unwrap_err();
            assert_eq!(e.exit_code(), 3, "{name}");
        }
    }

    #[test]
    fn a_test_sees_both_kinds() {
        let item = |id: &str, response: &str| Item {
            id: id.into(),
            conversation: id.into(),
            context: vec![],
            response: response.into(),
        };
        let items = ["hi", "ok", "well", "Alien (1979)", "bye"];
        let items: Vec<Item> = items.iter().map(|r| item(r, r)).collect();
        let picked: Vec<String> = few(items.clone(), 3, &catalogue()).into_iter().map(|i| i.id).collect();
        assert_eq!(picked, ["hi", "ok", "Alien (1979)"]);
        assert_eq!(few(items.clone(), 0, &catalogue()).len(), 5);
        assert_eq!(few(items[..2].to_vec(), 2, &catalogue()).len(), 2);
    }
}
