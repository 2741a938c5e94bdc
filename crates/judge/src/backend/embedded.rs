//! A judge on our own engine: no server, no network, and no answer that cannot be read.

use std::path::Path;
use std::sync::Mutex;

use ecr_core::seam::{Decoding, Generator};
use ecr_core::{Error, Params, Result, Stream, io};
use ecr_kernels::Engine;
use ecr_models::chat::{self, ChatTemplate};
use ecr_models::generate::LlamaGenerator;
use ecr_models::load::load_model;
use ecr_models::tokenizer::Tokenizer;

use super::{Answer, Fault, Judge, Request};
use crate::grammar::ScoreGrammar;

/// The judge.
pub struct EmbeddedJudge {
    name: String,
    tokenizer: Tokenizer,
    chat: ChatTemplate,
    grammar: ScoreGrammar,
    params: Params,
    generator: Mutex<LlamaGenerator>,
    batch: usize,
    longest: usize,
}

impl EmbeddedJudge {
    /// Loads a model directory or GGUF file; asks about `batch` items at once.
    ///
    /// # Errors
    /// As [`load_model`]; [`ecr_core::Kind::Data`] for a model without tokenizer or chat template.
    pub fn load(path: &Path, engine: Engine, batch: usize) -> Result<Self> {
        let m = load_model(path)?;
        let (tokenizer, chat) = (m.tokenizer()?.clone(), m.chat_template()?);
        let end = chat.end_id(&tokenizer)?;
        let config = m.llama()?.clone();
        let longest = config.max_position_embeddings;
        let file = path.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy().into_owned());
        let weights: Vec<u8> = m.params.data.iter().step_by(997).flat_map(|x| x.to_le_bytes()).collect();
        Ok(Self {
            name: format!("{file} {}", &io::blake3(&weights)[..12]),
            grammar: ScoreGrammar::new(&tokenizer, end)?,
            generator: Mutex::new(LlamaGenerator::full(config, engine, vec![end], batch).store_bf16(true)),
            params: m.params,
            tokenizer,
            chat,
            batch,
            longest,
        })
    }

    fn prompt(&self, r: &Request) -> Result<Vec<u32>> {
        let [system, user] = &r.messages;
        let messages = [chat::Message::system(&system.content), chat::Message::user(&user.content)];
        self.chat.encode_prompt(&messages, &self.tokenizer)
    }

    fn answers(&self, requests: &[Request]) -> Result<Vec<std::result::Result<Answer, Fault>>> {
        let most = self.longest.saturating_sub(self.grammar.longest());
        let prompts = requests.iter().map(|r| self.prompt(r)).collect::<Result<Vec<_>>>()?;
        let fits: Vec<usize> = (0..prompts.len()).filter(|&i| prompts[i].len() <= most).collect();
        let asked: Vec<Vec<u32>> = fits.iter().map(|&i| prompts[i].clone()).collect();
        // Greedy: the streams are never drawn from.
        let decoding = Decoding {
            temperature: 0.0,
            mask: Some(&self.grammar),
            ..Decoding::plain(self.grammar.longest())
        };
        let streams = vec![Stream::new(0).child("judge"); asked.len()];
        let mut generator = self.generator.lock().map_err(|_| Error::internal("judge: a worker panicked"))?;
        let done = if asked.is_empty() {
            Vec::new()
        } else {
            generator.generate(&self.params, &asked, decoding, &streams)?
        };
        let mut out: Vec<std::result::Result<Answer, Fault>> = prompts
            .iter()
            .map(|p| Err(Fault::Refused(format!("a prompt of {} tokens, over {most}", p.len()))))
            .collect();
        for (&i, c) in fits.iter().zip(&done) {
            out[i] = Ok(Answer {
                text: self.tokenizer.decode(&c.tokens, true)?,
                prompt_tokens: Some(prompts[i].len() as u64),
                completion_tokens: Some(c.tokens.len() as u64),
            });
        }
        Ok(out)
    }
}

impl Judge for EmbeddedJudge {
    fn identity(&self) -> String {
        format!("embedded {}", self.name)
    }
    fn batch(&self) -> usize {
        self.batch
    }
    fn ask(&self, requests: &[Request]) -> Vec<std::result::Result<Answer, Fault>> {
        match self.answers(requests) {
            Ok(a) => a,
            Err(e) => requests.iter().map(|_| Err(Fault::Fatal(e.clone()))).collect(),
        }
    }
}
