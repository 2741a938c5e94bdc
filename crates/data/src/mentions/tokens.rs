//! Tokens of titles and texts, with their places.

/// A run of letters and digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// Lower case, accents folded, apostrophes dropped; `&` is "and".
    pub(super) text: String,
    /// First byte in the source.
    pub(super) start: usize,
    /// One past the last byte.
    pub(super) end: usize,
    /// Whether its first letter is upper case.
    pub(super) capital: bool,
}

fn fold(c: char, out: &mut String) {
    if c.is_ascii() {
        return out.push(c.to_ascii_lowercase());
    }
    let base = match c {
        'à'..='å' | 'À'..='Å' => "a",
        'æ' | 'Æ' => "ae",
        'ç' | 'Ç' => "c",
        'è'..='ë' | 'È'..='Ë' => "e",
        'ì'..='ï' | 'Ì'..='Ï' => "i",
        'ñ' | 'Ñ' => "n",
        'ò'..='ö' | 'ø' | 'Ò'..='Ö' | 'Ø' => "o",
        'ù'..='ü' | 'Ù'..='Ü' => "u",
        'ý' | 'ÿ' | 'Ý' => "y",
        'ß' => "ss",
        _ => return out.extend(c.to_lowercase()),
    };
    out.push_str(base);
}

/// Whether an HTML entity for a quote or ampersand begins at `s`: its text and length.
fn entity(s: &str) -> Option<(&'static str, usize)> {
    [("&amp;", "and"), ("&quot;", ""), ("&#39;", "'"), ("&#x27;", "'"), ("&apos;", "'"), ("&nbsp;", "")]
        .into_iter()
        .find(|(e, _)| s.starts_with(e))
        .map(|(e, t)| (t, e.len()))
}

pub(super) fn tokenize(s: &str) -> Vec<Token> {
    let mut out: Vec<Token> = Vec::new();
    let mut open = false; // the last token may grow
    let mut i = 0;
    while let Some(c) = s[i..].chars().next() {
        let mut len = c.len_utf8();
        let mut c = c;
        if c == '&' {
            let (text, n) = entity(&s[i..]).unwrap_or(("and", 1));
            len = n;
            if text == "'" {
                c = '\'';
            } else {
                if text == "and" {
                    out.push(Token { text: "and".into(), start: i, end: i + n, capital: false });
                }
                open = false;
                i += n;
                continue;
            }
        }
        if c.is_alphanumeric() {
            if !open {
                out.push(Token { text: String::new(), start: i, end: i, capital: c.is_uppercase() });
                open = true;
            }
            if let Some(t) = out.last_mut() {
                fold(c, &mut t.text);
                t.end = i + len;
            }
        } else if !matches!(c, '\'' | '\u{2019}' | '\u{301}')
            || !s[i + len..].starts_with(|n: char| n.is_alphanumeric())
        {
            open = false;
        }
        i += len;
    }
    out
}

/// The year in brackets right after token `j`, and the byte past its closing bracket.
pub(super) fn year_after(text: &str, toks: &[Token], j: usize) -> Option<(u16, usize)> {
    let y = toks.get(j + 1)?;
    let year = (y.text.len() == 4).then(|| y.text.parse::<u16>().ok()).flatten()?;
    let gap = text[toks[j].end..y.start].trim_end();
    let opens = gap.strip_suffix('(')?.chars().all(|c| c.is_whitespace() || "\"'\u{201d}.!?:,*".contains(c));
    (opens && (1880..2100).contains(&year)).then_some(())?;
    let rest = &text[y.end..];
    let close = rest.len() - rest.trim_start().len();
    rest[close..].starts_with(')').then_some((year, y.end + close + 1))
}

/// Whether the bytes `start..end` stand in quotes (or asterisks).
pub(super) fn quoted(text: &str, start: usize, end: usize) -> bool {
    let before = text[..start].trim_end();
    let after = text[end..].trim_start_matches([' ', '.', ',', '!', '?']);
    let open = before.ends_with(['"', '\u{201c}', '*', '\u{2018}', '\u{ab}'])
        || before.ends_with("&quot;")
        || (before.ends_with('\'') && before.len() + 1 >= start);
    let close =
        after.starts_with(['"', '\u{201d}', '*', '\u{2019}', '\'', '\u{bb}']) || after.starts_with("&quot;");
    open && close
}

/// Whether a gap between two tokens ends a sentence or a title.
pub(super) fn sentence_break(gap: &str) -> bool {
    gap.contains([')', '(', '"', '\n', '\u{201c}', '\u{201d}', ';'])
        || gap.contains(". ")
        || gap.contains("! ")
        || gap.contains("? ")
}
