//! `relevance`: is the reply about what the conversation is about? 0..1; absent at the start of a conversation.
//!
//! Cosine of the embeddings of the reply and of the last two turns, negative ones as 0, times the share of the
//! reply's 3-grams that these turns do not have: the nearest text to a context is its copy. An empty reply scores 0.

use ecr_core::seam::{Purpose, Reply, Reward};
use ecr_core::{Error, Result};
use rustc_hash::FxHashSet;

/// Embeds texts; implemented over an `Encoder` and its tokenizer.
pub trait Embed {
    /// Name and hash of the model, for logs.
    fn version(&self) -> String;
    /// One vector a text, all of one length, `[texts][D]`; need not be normalised.
    fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>>;
}

/// The `relevance` component.
pub struct Relevance(pub Box<dyn Embed>);

/// Cosine of two vectors, −1..1; 0 where one has no length.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(p, q)| f64::from(*p) * f64::from(*q)).sum::<f64>();
    let norm = (dot(a, a) * dot(b, b)).sqrt();
    if norm > 0.0 { (dot(a, b) / norm).clamp(-1.0, 1.0) } else { 0.0 }
}

/// Share of the 3-grams of `text` that `source` has; of shorter texts, whether it holds them.
fn copied(text: &str, source: &str) -> f64 {
    let (text, source) = (text.to_lowercase(), source.to_lowercase());
    let own: Vec<&str> = text.split_whitespace().collect();
    let theirs: Vec<&str> = source.split_whitespace().collect();
    if own.len() < 3 {
        return f64::from(theirs.windows(own.len().max(1)).any(|w| w == own));
    }
    let theirs: FxHashSet<&[&str]> = theirs.windows(3).collect();
    own.windows(3).filter(|g| theirs.contains(g)).count() as f64 / (own.len() - 2) as f64
}

impl Reward for Relevance {
    fn name(&self) -> &'static str {
        "relevance"
    }
    fn range(&self) -> (f64, f64) {
        (0.0, 1.0)
    }
    fn version(&self) -> String {
        format!("relevance 1: {}", self.0.version())
    }
    fn purpose(&self) -> Purpose {
        Purpose::Train
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let contexts: Vec<String> = batch
            .iter()
            .map(|r| {
                let last = &r.context[r.context.len().saturating_sub(2)..];
                last.iter().map(|u| u.text.as_str()).collect::<Vec<_>>().join(" ")
            })
            .collect();
        let applies = |i: &usize| !contexts[*i].trim().is_empty();
        let rows: Vec<usize> = (0..batch.len()).filter(applies).collect();
        let texts: Vec<&str> = rows.iter().flat_map(|&i| [contexts[i].as_str(), batch[i].text]).collect();
        let vectors = self.0.embed(&texts)?;
        if vectors.len() != texts.len() {
            return Err(Error::internal("score relevance")
                .expected(format!("{} embeddings", texts.len()))
                .got(vectors.len().to_string()));
        }
        let mut out = vec![None; batch.len()];
        for (&i, pair) in rows.iter().zip(vectors.chunks_exact(2)) {
            let empty = batch[i].text.trim().is_empty();
            let near = if empty { 0.0 } else { cosine(&pair[0], &pair[1]).max(0.0) };
            out[i] = Some(near * (1.0 - copied(batch[i].text, &contexts[i])));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{reply, seeker};

    /// Counts of letters.
    struct Letters;

    impl Embed for Letters {
        fn version(&self) -> String {
            "letters".into()
        }
        fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
            let one = |t: &&str| ('a'..='z').map(|c| t.to_lowercase().matches(c).count() as f32).collect();
            Ok(texts.iter().map(one).collect())
        }
    }

    #[test]
    fn near_is_good_a_copy_is_not_and_no_context_is_absent() {
        let context = [seeker("zoo zebras and buzzing bees")];
        let score = |text| {
            Relevance(Box::new(Letters)).score(&[Reply { context: &context, ..reply(text) }]).unwrap()[0]
        };
        let near = score("buzz, said the zebra in the zoo").unwrap();
        assert!(near > score("my uncle plays chess").unwrap() && near <= 1.0);
        assert_eq!(score("zoo zebras and buzzing bees"), Some(0.0));
        assert_eq!(score("zebras"), Some(0.0));
        assert_eq!(score(" "), Some(0.0));
        assert_eq!(Relevance(Box::new(Letters)).score(&[reply("hello")]).unwrap(), [None]);
    }
}
