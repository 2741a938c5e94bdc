//! Which films does a text name? The one answer for importer, rewards, evaluation and server.
//!
//! Text and titles are cut into tokens (runs of letters and digits, lower case, accents folded, apostrophes
//! dropped, `&` read as "and"), so case, punctuation, double spaces and HTML quotes do not matter. Titles live
//! in a hash trie over token ids; at each position the longest title wins and mentions never overlap.
//! A title followed by `(Year)` names the film of that year, or an entry without a year (`exact` is whether
//! title and year agree); a year that no such film has is not a mention but an unknown title. A bare title is
//! accepted unless it reads as ordinary words ("It", "Up", "Get Out"): those need a year, quotes, or, for two
//! or three words, capitals. Of several films of one title the most mentioned is meant, then the lowest id.

mod common;
mod tokens;

use std::ops::Range;

use ecr_core::ItemId;
use rustc_hash::FxHashMap;

use crate::catalogue::Movie;
use tokens::{Token, tokenize};

/// A film named in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mention {
    /// The film.
    pub item: ItemId,
    /// First byte.
    pub start: usize,
    /// One past the last byte (the closing bracket of a year included).
    pub end: usize,
    /// Whether title and year were both given and both agree.
    pub exact: bool,
}

/// One film behind a title.
#[derive(Debug, Clone, Copy)]
struct Entry {
    year: Option<u16>,
    item: ItemId,
}

/// All films of one title, the most mentioned first.
#[derive(Debug, Default)]
struct Title {
    entries: Vec<Entry>,
    /// Reads as ordinary words.
    ordinary: bool,
    words: usize,
}

/// Token trie of a catalogue's titles.
pub(crate) struct Finder {
    vocab: FxHashMap<String, u32>,
    next: FxHashMap<(u32, u32), u32>,
    titles: FxHashMap<u32, Title>,
}

/// Whether a mention carries its year.
fn dated(text: &str, m: &Mention) -> bool {
    text[m.start..m.end].ends_with(')')
}

impl Finder {
    pub(crate) fn new(movies: &[Movie]) -> Self {
        let mut f =
            Self { vocab: FxHashMap::default(), next: FxHashMap::default(), titles: FxHashMap::default() };
        let mut order: Vec<&Movie> = movies.iter().collect();
        order.sort_by_key(|m| (std::cmp::Reverse(m.train_mentions), m.movie_id));
        let mut nodes = 1;
        for m in order {
            let toks = tokenize(&m.title);
            if toks.is_empty() {
                continue;
            }
            let mut node = 0;
            for t in &toks {
                let n = f.vocab.len() as u32;
                let v = *f.vocab.entry(t.text.clone()).or_insert(n);
                node = *f.next.entry((node, v)).or_insert_with(|| {
                    nodes += 1;
                    nodes - 1
                });
            }
            let title = f.titles.entry(node).or_default();
            title.ordinary = common::ordinary(toks.iter().map(|t| t.text.as_str()));
            title.words = toks.len();
            title.entries.push(Entry { year: m.year, item: m.item() });
        }
        f
    }

    fn node(&self, toks: &[Token]) -> Option<u32> {
        toks.iter().try_fold(0, |node, t| self.next.get(&(node, *self.vocab.get(&t.text)?)).copied())
    }

    pub(crate) fn canonical(&self, title: &str, year: Option<u16>, item: ItemId) -> ItemId {
        self.node(&tokenize(title))
            .and_then(|n| self.titles.get(&n))
            .and_then(|t| t.entries.iter().find(|e| e.year == year))
            .map_or(item, |e| e.item)
    }

    /// The longest title at token `i` that the rules accept: the mention and the index past its last token.
    fn at(&self, text: &str, toks: &[Token], i: usize, prefer: &[ItemId]) -> Option<(Mention, usize)> {
        let mut best = None;
        let mut node = 0;
        for (j, t) in toks.iter().enumerate().skip(i) {
            let Some(n) = self.vocab.get(&t.text).and_then(|v| self.next.get(&(node, *v))) else { break };
            node = *n;
            let Some(title) = self.titles.get(&node) else { continue };
            if let Some(found) = self.accept(text, toks, i, j, title, prefer) {
                best = Some(found);
            }
        }
        best
    }

    fn accept(
        &self,
        text: &str,
        toks: &[Token],
        i: usize,
        j: usize,
        title: &Title,
        prefer: &[ItemId],
    ) -> Option<(Mention, usize)> {
        let start = toks[i].start;
        let pick = |ok: &dyn Fn(&Entry) -> bool| {
            let fits = || title.entries.iter().filter(|e| ok(e));
            fits().find(|e| prefer.contains(&e.item)).or_else(|| fits().next()).copied()
        };
        if let Some((year, end)) = tokens::year_after(text, toks, j) {
            let e = pick(&|e| e.year == Some(year))
                .filter(|e| prefer.contains(&e.item))
                .or_else(|| pick(&|e| e.year.is_none()).filter(|e| prefer.contains(&e.item)))
                .or_else(|| pick(&|e| e.year == Some(year)))
                .or_else(|| pick(&|e| e.year.is_none()))?;
            return Some((Mention { item: e.item, start, end, exact: e.year == Some(year) }, j + 2));
        }
        let end = toks[j].end;
        let quoted = tokens::quoted(text, start, end);
        let capitals = || toks[i..=j].iter().all(|t| t.capital || common::small(&t.text));
        if title.ordinary && !quoted && (title.words < 2 || (title.words < 4 && !capitals())) {
            return None;
        }
        let e = pick(&|e| prefer.contains(&e.item)).or_else(|| pick(&|_| true))?;
        Some((Mention { item: e.item, start, end, exact: false }, j + 1))
    }

    /// `Capital Words (1999)`: byte range of each, title's first byte to closing bracket.
    fn dated_spans(text: &str, toks: &[Token]) -> Vec<Range<usize>> {
        let mut out: Vec<Range<usize>> = Vec::new();
        for j in 0..toks.len() {
            let Some((_, end)) = tokens::year_after(text, toks, j) else { continue };
            let floor = out.last().map_or(0, |r| r.end);
            let mut first = None;
            for i in (0..=j).rev() {
                let t = &toks[i];
                if t.start < floor || (i < j && tokens::sentence_break(&text[t.end..toks[i + 1].start])) {
                    break;
                }
                if t.capital || t.text.starts_with(|c: char| c.is_ascii_digit()) {
                    first = Some(i);
                } else if !common::small(&t.text) {
                    break;
                }
            }
            if let Some(i) = first {
                out.push(toks[i].start..end);
            }
        }
        out
    }

    fn scan(&self, text: &str, prefer: &[ItemId]) -> (Vec<Mention>, Vec<Range<usize>>) {
        let toks = tokenize(text);
        let mut found = Vec::new();
        let mut i = 0;
        while i < toks.len() {
            let Some((m, next)) = self.at(text, &toks, i, prefer) else {
                i += 1;
                continue;
            };
            // "the Star Wars": a longer title that begins inside a bare one is meant ("Star Wars", not "The Star").
            // "the Hangover (2010)": so is one that has the year, where this one has none.
            let better = |k: &usize| {
                self.at(text, &toks, *k, prefer).is_some_and(|(l, _)| {
                    if dated(text, &m) {
                        !m.exact && l.exact && l.end == m.end
                    } else {
                        l.end - l.start > m.end - m.start
                    }
                })
            };
            if let Some(k) = (i + 1..next).find(better) {
                i = k;
            } else {
                found.push(m);
                i = next;
            }
        }
        // A dated span that no mention closes is a title of its own; bare titles inside it are its words.
        let unknown: Vec<_> = Self::dated_spans(text, &toks)
            .into_iter()
            .filter(|r| !found.iter().any(|m| m.end == r.end))
            .collect();
        found.retain(|m| !unknown.iter().any(|r| r.start < m.end && m.start < r.end));
        (found, unknown)
    }

    pub(crate) fn mentions(&self, text: &str) -> Vec<Mention> {
        self.scan(text, &[]).0
    }

    pub(crate) fn mentions_preferring(&self, text: &str, prefer: &[ItemId]) -> Vec<Mention> {
        self.scan(text, prefer).0
    }

    pub(crate) fn unknown_titles(&self, text: &str) -> Vec<Range<usize>> {
        self.scan(text, &[]).1
    }
}

#[cfg(test)]
mod tests {
    use ecr_core::ItemId;

    use crate::catalogue::{Catalogue, Movie};

    fn catalogue() -> Catalogue {
        let films = [
            (1, "Alien (1979)", 9),
            (2, "Aliens (1986)", 5),
            (3, "Alien: Resurrection (1997)", 0),
            (4, "It (2017)", 3),
            (5, "It (1990)", 4),
            (6, "A Star Is Born (1976)", 2),
            (7, "A Star Is Born (2018)", 8),
            (8, "Star Wars", 20),
            (9, "The Star (2017)", 0),
            (10, "Ocean\u{2019}s Eleven  (2001)", 1),
            (11, "Am\u{e9}lie (2001)", 1),
            (12, "Fast & Furious (2009)", 1),
            (13, "Get Out (2017)", 1),
            (14, "The Matrix (1999)", 7),
            (15, "Up (2009)", 1),
            (16, "2012 (2009)", 1),
            (17, "Inception (2010)", 1),
            (18, "The Matrix (1999)", 1),
            (19, "The Hangover", 1),
            (20, "Hangover (2010)", 0),
        ];
        let movies = films
            .iter()
            .map(|&(id, name, n)| Movie { train_mentions: n, ..Movie::from_name(ItemId(id), name) })
            .collect();
        Catalogue::new(movies)
    }

    /// (text of the mention, id, exact)
    fn found(text: &str) -> Vec<(&str, u32, bool)> {
        catalogue().mentions(text).iter().map(|m| (&text[m.start..m.end], m.item.0, m.exact)).collect()
    }

    fn unknown(text: &str) -> Vec<&str> {
        catalogue().unknown_titles(text).into_iter().map(|r| &text[r]).collect()
    }

    #[test]
    fn years_decide_between_films_of_one_title() {
        assert_eq!(found("See A Star Is Born (2018)!"), [("A Star Is Born (2018)", 7, true)]);
        assert_eq!(found("see a star is born  ( 1976 )"), [("a star is born  ( 1976 )", 6, true)]);
        let both = found("It (1990), not It (2017)");
        assert_eq!(both, [("It (1990)", 5, true), ("It (2017)", 4, true)]);
    }

    #[test]
    fn the_longest_title_wins_and_words_are_whole() {
        let both = found("Aliens (1986) and Alien (1979)");
        assert_eq!(both, [("Aliens (1986)", 2, true), ("Alien (1979)", 1, true)]);
        assert_eq!(found("Alien: Resurrection (1997)"), [("Alien: Resurrection (1997)", 3, true)]);
        assert_eq!(found("alien resurrection was odd"), [("alien resurrection", 3, false)]);
        assert!(found("inceptions").is_empty());
        assert_eq!(found("I saw the Star Wars films"), [("Star Wars", 8, false)]);
    }

    #[test]
    fn ordinary_words_need_a_year_or_quotes() {
        assert!(found("I love it, her and what was up in 2012").is_empty());
        assert_eq!(found("I love \"It\" and &quot;Up&quot;"), [("It", 5, false), ("Up", 15, false)]);
        assert!(found("please get out of here").is_empty());
        assert_eq!(found("I liked Get Out"), [("Get Out", 13, false)]);
        let both = found("i liked the matrix and INCEPTION.");
        assert_eq!(both, [("the matrix", 14, false), ("INCEPTION", 17, false)]);
    }

    #[test]
    fn spelling_does_not_matter() {
        assert_eq!(found("Oceans Eleven (2001)"), [("Oceans Eleven (2001)", 10, true)]);
        assert_eq!(found("ocean's   eleven  (2001)"), [("ocean's   eleven  (2001)", 10, true)]);
        assert_eq!(found("amelie"), [("amelie", 11, false)]);
        assert_eq!(found("Fast and Furious (2009)"), [("Fast and Furious (2009)", 12, true)]);
        assert_eq!(found("Fast &amp; Furious (2009)"), [("Fast &amp; Furious (2009)", 12, true)]);
        assert_eq!(found("\"The Matrix\" (1999)"), [("The Matrix\" (1999)", 14, true)]);
    }

    #[test]
    fn a_year_that_no_film_has_is_an_unknown_title() {
        assert!(found("Alien (1999)").is_empty());
        assert_eq!(unknown("You may like Alien (1999)"), ["Alien (1999)"]);
        // An entry without a year answers for any, unless a title inside has that very year.
        assert_eq!(found("the Hangover (2010)"), [("Hangover (2010)", 20, true)]);
        assert_eq!(found("The Hangover (2009)"), [("The Hangover (2009)", 19, false)]);
        assert_eq!(found("Star Wars (1977)"), [("Star Wars (1977)", 8, false)]);
    }

    #[test]
    fn invented_titles_are_found_and_swallow_the_titles_inside() {
        let text = "You would like The Alien Garden of Doom (2003). Inception (2010) too";
        assert_eq!(unknown(text), ["The Alien Garden of Doom (2003)"]);
        assert_eq!(found(text), [("Inception (2010)", 17, true)]);
        assert!(unknown("born in the summer (1999) and The Matrix (1999)").is_empty());
    }

    #[test]
    fn doubles_have_one_canonical_id_and_a_preference_is_kept() {
        let c = catalogue();
        assert_eq!(c.canonical(ItemId(18)), ItemId(14));
        assert_eq!(c.mentions("The Matrix (1999)")[0].item, ItemId(14));
        assert_eq!(c.mentions_preferring("The Matrix (1999)", &[ItemId(18)])[0].item, ItemId(18));
        // "Star Wars (1977)" when the conversation's film is the entry without a year.
        let dated = Catalogue::new(vec![
            Movie::from_name(ItemId(8), "Star Wars"),
            Movie::from_name(ItemId(21), "Star Wars (1977)"),
        ]);
        assert_eq!(dated.mentions("Star Wars (1977)")[0].item, ItemId(21));
        assert_eq!(dated.mentions_preferring("Star Wars (1977)", &[ItemId(8)])[0].item, ItemId(8));
        assert_eq!(c.mentions_preferring("a star is born", &[ItemId(6)])[0].item, ItemId(6));
    }

    #[test]
    fn any_text_is_scanned_without_panic() {
        let odd = [
            "",
            "(",
            "(1999)",
            "\u{1f600} It\u{2019} (2017) &",
            "&amp",
            "''''",
            "Am\u{e9}lie(2001)",
            "@12 (2001)",
        ];
        for t in odd {
            let _ = (found(t), unknown(t));
        }
    }
}
