//! The messages that are written. Field numbers: wandb/proto/wandb_internal.proto.

use serde_json::{Value as Json, json};

use crate::point::{Point, Table};
use crate::proto::Message;
use crate::sink::About;

/// A key (its parts, where it is nested) and its value as JSON text.
pub(super) type Item = (Vec<String>, String);

/// Oldest client that reads what is written here, as the official client says it of its own files.
const MIN_CONSUMER: &str = "0.70.0";

pub(super) fn header() -> Message {
    let version = Message::new().text(1, concat!("ecr-", env!("CARGO_PKG_VERSION"))).text(2, MIN_CONSUMER);
    Message::new().message(21, &Message::new().message(1, &version))
}

/// A timestamp message.
fn time(seconds: f64) -> Message {
    let whole = seconds.floor();
    Message::new().int(1, whole as i64).int(2, ((seconds - whole) * 1e9) as i64)
}

pub(super) fn run(about: &About, id: &str, config: &[Item], start: f64) -> Message {
    let run = Message::new()
        .text(1, id)
        .text(3, &about.project)
        .message(4, &updates(config))
        .text(8, &about.name)
        .text(13, &about.host)
        .message(17, &time(start));
    Message::new().message(17, &run)
}

/// `ConfigRecord` and `SummaryRecord` alike: field 1 = update {key 1 | nested_key 2, value_json 16}.
fn updates(items: &[Item]) -> Message {
    items.iter().fold(Message::new(), |m, i| m.message(1, &item(i)))
}

fn item((key, value): &Item) -> Message {
    let key = match key.as_slice() {
        [one] => Message::new().text(1, one),
        parts => parts.iter().fold(Message::new(), |m, k| m.text(2, k)),
    };
    key.text(16, value)
}

pub(super) fn config(items: &[Item]) -> Message {
    Message::new().message(5, &updates(items))
}

pub(super) fn summary(items: &[Item]) -> Message {
    Message::new().message(3, &updates(items))
}

pub(super) fn files(path: &str) -> Message {
    const MEDIA: i64 = 2;
    let file = Message::new().text(1, path).int(3, MEDIA);
    Message::new().message(6, &Message::new().message(1, &file))
}

/// What `define_metric("STAGE/step")` and `define_metric("STAGE/*", step_metric="STAGE/step")` write.
pub(super) fn metrics(stage: &str) -> [Message; 2] {
    let step = format!("{stage}/step");
    let axis = Message::new().text(1, &step).message(6, &Message::new().int(3, 1));
    let all = Message::new()
        .text(2, &format!("{stage}/*"))
        .text(4, &step)
        .message(6, &Message::new().int(1, 1).int(3, 1));
    [axis, all].map(|m| Message::new().message(12, &m))
}

pub(super) fn history(items: &[Item], step: u64) -> Message {
    let rows = items.iter().fold(Message::new(), |m, i| m.message(1, &item(i)));
    Message::new().message(2, &rows.message(2, &Message::new().int(1, step as i64)))
}

/// The items that every row of the history has.
pub(super) fn clock(step: u64, now: f64, runtime: f64) -> [Item; 3] {
    let one = |key: &str, value: Json| (vec![key.to_string()], value.to_string());
    [one("_step", step.into()), one("_timestamp", now.into()), one("_runtime", runtime.into())]
}

pub(super) fn exit(code: u8, runtime: f64) -> Message {
    let exit = Message::new().int(1, i64::from(code)).int(2, runtime.max(0.0) as i64);
    Message::new().message(18, &exit)
}

/// A point as items of a history row; its table is not among them.
pub(super) fn items(p: &Point) -> Vec<Item> {
    let stage = p.series.split('/').next().unwrap_or_default();
    let mut out = vec![(vec![format!("{stage}/step")], p.step.to_string())];
    let key = |name: &String| format!("{}/{name}", p.series);
    out.extend(p.scalars.iter().map(|(k, n)| (vec![key(k)], n.to_string())));
    out.extend(p.texts.iter().map(|(k, t)| (vec![key(k)], Json::from(t.as_str()).to_string())));
    for (name, h) in &p.histograms {
        let part = |part: &str, v: Json| (vec![key(name), part.to_string()], v.to_string());
        out.push(part("_type", "histogram".into()));
        out.push(part("values", json!(h.counts)));
        out.push(part("bins", json!(h.edges)));
    }
    out
}

/// A table of samples: path of its file below `files/`, text of that file, and the items that name it.
pub(super) fn table(key: &str, t: &Table, step: u64, row: &mut Vec<Item>) -> (String, String) {
    let text = json!({"columns": t.columns, "data": t.rows}).to_string();
    let sha256 = ecr_core::io::sha256(text.as_bytes());
    let path = format!("media/table/{key}_{step}_{}.table.json", &sha256[..20]);
    let mut part = |name: &str, v: Json| row.push((vec![key.to_string(), name.to_string()], v.to_string()));
    part("_type", "table-file".into());
    part("log_mode", "IMMUTABLE".into());
    part("ncols", t.columns.len().into());
    part("nrows", t.rows.len().into());
    part("path", path.as_str().into());
    part("sha256", sha256.into());
    part("size", text.len().into());
    (path, text)
}
