//! A judge behind an OpenAI-compatible server (llama.cpp, vLLM, Ollama, hosted ones).
//!
//! Limits: one total time a call, bytes of head and body, no redirects, no compressed bodies, https unless loopback,
//! no proxy on loopback. Nothing that a server says is trusted: the envelope is read strictly, the key is scrubbed
//! from what is quoted of it.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use ecr_core::{Error, Kind};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use ureq::Agent;
use ureq::http::Response;

use super::address::Address;
use super::secret::Secret;
use super::{Answer, Fault, Judge, Request};
use crate::scores::KEYS;

/// How the server is asked to constrain the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Constraint {
    /// `response_format` of type `json_schema`.
    Schema = 0,
    /// `response_format` of type `json_object`, with the schema where a server takes one there.
    Object = 1,
    /// None: the prompt alone.
    None = 2,
}

/// How to reach a server.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Where.
    pub address: Address,
    /// Name of the model, as the server knows it.
    pub model: String,
    /// Key, if it wants one.
    pub key: Secret,
    /// Longest time of one call, from connecting to the last byte.
    pub timeout: Duration,
    /// Most bytes of a body.
    pub body_most: u64,
    /// Most tokens of an answer.
    pub max_tokens: u32,
    /// Where to begin; a server that refuses one kind of constraint is asked with the next.
    pub constraint: Constraint,
    /// Seed sent along.
    pub seed: u64,
}

impl HttpOptions {
    /// The usual limits: 60 s, 256 KiB, 200 tokens.
    pub fn new(address: Address, model: &str) -> Self {
        Self {
            address,
            model: model.into(),
            key: Secret::default(),
            timeout: Duration::from_secs(60),
            body_most: 256 << 10,
            max_tokens: 200,
            constraint: Constraint::Schema,
            seed: 1,
        }
    }
}

/// The client.
pub struct HttpJudge {
    options: HttpOptions,
    agent: Agent,
    constraint: AtomicU8,
    /// Whether a constrained request was ever answered: then a refusal is about the question, not its form.
    proven: AtomicBool,
}

#[derive(Deserialize)]
struct Envelope {
    choices: Vec<Choice>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Said,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    role: Option<String>,
    content: String,
    #[serde(default)]
    refusal: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
}

fn passing(why: impl Into<String>) -> Fault {
    Fault::Passing { why: why.into(), wait: None }
}

impl HttpJudge {
    /// A client. Nothing is sent yet.
    pub fn new(options: HttpOptions) -> Self {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .https_only(!options.address.loopback)
            .timeout_global(Some(options.timeout))
            .max_response_header_size(16 << 10)
            .accept("application/json")
            .user_agent(concat!("ecr/", env!("CARGO_PKG_VERSION")));
        if options.address.loopback {
            config = config.proxy(None);
        }
        let constraint = AtomicU8::new(options.constraint as u8);
        Self { agent: config.build().new_agent(), options, constraint, proven: AtomicBool::new(false) }
    }

    /// The constraint in use now.
    pub fn constraint(&self) -> Constraint {
        match self.constraint.load(Ordering::Relaxed) {
            0 => Constraint::Schema,
            1 => Constraint::Object,
            _ => Constraint::None,
        }
    }

    fn body(&self, r: &Request, constraint: Constraint) -> String {
        let o = &self.options;
        let mut body = json!({
            "model": o.model, "messages": r.messages, "temperature": r.temperature, "max_tokens": o.max_tokens,
            "seed": o.seed, "n": 1, "stream": false,
        });
        let properties: serde_json::Map<String, Json> = KEYS
            .iter()
            .map(|k| ((*k).into(), json!({"type": "number", "minimum": 0, "maximum": 1})))
            .collect();
        let schema = json!({"type": "object", "properties": properties, "required": KEYS, "additionalProperties": false});
        match constraint {
            Constraint::Schema => {
                body["response_format"] = json!({"type": "json_schema",
                    "json_schema": {"name": "scores", "strict": true, "schema": schema}});
            }
            Constraint::Object => body["response_format"] = json!({"type": "json_object", "schema": schema}),
            Constraint::None => {}
        }
        body.to_string()
    }

    fn call(&self, r: &Request) -> Result<Answer, Fault> {
        let o = &self.options;
        let constraint = self.constraint();
        let url = format!("{}/chat/completions", o.address.base);
        let mut request = self.agent.post(&url).header("content-type", "application/json");
        if !o.key.is_empty() {
            request = request.header("authorization", o.key.bearer());
        }
        let mut response =
            request.send(self.body(r, constraint)).map_err(|e| passing(o.key.scrub(&e.to_string())))?;
        let status = response.status().as_u16();
        match status {
            200 => {
                self.proven.store(true, Ordering::Relaxed);
                self.answer(&mut response)
            }
            300..=399 => Err(Fault::Fatal(self.fatal(
                format!("a redirect ({status})"),
                "redirects are not followed: give the final address",
            ))),
            401 | 403 => Err(Fault::Fatal(self.fatal(
                format!("status {status}: {}", self.excerpt(&mut response)),
                "check the key: --key-env names an environment variable, --key-file a file of mode 0600",
            ))),
            404 => Err(Fault::Fatal(self.fatal(
                format!("status 404: {}", self.excerpt(&mut response)),
                "the address ends in /v1 as a rule; --model is a name that the server knows",
            ))),
            400 | 422 if constraint != Constraint::None && !self.proven.load(Ordering::Relaxed) => {
                // Perhaps it does not know this kind of constraint: the next call asks with the next.
                let next = constraint as u8 + 1;
                self.constraint.fetch_max(next, Ordering::Relaxed);
                Err(passing(format!("status {status} to a constrained request")))
            }
            400 | 413 | 422 => {
                Err(Fault::Refused(format!("status {status}: {}", self.excerpt(&mut response))))
            }
            // `llama_cpp.server` answers so when it does not know a kind of constraint, and names the field.
            500 if constraint != Constraint::None
                && !self.proven.load(Ordering::Relaxed)
                && self.excerpt(&mut response).contains("response_format") =>
            {
                self.constraint.fetch_max(constraint as u8 + 1, Ordering::Relaxed);
                Err(passing("status 500 to a constrained request"))
            }
            _ => {
                let wait = retry_after(&response);
                Err(Fault::Passing { why: format!("status {status}"), wait })
            }
        }
    }

    fn fatal(&self, got: String, hint: &str) -> Error {
        Error::new(Kind::Network, format!("ask the judge at {}", self.options.address.base))
            .got(got)
            .files("what was scored so far is kept")
            .hint(hint)
    }

    /// The beginning of an error's body, fit to be shown.
    fn excerpt(&self, response: &mut Response<ureq::Body>) -> String {
        let bytes = response.body_mut().with_config().limit(4096).read_to_vec().unwrap_or_default();
        let text: String = String::from_utf8_lossy(&bytes)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(2000)
            .collect();
        self.options.key.scrub(&text).chars().take(200).collect()
    }

    fn answer(&self, response: &mut Response<ureq::Body>) -> Result<Answer, Fault> {
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !kind.is_empty() && kind != "application/json" {
            return Err(passing(format!("a body of type {}", kind.chars().take(40).collect::<String>())));
        }
        let body = response
            .body_mut()
            .with_config()
            .limit(self.options.body_most)
            .read_to_vec()
            .map_err(|e| passing(self.options.key.scrub(&e.to_string())))?;
        let e: Envelope = serde_json::from_slice(&body)
            .map_err(|e| passing(format!("a body that is no chat completion: {e}")))?;
        let [choice] = e.choices.as_slice() else {
            return Err(passing(format!("{} choices for one", e.choices.len())));
        };
        if choice.message.refusal.as_ref().is_some_and(|r| !r.is_empty()) {
            return Err(passing("a refusal"));
        }
        if choice.message.role.as_deref().is_some_and(|r| r != "assistant") {
            return Err(passing("an answer in another role"));
        }
        if let Some(reason @ ("length" | "content_filter" | "tool_calls" | "function_call" | "error")) =
            choice.finish_reason.as_deref()
        {
            return Err(passing(format!("an answer that ended by `{reason}`")));
        }
        let usage = e.usage.as_ref();
        Ok(Answer {
            text: choice.message.content.clone(),
            prompt_tokens: usage.and_then(|u| u.prompt_tokens),
            completion_tokens: usage.and_then(|u| u.completion_tokens),
        })
    }
}

/// `Retry-After` in seconds; a date is left to the usual back-off.
fn retry_after(response: &Response<ureq::Body>) -> Option<Duration> {
    let text = response.headers().get("retry-after")?.to_str().ok()?;
    let seconds: f64 = text.trim().parse().ok()?;
    (0.0..=86_400.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

impl Judge for HttpJudge {
    fn identity(&self) -> String {
        // Not the address: the same model elsewhere is the same judge. Not the constraint: it shapes, not scores.
        format!(
            "http {} max_tokens={} seed={}",
            self.options.model, self.options.max_tokens, self.options.seed
        )
    }
    fn ask(&self, requests: &[Request]) -> Vec<Result<Answer, Fault>> {
        requests.iter().map(|r| self.call(r)).collect()
    }
}
