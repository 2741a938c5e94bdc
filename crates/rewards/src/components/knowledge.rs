//! `knowledge`: share of the facts that the reply claims about films which the catalogue knows to be true, 0..1;
//! absent where it claims nothing that can be checked (ecr.md §3.3, relevance/consistency).
//!
//! A claim is a person of the catalogue with a word that says what they did ("directed by", "starring", "plays"), a
//! genre after "is", or a year after "in" or "from", in a sentence that is no question and has no negation. Its film is
//! the last one named before it in the sentence, else the first after it, else the last one of the reply, else
//! of the conversation. Films of which the catalogue has no such list are not checked; a person whom its list
//! lacks counts as invented, though the lists name leading actors only: saying less is safe. The year in a title's
//! brackets is no claim (a wrong one is an unknown title, which `recommendation` punishes), and a claim made twice
//! counts once, so that there is nothing to be gained by repeating what is true.

use std::sync::Arc;

use ecr_core::seam::{Purpose, Reply, Reward};
use ecr_core::{ItemId, Result};
use ecr_data::catalogue::{Catalogue, Movie};
use rustc_hash::{FxHashMap, FxHashSet};

/// What is claimed of a film.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Fact {
    /// It has this director.
    Director(String),
    /// This person acts in it (or made it).
    Person(String),
    /// It is of this genre.
    Genre(String),
    /// It is of this year.
    Year(u16),
}

/// A claim of a reply.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The film.
    pub film: ItemId,
    /// What is said of it.
    pub fact: Fact,
    /// Whether the catalogue says so too.
    pub holds: bool,
}

/// The `knowledge` component.
pub struct Knowledge {
    catalogue: Arc<Catalogue>,
    people: FxHashSet<String>,
    genres: FxHashMap<String, String>,
}

const DIRECTING: [&str; 3] = ["directed", "director", "directs"];
const ACTING: [&str; 12] = [
    "stars",
    "star",
    "starring",
    "starred",
    "plays",
    "played",
    "cast",
    "features",
    "featuring",
    "acts",
    "acted",
    "actor",
];
const NEGATION: [&str; 9] = ["not", "no", "never", "isnt", "wasnt", "doesnt", "didnt", "dont", "without"];
const COPULA: [&str; 4] = ["is", "its", "was", "are"];
const BEFORE_YEAR: [&str; 5] = ["in", "from", "of", "year", "since"];

/// A piece of a reply.
#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Word(String),
    Film(ItemId),
}

/// Lower-case words of a name, apostrophes dropped.
fn key(name: &str) -> String {
    let plain: String = name
        .chars()
        .filter(|c| !matches!(c, '\'' | '\u{2019}'))
        .flat_map(char::to_lowercase)
        .map(|c| if c.is_alphanumeric() { c } else { ' ' })
        .collect();
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Knowledge {
    /// The component over a catalogue.
    pub fn new(catalogue: Arc<Catalogue>) -> Self {
        let movies = catalogue.movies();
        let people = movies.iter().flat_map(|m| m.directors.iter().chain(&m.stars)).map(|n| key(n));
        // One name alone is too often a word.
        let people = people.filter(|n| n.contains(' ')).collect();
        let mut genres: FxHashMap<String, String> =
            movies.iter().flat_map(|m| &m.genres).map(|g| (key(g), g.clone())).collect();
        // "sci-fi" and "Sci-Fi" are read as one word.
        for (said, meant) in [("scifi", "sci-fi"), ("romantic", "romance"), ("animated", "animation")] {
            if let Some(g) = genres.get(&key(meant)).cloned() {
                genres.insert(said.into(), g);
            }
        }
        Self { catalogue, people, genres }
    }

    /// Sentences of the reply (without its questions) as words and films.
    fn sentences(&self, r: &Reply<'_>) -> Vec<Vec<Piece>> {
        let prefer: Vec<ItemId> =
            r.labels.iter().map(|l| l.item).chain(r.mentioned.iter().copied()).collect();
        let mut mentions = self.catalogue.mentions_preferring(r.text, &prefer).into_iter().peekable();
        let (mut out, mut now, mut word) = (Vec::new(), Vec::new(), String::new());
        let end_word = |word: &mut String, now: &mut Vec<Piece>| {
            if !word.is_empty() {
                now.push(Piece::Word(std::mem::take(word)));
            }
        };
        let mut skip_to = 0;
        for (at, c) in r.text.char_indices() {
            if at < skip_to {
                continue;
            }
            if let Some(m) = mentions.next_if(|m| m.start <= at) {
                end_word(&mut word, &mut now);
                now.push(Piece::Film(m.item));
                skip_to = m.end;
                if at < skip_to {
                    continue;
                }
            }
            match c {
                '\'' | '\u{2019}' => {}
                '-' if word == "sci" => {}
                c if c.is_alphanumeric() => word.extend(c.to_lowercase()),
                '.' if word.chars().count() == 1 => end_word(&mut word, &mut now),
                '.' | '!' | '\n' | ';' => {
                    end_word(&mut word, &mut now);
                    out.push(std::mem::take(&mut now));
                }
                '?' => {
                    word.clear();
                    // A question claims nothing, but its films may be what the next sentence is about.
                    now.retain(|p| matches!(p, Piece::Film(_)));
                    out.push(std::mem::take(&mut now));
                }
                _ => end_word(&mut word, &mut now),
            }
        }
        end_word(&mut word, &mut now);
        out.push(now);
        out
    }

    /// The claims of a reply that can be checked, each once.
    pub fn claims(&self, r: &Reply<'_>) -> Vec<Claim> {
        let mut last = r.mentioned.last().copied();
        let mut out: Vec<Claim> = Vec::new();
        for s in self.sentences(r) {
            let carried = last;
            if let Some(Piece::Film(f)) = s.iter().rfind(|p| matches!(p, Piece::Film(_))) {
                last = Some(*f);
            }
            let has =
                |list: &[&str]| s.iter().any(|p| matches!(p, Piece::Word(w) if list.contains(&w.as_str())));
            if has(&NEGATION) {
                continue;
            }
            let subject = |at: usize| {
                let film = |p: &Piece| if let Piece::Film(f) = p { Some(*f) } else { None };
                s[..at].iter().rev().find_map(film).or_else(|| s[at..].iter().find_map(film)).or(carried)
            };
            let mut say = |at: usize, fact: Fact| {
                let Some(film) = subject(at) else { return };
                let Some(holds) = self.catalogue.get(film).and_then(|m| self.holds(m, &fact)) else { return };
                let claim = Claim { film, fact, holds };
                if !out.contains(&claim) {
                    out.push(claim);
                }
            };
            for at in 0..s.len() {
                if let Some(name) = self.people_at(&s, at) {
                    if has(&DIRECTING) {
                        say(at, Fact::Director(name));
                    } else if has(&ACTING) {
                        say(at, Fact::Person(name));
                    }
                }
                let Piece::Word(w) = &s[at] else { continue };
                let before = |list: &[&str], n: usize| {
                    s[at.saturating_sub(n)..at]
                        .iter()
                        .any(|p| matches!(p, Piece::Word(w) if list.contains(&w.as_str())))
                };
                if let Some(g) = self.genres.get(w)
                    && before(&COPULA, 5)
                {
                    say(at, Fact::Genre(g.clone()));
                }
                if w.len() == 4
                    && let Ok(y) = w.parse::<u16>()
                    && (1900..2100).contains(&y)
                    && before(&BEFORE_YEAR, 1)
                {
                    say(at, Fact::Year(y));
                }
            }
        }
        out
    }

    /// The longest name of a person that begins at a piece.
    fn people_at(&self, s: &[Piece], at: usize) -> Option<String> {
        let mut name = String::new();
        let mut found = None;
        for p in s[at..].iter().take(5) {
            let Piece::Word(w) = p else { break };
            if !name.is_empty() {
                name.push(' ');
            }
            name.push_str(w);
            if self.people.contains(&name) {
                found = Some(name.clone());
            }
        }
        found
    }

    /// Whether a fact holds; `None` where the catalogue cannot say.
    fn holds(&self, m: &Movie, fact: &Fact) -> Option<bool> {
        let among = |list: &[String], name: &str| list.iter().any(|n| key(n) == name);
        match fact {
            Fact::Director(n) => (!m.directors.is_empty()).then(|| among(&m.directors, n)),
            Fact::Person(n) => (!m.stars.is_empty()).then(|| among(&m.stars, n) || among(&m.directors, n)),
            Fact::Genre(g) => (!m.genres.is_empty()).then(|| m.genres.contains(g)),
            Fact::Year(y) => m.year.map(|x| x == *y),
        }
    }
}

impl Reward for Knowledge {
    fn name(&self) -> &'static str {
        "knowledge"
    }
    fn range(&self) -> (f64, f64) {
        (0.0, 1.0)
    }
    fn version(&self) -> String {
        format!("knowledge 1: {} people, {} genres", self.people.len(), self.genres.len())
    }
    fn purpose(&self) -> Purpose {
        Purpose::Train
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let one = |r: &Reply<'_>| {
            let claims = self.claims(r);
            let held = claims.iter().filter(|c| c.holds).count();
            (!claims.is_empty()).then(|| held as f64 / claims.len() as f64)
        };
        Ok(batch.iter().map(one).collect())
    }
    fn explain(&mut self, reply: &Reply<'_>) -> Result<Vec<String>> {
        let name = |i: ItemId| self.catalogue.name(i).unwrap_or("?").to_owned();
        let say = |c: &Claim| {
            format!("{} of {}: {}", if c.holds { "true" } else { "false" }, name(c.film), fact(&c.fact))
        };
        Ok(self.claims(reply).iter().map(say).collect())
    }
}

fn fact(f: &Fact) -> String {
    match f {
        Fact::Director(n) => format!("directed by {n}"),
        Fact::Person(n) => format!("with {n}"),
        Fact::Genre(g) => format!("is {g}"),
        Fact::Year(y) => format!("of {y}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::reply;

    fn knowledge() -> Knowledge {
        let film = |id: u32, title: &str, year, genre: &str, director: &str, star: &str| Movie {
            movie_id: id,
            title: title.into(),
            year: Some(year),
            genres: vec![genre.into()],
            directors: vec![director.into()],
            stars: vec![star.into()],
            ..Movie::default()
        };
        Knowledge::new(Arc::new(Catalogue::new(vec![
            film(1, "The Blue Lantern", 1999, "comedy", "Ada Marsh", "Tom O'Hare"),
            film(2, "Copper Valley", 2001, "horror", "J. J. Reed", "Nell Frost"),
            Movie { movie_id: 3, title: "Marble Tide".into(), ..Movie::default() },
        ])))
    }

    #[test]
    fn claims_are_checked_against_their_film() {
        let mut k = knowledge();
        let mut score = |text| k.score(&[reply(text)]).unwrap()[0];
        assert_eq!(score("The Blue Lantern (1999) was directed by Ada Marsh."), Some(1.0));
        assert_eq!(score("The Blue Lantern (1999) was directed by Nell Frost."), Some(0.0));
        assert_eq!(score("Copper Valley (2001) stars Tom O'Hare. It is directed by J.J. Reed."), Some(0.5));
        assert_eq!(score("The Blue Lantern (1999) is a comedy from 1999."), Some(1.0));
        assert_eq!(score("The Blue Lantern (1999) is a horror film from 1998."), Some(0.0));
        assert_eq!(score("Have you seen Copper Valley (2001)? It is a very scary horror movie."), Some(1.0));
    }

    #[test]
    fn what_is_no_claim_or_cannot_be_checked_is_absent() {
        let mut k = knowledge();
        let mut score = |text| k.score(&[reply(text)]).unwrap()[0];
        for text in [
            "",
            "Have you seen The Blue Lantern (1999)?",
            "Is Copper Valley (2001) a comedy?",
            "Copper Valley (2001) is not a comedy.",
            "I like Nell Frost a lot.",
            "Marble Tide is a comedy starring Nell Frost.",
            "It is a comedy.",
        ] {
            assert_eq!(score(text), None, "{text}");
        }
    }

    #[test]
    fn the_film_of_the_conversation_is_meant_where_the_reply_names_none() {
        let mut k = knowledge();
        let r = Reply {
            mentioned: &[ItemId(1), ItemId(2)],
            ..reply("That one is a horror movie with Tom O'Hare, who plays a cook.")
        };
        assert_eq!(k.score(&[r]).unwrap(), [Some(0.5)]);
        let said = k.explain(&r).unwrap();
        assert_eq!(
            said,
            ["true of Copper Valley (2001): is horror", "false of Copper Valley (2001): with tom ohare"]
        );
    }

    #[test]
    fn repeating_what_is_true_earns_nothing() {
        let mut k = knowledge();
        let mut score = |text: &str| k.score(&[reply(text)]).unwrap()[0].unwrap();
        let mixed = "The Blue Lantern (1999) is a comedy. It stars Nell Frost.";
        let padded = format!("{mixed} {}", "It is a comedy. ".repeat(9));
        assert_eq!(score(mixed), score(&padded));
    }
}
