//! `recommendation`: are the films that the reply newly names good ones? −1..1 (ecr.md §3.3, rl.md §7.4).
//!
//! Each newly named film, the first three at most: a label of the turn scores 1 if liked, .25 if the seeker did
//! not say, −.5 if disliked; another film scores ½ / log2(rank + 1), its rank (from 1) in the recommender's list,
//! 0 beyond its end; a film the seeker turned down scores −1, worse than naming none. A film already mentioned is neither here nor there. C is
//! the mean, less .25 for each film over the cap and .5 for each title that no film bears (or unfilled slot),
//! clamped. The ½ keeps a plausible guess below a film that the seeker liked, and a label that the seeker said
//! nothing about never scores below its rank.
//!
//! Absent when the reference turn recommends nothing and the reply names nothing new; −.5 when the turn does and the
//! reply does not: as bad as a title that no film bears, or a policy learns to dodge the question (seen on the
//! demo with 0 in this place). Recommending where it is not due is another component's question.

use std::sync::Arc;

use ecr_core::seam::{Purpose, Query, Recommender, Reply, Reward};
use ecr_core::{ItemId, Result};
use ecr_data::catalogue::Catalogue;

/// Numbers of the component.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Score of a labelled film that the seeker liked.
    pub liked: f64,
    /// Score of a labelled film that the seeker said nothing about.
    pub not_said: f64,
    /// Score of a labelled film that the seeker disliked.
    pub disliked: f64,
    /// Score of a film that the seeker turned down before.
    pub rejected: f64,
    /// Score of the recommender's first film when it is no label.
    pub rank_scale: f64,
    /// Taken off for each title that no film bears.
    pub unknown: f64,
    /// Taken off where a recommendation is due and the reply names nothing.
    pub missed: f64,
    /// Films scored per reply.
    pub cap: usize,
    /// Taken off for each film over the cap.
    pub over_cap: f64,
    /// How far down the recommender's list a film is looked for.
    pub depth: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            liked: 1.0,
            not_said: 0.25,
            disliked: -0.5,
            rejected: -1.0,
            rank_scale: 0.5,
            unknown: 0.5,
            missed: 0.5,
            cap: 3,
            over_cap: 0.25,
            depth: 100,
        }
    }
}

/// The films and unknown titles that a reply names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// Films that the context has not named, canonical ids, each once, in order of mention.
    pub new: Vec<ItemId>,
    /// Titles that no film bears, and unfilled slots.
    pub unknown: usize,
}

/// What `reply` names. A title that may mean several films means one of the labels or of the context first.
pub fn named(catalogue: &Catalogue, reply: &Reply<'_>) -> Named {
    let labels = reply.labels.iter().map(|l| l.item);
    let prefer: Vec<ItemId> = labels.chain(reply.mentioned.iter().copied()).collect();
    let known: Vec<ItemId> = reply.mentioned.iter().map(|&i| catalogue.canonical(i)).collect();
    let rejected: Vec<ItemId> = reply.rejected.iter().map(|&i| catalogue.canonical(i)).collect();
    let mut new: Vec<ItemId> = Vec::new();
    for m in catalogue.mentions_preferring(reply.text, &prefer) {
        let item = catalogue.canonical(m.item);
        if !new.contains(&item) && (!known.contains(&item) || rejected.contains(&item)) {
            new.push(item);
        }
    }
    let unknown = catalogue.unknown_titles(reply.text).len() + reply.text.matches("<movie>").count();
    Named { new, unknown }
}

/// The `recommendation` component.
pub struct Recommendation {
    catalogue: Arc<Catalogue>,
    recommender: Arc<dyn Recommender>,
    recommender_version: String,
    settings: Settings,
    label_hits: bool,
}

impl Recommendation {
    /// The component over a catalogue and a recommender (`version` names the recommender and its data).
    pub fn new(
        catalogue: Arc<Catalogue>,
        recommender: Arc<dyn Recommender>,
        version: impl Into<String>,
        settings: Settings,
    ) -> Self {
        Self { catalogue, recommender, recommender_version: version.into(), settings, label_hits: true }
    }
    /// The component with labelled films scored like any other, by rank: what is left of it when the human
    /// reply has no hit for nothing. Whether a recommendation is due still comes from the labels.
    pub fn without_label_hits(mut self) -> Self {
        self.label_hits = false;
        self
    }
    /// Which rule applies to each newly named film that counts, and all that is named.
    fn judge(&self, r: &Reply<'_>) -> (Vec<(ItemId, Rule)>, Named) {
        let s = &self.settings;
        let n = named(&self.catalogue, r);
        let rejected: Vec<ItemId> = r.rejected.iter().map(|&i| self.catalogue.canonical(i)).collect();
        let mut ranked: Option<Vec<ItemId>> = None;
        let counted = n.new.len().min(s.cap);
        let mut rules = Vec::with_capacity(counted);
        for &item in &n.new[..counted] {
            let label = r.labels.iter().find(|l| self.catalogue.canonical(l.item) == item);
            let label = label.filter(|_| self.label_hits);
            let mut rank = || {
                let list = ranked.get_or_insert_with(|| {
                    let q = Query { context: r.context, mentioned: r.mentioned, rejected: r.rejected };
                    let list = self.recommender.rank(q, s.depth);
                    list.into_iter().map(|(i, _)| self.catalogue.canonical(i)).collect()
                });
                list.iter().position(|&i| i == item)
            };
            rules.push((
                item,
                match label.map(|l| l.liked) {
                    Some(Some(true)) => Rule::Liked,
                    Some(Some(false)) => Rule::Disliked,
                    _ if rejected.contains(&item) => Rule::Rejected,
                    Some(None) => Rule::NotSaid(rank()),
                    None => Rule::Ranked(rank()),
                },
            ));
        }
        (rules, n)
    }
    fn value(&self, rule: &Rule) -> f64 {
        let s = &self.settings;
        let by_rank = |rank: &Option<usize>| rank.map_or(0.0, |k| s.rank_scale / ((k + 2) as f64).log2());
        match rule {
            Rule::Liked => s.liked,
            Rule::Disliked => s.disliked,
            Rule::Rejected => s.rejected,
            Rule::NotSaid(rank) => s.not_said.max(by_rank(rank)),
            Rule::Ranked(rank) => by_rank(rank),
        }
    }
    fn one(&self, r: &Reply<'_>) -> Option<f64> {
        let s = &self.settings;
        let (rules, n) = self.judge(r);
        if n.new.is_empty() && n.unknown == 0 {
            return (!r.labels.is_empty()).then_some(-s.missed);
        }
        let sum: f64 = rules.iter().map(|(_, rule)| self.value(rule)).sum();
        let mean = if rules.is_empty() { 0.0 } else { sum / rules.len() as f64 };
        let extra = (n.new.len() - rules.len()) as f64 * s.over_cap + n.unknown as f64 * s.unknown;
        Some((mean - extra).clamp(-1.0, 1.0))
    }
}

/// Why a film scores what it scores; ranks from 0, `None` beyond the list's end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    Liked,
    Disliked,
    Rejected,
    NotSaid(Option<usize>),
    Ranked(Option<usize>),
}

impl Reward for Recommendation {
    fn name(&self) -> &'static str {
        "recommendation"
    }
    fn range(&self) -> (f64, f64) {
        (-1.0, 1.0)
    }
    fn version(&self) -> String {
        let hits = if self.label_hits { "" } else { ", no label hits" };
        format!("recommendation 2: {}; {:?}{hits}", self.recommender_version, self.settings)
    }
    fn purpose(&self) -> Purpose {
        Purpose::Train
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        Ok(batch.iter().map(|r| self.one(r)).collect())
    }
    fn explain(&mut self, reply: &Reply<'_>) -> Result<Vec<String>> {
        let (rules, n) = self.judge(reply);
        let mut notes = Vec::new();
        for (item, rule) in &rules {
            let place = |rank: &Option<usize>| {
                rank.map_or("not in the recommender's list".to_owned(), |k| format!("rank {}", k + 1))
            };
            let why = match rule {
                Rule::Liked => "a film of the human reply, which the seeker liked".into(),
                Rule::Disliked => "a film of the human reply, which the seeker disliked".into(),
                Rule::Rejected => "turned down before".into(),
                Rule::NotSaid(rank) => format!("a film of the human reply, no opinion; {}", place(rank)),
                Rule::Ranked(rank) => place(rank),
            };
            let name = self.catalogue.name(*item).unwrap_or("?");
            notes.push(format!("{name}: {:+.3}, {why}", self.value(rule)));
        }
        let over = n.new.len() - rules.len();
        if over > 0 {
            notes.push(format!(
                "{over} films more than {}: {:+.3} each",
                self.settings.cap, -self.settings.over_cap
            ));
        }
        if n.unknown > 0 {
            notes.push(format!(
                "{} titles that no film bears: {:+.3} each",
                n.unknown, -self.settings.unknown
            ));
        }
        if n.new.is_empty() && n.unknown == 0 {
            notes.push(if reply.labels.is_empty() {
                "nothing recommended and none due: absent".into()
            } else {
                "a recommendation is due and none made".to_owned()
            });
        }
        Ok(notes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fixed, films, reply};
    use ecr_core::seam::Label;

    fn component() -> Recommendation {
        let order = [5, 6, 7, 8].map(ItemId).to_vec();
        Recommendation::new(Arc::new(films()), Arc::new(Fixed(order)), "fixed", Settings::default())
    }

    fn score(r: Reply<'_>) -> Option<f64> {
        component().score(&[r]).unwrap()[0]
    }

    #[test]
    fn labels_then_ranks_then_penalties() {
        let label = |id, liked| [Label { item: ItemId(id), liked }];
        fn with(labels: &[Label], text: &str) -> Option<f64> {
            score(Reply { labels, ..reply(text) })
        }
        assert_eq!(with(&label(1, Some(true)), "Try The Blue Lantern (1999)!"), Some(1.0));
        assert_eq!(with(&label(1, None), "Try The Blue Lantern (1999)!"), Some(0.25));
        assert_eq!(with(&label(1, Some(false)), "Try The Blue Lantern (1999)!"), Some(-0.5));
        // a recommending turn, a reply that names nothing: 0; neither: absent
        assert_eq!(with(&label(1, Some(true)), "What do you like?"), Some(-0.5));
        assert_eq!(with(&[], "What do you like?"), None);
        assert_eq!(with(&[], "Try Nowhere Street Unknown (1931)."), Some(-0.5));
        assert_eq!(with(&label(1, None), "Try <movie> !"), Some(-0.5));
    }

    #[test]
    fn a_better_rank_never_scores_lower() {
        let names =
            ["Paper Harbour (2005)", "Silver Orchard (2006)", "Winter Engine (2007)", "Glass Meadow (2008)"];
        let s: Vec<f64> =
            names.iter().map(|n| score(reply(&format!("You could watch {n}."))).unwrap()).collect();
        assert!((s[0] - 0.5).abs() < 1e-12 && s.windows(2).all(|w| w[0] > w[1]) && s[3] > 0.0, "{s:?}");
        let label = [Label { item: ItemId(1), liked: Some(true) }];
        let hit = score(Reply { labels: &label, ..reply("The Blue Lantern (1999)") }).unwrap();
        assert!(hit > s[0]);
        let blind = component()
            .without_label_hits()
            .score(&[Reply { labels: &label, ..reply("The Blue Lantern (1999)") }]);
        assert_eq!(blind.unwrap(), [Some(0.0)]);
    }

    #[test]
    fn mentioned_films_do_not_count_and_rejected_ones_cost() {
        let mentioned = [ItemId(1), ItemId(5)];
        let r = Reply { mentioned: &mentioned, ..reply("Yes, The Blue Lantern (1999) is good.") };
        assert_eq!(score(r), None);
        assert_eq!(score(Reply { rejected: &[ItemId(1)], ..r }), Some(-1.0));
    }

    #[test]
    fn a_list_of_everything_is_worth_nothing() {
        let all: Vec<String> = films().movies().iter().map(|m| m.name()).collect();
        let text = all.join(", ");
        let label = [Label { item: ItemId(1), liked: Some(true) }];
        let list = score(Reply { labels: &label, ..reply(&text) }).unwrap();
        assert!(list < 0.0, "{list}");
        assert_eq!(score(reply(&"<movie> ".repeat(150))), Some(-1.0));
    }
}
