//! Where a Llama's weights come from: a full set of parameters, or a frozen base with an optional adapter.

use std::sync::Arc;

use ecr_core::{Error, Layout, Params, Result};
use ecr_kernels::{Engine, PackedWeight, Weight};

use super::LlamaConfig;
use crate::lora::{LoraConfig, Proj, lora_layout};
use crate::ops::embedding;
use crate::ops::linear::{Adapter, Linear};

/// A frozen base: matrices in the engine's layout, norms as they are. Shared by any number of policies and adapters.
/// A tied embedding is looked up in the head, in the precision that the head is stored in.
#[derive(Debug)]
pub struct Frozen {
    /// Shape.
    pub config: LlamaConfig,
    /// `[V, D]`; empty if the head is the embedding.
    embed: Vec<f32>,
    /// By tensor index; empty for matrices.
    norms: Vec<Vec<f32>>,
    /// By tensor index; `None` for norms.
    packed: Vec<Option<PackedWeight>>,
}

impl Frozen {
    /// Packs all matrices for forward and backward. Where the values are not needed afterwards,
    /// [`Frozen::consume`] takes less memory on the way.
    pub fn new(config: LlamaConfig, engine: Engine, params: &Params) -> Self {
        let mut f = Self::empty(config, params.layout.tensors.len());
        (0..f.norms.len()).for_each(|i| f.take(engine, i, &params.layout, &params.data));
        f
    }
    /// The same, giving the memory of the values back tensor by tensor.
    pub fn consume(config: LlamaConfig, engine: Engine, params: Params) -> Self {
        let mut f = Self::empty(config, params.layout.tensors.len());
        let Params { layout, mut data, grad, m, v, .. } = params;
        drop((grad, m, v));
        for i in (0..layout.tensors.len()).rev() {
            f.take(engine, i, &layout, &data);
            data.truncate(layout.tensors[i].offset);
            data.shrink_to_fit();
        }
        f
    }
    fn empty(config: LlamaConfig, tensors: usize) -> Self {
        let norms = (0..tensors).map(|_| Vec::new()).collect();
        Self { config, embed: Vec::new(), norms, packed: vec![None; tensors] }
    }
    fn take(&mut self, engine: Engine, i: usize, layout: &Layout, data: &[f32]) {
        let (t, c) = (&layout.tensors[i], &self.config);
        let values = &data[t.range()];
        if t.shape.len() != 2 {
            self.norms[i] = values.to_vec();
        } else if i == c.embed_index() && !c.tie_word_embeddings {
            self.embed = values.to_vec();
        } else {
            self.packed[i] = Some(engine.pack(t.shape[0], t.shape[1], values));
        }
    }
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        4 * self.embed.len() + self.packed.iter().flatten().map(PackedWeight::bytes).sum::<usize>()
    }
}

/// A frozen base and the shape of adapters over it.
#[derive(Debug, Clone)]
pub struct Base {
    /// The base.
    pub frozen: Arc<Frozen>,
    /// Rank, scale and targets of adapters.
    pub lora: LoraConfig,
    layout: Arc<Layout>,
}

impl Base {
    /// A base for adapters of this shape.
    pub fn new(frozen: Arc<Frozen>, lora: LoraConfig) -> Self {
        let layout = Arc::new(lora_layout(&frozen.config, &lora));
        Self { frozen, lora, layout }
    }
    /// Layout of adapters over it.
    pub fn adapter_layout(&self) -> Arc<Layout> {
        self.layout.clone()
    }
}

/// The weights of one call.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a> {
    /// All weights, flat.
    Full { layout: &'a Layout, data: &'a [f32] },
    /// A base and the flat values of an adapter; none for the base alone.
    Adapted { base: &'a Base, layout: &'a Layout, data: Option<&'a [f32]> },
}

impl<'a> Weights<'a> {
    /// What `layout` says that the parameters are. An empty layout is the base alone.
    pub(crate) fn of(
        config: &LlamaConfig,
        full_len: usize,
        base: Option<&'a Base>,
        layout: &'a Layout,
        data: &'a [f32],
    ) -> Result<Self> {
        match base {
            None if layout.len == full_len => Ok(Self::Full { layout, data }),
            Some(b) if layout.len == 0 => Ok(Self::Adapted { base: b, layout, data: None }),
            Some(b) if layout.len == b.layout.len => Ok(Self::Adapted { base: b, layout, data: Some(data) }),
            _ => Err(Error::internal("run a Llama")
                .expected(match base {
                    None => format!("{full_len} parameters"),
                    Some(b) => format!("an adapter of {} parameters", b.layout.len),
                })
                .got(format!("{} parameters for a model of width {}", layout.len, config.hidden_size))),
        }
    }
    /// Whether all weights are in the parameters.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }
    /// A norm's weight.
    pub(crate) fn norm(&self, i: usize) -> &'a [f32] {
        match self {
            Self::Full { layout, data } => &data[layout.tensors[i].range()],
            Self::Adapted { base, .. } => &base.frozen.norms[i],
        }
    }
    /// Looks tokens up in the embedding, `x`: `[T, D]`.
    pub(crate) fn lookup(&self, config: &LlamaConfig, ids: &[u32], x: &mut [f32]) -> Result<()> {
        let (i, d) = (config.embed_index(), config.hidden_size);
        match self {
            Self::Full { layout, data } => embedding::forward(ids, &data[layout.tensors[i].range()], d, x),
            Self::Adapted { base, .. } => match &base.frozen.packed[i] {
                Some(p) => {
                    embedding::check(ids, config.vocab_size)?;
                    x.chunks_mut(d).zip(ids).for_each(|(x, &id)| p.read_row(id as usize, x));
                    Ok(())
                }
                None => embedding::forward(ids, &base.frozen.embed, d, x),
            },
        }
    }
    /// A matrix.
    pub(crate) fn matrix(&self, i: usize) -> Weight<'a> {
        match self {
            Self::Full { layout, data } => Weight::Plain(&data[layout.tensors[i].range()]),
            Self::Adapted { base, .. } => match &base.frozen.packed[i] {
                Some(p) => Weight::Packed(p),
                None => Weight::Plain(&base.frozen.embed),
            },
        }
    }
    /// Indices of a projection's adapter tensors, if it has them.
    pub(crate) fn adapter_index(&self, layer: usize, p: Proj) -> Option<usize> {
        match self {
            Self::Adapted { base, data: Some(_), .. } => base.lora.index(layer, p),
            _ => None,
        }
    }
    /// One projection.
    pub(crate) fn linear(&self, config: &LlamaConfig, layer: usize, p: Proj, tensor: usize) -> Linear<'a> {
        let (n, k) = p.shape(config);
        let adapter = match self {
            Self::Adapted { base, layout, data: Some(data) } => base.lora.index(layer, p).map(|i| Adapter {
                a: Weight::Plain(&data[layout.tensors[i].range()]),
                b: Weight::Plain(&data[layout.tensors[i + 1].range()]),
                rank: base.lora.rank,
                scale: base.lora.scale(),
            }),
            _ => None,
        };
        Linear { w: self.matrix(tensor), n, k, bias: None, adapter }
    }
}
