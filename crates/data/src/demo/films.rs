//! The demo's catalogue: real films as facts, read from the embedded `films.tsv`.

use std::sync::OnceLock;

use ecr_core::ItemId;

use crate::catalogue::{Catalogue, Movie};

const TSV: &str = include_str!("films.tsv");

/// Genres as the table names them, and as people say them.
pub const GENRES: [(&str, &str); 16] = [
    ("action", "action"),
    ("adventure", "adventure"),
    ("animation", "animated"),
    ("comedy", "comedy"),
    ("crime", "crime"),
    ("drama", "drama"),
    ("family", "family"),
    ("fantasy", "fantasy"),
    ("horror", "horror"),
    ("musical", "musical"),
    ("mystery", "mystery"),
    ("romance", "romance"),
    ("scifi", "science fiction"),
    ("thriller", "thriller"),
    ("war", "war"),
    ("western", "western"),
];

/// Tones, for matching a film to how somebody feels.
pub const MOODS: [&str; 10] = [
    "comforting",
    "dark",
    "funny",
    "nostalgic",
    "romantic",
    "sad",
    "scary",
    "thoughtful",
    "thrilling",
    "uplifting",
];

/// A film.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Film {
    /// Stable id, used like ReDial's movie id.
    pub id: u32,
    /// Title without the year.
    pub title: &'static str,
    /// Year of release.
    pub year: u16,
    /// One to three of [`GENRES`] (first column), the main one first.
    pub genres: Vec<&'static str>,
    /// Director (the first one where several are credited).
    pub director: &'static str,
    /// One or two leading actors or voices.
    pub stars: Vec<&'static str>,
    /// One or two of [`MOODS`].
    pub moods: Vec<&'static str>,
    /// 1 known to some .. 3 known to everybody; conversations name famous films more often.
    pub fame: u8,
}

impl Film {
    /// `Title (Year)`.
    pub fn name(&self) -> String {
        format!("{} ({})", self.title, self.year)
    }
    fn parse(line: &'static str) -> Option<Self> {
        let f: Vec<&'static str> = line.split('\t').collect();
        let [id, title, year, genres, director, stars, moods, fame] = f[..] else { return None };
        let list = |s: &'static str| s.split(',').collect::<Vec<_>>();
        Some(Self {
            id: id.parse().ok()?,
            title,
            year: year.parse().ok()?,
            genres: list(genres),
            director,
            stars: list(stars),
            moods: list(moods),
            fame: fame.parse().ok()?,
        })
    }
}

/// All films, by year and title.
pub fn films() -> &'static [Film] {
    static FILMS: OnceLock<Vec<Film>> = OnceLock::new();
    FILMS.get_or_init(|| TSV.lines().skip(1).filter_map(Film::parse).collect())
}

/// Number of rows of the table, whether they parse or not.
#[cfg(test)]
pub(super) fn rows() -> usize {
    TSV.lines().count() - 1
}

/// Index in [`films`] of an id.
pub fn position(id: u32) -> Option<usize> {
    films().iter().position(|f| f.id == id)
}

/// The films as an importer's catalogue.
pub fn catalogue() -> Catalogue {
    Catalogue::new(
        films()
            .iter()
            .map(|f| Movie {
                year: Some(f.year),
                genres: f.genres.iter().map(|s| s.to_string()).collect(),
                directors: vec![f.director.to_string()],
                stars: f.stars.iter().map(|s| s.to_string()).collect(),
                ..Movie::from_name(ItemId(f.id), &f.name())
            })
            .collect(),
    )
}

/// The text with each `@id` of a film replaced by `Title (Year)`; other ids stay.
pub fn with_titles(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 32);
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        let digits = rest[at + 1..].bytes().take_while(u8::is_ascii_digit).count();
        let end = at + 1 + digits;
        out.push_str(&rest[..at]);
        match rest[at + 1..end].parse().ok().and_then(position) {
            Some(i) => out.push_str(&films()[i].name()),
            None => out.push_str(&rest[at..end]),
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}
