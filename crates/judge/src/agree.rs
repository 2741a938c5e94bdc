//! Several judges: how far they agree, and their mean.

use std::collections::BTreeMap;

use ecr_core::{Error, Result, Stream};
use serde::Serialize;

use crate::input::Labels;
use crate::journal::Status;
use crate::output::Record;
use crate::scores::{HEADS, Scores};

/// Ranks from 0, ties share their mean, `[n]`.
fn ranks(x: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]));
    let mut out = vec![0.0; x.len()];
    let mut i = 0;
    while i < order.len() {
        let mut j = i;
        while j + 1 < order.len() && x[order[j + 1]] == x[order[i]] {
            j += 1;
        }
        order[i..=j].iter().for_each(|&k| out[k] = (i + j) as f64 / 2.0);
        i = j + 1;
    }
    out
}

/// Spearman's rank correlation with ties, or nothing where one side is constant or there are fewer than 3 pairs.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() || x.len() < 3 {
        return None;
    }
    let (a, b) = (ranks(x), ranks(y));
    let mean = (x.len() as f64 - 1.0) / 2.0;
    let sum = |f: &dyn Fn(usize) -> f64| (0..x.len()).map(f).sum::<f64>();
    let cov = sum(&|i| (a[i] - mean) * (b[i] - mean));
    let (va, vb) = (sum(&|i| (a[i] - mean).powi(2)), sum(&|i| (b[i] - mean).powi(2)));
    (va > 0.0 && vb > 0.0).then(|| cov / (va * vb).sqrt())
}

/// Its 95 % interval by resampling whole clusters (conversations), percentiles of `resamples` draws.
pub fn spearman_interval(
    x: &[f64],
    y: &[f64],
    clusters: &[&str],
    resamples: usize,
    stream: Stream,
) -> Option<(f64, f64)> {
    let mut by: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    clusters.iter().enumerate().for_each(|(i, c)| by.entry(c).or_default().push(i));
    let groups: Vec<&Vec<usize>> = by.values().collect();
    let mut found: Vec<f64> = (0..resamples as u64)
        .filter_map(|r| {
            let mut draws = stream.at(r).rng();
            let drawn: Vec<usize> =
                (0..groups.len()).flat_map(|_| groups[draws.below(groups.len())].clone()).collect();
            let take = |v: &[f64]| drawn.iter().map(|&i| v[i]).collect::<Vec<_>>();
            spearman(&take(x), &take(y))
        })
        .collect();
    if found.len() < 20 {
        return None;
    }
    found.sort_by(f64::total_cmp);
    let at = |q: f64| found[((found.len() - 1) as f64 * q).round() as usize];
    Some((at(0.025), at(0.975)))
}

/// Cohen's kappa with quadratic weights over five levels (0, .25, .5, .75, 1; nearest), or nothing where chance
/// agreement is complete.
pub fn kappa(x: &[f64], y: &[f64]) -> Option<f64> {
    if x.len() != y.len() || x.is_empty() {
        return None;
    }
    let level = |v: f64| ((v * 4.0).round() as usize).min(4);
    let n = x.len() as f64;
    let (mut seen, mut px, mut py) = (0.0, [0.0; 5], [0.0; 5]);
    let weight = |a: usize, b: usize| (a as f64 - b as f64).powi(2) / 16.0;
    for (a, b) in x.iter().map(|&v| level(v)).zip(y.iter().map(|&v| level(v))) {
        seen += weight(a, b) / n;
        px[a] += 1.0 / n;
        py[b] += 1.0 / n;
    }
    let mut chance = 0.0;
    for (a, p) in px.iter().enumerate() {
        for (b, q) in py.iter().enumerate() {
            chance += p * q * weight(a, b);
        }
    }
    (chance > 1e-12).then(|| 1.0 - seen / chance)
}

/// Agreement of two judges on one quality.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// One judge.
    pub a: String,
    /// The other.
    pub b: String,
    /// Quality.
    pub head: &'static str,
    /// Records that both scored.
    pub n: usize,
    /// Rank correlation.
    pub spearman: Option<f64>,
    /// Its 95 % interval, by conversation.
    pub interval: Option<(f64, f64)>,
    /// Kappa with quadratic weights over five levels.
    pub kappa: Option<f64>,
    /// Mean of b − a.
    pub mean_difference: f64,
}

/// Agreement of every two files of records, `[pairs · 5]`, and the mean of all judges over the records that every one
/// scored. Recommendation is compared only where something was recommended: elsewhere all are 0.0 by the rule.
///
/// # Errors
/// [`ecr_core::Kind::Data`] for fewer than two files, or no record that all scored.
pub fn agree(files: &[Vec<Record>], stream: Stream) -> Result<(Vec<Agreement>, Vec<Record>)> {
    let bad = |got: &str| {
        Error::data("compare judges")
            .expected("two or more files of scores with records in common")
            .got(got)
            .files("nothing was written")
    };
    if files.len() < 2 {
        return Err(bad("fewer than two"));
    }
    let usable = |r: &&Record| r.status == Status::Scored && r.scores.is_some();
    let tables: Vec<BTreeMap<&str, &Record>> =
        files.iter().map(|f| f.iter().filter(usable).map(|r| (r.id.as_str(), r)).collect()).collect();
    let common: Vec<&str> =
        tables[0].keys().copied().filter(|id| tables.iter().all(|t| t.contains_key(id))).collect();
    let Some(first) = common.first() else { return Err(bad("none in common")) };
    for id in &common {
        let hash = &tables[0][id].content;
        if tables.iter().any(|t| t[id].content != *hash) {
            return Err(bad("two different replies under one id"));
        }
    }
    let value = |r: &Record, h: usize| r.scores.map_or(0.0, |s| s.values()[h]);
    let mut out = Vec::new();
    for i in 0..tables.len() {
        for j in i + 1..tables.len() {
            for (h, head) in HEADS.into_iter().enumerate() {
                let of = |id: &&str| (tables[i][id], tables[j][id]);
                let rows: Vec<(&Record, &Record)> =
                    common.iter().map(of).filter(|(a, _)| h != 2 || !a.rule_applied).collect();
                let x: Vec<f64> = rows.iter().map(|r| value(r.0, h)).collect();
                let y: Vec<f64> = rows.iter().map(|r| value(r.1, h)).collect();
                let clusters: Vec<&str> = rows.iter().map(|r| r.0.conversation.as_str()).collect();
                let named = stream.child(head).at((i * tables.len() + j) as u64);
                out.push(Agreement {
                    a: tables[i][first].judge.clone(),
                    b: tables[j][first].judge.clone(),
                    head,
                    n: rows.len(),
                    spearman: spearman(&x, &y),
                    interval: spearman_interval(&x, &y, &clusters, 1000, named),
                    kappa: kappa(&x, &y),
                    mean_difference: x.iter().zip(&y).map(|(a, b)| b - a).sum::<f64>()
                        / (x.len().max(1) as f64),
                });
            }
        }
    }
    let judges: Vec<&str> = tables.iter().map(|t| t[first].judge.as_str()).collect();
    let mean = common
        .iter()
        .map(|id| {
            let mut v = [0.0; 5];
            for t in &tables {
                (0..5).for_each(|h| v[h] += value(t[id], h) / tables.len() as f64);
            }
            let r = tables[0][id];
            Record {
                judge: judges.join("+"),
                scores: Some(Scores::from_values(v)),
                recommendation_by_judge: None,
                ..r.clone()
            }
        })
        .collect();
    Ok((out, mean))
}

/// Agreement with labels that are not a judge's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Beside {
    /// Quality.
    pub head: &'static str,
    /// Who labelled, e.g. `uss`.
    pub source: String,
    /// Records with both.
    pub n: usize,
    /// Rank correlation.
    pub spearman: Option<f64>,
    /// Its 95 % interval, by conversation.
    pub interval: Option<(f64, f64)>,
    /// Rank correlation of the reply's length with the labels: what a ruler reaches.
    pub spearman_length: Option<f64>,
}

/// Scores beside labels, one entry a quality and source. `lengths`: characters of each reply, by id.
pub fn beside(
    records: &[Record],
    labels: &Labels,
    lengths: &BTreeMap<&str, usize>,
    stream: Stream,
) -> Vec<Beside> {
    let mut found: BTreeMap<(usize, &str), [Vec<f64>; 3]> = BTreeMap::new();
    let mut clusters: BTreeMap<(usize, &str), Vec<&str>> = BTreeMap::new();
    for r in records {
        let (Some(scores), Some(own)) = (r.scores, labels.get(&r.id)) else { continue };
        for (h, head) in HEADS.into_iter().enumerate() {
            let Some(label) = own.get(head) else { continue };
            let key = (h, label.source.as_str());
            let [x, y, z] = found.entry(key).or_default();
            x.push(scores.values()[h]);
            y.push(label.score);
            z.push(lengths.get(r.id.as_str()).map_or(0.0, |&n| n as f64));
            clusters.entry(key).or_default().push(&r.conversation);
        }
    }
    let entry = |(key, [x, y, z]): (&(usize, &str), &[Vec<f64>; 3])| Beside {
        head: HEADS[key.0],
        source: key.1.into(),
        n: x.len(),
        spearman: spearman(x, y),
        interval: spearman_interval(x, y, &clusters[key], 1000, stream.child(HEADS[key.0]).child(key.1)),
        spearman_length: spearman(z, y),
    };
    found.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values() {
        // Computed from the definitions by an independent script (Pearson of mid-ranks; 1 - observed / expected).
        let (x, y) = ([0.1, 0.4, 0.4, 0.8, 0.9], [0.2, 0.1, 0.6, 0.7, 0.7]);
        assert!((spearman(&x, &y).unwrap() - 0.789_473_684_210_526_3).abs() < 1e-12);
        assert!((spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]).unwrap() + 1.0).abs() < 1e-12);
        assert!(spearman(&x, &[0.5; 5]).is_none());
        let (a, b) = ([0.0, 0.25, 0.5, 0.75, 1.0, 0.5], [0.0, 0.5, 0.5, 0.5, 1.0, 0.25]);
        assert!((kappa(&a, &b).unwrap() - 0.842_105_263_157_894_7).abs() < 1e-12);
        assert!((kappa(&a, &a).unwrap() - 1.0).abs() < 1e-12);
        assert!(kappa(&[0.5; 3], &[0.5; 3]).is_none());
    }

    #[test]
    fn an_interval_holds_the_correlation_and_needs_clusters() {
        let x: Vec<f64> = (0..60).map(f64::from).collect();
        let y: Vec<f64> = (0..60).map(|i| f64::from((i * 7) % 60) + f64::from(i)).collect();
        let names: Vec<String> = (0..60).map(|i| (i / 3).to_string()).collect();
        let clusters: Vec<&str> = names.iter().map(String::as_str).collect();
        let (low, high) = spearman_interval(&x, &y, &clusters, 300, Stream::new(1)).unwrap();
        let r = spearman(&x, &y).unwrap();
        assert!(low < r && r < high && high - low < 0.8, "{low} {r} {high}");
        assert!(spearman_interval(&x, &[1.0; 60], &clusters, 300, Stream::new(1)).is_none());
    }
}
