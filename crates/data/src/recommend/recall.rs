//! Recall@k of a recommender.
//!
//! Protocol ("new per message"): messages are taken one by one, unmerged. Every film that a recommender message
//! names and that no earlier message named is one target; the same film twice in one message is two targets.
//! The query is the films of all earlier messages, each once, in order of first mention; films of the query
//! are never recommended. Recall@k = share of targets among the first k. On the 895 dialogues of ReDial test
//! here: 2,997 targets.

use ecr_core::seam::{Query, Recommender};
use ecr_core::{ItemId, Role};

use crate::redial::Dialogue;

/// One film to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Films named before, each once.
    pub mentioned: Vec<ItemId>,
    /// The film that the recommender names.
    pub item: ItemId,
}

/// The targets of dialogues, by the protocol above.
pub fn targets<'a>(dialogues: impl IntoIterator<Item = &'a Dialogue>) -> Vec<Target> {
    let mut out = Vec::new();
    for d in dialogues {
        let mut mentioned: Vec<ItemId> = Vec::new();
        for turn in &d.turns {
            for message in &turn.messages {
                let named = turn.mentions.iter().filter(|m| (message.start..message.end).contains(&m.start));
                let fresh: Vec<ItemId> = named.map(|m| m.item).filter(|i| !mentioned.contains(i)).collect();
                if turn.role == Role::Recommender {
                    out.extend(fresh.iter().map(|&item| Target { mentioned: mentioned.clone(), item }));
                }
                for i in fresh {
                    if !mentioned.contains(&i) {
                        mentioned.push(i);
                    }
                }
            }
        }
    }
    out
}

/// Recall at several depths.
#[derive(Debug, Clone, PartialEq)]
pub struct Recall {
    /// (k, Recall@k).
    pub at: Vec<(usize, f64)>,
    /// Number of targets.
    pub targets: usize,
}

impl Recall {
    /// Recall@k, if it was measured.
    pub fn get(&self, k: usize) -> Option<f64> {
        self.at.iter().find(|(x, _)| *x == k).map(|(_, r)| *r)
    }
}

/// Measures Recall@k for each of `ks`. The recommender sees the films named, not the words.
pub fn recall(recommender: &dyn Recommender, targets: &[Target], ks: &[usize]) -> Recall {
    let depth = ks.iter().copied().max().unwrap_or(0);
    let mut hits = vec![0usize; ks.len()];
    let mut last: Option<(&[ItemId], Vec<ItemId>)> = None;
    for t in targets {
        if last.as_ref().is_none_or(|(m, _)| *m != t.mentioned.as_slice()) {
            let query = Query { context: &[], mentioned: &t.mentioned, rejected: &[] };
            let ranked = recommender.rank(query, depth).into_iter().map(|r| r.0).collect();
            last = Some((&t.mentioned, ranked));
        }
        let place = last.as_ref().and_then(|(_, r)| r.iter().position(|&i| i == t.item));
        for (h, &k) in hits.iter_mut().zip(ks) {
            *h += usize::from(place.is_some_and(|p| p < k));
        }
    }
    let n = targets.len();
    let at =
        ks.iter().zip(&hits).map(|(&k, &h)| (k, if n == 0 { 0.0 } else { h as f64 / n as f64 })).collect();
    Recall { at, targets: n }
}
