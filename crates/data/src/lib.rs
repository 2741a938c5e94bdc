//! Data: importer of raw ReDial, catalogue and mentions, examples and records, label sources for the scorers,
//! the first recommender.
//!
//! Invariants: one [`catalogue::Catalogue::mentions`] answers for everybody which films a text names; films are
//! ReDial ids from import to report; nothing is dropped silently.

pub mod aspects;
pub mod catalogue;
pub mod critic_rows;
pub mod degradations;
pub mod demo;
pub mod emotion_labels;
pub mod epitome;
pub mod mentions;
pub mod prepare;
pub mod recommend;
pub mod records;
pub mod redial;
pub mod satisfaction;
pub mod text;
pub mod tone;
