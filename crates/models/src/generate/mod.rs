//! Batched decoding with a key/value cache.
//!
//! Rows that finish give their place to waiting prompts. Arithmetic of a row depends on the row alone, and row `i`
//! draws from `streams[i]` only: its tokens are the same alone and in any batch.

mod cache;
mod sample;

use std::collections::{BTreeMap, BTreeSet};

use ecr_core::rng::Draws;
use ecr_core::seam::{Completion, Decoding, Generator};
use ecr_core::{Error, Params, Result, Stream};
use ecr_kernels::{Engine, PackedWeight, Weight, math};
use rayon::prelude::*;

use crate::llama::{Base, LlamaConfig, Weights};
use crate::lora::Proj;
use crate::ops::linear::{Adapter, Linear, Scratch};
use crate::ops::rope::Rope;
use crate::ops::{on_pool, rmsnorm, size, swiglu};
use cache::Slot;

/// Prompt tokens that one prefill pass takes at most.
const PREFILL: usize = 512;

/// Weights packed for the parameters with this id: all matrices, or the adapter's.
#[derive(Default)]
struct Packs {
    id: u64,
    matrices: BTreeMap<usize, PackedWeight>,
}

/// A decoder over full parameters, or over a frozen base and adapters.
pub struct LlamaGenerator {
    config: LlamaConfig,
    engine: Engine,
    base: Option<Base>,
    full_len: usize,
    /// Tokens that end a response.
    end: Vec<u32>,
    /// Rows decoded together.
    max_batch: usize,
    /// Store packed full weights as bf16 and compute in f32.
    store_bf16: bool,
    packs: Packs,
    rope: Rope,
    slots: Vec<Slot>,
    buf: Buffers,
}

#[derive(Default)]
struct Buffers {
    x: Vec<f32>,
    h: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    o: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    rstd: Vec<f32>,
    logits: Vec<f32>,
    linear: Scratch,
}

/// One token to be run: its cache slot, position and id.
#[derive(Clone, Copy)]
struct Row {
    slot: usize,
    pos: usize,
    token: u32,
}

/// A response in the making.
struct Live {
    request: usize,
    slot: usize,
    next: u32,
    pos: usize,
    draws: Draws,
    out: Completion,
}

/// Rows of the output of a joined matrix to the outputs of its parts, each with its width.
fn unjoin(all: &[f32], parts: &mut [(&mut [f32], usize)]) {
    let width: usize = parts.iter().map(|p| p.1).sum();
    for (r, row) in all.chunks(width).enumerate() {
        let mut at = 0;
        for (part, n) in parts.iter_mut() {
            part[r * *n..(r + 1) * *n].copy_from_slice(&row[at..at + *n]);
            at += *n;
        }
    }
}

impl LlamaGenerator {
    /// Decodes with parameters that come whole with each call.
    pub fn full(config: LlamaConfig, engine: Engine, end: Vec<u32>, max_batch: usize) -> Self {
        Self::new(config, engine, None, end, max_batch)
    }
    /// Decodes with adapters over a base; the base's packed weights are shared with training.
    pub fn adapted(base: Base, engine: Engine, end: Vec<u32>, max_batch: usize) -> Self {
        Self::new(base.frozen.config.clone(), engine, Some(base), end, max_batch)
    }
    fn new(config: LlamaConfig, engine: Engine, base: Option<Base>, end: Vec<u32>, max_batch: usize) -> Self {
        let rope = Rope::new(config.rope_theta, config.head_dim);
        let full_len = config.layout().len;
        Self {
            config,
            engine,
            base,
            full_len,
            end,
            max_batch: max_batch.max(1),
            store_bf16: false,
            packs: Packs::default(),
            rope,
            slots: Vec::new(),
            buf: Buffers::default(),
        }
    }
    /// Stores the weights of [`LlamaGenerator::full`] as bf16 and computes in f32: half the memory traffic.
    pub fn store_bf16(mut self, yes: bool) -> Self {
        self.store_bf16 = yes;
        self
    }

    /// Packs what the parameters hold, once for each of their values.
    fn pack(&mut self, params: &Params) -> Result<()> {
        if self.packs.id == params.id {
            return Ok(());
        }
        Weights::of(&self.config, self.full_len, self.base.as_ref(), &params.layout, &params.data)?;
        let mut matrices = BTreeMap::new();
        // Matrices of one input that lie side by side become one: queries, keys and values; gate and up.
        let (mut joined, mut within) = (BTreeMap::new(), BTreeSet::new());
        if self.base.is_none() {
            for at in (0..self.config.num_layers).map(|i| self.config.layer(i)) {
                joined.extend([(at.q, at.v), (at.gate, at.up)]);
                within.extend([at.k, at.v, at.up]);
            }
        }
        for (i, t) in params.layout.tensors.iter().enumerate().filter(|(_, t)| t.shape.len() == 2) {
            if within.contains(&i) {
                continue;
            }
            if self.base.is_none() && i == self.config.embed_index() && !self.config.tie_word_embeddings {
                continue;
            }
            let last = joined.get(&i).copied().unwrap_or(i);
            let w = &params.data[t.offset..params.layout.tensors[last].range().end];
            let (n, k) = (w.len() / t.shape[1], t.shape[1]);
            let packed = if self.store_bf16 && self.base.is_none() {
                self.engine.pack_decode(n, k, w, true)
            } else {
                self.engine.pack_forward(n, k, w)
            };
            matrices.insert(i, packed);
        }
        self.packs = Packs { id: params.id, matrices };
        Ok(())
    }

    /// Runs tokens through the blocks, extending the caches; final states of `wanted` rows to logits.
    fn run(&mut self, params: &Params, rows: &[Row], wanted: &[usize]) -> Result<()> {
        let c = &self.config;
        let (m, d, e) = (rows.len(), c.hidden_size, self.engine);
        let (qd, kvd, f, hd) = (c.q_dim(), c.kv_dim(), c.intermediate_size, c.head_dim);
        let w = Weights::of(c, self.full_len, self.base.as_ref(), &params.layout, &params.data)?;
        let packs = &self.packs.matrices;
        let packed = |i: usize| packs.get(&i).map(Weight::Packed);
        let linear = |layer: usize, p: Proj, tensor: usize| -> Linear<'_> {
            let mut l = w.linear(c, layer, p, tensor);
            if let (Some(a), Some(i)) = (l.adapter.as_mut(), w.adapter_index(layer, p)) {
                *a = Adapter { a: packed(i).unwrap_or(a.a), b: packed(i + 1).unwrap_or(a.b), ..*a };
            } else if w.is_full() {
                l.w = packed(tensor).unwrap_or(l.w);
            }
            l
        };
        let b = &mut self.buf;
        let ids: Vec<u32> = rows.iter().map(|r| r.token).collect();
        let x = size(&mut b.x, m * d);
        w.lookup(c, &ids, x)?;
        let h = size(&mut b.h, m * d);
        let rstd = size(&mut b.rstd, m);
        let (q, k, v) = (size(&mut b.q, m * qd), size(&mut b.k, m * kvd), size(&mut b.v, m * kvd));
        let o = size(&mut b.o, m * qd);
        let (gate, up) = (size(&mut b.gate, m * f), size(&mut b.up, m * f));
        let (group, scale) = (c.num_heads / c.num_kv_heads, 1.0 / (hd as f32).sqrt());
        for i in 0..c.num_layers {
            let at = c.layer(i);
            rmsnorm::forward(x, w.norm(at.norm1), c.rms_norm_eps, h, rstd);
            if let (true, Some(p)) = (w.is_full(), packed(at.q)) {
                let all = size(&mut b.logits, m * (qd + 2 * kvd));
                e.linear(m, qd + 2 * kvd, d, h, p, all, false);
                unjoin(all, &mut [(&mut *q, qd), (&mut *k, kvd), (&mut *v, kvd)]);
            } else {
                linear(i, Proj::Q, at.q).forward(e, m, h, q, false, &mut b.linear);
                linear(i, Proj::K, at.k).forward(e, m, h, k, false, &mut b.linear);
                linear(i, Proj::V, at.v).forward(e, m, h, v, false, &mut b.linear);
            }
            for (r, row) in rows.iter().enumerate() {
                q[r * qd..(r + 1) * qd].chunks_mut(hd).for_each(|q| self.rope.rotate(q, row.pos, true));
                k[r * kvd..(r + 1) * kvd].chunks_mut(hd).for_each(|k| self.rope.rotate(k, row.pos, true));
                self.slots[row.slot].put(i, row.pos, &k[r * kvd..(r + 1) * kvd], &v[r * kvd..(r + 1) * kvd]);
            }
            let slots = &self.slots;
            o.par_chunks_mut(qd).zip(q.par_chunks(qd)).zip(rows.par_iter()).for_each(|((o, q), row)| {
                let mut p = vec![0.0; row.pos + 1];
                for (head, (o, q)) in o.chunks_mut(hd).zip(q.chunks(hd)).enumerate() {
                    let (keys, values) = slots[row.slot].get(i, head / group, row.pos + 1);
                    math::query_keys(q, keys, &mut p);
                    math::softmax(&mut p, scale);
                    math::weighted_sum(&p, values, o);
                }
            });
            linear(i, Proj::O, at.o).forward(e, m, o, x, true, &mut b.linear);
            rmsnorm::forward(x, w.norm(at.norm2), c.rms_norm_eps, h, rstd);
            if let (true, Some(p)) = (w.is_full(), packed(at.gate)) {
                let all = size(&mut b.logits, m * 2 * f);
                e.linear(m, 2 * f, d, h, p, all, false);
                unjoin(all, &mut [(&mut *gate, f), (&mut *up, f)]);
            } else {
                linear(i, Proj::Gate, at.gate).forward(e, m, h, gate, false, &mut b.linear);
                linear(i, Proj::Up, at.up).forward(e, m, h, up, false, &mut b.linear);
            }
            let y = size(&mut b.logits, m * f);
            swiglu::forward(gate, up, y);
            linear(i, Proj::Down, at.down).forward(e, m, y, x, true, &mut b.linear);
        }
        let n = wanted.len();
        for (j, &r) in wanted.iter().enumerate() {
            x.copy_within(r * d..(r + 1) * d, j * d);
        }
        rmsnorm::forward(
            &x[..n * d],
            w.norm(c.norm_index()),
            c.rms_norm_eps,
            &mut h[..n * d],
            &mut rstd[..n],
        );
        let head = c.head_index();
        let matrix = if w.is_full() { packed(head).unwrap_or(w.matrix(head)) } else { w.matrix(head) };
        e.linear(n, c.vocab_size, d, &h[..n * d], matrix, size(&mut b.logits, n * c.vocab_size), false);
        Ok(())
    }

    /// Draws the next token of rows whose logits lie in order in the buffer.
    fn draw(&mut self, live: &mut [&mut Live], decoding: Decoding<'_>) -> Result<()> {
        let v = self.config.vocab_size;
        let logits = &mut self.buf.logits[..live.len() * v];
        logits.par_chunks_mut(v).zip(live.par_iter_mut()).try_for_each(|(z, live)| {
            let (token, logp) = sample::sample(z, &live.out.tokens, decoding, &mut live.draws)?;
            live.next = token;
            live.out.tokens.push(token);
            live.out.logp.push(logp);
            Ok(())
        })
    }
}

impl Generator for LlamaGenerator {
    fn generate(
        &mut self,
        params: &Params,
        prompts: &[Vec<u32>],
        decoding: Decoding<'_>,
        streams: &[Stream],
    ) -> Result<Vec<Completion>> {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let capacity = longest + decoding.max_new;
        if streams.len() != prompts.len() {
            return Err(Error::internal("generate").expected("one random stream a prompt"));
        }
        if prompts.iter().any(Vec::is_empty) || decoding.max_new == 0 {
            return Err(
                Error::config("generate").expected("prompts of at least one token and max_new of at least 1")
            );
        }
        if capacity > self.config.max_position_embeddings {
            return Err(Error::config("generate")
                .expected(format!(
                    "prompt and response of at most {} tokens",
                    self.config.max_position_embeddings
                ))
                .got(format!("a prompt of {longest} and up to {} new tokens", decoding.max_new))
                .hint("shorten the context or the response"));
        }
        on_pool(|| self.respond(params, prompts, decoding, streams, capacity))
    }
}

impl LlamaGenerator {
    /// Reads the prompts of `fresh` in, end to end, [`PREFILL`] tokens at a time, and draws their first tokens.
    fn prefill(
        &mut self,
        params: &Params,
        prompts: &[Vec<u32>],
        fresh: &mut [Live],
        decoding: Decoding<'_>,
    ) -> Result<()> {
        let mut rows: Vec<Row> = Vec::new();
        let mut ends: Vec<usize> = Vec::new();
        for l in fresh.iter() {
            let prompt = prompts[l.request].iter().enumerate();
            rows.extend(prompt.map(|(pos, &token)| Row { slot: l.slot, pos, token }));
            ends.push(rows.len() - 1);
        }
        let mut done = 0;
        for (i, chunk) in rows.chunks(PREFILL).enumerate() {
            let range = i * PREFILL..i * PREFILL + chunk.len();
            let wanted: Vec<usize> =
                ends[done..].iter().take_while(|e| range.contains(*e)).map(|e| e - range.start).collect();
            self.run(params, chunk, &wanted)?;
            let here = &mut fresh[done..done + wanted.len()];
            self.draw(&mut here.iter_mut().collect::<Vec<_>>(), decoding)?;
            done += wanted.len();
        }
        Ok(())
    }

    /// The work of [`Generator::generate`] on checked requests; `capacity`: tokens of the longest row.
    fn respond(
        &mut self,
        params: &Params,
        prompts: &[Vec<u32>],
        decoding: Decoding<'_>,
        streams: &[Stream],
        capacity: usize,
    ) -> Result<Vec<Completion>> {
        self.pack(params)?;
        self.rope.grow(capacity);
        let (c, n) = (self.config.clone(), self.max_batch.min(prompts.len()));
        self.slots.resize_with(n.max(self.slots.len()), Slot::default);
        self.slots.iter_mut().for_each(|s| s.reserve(&c, capacity));
        let mut free: Vec<usize> = (0..n).rev().collect();
        let mut waiting = 0;
        let mut live: Vec<Live> = Vec::new();
        let mut out: Vec<Option<Completion>> = vec![None; prompts.len()];
        while waiting < prompts.len() || !live.is_empty() {
            // Give free places to waiting prompts and read those prompts in.
            let mut fresh = Vec::new();
            while let (true, Some(slot)) = (waiting < prompts.len(), free.last().copied()) {
                free.pop();
                fresh.push(Live {
                    request: waiting,
                    slot,
                    next: 0,
                    pos: prompts[waiting].len(),
                    draws: streams[waiting].rng(),
                    out: Completion { tokens: Vec::new(), logp: Vec::new(), finished: false },
                });
                waiting += 1;
            }
            self.prefill(params, prompts, &mut fresh, decoding)?;
            live.extend(fresh);
            // Take out what has ended.
            let mut going = Vec::with_capacity(live.len());
            for mut l in live {
                l.out.finished = self.end.contains(&l.next);
                if l.out.finished || l.out.tokens.len() == decoding.max_new {
                    free.push(l.slot);
                    out[l.request] = Some(l.out);
                } else {
                    going.push(l);
                }
            }
            live = going;
            if live.is_empty() || (waiting < prompts.len() && !free.is_empty()) {
                continue;
            }
            // One step of all rows.
            let rows: Vec<Row> =
                live.iter().map(|l| Row { slot: l.slot, pos: l.pos, token: l.next }).collect();
            let wanted: Vec<usize> = (0..rows.len()).collect();
            self.run(params, &rows, &wanted)?;
            live.iter_mut().for_each(|l| l.pos += 1);
            self.draw(&mut live.iter_mut().collect::<Vec<_>>(), decoding)?;
        }
        out.into_iter().map(|c| c.ok_or_else(|| Error::internal("generate: a prompt was lost"))).collect()
    }
}
