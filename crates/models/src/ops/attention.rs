//! Attention over packed sequences: `O = softmax(s·Q·Kᵀ)·V` within each sequence, causal or not, grouped queries.
//!
//! Legend: `T` tokens, `H` query heads, `KV` key heads, `hd` head width; all operands head-major `[heads, T, hd]`.
//! Work is cut by (head, sequence) and by blocks of `BLOCK` queries; a causal block reads only the keys up to its
//! last query. Probabilities exist for one block at a time: the backward pass recomputes them.

use ecr_kernels::{Engine, View, math};
use rayon::prelude::*;

/// Queries of a block.
const BLOCK: usize = 64;

/// What both passes need to know.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// Kernels.
    pub engine: Engine,
    /// Query heads `H`.
    pub heads: usize,
    /// Key and value heads `KV`.
    pub kv_heads: usize,
    /// Head width.
    pub head_dim: usize,
    /// Sequence starts and the end, `[S + 1]`.
    pub starts: &'a [usize],
    /// Whether a token sees only those up to itself.
    pub causal: bool,
}

/// Gradients of one (key head, sequence): of its query heads, of keys, of values.
type Task<'a> = (Vec<&'a mut [f32]>, &'a mut [f32], &'a mut [f32]);

/// Cuts a head-major buffer into (head, sequence) pieces, heads outermost.
fn pieces<'b>(x: &'b mut [f32], heads: usize, starts: &[usize], hd: usize) -> Vec<&'b mut [f32]> {
    let mut out = Vec::with_capacity(heads * starts.len());
    let mut rest = x;
    for _ in 0..heads {
        for w in starts.windows(2) {
            let (a, b) = rest.split_at_mut((w[1] - w[0]) * hd);
            out.push(a);
            rest = b;
        }
    }
    out
}

impl Attention<'_> {
    fn tokens(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }
    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
    fn part<'b>(&self, x: &'b [f32], head: usize, seq: usize) -> &'b [f32] {
        let (t, hd) = (self.tokens(), self.head_dim);
        &x[(head * t + self.starts[seq]) * hd..(head * t + self.starts[seq + 1]) * hd]
    }
    /// Probabilities of queries `q0..q1` of a sequence, `[q1 − q0, keys]`; returns the number of keys.
    fn probabilities(&self, q: &[f32], k: &[f32], q0: usize, q1: usize, p: &mut Vec<f32>) -> usize {
        let hd = self.head_dim;
        let n = k.len() / hd;
        let keys = if self.causal { q1 } else { n };
        p.resize((q1 - q0) * keys, 0.0);
        let (qv, kv) = (View::rows(&q[q0 * hd..q1 * hd], hd), View::rows(&k[..keys * hd], hd).t());
        self.engine.matmul(q1 - q0, keys, hd, qv, kv, p, keys, false);
        for (i, row) in p.chunks_mut(keys).enumerate() {
            let seen = if self.causal { q0 + i + 1 } else { keys };
            math::softmax(&mut row[..seen], self.scale());
            row[seen..].fill(0.0);
        }
        keys
    }

    /// `q`, `o`: `[H, T, hd]`; `k`, `v`: `[KV, T, hd]`.
    pub fn forward(&self, q: &[f32], k: &[f32], v: &[f32], o: &mut [f32]) {
        let (hd, seqs) = (self.head_dim, self.starts.len() - 1);
        let group = self.heads / self.kv_heads;
        pieces(o, self.heads, self.starts, hd).into_par_iter().enumerate().for_each(|(i, o)| {
            let (h, s) = (i / seqs, i % seqs);
            let (q, k, v) = (self.part(q, h, s), self.part(k, h / group, s), self.part(v, h / group, s));
            let n = q.len() / hd;
            let mut p = Vec::new();
            for q0 in (0..n).step_by(BLOCK) {
                let q1 = (q0 + BLOCK).min(n);
                let keys = self.probabilities(q, k, q0, q1, &mut p);
                let (pv, vv) = (View::rows(&p, keys), View::rows(&v[..keys * hd], hd));
                self.engine.matmul(q1 - q0, hd, keys, pv, vv, &mut o[q0 * hd..q1 * hd], hd, false);
            }
        });
    }

    /// Overwrites `dq`, `dk`, `dv` by the gradients, given `d_o` (all head-major).
    /// `dP = dO·Vᵀ`, `dS = P∘(dP − rowsum(dP∘P))·s`, `dQ = dS·K`, `dK = dSᵀ·Q`, `dV = Pᵀ·dO`.
    pub fn backward(
        &self,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        d_o: &[f32],
        dq: &mut [f32],
        dk: &mut [f32],
        dv: &mut [f32],
    ) {
        let (hd, seqs) = (self.head_dim, self.starts.len() - 1);
        let group = self.heads / self.kv_heads;
        // One task a (key head, sequence): its query heads add to the same dk and dv, in order.
        let mut tasks: Vec<Task<'_>> = pieces(dk, self.kv_heads, self.starts, hd)
            .into_iter()
            .zip(pieces(dv, self.kv_heads, self.starts, hd))
            .map(|(dk, dv)| (Vec::with_capacity(group), dk, dv))
            .collect();
        for (i, piece) in pieces(dq, self.heads, self.starts, hd).into_iter().enumerate() {
            tasks[(i / seqs / group) * seqs + i % seqs].0.push(piece);
        }
        tasks.into_par_iter().enumerate().for_each(|(i, (dqs, dk, dv))| {
            let (kh, s) = (i / seqs, i % seqs);
            let (k, v) = (self.part(k, kh, s), self.part(v, kh, s));
            let n = k.len() / hd;
            dk.fill(0.0);
            dv.fill(0.0);
            let (mut p, mut dp) = (Vec::new(), Vec::new());
            for (g, dq) in dqs.into_iter().enumerate() {
                let h = kh * group + g;
                let (q, d_o) = (self.part(q, h, s), self.part(d_o, h, s));
                for q0 in (0..n).step_by(BLOCK) {
                    let q1 = (q0 + BLOCK).min(n);
                    let m = q1 - q0;
                    let keys = self.probabilities(q, k, q0, q1, &mut p);
                    let d_ob = View::rows(&d_o[q0 * hd..q1 * hd], hd);
                    dp.resize(m * keys, 0.0);
                    let vt = View::rows(&v[..keys * hd], hd).t();
                    self.engine.matmul(m, keys, hd, d_ob, vt, &mut dp, keys, false);
                    self.engine.matmul(
                        keys,
                        hd,
                        m,
                        View::rows(&p, keys).t(),
                        d_ob,
                        &mut dv[..keys * hd],
                        hd,
                        true,
                    );
                    for (p, dp) in p.chunks(keys).zip(dp.chunks_mut(keys)) {
                        let mean = math::dot(p, dp);
                        for (d, &p) in dp.iter_mut().zip(p) {
                            *d = p * (*d - mean);
                        }
                    }
                    math::scale(&mut dp, self.scale());
                    let (ds, kv) = (View::rows(&dp, keys), View::rows(&k[..keys * hd], hd));
                    self.engine.matmul(m, hd, keys, ds, kv, &mut dq[q0 * hd..q1 * hd], hd, false);
                    let qb = View::rows(&q[q0 * hd..q1 * hd], hd);
                    self.engine.matmul(keys, hd, m, ds.t(), qb, &mut dk[..keys * hd], hd, true);
                }
            }
        });
    }
}
