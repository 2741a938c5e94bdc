//! The raw schema, as lenient as the data need and no more.

use std::collections::BTreeMap;

use ecr_core::ItemId;
use serde_json::Value;

/// One message.
pub(super) struct RawMessage {
    pub(super) id: u64,
    pub(super) time: f64,
    pub(super) sender: i64,
    pub(super) text: String,
}

/// One row of a form; 0 no, 1 yes, 2 did not say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RawForm {
    pub(super) suggested: Option<u64>,
    pub(super) seen: Option<u64>,
    pub(super) liked: Option<u64>,
}

/// A form or `movieMentions`: a map, or a list where it was not filled in.
pub(super) struct Poly<T> {
    pub(super) map: BTreeMap<ItemId, T>,
    pub(super) was_list: bool,
}

/// One dialogue.
pub(super) struct RawDialogue {
    pub(super) id: u32,
    pub(super) seeker: i64,
    pub(super) recommender: i64,
    pub(super) messages: Vec<RawMessage>,
    /// `None` = null title.
    pub(super) titles: Poly<Option<String>>,
    pub(super) seeker_form: Poly<RawForm>,
    pub(super) recommender_form: Poly<RawForm>,
}

/// A number, or a string of digits.
fn number(v: &Value) -> Option<i64> {
    v.as_i64().or_else(|| v.as_str()?.trim().parse().ok())
}

fn field<'a>(v: &'a Value, name: &str) -> Result<&'a Value, String> {
    v.get(name).ok_or_else(|| format!("no field `{name}`"))
}

fn poly<T>(
    v: Option<&Value>,
    name: &str,
    read: impl Fn(&Value) -> Result<T, String>,
) -> Result<Poly<T>, String> {
    let mut map = BTreeMap::new();
    match v {
        None | Some(Value::Null) => Ok(Poly { map, was_list: false }),
        Some(Value::Array(a)) if a.is_empty() => Ok(Poly { map, was_list: true }),
        Some(Value::Object(o)) => {
            for (k, v) in o {
                let id = k.trim().parse().map_err(|_| format!("`{name}`: \"{k}\" is not a movie id"))?;
                map.insert(ItemId(id), read(v).map_err(|e| format!("`{name}` of {k}: {e}"))?);
            }
            Ok(Poly { map, was_list: false })
        }
        Some(_) => Err(format!("`{name}` is neither a map nor an empty list")),
    }
}

fn form(v: &Value) -> Result<RawForm, String> {
    if !v.is_object() {
        return Err("not a map".into());
    }
    let get = |name: &str| match v.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(x) => match number(x) {
            Some(n @ 0..=2) => Ok(Some(n as u64)),
            _ => Err(format!("`{name}` is {x}, not 0, 1 or 2")),
        },
    };
    Ok(RawForm { suggested: get("suggested")?, seen: get("seen")?, liked: get("liked")? })
}

/// Reads one line; the error is the reason for which it cannot be used.
pub(super) fn parse(line: &[u8]) -> Result<RawDialogue, String> {
    let v: Value = serde_json::from_slice(line).map_err(|e| format!("not JSON: {e}"))?;
    if !v.is_object() {
        return Err("not a JSON object".into());
    }
    let int = |name: &str| {
        let x = field(&v, name)?;
        number(x).ok_or_else(|| format!("`{name}` is {x}, not a whole number"))
    };
    let id = int("conversationId")?;
    let id = u32::try_from(id).map_err(|_| format!("`conversationId` {id} is out of range"))?;
    let messages = field(&v, "messages")?.as_array().ok_or("`messages` is not a list")?;
    let messages = messages
        .iter()
        .enumerate()
        .map(|(i, m)| {
            let why = |e: &str| format!("message {i}: {e}");
            Ok(RawMessage {
                id: m.get("messageId").and_then(number).map_or(0, |n| n.unsigned_abs()),
                time: m.get("timeOffset").and_then(Value::as_f64).unwrap_or(0.0),
                sender: m
                    .get("senderWorkerId")
                    .and_then(number)
                    .ok_or_else(|| why("no whole number `senderWorkerId`"))?,
                text: m.get("text").and_then(Value::as_str).ok_or_else(|| why("no `text`"))?.to_string(),
            })
        })
        .collect::<Result<Vec<_>, String>>()?;
    Ok(RawDialogue {
        id,
        seeker: int("initiatorWorkerId")?,
        recommender: int("respondentWorkerId")?,
        messages,
        titles: poly(v.get("movieMentions"), "movieMentions", |t| match t {
            Value::Null => Ok(None),
            Value::String(s) => Ok(Some(s.clone())),
            _ => Err("title is not a text".into()),
        })?,
        seeker_form: poly(v.get("initiatorQuestions"), "initiatorQuestions", form)?,
        recommender_form: poly(v.get("respondentQuestions"), "respondentQuestions", form)?,
    })
}

/// `@digits` of a text: byte range and id, `None` where the number is too large to be an id.
pub(super) fn references(text: &str) -> Vec<(std::ops::Range<usize>, Option<ItemId>)> {
    let mut out = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..].find('@').map(|i| i + from) {
        let digits = text[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 {
            out.push((at..at + 1 + digits, text[at + 1..at + 1 + digits].parse().ok().map(ItemId)));
        }
        from = at + 1 + digits;
    }
    out
}
