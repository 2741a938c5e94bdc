//! Keys: from the environment or a file of the owner alone; never in a message, a log or a result.

use std::fmt;
use std::path::Path;

use ecr_core::{Error, Result, io};

/// A key. It cannot be printed.
#[derive(Clone, Default)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "no key" } else { "a key" })
    }
}

impl Secret {
    /// A key, trimmed. Empty is none.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Config`] if it cannot stand in a header.
    pub fn new(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.chars().any(|c| !c.is_ascii_graphic()) {
            return Err(Error::config("read the key of the judge")
                .expected("one word of printable ASCII")
                .got("blanks, line ends or other characters (the key is not shown)"));
        }
        Ok(Self(text.into()))
    }
    /// From a file that only its owner can read.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Config`] if others can, [`ecr_core::Kind::Io`] if it cannot be read.
    pub fn from_file(path: &Path) -> Result<Self> {
        Self::new(&io::read_private(path)?)
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The value of the authorization header.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }
    /// `text` without the key, should a server have sent it back.
    pub(crate) fn scrub(&self, text: &str) -> String {
        if self.0.is_empty() { text.into() } else { text.replace(&self.0, "***") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let k = Secret::new(" sk-123 \n").unwrap();
        assert!(!format!("{k:?}").contains("123"));
        assert_eq!(k.bearer(), "Bearer sk-123");
        assert_eq!(k.scrub("bad key sk-123!"), "bad key ***!");
        let e = Secret::new("sk-123\nX-Evil: 1").unwrap_err();
        assert!(!e.to_string().contains("123"));
    }
}
