//! Made-up scorers, films and replies for tests.

use ecr_core::seam::{EMOTIONS, Emotion, EmotionDistribution, Query, Ranked, Recommender, Reply};
use ecr_core::{ItemId, Result, Role, Utterance};
use ecr_data::catalogue::{Catalogue, Movie};

/// A finished reply without context, reference or labels.
pub(crate) fn reply(text: &str) -> Reply<'_> {
    Reply {
        context: &[],
        text,
        finished: true,
        length: text.split_whitespace().count() + 1,
        reference: None,
        labels: &[],
        mentioned: &[],
        rejected: &[],
    }
}

/// A seeker's turn.
pub(crate) fn seeker(text: &str) -> Utterance {
    Utterance { role: Role::Seeker, text: text.into() }
}

/// Gives mass to each label whose name is in the text.
pub(crate) struct KeywordEmotion;

impl Emotion for KeywordEmotion {
    fn version(&self) -> String {
        "keywords".into()
    }
    fn distribution(&mut self, texts: &[&str]) -> Result<Vec<EmotionDistribution>> {
        let one = |t: &&str| {
            let raw = EMOTIONS.map(|e| 0.05 + t.matches(e).count() as f32);
            let sum: f32 = raw.iter().sum();
            raw.map(|x| x / sum)
        };
        Ok(texts.iter().map(one).collect())
    }
}

/// Always the same ranking.
pub(crate) struct Fixed(pub(crate) Vec<ItemId>);

impl Recommender for Fixed {
    fn rank(&self, query: Query<'_>, k: usize) -> Vec<Ranked> {
        let free = self.0.iter().filter(|i| !query.mentioned.contains(i));
        free.take(k).enumerate().map(|(r, &i)| (i, -(r as f32))).collect()
    }
}

/// Eight films that do not exist.
pub(crate) fn films() -> Catalogue {
    let names = [
        "The Blue Lantern (1999)",
        "Copper Valley (2001)",
        "Marble Tide (2002)",
        "Velvet Compass (2003)",
        "Paper Harbour (2005)",
        "Silver Orchard (2006)",
        "Winter Engine (2007)",
        "Glass Meadow (2008)",
    ];
    Catalogue::new((1..).zip(names).map(|(i, n)| Movie::from_name(ItemId(i), n)).collect())
}
