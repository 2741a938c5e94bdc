//! Evaluation and comparison: what each model wrote and how it was scored ([`example`]), metrics over it
//! ([`evaluation`]), paired bootstrap intervals ([`bootstrap`]), the comparison of two models ([`mod@compare`]) and
//! of many with several seeds each ([`many`]).
//!
//! Invariants: pure functions, strings out, no I/O; no time and no path in any output; the same bits at any
//! thread count; both models are measured on the same prompts or not at all.

pub mod bootstrap;
pub mod compare;
pub mod evaluation;
pub mod example;
pub mod many;
mod markdown;
pub mod metric;
pub mod names;
pub mod student;
pub mod vader;

pub use bootstrap::Bootstrap;
pub use compare::{Comparison, Report, compare};
pub use evaluation::Evaluation;
pub use example::{Example, ModelRun, ReferenceNll};
