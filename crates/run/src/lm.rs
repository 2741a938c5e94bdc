//! The run's language model: shape, tokenizer, template, and how its trained parameters are kept in files.

use std::path::Path;
use std::sync::Arc;

use ecr_core::{Error, Params, Result, Stream, io};
use ecr_kernels::Engine;
use ecr_models::chat::{ChatTemplate, PLAIN_SPECIALS};
use ecr_models::generate::LlamaGenerator;
use ecr_models::load::{Architecture, load_model, peft::load_adapter, resolve_model};
use ecr_models::save::{TokenizerFiles, save_adapter, save_model, tokenizer_config};
use ecr_models::tokenizer::Tokenizer;
use ecr_models::{Base, Frozen, Llama, LlamaConfig, LoraConfig, Proj, init, llama};
use serde_json::Value as Json;

use crate::config::Config;
use crate::rundir::RunDir;
use crate::scorers::model_dirs;

/// The language model of a run. Parameters are values: all weights, or an adapter over the frozen base.
pub struct Lm {
    /// Shape.
    pub config: LlamaConfig,
    /// Tokenizer.
    pub tokenizer: Tokenizer,
    /// Chat template.
    pub chat: ChatTemplate,
    tokenizer_config: Json,
    engine: Engine,
    base: Option<Base>,
    base_name: String,
    /// Where training of all weights begins, if not from scratch.
    start: Option<Params>,
}

impl Lm {
    /// Opens the model that the configuration names.
    pub fn open(config: &Config, dir: &RunDir, engine: Engine) -> Result<Self> {
        if config.policy.path.is_empty() {
            Self::scratch(config, dir, engine)
        } else {
            Self::pretrained(config, engine)
        }
    }
    fn scratch(config: &Config, dir: &RunDir, engine: Engine) -> Result<Self> {
        let c = &config.policy;
        if config.lora.rank > 0 {
            return Err(Error::config("open the language model")
                .expected("lora.rank = 0 for a model trained from scratch")
                .got(config.lora.rank.to_string())
                .hint("set policy.path to a pretrained model, or lora.rank = 0"));
        }
        let bytes = io::read(&dir.data().join("tokenizer.json"))?;
        let tokenizer = Tokenizer::from_bytes(&bytes, "data/tokenizer.json")?;
        let chat = ChatTemplate::plain()?;
        let max_len = (c.context_max + config.eval.max_new).max(c.window_max) + 8;
        let shape = LlamaConfig {
            vocab_size: tokenizer.vocab_size(),
            hidden_size: c.hidden_size,
            intermediate_size: c.intermediate_size,
            num_layers: c.num_layers,
            num_heads: c.num_heads,
            num_kv_heads: c.num_kv_heads,
            head_dim: c.hidden_size / c.num_heads,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            max_position_embeddings: max_len,
            tie_word_embeddings: true,
        };
        shape.check()?;
        let [end, .., pad] = PLAIN_SPECIALS;
        let tokenizer_config = tokenizer_config(None, end, pad, Some(&chat), max_len);
        Ok(Self {
            config: shape,
            tokenizer,
            chat,
            tokenizer_config,
            engine,
            base: None,
            base_name: "scratch".into(),
            start: None,
        })
    }
    fn pretrained(config: &Config, engine: Engine) -> Result<Self> {
        let path = resolve_model(&config.policy.path, &model_dirs())?;
        let m = load_model(&path)?;
        let shape = m.llama()?.clone();
        let (tokenizer, chat) = (m.tokenizer()?.clone(), m.chat_template()?);
        let base_name = path.file_name().map_or_else(|| "base".into(), |n| n.to_string_lossy().into_owned());
        let (base, start) = if config.lora.rank > 0 {
            let targets = config.lora.targets.iter().map(|t| Proj::parse(t)).collect::<Result<Vec<_>>>()?;
            let frozen = Arc::new(Frozen::consume(shape.clone(), engine, m.params));
            let lora = LoraConfig::new(config.lora.rank, config.lora.alpha, &targets);
            (Some(Base::new(frozen, lora)), None)
        } else {
            (None, Some(m.params))
        };
        Ok(Self {
            config: shape,
            tokenizer,
            chat,
            tokenizer_config: m.tokenizer_config,
            engine,
            base,
            base_name,
            start,
        })
    }
    /// Whether parameters are adapters.
    pub fn adapted(&self) -> bool {
        self.base.is_some()
    }
    /// Whether there is something to measure before any training.
    pub fn is_pretrained(&self) -> bool {
        self.base.is_some() || self.start.is_some()
    }
    /// The model before training: the base alone, or the weights as loaded.
    pub fn untrained(&self) -> Params {
        match &self.start {
            Some(p) => p.frozen_copy(),
            None => llama::no_adapter(),
        }
    }
    /// Parameters to begin training with.
    pub fn fresh(&self, stream: Stream) -> Params {
        let mut p = match (&self.base, &self.start) {
            (Some(b), _) => init::adapter(b.adapter_layout(), stream),
            (None, Some(p)) => p.frozen_copy(),
            (None, None) => init::fresh(self.config.layout(), self.config.num_layers, stream),
        };
        p.make_trainable();
        p
    }
    /// A policy over parameters of this model.
    pub fn policy(&self) -> Llama {
        match &self.base {
            Some(b) => Llama::adapted(b.clone(), self.engine),
            None => Llama::full(self.config.clone(), self.engine),
        }
    }
    /// A decoder over them.
    pub fn generator(&self, max_batch: usize) -> Result<LlamaGenerator> {
        let end = vec![self.chat.end_id(&self.tokenizer)?];
        Ok(match &self.base {
            Some(b) => LlamaGenerator::adapted(b.clone(), self.engine, end, max_batch),
            None => LlamaGenerator::full(self.config.clone(), self.engine, end, max_batch),
        })
    }
    /// Writes trained parameters: a model directory, or a PEFT adapter.
    pub fn save(&self, dir: &Path, params: &Params) -> Result<()> {
        match &self.base {
            Some(b) => save_adapter(dir, &b.lora, params, &self.base_name),
            None => save_model(
                dir,
                &Architecture::Llama(self.config.clone()),
                params,
                Some(TokenizerFiles { tokenizer: &self.tokenizer, config: &self.tokenizer_config }),
            ),
        }
    }
    /// Reads what [`Lm::save`] wrote.
    pub fn load(&self, dir: &Path) -> Result<Params> {
        let mismatch = |got: String| {
            Error::config(format!("load {}", dir.display()))
                .expected(format!("parameters trained over {}", self.base_name))
                .got(got)
                .hint("it was trained with another policy or lora section: run the sft stage again")
        };
        match &self.base {
            Some(b) => {
                let (lora, params) = load_adapter(dir, &self.config)?;
                if lora != b.lora {
                    Err(mismatch(format!("an adapter of rank {}", lora.rank)))
                } else {
                    Ok(params)
                }
            }
            None => {
                let m = load_model(dir)?;
                if *m.llama()? != self.config {
                    return Err(mismatch("a model of another shape".into()));
                }
                Ok(m.params)
            }
        }
    }
    /// The text of a response without the end token, special tokens taken out, trimmed.
    pub fn text(&self, tokens: &[u32]) -> Result<String> {
        Ok(self.tokenizer.decode(tokens, true)?.trim().to_string())
    }
}
