//! Text scorers on an encoder: emotion classifiers and the quality critic, with tokenizer and files.

use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use ecr_algos::{classify, critic, levels};
use ecr_core::seam::{Emotion, EmotionDistribution, Encoder as _};
use ecr_core::{Error, Layout, Packed, Params, Result, Stream, Utterance, io};
use ecr_kernels::Engine;
use ecr_models::load::resolve::ModelDirs;
use ecr_models::load::{LoadedModel, fill_params, load_model, resolve_model, safetensors};
use ecr_models::save::safetensors_bytes;
use ecr_models::tokenizer::Tokenizer;
use ecr_models::{Bert, BertConfig, BertFamily, init};
use rustc_hash::FxHashMap;
use serde_json::json;

use crate::config::Config;
use crate::measure::batches;
use crate::rundir::RunDir;

/// Tokens of one scoring pass.
const BUDGET: usize = 4096;

/// An encoder, its tokenizer and a linear head with named outputs.
pub struct Scorer {
    /// The encoder.
    pub bert: Bert,
    /// Its parameters.
    pub params: Params,
    /// `[outputs, width]` and bias.
    pub head: Params,
    /// Names of the outputs.
    pub outputs: Vec<String>,
    tokenizer: Tokenizer,
    max_len: usize,
    /// Hash of the files it was read from; empty while it is being trained.
    hash: String,
}

/// A reply in its context, as tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairInput {
    /// Context and reply between the encoder's marks.
    pub tokens: Vec<u32>,
    /// Which of them are the reply.
    pub reply: Range<usize>,
}

/// Tokens that begin an input, stand between its two parts, and end it.
fn marks(t: &Tokenizer) -> [Option<u32>; 3] {
    let find = |names: &[&str]| names.iter().find_map(|n| t.id(n));
    let sep = find(&["[SEP]", "</s>", "<|end|>"]);
    [find(&["[CLS]", "<s>"]), sep, sep]
}

impl Scorer {
    /// A scorer to be trained: pretrained encoder, or one from scratch over the run's own tokenizer.
    pub fn fresh(
        config: &Config,
        dir: &RunDir,
        engine: Engine,
        outputs: Vec<String>,
        stream: Stream,
    ) -> Result<Self> {
        let c = &config.encoder;
        let (bert, params, tokenizer) = if c.path.is_empty() {
            let path = dir.data().join("tokenizer.json");
            let tokenizer = Tokenizer::from_bytes(&io::read(&path)?, "data/tokenizer.json")?;
            let shape = BertConfig {
                family: BertFamily::Bert,
                vocab_size: tokenizer.vocab_size(),
                hidden_size: c.hidden_size,
                intermediate_size: c.intermediate_size,
                num_layers: c.num_layers,
                num_heads: c.num_heads,
                max_position_embeddings: c.max_len,
                type_vocab_size: 1,
                layer_norm_eps: 1e-12,
                pad_token_id: 0,
            };
            let params = init::fresh(shape.layout(), c.num_layers, stream);
            (Bert::new(shape, engine), params, tokenizer)
        } else {
            let path = resolve_model(&c.path, &model_dirs())?;
            let m: LoadedModel = load_model(&path)?;
            let (shape, tokenizer) = (m.bert()?.clone(), m.tokenizer()?.clone());
            (Bert::new(shape, engine), m.params, tokenizer)
        };
        let head = classify::zero_head(outputs.len(), bert.width());
        let max_len = c.max_len.min(bert.max_len());
        Ok(Self { bert, params, head, outputs, tokenizer, max_len, hash: String::new() })
    }
    /// The same with a head (still zero) that also reads the states of the reply alone; for inputs that are pairs.
    pub fn reading_replies(mut self) -> Self {
        self.head = classify::zero_head(self.outputs.len(), 2 * self.bert.width());
        self
    }
    /// Tokens of a text, cut at the right.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = self.tokenizer.encode_with_specials(text)?;
        ids.truncate(self.max_len);
        if ids.is_empty() {
            ids.push(marks(&self.tokenizer)[1].unwrap_or(0));
        }
        Ok(ids)
    }
    /// A reply in its context, at most `max_len` tokens: the context is cut from the left, the reply only where it alone is
    /// longer than the encoder can read. The mark that parts the two also parts the turns of the context.
    pub fn encode_pair(&self, context: &[Utterance], reply: &str, max_len: usize) -> Result<PairInput> {
        let [begin, between, end] = marks(&self.tokenizer);
        let around = [begin, between, end].iter().flatten().count();
        let mut reply = self.tokenizer.encode(reply)?;
        reply.truncate(self.bert.max_len().saturating_sub(around));
        let room = max_len.min(self.bert.max_len()).saturating_sub(reply.len() + around);
        let mut said: Vec<u32> = Vec::new();
        // From the last turn back: what is cut off need not be read.
        for u in context.iter().rev() {
            if said.len() > room {
                break;
            }
            let mut turn = self.tokenizer.encode(&u.text)?;
            if !said.is_empty() {
                turn.extend(between);
                turn.extend(&said);
            }
            said = turn;
        }
        let mut tokens: Vec<u32> = begin.into_iter().collect();
        tokens.extend(&said[said.len().saturating_sub(room)..]);
        tokens.extend(between);
        let start = tokens.len();
        tokens.extend(reply);
        let reply = start..tokens.len();
        tokens.extend(end);
        if tokens.is_empty() {
            tokens.push(0);
        }
        Ok(PairInput { tokens, reply })
    }
    /// Class probabilities, `[inputs, outputs]`.
    pub fn classify(&mut self, inputs: &[Vec<u32>]) -> Result<Vec<f64>> {
        let mut out = Vec::new();
        for range in batches(&inputs.iter().map(Vec::len).collect::<Vec<_>>(), BUDGET) {
            out.extend(classify::predict(&mut self.bert, &self.params, &self.head, &pack(&inputs[range]))?);
        }
        Ok(out)
    }
    /// Probabilities of EPITOME's levels, `[inputs, mechanisms, levels]`.
    pub fn levels(&mut self, inputs: &[PairInput]) -> Result<Vec<[[f64; 3]; 3]>> {
        let mut out = Vec::new();
        for range in batches(&inputs.iter().map(|i| i.tokens.len()).collect::<Vec<_>>(), BUDGET) {
            let batch = pack_pairs(&inputs[range]);
            let p = levels::predict(&mut self.bert, &self.params, &self.head, &batch, 3)?;
            out.extend(
                p.chunks_exact(9).map(|p| std::array::from_fn(|m| std::array::from_fn(|l| p[3 * m + l]))),
            );
        }
        Ok(out)
    }
    /// Logits of the heads, `[inputs, outputs]`.
    pub fn logits(&mut self, inputs: &[PairInput]) -> Result<Vec<f64>> {
        let mut out = Vec::new();
        for range in batches(&inputs.iter().map(|i| i.tokens.len()).collect::<Vec<_>>(), BUDGET) {
            let batch = pack_pairs(&inputs[range]);
            out.extend(critic::predict_logits(&mut self.bert, &self.params, &self.head, &batch)?);
        }
        Ok(out)
    }
    /// Scores, `[inputs, outputs]`: sigmoids of the logits.
    pub fn score(&mut self, inputs: &[PairInput]) -> Result<Vec<f64>> {
        Ok(self.logits(inputs)?.into_iter().map(|z| 1.0 / (1.0 + (-z).exp())).collect())
    }
    /// Writes `NAME.safetensors` (encoder and head), `config.json` and `tokenizer.json`.
    pub fn save(&self, dir: &Path, name: &str, extra: serde_json::Value) -> Result<()> {
        let mut tensors: Vec<(&str, &[usize], &[f32])> = Vec::new();
        for p in [&self.params, &self.head] {
            for t in &p.layout.tensors {
                tensors.push((&t.name, &t.shape, &p.data[t.range()]));
            }
        }
        io::atomic_write(&dir.join(format!("{name}.safetensors")), &safetensors_bytes(&tensors)?)?;
        io::atomic_write(&dir.join("tokenizer.json"), self.tokenizer.to_json()?.as_bytes())?;
        let mut config = self.bert.config().to_hf();
        config["outputs"] = json!(self.outputs);
        config["max_len"] = json!(self.max_len);
        config["head_inputs"] = json!(self.head.tensor(0).len() / self.head.tensor(1).len());
        config["ecr"] = extra;
        let text = serde_json::to_vec_pretty(&config)
            .map_err(|e| Error::internal(format!("write a scorer's config: {e}")))?;
        io::atomic_write(&dir.join("config.json"), &text)
    }
    /// Reads what [`Scorer::save`] wrote.
    pub fn load(dir: &Path, name: &str, engine: Engine) -> Result<Self> {
        let config_bytes = io::read(&dir.join("config.json"))?;
        let damaged = |what: String| {
            Error::data(format!("read the scorer in {}", dir.display()))
                .got(what)
                .hint("train it again: `ecr train emotion` or `ecr train critic`")
        };
        let config: serde_json::Value =
            serde_json::from_slice(&config_bytes).map_err(|e| damaged(e.to_string()))?;
        let shape = BertConfig::from_hf(&config)?;
        let outputs: Vec<String> = serde_json::from_value(config["outputs"].clone())
            .map_err(|e| damaged(format!("outputs of config.json: {e}")))?;
        let max_len = config["max_len"].as_u64().unwrap_or(128) as usize;
        let file = dir.join(format!("{name}.safetensors"));
        let bytes = io::read(&file)?;
        let mut tensors = safetensors::parse(&bytes, &file.display().to_string())?;
        let params = fill_params(&Arc::new(shape.layout()), &mut tensors, "the encoder")?;
        let head_width = config["head_inputs"].as_u64().map_or(shape.hidden_size, |n| n as usize);
        let head_layout: Arc<Layout> = classify::zero_head(outputs.len(), head_width).layout;
        let head = fill_params(&head_layout, &mut tensors, "the head")?;
        let tokenizer = Tokenizer::from_bytes(&io::read(&dir.join("tokenizer.json"))?, "tokenizer.json")?;
        let hash = io::blake3(&[bytes, config_bytes].concat())[..16].to_string();
        Ok(Self { bert: Bert::new(shape, engine), params, head, outputs, tokenizer, max_len, hash })
    }
    /// Hash of the files it was read from.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

/// Packs whole inputs; nothing is scored by a language model.
pub fn pack(inputs: &[Vec<u32>]) -> Packed {
    let mut batch = Packed::new();
    inputs.iter().for_each(|i| batch.push(i, &vec![false; i.len()]));
    batch
}

/// Packs pairs; the reply's tokens are marked as scored.
pub fn pack_pairs(inputs: &[PairInput]) -> Packed {
    let mut batch = Packed::new();
    for i in inputs {
        let reply: Vec<bool> = (0..i.tokens.len()).map(|t| i.reply.contains(&t)).collect();
        batch.push(&i.tokens, &reply);
    }
    batch
}

/// Where model names are looked for: `$ECR_MODELS`, `~/.cache/ecr/models`, and HuggingFace's cache.
pub fn model_dirs() -> ModelDirs {
    let home = std::env::var_os("HOME").map(std::path::PathBuf::from);
    let at_home = |p: &str| home.as_ref().map(|h| h.join(p));
    let models = std::env::var_os("ECR_MODELS").map(Into::into).or_else(|| at_home(".cache/ecr/models"));
    let hub = std::env::var_os("HF_HOME").map(Into::into).or_else(|| at_home(".cache/huggingface"));
    ModelDirs {
        models: models.into_iter().collect(),
        hub: hub.map(|p: std::path::PathBuf| p.join("hub")).into_iter().collect(),
    }
}

/// An emotion classifier over the nine labels.
pub struct EmotionScorer(pub Scorer);

impl Emotion for EmotionScorer {
    fn version(&self) -> String {
        format!("emotion {}", self.0.hash())
    }
    fn distribution(&mut self, texts: &[&str]) -> Result<Vec<EmotionDistribution>> {
        let inputs = texts.iter().map(|t| self.0.encode(t)).collect::<Result<Vec<_>>>()?;
        let p = self.0.classify(&inputs)?;
        Ok(p.chunks(9).map(|row| std::array::from_fn(|i| row[i] as f32)).collect())
    }
}

/// An emotion scorer that reads each text once and remembers it; clones share the memory. For audits, where every
/// context comes with a dozen replies.
#[derive(Clone)]
pub struct Remembering(Rc<RefCell<(EmotionScorer, FxHashMap<String, EmotionDistribution>)>>);

impl Remembering {
    /// Puts a memory before a scorer.
    pub fn new(scorer: EmotionScorer) -> Self {
        Self(Rc::new(RefCell::new((scorer, FxHashMap::default()))))
    }
}

impl Emotion for Remembering {
    fn version(&self) -> String {
        self.0.borrow().0.version()
    }
    fn distribution(&mut self, texts: &[&str]) -> Result<Vec<EmotionDistribution>> {
        let (scorer, seen) = &mut *self.0.borrow_mut();
        let mut fresh: Vec<&str> = texts.iter().copied().filter(|t| !seen.contains_key(*t)).collect();
        fresh.sort_unstable();
        fresh.dedup();
        for (t, p) in fresh.iter().zip(scorer.distribution(&fresh)?) {
            seen.insert((*t).to_owned(), p);
        }
        texts
            .iter()
            .map(|t| {
                seen.get(*t).copied().ok_or_else(|| Error::internal("score emotions").got("a text was lost"))
            })
            .collect()
    }
}
