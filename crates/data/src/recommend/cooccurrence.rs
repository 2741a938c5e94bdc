//! Item co-occurrence with popularity back-off, file name = config name.
//!
//! With `c(a,b)` the dialogues that name both `a` and `b` and `n(b)` those that name `b`, a candidate scores
//! `Σ_{a named} c(a,b) / (n(b) + shrink)^damping`. Films of equal score go by `n`, then by id; films that never
//! met a named one follow by popularity with scores below 0. `damping` ½ and `shrink` 0 are the settings of the
//! published check (Recall@1/10/50 = .037/.139/.293 on ReDial test); choose others on validation data.

use std::path::Path;

use ecr_core::seam::{Query, Ranked, Recommender};
use ecr_core::{ItemId, Result};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::Deserialize;

use crate::records::read_jsonl;
use crate::redial::{Corpus, Split};

/// The films that one dialogue names, each once, and whether the seeker liked them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interactions {
    /// One entry a dialogue.
    pub dialogues: Vec<Vec<(ItemId, Option<bool>)>>,
}

#[derive(Deserialize)]
struct Row {
    split: Split,
    movies: Vec<(ItemId, u8)>,
}

impl Interactions {
    /// The `split` part of ReDial's `train_interactions.jsonl.gz`.
    pub fn read(path: &Path, split: Split) -> Result<Self> {
        let rows: Vec<Row> = read_jsonl(path)?;
        let dialogues = rows
            .into_iter()
            .filter(|r| r.split == split)
            .map(|r| unique(r.movies.into_iter().map(|(i, l)| (i, Some(l == 1)))))
            .collect();
        Ok(Self { dialogues })
    }
    /// From the dialogues of one part of a corpus.
    pub fn from_corpus(corpus: &Corpus, split: Split) -> Self {
        let dialogues = corpus
            .split(split)
            .map(|d| {
                unique(
                    d.turns
                        .iter()
                        .flat_map(|t| &t.mentions)
                        .map(|m| (m.item, d.like(m.item).liked_by_seeker)),
                )
            })
            .collect();
        Self { dialogues }
    }
}

fn unique(items: impl Iterator<Item = (ItemId, Option<bool>)>) -> Vec<(ItemId, Option<bool>)> {
    let mut seen = FxHashSet::default();
    items.filter(|(i, _)| seen.insert(*i)).collect()
}

/// Item co-occurrence in compressed rows.
#[derive(Debug, Clone)]
pub struct Cooccurrence {
    /// Films by descending popularity, ties by id, `[M]`.
    popular: Vec<ItemId>,
    /// Place of a film in `popular`.
    index: FxHashMap<ItemId, u32>,
    /// Dialogues that name each film, `[M]`.
    count: Vec<u32>,
    /// Row `a` is `starts[a]..starts[a + 1]` of `cols` and `vals`, `[M + 1]`.
    starts: Vec<usize>,
    /// Films `b`, ascending.
    cols: Vec<u32>,
    /// `c(a, b)`.
    vals: Vec<u32>,
    /// `1 / (n(b) + shrink)^damping`, `[M]`.
    weight: Vec<f32>,
}

impl Cooccurrence {
    /// With `damping` ½ and `shrink` 50: of 30 settings the one that did well at all depths on ReDial valid
    /// (Recall@1/10/50 .051/.221/.409 there, .041/.174/.331 on test). For use; [`Cooccurrence::new`] is the check.
    pub fn tuned(data: &Interactions) -> Self {
        Self::with(data, 0.5, 50.0)
    }
    /// With `damping` ½ and `shrink` 0.
    pub fn new(data: &Interactions) -> Self {
        Self::with(data, 0.5, 0.0)
    }
    /// Counts the dialogues.
    pub fn with(data: &Interactions, damping: f32, shrink: f32) -> Self {
        let mut n: FxHashMap<ItemId, u32> = FxHashMap::default();
        for &(i, _) in data.dialogues.iter().flatten() {
            *n.entry(i).or_default() += 1;
        }
        let mut popular: Vec<ItemId> = n.keys().copied().collect();
        popular.sort_by_key(|i| (std::cmp::Reverse(n[i]), *i));
        let index: FxHashMap<ItemId, u32> = popular.iter().enumerate().map(|(k, &i)| (i, k as u32)).collect();
        let count: Vec<u32> = popular.iter().map(|i| n[i]).collect();
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        for d in &data.dialogues {
            let ids: Vec<u32> = d.iter().map(|(i, _)| index[i]).collect();
            for &a in &ids {
                pairs.extend(ids.iter().filter(|&&b| b != a).map(|&b| (a, b)));
            }
        }
        pairs.sort_unstable();
        let (mut starts, mut cols, mut vals) = (vec![0; popular.len() + 1], Vec::new(), Vec::<u32>::new());
        let mut last = None;
        for p in pairs {
            if last == Some(p) {
                if let Some(v) = vals.last_mut() {
                    *v += 1;
                }
            } else {
                cols.push(p.1);
                vals.push(1);
                last = Some(p);
            }
            starts[p.0 as usize + 1] = cols.len();
        }
        for i in 1..starts.len() {
            starts[i] = starts[i].max(starts[i - 1]);
        }
        let weight = count.iter().map(|&c| (c as f32 + shrink).powf(-damping)).collect();
        Self { popular, index, count, starts, cols, vals, weight }
    }
    /// Number of films it knows.
    pub fn len(&self) -> usize {
        self.popular.len()
    }
    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.popular.is_empty()
    }
    /// Dialogues that name the film.
    pub fn count(&self, item: ItemId) -> u32 {
        self.index.get(&item).map_or(0, |&i| self.count[i as usize])
    }
    /// Popularity alone, for comparison.
    pub fn popularity(&self) -> Popularity<'_> {
        Popularity(self)
    }

    fn back_off(&self, query: Query<'_>, k: usize, out: &mut Vec<Ranked>) {
        let have: FxHashSet<ItemId> =
            out.iter().map(|r| r.0).chain(query.mentioned.iter().copied()).collect();
        let missing = k.saturating_sub(out.len());
        let rest = self.popular.iter().enumerate().filter(|(_, i)| !have.contains(i)).take(missing);
        let m = self.popular.len() as f32;
        out.extend(rest.map(|(place, &i)| (i, -(place as f32 + 1.0) / m)));
    }
}

impl Recommender for Cooccurrence {
    fn rank(&self, query: Query<'_>, k: usize) -> Vec<Ranked> {
        let mut score: FxHashMap<u32, f64> = FxHashMap::default();
        for a in query.mentioned.iter().filter_map(|i| self.index.get(i)) {
            for e in self.starts[*a as usize]..self.starts[*a as usize + 1] {
                let b = self.cols[e];
                *score.entry(b).or_default() += f64::from(self.vals[e]);
            }
        }
        let mut ranked: Vec<(u32, f32)> = score
            .into_iter()
            .filter(|(b, _)| !query.mentioned.contains(&self.popular[*b as usize]))
            .map(|(b, s)| (b, s as f32 * self.weight[b as usize]))
            .collect();
        // Index order is popularity, then id.
        ranked.sort_unstable_by(|x, y| y.1.total_cmp(&x.1).then(x.0.cmp(&y.0)));
        ranked.truncate(k);
        let mut out: Vec<Ranked> = ranked.into_iter().map(|(b, s)| (self.popular[b as usize], s)).collect();
        self.back_off(query, k, &mut out);
        out
    }
}

/// The most named films, whatever the conversation.
#[derive(Debug, Clone, Copy)]
pub struct Popularity<'a>(&'a Cooccurrence);

impl Recommender for Popularity<'_> {
    fn rank(&self, query: Query<'_>, k: usize) -> Vec<Ranked> {
        let mut out = Vec::new();
        self.0.back_off(query, k, &mut out);
        out
    }
}
