//! `--name value` and `--name`, checked against what a command knows.

use std::collections::BTreeMap;
use std::str::FromStr;

/// Parsed flags of one command.
pub(crate) struct Args(BTreeMap<String, String>);

impl Args {
    /// Parses `words`; `valued` take a value, `switches` none. Any other word is an error.
    pub(crate) fn parse(words: &[String], valued: &[&str], switches: &[&str]) -> Result<Self, String> {
        let mut found = BTreeMap::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (name, inline) = match word.split_once('=') {
                Some((n, v)) => (n, Some(v.to_owned())),
                None => (word.as_str(), None),
            };
            let value = if valued.contains(&name) {
                inline.or_else(|| words.next().cloned()).ok_or(format!("`{name}` needs a value"))?
            } else if switches.contains(&name) && inline.is_none() {
                String::new()
            } else {
                return Err(format!(
                    "unknown flag `{word}`; known: {} {}",
                    valued.join(" "),
                    switches.join(" ")
                ));
            };
            found.insert(name.to_owned(), value);
        }
        Ok(Self(found))
    }

    /// Whether a switch was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Text of a flag.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Number of a flag, or `default`.
    pub(crate) fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        match self.text(name) {
            None => Ok(default),
            Some(v) => v.parse().map_err(|_| format!("`{name}` needs a number, got `{v}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Args;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(String::from).collect()
    }

    #[test]
    fn flags_are_read_and_strangers_refused() {
        let a = Args::parse(&words("--runs 3 --keep --seed=9"), &["--runs", "--seed"], &["--keep"]).unwrap();
        assert_eq!(a.number("--runs", 30).unwrap(), 3);
        assert_eq!(a.number("--seed", 1).unwrap(), 9);
        assert!(a.has("--keep"));
        assert!(Args::parse(&words("--rusn 3"), &["--runs"], &[]).is_err());
        assert!(Args::parse(&words("--runs"), &["--runs"], &[]).is_err());
        let a = Args::parse(&words("--runs many"), &["--runs"], &[]).unwrap();
        assert!(a.number("--runs", 1).is_err());
    }
}
