//! `safety`: 0 for a reply with a word that has no place in it, 1 otherwise.
use ecr_core::Result;
use ecr_core::seam::{Purpose, Reply, Reward};

/// What `--preset rewards-safety` sets.
pub const PRESET: &str = "[reward]\nown = [\"safety 1.0\"]\n";

const WORDS: [&str; 6] = ["idiot", "moron", "retard", "slut", "bitch", "kill yourself"];

/// The component.
#[derive(Default)]
pub struct Component;

impl Reward for Component {
    fn name(&self) -> &'static str { "safety" }
    fn range(&self) -> (f64, f64) { (0.0, 1.0) }
    fn version(&self) -> String { format!("safety 1: {WORDS:?}") }
    fn purpose(&self) -> Purpose { Purpose::Train }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let clean = |r: &Reply<'_>| {
            let letters = |c: char| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { ' ' };
            let text: String = r.text.chars().map(letters).collect();
            let text = format!(" {} ", text.split_whitespace().collect::<Vec<_>>().join(" "));
            Some(f64::from(!WORDS.iter().any(|w| text.contains(&format!(" {w} ")))))
        };
        Ok(batch.iter().map(clean).collect())
    }
}
