//! BERT and RoBERTa over packed sequences, forward and backward: post-norm blocks, biases, GELU, no pooler.
//!
//! Legend: `T` tokens, `S` sequences, `D` width, `F` feed-forward width, `H` heads, `hd` head width.

use ecr_core::seam::{Encoded, Encoder};
use ecr_core::{Error, Packed, Params, Result};
use ecr_kernels::{Engine, PackedWeight, Weight, math};

use super::BertConfig;
use crate::ops::attention::Attention;
use crate::ops::linear::{Grads, Linear, Scratch};
use crate::ops::rope::{merge_heads, split_heads};
use crate::ops::{embedding, gelu, layernorm, size};
use crate::pool;

/// What the backward pass needs of one block.
#[derive(Debug, Default)]
struct Layer {
    x: Vec<f32>,    // [T, D] input
    q: Vec<f32>,    // [H, T, hd]
    k: Vec<f32>,    // [H, T, hd]
    v: Vec<f32>,    // [H, T, hd]
    o: Vec<f32>,    // [T, D]
    sum1: Vec<f32>, // [T, D] before the first norm
    stats1: Vec<(f32, f32)>,
    mid: Vec<f32>,  // [T, D] after it
    up: Vec<f32>,   // [T, F] before GELU
    sum2: Vec<f32>, // [T, D] before the second norm
    stats2: Vec<(f32, f32)>,
}

#[derive(Debug, Default)]
struct Workspace {
    x: Vec<f32>,
    a: Vec<f32>,
    wide: Vec<f32>,
    heads: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    dx: Vec<f32>,
    d_sum: Vec<f32>,
    embed_sum: Vec<f32>,
    embed_stats: Vec<(f32, f32)>,
    linear: Scratch,
}

/// An encoder: shape, kernels and reusable buffers; parameters ([`BertConfig::layout`]) come with each call.
pub struct Bert {
    config: BertConfig,
    engine: Engine,
    layers: Vec<Layer>,
    ws: Workspace,
    kept: Option<(Packed, u64)>,
    /// Matrices packed for scoring, of the parameters with this id.
    packed: (u64, Vec<Option<PackedWeight>>),
}

fn stats(buffer: &mut Vec<(f32, f32)>, n: usize) -> &mut [(f32, f32)] {
    buffer.resize(n, (0.0, 0.0));
    buffer
}

impl Bert {
    /// An encoder of this shape.
    pub fn new(config: BertConfig, engine: Engine) -> Self {
        Self {
            config,
            engine,
            layers: Vec::new(),
            ws: Workspace::default(),
            kept: None,
            packed: (0, Vec::new()),
        }
    }
    /// Shape.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }
    fn positions(&self, batch: &Packed) -> Vec<u32> {
        let first = self.config.first_position() as u32;
        (0..batch.sequences()).flat_map(|s| first..first + batch.range(s).len() as u32).collect()
    }
    fn attention<'a>(&self, starts: &'a [usize]) -> Attention<'a> {
        let c = &self.config;
        Attention {
            engine: self.engine,
            heads: c.num_heads,
            kv_heads: c.num_heads,
            head_dim: c.head_dim(),
            starts,
            causal: false,
        }
    }
}

/// The dense map whose weight is tensor `i`; its bias is the next.
fn dense<'a>(params: &'a Params, packed: &'a [Option<PackedWeight>], i: usize) -> Linear<'a> {
    let shape = &params.layout.tensors[i].shape;
    let w = match packed.get(i).and_then(Option::as_ref) {
        Some(p) => Weight::Packed(p),
        None => Weight::Plain(params.tensor(i)),
    };
    Linear { w, n: shape[0], k: shape[1], bias: Some(params.tensor(i + 1)), adapter: None }
}

/// Gradient slots of tensor `i` (a matrix or a norm's weight) and of the bias behind it.
fn slots<'a>(layout: &ecr_core::Layout, grad: &'a mut [f32], i: usize) -> (&'a mut [f32], &'a mut [f32]) {
    let (w, b) = (layout.tensors[i].range(), layout.tensors[i + 1].range());
    grad[w.start..b.end].split_at_mut(w.len())
}

fn add_to(x: &[f32], y: &mut [f32]) {
    math::axpy(1.0, x, y);
}

impl Encoder for Bert {
    fn width(&self) -> usize {
        self.config.hidden_size
    }
    fn max_len(&self) -> usize {
        self.config.max_len()
    }

    fn forward(&mut self, params: &Params, batch: &Packed, keep: bool) -> Result<Encoded> {
        let (t, d, f) = (batch.tokens.len(), self.config.hidden_size, self.config.intermediate_size);
        let longest = (0..batch.sequences()).map(|s| batch.range(s).len()).max().unwrap_or(0);
        if longest > self.max_len() {
            return Err(Error::data("run an encoder on a batch")
                .expected(format!("sequences of at most {} tokens", self.max_len()))
                .got(format!("one of {longest}")));
        }
        let positions = self.positions(batch);
        if !keep && self.packed.0 != params.id {
            let e = self.engine;
            let pack = |(i, t): (usize, &ecr_core::TensorSpec)| {
                let dense = i >= BertConfig::EMBED_TENSORS && t.shape.len() == 2;
                dense.then(|| e.pack_forward(t.shape[0], t.shape[1], params.tensor(i)))
            };
            self.packed = (params.id, params.layout.tensors.iter().enumerate().map(pack).collect());
        }
        let packed: &[Option<PackedWeight>] = if keep { &[] } else { &self.packed.1 };
        let c = &self.config;
        let attention = self.attention(&batch.starts);
        let (e, eps, heads) = (self.engine, c.layer_norm_eps, c.num_heads);
        let ws = &mut self.ws;

        // Word, position and token-type 0 embeddings, then a norm.
        let sum = size(&mut ws.embed_sum, t * d);
        embedding::forward(&batch.tokens, params.tensor(0), d, sum)?;
        let a = size(&mut ws.a, t * d);
        embedding::forward(&positions, params.tensor(1), d, a)?;
        add_to(a, sum);
        sum.chunks_mut(d).for_each(|row| add_to(&params.tensor(2)[..d], row));
        let x = size(&mut ws.x, t * d);
        layernorm::forward(sum, params.tensor(3), params.tensor(4), eps, x, stats(&mut ws.embed_stats, t));

        self.layers.resize_with(c.num_layers, Layer::default);
        let ids: Vec<usize> = vec![0; t];
        for i in 0..c.num_layers {
            let at = c.layer(i);
            let l = &mut self.layers[if keep { i } else { 0 }];
            size(&mut l.x, t * d).copy_from_slice(x);
            let wide = size(&mut ws.wide, t * f.max(d));
            for (tensor, out) in [(at.q, &mut l.q), (at.k, &mut l.k), (at.v, &mut l.v)] {
                let y = &mut wide[..t * d];
                dense(params, packed, tensor).forward(e, t, x, y, false, &mut ws.linear);
                split_heads(y, heads, &ids, None, size(out, t * d));
            }
            let o_heads = size(&mut ws.heads, t * d);
            attention.forward(&l.q[..t * d], &l.k[..t * d], &l.v[..t * d], o_heads);
            let o = size(&mut l.o, t * d);
            merge_heads(o_heads, heads, &ids, None, o);
            let sum1 = size(&mut l.sum1, t * d);
            dense(params, packed, at.o).forward(e, t, o, sum1, false, &mut ws.linear);
            add_to(x, sum1);
            let mid = size(&mut l.mid, t * d);
            let (w, b) = (params.tensor(at.norm1), params.tensor(at.norm1 + 1));
            layernorm::forward(sum1, w, b, eps, mid, stats(&mut l.stats1, t));
            let up = size(&mut l.up, t * f);
            dense(params, packed, at.up).forward(e, t, mid, up, false, &mut ws.linear);
            let y = &mut wide[..t * f];
            gelu::forward(up, y);
            let sum2 = size(&mut l.sum2, t * d);
            dense(params, packed, at.down).forward(e, t, y, sum2, false, &mut ws.linear);
            add_to(mid, sum2);
            let (w, b) = (params.tensor(at.norm2), params.tensor(at.norm2 + 1));
            layernorm::forward(sum2, w, b, eps, x, stats(&mut l.stats2, t));
        }
        self.kept = keep.then(|| (batch.clone(), params.id));
        let hidden = x.to_vec();
        let pooled = pool::mean(&hidden, &batch.starts, d);
        Ok(Encoded { hidden, pooled })
    }

    fn backward(&mut self, params: &mut Params, d_hidden: &[f32], d_pooled: &[f32]) -> Result<()> {
        let wanted =
            || Error::internal("run an encoder backward").expected("a kept forward of trainable parameters");
        let (batch, id) = self.kept.take().ok_or_else(wanted)?;
        if id != params.id || !params.trainable() {
            return Err(wanted());
        }
        let positions = self.positions(&batch);
        let attention = self.attention(&batch.starts);
        let c = &self.config;
        let (t, d, f, e, heads) =
            (batch.tokens.len(), c.hidden_size, c.intermediate_size, self.engine, c.num_heads);
        let ids: Vec<usize> = vec![0; t];
        let ws = &mut self.ws;
        let dx = size(&mut ws.dx, t * d);
        if d_hidden.is_empty() {
            dx.fill(0.0)
        } else {
            dx.copy_from_slice(d_hidden)
        }
        if !d_pooled.is_empty() {
            pool::mean_backward(d_pooled, &batch.starts, d, dx);
        }
        // Values are read through `params`, gradients written to a buffer taken out of it.
        let mut grad = std::mem::take(&mut params.grad);
        let layout = params.layout.clone();
        for i in (0..c.num_layers).rev() {
            let at = c.layer(i);
            let l = &mut self.layers[i];
            let d_sum = size(&mut ws.d_sum, t * d);
            let wide = size(&mut ws.wide, t * f.max(d));

            // out = norm2(mid + down(gelu(up(mid)))).
            let norm = params.tensor(at.norm2);
            layernorm::backward(
                dx,
                &l.sum2[..t * d],
                norm,
                &l.stats2,
                d_sum,
                Some(slots(&layout, &mut grad, at.norm2)),
            );
            let y = &mut wide[..t * f];
            gelu::forward(&l.up[..t * f], y);
            let d_up = size(&mut ws.heads, t * f.max(d));
            let d_up = &mut d_up[..t * f];
            let (w, b) = slots(&layout, &mut grad, at.down);
            let g = Grads { w: Some(w), bias: Some(b), adapter: None };
            dense(params, &[], at.down).backward(e, t, y, d_sum, Some(d_up), false, g, &mut ws.linear);
            gelu::backward(&l.up[..t * f], d_up);
            let (w, b) = slots(&layout, &mut grad, at.up);
            let g = Grads { w: Some(w), bias: Some(b), adapter: None };
            // d_mid = d_sum (residual) + what comes through the feed-forward block.
            dense(params, &[], at.up).backward(
                e,
                t,
                &l.mid[..t * d],
                d_up,
                Some(d_sum),
                true,
                g,
                &mut ws.linear,
            );

            // mid = norm1(x + o(attention)).
            dx.copy_from_slice(d_sum);
            let norm = params.tensor(at.norm1);
            layernorm::backward(
                dx,
                &l.sum1[..t * d],
                norm,
                &l.stats1,
                d_sum,
                Some(slots(&layout, &mut grad, at.norm1)),
            );
            let d_o = &mut wide[..t * d];
            let (w, b) = slots(&layout, &mut grad, at.o);
            let g = Grads { w: Some(w), bias: Some(b), adapter: None };
            dense(params, &[], at.o).backward(
                e,
                t,
                &l.o[..t * d],
                d_sum,
                Some(d_o),
                false,
                g,
                &mut ws.linear,
            );
            let d_heads = size(&mut ws.heads, t * d);
            split_heads(d_o, heads, &ids, None, d_heads);
            let (dq, dk, dv) = (size(&mut ws.dq, t * d), size(&mut ws.dk, t * d), size(&mut ws.dv, t * d));
            attention.backward(&l.q[..t * d], &l.k[..t * d], &l.v[..t * d], d_heads, dq, dk, dv);
            dx.copy_from_slice(d_sum);
            for (tensor, dy) in [(at.q, dq), (at.k, dk), (at.v, dv)] {
                let merged = &mut wide[..t * d];
                merge_heads(dy, heads, &ids, None, merged);
                let (w, b) = slots(&layout, &mut grad, tensor);
                let g = Grads { w: Some(w), bias: Some(b), adapter: None };
                dense(params, &[], tensor).backward(
                    e,
                    t,
                    &l.x[..t * d],
                    merged,
                    Some(dx),
                    true,
                    g,
                    &mut ws.linear,
                );
            }
        }
        let d_sum = size(&mut ws.d_sum, t * d);
        let norm = params.tensor(3);
        layernorm::backward(
            dx,
            &ws.embed_sum[..t * d],
            norm,
            &ws.embed_stats,
            d_sum,
            Some(slots(&layout, &mut grad, 3)),
        );
        embedding::backward(&batch.tokens, d_sum, d, &mut grad[layout.tensors[0].range()]);
        embedding::backward(&positions, d_sum, d, &mut grad[layout.tensors[1].range()]);
        embedding::backward(&vec![0; t], d_sum, d, &mut grad[layout.tensors[2].range()]);
        params.grad = grad;
        Ok(())
    }
}
