//! Recommenders, one file each, and their measurement.

mod cooccurrence;
pub mod recall;

pub use cooccurrence::{Cooccurrence, Interactions, Popularity};
