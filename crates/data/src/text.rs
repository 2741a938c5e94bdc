//! Cleaning of raw text: HTML entities and tags, whitespace.

/// Named HTML entities that are unescaped, beside numeric ones.
const ENTITIES: &[(&str, &str)] = &[
    ("quot", "\""),
    ("amp", "&"),
    ("lt", "<"),
    ("gt", ">"),
    ("apos", "'"),
    ("nbsp", " "),
    ("rsquo", "\u{2019}"),
    ("lsquo", "\u{2018}"),
    ("rdquo", "\u{201d}"),
    ("ldquo", "\u{201c}"),
    ("hellip", "\u{2026}"),
    ("mdash", "\u{2014}"),
    ("ndash", "\u{2013}"),
    ("eacute", "\u{e9}"),
    ("egrave", "\u{e8}"),
    ("uuml", "\u{fc}"),
    ("ouml", "\u{f6}"),
    ("auml", "\u{e4}"),
    ("ccedil", "\u{e7}"),
    ("ntilde", "\u{f1}"),
    ("copy", "\u{a9}"),
    ("trade", "\u{2122}"),
];

/// Reads an entity at the start of `s` (which begins with `&`): its text and its length in `s`.
fn entity(s: &str) -> Option<(String, usize)> {
    let end = s.char_indices().take(12).find(|&(_, c)| c == ';')?.0;
    let name = &s[1..end];
    let text = if let Some(hex) = name.strip_prefix("#x").or_else(|| name.strip_prefix("#X")) {
        char::from_u32(u32::from_str_radix(hex, 16).ok()?)?.to_string()
    } else if let Some(dec) = name.strip_prefix('#') {
        char::from_u32(dec.parse().ok()?)?.to_string()
    } else {
        ENTITIES.iter().find(|(n, _)| *n == name)?.1.to_string()
    };
    Some((text, end + 1))
}

/// Length of an HTML tag at the start of `s` (which begins with `<`), if there is one. `<movie>`-like tags
/// count, `<3` and `< 5` do not.
fn tag(s: &str) -> Option<usize> {
    let rest = s[1..].strip_prefix('/').unwrap_or(&s[1..]);
    if !rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return None;
    }
    let end = s.char_indices().take(200).find(|&(_, c)| c == '>')?.0;
    (!s[1..end].contains('<')).then_some(end + 1)
}

/// Whether the raw text holds an HTML entity or tag.
pub fn has_html(raw: &str) -> bool {
    raw.char_indices().any(|(i, c)| match c {
        '&' => entity(&raw[i..]).is_some(),
        '<' => tag(&raw[i..]).is_some(),
        _ => false,
    })
}

/// Unescapes HTML entities and drops HTML tags. Text that comes out of an entity is never read as a tag.
pub fn strip_html(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut i = 0;
    while let Some(c) = raw[i..].chars().next() {
        match c {
            '&' => {
                if let Some((text, n)) = entity(&raw[i..]) {
                    out.push_str(&text);
                    i += n;
                    continue;
                }
            }
            '<' => {
                if let Some(n) = tag(&raw[i..]) {
                    out.push(' ');
                    i += n;
                    continue;
                }
            }
            _ => {}
        }
        out.push(c);
        i += c.len_utf8();
    }
    out
}

/// Collapses every run of white space (line breaks included) to one space and trims.
pub fn collapse(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for w in s.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(w);
    }
    out
}

/// [`strip_html`], then [`collapse`]: what every raw text and title goes through. Non-ASCII text is kept.
pub fn clean(raw: &str) -> String {
    if raw.contains(['&', '<']) { collapse(&strip_html(raw)) } else { collapse(raw) }
}

/// Letters and digits only, lower case: equal for two spellings of the same sentence. For matching texts
/// across data sets, not for display.
pub fn fingerprint(s: &str) -> String {
    s.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entities_tags_and_spaces_go() {
        assert_eq!(
            clean("I &quot;love&quot;\n it &amp; <b>you</b> &#39;ok&#x27;"),
            "I \"love\" it & you 'ok'"
        );
        assert_eq!(clean("a <3 b & c < d"), "a <3 b & c < d");
        assert_eq!(clean("&amp;lt;"), "&lt;");
        assert_eq!(clean("Am\u{e9}lie  (2001) "), "Am\u{e9}lie (2001)");
        assert!(has_html("a &gt; b") && has_html("<br/>") && !has_html("R&B <3"));
    }
}
