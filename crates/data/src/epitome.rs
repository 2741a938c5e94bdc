//! EPITOME (Sharma et al., EMNLP 2020): replies to seekers' posts, rated for three mechanisms of empathy.

use std::path::Path;

use ecr_core::{Error, Result};
use serde::Deserialize;

use crate::records::read_jsonl;
use crate::redial::Split;
use crate::text;

/// The mechanisms: warmth and concern; understanding; asking about what was not said.
pub const MECHANISMS: [&str; 3] = ["emotional_reactions", "interpretations", "explorations"];
/// Levels of each: none, weak, strong.
pub const LEVELS: usize = 3;

/// A reply and how people rated it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RatedSupport {
    /// The post that is replied to; split by it.
    pub post_id: String,
    /// What the seeker wrote.
    pub post: String,
    /// The reply.
    pub reply: String,
    /// Level 0..2 of each of [`MECHANISMS`].
    pub levels: [usize; 3],
    /// Part of the data.
    pub split: Split,
}

/// Reads `epitome_reddit.jsonl.gz`.
///
/// # Errors
/// [`ecr_core::Kind::Data`]: missing or damaged file, a level above 2.
pub fn read(path: &Path) -> Result<Vec<RatedSupport>> {
    #[derive(Deserialize)]
    struct Row {
        sp_id: String,
        seeker_post: String,
        response_post: String,
        emotional_reactions: usize,
        interpretations: usize,
        explorations: usize,
        split: Split,
    }
    let rows: Vec<Row> = read_jsonl(path)?;
    let mut out = Vec::with_capacity(rows.len());
    for (i, r) in rows.into_iter().enumerate() {
        let levels = [r.emotional_reactions, r.interpretations, r.explorations];
        if let Some(bad) = levels.iter().find(|&&l| l >= LEVELS) {
            return Err(Error::data(format!("read {}:{}", path.display(), i + 1))
                .expected("levels 0, 1 or 2")
                .got(bad.to_string()));
        }
        out.push(RatedSupport {
            post_id: r.sp_id,
            post: text::clean(&r.seeker_post),
            reply: text::clean(&r.response_post),
            levels,
            split: r.split,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_beyond_two_are_refused() {
        let dir = std::env::temp_dir().join(format!("ecr-epitome-{}", std::process::id()));
        let path = dir.join("e.jsonl");
        let line = |level: usize| {
            format!(
                "{{\"sp_id\":\"a\",\"seeker_post\":\"I am low &amp; tired\",\"response_post\":\"Why?\",\
                 \"emotional_reactions\":0,\"interpretations\":1,\"explorations\":{level},\"split\":\"test\"}}\n"
            )
        };
        ecr_core::io::atomic_write(&path, line(2).as_bytes()).unwrap();
        let rows = read(&path).unwrap();
        assert_eq!((rows[0].levels, rows[0].split), ([0, 1, 2], Split::Test));
        assert_eq!(rows[0].post, "I am low & tired");
        ecr_core::io::atomic_write(&path, line(3).as_bytes()).unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("levels 0, 1 or 2"));
        ecr_core::io::remove_dir_all(&dir).unwrap();
    }
}
