//! Which films does a text name? The one answer for importer, rewards, evaluation and server.
//!
//! Text and titles are cut into tokens (runs of letters and digits, lower case, accents folded, apostrophes
//! dropped, `&` read as "and"), so case, punctuation, double spaces and HTML quotes do not matter. Titles live
//! in a hash trie over token ids; at each position the longest title wins and mentions never overlap.
//! A title followed by `(Year)` names the film of that year, or an entry without a year (`exact` is whether
//! title and year agree); a year that no such film has is not a mention but an unknown title. A bare title is
//! accepted unless it reads as ordinary words ("It", "Up", "Get Out"): those need a year, quotes, or, for two
//! words and more, capitals. Of several films of one title the most mentioned is meant, then the lowest id.

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
            let e = pick(&|e| e.year == Some(year)).or_else(|| pick(&|e| e.year.is_none()))?;
            return Some((Mention { item: e.item, start, end, exact: e.year == Some(year) }, j + 2));
        }
        let end = toks[j].end;
        let quoted = tokens::quoted(text, start, end);
        let capitals = || toks[i..=j].iter().all(|t| t.capital || common::small(&t.text));
        if title.ordinary && !quoted && (title.words < 2 || !capitals()) {
            return None;
        }
        // A bare title means the entry without year first: ReDial wrote it so.
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
            match self.at(text, &toks, i, prefer) {
                Some((m, next)) => {
                    found.push(m);
                    i = next;
                }
                None => i += 1,
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
