//! Text metrics shared by rewards and evaluation, one file each.
//!
//! Tokens are what `str.split()` gives (Unicode white space, case kept) unless a metric says otherwise.

pub mod bleu;
pub mod distinct;
pub mod rouge;
pub mod tokenizer_13a;

/// White-space tokens, as Python's `str.split()`.
pub fn tokens(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}
