//! Model directories as HuggingFace writes them (config.json, tokenizer.json, model.safetensors or a sharded
//! index), and GGUF files: both become one [`LoadedModel`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ecr_core::{Error, Layout, Params, Result, io};
use serde_json::Value as Json;

use super::{Tensor, TensorMap, fill_params, gguf::Gguf, safetensors, some_names};
use crate::chat::ChatTemplate;
use crate::tokenizer::Tokenizer;
use crate::{BertConfig, LlamaConfig};

/// Which family a model belongs to, and its shape.
#[derive(Debug, Clone, PartialEq)]
pub enum Architecture {
    /// A decoder.
    Llama(LlamaConfig),
    /// An encoder (BERT or RoBERTa).
    Bert(BertConfig),
}

impl Architecture {
    /// From a `config.json`, by its `model_type`.
    pub fn from_hf(config: &Json) -> Result<Self> {
        match config.get("model_type").and_then(Json::as_str) {
            Some("llama") => Ok(Self::Llama(LlamaConfig::from_hf(config)?)),
            Some("bert" | "roberta" | "xlm-roberta") => Ok(Self::Bert(BertConfig::from_hf(config)?)),
            other => Err(Error::data("read config.json")
                .expected("model_type llama, bert or roberta")
                .got(other.unwrap_or("no model_type"))),
        }
    }
    /// As a `config.json`, without token ids.
    pub fn to_hf(&self) -> Json {
        match self {
            Self::Llama(c) => c.to_hf(),
            Self::Bert(c) => c.to_hf(),
        }
    }
    /// Tensors of the trained parameters.
    pub fn layout(&self) -> Layout {
        match self {
            Self::Llama(c) => c.layout(),
            Self::Bert(c) => c.layout(),
        }
    }
    /// Rows of the embedding.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Llama(c) => c.vocab_size,
            Self::Bert(c) => c.vocab_size,
        }
    }
    fn num_layers(&self) -> usize {
        match self {
            Self::Llama(c) => c.num_layers,
            Self::Bert(c) => c.num_layers,
        }
    }
    /// A lower bound of the parameters, without overflow, to check a shape against a file before allocating.
    fn least_parameters(&self) -> u128 {
        let (v, d, f, l) = match self {
            Self::Llama(c) => (c.vocab_size, c.hidden_size, c.intermediate_size, c.num_layers),
            Self::Bert(c) => (c.vocab_size, c.hidden_size, c.intermediate_size, c.num_layers),
        };
        let [v, d, f, l] = [v, d, f, l].map(|x| x as u128);
        (v * d).saturating_add(d.saturating_mul(f).saturating_mul(2).saturating_mul(l))
    }
    /// What the layers' own widths multiply to, for the same check.
    fn largest_width(&self) -> u128 {
        match self {
            Self::Llama(c) => c.num_heads as u128 * c.head_dim as u128,
            Self::Bert(c) => c.max_position_embeddings.max(c.type_vocab_size) as u128,
        }
    }
}

/// A model read from disk.
#[derive(Debug)]
pub struct LoadedModel {
    /// Family and shape.
    pub architecture: Architecture,
    /// Weights in the layout of the architecture.
    pub params: Params,
    /// Tensors that belong to no layout: pooler, heads.
    pub extra: TensorMap,
    /// `config.json` as found.
    pub config: Json,
    /// The tokenizer, if there is one beside the weights.
    pub tokenizer: Option<Tokenizer>,
    /// `tokenizer_config.json` as found; null if there is none.
    pub tokenizer_config: Json,
    /// Directory or GGUF file read.
    pub path: PathBuf,
}

impl LoadedModel {
    /// The tokenizer, or an error saying what to put where.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| {
            Error::data(format!("load the tokenizer of {}", self.path.display()))
                .expected("tokenizer.json (or vocab.txt, or vocab.json and merges.txt) beside config.json")
                .got("none of them")
                .hint("put the model's tokenizer.json into that directory")
        })
    }
    /// The model's own chat template, or ChatML where it has none and knows `<|im_start|>`.
    pub fn chat_template(&self) -> Result<ChatTemplate> {
        ChatTemplate::from_hf(&self.tokenizer_config, self.tokenizer()?)
    }
    /// The decoder's shape, or an error for another family.
    pub fn llama(&self) -> Result<&LlamaConfig> {
        match &self.architecture {
            Architecture::Llama(c) => Ok(c),
            Architecture::Bert(_) => Err(Error::config(format!("load {}", self.path.display()))
                .expected("a decoder (model_type llama)")
                .got("an encoder")),
        }
    }
    /// The encoder's shape, or an error for another family.
    pub fn bert(&self) -> Result<&BertConfig> {
        match &self.architecture {
            Architecture::Bert(c) => Ok(c),
            Architecture::Llama(_) => Err(Error::config(format!("load {}", self.path.display()))
                .expected("an encoder (model_type bert or roberta)")
                .got("a decoder")),
        }
    }
}

/// Reads a model from a directory or a GGUF file.
///
/// # Errors
/// [`ecr_core::Kind::Data`] for anything that is missing, damaged or does not belong together.
pub fn load_model(path: &Path) -> Result<LoadedModel> {
    if path.is_dir() {
        load_dir(path)
    } else if path.exists() {
        load_gguf(Gguf::read(path)?, path)
    } else {
        Err(missing(path).hint("give a model directory or a .gguf file"))
    }
}

/// The model in a GGUF file already parsed; `path` names it.
///
/// # Errors
/// As [`load_model`].
pub fn load_gguf(file: Gguf, path: &Path) -> Result<LoadedModel> {
    let config = file.config_json()?;
    let tokenizer =
        Tokenizer::from_bytes(file.tokenizer_json()?.to_string().as_bytes(), &path.display().to_string())?;
    let tokenizer_config = file.tokenizer_config_json();
    let tensors = file.tensors()?;
    drop(file);
    assemble(path, config, tensors, Some(tokenizer), tokenizer_config)
}

/// A file that a model needs is not there.
fn missing(file: &Path) -> Error {
    Error::data(format!("read {}", file.display())).expected("the file").got("no such file")
}

fn load_dir(dir: &Path) -> Result<LoadedModel> {
    let config = dir.join("config.json");
    if !config.is_file() {
        return Err(missing(&config)
            .hint("a model directory holds config.json, tokenizer.json and model.safetensors"));
    }
    let config = read_json(&config)?;
    let tokenizer = Tokenizer::from_dir(dir, &config)?;
    let tokenizer_config = match dir.join("tokenizer_config.json") {
        p if p.is_file() => read_json(&p)?,
        _ => Json::Null,
    };
    assemble(dir, config, read_weights(dir)?, tokenizer, tokenizer_config)
}

/// `model.safetensors`, or every shard that the index names.
fn read_weights(dir: &Path) -> Result<TensorMap> {
    let single = dir.join("model.safetensors");
    let index = dir.join("model.safetensors.index.json");
    if single.is_file() {
        return safetensors::read(&single);
    }
    if !index.is_file() {
        return Err(missing(&single).hint(
            "put the model's model.safetensors there; pytorch_model.bin and other pickles are not read",
        ));
    }
    let json = read_json(&index)?;
    let bad = |got: &str| Error::data(format!("read {}", index.display())).expected("a weight_map").got(got);
    let map = json.get("weight_map").and_then(Json::as_object).ok_or_else(|| bad("none"))?;
    let mut shards: Vec<&str> = Vec::new();
    for file in map.values() {
        let file = file.as_str().ok_or_else(|| bad("a shard that is not a file name"))?;
        if Path::new(file).components().count() != 1 || file.contains("..") {
            return Err(bad("a shard outside the directory"));
        }
        if !shards.contains(&file) {
            shards.push(file);
        }
    }
    let mut all = TensorMap::new();
    for shard in shards {
        for (name, t) in safetensors::read(&dir.join(shard))? {
            if all.insert(name.clone(), t).is_some() {
                return Err(bad(&format!("tensor {name} in two shards")));
            }
        }
    }
    match map.keys().find(|k| !all.contains_key(*k)) {
        Some(lost) => Err(bad(&format!("tensor {lost}, which is in no shard"))),
        None => Ok(all),
    }
}

/// Reads a JSON file.
pub(crate) fn read_json(path: &Path) -> Result<Json> {
    serde_json::from_slice(&io::read(path)?)
        .map_err(|e| Error::data(format!("read {}", path.display())).expected("JSON").got(e.to_string()))
}

fn assemble(
    path: &Path,
    config: Json,
    tensors: TensorMap,
    tokenizer: Option<Tokenizer>,
    tokenizer_config: Json,
) -> Result<LoadedModel> {
    let what = path.display().to_string();
    let architecture = Architecture::from_hf(&config)?;
    let held: usize = tensors.values().map(|t| t.data.len()).sum();
    // A layout is built from the number of layers: each has tensors of its own in the file.
    if architecture.num_layers() > tensors.len() {
        return Err(Error::data(format!("load {what}"))
            .expected(format!(
                "the tensors of {} layers, as the configuration says",
                architecture.num_layers()
            ))
            .got(format!("{} tensors in the file", tensors.len()))
            .hint("the configuration and the weights do not belong together"));
    }
    if architecture.least_parameters() > held as u128 || architecture.largest_width() > held as u128 {
        return Err(Error::data(format!("load {what}"))
            .expected(format!(
                "at least {} parameters, as the configuration says",
                architecture.least_parameters()
            ))
            .got(format!("{held} in the file"))
            .hint("the configuration and the weights do not belong together"));
    }
    let mut tensors = canonical_names(&architecture, tensors, &what)?;
    let params = fill_params(&Arc::new(architecture.layout()), &mut tensors, &what)?;
    if let Architecture::Llama(_) = architecture
        && !tensors.is_empty()
    {
        return Err(Error::data(format!("load {what}"))
            .expected("only the tensors of a Llama-family decoder")
            .got(format!("also {}", some_names(&tensors)))
            .hint("this variant (biases, experts, …) is not supported"));
    }
    if let Some(t) = &tokenizer {
        check_vocab(&what, t, architecture.vocab_size())?;
    }
    Ok(LoadedModel {
        architecture,
        params,
        extra: tensors,
        config,
        tokenizer,
        tokenizer_config,
        path: path.to_owned(),
    })
}

/// Checks that a tokenizer belongs to a model with `vocab` embedding rows (which may be padded, by a tenth).
///
/// # Errors
/// [`ecr_core::Kind::Data`] if it has more tokens than the model or far fewer.
pub fn check_vocab(what: &str, tokenizer: &Tokenizer, vocab: usize) -> Result<()> {
    let n = tokenizer.vocab_size();
    if n > vocab || n + (vocab / 10).max(64) < vocab {
        return Err(Error::data(format!("load {what}"))
            .expected(format!("a tokenizer of {vocab} tokens, as the model has embeddings"))
            .got(format!("a tokenizer of {n} tokens"))
            .hint(
                "this tokenizer belongs to another model: put the right tokenizer.json beside the weights",
            ));
    }
    Ok(())
}

/// Brings the names of a file to those of the layout: prefixes off, old LayerNorm names, index buffers dropped.
/// Two tensors that come to one name are an error.
fn canonical_names(architecture: &Architecture, tensors: TensorMap, what: &str) -> Result<TensorMap> {
    let llama = matches!(architecture, Architecture::Llama(_));
    let tied = matches!(architecture, Architecture::Llama(c) if c.tie_word_embeddings);
    let bare = llama && tensors.contains_key("embed_tokens.weight");
    let mut out = TensorMap::new();
    for (name, t) in tensors {
        if name.ends_with("position_ids") || name.ends_with("rotary_emb.inv_freq") {
            continue;
        }
        if tied && name == "lm_head.weight" {
            continue;
        }
        let name = if bare && name != "lm_head.weight" {
            format!("model.{name}")
        } else if llama {
            name
        } else {
            let n = ["bert.", "roberta.", "0.auto_model.", "model."]
                .iter()
                .find_map(|p| name.strip_prefix(p))
                .unwrap_or(&name);
            n.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        };
        if out.contains_key(&name) {
            return Err(Error::data(format!("load {what}"))
                .expected("every tensor once")
                .got(format!("{name} under two names")));
        }
        out.insert(name, t);
    }
    Ok(out)
}

impl From<(Vec<usize>, Vec<f32>)> for Tensor {
    fn from((shape, data): (Vec<usize>, Vec<f32>)) -> Self {
        Self { shape, data }
    }
}
