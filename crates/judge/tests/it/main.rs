//! The judge against servers that fail and texts that lie.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod attacks;
mod faults;
mod mock;
mod property;
