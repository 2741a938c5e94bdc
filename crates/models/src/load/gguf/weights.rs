//! The model's shape, and its tensors under HuggingFace names, rows in HuggingFace's order.

use ecr_core::{Error, Result};
use serde_json::{Value as Json, json};

use super::{Gguf, damaged};
use crate::load::{Tensor, TensorMap, safetensors::check_finite};

impl Gguf {
    /// The model's shape as a HuggingFace `config.json` of a Llama.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Data`] for another architecture or missing or impossible values.
    pub fn config_json(&self) -> Result<Json> {
        let arch = self.need("general.architecture", self.text("general.architecture"))?;
        if arch != "llama" {
            return Err(Error::data(format!("read {}", self.what))
                .expected("a model of the llama family")
                .got(arch));
        }
        let (d, heads) =
            (self.need_uint("llama.embedding_length")?, self.need_uint("llama.attention.head_count")?);
        let kv = self.uint_or("llama.attention.head_count_kv", heads)?;
        let head_dim = self.uint_or("llama.attention.key_length", d / heads.max(1))?;
        let theta = self.or("llama.rope.freq_base", self.float("llama.rope.freq_base"), 10_000.0)?;
        let tied = !self.tensors.iter().any(|t| t.name == "output.weight");
        let vocab = self
            .tensors
            .iter()
            .find(|t| t.name == "token_embd.weight" && t.shape.len() == 2)
            .map(|t| t.shape[0] as u64);
        let vocab = self.need("the tensor token_embd.weight", vocab)?;
        for scaling in ["llama.rope.scaling.type", "llama.rope.scaling.factor"] {
            if self.text(scaling).is_some_and(|s| s != "none")
                || self.float(scaling).is_some_and(|f| f != 1.0)
            {
                return Err(Error::data(format!("read {}", self.what)).expected("plain RoPE").got(scaling));
            }
        }
        // f32 in the file: 9 digits give back 1e-5 rather than 9.99999974e-6.
        let eps = self.float("llama.attention.layer_norm_rms_epsilon");
        let eps = self.need("llama.attention.layer_norm_rms_epsilon", eps)?;
        let id = |key: &str| self.uint(&format!("tokenizer.ggml.{key}_token_id"));
        Ok(json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocab, "hidden_size": d,
            "intermediate_size": self.need_uint("llama.feed_forward_length")?,
            "num_hidden_layers": self.need_uint("llama.block_count")?,
            "num_attention_heads": heads, "num_key_value_heads": kv, "head_dim": head_dim, "hidden_act": "silu",
            "max_position_embeddings": self.need_uint("llama.context_length")?,
            "rms_norm_eps": (eps * 1e9).round() / 1e9,
            "rope_theta": theta,
            "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": tied,
            "bos_token_id": id("bos"), "eos_token_id": id("eos"), "pad_token_id": id("padding").or(id("eos")),
        }))
    }

    /// All tensors under HuggingFace names, q and k rows back in half-split RoPE order.
    ///
    /// # Errors
    /// [`ecr_core::Kind::Data`] for an unknown tensor name, impossible head counts, or values that are not finite.
    pub fn tensors(&self) -> Result<TensorMap> {
        let heads = self.need_uint("llama.attention.head_count")? as usize;
        let kv = self.uint_or("llama.attention.head_count_kv", heads as u64)? as usize;
        let mut out = TensorMap::new();
        for t in &self.tensors {
            if t.name.starts_with("rope_freqs") {
                return Err(Error::data(format!("read {}", self.what))
                    .expected("plain RoPE")
                    .got("rope_freqs"));
            }
            let name = hf_name(&t.name).ok_or_else(|| {
                Error::data(format!("read {}", self.what))
                    .expected("tensors of the llama family")
                    .got(&t.name)
            })?;
            let mut data = t.kind.dequantise(&self.bytes[t.start..t.start + t.bytes]);
            check_finite(&t.name, &data, &self.what)?;
            let n = if t.name.ends_with("attn_q.weight") {
                heads
            } else if t.name.ends_with("attn_k.weight") {
                kv
            } else {
                0
            };
            if n > 0 || t.name.ends_with("attn_q.weight") || t.name.ends_with("attn_k.weight") {
                // The head count is the file's word: 2·n may not even be a number.
                let rows = t.shape[0];
                if n == 0
                    || t.shape.len() != 2
                    || n > rows
                    || !rows.is_multiple_of(n)
                    || !(rows / n).is_multiple_of(2)
                {
                    return Err(damaged(
                        &self.what,
                        format!("{} of shape {:?} with {n} heads", t.name, t.shape),
                    ));
                }
                data = half_split(&data, n, t.shape[0], t.shape[1]);
            }
            out.insert(name, Tensor { shape: t.shape.clone(), data });
        }
        Ok(out)
    }
}

/// `blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`.
fn hf_name(name: &str) -> Option<String> {
    let p: Vec<&str> = name.split('.').collect();
    Some(match p[..] {
        ["token_embd", "weight"] => "model.embed_tokens.weight".into(),
        ["output_norm", "weight"] => "model.norm.weight".into(),
        ["output", "weight"] => "lm_head.weight".into(),
        ["blk", i, part, "weight"] => {
            i.parse::<u32>().ok()?;
            let part = match part {
                "attn_norm" => "input_layernorm",
                "ffn_norm" => "post_attention_layernorm",
                "attn_q" => "self_attn.q_proj",
                "attn_k" => "self_attn.k_proj",
                "attn_v" => "self_attn.v_proj",
                "attn_output" => "self_attn.o_proj",
                "ffn_gate" => "mlp.gate_proj",
                "ffn_up" => "mlp.up_proj",
                "ffn_down" => "mlp.down_proj",
                _ => return None,
            };
            format!("model.layers.{i}.{part}.weight")
        }
        _ => return None,
    })
}

/// Undoes llama.cpp's row order: rows `(head, pair, 2)` → `(head, 2, pair)`; `w` is `[rows, d]`.
fn half_split(w: &[f32], heads: usize, rows: usize, d: usize) -> Vec<f32> {
    let pairs = rows / heads / 2;
    let mut out = Vec::with_capacity(w.len());
    for h in 0..heads {
        for s in 0..2 {
            for p in 0..pairs {
                let r = (h * pairs + p) * 2 + s;
                out.extend_from_slice(&w[r * d..(r + 1) * d]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_return_to_half_split_order() {
        // Two heads of four rows, one column: llama.cpp stores (0, 2, 1, 3) of each head.
        assert_eq!(half_split(&[0., 2., 1., 3., 4., 6., 5., 7.], 2, 8, 1), [0., 1., 2., 3., 4., 5., 6., 7.]);
    }
}
