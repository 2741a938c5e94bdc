//! A model directory that `transformers` opens: config.json, generation_config.json, model.safetensors,
//! tokenizer.json, tokenizer_config.json (with the chat template).

use std::path::Path;

use ecr_core::{Params, Result, io};
use serde_json::{Value as Json, json};

use super::{save_json, save_params};
use crate::chat::ChatTemplate;
use crate::load::Architecture;
use crate::tokenizer::Tokenizer;

/// A tokenizer and what `tokenizer_config.json` says of it.
#[derive(Debug, Clone, Copy)]
pub struct TokenizerFiles<'a> {
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Special tokens and chat template (see [`tokenizer_config`], or as loaded).
    pub config: &'a Json,
}

/// A `tokenizer_config.json`: special tokens by name and the chat template.
pub fn tokenizer_config(
    bos: Option<&str>,
    eos: &str,
    pad: &str,
    template: Option<&ChatTemplate>,
    max_len: usize,
) -> Json {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos, "pad_token": pad,
        "model_max_length": max_len, "clean_up_tokenization_spaces": false,
        "chat_template": template.map(ChatTemplate::source),
    })
}

/// Writes a model directory; the weights come before config.json, so that a directory with a config is whole.
pub fn save_model(
    dir: &Path,
    architecture: &Architecture,
    params: &Params,
    tokenizer: Option<TokenizerFiles<'_>>,
) -> Result<()> {
    io::create_dir_all(dir)?;
    save_params(&dir.join("model.safetensors"), params, "")?;
    let mut config = architecture.to_hf();
    if let Some(t) = tokenizer {
        io::atomic_write(&dir.join("tokenizer.json"), t.tokenizer.to_json()?.as_bytes())?;
        save_json(&dir.join("tokenizer_config.json"), t.config)?;
        let mut generation = json!({});
        for key in ["bos", "eos", "pad"] {
            // Either a string or, in older files, an object with its content.
            let name = t.config.get(format!("{key}_token"));
            let name = name.and_then(|n| n.as_str().or_else(|| n.get("content")?.as_str()));
            let Some(id) = name.and_then(|n| t.tokenizer.id(n)) else { continue };
            let key = format!("{key}_token_id");
            generation[&key] = id.into();
            if config.get(&key).is_none() {
                config[&key] = id.into();
            }
        }
        if matches!(architecture, Architecture::Llama(_)) {
            save_json(&dir.join("generation_config.json"), &generation)?;
        }
    }
    save_json(&dir.join("config.json"), &config)
}
