//! Gates before bonuses (rl.md §7.5(2)): is this a reply at all?
//!
//! Closed for: no letter or digit; an unfilled slot; hardly any letters or markup of a chat template; more than
//! [`LONGEST`] words; a text that repeats itself; a copy of a turn of the context; a list of words without a sentence.
//! Titles of films are cut out first, so that a bare list of films is not a list of words. Whether a reply ended by
//! itself is not asked: `ppo.missing_eos_penalty` and `format` do.
//! Human replies hardly ever close it: the audit prints the share.

use std::sync::Arc;

use ecr_core::seam::Reply;
use ecr_data::catalogue::Catalogue;
use rustc_hash::FxHashSet;

use crate::components::format::{garbage, repeated_trigrams, unfilled_slot};

/// Words of the longest reply let through.
pub const LONGEST: usize = 120;
/// Repeated share of 3-grams, or of a word that follows itself, from which a reply repeats itself.
const REPEATED: f64 = 0.4;
/// Share of a reply's 4-grams in one turn of the context from which it is a copy.
const COPIED: f64 = 0.6;
/// Words from which a text must hold function words, and the least share of them.
const SENTENCE: (usize, f64) = (6, 0.15);

/// Words that no English sentence of some length does without.
const FUNCTION: &str = "a an the this that these those it its i you he she we they me him her us them my your his our \
    their mine yours im ive id ill youre youve youll hes shes were theyre thats its is am are was be been being do does \
    did dont doesnt didnt have has had havent will would wont wouldnt can could cant couldnt should shouldnt may might \
    must of in on at to for from by with about as into like than then there here and or but so if because when while \
    what which who whom whose where why how not no yes any some all both each every more most much many very too also \
    just only even ever never one ones up out over again still yet let lets";

/// The gate over a catalogue's titles.
pub struct Gate {
    catalogue: Arc<Catalogue>,
    function: FxHashSet<&'static str>,
}

/// Lower case, apostrophes dropped, other marks as blanks.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\'' | '\u{2019}' => {}
            c if c.is_ascii() => {
                out.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' });
            }
            c => out.extend(c.to_lowercase().map(|c| if c.is_alphanumeric() { c } else { ' ' })),
        }
    }
    out
}

/// Words of a plain text.
fn words(plain: &str) -> Vec<&str> {
    plain.split_whitespace().collect()
}

/// Whether most of the 4-grams of `own`, or a short text as a whole, are in the plain text `turn`.
fn copied(own: &[&str], turn: &str) -> bool {
    if own.len() < 9 {
        // "Yes" after "Yes" is small talk, and a short question may well repeat the words that it asks about.
        return own.len() >= 3 && turn.split_whitespace().eq(own.iter().copied());
    }
    let turn = words(turn);
    let theirs: FxHashSet<&[&str]> = turn.windows(4).collect();
    let hits = own.windows(4).filter(|g| theirs.contains(g)).count();
    hits as f64 / (own.len() - 3) as f64 >= COPIED
}

impl Gate {
    /// The gate over a catalogue.
    pub fn new(catalogue: Arc<Catalogue>) -> Self {
        Self { catalogue, function: FUNCTION.split_whitespace().collect() }
    }
    /// Changes whenever another reply is let through.
    pub fn version(&self) -> &'static str {
        "gate 1"
    }
    /// Why the gate is closed to this reply, or `None`.
    pub fn closed(&self, r: &Reply<'_>) -> Option<&'static str> {
        let text = plain(r.text);
        let own = words(&text);
        if own.is_empty() {
            return Some("empty");
        }
        if unfilled_slot(r.text) {
            return Some("unfilled slot");
        }
        if garbage(r.text) {
            return Some("garbage");
        }
        if own.len() > LONGEST {
            return Some("too long");
        }
        let doubled = own.windows(2).filter(|w| w[0] == w[1]).count();
        if own.len() >= 4
            && (doubled as f64 > REPEATED * (own.len() - 1) as f64 || repeated_trigrams(r.text) > REPEATED)
        {
            return Some("repeats itself");
        }
        if own.len() >= 3 && r.context.iter().any(|u| copied(&own, &plain(&u.text))) {
            return Some("copies the context");
        }
        let rest = plain(&self.without_titles(r.text));
        let rest = words(&rest);
        let function = rest.iter().filter(|w| self.function.contains(**w)).count();
        if rest.len() >= SENTENCE.0 && (function as f64) < SENTENCE.1 * rest.len() as f64 {
            return Some("a list of words");
        }
        None
    }
    fn without_titles(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut spans: Vec<(usize, usize)> =
            self.catalogue.mentions(text).iter().map(|m| (m.start, m.end)).collect();
        spans.extend(self.catalogue.unknown_titles(text).into_iter().map(|r| (r.start, r.end)));
        spans.sort_unstable();
        let mut from = 0;
        for (start, end) in spans.into_iter().filter(|s| s.0 < s.1) {
            if start >= from {
                out.push_str(&text[from..start]);
                out.push(' ');
                from = end;
            }
        }
        out.push_str(&text[from..]);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{films, reply, seeker};

    fn gate() -> Gate {
        Gate::new(Arc::new(films()))
    }

    #[test]
    fn replies_pass_and_what_is_none_does_not() {
        let g = gate();
        let context = [seeker("I am looking for a good old comedy with my kids tonight")];
        let closed = |text: &str| g.closed(&Reply { context: &context, ..reply(text) });
        for fine in [
            "Hello!",
            "Yes",
            "Have you seen The Blue Lantern (1999)? It is a good old comedy.",
            "The Blue Lantern (1999), Copper Valley (2001), Marble Tide (2002), Velvet Compass (2003)",
            "A good old comedy, with kids?",
            "No no no, not that one!",
            "Great movie! Awesome actors too.",
            "Ha ha, sure. What do you like?",
        ] {
            assert_eq!(closed(fine), None, "{fine}");
        }
        for (text, why) in [
            (" ?! ", "empty"),
            ("You should watch <movie>", "unfilled slot"),
            ("Yes <|im_end|> it is good", "garbage"),
            ("the the the the", "repeats itself"),
            ("happy happy like like grateful grateful", "repeats itself"),
            ("I am looking for a good old comedy with my kids tonight", "copies the context"),
            ("Well, looking for a good old comedy with my kids", "copies the context"),
            ("happy grateful curious nostalgia surprise agreement love", "a list of words"),
        ] {
            assert_eq!(closed(text), Some(why), "{text}");
        }
        assert_eq!(closed(&"I like it and so do you. ".repeat(20)), Some("too long"));
    }
}
