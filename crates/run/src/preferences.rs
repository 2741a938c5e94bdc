//! Files of preferences: lines of [`ecr_algos::preference::Record`] (TRL's JSONL).

use std::path::Path;

use ecr_algos::preference::{Record, Text};
use ecr_core::{Error, Result, io};

/// A text, or that of the last message.
pub fn text(t: &Text) -> &str {
    match t {
        Text::Plain(t) => t,
        Text::Messages(m) => m.last().map_or("", |m| m.content.as_str()),
    }
}

/// Writes pairs.
pub fn write(path: &Path, pairs: &[Record]) -> Result<()> {
    let mut out = String::new();
    for p in pairs {
        out += &p.line()?;
        out.push('\n');
    }
    io::atomic_write(path, out.as_bytes())
}

/// Reads pairs; empty lines are passed over.
///
/// # Errors
/// Data: no pairs, or a line that is none, by file and line.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let file = io::read_to_string(path)?;
    let lines = file.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    let one = |(i, line): (usize, &str)| {
        Record::parse(line, i + 1).map_err(|mut e| {
            e.operation = format!("{} of {}", e.operation, path.display());
            e.files("nothing was changed")
        })
    };
    let out = lines.map(one).collect::<Result<Vec<_>>>()?;
    if out.is_empty() {
        return Err(Error::data(format!("read {}", path.display()))
            .expected("at least one pair")
            .got("none"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_round_trip_and_bad_lines_are_named() {
        let dir = std::env::temp_dir().join(format!("ecr-preferences-{}", std::process::id()));
        let path = dir.join("pairs.jsonl");
        let line =
            r#"{"prompt":[{"role":"user","content":"Hi"}],"chosen":"Yes","rejected":"No","by":"teacher"}"#;
        let pair = Record::parse(line, 1).unwrap();
        assert_eq!((text(&pair.prompt), text(&pair.chosen)), ("Hi", "Yes"));
        write(&path, std::slice::from_ref(&pair)).unwrap();
        assert_eq!(read(&path).unwrap(), [pair]);
        for bad in
            [r#"{"prompt":"a","chosen":"b","rejected":"b"}"#, r#"{"prompt":"a","chosen":"b"}"#, "x", ""]
        {
            io::atomic_write(&path, format!("\n{bad}\n").as_bytes()).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains("pairs.jsonl"), "{error}");
        }
        io::remove_dir_all(&dir).unwrap();
    }
}
