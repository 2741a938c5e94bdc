//! What can be scored: replies of an evaluation, human replies of prepared data, or a file of one's own.

use std::path::{Path, PathBuf};

use ecr_core::{Error, Result, Role, Utterance, io};
use ecr_data::records::{examples, read_jsonl};
use ecr_data::redial::Dialogue;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::item::{Facts, Item};
use ecr_data::catalogue::Catalogue;

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
}

/// A text or a whole number as a name.
fn name(v: &Json) -> Option<String> {
    match v {
        Json::String(s) if !s.is_empty() => Some(s.clone()),
        Json::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

/// Reads JSONL lines of `{id, context, response}`: `context` holds texts (seeker first, `""` where the recommender
/// opened) or `{role, text}`; `conv_id` groups lines of one conversation; without `id` it is `conv_id:turn_idx`.
///
/// # Errors
/// [`ecr_core::Kind::Data`] that names the line.
pub fn rows(path: &Path) -> Result<Vec<Item>> {
    let bytes = io::read_maybe_gz(path)?;
    let mut out = Vec::new();
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
        let whole = || Some(format!("{}:{}", name(&row.conv_id)?, name(&row.turn_idx)?));
        let id = name(&row.id).or_else(whole).ok_or_else(|| bad("no `id`".into()))?;
        let context = row.context.into_iter().enumerate().filter_map(|(k, t)| match t {
            Turn::Said(u) => Some(u),
            Turn::Text(text) if text.is_empty() => None,
            Turn::Text(text) => {
                Some(Utterance { role: if k % 2 == 0 { Role::Seeker } else { Role::Recommender }, text })
            }
        });
        out.push(Item {
            conversation: name(&row.conv_id).unwrap_or_else(|| id.clone()),
            context: context.collect(),
            response: row.response,
            id,
        });
    }
    if out.is_empty() {
        return Err(Error::data(format!("read {}", path.display())).got("no line").files("nothing was sent"));
    }
    Ok(out)
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
        let items = rows(&path).unwrap();
        let ids: Vec<(&str, &str)> = items.iter().map(|i| (i.id.as_str(), i.conversation.as_str())).collect();
        assert_eq!(ids, [("7", "7"), ("3:2", "3"), ("a", "c")]);
        assert_eq!(items[1].context[0].role, Role::Recommender);
        assert_eq!(items[0].context[1].role, Role::Recommender);
        assert_eq!(items[2].context[0].text, "x");
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
            let e = rows(&file(name, text)).unwrap_err();
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
