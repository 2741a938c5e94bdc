//! Shape of a Llama-family model and the order of its tensors.

use ecr_core::{Error, Layout, Result};
use serde_json::{Value, json};

/// Shape of a Llama-family decoder (`config.json` of HuggingFace, the fields that matter here).
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    /// Vocabulary `V`, rows of the embedding.
    pub vocab_size: usize,
    /// Width `D` of the residual stream.
    pub hidden_size: usize,
    /// Width `F` of the SwiGLU block.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Query heads `H`.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Epsilon under the square root of RMSNorm.
    pub rms_norm_eps: f64,
    /// Longest sequence, tokens.
    pub max_position_embeddings: usize,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
}

/// Indices into [`Layout::tensors`] of one block, in buffer order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerIndex {
    /// `input_layernorm.weight`, `[D]`.
    pub norm1: usize,
    /// `self_attn.q_proj.weight`, `[H·hd, D]`.
    pub q: usize,
    /// `self_attn.k_proj.weight`, `[KV·hd, D]`.
    pub k: usize,
    /// `self_attn.v_proj.weight`, `[KV·hd, D]`.
    pub v: usize,
    /// `self_attn.o_proj.weight`, `[D, H·hd]`.
    pub o: usize,
    /// `post_attention_layernorm.weight`, `[D]`.
    pub norm2: usize,
    /// `mlp.gate_proj.weight`, `[F, D]`.
    pub gate: usize,
    /// `mlp.up_proj.weight`, `[F, D]`.
    pub up: usize,
    /// `mlp.down_proj.weight`, `[D, F]`.
    pub down: usize,
}

/// Reads a positive integer of a HuggingFace configuration.
pub(crate) fn int(v: &Value, key: &str) -> Result<usize> {
    v.get(key).and_then(Value::as_u64).map(|x| x as usize).filter(|&x| x > 0).ok_or_else(|| {
        Error::data(format!("read {key} of config.json"))
            .expected("a positive integer")
            .got(v.get(key).map_or_else(|| "nothing".to_string(), Value::to_string))
    })
}

/// Reads an optional number; one of another type is an error, never the default.
pub(crate) fn real(v: &Value, key: &str, default: f64) -> Result<f64> {
    match v.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(x) => x.as_f64().ok_or_else(|| {
            Error::data(format!("read {key} of config.json")).expected("a number").got(x.to_string())
        }),
    }
}

/// Reads an optional truth value, false if absent.
fn flag(v: &Value, key: &str) -> Result<bool> {
    match v.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(x) => x.as_bool().ok_or_else(|| {
            Error::data(format!("read {key} of config.json")).expected("true or false").got(x.to_string())
        }),
    }
}

impl LlamaConfig {
    /// From a HuggingFace `config.json`.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Data`] for a missing field or a variant that is not implemented (attention biases,
    /// rotary scaling, an activation other than SiLU).
    pub fn from_hf(v: &Value) -> Result<Self> {
        let unsupported = |what: String| {
            Error::data("read config.json of a Llama-family model")
                .got(what)
                .hint("this variant is not supported")
        };
        let act = v.get("hidden_act").and_then(Value::as_str).unwrap_or("silu");
        if act != "silu" {
            return Err(unsupported(format!("hidden_act = {act}")));
        }
        for key in ["attention_bias", "mlp_bias"] {
            if flag(v, key)? {
                return Err(unsupported(format!("{key} = true")));
            }
        }
        if let Some(s) = v.get("rope_scaling").filter(|s| !s.is_null()) {
            return Err(unsupported(format!("rope_scaling = {s}")));
        }
        let hidden_size = int(v, "hidden_size")?;
        let num_heads = int(v, "num_attention_heads")?;
        let optional = |key: &str, default: usize| match v.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(_) => int(v, key),
        };
        // Newer configurations keep theta inside rope_parameters.
        let parameters = v.get("rope_parameters").filter(|p| p.get("rope_theta").is_some());
        let c = Self {
            vocab_size: int(v, "vocab_size")?,
            hidden_size,
            intermediate_size: int(v, "intermediate_size")?,
            num_layers: int(v, "num_hidden_layers")?,
            num_heads,
            num_kv_heads: optional("num_key_value_heads", num_heads)?,
            head_dim: optional("head_dim", hidden_size / num_heads)?,
            rope_theta: real(parameters.unwrap_or(v), "rope_theta", 10_000.0)?,
            rms_norm_eps: real(v, "rms_norm_eps", 1e-6)?,
            max_position_embeddings: optional("max_position_embeddings", 2048)?,
            tie_word_embeddings: flag(v, "tie_word_embeddings")?,
        };
        c.check()?;
        Ok(c)
    }

    /// Checks that the shape is possible.
    pub fn check(&self) -> Result<()> {
        if !self.num_heads.is_multiple_of(self.num_kv_heads)
            || !self.head_dim.is_multiple_of(2)
            || self.head_dim == 0
        {
            return Err(Error::data("check the shape of a Llama-family model")
                .expected("num_heads a multiple of num_kv_heads, head_dim even and positive")
                .got(format!("{} and {}, {}", self.num_heads, self.num_kv_heads, self.head_dim)));
        }
        if !(self.rms_norm_eps >= 0.0 && self.rms_norm_eps < 1.0 && self.rope_theta > 0.0) {
            return Err(Error::data("check the shape of a Llama-family model")
                .expected("rms_norm_eps of at least 0 and below 1, a positive rope_theta")
                .got(format!("{} and {}", self.rms_norm_eps, self.rope_theta)));
        }
        Ok(())
    }

    /// As a HuggingFace `config.json` (without token ids, which the tokenizer knows).
    pub fn to_hf(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "max_position_embeddings": self.max_position_embeddings,
            "hidden_act": "silu",
            "attention_bias": false,
            "mlp_bias": false,
            "tie_word_embeddings": self.tie_word_embeddings,
            "torch_dtype": "float32",
        })
    }

    /// Width of all query heads, `H·hd`.
    pub fn q_dim(&self) -> usize {
        self.num_heads * self.head_dim
    }
    /// Width of all key (or value) heads, `KV·hd`.
    pub fn kv_dim(&self) -> usize {
        self.num_kv_heads * self.head_dim
    }

    /// All tensors by their HuggingFace names: embedding, blocks (in the order of [`LayerIndex`]), final norm,
    /// then the head unless it is tied.
    pub fn layout(&self) -> Layout {
        let (d, f, q, kv) = (self.hidden_size, self.intermediate_size, self.q_dim(), self.kv_dim());
        let mut l = Layout::new();
        l.push("model.embed_tokens.weight", &[self.vocab_size, d], true);
        for i in 0..self.num_layers {
            let p = format!("model.layers.{i}");
            l.push(format!("{p}.input_layernorm.weight"), &[d], false);
            l.push(format!("{p}.self_attn.q_proj.weight"), &[q, d], true);
            l.push(format!("{p}.self_attn.k_proj.weight"), &[kv, d], true);
            l.push(format!("{p}.self_attn.v_proj.weight"), &[kv, d], true);
            l.push(format!("{p}.self_attn.o_proj.weight"), &[d, q], true);
            l.push(format!("{p}.post_attention_layernorm.weight"), &[d], false);
            l.push(format!("{p}.mlp.gate_proj.weight"), &[f, d], true);
            l.push(format!("{p}.mlp.up_proj.weight"), &[f, d], true);
            l.push(format!("{p}.mlp.down_proj.weight"), &[d, f], true);
        }
        l.push("model.norm.weight", &[d], false);
        if !self.tie_word_embeddings {
            l.push("lm_head.weight", &[self.vocab_size, d], true);
        }
        l
    }

    /// Indices of the tensors of block `i` in [`LlamaConfig::layout`].
    pub fn layer(&self, i: usize) -> LayerIndex {
        let b = 1 + 9 * i;
        LayerIndex {
            norm1: b,
            q: b + 1,
            k: b + 2,
            v: b + 3,
            o: b + 4,
            norm2: b + 5,
            gate: b + 6,
            up: b + 7,
            down: b + 8,
        }
    }
    /// Index of the embedding, `[V, D]`.
    pub fn embed_index(&self) -> usize {
        0
    }
    /// Index of the final norm, `[D]`.
    pub fn norm_index(&self) -> usize {
        1 + 9 * self.num_layers
    }
    /// Index of the head, `[V, D]`: the embedding's if tied.
    pub fn head_index(&self) -> usize {
        if self.tie_word_embeddings { 0 } else { self.norm_index() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_follow_the_layout_and_hf_round_trips() {
        let c = LlamaConfig {
            vocab_size: 11,
            hidden_size: 8,
            intermediate_size: 12,
            num_layers: 2,
            num_heads: 4,
            num_kv_heads: 2,
            head_dim: 2,
            rope_theta: 1e5,
            rms_norm_eps: 1e-5,
            max_position_embeddings: 32,
            tie_word_embeddings: false,
        };
        let l = c.layout();
        let at = c.layer(1);
        assert_eq!(l.tensors[at.norm1].name, "model.layers.1.input_layernorm.weight");
        assert_eq!(l.tensors[at.down].name, "model.layers.1.mlp.down_proj.weight");
        assert_eq!(l.tensors[c.norm_index()].name, "model.norm.weight");
        assert_eq!(l.tensors[c.head_index()].name, "lm_head.weight");
        assert_eq!(LlamaConfig::from_hf(&c.to_hf()).unwrap(), c);
    }
}
