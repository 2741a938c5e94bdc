//! The tokenizer that the metadata describe, as HuggingFace's files would.

use ecr_core::{Error, Result};
use serde_json::{Value as Json, json};

use super::{Gguf, damaged};

impl Gguf {
    /// The tokenizer as a HuggingFace `tokenizer.json` (byte-level BPE only).
    ///
    /// # Errors
    /// [`ecr_core::Kind::Data`] for another kind of tokenizer or an unknown pre-tokenizer: never guessed.
    pub fn tokenizer_json(&self) -> Result<Json> {
        let model = self.need("tokenizer.ggml.model", self.text("tokenizer.ggml.model"))?;
        let pre = self.or("tokenizer.ggml.pre", self.text("tokenizer.ggml.pre"), "default")?;
        let byte_level = |regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex});
        let pre_tokenizer = match (model, pre) {
            ("gpt2", "smollm") => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true}, byte_level(true)]}),
            ("gpt2", "gpt-2") => byte_level(true),
            // llama.cpp's rules for "default": each splits what the one before left (llama-vocab.cpp).
            ("gpt2", "default") => {
                let split = |r: &str| json!({"type": "Split", "pattern": {"Regex": r}, "behavior": "Isolated", "invert": false});
                json!({"type": "Sequence", "pretokenizers": [
                    split(r"[\p{P}\$\+<=>\^~\|]+"),
                    split(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
                    split(r"\p{N}+"), split(r"[0-9][0-9][0-9]"), byte_level(false)]})
            }
            _ => {
                return Err(Error::data(format!("read the tokenizer of {}", self.what))
                    .expected("tokenizer.ggml.model gpt2 with pre-tokenizer smollm, gpt-2 or default")
                    .got(format!("{model} with {pre}"))
                    .hint("use the model's HuggingFace directory instead"));
            }
        };
        let tokens = self.need("tokenizer.ggml.tokens", self.texts("tokenizer.ggml.tokens"))?;
        let merges = self.need("tokenizer.ggml.merges", self.texts("tokenizer.ggml.merges"))?;
        let types = self.need("tokenizer.ggml.token_type", self.ints("tokenizer.ggml.token_type"))?;
        if types.len() != tokens.len() {
            return Err(damaged(
                &self.what,
                format!("{} token types for {} tokens", types.len(), tokens.len()),
            ));
        }
        // Token types: 3 control, 4 user defined (ggml's enum).
        let added: Vec<Json> = tokens
            .iter()
            .zip(&types)
            .enumerate()
            .filter(|(_, (_, t))| matches!(t, 3 | 4))
            .map(|(i, (t, kind))| {
                json!({"id": i, "content": t, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": *kind == 3})
            })
            .collect();
        let vocab: serde_json::Map<String, Json> =
            tokens.iter().enumerate().map(|(i, t)| ((*t).to_owned(), json!(i))).collect();
        if vocab.len() != tokens.len() {
            return Err(damaged(&self.what, "a token twice in the vocabulary"));
        }
        let merges: Vec<Json> = merges
            .iter()
            .map(|m| m.split_once(' ').map(|(a, b)| json!([a, b])))
            .collect::<Option<_>>()
            .ok_or_else(|| damaged(&self.what, "a merge that is not two tokens"))?;
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": byte_level(true),
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocab, "merges": merges}
        }))
    }

    /// What `tokenizer_config.json` would say: special tokens and the chat template.
    pub fn tokenizer_config_json(&self) -> Json {
        let tokens = self.texts("tokenizer.ggml.tokens").unwrap_or_default();
        let token = |key: &str| {
            let id = self.uint(&format!("tokenizer.ggml.{key}_token_id"))?;
            tokens.get(usize::try_from(id).ok()?).map(|s| (*s).to_owned())
        };
        json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": token("bos"), "eos_token": token("eos"),
            "pad_token": token("padding").or(token("eos")), "unk_token": token("unknown"),
            "model_max_length": self.uint("llama.context_length"), "clean_up_tokenization_spaces": false,
            "chat_template": self.text("tokenizer.chat_template"),
        })
    }
}
