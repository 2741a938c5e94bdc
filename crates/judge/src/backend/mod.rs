//! Where answers come from.

pub mod address;
pub mod embedded;
pub mod http;
pub mod secret;

use std::time::Duration;

use ecr_core::Error;

use crate::prompt::Message;

/// One question.
#[derive(Debug, Clone)]
pub struct Request {
    /// System and user message.
    pub messages: [Message; 2],
    /// 0 is greedy; rises with each answer that could not be read.
    pub temperature: f64,
}

/// One answer, not read yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The generated suffix and nothing else.
    pub text: String,
    /// Tokens of the prompt, if the backend counts.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer, if the backend counts.
    pub completion_tokens: Option<u64>,
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It may go better another time: connection, time-out, overload, an envelope that is none.
    Passing {
        /// What happened.
        why: String,
        /// What the server asked to wait.
        wait: Option<Duration>,
    },
    /// This question will never be answered (too long for the model).
    Refused(String),
    /// No question will be: wrong key, wrong address, wrong model.
    Fatal(Error),
}

/// A judge.
pub trait Judge: Sync {
    /// What identifies its opinions: model, backend, decoding. Two judges of one identity give the same scores.
    fn identity(&self) -> String;
    /// Questions that it takes at once.
    fn batch(&self) -> usize {
        1
    }
    /// Answers `requests`, in order.
    fn ask(&self, requests: &[Request]) -> Vec<Result<Answer, Fault>>;
}
