//! How well the critic's heads agree with labels they have not seen, beside baselines that know nothing: the mean,
//! the reply's length, VADER. Intervals: 95 %, bootstrap over conversations.

use std::collections::BTreeMap;

use ecr_algos::agreement::Spearman;
use ecr_algos::critic::head_metrics;
use ecr_algos::value_fit::ScoreMap;
use ecr_core::{Result, Stream};
use ecr_data::critic_rows::{CriticRow, OVERALL};
use ecr_eval::bootstrap::Resamples;
use ecr_eval::{Bootstrap, vader};
use serde_json::{Map, Value as Json, json};

use super::plan::Labels;
use super::rated;

/// Names of the baselines that read the reply.
const BASELINES: [&str; 2] = ["length", "vader"];

/// The numbers that the baselines know of a reply.
fn facts(row: &CriticRow) -> [f64; 2] {
    [row.response.split_whitespace().count() as f64, vader::compound(&row.response)]
}

/// A head and a source of its labels.
type HeadSource = (usize, String);
/// Facts and labels of some rows.
type Points = (Vec<[f64; 2]>, Vec<f64>);

/// Baselines fitted on training rows.
pub struct Baselines {
    /// Label from fact.
    maps: BTreeMap<HeadSource, [ScoreMap; 2]>,
    /// Whether the better version has more (1) or less (-1) of the fact, by degradation.
    signs: BTreeMap<String, [f64; 2]>,
}

impl Baselines {
    /// Least squares for ratings, the more frequent direction for degradations.
    pub fn fit(rows: &[CriticRow], labels: &Labels) -> Self {
        let mut points: BTreeMap<HeadSource, Points> = BTreeMap::new();
        let mut votes: BTreeMap<String, [f64; 2]> = BTreeMap::new();
        for r in rows.iter().filter(|r| rated(r)) {
            for (h, name) in labels.names.iter().enumerate() {
                if let (Some(y), Some(s)) = (labels.label(r, h), r.scores.get(name)) {
                    let p = points.entry((h, s.source.clone())).or_default();
                    p.0.push(facts(r));
                    p.1.push(y);
                }
            }
        }
        for group in rows.chunk_by(|a, b| !rated(a) && a.group == b.group) {
            let (Some(best), Some(worst)) = (group.first(), group.last()) else { continue };
            let Some(s) = best.scores.values().next().filter(|_| !rated(best)) else { continue };
            let (b, w) = (facts(best), facts(worst));
            let v = votes.entry(s.source.clone()).or_default();
            (0..2).filter(|&k| b[k] != w[k]).for_each(|k| v[k] += (b[k] - w[k]).signum());
        }
        let map = |(key, (x, y)): (HeadSource, Points)| {
            let fit = |k: usize| ScoreMap::fit(&x.iter().map(|x| x[k]).collect::<Vec<_>>(), &y);
            (key, [fit(0), fit(1)])
        };
        let sign = |v: f64| if v < 0.0 { -1.0 } else { 1.0 };
        Self {
            maps: points.into_iter().map(map).collect(),
            signs: votes.into_iter().map(|(k, v)| (k, v.map(sign))).collect(),
        }
    }
}

/// Numbers of conversations, for the bootstrap.
fn clusters<'a>(rows: impl Iterator<Item = &'a CriticRow>) -> Vec<u64> {
    let mut ids: BTreeMap<&str, u64> = BTreeMap::new();
    rows.map(|r| {
        let next = ids.len() as u64;
        *ids.entry(&r.conv_id).or_insert(next)
    })
    .collect()
}

fn interval(found: Option<(f64, f64)>) -> Json {
    found.map_or(Json::Null, |(low, high)| json!([low, high]))
}

fn draw(resamples: usize, clusters: &[u64], stream: Stream) -> Result<Resamples> {
    Bootstrap { resamples, stream }.draw(clusters)
}

/// Report of one part of the data: `logits` `[rows, heads]`.
pub fn report(
    rows: &[CriticRow],
    logits: &[f64],
    labels: &Labels,
    baselines: &Baselines,
    resamples: usize,
    stream: Stream,
) -> Result<Json> {
    let mut out = Map::new();
    let n = labels.names.len();
    let score = |i: usize, h: usize| 1.0 / (1.0 + (-logits[i * n + h]).exp());
    for (h, name) in labels.names.iter().enumerate() {
        let mut by_source: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (i, r) in rows.iter().enumerate() {
            if labels.label(r, h).is_some() {
                let source = r.scores[name].source.as_str();
                by_source.entry(if rated(r) { source } else { "degradations" }).or_default().push(i);
            }
        }
        let mut head = Map::new();
        for (source, which) in by_source {
            let y: Vec<f64> = which.iter().filter_map(|&i| labels.label(&rows[i], h)).collect();
            let mut predictions = vec![("critic", which.iter().map(|&i| score(i, h)).collect::<Vec<_>>())];
            if let Some(maps) = baselines.maps.get(&(h, source.to_string())) {
                for (k, baseline) in BASELINES.into_iter().enumerate() {
                    let of = |&i: &usize| maps[k].apply(facts(&rows[i])[k]);
                    predictions.push((baseline, which.iter().map(of).collect()));
                }
            }
            let clusters = clusters(which.iter().map(|&i| &rows[i]));
            let draws = draw(resamples, &clusters, stream.child(name).child(source))?;
            let ranks: Vec<Spearman<'_>> = predictions.iter().map(|(_, p)| Spearman::new(p, &y)).collect();
            let mut part = Map::new();
            part.insert("rows".into(), y.len().into());
            part.insert("conversations".into(), clusters.iter().max().map_or(0, |m| m + 1).into());
            for (k, (name, p)) in predictions.iter().enumerate() {
                let mut m = json!(head_metrics(p, &y, labels.mean(h)));
                m["spearman_interval"] = interval(draws.interval(|t| Some(ranks[k].value(t))));
                if k > 0 {
                    let gap = |t: &[u32]| Some(ranks[0].value(t) - ranks[k].value(t));
                    m["critic_minus_this"] = gap(&vec![1; y.len()]).into();
                    m["critic_minus_this_interval"] = interval(draws.interval(gap));
                }
                part.insert(name.to_string(), m);
            }
            head.insert(source.to_string(), Json::Object(part));
        }
        out.insert(name.clone(), Json::Object(head));
    }
    out.insert("order".into(), orders(rows, &score, labels, baselines, resamples, stream)?);
    Ok(Json::Object(out))
}

/// Share of the known orders within groups that each head of a degradation, and the head of satisfaction, get right (a
/// tie is half), by degradation: over all pairs of levels, and over those with the untouched reply.
fn orders(
    rows: &[CriticRow],
    score: &dyn Fn(usize, usize) -> f64,
    labels: &Labels,
    baselines: &Baselines,
    resamples: usize,
    stream: Stream,
) -> Result<Json> {
    let mut groups: BTreeMap<(String, String), Vec<(usize, usize)>> = BTreeMap::new();
    let mut at = 0;
    for g in rows.chunk_by(|a, b| !rated(a) && a.group == b.group) {
        if let Some((head, s)) = g[0].scores.iter().next().filter(|_| !rated(&g[0])) {
            groups.entry((s.source.clone(), head.clone())).or_default().push((at, at + g.len()));
        }
        at += g.len();
    }
    let mut out = Map::new();
    for ((source, head), groups) in groups {
        let clusters = clusters(groups.iter().map(|g| &rows[g.0]));
        let draws = draw(resamples, &clusters, stream.child("order").child(&source))?;
        // Right pairs and pairs of each group.
        let count = |value: &dyn Fn(usize) -> f64, all: bool| -> Vec<(f64, f64)> {
            let one = |&(from, to): &(usize, usize)| {
                let (mut right, mut pairs) = (0.0, 0.0);
                for i in from..if all { to } else { from + 1 } {
                    for j in i + 1..to {
                        let gap = value(i) - value(j);
                        pairs += 1.0;
                        right += if gap == 0.0 { 0.5 } else { f64::from(u8::from(gap > 0.0)) };
                    }
                }
                (right, pairs)
            };
            groups.iter().map(one).collect()
        };
        let accuracy = |counts: &[(f64, f64)]| {
            let share = |t: &[u32]| {
                let sum = |f: fn(&(f64, f64)) -> f64| {
                    counts.iter().zip(t).map(|(c, &t)| f(c) * f64::from(t)).sum::<f64>()
                };
                let pairs = sum(|c| c.1);
                (pairs > 0.0).then(|| sum(|c| c.0) / pairs)
            };
            (share(&vec![1; counts.len()]).unwrap_or(0.5), interval(draws.interval(share)))
        };
        let mut m = json!({"head": head, "groups": groups.len()});
        for (name, which) in [("head", head.as_str()), ("overall", OVERALL)] {
            let Some(h) = labels.names.iter().position(|n| n == which) else { continue };
            let prefix = if name == "head" { "" } else { "overall_" };
            for (all, name) in [(true, "pairwise_accuracy"), (false, "reference_accuracy")] {
                let (value, interval) = accuracy(&count(&|i| score(i, h), all));
                m[format!("{prefix}{name}")] = value.into();
                m[format!("{prefix}{name}_interval")] = interval;
            }
        }
        for (k, baseline) in BASELINES.into_iter().enumerate() {
            let sign = baselines.signs.get(&source).map_or(1.0, |s| s[k]);
            m[format!("{baseline}_pairwise_accuracy")] =
                accuracy(&count(&|i| sign * facts(&rows[i])[k], true)).0.into();
        }
        out.insert(source, m);
    }
    Ok(Json::Object(out))
}

/// The few numbers of a report that belong into run.json, by name.
pub fn notes(report: &Json) -> Vec<(String, Json)> {
    let mut out = Vec::new();
    for (head, sources) in report.as_object().into_iter().flatten() {
        for (source, part) in sources.as_object().into_iter().flatten() {
            if head == "order" {
                for key in ["pairwise_accuracy", "pairwise_accuracy_interval", "overall_pairwise_accuracy"] {
                    if !part[key].is_null() {
                        out.push((format!("{source}_{key}"), part[key].clone()));
                    }
                }
                continue;
            }
            for key in ["spearman", "spearman_interval", "r2", "pairwise_accuracy", "calibration_error"] {
                out.push((format!("{head}_{source}_{key}"), part["critic"][key].clone()));
            }
            for baseline in BASELINES {
                if let Some(b) = part.get(baseline) {
                    out.push((format!("{head}_{source}_{baseline}_spearman"), b["spearman"].clone()));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecr_data::critic_rows::HeadScore;

    fn row(conv: usize, group: &str, response: &str, head: &str, source: &str, score: f64) -> CriticRow {
        CriticRow {
            conv_id: format!("c{conv}"),
            context: vec![],
            response: response.into(),
            group: group.into(),
            scores: BTreeMap::from([(head.into(), HeadScore { score, source: source.into() })]),
        }
    }

    #[test]
    fn a_perfect_critic_beats_baselines_and_a_wrong_one_does_not() {
        let mut rng = Stream::new(2).rng();
        let mut rows: Vec<CriticRow> =
            (0..80).map(|i| row(i / 2, "", "good or bad", OVERALL, "uss", rng.uniform())).collect();
        for g in 0..10 {
            for (level, text) in ["a b c d e f", "a b c d", "a b", "a"].into_iter().enumerate() {
                let score = 1.0 - level as f64 / 3.0;
                rows.push(row(50 + g, &format!("g{g}"), text, "fluency", "truncated", score));
            }
        }
        let labels = Labels::new(&rows);
        let baselines = Baselines::fit(&rows, &labels);
        let logit = |p: f64| {
            let p = p.clamp(1e-6, 1.0 - 1e-6);
            (p / (1.0 - p)).ln()
        };
        let of = |r: &CriticRow, name: &str| logit(r.scores.get(name).map_or(0.5, |s| s.score));
        let z: Vec<f64> =
            rows.iter().flat_map(|r| labels.names.iter().map(|n| of(r, n)).collect::<Vec<_>>()).collect();
        let all = report(&rows, &z, &labels, &baselines, 200, Stream::new(1)).unwrap();
        let uss = &all[OVERALL]["uss"];
        assert!(uss["critic"]["spearman"].as_f64().unwrap() > 0.999);
        assert!(uss["critic"]["r2"].as_f64().unwrap() > 0.999);
        assert_eq!(uss["length"]["spearman"], 0.0);
        assert_eq!(uss["conversations"], 40);
        assert!(uss["length"]["critic_minus_this_interval"][0].as_f64().unwrap() > 0.9);
        assert_eq!(all["order"]["truncated"]["pairwise_accuracy"], 1.0);
        assert_eq!(all["order"]["truncated"]["length_pairwise_accuracy"], 1.0);
        assert_eq!(all["order"]["truncated"]["overall_pairwise_accuracy"], 0.5);
        let wrong: Vec<f64> = z.iter().map(|z| -z).collect();
        let all = report(&rows, &wrong, &labels, &baselines, 200, Stream::new(1)).unwrap();
        assert_eq!(all["order"]["truncated"]["pairwise_accuracy"], 0.0);
        assert!(all[OVERALL]["uss"]["critic"]["r2"].as_f64().unwrap() < 0.0);
        let names: Vec<String> = notes(&all).into_iter().map(|n| n.0).collect();
        assert!(names.contains(&"overall_uss_spearman".to_string()), "{names:?}");
        assert!(names.contains(&"truncated_pairwise_accuracy".to_string()));
    }
}
