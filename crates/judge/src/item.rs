//! What is rated, and the facts about it that need no opinion.

use ecr_core::{Role, Utterance};
use ecr_data::catalogue::Catalogue;
use ecr_data::records::SLOT;
use serde::{Deserialize, Serialize};

/// One reply in its conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Names the record; unique in its file.
    pub id: String,
    /// Conversation that it belongs to, e.g. `redial:391`.
    pub conversation: String,
    /// Turns before the reply, oldest first.
    pub context: Vec<Utterance>,
    /// The reply, titles filled in.
    pub response: String,
}

/// What `mentions()` says about an item.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Films that the recommender was the first to name, in order, as `Title (Year)`.
    pub earlier: Vec<String>,
    /// Films that the reply names, in order.
    pub named: Vec<String>,
    /// Whether the reply recommends at all: it names a film of the catalogue, by title, slot or `@id`.
    pub recommends: bool,
}

impl Facts {
    /// The facts about an item.
    pub fn of(item: &Item, catalogue: &Catalogue) -> Self {
        let mut seen = Vec::new();
        let mut earlier = Vec::new();
        for turn in &item.context {
            for film in catalogue.items(&turn.text) {
                if !seen.contains(&film) {
                    seen.push(film);
                    if turn.role == Role::Recommender {
                        earlier.extend(catalogue.name(film).map(String::from));
                    }
                }
            }
        }
        let films = catalogue.items(&item.response);
        let named: Vec<String> = films.iter().filter_map(|&f| catalogue.name(f).map(String::from)).collect();
        let recommends =
            !films.is_empty() || item.response.contains(SLOT) || names_id(&item.response, catalogue);
        Self { earlier, named, recommends }
    }
}

/// Whether `text` holds `@` and the id of a film of the catalogue, as raw ReDial writes them.
fn names_id(text: &str, catalogue: &Catalogue) -> bool {
    text.split('@').skip(1).any(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().is_ok_and(|id| catalogue.get(ecr_core::ItemId(id)).is_some())
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use ecr_core::ItemId;
    use ecr_data::catalogue::Movie;

    use super::*;

    pub(crate) fn catalogue() -> Catalogue {
        let films = [(1, "Alien (1979)"), (2, "It (2017)"), (3, "Paddington 2 (2017)")];
        Catalogue::new(films.iter().map(|&(id, n)| Movie::from_name(ItemId(id), n)).collect())
    }

    fn item(turns: &[(Role, &str)], response: &str) -> Item {
        let context = turns.iter().map(|&(role, t)| Utterance { role, text: t.into() }).collect();
        Item { id: "1".into(), conversation: "1".into(), context, response: response.into() }
    }

    #[test]
    fn who_named_a_film_first_decides() {
        let turns = [
            (Role::Seeker, "I liked Alien (1979)."),
            (Role::Recommender, "Alien (1979) is great. Try Paddington 2 (2017)."),
        ];
        let f = Facts::of(&item(&turns, "How about It (2017)?"), &catalogue());
        assert_eq!(f.earlier, ["Paddington 2 (2017)"]);
        assert_eq!(f.named, ["It (2017)"]);
        assert!(f.recommends);
    }

    #[test]
    fn ordinary_words_and_unknown_titles_are_no_recommendation() {
        let of = |text: &str| Facts::of(&item(&[], text), &catalogue()).recommends;
        for text in
            ["It is late.", "Watch Nothing At All (1999).", "", "mail me @ 1", "@99 is good", "up @2x?"]
        {
            assert_eq!(of(text), text.contains("@2"), "{text}");
        }
        for text in ["See <movie> .", "See @3 !", "Have you seen paddington 2?"] {
            assert!(of(text), "{text}");
        }
    }
}
