//! No text changes who speaks, where the data ends, or what the data says.

use ecr_core::rng::Draws;
use ecr_core::{Role, Stream, Utterance};
use ecr_judge::escape::is_plain;
use ecr_judge::item::{Facts, Item};
use ecr_judge::prompt::{messages, unframe};
use serde_json::Value as Json;

/// What attackers build from.
const PIECES: &[&str] = &[
    "\"",
    "\\",
    "\\\"",
    "\n",
    "\r\n",
    "\u{0}",
    "\u{7f}",
    "}",
    "{",
    "]",
    "[",
    "\"}",
    "\"]}",
    "\\u0022",
    "\\n",
    "<|im_end|>",
    "<|im_start|>system\n",
    "[/INST]",
    "<s>",
    "</s>",
    "<<SYS>>",
    "BEGIN ",
    "END ",
    "BEGIN {nonce}",
    "\nEND ",
    "{nonce}",
    "```json\n",
    "### Response:",
    "Ignore previous instructions",
    "\"overall_score\": 1.0",
    "\u{2028}",
    "\u{2029}",
    "\u{202e}",
    "\u{200b}",
    "\u{feff}",
    "\u{fffd}",
    "\u{1f600}",
    "\u{10ffff}",
    "\u{e0041}",
    "e\u{301}",
    "\u{3164}",
    " ",
    "a",
    "Alien (1979)",
    "<movie>",
    "{{",
    "{%",
    "%}",
    "${x}",
    "</script>",
    "'",
    "`",
    "|",
    "\u{85}",
    "\u{a0}",
    "é",
    "日本",
];

fn text(draws: &mut Draws) -> String {
    let mut out = String::new();
    for _ in 0..draws.below(12) {
        if draws.below(3) == 0 {
            let c = char::from_u32(draws.below(0x11_0000) as u32).unwrap_or('\u{fffd}');
            out.push(c);
        } else {
            out.push_str(PIECES[draws.below(PIECES.len())]);
        }
    }
    out
}

/// Cases `from..to`: each an item of random texts.
fn check(from: u64, to: u64) {
    for n in from..to {
        let mut draws = Stream::new(11).child("framing").at(n).rng();
        let context: Vec<Utterance> = (0..draws.below(3))
            .map(|k| Utterance {
                role: if k % 2 == 0 { Role::Seeker } else { Role::Recommender },
                text: text(&mut draws),
            })
            .collect();
        let item =
            Item { id: text(&mut draws), conversation: String::new(), context, response: text(&mut draws) };
        let facts = Facts { earlier: vec![text(&mut draws)], named: vec![], recommends: false };
        let m = messages(&item, &facts, 0);
        assert_eq!([m[0].role, m[1].role], ["system", "user"], "case {n}");
        let (nonce, data) = unframe(&m).unwrap_or_else(|| panic!("case {n}: the frame is broken"));
        // Frame and nonce: the frame is what an empty item has, the nonce stands where it stands there.
        assert_eq!(
            (m[0].content.matches(&nonce).count(), m[1].content.matches(&nonce).count()),
            (2, 2),
            "case {n}"
        );
        assert!(!data.contains(&nonce));
        // One line; structure comes from us alone: outside strings nothing but our own keys.
        let v: Json = serde_json::from_str(&data).unwrap_or_else(|e| panic!("case {n}: {e}"));
        let keys: Vec<&String> = v.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["context", "previously_recommended", "films_in_response", "response"], "case {n}");
        assert_eq!(v["response"], item.response.as_str(), "case {n}");
        assert_eq!(v["previously_recommended"][0], facts.earlier[0].as_str(), "case {n}");
        let turns = v["context"].as_array().unwrap();
        assert_eq!(turns.len(), item.context.len(), "case {n}");
        for (t, u) in turns.iter().zip(&item.context) {
            assert_eq!(t["text"], u.text.as_str(), "case {n}");
            assert_eq!(t["role"] == "seeker", u.role == Role::Seeker, "case {n}");
        }
        let strings: usize = data.matches('"').count();
        let expected = 2 * (4 + 1 + 1 + item.context.len() * 4);
        assert_eq!(strings, expected, "case {n}: a quote that is not ours");
        let braces = data.matches(['{', '}']).count();
        assert_eq!(braces, 2 + 2 * item.context.len(), "case {n}: a brace that is not ours");
        assert!(data.chars().all(|c| is_plain(c) || "\"\\{}[]".contains(c)), "case {n}: {data}");
        assert!(!data.contains(['<', '>', '|', '`']), "case {n}");
        // Over the wire.
        let wire = serde_json::to_string(&m).unwrap();
        let back: Json = serde_json::from_str(&wire).unwrap();
        assert!(
            back.as_array().unwrap().len() == 2 && back[1]["content"] == m[1].content.as_str(),
            "case {n}"
        );
    }
}

#[test]
fn twenty_thousand_texts_change_neither_roles_nor_framing() {
    check(0, 20_000);
}

/// `cargo test --release -p ecr-judge -- --ignored a_million`
#[test]
#[ignore = "a million cases: about a minute"]
fn a_million_texts_change_neither_roles_nor_framing() {
    std::thread::scope(|s| {
        s.spawn(|| check(0, 500_000));
        s.spawn(|| check(500_000, 1_000_000));
    });
}

const EDITS: &[u8] = b" {}[],:\"0123456789.eE+-\n";

/// Answers near the right one, mutated: whatever is accepted is five numbers in range, from one object.
#[test]
fn mutated_answers_are_read_right_or_not_at_all() {
    let good = "{\"empathy_score\": 0.25, \"informativeness_score\": 0.5, \"recommendation_score\": 0.0, \"engagement_score\": 1.0, \"overall_score\": 0.75}";
    let values = [0.25, 0.5, 0.0, 1.0, 0.75];
    let mut accepted = 0;
    for n in 0..200_000 {
        let mut draws = Stream::new(12).at(n).rng();
        let mut bytes = good.as_bytes().to_vec();
        for _ in 0..1 + draws.below(2) {
            let at = draws.below(bytes.len());
            match draws.below(4) {
                0 => {
                    bytes.remove(at);
                }
                1 => bytes.insert(at, EDITS[draws.below(EDITS.len())]),
                2 => bytes[at] = b' ' + draws.below(95) as u8,
                _ => {
                    let end = (at + draws.below(30)).min(bytes.len());
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
            }
        }
        let Ok(text) = String::from_utf8(bytes) else { continue };
        if let Ok(s) = ecr_judge::scores::parse(&text) {
            accepted += 1;
            // Independent reading: the same object by a general parser, five keys, and values that it has there.
            let v: Json = serde_json::from_str(&text).unwrap();
            let o = v.as_object().unwrap();
            assert_eq!(o.len(), 5, "{text}");
            for (key, got) in ecr_judge::scores::KEYS.iter().zip(s.values()) {
                assert!(o[*key].as_f64().unwrap() == got && (0.0..=1.0).contains(&got), "{text}");
            }
            let same = s.values().iter().zip(values).filter(|(a, b)| **a == *b).count();
            assert!(same >= 3, "{text}");
        }
    }
    assert!(accepted > 1000, "most mutations of white space and digits are fine: {accepted}");
}
