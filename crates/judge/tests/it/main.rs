//! The judge against servers that fail, texts that lie, and budgets that end.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod attacks;
mod embedded;
mod faults;
mod health;
mod limits;
mod mock;
mod property;
