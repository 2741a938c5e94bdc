//! What one JSONL record says, freed from its file: a point of a series.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value as Json};

use crate::histogram::Histogram;

/// One record of a log, or the samples of one step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Point {
    /// Name of the series: the stage (`ppo`), a trial of it (`sft_trial_0`), or its samples (`ppo/samples`).
    pub series: String,
    /// Place in the series, from 0.
    pub index: usize,
    /// Step that the record names, or its place.
    pub step: u64,
    /// Numbers by name; `null` is absent, not zero.
    pub scalars: Vec<(String, Number)>,
    /// Texts by name.
    pub texts: Vec<(String, String)>,
    /// Distributions by name, from lists of numbers.
    pub histograms: Vec<(String, Histogram)>,
    /// Samples.
    pub table: Option<Table>,
}

/// Samples of one step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Rows, one cell a column.
    pub rows: Vec<Vec<Json>>,
}

impl Point {
    fn is_empty(&self) -> bool {
        self.scalars.is_empty() && self.texts.is_empty() && self.histograms.is_empty() && self.table.is_none()
    }
}

/// Reads a log line by line. `NAME.metrics.jsonl` gives a point a line, `NAME.samples.jsonl` one a step; other logs
/// none.
#[derive(Debug, Clone)]
pub struct Cursor {
    name: String,
    samples: bool,
    counts: BTreeMap<String, usize>,
    pending: Vec<Json>,
}

impl Cursor {
    /// For a log of this file name, if it is one that is tracked.
    pub fn new(file: &str) -> Option<Self> {
        let metrics = file.strip_suffix(".metrics.jsonl").map(|n| (n, false));
        let (name, samples) = metrics.or_else(|| file.strip_suffix(".samples.jsonl").map(|n| (n, true)))?;
        Some(Self { name: name.into(), samples, counts: BTreeMap::new(), pending: Vec::new() })
    }
    /// Name of the log: what comes before `.metrics.jsonl`.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The points that a line completes.
    pub fn line(&mut self, text: &str) -> Option<Point> {
        let Ok(Json::Object(record)) = serde_json::from_str(text) else { return None };
        if !self.samples {
            return self.record(&record);
        }
        let other = self.pending.first().is_some_and(|p| p.get("step") != record.get("step"));
        let done = if other { self.end() } else { None };
        self.pending.push(Json::Object(record));
        done
    }
    /// The samples that wait for the next step.
    pub fn end(&mut self) -> Option<Point> {
        let table = table(&self.pending);
        let step = self.pending.first().and_then(|p| p["step"].as_u64());
        self.pending.clear();
        // Distributions of rewards and log-probabilities, where there is more than a few.
        let mut histograms = Vec::new();
        for (i, name) in table.columns.iter().enumerate() {
            let numbers: Vec<f64> = table.rows.iter().filter_map(|r| r[i].as_f64()).collect();
            if name.starts_with("reward/") && numbers.len() >= 8 {
                histograms.extend(Histogram::of(&numbers).map(|h| (name.clone(), h)));
            }
        }
        let point =
            Point { histograms, table: (!table.rows.is_empty()).then_some(table), ..Point::default() };
        self.place(format!("{}/samples", self.name), step, point)
    }
    fn record(&mut self, record: &Map<String, Json>) -> Option<Point> {
        let mut point = Point::default();
        // The trials of one stage count their steps anew.
        let trial = record.get("trial").map(Json::to_string);
        for (key, value) in record.iter().filter(|(k, _)| *k != "trial" && *k != "step") {
            flatten(key, value, &mut point);
        }
        let series = trial.map_or_else(|| self.name.clone(), |t| format!("{}_trial_{t}", self.name));
        self.place(series, record.get("step").and_then(Json::as_u64), point)
    }
    fn place(&mut self, series: String, step: Option<u64>, point: Point) -> Option<Point> {
        if point.is_empty() {
            return None;
        }
        let count = self.counts.entry(series.clone()).or_default();
        let index = *count;
        *count += 1;
        Some(Point { series, index, step: step.unwrap_or(index as u64), ..point })
    }
}

fn flatten(key: &str, value: &Json, point: &mut Point) {
    match value {
        Json::Number(n) => point.scalars.push((key.into(), n.clone())),
        Json::Bool(b) => point.scalars.push((key.into(), u8::from(*b).into())),
        Json::String(s) => point.texts.push((key.into(), s.clone())),
        Json::Object(o) => o.iter().for_each(|(k, v)| flatten(&format!("{key}/{k}"), v, point)),
        Json::Array(a) => {
            let numbers: Vec<f64> = a.iter().filter_map(Json::as_f64).collect();
            point.histograms.extend(Histogram::of(&numbers).map(|h| (key.into(), h)));
            let texts: Vec<&str> = a.iter().filter_map(Json::as_str).collect();
            if !texts.is_empty() {
                point.texts.push((key.into(), texts.join(", ")));
            }
        }
        Json::Null => {}
    }
}

/// Rows under the union of their columns, in order of appearance.
fn table(lines: &[Json]) -> Table {
    let rows: Vec<Vec<(String, Json)>> = lines
        .iter()
        .map(|line| {
            let mut cells = Vec::new();
            line.as_object().into_iter().flatten().for_each(|(k, v)| spread(k, v, &mut cells));
            cells
        })
        .collect();
    let mut columns: Vec<String> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !columns.contains(name) {
            columns.push(name.clone());
        }
    }
    let cell = |row: &Vec<(String, Json)>, name: &String| {
        row.iter().find(|(n, _)| n == name).map_or(Json::Null, |(_, v)| v.clone())
    };
    let rows = rows.iter().map(|r| columns.iter().map(|c| cell(r, c)).collect()).collect();
    Table { columns, rows }
}

/// Cells of a value: parts of objects, and of lists of objects with a `name`, have their own; other lists are one text.
fn spread(key: &str, value: &Json, cells: &mut Vec<(String, Json)>) {
    let named = |v: &Json| v.get("name").and_then(Json::as_str).map(String::from);
    match value {
        Json::Object(o) => o.iter().for_each(|(k, v)| spread(&format!("{key}/{k}"), v, cells)),
        Json::Array(a) if !a.is_empty() && a.iter().all(|v| named(v).is_some()) => {
            for part in a {
                let name = named(part).unwrap_or_default();
                let rest = part.as_object().into_iter().flatten().filter(|(k, _)| *k != "name");
                let parent = key.strip_suffix("/parts").unwrap_or(key);
                rest.for_each(|(k, v)| spread(&format!("{parent}/{name}/{k}"), v, cells));
            }
        }
        Json::Array(_) => cells.push((key.into(), value.to_string().into())),
        _ => cells.push((key.into(), value.clone())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_become_points_of_their_series() {
        let mut c = Cursor::new("sft.metrics.jsonl").unwrap();
        let p = c.line(r#"{"trial":0,"step":3,"loss":7.5}"#).unwrap();
        assert_eq!((p.series.as_str(), p.index, p.step), ("sft_trial_0", 0, 3));
        let p = c.line(r#"{"step":0,"loss":2,"nan":null,"by":{"x":true},"note":"n","all":[1,2.5]}"#).unwrap();
        assert_eq!((p.series.as_str(), p.index, p.step), ("sft", 0, 0));
        assert_eq!(p.scalars, [("loss".into(), Number::from(2)), ("by/x".into(), Number::from(1))]);
        assert_eq!((p.texts.len(), p.histograms[0].1.sum), (1, 3.5));
        assert_eq!(c.line(r#"{"step":1,"loss":null}"#), None, "nothing was said");
        assert_eq!(c.line(r#"{"loss":1}"#).unwrap().step, 1, "the place stands for a missing step");
        assert_eq!(c.line("torn"), None);
        assert!(Cursor::new("timing.jsonl").is_none());
    }

    #[test]
    fn samples_of_a_step_become_a_table() {
        let mut c = Cursor::new("ppo.samples.jsonl").unwrap();
        let line = |step: u64, reply: &str| {
            json!({"step": step, "reply": reply, "tokens": [1, 2],
                   "reward": {"total": 1.5, "parts": [{"name": "bleu", "raw": null}]}})
            .to_string()
        };
        assert_eq!(c.line(&line(0, "a")), None);
        assert_eq!(c.line(&line(0, "b")), None);
        let p = c.line(&line(1, "c")).unwrap();
        assert_eq!((p.series.as_str(), p.step), ("ppo/samples", 0));
        let t = p.table.unwrap();
        assert_eq!(t.columns, ["step", "reply", "tokens", "reward/total", "reward/bleu/raw"]);
        assert_eq!(t.rows[1], [json!(0), json!("b"), json!("[1,2]"), json!(1.5), Json::Null]);
        let p = c.end().unwrap();
        assert_eq!((p.index, p.step, c.end()), (1, 1, None));
    }
}
