//! What a seeker wants, how well a film fits, and drawing films by fit.

use ecr_core::rng::Draws;

use super::films::{Film, films};

/// A span of years that a seeker prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Before 1980.
    Old,
    /// 1980 to 1999.
    Middle,
    /// Since 2000.
    New,
}

impl Era {
    /// The era of a year.
    pub fn of(year: u16) -> Self {
        match year {
            ..1980 => Self::Old,
            1980..2000 => Self::Middle,
            _ => Self::New,
        }
    }
}

/// A seeker's hidden taste.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taste {
    /// Genre, as the table names it.
    pub genre: &'static str,
    /// Mood.
    pub mood: &'static str,
    /// Era, if the seeker has one in mind.
    pub era: Option<Era>,
}

/// A film fits from here on.
pub const FITS: f64 = 0.6;

impl Taste {
    /// A taste that at least one film meets in full: it is read off a famous film.
    pub fn draw(rng: &mut Draws) -> Self {
        let film = weighted(rng, |f| f64::from(f.fame).powi(2));
        let genre = film.genres[if rng.uniform() < 0.6 { 0 } else { rng.below(film.genres.len()) }];
        let mood = film.moods[rng.below(film.moods.len())];
        Self { genre, mood, era: (rng.uniform() < 0.4).then_some(Era::of(film.year)) }
    }
    /// 0..1: genre .6 (.7 if it is the film's main one), mood .2, era .1 (granted if the seeker has none).
    pub fn fit(&self, film: &Film) -> f64 {
        let genre = match film.genres.iter().position(|&g| g == self.genre) {
            Some(0) => 0.7,
            Some(_) => 0.6,
            None => 0.0,
        };
        let mood = if film.moods.contains(&self.mood) { 0.2 } else { 0.0 };
        let era = if self.era.is_none_or(|e| e == Era::of(film.year)) { 0.1 } else { 0.0 };
        genre + mood + era
    }
    /// A film that fits, not among `used`; the better and the more famous, the likelier.
    pub fn fitting(&self, rng: &mut Draws, used: &[usize]) -> usize {
        self.film(rng, used, |fit| if fit >= FITS { (12.0 * (fit - 1.0)).exp() } else { 0.0 })
    }
    /// A film that does not fit, not among `used`.
    pub fn unfitting(&self, rng: &mut Draws, used: &[usize]) -> usize {
        self.film(rng, used, |fit| if fit < 0.4 { 1.0 } else { 0.0 })
    }
    fn film(&self, rng: &mut Draws, used: &[usize], by_fit: impl Fn(f64) -> f64) -> usize {
        let fame = |f: &Film| f64::from(f.fame).powi(2);
        let weights: Vec<f64> = films()
            .iter()
            .enumerate()
            .map(|(i, f)| if used.contains(&i) { 0.0 } else { by_fit(self.fit(f)) * fame(f) })
            .collect();
        index(rng, &weights)
    }
}

/// An index with probability proportional to its weight (the first one if all are 0).
pub fn index(rng: &mut Draws, weights: &[f64]) -> usize {
    let total: f64 = weights.iter().sum();
    let mut left = rng.uniform() * total;
    for (i, &w) in weights.iter().enumerate() {
        if w > 0.0 && left < w {
            return i;
        }
        left -= w;
    }
    weights.iter().rposition(|&w| w > 0.0).unwrap_or(0)
}

/// A film with probability proportional to its weight.
pub fn weighted(rng: &mut Draws, weight: impl Fn(&Film) -> f64) -> &'static Film {
    let weights: Vec<f64> = films().iter().map(weight).collect();
    &films()[index(rng, &weights)]
}
