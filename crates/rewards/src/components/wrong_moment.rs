//! `wrong_moment`: 0 where the reply names a film exactly when the human reply does, −1 otherwise.
//!
//! A recommendation is due when the human reply newly names a film (ecr.md §3.3: the dialogue act is whether the
//! reference has one). Titles that no film bears and unfilled slots count as recommending: they try to. A film that the
//! context has named does not. Always recommending and never recommending both lose to listening; absent without a
//! human reply.

use std::sync::Arc;

use ecr_core::Result;
use ecr_core::seam::{Purpose, Reply, Reward};
use ecr_data::catalogue::Catalogue;

use super::recommendation::named;

/// The `wrong_moment` component.
pub struct WrongMoment(pub Arc<Catalogue>);

impl Reward for WrongMoment {
    fn name(&self) -> &'static str {
        "wrong_moment"
    }
    fn range(&self) -> (f64, f64) {
        (-1.0, 0.0)
    }
    fn version(&self) -> String {
        "wrong_moment 1".into()
    }
    fn purpose(&self) -> Purpose {
        Purpose::Train
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let one = |r: &Reply<'_>| {
            r.reference?;
            let n = named(&self.0, r);
            let recommends = !n.new.is_empty() || n.unknown > 0;
            Some(if recommends == r.labels.is_empty() { -1.0 } else { 0.0 })
        };
        Ok(batch.iter().map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{films, reply};
    use ecr_core::ItemId;
    use ecr_core::seam::Label;

    #[test]
    fn only_listening_pays() {
        const LABEL: [Label; 1] = [Label { item: ItemId(1), liked: None }];
        let due = Reply { reference: Some("Try The Blue Lantern (1999)"), labels: &LABEL, ..reply("") };
        let chat = Reply { reference: Some("Hello!"), ..reply("") };
        let text = |r: Reply<'static>, t: &'static str| Reply { text: t, ..r };
        let always = "Watch Marble Tide (2002)!";
        let batch = [
            text(due, always),
            text(chat, always),
            text(due, "Hello!"),
            text(chat, "Hello!"),
            text(due, "Watch <movie>"),
            text(chat, "Watch Nowhere Street Unknown (1931)"),
            Reply { reference: None, ..text(chat, always) },
            Reply { mentioned: &[ItemId(3)], ..text(chat, always) },
        ];
        let s = WrongMoment(Arc::new(films())).score(&batch).unwrap();
        let want = [0.0, -1.0, -1.0, 0.0, 0.0, -1.0];
        assert_eq!(s[..6], want.map(Some));
        assert_eq!(s[6..], [None, Some(0.0)]);
    }
}
