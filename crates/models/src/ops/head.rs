//! Language-model head: log-probability and entropy of each scored token, logits in chunks of rows.
//! `z = h·Eᵀ / τ`, `logp = z_y − lse(z)`, `H = lse(z) − Σ p z`;
//! `∂L/∂z_j = g·(1[j = y] − p_j) − h·p_j·(ln p_j + H)` with `g = ∂L/∂logp`, `h = ∂L/∂H`.
//!
//! Legend: `N` scored tokens, `D` width, `V` vocabulary, `C` rows of a chunk. A batch's logits never exist: the
//! backward pass recomputes them chunk by chunk, unless the whole batch was a single chunk.

use ecr_core::seam::TokenMask;
use ecr_kernels::{Engine, Weight, math};
use rayon::prelude::*;

use super::size;

/// Rows whose logits exist at a time.
pub const CHUNK: usize = 256;

/// The response so far at each scored token, for masks: all scored tokens before it in its sequence.
pub struct Prefixes<'a> {
    /// Mask that was used in sampling.
    pub mask: &'a dyn TokenMask,
    /// `[N]`.
    pub prefix: Vec<&'a [u32]>,
}

/// Reusable state between forward and backward.
#[derive(Debug, Default)]
pub struct Head {
    logits: Vec<f32>,
    lse: Vec<f32>,
    entropy: Vec<f32>,
    scale: f32,
    /// Rows whose logits are still in `logits`.
    live: usize,
}

impl Head {
    /// Logits of rows `r0..r1`, masked.
    fn chunk(
        &mut self,
        e: Engine,
        w: Weight<'_>,
        v: usize,
        d: usize,
        h: &[f32],
        r0: usize,
        r1: usize,
        mask: Option<&Prefixes<'_>>,
    ) {
        let z = size(&mut self.logits, (r1 - r0) * v);
        e.linear(r1 - r0, v, d, &h[r0 * d..r1 * d], w, z, false);
        if let Some(m) = mask {
            z.par_chunks_mut(v).enumerate().for_each(|(i, z)| {
                let mut allowed = vec![true; v];
                m.mask.restrict(m.prefix[r0 + i], &mut allowed);
                for (z, ok) in z.iter_mut().zip(allowed) {
                    if !ok {
                        *z = f32::NEG_INFINITY;
                    }
                }
            });
        }
    }

    /// `h`: `[N, D]`, `targets`: `[N]`; writes `logp` and `entropy`, `[N]`.
    pub fn forward(
        &mut self,
        e: Engine,
        w: Weight<'_>,
        v: usize,
        h: &[f32],
        targets: &[u32],
        temperature: f32,
        mask: Option<&Prefixes<'_>>,
        logp: &mut Vec<f32>,
        entropy: &mut Vec<f32>,
    ) {
        let n = targets.len();
        let d = h.len() / n.max(1);
        self.scale = 1.0 / temperature;
        self.live = 0;
        logp.clear();
        logp.resize(n, 0.0);
        self.lse.resize(n, 0.0);
        self.entropy.resize(n, 0.0);
        for r0 in (0..n).step_by(CHUNK) {
            let r1 = (r0 + CHUNK).min(n);
            self.chunk(e, w, v, d, h, r0, r1, mask);
            let s = self.scale;
            self.logits[..(r1 - r0) * v]
                .par_chunks(v)
                .zip(logp[r0..r1].par_iter_mut())
                .zip(self.lse[r0..r1].par_iter_mut().zip(self.entropy[r0..r1].par_iter_mut()))
                .zip(targets[r0..r1].par_iter())
                .for_each(|(((z, lp), (lse, ent)), &y)| {
                    let m = s * math::max(z);
                    let (sum, moment) = math::exp_moments(z, s, m);
                    let log_sum = sum.ln();
                    *lse = m + log_sum;
                    *ent = log_sum - moment / sum;
                    *lp = s * z[y as usize] - *lse;
                });
        }
        if n <= CHUNK {
            self.live = n;
        }
        entropy.clear();
        entropy.extend_from_slice(&self.entropy[..n]);
    }

    /// Overwrites `dh` (`[N, D]`) and, where wanted, adds `∂L/∂E` to `dw` (`[V, D]`).
    pub fn backward(
        &mut self,
        e: Engine,
        w: Weight<'_>,
        v: usize,
        h: &[f32],
        targets: &[u32],
        mask: Option<&Prefixes<'_>>,
        d_logp: &[f32],
        d_entropy: &[f32],
        dh: &mut [f32],
        mut dw: Option<&mut [f32]>,
    ) {
        let n = targets.len();
        let d = h.len() / n.max(1);
        for r0 in (0..n).step_by(CHUNK) {
            let r1 = (r0 + CHUNK).min(n);
            if self.live != n {
                self.chunk(e, w, v, d, h, r0, r1, mask);
            }
            let s = self.scale;
            let z = &mut self.logits[..(r1 - r0) * v];
            z.par_chunks_mut(v).enumerate().for_each(|(i, z)| {
                let i = r0 + i;
                math::head_gradient(z, s, self.lse[i], self.entropy[i], d_logp[i], d_entropy[i]);
                z[targets[i] as usize] += s * d_logp[i];
            });
            e.linear_dx(r1 - r0, v, d, z, w, &mut dh[r0 * d..r1 * d], false);
            if let Some(dw) = dw.as_deref_mut() {
                e.linear_dw(r1 - r0, v, d, z, &h[r0 * d..r1 * d], dw);
            }
        }
        self.live = usize::MAX;
    }
}
