//! The comparison on parts of the prompts: by the emotion of the last seeker turn, and by whether the human reply
//! recommends.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::design::Design;
use super::estimate::{Estimate, correct, moments};
use super::{BREAKDOWN, Entry, metric};
use crate::evaluation::Units;
use crate::example::Example;

/// Fewer conversations than this are listed, not compared.
const LEAST: usize = 5;

/// A model in one group of prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// The model.
    pub model: String,
    /// Mean over its runs.
    pub value: f64,
    /// Against the reference; `None` for the reference itself.
    pub against_reference: Option<Estimate>,
}

/// A group of prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// `emotion` or `turn`.
    pub by: String,
    /// Which, e.g. `curious` or `recommending`.
    pub name: String,
    /// Prompts in it.
    pub prompts: usize,
    /// Conversations that they are from; with fewer than five nothing is compared.
    pub conversations: usize,
    /// Each metric of each model.
    pub metrics: BTreeMap<String, Vec<Part>>,
}

/// All groups, in those metrics of the breakdown that are wanted; p-values are corrected over the whole breakdown.
pub(super) fn groups(entries: &[Entry], design: &Design, wanted: &[&str]) -> Vec<Group> {
    let names: Vec<&str> = BREAKDOWN.into_iter().filter(|n| wanted.contains(n)).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let examples = &entries[0].runs[0].evaluation.run.examples;
    let mut out = Vec::new();
    let by_emotion = keys(examples, |e| e.seeker_emotion.clone());
    let by_turn = keys(examples, |e| {
        Some(if e.labels.is_empty() { "not recommending" } else { "recommending" }.into())
    });
    for (by, groups) in [("turn", by_turn), ("emotion", by_emotion)] {
        for (name, keep) in groups {
            out.push(group(entries, design, by, name, &keep, &names));
        }
    }
    correct(
        out.iter_mut()
            .flat_map(|g| g.metrics.values_mut())
            .flatten()
            .filter_map(|p| p.against_reference.as_mut()),
    );
    out
}

/// Which prompts have each key, `[prompts]` by key.
fn keys(examples: &[Example], key: impl Fn(&Example) -> Option<String>) -> BTreeMap<String, Vec<bool>> {
    let mut out: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for (i, e) in examples.iter().enumerate() {
        if let Some(k) = key(e) {
            out.entry(k).or_insert_with(|| vec![false; examples.len()])[i] = true;
        }
    }
    out
}

fn group(entries: &[Entry], design: &Design, by: &str, name: String, keep: &[bool], names: &[&str]) -> Group {
    let examples = &entries[0].runs[0].evaluation.run.examples;
    let mut ids: Vec<u64> =
        examples.iter().zip(keep).filter(|(_, k)| **k).map(|(e, _)| e.conversation).collect();
    let prompts = ids.len();
    ids.sort_unstable();
    ids.dedup();
    let mut g = Group { by: by.into(), name, prompts, conversations: ids.len(), metrics: BTreeMap::new() };
    if ids.len() < LEAST {
        return g;
    }
    for &name in names {
        let table = design
            .table(entries, Units::Replies, Some(ids.len()), |r| metric(&r.evaluation, name)?.1.within(keep));
        let part = |i: usize| {
            Some(Part {
                model: entries[i].name.clone(),
                value: moments(table.point[i].as_ref()?).0,
                against_reference: if i == 0 { None } else { design.difference(&table, 0, i) },
            })
        };
        let parts: Vec<Part> = (0..entries.len()).filter_map(part).collect();
        if !parts.is_empty() {
            g.metrics.insert(name.to_owned(), parts);
        }
    }
    g
}
