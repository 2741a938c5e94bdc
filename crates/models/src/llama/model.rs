//! The Llama trunk and head over packed sequences, forward and backward, explicit.
//!
//! Legend: `T` tokens, `S` sequences, `N` scored tokens, `R` rows of final states, `D` width, `F` feed-forward width,
//! `H`/`KV` heads, `hd` head width, `V` vocabulary.

use ecr_core::seam::{Encoded, Encoder, Pass, Policy, Scores};
use ecr_core::{Error, Layout, Packed, Params, Result};
use ecr_kernels::{Engine, math};

use super::LlamaConfig;
use super::weights::{Base, Weights};
use crate::lora::Proj;
use crate::ops::attention::Attention;
use crate::ops::head::{Head, Prefixes};
use crate::ops::linear::{Grads, Scratch};
use crate::ops::rope::{Rope, merge_heads, split_heads};
use crate::ops::{embedding, on_pool, rmsnorm, size, swiglu};

/// What the backward pass needs of one block.
#[derive(Debug, Default)]
struct Layer {
    x: Vec<f32>,     // [T, D] input
    rstd1: Vec<f32>, // [T]
    q: Vec<f32>,     // [H, T, hd]
    k: Vec<f32>,     // [KV, T, hd]
    v: Vec<f32>,     // [KV, T, hd]
    o: Vec<f32>,     // [T, H·hd]
    mid: Vec<f32>,   // [T, D] after attention
    rstd2: Vec<f32>, // [T]
    gate: Vec<f32>,  // [T, F]
    up: Vec<f32>,    // [T, F]
}

/// Buffers that grow to the largest batch and are reused.
#[derive(Debug, Default)]
struct Workspace {
    x: Vec<f32>,
    h: Vec<f32>,
    wide: Vec<f32>,
    heads: Vec<f32>,
    dq: Vec<f32>,
    dk: Vec<f32>,
    dv: Vec<f32>,
    dx: Vec<f32>,
    dh: Vec<f32>,
    rows: Vec<f32>,
    states: Vec<f32>,
    d_states: Vec<f32>,
    rstd: Vec<f32>,
    linear: Scratch,
}

/// The batch of the last kept forward.
#[derive(Debug, Default)]
struct Kept {
    batch: Packed,
    positions: Vec<usize>,
    /// Tokens whose final states exist, `[R]`.
    rows: Vec<usize>,
    targets: Vec<u32>,
    params_id: u64,
    /// Whether the blocks' activations were stored.
    whole: bool,
}

/// A Llama: shape, kernels, an optional frozen base, and reusable buffers. Parameters come with each call: all
/// weights if there is no base, else an adapter over it (an empty layout is the base alone).
pub struct Llama {
    config: LlamaConfig,
    engine: Engine,
    base: Option<Base>,
    full_len: usize,
    rope: Rope,
    layers: Vec<Layer>,
    ws: Workspace,
    head: Head,
    kept: Option<Kept>,
}

/// An empty layout: the frozen base alone.
pub fn no_adapter() -> Params {
    Params::zeros(std::sync::Arc::new(Layout::new()))
}

impl Llama {
    /// A model whose weights all come with each call.
    pub fn full(config: LlamaConfig, engine: Engine) -> Self {
        Self::new(config, engine, None)
    }
    /// A frozen base; adapters come with each call.
    pub fn adapted(base: Base, engine: Engine) -> Self {
        Self::new(base.frozen.config.clone(), engine, Some(base))
    }
    fn new(config: LlamaConfig, engine: Engine, base: Option<Base>) -> Self {
        let full_len = config.layout().len;
        let rope = Rope::new(config.rope_theta, config.head_dim);
        Self {
            config,
            engine,
            base,
            full_len,
            rope,
            layers: Vec::new(),
            ws: Workspace::default(),
            head: Head::default(),
            kept: None,
        }
    }
    /// Shape.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }
    /// Kernels.
    pub fn engine(&self) -> Engine {
        self.engine
    }
    /// The frozen base, if there is one.
    pub fn base(&self) -> Option<&Base> {
        self.base.as_ref()
    }
    /// Final states (after the last norm) that predict the scored tokens of the last [`Policy::forward`], `[N, D]`.
    pub fn states(&self) -> &[f32] {
        &self.ws.states
    }

    /// Runs the blocks; leaves the residual stream in `ws.x`, `[T, D]`. `rows`: tokens whose final states are
    /// computed into `ws.states`, `[R, D]`.
    fn trunk(&mut self, params: &Params, batch: &Packed, rows: Vec<usize>, keep: bool) -> Result<()> {
        let c = &self.config;
        let (t, d, e) = (batch.tokens.len(), c.hidden_size, self.engine);
        let longest = (0..batch.sequences()).map(|s| batch.range(s).len()).max().unwrap_or(0);
        if longest > c.max_position_embeddings {
            return Err(Error::data("run a Llama on a batch")
                .expected(format!("sequences of at most {} tokens", c.max_position_embeddings))
                .got(format!("one of {longest}")));
        }
        let w = Weights::of(c, self.full_len, self.base.as_ref(), &params.layout, &params.data)?;
        self.rope.grow(longest);
        let positions: Vec<usize> = (0..batch.sequences()).flat_map(|s| 0..batch.range(s).len()).collect();
        let ws = &mut self.ws;
        let x = size(&mut ws.x, t * d);
        w.lookup(c, &batch.tokens, x)?;
        self.layers.resize_with(c.num_layers, Layer::default);
        let attention = Attention {
            engine: e,
            heads: c.num_heads,
            kv_heads: c.num_kv_heads,
            head_dim: c.head_dim,
            starts: &batch.starts,
            causal: true,
        };
        let (qd, kvd, f) = (c.q_dim(), c.kv_dim(), c.intermediate_size);
        for i in 0..c.num_layers {
            let at = c.layer(i);
            // Without a backward pass to come, all blocks share the buffers of the first.
            let a = &mut self.layers[if keep { i } else { 0 }];
            let h = size(&mut ws.h, t * d);
            let wide = size(&mut ws.wide, t * qd.max(f));
            if keep {
                size(&mut a.x, t * d).copy_from_slice(x);
            }
            rmsnorm::forward(x, w.norm(at.norm1), c.rms_norm_eps, h, size(&mut a.rstd1, t));
            let rope = Some(&self.rope);
            for (p, tensor, width, heads, out, rope) in [
                (Proj::Q, at.q, qd, c.num_heads, &mut a.q, rope),
                (Proj::K, at.k, kvd, c.num_kv_heads, &mut a.k, rope),
                (Proj::V, at.v, kvd, c.num_kv_heads, &mut a.v, None),
            ] {
                let y = &mut wide[..t * width];
                w.linear(c, i, p, tensor).forward(e, t, h, y, false, &mut ws.linear);
                split_heads(y, heads, &positions, rope, size(out, t * width));
            }
            let heads = size(&mut ws.heads, t * qd);
            attention.forward(&a.q, &a.k, &a.v, heads);
            let o = size(&mut a.o, t * qd);
            merge_heads(heads, c.num_heads, &positions, None, o);
            w.linear(c, i, Proj::O, at.o).forward(e, t, o, x, true, &mut ws.linear);
            if keep {
                size(&mut a.mid, t * d).copy_from_slice(x);
            }
            rmsnorm::forward(x, w.norm(at.norm2), c.rms_norm_eps, h, size(&mut a.rstd2, t));
            let (gate, up) = (size(&mut a.gate, t * f), size(&mut a.up, t * f));
            w.linear(c, i, Proj::Gate, at.gate).forward(e, t, h, gate, false, &mut ws.linear);
            w.linear(c, i, Proj::Up, at.up).forward(e, t, h, up, false, &mut ws.linear);
            let y = &mut wide[..t * f];
            swiglu::forward(gate, up, y);
            w.linear(c, i, Proj::Down, at.down).forward(e, t, y, x, true, &mut ws.linear);
        }
        let r = rows.len();
        let gathered = size(&mut ws.rows, r * d);
        for (g, &row) in gathered.chunks_mut(d).zip(&rows) {
            g.copy_from_slice(&x[row * d..(row + 1) * d]);
        }
        ws.states.resize(r * d, 0.0);
        let norm = w.norm(c.norm_index());
        rmsnorm::forward(gathered, norm, c.rms_norm_eps, &mut ws.states, size(&mut ws.rstd, r));
        self.kept = Some(Kept {
            batch: batch.clone(),
            positions,
            rows,
            targets: Vec::new(),
            params_id: params.id,
            whole: keep,
        });
        Ok(())
    }

    /// Final states of `rows` into [`Llama::states`], nothing kept.
    pub(crate) fn run_trunk(&mut self, params: &Params, batch: &Packed, rows: Vec<usize>) -> Result<()> {
        on_pool(|| self.trunk(params, batch, rows, false))
    }

    /// From `∂L/∂states` in `ws.d_states` (`[R, D]`) to gradients of everything below, added to `params.grad`.
    fn trunk_backward(&mut self, params: &mut Params, kept: &Kept) -> Result<()> {
        let c = &self.config;
        let (t, d, e) = (kept.batch.tokens.len(), c.hidden_size, self.engine);
        let Params { layout, data, grad, .. } = params;
        let w = Weights::of(c, self.full_len, self.base.as_ref(), layout, data)?;
        let full = matches!(w, Weights::Full { .. });
        let ws = &mut self.ws;
        let r = kept.rows.len();

        // Final norm.
        let d_rows = size(&mut ws.dh, (r * d).max(t * d));
        d_rows[..r * d].fill(0.0);
        let norm = c.norm_index();
        let dw = full.then(|| &mut grad[layout.tensors[norm].range()]);
        rmsnorm::backward(
            &ws.d_states[..r * d],
            &ws.rows[..r * d],
            w.norm(norm),
            &ws.rstd[..r],
            &mut d_rows[..r * d],
            dw,
        );
        let dx = size(&mut ws.dx, t * d);
        dx.fill(0.0);
        for (g, &row) in ws.dh.chunks(d).zip(&kept.rows) {
            math::axpy(1.0, g, &mut dx[row * d..(row + 1) * d]);
        }

        let attention = Attention {
            engine: e,
            heads: c.num_heads,
            kv_heads: c.num_kv_heads,
            head_dim: c.head_dim,
            starts: &kept.batch.starts,
            causal: true,
        };
        let (qd, kvd, f) = (c.q_dim(), c.kv_dim(), c.intermediate_size);
        for i in (0..c.num_layers).rev() {
            let at = c.layer(i);
            let a = &mut self.layers[i];
            let h = size(&mut ws.h, t * d);
            let dh = size(&mut ws.dh, t * d);
            let wide = size(&mut ws.wide, t * qd.max(f));

            // Feed-forward: x = mid + down(swiglu(gate(h), up(h))), h = norm2(mid).
            let down = w.linear(c, i, Proj::Down, at.down);
            let (gate, up) = (&mut a.gate[..t * f], &mut a.up[..t * f]);
            let ds = size(&mut ws.heads, t * f.max(qd));
            let ds = &mut ds[..t * f];
            let y = &mut wide[..t * f];
            if full || down.adapter.is_some() {
                swiglu::forward(gate, up, y);
            }
            let g = grads(&w, layout, grad, i, Proj::Down, at.down, full);
            down.backward(e, t, y, dx, Some(ds), false, g, &mut ws.linear);
            swiglu::backward(ds, gate, up);
            rmsnorm::again(&a.mid[..t * d], w.norm(at.norm2), &a.rstd2[..t], h);
            for (p, tensor, dy, add) in [(Proj::Gate, at.gate, &*gate, false), (Proj::Up, at.up, &*up, true)]
            {
                let g = grads(&w, layout, grad, i, p, tensor, full);
                w.linear(c, i, p, tensor).backward(e, t, h, dy, Some(dh), add, g, &mut ws.linear);
            }
            let dw = full.then(|| &mut grad[layout.tensors[at.norm2].range()]);
            rmsnorm::backward(dh, &a.mid[..t * d], w.norm(at.norm2), &a.rstd2[..t], dx, dw);

            // Attention: mid = x + o(attention(q(h), k(h), v(h))), h = norm1(x).
            let d_o = &mut wide[..t * qd];
            let g = grads(&w, layout, grad, i, Proj::O, at.o, full);
            w.linear(c, i, Proj::O, at.o).backward(
                e,
                t,
                &a.o[..t * qd],
                dx,
                Some(d_o),
                false,
                g,
                &mut ws.linear,
            );
            let d_heads = size(&mut ws.heads, t * qd);
            split_heads(d_o, c.num_heads, &kept.positions, None, d_heads);
            let (dq, dk, dv) =
                (size(&mut ws.dq, t * qd), size(&mut ws.dk, t * kvd), size(&mut ws.dv, t * kvd));
            attention.backward(&a.q[..t * qd], &a.k[..t * kvd], &a.v[..t * kvd], d_heads, dq, dk, dv);
            rmsnorm::again(&a.x[..t * d], w.norm(at.norm1), &a.rstd1[..t], h);
            // Below the first block of a frozen base nothing is trained.
            let below = full || i > 0;
            let rope = Some(&self.rope);
            for (p, tensor, width, heads, dy, rope, add) in [
                (Proj::Q, at.q, qd, c.num_heads, dq, rope, false),
                (Proj::K, at.k, kvd, c.num_kv_heads, dk, rope, true),
                (Proj::V, at.v, kvd, c.num_kv_heads, dv, None, true),
            ] {
                let merged = &mut wide[..t * width];
                merge_heads(dy, heads, &kept.positions, rope, merged);
                let g = grads(&w, layout, grad, i, p, tensor, full);
                let dh = below.then_some(&mut *dh);
                w.linear(c, i, p, tensor).backward(e, t, h, merged, dh, add, g, &mut ws.linear);
            }
            if below {
                let dw = full.then(|| &mut grad[layout.tensors[at.norm1].range()]);
                rmsnorm::backward(dh, &a.x[..t * d], w.norm(at.norm1), &a.rstd1[..t], dx, dw);
            }
        }
        if full {
            let table = &mut grad[layout.tensors[c.embed_index()].range()];
            embedding::backward(&kept.batch.tokens, dx, d, table);
        }
        Ok(())
    }

    /// [`Policy::backward`] with, in addition, `∂L/∂states` (`[N, D]` or empty): a head on the policy's trunk.
    pub fn backward_with_states(
        &mut self,
        params: &mut Params,
        d_logp: &[f32],
        d_entropy: &[f32],
        d_states: &[f32],
    ) -> Result<()> {
        let kept = self.take_kept(params)?;
        on_pool(|| self.head_and_trunk_backward(params, &kept, d_logp, d_entropy, d_states))
    }

    fn head_and_trunk_backward(
        &mut self,
        params: &mut Params,
        kept: &Kept,
        d_logp: &[f32],
        d_entropy: &[f32],
        d_states: &[f32],
    ) -> Result<()> {
        let c = &self.config;
        let (d, n) = (c.hidden_size, kept.targets.len());
        let Params { layout, data, grad, .. } = params;
        let w = Weights::of(c, self.full_len, self.base.as_ref(), layout, data)?;
        let head = c.head_index();
        let dw = matches!(w, Weights::Full { .. }).then(|| &mut grad[layout.tensors[head].range()]);
        let ws = &mut self.ws;
        let dh = size(&mut ws.d_states, n * d);
        self.head.backward(
            self.engine,
            w.matrix(head),
            c.vocab_size,
            &ws.states,
            &kept.targets,
            None,
            d_logp,
            d_entropy,
            dh,
            dw,
        );
        if !d_states.is_empty() {
            math::axpy(1.0, d_states, dh);
        }
        self.trunk_backward(params, kept)
    }

    fn take_kept(&mut self, params: &Params) -> Result<Kept> {
        let kept = self.kept.take().filter(|k| k.whole);
        let kept =
            kept.ok_or_else(|| Error::internal("run a backward pass").expected("a kept forward pass"))?;
        if kept.params_id != params.id || !params.trainable() {
            return Err(Error::internal("run a backward pass")
                .expected("the trainable parameters of the last kept forward pass"));
        }
        Ok(kept)
    }
}

/// Gradient slots of a projection.
fn grads<'a>(
    w: &Weights<'_>,
    layout: &Layout,
    grad: &'a mut [f32],
    layer: usize,
    p: Proj,
    tensor: usize,
    full: bool,
) -> Grads<'a> {
    if full {
        return Grads { w: Some(&mut grad[layout.tensors[tensor].range()]), ..Grads::default() };
    }
    let Some(i) = w.adapter_index(layer, p) else { return Grads::default() };
    let (ra, rb) = (layout.tensors[i].range(), layout.tensors[i + 1].range());
    // B lies right behind A.
    let (a, b) = grad[ra.start..rb.end].split_at_mut(ra.len());
    Grads { adapter: Some((a, b)), ..Grads::default() }
}

/// The scored tokens before each scored token of its sequence, `[N]`.
fn prefixes<'a>(batch: &'a Packed, pass: &Pass<'a>) -> Option<Prefixes<'a>> {
    let mask = pass.mask?;
    let mut prefix = Vec::new();
    for s in 0..batch.sequences() {
        let range = batch.range(s);
        let Some(first) = range.clone().find(|&t| batch.scored[t]) else { continue };
        prefix.extend((first..range.end).filter(|&t| batch.scored[t]).map(|t| &batch.tokens[first..t]));
    }
    Some(Prefixes { mask, prefix })
}

impl Policy for Llama {
    fn forward(&mut self, params: &Params, batch: &Packed, pass: Pass<'_>) -> Result<Scores> {
        if pass.keep && pass.mask.is_some() {
            return Err(Error::internal("train through a token mask")
                .hint("score with the mask, or train without it"));
        }
        let scored = batch.scored_positions();
        let rows: Vec<usize> = scored.iter().map(|t| t - 1).collect();
        let targets: Vec<u32> = scored.iter().map(|&t| batch.tokens[t]).collect();
        let out = on_pool(|| {
            self.trunk(params, batch, rows, pass.keep)?;
            let c = &self.config;
            let w = Weights::of(c, self.full_len, self.base.as_ref(), &params.layout, &params.data)?;
            let mut out = Scores::default();
            self.head.forward(
                self.engine,
                w.matrix(c.head_index()),
                c.vocab_size,
                &self.ws.states,
                &targets,
                pass.temperature,
                prefixes(batch, &pass).as_ref(),
                &mut out.logp,
                &mut out.entropy,
            );
            Ok(out)
        })?;
        if let Some(k) = &mut self.kept {
            k.targets = targets;
        }
        Ok(out)
    }

    fn backward(&mut self, params: &mut Params, d_logp: &[f32], d_entropy: &[f32]) -> Result<()> {
        self.backward_with_states(params, d_logp, d_entropy, &[])
    }
}

impl Encoder for Llama {
    fn width(&self) -> usize {
        self.config.hidden_size
    }
    fn max_len(&self) -> usize {
        self.config.max_position_embeddings
    }
    fn forward(&mut self, params: &Params, batch: &Packed, keep: bool) -> Result<Encoded> {
        on_pool(|| self.trunk(params, batch, (0..batch.tokens.len()).collect(), keep))?;
        let hidden = self.ws.states.clone();
        let pooled = crate::pool::mean(&hidden, &batch.starts, self.config.hidden_size);
        Ok(Encoded { hidden, pooled })
    }
    fn backward(&mut self, params: &mut Params, d_hidden: &[f32], d_pooled: &[f32]) -> Result<()> {
        let kept = self.take_kept(params)?;
        let d = self.config.hidden_size;
        let n = kept.batch.tokens.len() * d;
        let ds = size(&mut self.ws.d_states, n);
        ds.fill(0.0);
        if !d_hidden.is_empty() {
            ds.copy_from_slice(d_hidden);
        }
        if !d_pooled.is_empty() {
            crate::pool::mean_backward(d_pooled, &kept.batch.starts, d, ds);
        }
        on_pool(|| self.trunk_backward(params, &kept))
    }
}
