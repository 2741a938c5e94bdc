//! The panel of hacks: degenerate replies that a reward must rank below the human one (rl.md §7.5(7)).
//!
//! Fixed texts, and texts made from the case itself. A hack that a case has no material for is `None`.

use ecr_core::Stream;
use ecr_core::seam::{EMOTIONS, Reply};
use ecr_data::catalogue::Catalogue;

/// Names of the hacks, in the order of [`hacks`].
pub const HACKS: [&str; 12] = [
    "generic_sympathy",
    "keyword_stuffing",
    "gold_titles",
    "movie_slots",
    "copied_context",
    "empty",
    "repetition",
    "very_long",
    "all_items",
    "shuffled_reference",
    "wrong_emotion",
    "rejected_item",
];

/// The hack that only BLEU can see through: same words, another order.
pub const ONLY_WITH_BLEU: &str = "shuffled_reference";

/// Words of the longest hack.
const VERY_LONG: usize = 300;
/// Films of the list of everything.
const ALL_ITEMS: usize = 100;

/// A reply that could only come from a recommender in this state, in the order of [`EMOTIONS`].
const TONES: [&str; 9] = [
    "I love that so much, it is one of my favorites and I really enjoy it.",
    "Why is that? What do you mean? I wonder what it is all about?",
    "Ha ha, that is wonderful, I am so happy and excited today!",
    "Thank you so much, I really appreciate it, thanks again for everything.",
    "That is awful. I hate it, it is boring and I am so disappointed.",
    "I will be here until the evening, and the office is on the second floor.",
    "That takes me back, I remember those old days when I was a child.",
    "Yes, I agree with you, you are right, exactly what I think too.",
    "Wow, oh my, I did not expect that at all, what a surprise!",
];

/// What hacks are made from besides the case.
pub struct Material<'a> {
    /// Films, for the list of everything.
    pub catalogue: &'a Catalogue,
    /// Human replies of other conversations, for the very long one; cycled through.
    pub others: &'a [&'a str],
    /// Label (index into [`EMOTIONS`]) that fits the seeker's state least.
    pub unfitting: usize,
    /// Draws of the shuffle.
    pub stream: Stream,
}

/// The hacks on one case (`case.text` is not read), in the order of [`HACKS`].
pub fn hacks(case: &Reply<'_>, m: &Material<'_>) -> [Option<String>; 12] {
    let name = |i: ecr_core::ItemId| m.catalogue.name(i).map(str::to_owned);
    let gold: Vec<String> = case.labels.iter().filter_map(|l| name(l.item)).collect();
    let gold = (!gold.is_empty()).then(|| vec![gold.join(" "); 3].join(" "));
    let mut films: Vec<_> = m.catalogue.movies().iter().collect();
    films.sort_by_key(|f| (std::cmp::Reverse(f.train_mentions), f.movie_id));
    let all: Vec<String> = films.iter().take(ALL_ITEMS).map(|f| f.name()).collect();
    let mut long = Vec::new();
    let mut draws = m.stream.child("very long").rng();
    while long.len() < VERY_LONG && !m.others.is_empty() {
        long.extend(m.others[draws.below(m.others.len())].split_whitespace());
    }
    let shuffled = case.reference.and_then(|r| {
        let mut words: Vec<&str> = r.split_whitespace().collect();
        let before = words.clone();
        m.stream.child("shuffle").rng().shuffle(&mut words);
        (words.len() >= 4 && words != before).then(|| words.join(" "))
    });
    let copied = case.context.last().map(|u| u.text.clone()).filter(|t| !t.trim().is_empty());
    let rejected = case.rejected.first().and_then(|&i| name(i));
    [
        Some("I'm so sorry to hear that. That must be really hard. I am here for you.".into()),
        Some(EMOTIONS.map(|e| format!("{e} {e}")).join(" ")),
        gold,
        Some("<movie> ".repeat(150)),
        copied,
        Some(String::new()),
        Some("I like it a lot and so do you. ".repeat(20)),
        (long.len() >= VERY_LONG).then(|| long.join(" ")),
        Some(format!("You should watch {}", all.join(", "))),
        shuffled,
        Some(TONES[m.unfitting.min(8)].into()),
        rejected.map(|n| format!("You should watch {n}, I think you will like it.")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{films, reply, seeker};
    use ecr_core::ItemId;
    use ecr_core::seam::Label;

    #[test]
    fn every_hack_is_made_where_there_is_material_for_it() {
        let catalogue = films();
        let context = [seeker("I liked Copper Valley (2001)")];
        let labels = [Label { item: ItemId(1), liked: Some(true) }];
        let bare = reply("");
        let full = Reply {
            context: &context,
            reference: Some("You should watch The Blue Lantern (1999) tonight"),
            labels: &labels,
            rejected: &[ItemId(2)],
            ..bare
        };
        let others = ["one two three four five"];
        let m = Material { catalogue: &catalogue, others: &others, unfitting: 4, stream: Stream::new(1) };
        let h = hacks(&full, &m);
        assert!(h.iter().all(Option::is_some));
        let text = |name: &str| h[HACKS.iter().position(|n| *n == name).unwrap()].clone().unwrap();
        assert_eq!(catalogue.items(&text("gold_titles")), [ItemId(1)]);
        assert_eq!(catalogue.items(&text("rejected_item")), [ItemId(2)]);
        assert_eq!(text("copied_context"), context[0].text);
        assert_eq!(text("very_long").split_whitespace().count(), 300);
        assert_eq!(catalogue.items(&text("all_items")).len(), catalogue.len());
        let sorted = |t: &str| {
            let mut w: Vec<String> = t.split_whitespace().map(str::to_owned).collect();
            w.sort();
            w
        };
        assert_eq!(sorted(&text("shuffled_reference")), sorted(full.reference.unwrap()));
        assert_ne!(text("shuffled_reference"), full.reference.unwrap());
        let none = hacks(&bare, &m);
        let missing: Vec<&str> =
            HACKS.iter().zip(&none).filter(|(_, h)| h.is_none()).map(|(n, _)| *n).collect();
        assert_eq!(missing, ["gold_titles", "copied_context", "shuffled_reference", "rejected_item"]);
    }
}
