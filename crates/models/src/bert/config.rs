//! Shape of a BERT or RoBERTa encoder and the order of its tensors.

use ecr_core::{Error, Layout, Result};
use serde_json::{Value, json};

use crate::llama::{int, real};

/// Which of the two families; they differ in where positions begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BertFamily {
    /// Positions from 0.
    Bert,
    /// Positions from `pad_token_id + 1`.
    Roberta,
}

/// Shape of a BERT-family encoder (`config.json` of HuggingFace, the fields that matter here).
#[derive(Debug, Clone, PartialEq)]
pub struct BertConfig {
    /// BERT or RoBERTa.
    pub family: BertFamily,
    /// Vocabulary `V`.
    pub vocab_size: usize,
    /// Width `D`.
    pub hidden_size: usize,
    /// Width `F` of the feed-forward block.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_heads: usize,
    /// Rows of the position table.
    pub max_position_embeddings: usize,
    /// Rows of the token-type table; only row 0 is used.
    pub type_vocab_size: usize,
    /// Epsilon under the square root of LayerNorm.
    pub layer_norm_eps: f64,
    /// Padding token; packed batches hold none, but RoBERTa counts positions from it.
    pub pad_token_id: usize,
}

/// Index of the first tensor of a block in [`Layout::tensors`]; the others follow, weight before bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BertLayerIndex {
    /// `attention.self.query.weight`, `[D, D]`; its bias is the next tensor, as for all below.
    pub q: usize,
    /// `attention.self.key.weight`, `[D, D]`.
    pub k: usize,
    /// `attention.self.value.weight`, `[D, D]`.
    pub v: usize,
    /// `attention.output.dense.weight`, `[D, D]`.
    pub o: usize,
    /// `attention.output.LayerNorm.weight`, `[D]`.
    pub norm1: usize,
    /// `intermediate.dense.weight`, `[F, D]`.
    pub up: usize,
    /// `output.dense.weight`, `[D, F]`.
    pub down: usize,
    /// `output.LayerNorm.weight`, `[D]`.
    pub norm2: usize,
}

impl BertConfig {
    /// Tensors before the first block: word, position, token-type tables, LayerNorm weight and bias.
    pub const EMBED_TENSORS: usize = 5;

    /// From a HuggingFace `config.json`.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Data`] for a missing field or a variant that is not implemented.
    pub fn from_hf(v: &Value) -> Result<Self> {
        let unsupported = |what: String| {
            Error::data("read config.json of a BERT-family model")
                .got(what)
                .hint("this variant is not supported")
        };
        let family = match v.get("model_type").and_then(Value::as_str).unwrap_or("bert") {
            "bert" => BertFamily::Bert,
            "roberta" | "xlm-roberta" => BertFamily::Roberta,
            other => return Err(unsupported(format!("model_type = {other}"))),
        };
        let act = v.get("hidden_act").and_then(Value::as_str).unwrap_or("gelu");
        if act != "gelu" {
            return Err(unsupported(format!("hidden_act = {act}")));
        }
        let position = v.get("position_embedding_type").and_then(Value::as_str).unwrap_or("absolute");
        if position != "absolute" {
            return Err(unsupported(format!("position_embedding_type = {position}")));
        }
        let default_pad = if family == BertFamily::Roberta { 1 } else { 0 };
        let c = Self {
            family,
            vocab_size: int(v, "vocab_size")?,
            hidden_size: int(v, "hidden_size")?,
            intermediate_size: int(v, "intermediate_size")?,
            num_layers: int(v, "num_hidden_layers")?,
            num_heads: int(v, "num_attention_heads")?,
            max_position_embeddings: int(v, "max_position_embeddings")?,
            type_vocab_size: int(v, "type_vocab_size")?,
            layer_norm_eps: real(v, "layer_norm_eps", 1e-12)?,
            pad_token_id: v.get("pad_token_id").and_then(Value::as_u64).unwrap_or(default_pad) as usize,
        };
        if !c.hidden_size.is_multiple_of(c.num_heads) {
            return Err(unsupported(format!("{} heads in a width of {}", c.num_heads, c.hidden_size)));
        }
        if !(c.layer_norm_eps >= 0.0 && c.layer_norm_eps < 1.0) || c.pad_token_id >= c.vocab_size {
            return Err(Error::data("read config.json of a BERT-family model")
                .expected("layer_norm_eps of at least 0 and below 1, pad_token_id inside the vocabulary")
                .got(format!("{} and {}", c.layer_norm_eps, c.pad_token_id)));
        }
        Ok(c)
    }

    /// As a HuggingFace `config.json`.
    pub fn to_hf(&self) -> Value {
        let (kind, class) = match self.family {
            BertFamily::Bert => ("bert", "BertModel"),
            BertFamily::Roberta => ("roberta", "RobertaModel"),
        };
        json!({
            "architectures": [class],
            "model_type": kind,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "max_position_embeddings": self.max_position_embeddings,
            "type_vocab_size": self.type_vocab_size,
            "layer_norm_eps": self.layer_norm_eps,
            "pad_token_id": self.pad_token_id,
            "hidden_act": "gelu",
            "torch_dtype": "float32",
        })
    }

    /// Position of the first token of a sequence.
    pub fn first_position(&self) -> usize {
        if self.family == BertFamily::Roberta { self.pad_token_id + 1 } else { 0 }
    }
    /// Longest sequence, tokens.
    pub fn max_len(&self) -> usize {
        self.max_position_embeddings.saturating_sub(self.first_position())
    }
    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// All tensors by their HuggingFace names, without the `bert.` or `roberta.` prefix that some files have.
    pub fn layout(&self) -> Layout {
        let (d, f) = (self.hidden_size, self.intermediate_size);
        let mut l = Layout::new();
        l.push("embeddings.word_embeddings.weight", &[self.vocab_size, d], true);
        l.push("embeddings.position_embeddings.weight", &[self.max_position_embeddings, d], true);
        l.push("embeddings.token_type_embeddings.weight", &[self.type_vocab_size, d], true);
        l.push("embeddings.LayerNorm.weight", &[d], false);
        l.push("embeddings.LayerNorm.bias", &[d], false);
        for i in 0..self.num_layers {
            let p = format!("encoder.layer.{i}");
            let mut dense = |name: &str, n: usize, k: usize| {
                l.push(format!("{p}.{name}.weight"), &[n, k], true);
                l.push(format!("{p}.{name}.bias"), &[n], false);
            };
            dense("attention.self.query", d, d);
            dense("attention.self.key", d, d);
            dense("attention.self.value", d, d);
            dense("attention.output.dense", d, d);
            l.push(format!("{p}.attention.output.LayerNorm.weight"), &[d], false);
            l.push(format!("{p}.attention.output.LayerNorm.bias"), &[d], false);
            let mut dense = |name: &str, n: usize, k: usize| {
                l.push(format!("{p}.{name}.weight"), &[n, k], true);
                l.push(format!("{p}.{name}.bias"), &[n], false);
            };
            dense("intermediate.dense", f, d);
            dense("output.dense", d, f);
            l.push(format!("{p}.output.LayerNorm.weight"), &[d], false);
            l.push(format!("{p}.output.LayerNorm.bias"), &[d], false);
        }
        l
    }

    /// Indices of the tensors of block `i` in [`BertConfig::layout`].
    pub fn layer(&self, i: usize) -> BertLayerIndex {
        let b = Self::EMBED_TENSORS + 16 * i;
        BertLayerIndex {
            q: b,
            k: b + 2,
            v: b + 4,
            o: b + 6,
            norm1: b + 8,
            up: b + 10,
            down: b + 12,
            norm2: b + 14,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_follow_the_layout_and_hf_round_trips() {
        let c = BertConfig {
            family: BertFamily::Roberta,
            vocab_size: 11,
            hidden_size: 8,
            intermediate_size: 12,
            num_layers: 2,
            num_heads: 4,
            max_position_embeddings: 34,
            type_vocab_size: 1,
            layer_norm_eps: 1e-5,
            pad_token_id: 1,
        };
        let l = c.layout();
        let at = c.layer(1);
        assert_eq!(l.tensors[at.q].name, "encoder.layer.1.attention.self.query.weight");
        assert_eq!(l.tensors[at.norm1].name, "encoder.layer.1.attention.output.LayerNorm.weight");
        assert_eq!(l.tensors[at.norm2 + 1].name, "encoder.layer.1.output.LayerNorm.bias");
        assert_eq!(c.max_len(), 32);
        assert_eq!(BertConfig::from_hf(&c.to_hf()).unwrap(), c);
    }
}
