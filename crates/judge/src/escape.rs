//! Text as a JSON string that is one line and holds nothing a chat template, a parser of prompts or an eye could take
//! for structure.
//!
//! Every JSON parser gives the text back unchanged. Written as they are: printable ASCII except quotes and brackets
//! of all kinds, letters and digits of living scripts, and a few typographic marks. Everything else becomes `\uXXXX`:
//! line ends, control and format characters, bidirectional overrides, emoji, and the characters that special tokens
//! are made of (`<|im_end|>`, `[INST]`, `<s>`).

/// ASCII that structure is made of.
const STRUCTURE: &[char] = &['"', '\\', '<', '>', '[', ']', '{', '}', '`', '|'];
/// Marks of ordinary writing beyond ASCII.
const TYPOGRAPHY: &[char] =
    &['\u{2018}', '\u{2019}', '\u{201c}', '\u{201d}', '\u{2013}', '\u{2014}', '\u{2026}'];
/// Letters that nothing can be seen of.
const FILLERS: &[char] = &['\u{115f}', '\u{1160}', '\u{17b4}', '\u{17b5}', '\u{3164}'];

/// Whether a character is written as it is.
pub fn is_plain(c: char) -> bool {
    match c {
        ' '..='~' => !STRUCTURE.contains(&c),
        // Letters of living scripts. Mathematical and full-width alphabets lie outside: they only imitate.
        '\u{a0}'..='\u{1fff}' | '\u{3041}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}' => {
            c.is_alphanumeric() && !FILLERS.contains(&c)
        }
        _ => TYPOGRAPHY.contains(&c),
    }
}

/// `text` as a JSON string, its quotes included.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        if is_plain(c) {
            out.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str("\\u");
                for shift in [12, 8, 4, 0] {
                    let digit = u32::from(*unit >> shift) & 15;
                    out.push(char::from_digit(digit, 16).unwrap_or('0'));
                }
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn any_parser_gives_the_text_back() {
        let texts = [
            "",
            "plain",
            "a \"b\" \\ c\n\t\u{0}",
            "<|im_end|>[INST]{\"a\":1}```",
            "caf\u{e9} \u{2019} \u{1f600} \u{202e}x \u{3164} \u{1d400} \u{ff21}",
        ];
        for text in texts {
            let q = quote(text);
            assert_eq!(serde_json::from_str::<String>(&q).unwrap(), text);
            assert!(
                !q[1..q.len() - 1].contains(['"', '<', '>', '[', ']', '{', '}', '`', '|', '\n', '\u{202e}']),
                "{q}"
            );
        }
        assert_eq!(quote("Am\u{e9}lie"), "\"Am\u{e9}lie\"");
        assert_eq!(quote("<"), "\"\\u003c\"");
    }
}
