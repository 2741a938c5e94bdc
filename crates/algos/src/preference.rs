//! Preference data in TRL's JSONL format: one `{"prompt", "chosen", "rejected"}` a line, each a text or a list of chat
//! messages. Lines only; the caller reads and writes files.

use ecr_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// One chat message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// Its text.
    pub content: String,
}

/// A text, plain or as messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Text {
    /// Plain.
    Plain(String),
    /// Chat messages, in order.
    Messages(Vec<Message>),
}

impl Text {
    fn is_empty(&self) -> bool {
        match self {
            Self::Plain(s) => s.is_empty(),
            Self::Messages(m) => m.iter().all(|m| m.content.is_empty()),
        }
    }
}

/// One preference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What both replies answer.
    pub prompt: Text,
    /// The preferred reply.
    pub chosen: Text,
    /// The other.
    pub rejected: Text,
    /// Everything else on the line, kept as it came.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Record {
    /// Reads line `number` (1-based). Without `prompt` (TRL's implicit form) both replies begin with it: what they have
    /// in common is split off.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Data`] with the line's number for what is not such a record, has an empty part or two equal
    /// replies.
    pub fn parse(line: &str, number: usize) -> Result<Self> {
        let wrong = |got: String| {
            Error::data(format!("read preference line {number}"))
                .expected("{\"prompt\": …, \"chosen\": …, \"rejected\": …}, texts or lists of messages")
                .got(got)
        };
        let mut json: serde_json::Value = serde_json::from_str(line).map_err(|e| wrong(e.to_string()))?;
        let implicit = json.as_object().is_some_and(|o| !o.contains_key("prompt"));
        if let Some(object) = json.as_object_mut().filter(|_| implicit) {
            object.insert("prompt".to_owned(), serde_json::Value::String(String::new()));
        }
        let mut record: Self = serde_json::from_value(json).map_err(|e| wrong(e.to_string()))?;
        if implicit {
            record.split_prompt();
        }
        for (name, part) in
            [("prompt", &record.prompt), ("chosen", &record.chosen), ("rejected", &record.rejected)]
        {
            if part.is_empty() {
                return Err(wrong(format!("an empty {name}")));
            }
        }
        if record.chosen == record.rejected {
            return Err(wrong("two equal replies".to_owned()));
        }
        Ok(record)
    }
    /// The record as a line, without the line's end.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Internal`] if it cannot be written as JSON.
    pub fn line(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::internal(format!("write a preference: {e}")))
    }
    /// Moves the common beginning of both replies into the prompt; texts are split at a character, and a space at the
    /// seam goes to the replies, as TRL does it.
    fn split_prompt(&mut self) {
        match (&self.chosen, &self.rejected) {
            (Text::Plain(a), Text::Plain(b)) => {
                let common = a.chars().zip(b.chars()).take_while(|(x, y)| x == y);
                let mut n: usize = common.map(|(c, _)| c.len_utf8()).sum();
                if a[..n].ends_with(' ') {
                    n -= 1;
                }
                self.prompt = Text::Plain(a[..n].to_owned());
                (self.chosen, self.rejected) =
                    (Text::Plain(a[n..].to_owned()), Text::Plain(b[n..].to_owned()));
            }
            (Text::Messages(a), Text::Messages(b)) => {
                let n = a.iter().zip(b).take_while(|(x, y)| x == y).count();
                self.prompt = Text::Messages(a[..n].to_vec());
                (self.chosen, self.rejected) =
                    (Text::Messages(a[n..].to_vec()), Text::Messages(b[n..].to_vec()));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(s: &str) -> Text {
        Text::Plain(s.to_owned())
    }

    #[test]
    fn texts_and_messages_go_out_as_they_came_in() {
        for line in [
            r#"{"prompt":"Hi.","chosen":" Hello!","rejected":" Go.","round":2}"#,
            r#"{"prompt":[{"role":"user","content":"Hi"}],"chosen":[{"role":"assistant","content":"Hello"}],"rejected":[{"role":"assistant","content":"Go"}]}"#,
        ] {
            assert_eq!(Record::parse(line, 1).unwrap().line().unwrap(), line);
        }
    }

    #[test]
    fn an_implicit_prompt_is_split_off() {
        let r = Record::parse(r#"{"chosen":"The sky is blue.","rejected":"The sky is é."}"#, 1).unwrap();
        assert_eq!((r.prompt, r.chosen, r.rejected), (plain("The sky is"), plain(" blue."), plain(" é.")));
        let line = r#"{"chosen":[{"role":"user","content":"q"},{"role":"assistant","content":"a"}],"rejected":[{"role":"user","content":"q"},{"role":"assistant","content":"b"}]}"#;
        let r = Record::parse(line, 1).unwrap();
        let message = |role: &str, content: &str| {
            Text::Messages(vec![Message { role: role.to_owned(), content: content.to_owned() }])
        };
        assert_eq!((r.prompt, r.chosen), (message("user", "q"), message("assistant", "a")));
    }

    #[test]
    fn what_cannot_be_learnt_from_is_named_with_its_line() {
        for (line, why) in [
            ("{", "EOF"),
            (r#"{"prompt":"a","chosen":"b"}"#, "rejected"),
            (r#"{"prompt":"a","chosen":"b","rejected":3}"#, "variant"),
            (r#"{"prompt":"","chosen":"b","rejected":"c"}"#, "an empty prompt"),
            (r#"{"prompt":"a","chosen":"b","rejected":"b"}"#, "two equal replies"),
            (r#"{"chosen":"b","rejected":"c"}"#, "an empty prompt"),
        ] {
            let e = Record::parse(line, 7).unwrap_err();
            assert!(e.to_string().contains("line 7") && e.to_string().contains(why), "{line}: {e}");
        }
    }
}
