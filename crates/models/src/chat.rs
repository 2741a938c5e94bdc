//! Chat templates: conversations to token ids, with the loss mask of the assistant's turns.
//!
//! A dialogue's tokens are made piece by piece, a turn at a time, so that `prompt tokens + response tokens + end
//! token` of generation are exactly the training tokens of the same dialogue.

use std::sync::Arc;

use ecr_core::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Value, context};
use serde_json::Value as Json;

use crate::tokenizer::Tokenizer;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// What is said.
    pub content: String,
}

impl Message {
    /// Instructions.
    pub fn system(content: impl Into<String>) -> Self {
        Self { role: "system", content: content.into() }
    }
    /// The seeker.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user", content: content.into() }
    }
    /// The recommender.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self { role: "assistant", content: content.into() }
    }
}

/// ChatML, with every message as given (no default system message).
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \
                      '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
                      {% endif %}";

/// For models trained from scratch: a special token opens each turn, one ends it.
const PLAIN: &str = "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}\
                     {% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";

/// Special tokens of [`ChatTemplate::plain`]; the end token comes first.
pub const PLAIN_SPECIALS: [&str; 5] = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|pad|>"];

/// A template and the token that ends a turn.
#[derive(Clone)]
pub struct ChatTemplate {
    source: String,
    end: String,
    env: Arc<Environment<'static>>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate")
            .field("source", &self.source)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

impl ChatTemplate {
    /// A template in Jinja, as `tokenizer_config.json` holds it, and the token that ends a turn.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Data`] for a template that does not parse.
    pub fn new(source: &str, end: &str) -> Result<Self> {
        let mut env = Environment::new();
        // As transformers renders chat templates.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        env.set_syntax(syntax.map_err(|e| Error::internal("configure templates").got(e.to_string()))?);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_function("raise_exception", |m: String| -> std::result::Result<String, minijinja::Error> {
            Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, m))
        });
        env.add_template_owned("chat", source.to_string()).map_err(|e| {
            Error::data("read the chat template").expected("a Jinja template").got(e.to_string())
        })?;
        Ok(Self { source: source.to_string(), end: end.to_string(), env: Arc::new(env) })
    }
    /// ChatML.
    pub fn chatml() -> Result<Self> {
        Self::new(CHATML, "<|im_end|>")
    }
    /// The template of models trained from scratch here (see [`PLAIN_SPECIALS`]).
    pub fn plain() -> Result<Self> {
        Self::new(PLAIN, PLAIN_SPECIALS[0])
    }
    /// The template of a model's `tokenizer_config.json`, or ChatML where it has none and knows `<|im_start|>`.
    pub fn from_hf(config: &Json, tokenizer: &Tokenizer) -> Result<Self> {
        let end = config.get("eos_token").and_then(|e| e.as_str().or_else(|| e.get("content")?.as_str()));
        match config.get("chat_template").and_then(Json::as_str) {
            Some(source) => {
                let chatml = source.contains("<|im_end|>") && tokenizer.id("<|im_end|>").is_some();
                let end = if chatml { Some("<|im_end|>") } else { end };
                let end = end.ok_or_else(|| {
                    Error::data("read the chat template").expected("an eos_token in tokenizer_config.json")
                })?;
                Self::new(source, end)
            }
            None if tokenizer.id("<|im_start|>").is_some() => Self::chatml(),
            None => Err(Error::data("read the chat template")
                .expected("chat_template in tokenizer_config.json, or a tokenizer that knows <|im_start|>")
                .got("neither")
                .hint("add chat_template to the model's tokenizer_config.json")),
        }
    }
    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }
    /// The token that ends a turn.
    pub fn end_token(&self) -> &str {
        &self.end
    }
    /// Its id.
    pub fn end_id(&self, tokenizer: &Tokenizer) -> Result<u32> {
        tokenizer.need_id(&self.end)
    }
    /// The text of a conversation.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.render_values(&values(messages), add_generation_prompt)
    }
    fn render_values(&self, messages: &[Value], add_generation_prompt: bool) -> Result<String> {
        self.env
            .get_template("chat")
            .and_then(|t| t.render(context! { messages => messages, add_generation_prompt, bos_token => "", eos_token => self.end.as_str() }))
            .map_err(|e| Error::data("render a conversation by the chat template").got(e.to_string()))
    }
    /// The text before an assistant's words: the conversation so far and the opening of the turn. With nothing said
    /// before, a template may still write something first (SmolLM2's default system message), which only shows
    /// in the text of a conversation that has a message.
    fn opened(&self, before: &[Value]) -> Result<String> {
        if !before.is_empty() {
            return self.render_values(before, true);
        }
        let hint = "begin the conversation with a system or user message";
        let opening = self.render_values(&[], true).map_err(|e| e.hint(hint))?;
        let whole = self.render(&[Message::assistant("")], false).map_err(|e| e.hint(hint))?;
        match whole.find(&opening) {
            Some(p) if !opening.is_empty() => Ok(whole[..p + opening.len()].to_owned()),
            _ => Err(Error::data("open a conversation with the assistant's turn")
                .expected("a chat template that opens the turn as add_generation_prompt does")
                .got(format!("{opening:?} to open it and {whole:?} for an empty turn"))
                .hint(hint)),
        }
    }
    /// The text of a conversation in runs, those of the assistant's words and end tokens marked; with `open`, the
    /// last run ends with the opening of the assistant's turn. Text between two targets is one run, so that it is
    /// tokenised the same in a prompt and in training. Rendering everything up to each target keeps templates free
    /// to look at earlier messages; a template that rewrites earlier text is refused.
    fn runs(&self, messages: &[Message], open: bool) -> Result<Vec<(String, bool)>> {
        let list = values(messages);
        let mut out = Vec::new();
        let (mut done, mut pending) = (String::new(), String::new());
        for (i, m) in messages.iter().enumerate() {
            if m.role != "assistant" {
                continue;
            }
            let opened = self.opened(&list[..i])?;
            pending.push_str(appended(&done, &opened)?);
            out.push((std::mem::take(&mut pending), false));
            done = self.render_values(&list[..=i], false)?;
            let said = appended(&opened, &done)?;
            // The loss covers what is said and the end token, not what follows it.
            let Some(p) = said.rfind(&self.end) else {
                return Err(Error::data("split a conversation into turns")
                    .expected(format!("a chat template that ends the assistant's turn with {}", self.end))
                    .got(format!("one that writes {:?}", said.chars().take(200).collect::<String>()))
                    .hint("set eos_token in tokenizer_config.json to the token that the template writes after a turn"));
            };
            let (said, after) = said.split_at(p + self.end.len());
            out.push((said.to_owned(), true));
            pending.push_str(after);
        }
        if open {
            pending.push_str(appended(&done, &self.opened(&list)?)?);
        } else if messages.last().is_some_and(|m| m.role != "assistant") {
            pending.push_str(appended(&done, &self.render_values(&list, false)?)?);
        }
        out.push((pending, false));
        Ok(out)
    }
    /// Tokens of a whole dialogue and its loss mask: the assistant's words and end tokens, both `[T]`.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Data`] for a template that fails, rewrites earlier turns, or does not end a turn with the
    /// end token.
    pub fn encode_dialogue(
        &self,
        messages: &[Message],
        tokenizer: &Tokenizer,
    ) -> Result<(Vec<u32>, Vec<bool>)> {
        let (mut tokens, mut mask) = (Vec::new(), Vec::new());
        for (text, target) in self.runs(messages, false)? {
            tokens.extend(tokenizer.encode(&text)?);
            mask.resize(tokens.len(), target);
        }
        Ok((tokens, mask))
    }
    /// Tokens of a conversation and the opening of the assistant's turn, `[T]`; errors as
    /// [`ChatTemplate::encode_dialogue`].
    pub fn encode_prompt(&self, messages: &[Message], tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        for (text, _) in self.runs(messages, true)? {
            tokens.extend(tokenizer.encode(&text)?);
        }
        Ok(tokens)
    }
}

/// Messages as a template sees them.
fn values(messages: &[Message]) -> Vec<Value> {
    let value = |m: &Message| {
        Value::from_pairs([("role", Value::from(m.role)), ("content", Value::from(m.content.as_str()))])
    };
    messages.iter().map(value).collect()
}

/// What `now` has after `done`.
fn appended<'a>(done: &str, now: &'a str) -> Result<&'a str> {
    now.strip_prefix(done).ok_or_else(|| {
        Error::data("split a conversation into turns")
            .expected("a chat template that only appends")
            .got("one that rewrites earlier turns")
            .hint("replace chat_template in tokenizer_config.json by one that writes each turn once")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> (ChatTemplate, Tokenizer) {
        let texts = ["hello there", "have you seen Alien (1979)?", "no, tell me more"];
        (ChatTemplate::plain().unwrap(), Tokenizer::train(texts.iter(), 300, &PLAIN_SPECIALS).unwrap())
    }

    #[test]
    fn the_mask_covers_the_assistant_and_its_end() {
        let (chat, tok) = plain();
        let messages = [
            Message::user("hello there"),
            Message::assistant("have you seen Alien (1979)?"),
            Message::user("no"),
        ];
        let (ids, mask) = chat.encode_dialogue(&messages, &tok).unwrap();
        let said: Vec<u32> = ids.iter().zip(&mask).filter(|(_, m)| **m).map(|(i, _)| *i).collect();
        assert_eq!(tok.decode(&said, false).unwrap(), "have you seen Alien (1979)?<|end|>");
    }

    #[test]
    fn prompt_response_and_end_are_the_training_tokens() {
        let (chat, tok) = plain();
        let chatml = ChatTemplate::chatml().unwrap();
        let marks = ["<|im_start|>", "<|im_end|>"];
        let tok2 = Tokenizer::train(["hello there assistant user system"].iter(), 300, &marks).unwrap();
        for (chat, tok) in [(&chat, &tok), (&chatml, &tok2)] {
            let context = [
                Message::system("be kind"),
                Message::user("hello there"),
                Message::assistant("no"),
                Message::user("hi"),
            ];
            let mut whole = context.to_vec();
            whole.push(Message::assistant("tell me more"));
            let (ids, mask) = chat.encode_dialogue(&whole, tok).unwrap();
            let mut made = chat.encode_prompt(&context, tok).unwrap();
            made.extend(tok.encode("tell me more").unwrap());
            made.push(chat.end_id(tok).unwrap());
            assert_eq!(made, ids[..made.len()]);
            assert!(mask[made.len() - 1] && !mask[made.len()..].contains(&true));
        }
    }

    #[test]
    fn a_broken_template_is_named() {
        let e = ChatTemplate::new("{% for %}", "x").unwrap_err();
        assert_eq!(e.kind, ecr_core::Kind::Data);
    }

    #[test]
    fn a_template_without_end_token_or_that_rewrites_is_refused() {
        let (_, tok) = plain();
        let talk =
            [Message::user("hi"), Message::assistant("hello"), Message::user("no"), Message::assistant("x")];
        let endless = ChatTemplate::new("{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}", "<|end|>").unwrap();
        let e = endless.encode_dialogue(&talk, &tok).unwrap_err();
        assert!(e.to_string().contains("ends the assistant's turn with <|end|>"), "{e}");
        let counting = ChatTemplate::new(
            "{{ messages|length }}{% for m in messages %}{{ m.content + '<|end|>' }}{% endfor %}",
            "<|end|>",
        )
        .unwrap();
        let e = counting.encode_dialogue(&talk, &tok).unwrap_err();
        assert!(e.to_string().contains("rewrites earlier turns"), "{e}");
    }
}
