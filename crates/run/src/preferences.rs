//! Preference files in TRL's standard format: one JSON object a line with `prompt`, `chosen` and `rejected`. Other keys
//! (TRL ignores them) are kept apart: where the pair comes from.

use std::path::Path;

use ecr_core::{Error, Result, io};
use serde::{Deserialize, Serialize};

/// One pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preference {
    /// Prompt as text, template included.
    pub prompt: String,
    /// Preferred response.
    pub chosen: String,
    /// The other.
    pub rejected: String,
    /// Who said the preferred one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chosen_by: Option<String>,
    /// Who said the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected_by: Option<String>,
}

/// Writes pairs.
pub fn write(path: &Path, pairs: &[Preference]) -> Result<()> {
    let mut text = String::new();
    for p in pairs {
        text += &serde_json::to_string(p).map_err(|e| Error::internal(format!("write a pair: {e}")))?;
        text.push('\n');
    }
    io::atomic_write(path, text.as_bytes())
}

/// Reads pairs.
///
/// # Errors
/// Data: a line that is not such an object, or has an empty side or two equal sides, by file and line.
pub fn read(path: &Path) -> Result<Vec<Preference>> {
    let text = io::read_to_string(path)?;
    let mut out = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
        let bad = |got: String| {
            Error::data(format!("read pair {}:{}", path.display(), i + 1))
                .expected("an object with prompt, chosen and rejected, the last two different and not empty")
                .got(got)
                .files("nothing was changed")
        };
        let p: Preference = serde_json::from_str(line).map_err(|e| bad(e.to_string()))?;
        if [&p.prompt, &p.chosen, &p.rejected].iter().any(|t| t.trim().is_empty()) || p.chosen == p.rejected {
            return Err(bad(line.chars().take(80).collect()));
        }
        out.push(p);
    }
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
        let pair = Preference {
            prompt: "Hello".into(),
            chosen: "Hi \"there\"".into(),
            rejected: "No".into(),
            chosen_by: Some("teacher-0".into()),
            rejected_by: None,
        };
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
