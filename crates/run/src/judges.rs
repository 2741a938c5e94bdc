//! Learned judges of replies over the run's encoders: embeddings and the critic's heads.

use std::path::Path;

use ecr_core::seam::Encoder as _;
use ecr_core::{Error, Params, Result, Role, Utterance, io};
use ecr_kernels::Engine;
use ecr_models::Bert;
use ecr_models::load::{load_model, resolve_model};
use ecr_models::tokenizer::Tokenizer;
use ecr_rewards::components::critic::Judge;
use ecr_rewards::components::epitome::Levels;
use ecr_rewards::components::relevance::Embed;

use crate::measure::batches;
use crate::rewarding::SCORER_FILE;
use crate::scorers::{Scorer, model_dirs, pack};

/// Tokens of one pass.
const BUDGET: usize = 4096;

/// Sentence embeddings: the mean of an encoder's last hidden states.
pub struct Embedder {
    bert: Bert,
    params: Params,
    tokenizer: Tokenizer,
    version: String,
}

impl Embedder {
    /// The pretrained encoder of this name or directory.
    ///
    /// # Errors
    /// Data: not found, or no encoder.
    pub fn load(name: &str, engine: Engine) -> Result<Self> {
        let path = resolve_model(name, &model_dirs()).map_err(|mut e| {
            e.hint =
                Some("the relevance component needs a pretrained encoder: reward.relevance_model".into());
            e
        })?;
        let m = load_model(&path)?;
        let (shape, tokenizer) = (m.bert()?.clone(), m.tokenizer()?.clone());
        let weights: Vec<u8> = m.params.data.iter().flat_map(|x| x.to_le_bytes()).collect();
        let version = format!("embeddings {}", &io::blake3(&weights)[..16]);
        Ok(Self { bert: Bert::new(shape, engine), params: m.params, tokenizer, version })
    }
}

impl Embed for Embedder {
    fn version(&self) -> String {
        self.version.clone()
    }
    fn embed(&mut self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let mut inputs = Vec::with_capacity(texts.len());
        for t in texts {
            let mut ids = self.tokenizer.encode_with_specials(t)?;
            ids.truncate(self.bert.max_len());
            if ids.is_empty() {
                ids.push(0);
            }
            inputs.push(ids);
        }
        let lengths: Vec<usize> = inputs.iter().map(Vec::len).collect();
        let mut out = Vec::with_capacity(texts.len());
        for range in batches(&lengths, BUDGET) {
            let encoded = self.bert.forward(&self.params, &pack(&inputs[range]), false)?;
            out.extend(encoded.pooled.chunks(self.bert.width()).map(<[f32]>::to_vec));
        }
        Ok(out)
    }
}

/// One head of the trained critic.
pub struct CriticHead {
    scorer: Scorer,
    head: usize,
    max_len: usize,
}

impl CriticHead {
    /// The head of this name; the context is cut to `max_len` tokens with the reply.
    ///
    /// # Errors
    /// Config: the critic has no such head.
    pub fn new(scorer: Scorer, name: &str, max_len: usize) -> Result<Self> {
        let head = scorer.outputs.iter().position(|o| o == name).ok_or_else(|| {
            Error::config("set up the critic reward")
                .expected(format!("reward.critic_head to be one of {}", scorer.outputs.join(", ")))
                .got(format!("{name:?}"))
        })?;
        Ok(Self { scorer, head, max_len })
    }
}

impl Judge for CriticHead {
    fn version(&self) -> String {
        format!(
            "{} of critic {}, {} tokens",
            self.scorer.outputs[self.head],
            self.scorer.hash(),
            self.max_len
        )
    }
    fn judge(&mut self, pairs: &[(&[Utterance], &str)]) -> Result<Vec<f64>> {
        let inputs = pairs
            .iter()
            .map(|(context, reply)| self.scorer.encode_pair(context, reply, self.max_len))
            .collect::<Result<Vec<_>>>()?;
        let heads = self.scorer.outputs.len();
        Ok(self.scorer.score(&inputs)?.chunks(heads).map(|s| s[self.head]).collect())
    }
}

/// A classifier of EPITOME's levels.
pub struct LevelScorer {
    scorer: Scorer,
    max_len: usize,
}

impl LevelScorer {
    /// The classifier in `dir`; a pair is cut to `max_len` tokens, from the seeker's turn.
    ///
    /// # Errors
    /// Data: missing, damaged, or another kind of scorer.
    pub fn load(dir: &Path, max_len: usize, engine: Engine) -> Result<Self> {
        let hint = "train it: `ecr train empathy`";
        if !dir.exists() {
            return Err(Error::data(format!("read the classifier of empathy in {}", dir.display()))
                .got("no such directory")
                .hint(hint));
        }
        let scorer = Scorer::load(dir, SCORER_FILE, engine)?;
        if scorer.outputs.len() != 9 {
            return Err(Error::data(format!("read the classifier of empathy in {}", dir.display()))
                .expected("nine outputs")
                .got(scorer.outputs.len().to_string())
                .hint(hint));
        }
        Ok(Self { scorer, max_len })
    }
}

impl Levels for LevelScorer {
    fn version(&self) -> String {
        format!("levels {}, {} tokens", self.scorer.hash(), self.max_len)
    }
    fn levels(&mut self, pairs: &[(&str, &str)]) -> Result<Vec<[f64; 3]>> {
        let said = |text: &str| [Utterance { role: Role::Seeker, text: text.to_owned() }];
        let inputs = pairs
            .iter()
            .map(|(seeker, reply)| self.scorer.encode_pair(&said(seeker), reply, self.max_len))
            .collect::<Result<Vec<_>>>()?;
        Ok(self.scorer.levels(&inputs)?.into_iter().map(|l| l.map(|p| p[1] + 2.0 * p[2])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecr_kernels::Precision;

    /// What a cache rests on: a text's numbers do not depend on the texts beside it.
    #[test]
    fn an_embedding_is_the_same_alone_and_in_company() {
        let name = "all-minilm-l6-v2";
        if resolve_model(name, &model_dirs()).is_err() {
            eprintln!("skipped: no weights of {name}");
            return;
        }
        for precision in [Precision::F32, Precision::Bf16] {
            let mut e = Embedder::load(name, Engine::detect(precision)).unwrap();
            let texts =
                ["I like old comedies", "", "Have you seen it? It is about a lantern.", "Yes", "No, never."];
            let together = e.embed(&texts).unwrap();
            for (t, v) in texts.iter().zip(&together) {
                assert_eq!(&e.embed(&[t]).unwrap()[0], v, "{t:?}");
            }
        }
    }
}
