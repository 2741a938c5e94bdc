//! Counts of a file, to be compared with published ones.

use std::collections::BTreeSet;

use ecr_core::ItemId;
use serde::{Deserialize, Serialize};

use super::raw::{RawDialogue, references};
use crate::text;

/// Counts over the usable dialogues of a file, on the raw text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Dialogues.
    pub dialogues: u64,
    /// Messages.
    pub messages: u64,
    /// Messages of the recommender.
    pub recommender_messages: u64,
    /// Messages of the recommender that name a film.
    pub recommending_messages: u64,
    /// Every `@id`, repeats and unknown ones included.
    pub mentions: u64,
    /// `@id`s that `movieMentions` lacks.
    pub unknown_mentions: u64,
    /// Distinct films among the known mentions.
    pub distinct_movies: u64,
    /// White-space separated words of all messages.
    pub words: u64,
    /// Dialogues whose seeker form is a list.
    pub seeker_form_lists: u64,
    /// Dialogues whose recommender form is a list.
    pub recommender_form_lists: u64,
    /// Dialogues whose `movieMentions` is a list.
    pub mention_lists: u64,
    /// Messages that follow one of the same speaker.
    pub same_speaker_messages: u64,
    /// Dialogues that the recommender opens.
    pub recommender_opens: u64,
    /// Empty messages (or white space only).
    pub empty_messages: u64,
    /// Messages with HTML entities or tags.
    pub html_messages: u64,
    /// Messages with non-ASCII text.
    pub non_ascii_messages: u64,
    /// Messages with a line break.
    pub newline_messages: u64,
    /// Entries of `movieMentions` with a title.
    pub titles: u64,
    /// Titles with a double space.
    pub double_space_titles: u64,
    /// Titles without a year.
    pub titles_without_year: u64,
    /// Null titles.
    pub null_titles: u64,
}

/// Whether a raw title ends in `(dddd)`.
fn ends_in_year(title: &str) -> bool {
    let year = title.trim_end().strip_suffix(')').and_then(|t| t.rsplit_once('('));
    year.is_some_and(|(_, y)| y.len() == 4 && y.bytes().all(|b| b.is_ascii_digit()))
}

/// Counts in the making.
#[derive(Default)]
pub(super) struct Tally {
    counts: Counts,
    movies: BTreeSet<ItemId>,
}

impl Tally {
    pub(super) fn add(&mut self, d: &RawDialogue) {
        let c = &mut self.counts;
        c.dialogues += 1;
        c.seeker_form_lists += u64::from(d.seeker_form.was_list);
        c.recommender_form_lists += u64::from(d.recommender_form.was_list);
        c.mention_lists += u64::from(d.titles.was_list);
        for title in d.titles.map.values() {
            let Some(title) = title else {
                c.null_titles += 1;
                continue;
            };
            c.titles += 1;
            c.double_space_titles += u64::from(title.contains("  "));
            c.titles_without_year += u64::from(!ends_in_year(title));
        }
        c.recommender_opens += u64::from(d.messages.first().is_some_and(|m| m.sender == d.recommender));
        for (i, m) in d.messages.iter().enumerate() {
            let by_recommender = m.sender == d.recommender;
            c.messages += 1;
            c.same_speaker_messages += u64::from(i > 0 && d.messages[i - 1].sender == m.sender);
            c.recommender_messages += u64::from(by_recommender);
            c.empty_messages += u64::from(m.text.trim().is_empty());
            c.html_messages += u64::from(text::has_html(&m.text));
            c.non_ascii_messages += u64::from(!m.text.is_ascii());
            c.newline_messages += u64::from(m.text.contains('\n'));
            c.words += m.text.split_whitespace().count() as u64;
            let mut known = 0;
            for (_, item) in references(&m.text) {
                c.mentions += 1;
                match item.filter(|i| d.titles.map.contains_key(i)) {
                    Some(i) => {
                        known += 1;
                        self.movies.insert(i);
                    }
                    None => c.unknown_mentions += 1,
                }
            }
            c.recommending_messages += u64::from(by_recommender && known > 0);
        }
    }

    pub(super) fn finish(mut self) -> Counts {
        self.counts.distinct_movies = self.movies.len() as u64;
        self.counts
    }
}
