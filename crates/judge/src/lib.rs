//! The judge: a language model that rates replies, asked so that the text being rated cannot answer for it.
//!
//! An [`item::Item`] (context and reply) becomes two messages ([`prompt`]): fixed instructions, and one line of JSON
//! that holds everything a user or a policy wrote. Only the generated suffix comes back, and [`scores::parse`] takes
//! nothing but five numbers. What is not such an answer is asked for again or marked failed, never guessed. Rules
//! that need no opinion are code: nothing recommended means a recommendation score of exactly 0.0.
//!
//! [`backend::http`] is the only place in the workspace that opens a socket.

pub mod agree;
pub mod backend;
pub mod budget;
pub mod canary;
pub mod escape;
pub mod grammar;
pub mod input;
pub mod item;
pub mod journal;
pub mod output;
pub mod prompt;
pub mod scores;
pub mod screen;
pub mod selftest;
pub mod session;
