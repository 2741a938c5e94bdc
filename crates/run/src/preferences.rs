//! Preference files in TRL's JSONL formats: one object a line with `prompt`, `chosen` and `rejected`, each a text
//! (standard) or a list of messages (conversational). Written are texts; other keys, which TRL ignores, say where a pair
//! comes from.

use std::path::Path;

use ecr_core::{Error, Result, io};
use serde::{Deserialize, Serialize};

/// A message of TRL's conversational format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spoken {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// A text, or messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Said {
    /// As it is, template included where there is one.
    Text(String),
    /// To go through the chat template.
    Messages(Vec<Spoken>),
}

impl Said {
    /// The text, or that of the last message.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(t) => t,
            Self::Messages(m) => m.last().map_or("", |m| m.content.as_str()),
        }
    }
}

/// One pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Preference {
    /// What was answered.
    pub prompt: Said,
    /// Preferred response.
    pub chosen: Said,
    /// The other.
    pub rejected: Said,
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
        let empty = [&p.prompt, &p.chosen, &p.rejected].iter().any(|t| t.text().trim().is_empty());
        if empty || p.chosen.text() == p.rejected.text() {
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
        let text = |t: &str| Said::Text(t.into());
        let pair = Preference {
            prompt: text("Hello"),
            chosen: text("Hi \"there\""),
            rejected: text("No"),
            chosen_by: Some("teacher-0".into()),
            rejected_by: None,
        };
        write(&path, std::slice::from_ref(&pair)).unwrap();
        assert_eq!(read(&path).unwrap(), [pair]);
        // TRL's conversational format.
        let line = r#"{"prompt":[{"role":"user","content":"Hi"}],"chosen":[{"role":"assistant","content":"Yes"}],"rejected":"No"}"#;
        io::atomic_write(&path, line.as_bytes()).unwrap();
        let p = &read(&path).unwrap()[0];
        assert_eq!((p.prompt.text(), p.chosen.text(), p.rejected.text()), ("Hi", "Yes", "No"));
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
