//! LoRA adapters (Hu et al. 2021): `y = x·Wᵀ + (alpha/rank)·(x·Aᵀ)·Bᵀ` over a frozen `W`.
//!
//! An adapter is a [`ecr_core::Params`] of [`lora_layout`]; PEFT's tensor names.

use ecr_core::{Error, Layout, Result};

use crate::llama::LlamaConfig;

/// A projection of a Llama block that can carry an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proj {
    /// `self_attn.q_proj`
    Q,
    /// `self_attn.k_proj`
    K,
    /// `self_attn.v_proj`
    V,
    /// `self_attn.o_proj`
    O,
    /// `mlp.gate_proj`
    Gate,
    /// `mlp.up_proj`
    Up,
    /// `mlp.down_proj`
    Down,
}

impl Proj {
    /// All projections in buffer order.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// PEFT's `target_modules` name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }
    /// From PEFT's name ("q_proj", or "q").
    ///
    /// # Errors
    /// [`ecr_core::Kind::Config`] for any other name.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|p| p.name() == name || p.name().strip_suffix("_proj") == Some(name))
            .ok_or_else(|| {
                Error::config("read the LoRA target modules")
                    .expected("q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj or down_proj")
                    .got(name)
            })
    }
    fn path(self) -> &'static str {
        match self {
            Self::Q | Self::K | Self::V | Self::O => "self_attn",
            _ => "mlp",
        }
    }
    /// Output and input width, `(n, k)`.
    pub fn shape(self, c: &LlamaConfig) -> (usize, usize) {
        let (d, f) = (c.hidden_size, c.intermediate_size);
        match self {
            Self::Q => (c.q_dim(), d),
            Self::K | Self::V => (c.kv_dim(), d),
            Self::O => (d, c.q_dim()),
            Self::Gate | Self::Up => (f, d),
            Self::Down => (d, f),
        }
    }
}

/// Rank, scale and place of an adapter.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Rank `r` ≥ 1.
    pub rank: usize,
    /// The update is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Adapted projections, in the order of [`Proj::ALL`], without repetition (see [`LoraConfig::new`]).
    pub targets: Vec<Proj>,
}

impl LoraConfig {
    /// Sorts the targets into buffer order and drops repetitions.
    pub fn new(rank: usize, alpha: f64, targets: &[Proj]) -> Self {
        let targets = Proj::ALL.into_iter().filter(|p| targets.contains(p)).collect();
        Self { rank, alpha, targets }
    }
    /// `alpha / rank`.
    pub fn scale(&self) -> f32 {
        (self.alpha / self.rank as f64) as f32
    }
    /// Index of `A` of this projection in block `i` of [`lora_layout`] (`B` is the next); `None` if not adapted.
    pub fn index(&self, i: usize, p: Proj) -> Option<usize> {
        let at = self.targets.iter().position(|&t| t == p)?;
        Some(2 * (i * self.targets.len() + at))
    }
}

/// Tensors of an adapter by PEFT's names: for each block and target `lora_A` `[r, in]`, then `lora_B`
/// `[out, r]`.
pub fn lora_layout(c: &LlamaConfig, lora: &LoraConfig) -> Layout {
    let mut l = Layout::new();
    for i in 0..c.num_layers {
        for p in &lora.targets {
            let (n, k) = p.shape(c);
            let name = format!("base_model.model.model.layers.{i}.{}.{}", p.path(), p.name());
            l.push(format!("{name}.lora_A.weight"), &[lora.rank, k], true);
            l.push(format!("{name}.lora_B.weight"), &[n, lora.rank], true);
        }
    }
    l
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_and_targets_are_sorted() {
        let l = LoraConfig::new(4, 8.0, &[Proj::V, Proj::Q, Proj::V]);
        assert_eq!(l.targets, [Proj::Q, Proj::V]);
        assert_eq!(l.scale(), 2.0);
        assert_eq!(l.index(1, Proj::V), Some(6));
        assert_eq!(l.index(0, Proj::K), None);
        assert_eq!(Proj::parse("down_proj").unwrap(), Proj::Down);
        assert!(Proj::parse("lm_head").is_err());
    }
}
