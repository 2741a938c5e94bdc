//! Raw dialogue to turns.

use std::collections::{BTreeMap, BTreeSet};

use ecr_core::{ItemId, Role};

use super::raw::{RawDialogue, RawForm, references};
use super::{Dialogue, Like, Mentioned, Message, Split, Turn};
use crate::records::SLOT;
use crate::text;

/// 0 no, 1 yes, 2 did not say.
fn answer(x: Option<u64>) -> Option<bool> {
    match x {
        Some(0) => Some(false),
        Some(1) => Some(true),
        _ => None,
    }
}

fn likes(raw: &RawDialogue) -> BTreeMap<ItemId, Like> {
    let items: BTreeSet<ItemId> =
        raw.seeker_form.map.keys().chain(raw.recommender_form.map.keys()).copied().collect();
    let read = |item: ItemId| {
        let s = raw.seeker_form.map.get(&item).copied().unwrap_or_default();
        let r = raw.recommender_form.map.get(&item).copied().unwrap_or_default();
        let either = |get: fn(&RawForm) -> Option<u64>| answer(get(&s)).or_else(|| answer(get(&r)));
        Like {
            liked_by_seeker: answer(s.liked),
            liked_by_recommender: answer(r.liked),
            seen: either(|f| f.seen),
            suggested: either(|f| f.suggested),
        }
    };
    items.into_iter().map(|i| (i, read(i))).collect()
}

/// Appends cleaned text with the one space that belongs before it.
fn append(out: &mut String, piece: &str, space: bool) {
    if space && !out.is_empty() && !out.ends_with(' ') {
        out.push(' ');
    }
    out.push_str(piece);
}

/// Whether a space is needed between a title and the text beside it.
fn glued(c: Option<char>) -> bool {
    c.is_some_and(char::is_alphanumeric)
}

/// Fills the titles of one message: (text, text with slots, films with their places in the text).
fn fill(raw: &str, titles: &BTreeMap<ItemId, String>, known: &dyn Fn(ItemId) -> bool) -> Filled {
    let raw = text::clean(raw);
    let mut f = Filled::default();
    let mut from = 0;
    for (range, item) in references(&raw) {
        let Some(item) = item.filter(|&i| known(i)) else { continue };
        let before = &raw[from..range.start];
        f.text.push_str(before);
        f.slots.push_str(before);
        let space = glued(f.text.chars().last());
        let (name, slot) = match titles.get(&item) {
            Some(name) => (name.as_str(), SLOT),
            None => (&raw[range.clone()], SLOT), // a null title: the id stays, the film is still known
        };
        append(&mut f.text, name, space);
        append(&mut f.slots, slot, space);
        let end = f.text.len();
        f.items.push((item, end - name.len(), end));
        from = range.end;
        if glued(raw[from..].chars().next()) {
            f.text.push(' ');
            f.slots.push(' ');
        }
    }
    f.text.push_str(&raw[from..]);
    f.slots.push_str(&raw[from..]);
    f
}

#[derive(Default)]
struct Filled {
    text: String,
    slots: String,
    items: Vec<(ItemId, usize, usize)>,
}

pub(super) fn dialogue(raw: &RawDialogue, split: Split) -> Result<Dialogue, String> {
    if raw.seeker == raw.recommender {
        return Err(format!("seeker and recommender are the same worker {}", raw.seeker));
    }
    let titles: BTreeMap<ItemId, String> = raw
        .titles
        .map
        .iter()
        .filter_map(|(&i, t)| Some((i, super::super::catalogue::Movie::from_name(i, t.as_deref()?).name())))
        .filter(|(_, t)| !t.is_empty())
        .collect();
    let mut seen: BTreeSet<ItemId> = BTreeSet::new();
    let mut turns: Vec<Turn> = Vec::new();
    for m in &raw.messages {
        let role = match m.sender {
            s if s == raw.seeker => Role::Seeker,
            s if s == raw.recommender => Role::Recommender,
            s => return Err(format!("message {} is by worker {s}, who is neither speaker", m.id)),
        };
        let filled = fill(&m.text, &titles, &|i| raw.titles.map.contains_key(&i));
        if filled.text.is_empty() {
            continue;
        }
        if turns.last().is_none_or(|t| t.role != role) {
            turns.push(Turn {
                role,
                text: String::new(),
                slots: String::new(),
                mentions: Vec::new(),
                messages: Vec::new(),
            });
        }
        let Some(turn) = turns.last_mut() else { continue };
        append(&mut turn.text, "", true);
        let start = turn.text.len();
        turn.text.push_str(&filled.text);
        append(&mut turn.slots, &filled.slots, true);
        turn.messages.push(Message { id: m.id, time: m.time, start, end: turn.text.len() });
        for (item, s, e) in filled.items {
            turn.mentions.push(Mentioned {
                item,
                first_time: seen.insert(item),
                start: start + s,
                end: start + e,
            });
        }
    }
    if turns.is_empty() {
        return Err("no message with text".into());
    }
    Ok(Dialogue { id: raw.id, split, turns, titles, likes: likes(raw) })
}
