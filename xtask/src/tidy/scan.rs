//! Just enough of Rust's lexical structure: code without comments, literals and tests.

/// `text` with comments, string and character literals blanked; lines stay where they are.
pub(super) fn code(text: &str) -> String {
    let s: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    let blank = |out: &mut String, from: usize, to: usize| {
        s[from..to].iter().for_each(|c| out.push(if *c == '\n' { '\n' } else { ' ' }));
    };
    while i < s.len() {
        let rest = |k: usize| s.get(i + k).copied().unwrap_or('\0');
        let word_before = i > 0 && (s[i - 1].is_alphanumeric() || s[i - 1] == '_');
        let end = if s[i] == '/' && rest(1) == '/' {
            (i..s.len()).find(|&k| s[k] == '\n').unwrap_or(s.len())
        } else if s[i] == '/' && rest(1) == '*' {
            comment_end(&s, i)
        } else if let Some(end) = (!word_before).then(|| raw_string_end(&s, i)).flatten() {
            end
        } else if s[i] == '"' {
            quoted_end(&s, i, '"')
        } else if s[i] == '\'' && (rest(1) == '\\' || rest(2) == '\'') {
            quoted_end(&s, i, '\'')
        } else {
            out.push(s[i]);
            i += 1;
            continue;
        };
        blank(&mut out, i, end);
        i = end;
    }
    out
}

fn comment_end(s: &[char], start: usize) -> usize {
    let (mut depth, mut i) = (0, start);
    while i + 1 < s.len() {
        match (s[i], s[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    s.len()
}

/// End of `r"…"`, `r#"…"#`, `br#"…"#` that starts at `start`.
fn raw_string_end(s: &[char], start: usize) -> Option<usize> {
    let mut i = start + usize::from(s[start] == 'b' || s[start] == 'c');
    if s.get(i) != Some(&'r') {
        return None;
    }
    i += 1;
    let hashes = s[i..].iter().take_while(|c| **c == '#').count();
    i += hashes;
    if s.get(i) != Some(&'"') {
        return None;
    }
    let closes = |k: usize| s[k] == '"' && s[k + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    Some((i + 1..s.len()).find(|&k| closes(k)).map_or(s.len(), |k| k + 1 + hashes))
}

fn quoted_end(s: &[char], start: usize, quote: char) -> usize {
    let mut i = start + 1;
    while i < s.len() && s[i] != quote {
        i += if s[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(s.len())
}

/// [`code`] without items under `#[cfg(test)]` or `#[test]`: they are blanked, lines stay where they are.
pub(super) fn shipped(text: &str) -> String {
    let mut s: Vec<char> = code(text).chars().collect();
    for mark in ["#[cfg(test)]", "#[cfg(all(test", "#[test]"] {
        let mark: Vec<char> = mark.chars().collect();
        while let Some(start) = s.windows(mark.len()).position(|w| w == mark) {
            let end = item_end(&s, start + mark.len());
            s[start..end].iter_mut().filter(|c| **c != '\n').for_each(|c| *c = ' ');
        }
    }
    s.into_iter().collect()
}

/// End of the item that begins at `start`: its `;` or its closing brace.
fn item_end(s: &[char], start: usize) -> usize {
    let mut depth = 0;
    for (i, c) in s.iter().enumerate().skip(start) {
        match c {
            ';' if depth == 0 => return i + 1,
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth <= 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
    }
    s.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = "let a = \"x.unwrap()\"; // b.unwrap()\nlet c = 'x'; /* d /* e */ f */ let l: &'static str = r#\"q\"z\"#;";
        let out = code(text);
        assert!(!out.contains("unwrap") && !out.contains('z') && !out.contains('f'), "{out}");
        assert!(out.contains("let c =") && out.contains("&'static str"), "{out}");
        assert_eq!(out.lines().count(), text.lines().count());
    }

    #[test]
    fn escaped_quotes_do_not_end_a_literal() {
        assert!(!code(r#"f("a\"b.unwrap()", '\'', "c")"#).contains("unwrap"));
        assert!(code(r#"('"', x.unwrap())"#).contains("unwrap"));
    }

    #[test]
    fn tests_are_cut_and_what_follows_stays() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { x.unwrap() } }\nfn c() { y.unwrap() }\n";
        let out = shipped(text);
        assert!(!out.contains("fn b") && out.contains("fn c() { y.unwrap() }"), "{out}");
        assert_eq!(out.lines().count(), text.lines().count());
        assert!(shipped("#[cfg(test)]\nmod tests;\nfn c() {}").contains("fn c"));
    }
}
