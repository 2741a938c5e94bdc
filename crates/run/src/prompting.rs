//! From conversations to tokens: roles, candidate lists, truncation, windows.
//!
//! A recommender turn may be preceded by a `system` line with the recommender's best candidates. It stands in
//! the same place when training, sampling and scoring, for every recommender turn of the context, so that the
//! policy sees one format only. Candidates come from the films named so far: never from the forms, which are
//! filled in after the conversation.

use ecr_core::seam::{Query, Recommender};
use ecr_core::{ItemId, Packed, Result, Role};
use ecr_data::catalogue::Catalogue;
use ecr_data::redial::{Dialogue, Turn};
use ecr_models::chat::{ChatTemplate, Message};
use ecr_models::tokenizer::Tokenizer;

/// How conversations become tokens.
pub struct Prompting {
    /// Tokenizer of the policy.
    pub tokenizer: Tokenizer,
    /// Chat template of the policy.
    pub chat: ChatTemplate,
    /// First system message; empty = none.
    pub system: String,
    /// Candidates listed before each recommender turn; 0 = none.
    pub candidates: usize,
    /// Longest prompt, tokens; whole turns are dropped from the left.
    pub context_max: usize,
    /// Longest training window, tokens.
    pub window_max: usize,
}

/// One training window: tokens, which of them are targets, and the conversation they come from.
#[derive(Debug, Clone)]
pub struct Window {
    /// Conversation.
    pub conv_id: u32,
    /// Token ids, `[T]`.
    pub tokens: Vec<u32>,
    /// Tokens of recommender turns and their end tokens, `[T]`.
    pub loss_mask: Vec<bool>,
}

/// Puts windows into one packed batch.
pub fn pack(windows: &[&Window]) -> Packed {
    let mut b = Packed::new();
    for w in windows {
        b.push(&w.tokens, &w.loss_mask);
    }
    b
}

/// Turns of a dialogue with the films named before each, `[turns]`.
fn named_before(turns: &[Turn]) -> Vec<Vec<ItemId>> {
    let mut named: Vec<ItemId> = Vec::new();
    turns
        .iter()
        .map(|t| {
            let before = named.clone();
            named.extend(t.mentions.iter().filter(|m| m.first_time).map(|m| m.item));
            before
        })
        .collect()
}

impl Prompting {
    /// The candidate line for a state of the conversation, or `None` when candidates are off.
    fn candidate_line(
        &self,
        recommender: &dyn Recommender,
        catalogue: &Catalogue,
        mentioned: &[ItemId],
    ) -> Option<String> {
        if self.candidates == 0 {
            return None;
        }
        let query = Query { context: &[], mentioned, rejected: &[] };
        let ranked = recommender.rank(query, self.candidates);
        let names: Vec<&str> = ranked.iter().filter_map(|(i, _)| catalogue.name(*i)).collect();
        Some(format!("Candidates: {}", names.join("; ")))
    }

    /// Messages of each turn (candidate line first, if any), `[turns]`.
    fn turn_messages(
        &self,
        turns: &[Turn],
        recommender: &dyn Recommender,
        catalogue: &Catalogue,
    ) -> Vec<Vec<Message>> {
        let before = named_before(turns);
        turns
            .iter()
            .zip(&before)
            .map(|(t, named)| {
                let text = self.tokenizer.strip_specials(&t.text);
                match t.role {
                    Role::Seeker => vec![Message::user(text)],
                    Role::Recommender => self
                        .candidate_line(recommender, catalogue, named)
                        .map(Message::system)
                        .into_iter()
                        .chain([Message::assistant(text)])
                        .collect(),
                }
            })
            .collect()
    }

    fn system_message(&self) -> Option<Message> {
        (!self.system.is_empty()).then(|| Message::system(self.system.clone()))
    }

    /// The training windows of a dialogue: every recommender turn is a target in exactly one of them. A dialogue
    /// over `window_max` tokens is cut between turns; the later windows repeat the two turns before the cut as
    /// context. A single turn too long for a window is cut at the right.
    pub fn windows(
        &self,
        dialogue: &Dialogue,
        recommender: &dyn Recommender,
        catalogue: &Catalogue,
    ) -> Result<Vec<Window>> {
        let turns = self.turn_messages(&dialogue.turns, recommender, catalogue);
        let (mut out, mut first, n) = (Vec::new(), 0, turns.len());
        while first < n {
            let context = first.saturating_sub(2);
            let skip = dialogue.turns[context..first].iter().filter(|t| t.role == Role::Recommender).count();
            let mut last = n;
            let window = loop {
                let messages: Vec<Message> = self
                    .system_message()
                    .into_iter()
                    .chain(turns[context..last].iter().flatten().cloned())
                    .collect();
                let (mut tokens, mut loss_mask) = self.chat.encode_dialogue(&messages, &self.tokenizer)?;
                if tokens.len() > self.window_max && last > first + 1 {
                    // Drop about as many turns as are over, at least one.
                    let over = tokens.len() - self.window_max;
                    let per_turn = tokens.len() / (last - context);
                    last = last.saturating_sub((over / per_turn.max(1)).max(1)).max(first + 1);
                    continue;
                }
                tokens.truncate(self.window_max);
                loss_mask.truncate(self.window_max);
                unmark_runs(&mut loss_mask, skip);
                break Window { conv_id: dialogue.id, tokens, loss_mask };
            };
            if window.loss_mask.iter().any(|&m| m) {
                out.push(window);
            }
            first = last;
        }
        Ok(out)
    }

    /// The prompt before turn `turn_idx` of a dialogue: its context, the candidate line, and the opening of the
    /// recommender's turn. Whole turns are dropped from the left until it fits.
    pub fn prompt(
        &self,
        dialogue: &Dialogue,
        turn_idx: usize,
        recommender: &dyn Recommender,
        catalogue: &Catalogue,
    ) -> Result<Vec<u32>> {
        let turns = self.turn_messages(&dialogue.turns[..=turn_idx], recommender, catalogue);
        // Of the turn to be written only the candidate line is known.
        let ask: Vec<Message> = turns[turn_idx][..turns[turn_idx].len() - 1].to_vec();
        let mut first = 0;
        loop {
            let messages: Vec<Message> = self
                .system_message()
                .into_iter()
                .chain(turns[first..turn_idx].iter().flatten().cloned())
                .chain(ask.iter().cloned())
                .collect();
            let tokens = self.chat.encode_prompt(&messages, &self.tokenizer)?;
            if tokens.len() <= self.context_max || first >= turn_idx {
                let drop = tokens.len().saturating_sub(self.context_max);
                return Ok(tokens[drop..].to_vec());
            }
            first += 1;
        }
    }
}

/// Clears the first `n` runs of marked tokens: recommender turns that an earlier window already scored.
fn unmark_runs(mask: &mut [bool], n: usize) {
    let (mut runs, mut inside) = (0, false);
    for m in mask.iter_mut() {
        if *m && !inside {
            runs += 1;
        }
        inside = *m;
        if runs > n {
            return;
        }
        *m = false;
    }
}

#[cfg(test)]
mod tests {
    use super::unmark_runs;

    #[test]
    fn earlier_turns_are_context_only() {
        let mut m = [false, true, true, false, true, false, true];
        unmark_runs(&mut m, 2);
        assert_eq!(m, [false, false, false, false, false, false, true]);
        let mut m = [true, false, true];
        unmark_runs(&mut m, 0);
        assert_eq!(m, [true, false, true]);
    }
}
