//! The catalogue: what `ItemId` names, and the films that a text names.

use std::path::Path;

use ecr_core::{Error, ItemId, Result};
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::mentions::{Finder, Mention};
use crate::text;

/// A film.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Movie {
    /// ReDial's movie id (the demo has its own).
    pub movie_id: u32,
    /// Title without year.
    pub title: String,
    /// Year of release, if known.
    #[serde(default)]
    pub year: Option<u16>,
    /// Genres, lower case.
    #[serde(default)]
    pub genres: Vec<String>,
    /// Directors.
    #[serde(default)]
    pub directors: Vec<String>,
    /// Leading actors.
    #[serde(default)]
    pub stars: Vec<String>,
    /// A sentence or two.
    #[serde(default)]
    pub plot: Option<String>,
    /// Id in the knowledge graph, if linked.
    #[serde(default)]
    pub entity_id: Option<u32>,
    /// Mentions in training data: the more popular of two films is meant by a bare title.
    #[serde(default)]
    pub train_mentions: u32,
}

impl Movie {
    /// A film from its ReDial name, `Title (Year)` or `Title`, cleaned.
    pub fn from_name(id: ItemId, name: &str) -> Self {
        let (title, year) = split_name(name);
        Self { movie_id: id.0, title, year, ..Self::default() }
    }
    /// Its id.
    pub fn item(&self) -> ItemId {
        ItemId(self.movie_id)
    }
    /// `Title (Year)`, or the title alone when the year is unknown: what policies read and write.
    pub fn name(&self) -> String {
        match self.year {
            Some(y) => format!("{} ({y})", self.title).trim_start().to_string(),
            None => self.title.clone(),
        }
    }
}

/// Splits `Title (Year)` into cleaned title and year.
pub fn split_name(name: &str) -> (String, Option<u16>) {
    let name = text::clean(name);
    if let Some(rest) = name.strip_suffix(')')
        && let Some((title, year)) = rest.rsplit_once('(')
        && year.len() == 4
        && let Ok(y) = year.parse()
        && !title.trim().is_empty()
    {
        return (title.trim_end().to_string(), Some(y));
    }
    (name, None)
}

/// All films that can be named.
pub struct Catalogue {
    movies: Vec<Movie>,
    names: Vec<String>,
    index: FxHashMap<ItemId, usize>,
    canonical: FxHashMap<ItemId, ItemId>,
    finder: Finder,
}

impl Catalogue {
    /// A catalogue of these films, sorted by id. The first of two films with one id is kept. A film
    /// without a title stays, but no text names it.
    pub fn new(mut movies: Vec<Movie>) -> Self {
        movies.sort_by_key(|m| m.movie_id);
        movies.dedup_by_key(|m| m.movie_id);
        let names: Vec<String> = movies.iter().map(Movie::name).collect();
        let index = movies.iter().enumerate().map(|(i, m)| (m.item(), i)).collect();
        let finder = Finder::new(&movies);
        let canonical =
            movies.iter().map(|m| (m.item(), finder.canonical(&m.title, m.year, m.item()))).collect();
        Self { movies, names, index, canonical, finder }
    }
    /// Reads `kg/movies.jsonl.gz` (or any JSONL of [`Movie`] fields).
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = ecr_core::io::read_maybe_gz(path)?;
        let mut movies = Vec::new();
        for (i, line) in bytes.split(|&b| b == b'\n').enumerate().filter(|(_, l)| !l.is_empty()) {
            let mut m: Movie = serde_json::from_slice(line).map_err(|e| {
                Error::data(format!("read movies of {}:{}", path.display(), i + 1)).got(e.to_string())
            })?;
            m.title = text::clean(&m.title);
            movies.push(m);
        }
        if movies.is_empty() {
            return Err(Error::data(format!("read movies of {}", path.display())).got("no film"));
        }
        Ok(Self::new(movies))
    }
    /// This catalogue with the films of `more` that it lacks.
    pub fn with(self, more: impl IntoIterator<Item = Movie>) -> Self {
        let mut movies = self.movies;
        let have: rustc_hash::FxHashSet<u32> = movies.iter().map(|m| m.movie_id).collect();
        movies.extend(more.into_iter().filter(|m| !have.contains(&m.movie_id)));
        Self::new(movies)
    }
    /// Number of films.
    pub fn len(&self) -> usize {
        self.movies.len()
    }
    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.movies.is_empty()
    }
    /// The films, by ascending id.
    pub fn movies(&self) -> &[Movie] {
        &self.movies
    }
    /// One film.
    pub fn get(&self, item: ItemId) -> Option<&Movie> {
        self.index.get(&item).map(|&i| &self.movies[i])
    }
    /// `Title (Year)` of a film.
    pub fn name(&self, item: ItemId) -> Option<&str> {
        self.index.get(&item).map(|&i| self.names[i].as_str())
    }
    /// The one id for all ids of the same title and year (the most mentioned, then the lowest). ReDial has a
    /// few such doubles; an id that is not in the catalogue stands for itself.
    pub fn canonical(&self, item: ItemId) -> ItemId {
        self.canonical.get(&item).copied().unwrap_or(item)
    }
    /// Films named in the text, in order, not overlapping: see [`crate::mentions`]. Ids are
    /// [canonical](Self::canonical).
    pub fn mentions(&self, text: &str) -> Vec<Mention> {
        self.finder.mentions(text)
    }
    /// As [`Catalogue::mentions`]; where a title may mean several films, those of `prefer` come first (say, the
    /// films the conversation has named). An item of `prefer` is returned as it is given there.
    pub fn mentions_preferring(&self, text: &str, prefer: &[ItemId]) -> Vec<Mention> {
        self.finder.mentions_preferring(text, prefer)
    }
    /// Items named in the text, each once, in order of first mention.
    pub fn items(&self, text: &str) -> Vec<ItemId> {
        let mut out: Vec<ItemId> = Vec::new();
        for m in self.mentions(text) {
            if !out.contains(&m.item) {
                out.push(m.item);
            }
        }
        out
    }
    /// Byte ranges that look like `Some Title (1999)` and name no film of the catalogue.
    pub fn unknown_titles(&self, text: &str) -> Vec<std::ops::Range<usize>> {
        self.finder.unknown_titles(text)
    }
}
