//! Studies: variants of one run, each with several training seeds, compared on one page.
//!
//! Runs lie in `OUT/NAME/VARIANT/seed-N`, each an ordinary run directory. All of them share data, test prompts and, as
//! far as their settings are equal, the stages before training: what one run has finished, the others take over by the
//! stage graph's hashes. An experiment that was stopped goes on where it was.

mod builtin;
mod entries;
mod expect;
mod page;
mod spec;
mod study;
mod sweep;
mod training;

pub use builtin::BUILTIN;
pub use entries::{compare_models, entries, evaluated};
pub use spec::{Spec, Variant};
pub use study::{Outcome, Study};
pub use sweep::{Goal, Sweep, SweepOutcome, grid, random};
