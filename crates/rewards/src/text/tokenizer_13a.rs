//! The `13a` tokenizer of sacrebleu 2.6.0 (mteval-v13a of WMT): punctuation apart, numbers kept whole.

/// Tokens of `text` by the rules of `13a`, case kept.
pub fn tokenize_13a(text: &str) -> Vec<String> {
    let mut line = text.trim_end().replace("<skipped>", "").replace("-\n", "").replace('\n', " ");
    if line.contains('&') {
        line = line.replace("&quot;", "\"").replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">");
    }
    let mut chars = vec![' '];
    for c in line.chars() {
        if matches!(c, '{'..='~' | '['..='`' | ' '..='&' | '('..='+' | ':'..='@' | '/') {
            chars.extend([' ', c, ' ']);
        } else {
            chars.push(c);
        }
    }
    chars.push(' ');
    let digit = |c: char| c.is_ascii_digit();
    let stop = |c: char| c == '.' || c == ',';
    let chars = pairs(&chars, |a, b| (!digit(a) && stop(b)).then_some([a, ' ', b, ' ']));
    let chars = pairs(&chars, |a, b| (stop(a) && !digit(b)).then_some([' ', a, ' ', b]));
    let chars = pairs(&chars, |a, b| (digit(a) && b == '-').then_some([a, ' ', b, ' ']));
    chars.into_iter().collect::<String>().split_whitespace().map(str::to_owned).collect()
}

/// Replaces adjacent pairs from left to right, never overlapping: what `re.sub` does with a pattern of two.
fn pairs(chars: &[char], rule: impl Fn(char, char) -> Option<[char; 4]>) -> Vec<char> {
    let mut out = Vec::with_capacity(chars.len() * 2);
    let mut i = 0;
    while i < chars.len() {
        match chars.get(i + 1).and_then(|&b| rule(chars[i], b)) {
            Some(four) => {
                out.extend(four);
                i += 2;
            }
            None => {
                out.push(chars[i]);
                i += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::tokenize_13a;

    #[test]
    fn numbers_stay_whole_and_punctuation_comes_apart() {
        assert_eq!(tokenize_13a("Up (2009), at 3.14!"), ["Up", "(", "2009", ")", ",", "at", "3.14", "!"]);
        assert_eq!(tokenize_13a("5-year"), ["5", "-", "year"]);
    }
}
