//! Batches of critic rows in which known orders meet, and the labels and orders of a batch.
//!
//! A row that people rated stands alone; versions of one reply (a group) always share a batch. Sources that rate one
//! quality on different scales are brought to the mean and spread of the largest; a squared error counts by one over the spread
//! of the labels: an error of one spread then pulls at the logit alike, whether labels hardly differ (ratings) or span
//! 0 to 1 (constructed). By one over the variance, the noise of ratings would drown everything else.

use std::collections::BTreeMap;
use std::ops::Range;

use ecr_algos::critic::{Pair, Target};
use ecr_algos::sft::epoch_batches;
use ecr_core::Stream;
use ecr_data::critic_rows::{CriticRow, HeadScore, OVERALL};
use ecr_data::degradations::Degradation;

use super::rated;

/// Ratings nearer than this are no order: .4 on a scale of 1 to 5.
const MARGIN: f64 = 0.1;

/// Mean, spread and number of some labels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub sd: f64,
    /// Rows.
    pub rows: usize,
}

impl Spread {
    fn of(xs: &[f64]) -> Self {
        let n = xs.len().max(1) as f64;
        let mean = xs.iter().sum::<f64>() / n;
        let var = xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        Self { mean, sd: var.sqrt(), rows: xs.len() }
    }
}

/// The heads and the scales of their sources, from training rows alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Labels {
    /// Names of the heads, in order.
    pub names: Vec<String>,
    /// Spread of each source, by head and source.
    pub sources: BTreeMap<(String, String), Spread>,
    /// What the labels of each head look like once sources are brought together.
    scales: Vec<Spread>,
    /// Heads that people's ratings teach.
    rated: Vec<bool>,
}

impl Labels {
    /// Heads with at least one label in `rows`.
    pub fn new(rows: &[CriticRow]) -> Self {
        let mut found: BTreeMap<(String, String), (bool, Vec<f64>)> = BTreeMap::new();
        for r in rows {
            for (head, s) in &r.scores {
                let entry = found.entry((head.clone(), s.source.clone())).or_default();
                entry.0 |= rated(r);
                entry.1.push(s.score);
            }
        }
        let mut names: Vec<String> = found.keys().map(|k| k.0.clone()).collect();
        names.dedup();
        let (mut scales, mut by_people) = (Vec::new(), Vec::new());
        for name in &names {
            let of_head = || found.iter().filter(|(k, _)| k.0 == *name).map(|(_, v)| v);
            let largest = of_head().filter(|v| v.0).max_by_key(|v| v.1.len());
            by_people.push(largest.is_some());
            scales.push(match largest {
                Some(v) => Spread::of(&v.1),
                None => Spread::of(&of_head().flat_map(|v| v.1.iter().copied()).collect::<Vec<_>>()),
            });
        }
        let sources = found.into_iter().map(|(k, v)| (k, Spread::of(&v.1))).collect();
        Self { names, sources, scales, rated: by_people }
    }
    /// A label on the scale of its head, 0..1.
    pub fn value(&self, head: usize, score: &HeadScore) -> f64 {
        let to = self.scales[head];
        let from = self.sources.get(&(self.names[head].clone(), score.source.clone()));
        match from.filter(|_| self.rated[head]) {
            Some(from) if from.sd > 0.0 => {
                (to.mean + (score.score - from.mean) * to.sd / from.sd).clamp(0.0, 1.0)
            }
            _ => score.score,
        }
    }
    /// Mean label of a head.
    pub fn mean(&self, head: usize) -> f64 {
        self.scales[head].mean
    }
    /// The label that `row` gives a head. Where people rate a quality, constructed rows give only an order.
    pub fn label(&self, row: &CriticRow, head: usize) -> Option<f64> {
        let score = row.scores.get(&self.names[head])?;
        (rated(row) || !self.rated[head]).then(|| self.value(head, score))
    }
    /// Labels of a row, one a head.
    pub fn targets(&self, row: &CriticRow) -> impl Iterator<Item = Option<Target>> {
        (0..self.names.len()).map(|h| {
            let weight = 1.0 / self.scales[h].sd.max(1e-2);
            self.label(row, h).map(|value| Target { value, weight })
        })
    }
}

/// The degradation of a row and its rank in the group.
fn spoilt(row: &CriticRow) -> Option<(Degradation, f64)> {
    let s = row.scores.values().next().filter(|_| !rated(row))?;
    Degradation::ALL.into_iter().find(|k| k.name() == s.source).map(|k| (k, s.score))
}

/// Known orders within a batch: between versions of one reply, and between rated replies of one source. `form` is the
/// weight with which degradations of form also order the head that learns satisfaction; 0 = not. The orders of a group, and
/// those of a source, together weigh as many as they have rows.
pub fn pairs(rows: &[&CriticRow], labels: &Labels, form: f64) -> Vec<Pair> {
    let mut sets: BTreeMap<(usize, &str), Vec<(usize, f64)>> = BTreeMap::new();
    let overall = labels.names.iter().position(|n| n == OVERALL);
    for (i, r) in rows.iter().enumerate() {
        for (h, name) in labels.names.iter().enumerate() {
            if let Some(s) = r.scores.get(name) {
                let set = if rated(r) { s.source.as_str() } else { r.group.as_str() };
                sets.entry((h, set)).or_default().push((i, s.score));
            }
        }
        if let (Some(h), Some((_, rank))) = (overall, spoilt(r).filter(|(k, _)| form > 0.0 && k.of_form())) {
            sets.entry((h, &r.group)).or_default().push((i, rank));
        }
    }
    let mut out = Vec::new();
    for ((head, _), members) in sets {
        let grouped = members.first().is_some_and(|m| !rated(rows[m.0]));
        let least = if grouped { 1e-9 } else { MARGIN };
        let from = out.len();
        for (k, &(i, x)) in members.iter().enumerate() {
            for &(j, y) in &members[k + 1..] {
                if (x - y).abs() >= least {
                    let (better, worse) = if x > y { (i, j) } else { (j, i) };
                    out.push(Pair { better, worse, head, weight: 1.0 });
                }
            }
        }
        let factor = if grouped && Some(head) == overall { form } else { 1.0 };
        let weight = factor * members.len() as f64 / (out.len() - from).max(1) as f64;
        out[from..].iter_mut().for_each(|p| p.weight = weight);
    }
    out
}

/// Rows that stay together: single rated rows, and groups (which are adjacent in the file).
fn units(rows: &[CriticRow]) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
    let mut at = 0;
    let mut all = Vec::new();
    for run in rows.chunk_by(|a, b| !rated(a) && a.group == b.group) {
        all.push(at..at + run.len());
        at += run.len();
    }
    all.into_iter().partition(|u| rated(&rows[u.start]))
}

/// How many rows a pass sees.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Rows a pass; 0 = all.
    pub max_rows: usize,
    /// Share of them that people rated, as far as there are so many.
    pub rated_share: f64,
    /// Rows a batch; a group is never cut, so that a batch may have a few less.
    pub batch_size: usize,
}

/// Batches of one pass, as row numbers. Another pass sees other groups.
pub fn epoch(rows: &[CriticRow], budget: Budget, stream: Stream, epoch: u64) -> Vec<Vec<usize>> {
    let (mut people, mut groups) = units(rows);
    if budget.max_rows > 0 {
        let most = (budget.max_rows as f64 * budget.rated_share).round() as usize;
        let most = if groups.is_empty() { budget.max_rows } else { most };
        let stream = stream.child("rows").at(epoch);
        stream.child("rated").rng().shuffle(&mut people);
        people.truncate(most);
        stream.child("groups").rng().shuffle(&mut groups);
        let mut left = budget.max_rows - people.len();
        groups.retain(|g| {
            let fits = g.len() <= left;
            left -= if fits { g.len() } else { left };
            fits
        });
    }
    people.extend(groups);
    let lengths: Vec<usize> = people.iter().map(Range::len).collect();
    let batches = epoch_batches(&lengths, budget.batch_size, stream, epoch);
    batches.into_iter().map(|b| b.into_iter().flat_map(|u| people[u].clone()).collect()).collect()
}

/// Rows to measure on: rated ones up to `rated_rows`, and up to `groups` groups of each degradation.
pub fn measured(rows: Vec<CriticRow>, rated_rows: usize, groups: usize, stream: Stream) -> Vec<CriticRow> {
    let (mut people, mut spoilt) = units(&rows);
    stream.child("rated").rng().shuffle(&mut people);
    people.truncate(rated_rows);
    stream.child("groups").rng().shuffle(&mut spoilt);
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    spoilt.retain(|g| {
        let source = rows[g.start].scores.values().next().map_or_else(String::new, |s| s.source.clone());
        let n = taken.entry(source).or_default();
        *n += 1;
        *n <= groups
    });
    people.extend(spoilt);
    people.sort_by_key(|u| u.start);
    people.into_iter().flat_map(|u| rows[u].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(group: &str, head: &str, source: &str, score: f64) -> CriticRow {
        CriticRow {
            conv_id: format!("c{score}"),
            context: vec![],
            response: "r".into(),
            group: group.into(),
            scores: BTreeMap::from([(head.into(), HeadScore { score, source: source.into() })]),
        }
    }

    fn some() -> Vec<CriticRow> {
        let mut rows: Vec<CriticRow> =
            (0..10).map(|i| row("", OVERALL, "uss", 0.05 * f64::from(i))).collect();
        rows.push(row("", OVERALL, "abredial", 0.4));
        rows.push(row("", OVERALL, "abredial", 0.8));
        for g in 0..6 {
            for level in 0..4 {
                let score = 1.0 - f64::from(level) / 3.0;
                rows.push(row(&format!("g{g}"), "fluency", "shuffled_words", score));
            }
        }
        rows
    }

    #[test]
    fn a_group_is_never_parted_and_every_row_comes_once_a_pass() {
        let rows = some();
        let budget = Budget { max_rows: 0, rated_share: 0.5, batch_size: 6 };
        for e in 0..3 {
            let plan = epoch(&rows, budget, Stream::new(1), e);
            let mut seen: Vec<usize> = plan.iter().flatten().copied().collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..rows.len()).collect::<Vec<_>>());
            for g in 0..6 {
                let members: Vec<usize> = (12 + 4 * g..16 + 4 * g).collect();
                assert!(plan.iter().any(|b| members.iter().all(|m| b.contains(m))), "{g}");
            }
        }
        let budget = Budget { max_rows: 16, ..budget };
        let (a, b) = (epoch(&rows, budget, Stream::new(1), 0), epoch(&rows, budget, Stream::new(1), 1));
        assert_ne!(a, b);
        assert_eq!(a.iter().flatten().filter(|&&i| i < 12).count(), 8);
        assert_eq!(a.iter().flatten().count(), 16);
    }

    #[test]
    fn orders_hold_within_a_group_and_within_a_source() {
        let rows = some();
        let labels = Labels::new(&rows);
        assert_eq!(labels.names, ["fluency", OVERALL]);
        // One group, two ratings of one source, one of another.
        let batch: Vec<&CriticRow> = [0, 9, 11, 12, 13, 14, 15].iter().map(|&i| &rows[i]).collect();
        let of = |form| pairs(&batch, &labels, form);
        assert_eq!(of(0.0).len(), 1 + 6);
        assert!(of(0.0).contains(&Pair { better: 1, worse: 0, head: 1, weight: 2.0 }));
        assert!(of(0.0).contains(&Pair { better: 3, worse: 6, head: 0, weight: 4.0 / 6.0 }));
        let both = of(0.5);
        assert_eq!(both.len(), 1 + 6 + 6);
        assert!(both.contains(&Pair { better: 3, worse: 6, head: 1, weight: 0.5 * 4.0 / 6.0 }));
        assert!((both.iter().map(|p| p.weight).sum::<f64>() - (2.0 + 4.0 + 2.0)).abs() < 1e-12);
    }

    #[test]
    fn sources_share_the_scale_of_the_largest_and_constructed_rows_are_only_an_order_where_people_rate() {
        let mut rows = some();
        let labels = Labels::new(&rows);
        let value = |i: usize| labels.value(1, &rows[i].scores[OVERALL]);
        assert_eq!(value(3), rows[3].scores[OVERALL].score);
        let middle = 0.5 * (value(10) + value(11));
        assert!((middle - labels.mean(1)).abs() < 1e-12 && value(11) - value(10) < 0.4);
        assert_eq!(labels.label(&rows[12], 0), Some(1.0));
        rows.push(row("g9", OVERALL, "truncated", 0.0));
        let labels = Labels::new(&rows);
        assert_eq!(labels.label(rows.last().unwrap(), 1), None);
        let weight = |i: usize, h: usize| labels.targets(&rows[i]).nth(h).flatten().unwrap().weight;
        assert!(weight(0, 1) > 2.0 * weight(12, 0), "narrow labels count more");
    }
}
