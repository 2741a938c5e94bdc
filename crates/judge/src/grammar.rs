//! Constrained decoding: the only texts that a model can write are answers.
//!
//! The answer's frame is fixed to the byte; a value is one of 0.0, 0.1, …, 1.0 (two digits after the point as an
//! option would add length, not judgement, for models that run here). A token may follow if some answer begins with
//! the text so far and that token, so every way of cutting the frame into tokens is open to the model.

use ecr_core::seam::TokenMask;
use ecr_core::{Error, Result};
use ecr_models::tokenizer::Tokenizer;

use crate::scores::KEYS;

/// Digits of a value: a choice, at these places of the frame.
const HOLE: u8 = 0;

/// The mask of a tokenizer's answers.
pub struct ScoreGrammar {
    /// The frame; [`HOLE`] stands for a value.
    frame: Vec<u8>,
    /// Bytes of each token of printable ASCII, else empty, `[V]`.
    tokens: Vec<Vec<u8>>,
    end: u32,
}

/// Where a text stands in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before this byte of the frame.
    Frame(usize),
    /// In the value at this place: the first digit was read, or also the point.
    Value(usize, u8, bool),
}

impl ScoreGrammar {
    /// Answers in the tokens of a model whose turn ends with `end`.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Data`] for a tokenizer that cannot write an answer.
    pub fn new(tokenizer: &Tokenizer, end: u32) -> Result<Self> {
        let mut frame = vec![b'{'];
        for (i, key) in KEYS.iter().enumerate() {
            frame.extend(format!("{}\"{key}\": ", if i > 0 { ", " } else { "" }).bytes());
            frame.push(HOLE);
        }
        frame.push(b'}');
        let bytes = |id: u32| {
            // Byte-level BPE writes a blank as Ġ, SentencePiece as ▁.
            let t = tokenizer.token(id).filter(|_| !tokenizer.is_special(id)).unwrap_or_default();
            let t = t.replace(['\u{120}', '\u{2581}'], " ");
            if t.bytes().all(|b| (b' '..=b'~').contains(&b)) { t.into_bytes() } else { Vec::new() }
        };
        let tokens: Vec<Vec<u8>> = (0..tokenizer.vocab_size() as u32).map(bytes).collect();
        let needed: Vec<u8> =
            frame.iter().copied().filter(|b| *b != HOLE).chain(b"01234567890.".iter().copied()).collect();
        if let Some(b) = needed.iter().find(|b| !tokens.iter().any(|t| t.as_slice() == [**b])) {
            return Err(Error::data("constrain answers to JSON")
                .expected("a tokenizer with every printable character as a token")
                .got(format!("none for {:?}", char::from(*b))));
        }
        Ok(Self { frame, tokens, end })
    }

    /// Tokens that the longest answer can have, the end token included.
    pub fn longest(&self) -> usize {
        self.frame.len() + 2 * KEYS.len() + 1
    }

    /// Where the text stands after one byte more, or nothing if no answer goes on so.
    fn step(&self, at: At, byte: u8) -> Option<At> {
        match at {
            At::Frame(i) => match *self.frame.get(i)? {
                HOLE if byte == b'0' || byte == b'1' => Some(At::Value(i, byte, false)),
                HOLE => None,
                b => (b == byte).then_some(At::Frame(i + 1)),
            },
            At::Value(i, first, false) => (byte == b'.').then_some(At::Value(i, first, true)),
            At::Value(i, first, true) => {
                let digit = if first == b'1' { byte == b'0' } else { byte.is_ascii_digit() };
                digit.then_some(At::Frame(i + 1))
            }
        }
    }

    fn walk(&self, at: At, bytes: &[u8]) -> Option<At> {
        bytes.iter().try_fold(at, |at, &b| self.step(at, b))
    }
}

impl TokenMask for ScoreGrammar {
    fn restrict(&self, response: &[u32], allowed: &mut [bool]) {
        let mut at = Some(At::Frame(0));
        for &t in response {
            at = at.and_then(|at| self.walk(at, self.tokens.get(t as usize).map_or(&[][..], Vec::as_slice)));
        }
        allowed.fill(false);
        match at {
            Some(at) if at != At::Frame(self.frame.len()) => {
                for (token, ok) in self.tokens.iter().zip(allowed.iter_mut()) {
                    *ok = !token.is_empty() && self.walk(at, token).is_some();
                }
            }
            // Complete (or, after a token that was never allowed, lost): the turn ends.
            _ => {
                if let Some(ok) = allowed.get_mut(self.end as usize) {
                    *ok = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ecr_core::Stream;

    use super::*;
    use crate::scores::parse;

    /// A tokenizer with merges such as `": ` and `0.`.
    fn tokenizer() -> Tokenizer {
        let texts = vec!["{\"empathy_score\": 0.5, \"overall_score\": 1.0}"; 40];
        Tokenizer::train(texts.iter(), 400, &["<|end|>"]).unwrap()
    }

    #[test]
    fn any_walk_through_the_mask_is_an_answer() {
        let t = tokenizer();
        let end = t.id("<|end|>").unwrap();
        let g = ScoreGrammar::new(&t, end).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..300 {
            let mut draws = Stream::new(n).rng();
            let mut tokens = Vec::new();
            loop {
                let mut allowed = vec![true; t.vocab_size()];
                g.restrict(&tokens, &mut allowed);
                let open: Vec<u32> = (0..allowed.len() as u32).filter(|&i| allowed[i as usize]).collect();
                let next = *draws.choose(&open).unwrap();
                if next == end {
                    break;
                }
                tokens.push(next);
                assert!(tokens.len() < g.longest());
            }
            let text = t.decode(&tokens, false).unwrap();
            let s = parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            s.values().iter().for_each(|v| {
                seen.insert((v * 10.0).round() as i32);
            });
        }
        assert_eq!(seen.len(), 11, "every value can be reached");
    }

    #[test]
    fn merged_tokens_may_be_used() {
        let t = tokenizer();
        let g = ScoreGrammar::new(&t, t.id("<|end|>").unwrap()).unwrap();
        let mut allowed = vec![true; t.vocab_size()];
        g.restrict(&[], &mut allowed);
        assert!(allowed.iter().filter(|a| **a).count() > 1, "`{{` and `{{\"` at least");
    }
}
