//! Linear map with optional bias and optional low-rank adapter:
//! `y = x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ`.
//!
//! Legend: `T` rows, `K` input width, `N` output width, `r` rank. `W`: `[N, K]`, `A`: `[r, K]`, `B`: `[N, r]`.

use ecr_kernels::{Engine, Weight, math};
use rayon::prelude::*;

use super::{ROWS, size};

/// A LoRA adapter of one map (Hu et al. 2021).
#[derive(Clone, Copy)]
pub struct Adapter<'a> {
    /// `[r, K]`.
    pub a: Weight<'a>,
    /// `[N, r]`.
    pub b: Weight<'a>,
    /// Rank.
    pub rank: usize,
    /// `alpha / r`.
    pub scale: f32,
}

/// One map.
#[derive(Clone, Copy)]
pub struct Linear<'a> {
    /// `[N, K]`.
    pub w: Weight<'a>,
    /// Output width.
    pub n: usize,
    /// Input width.
    pub k: usize,
    /// `[N]`.
    pub bias: Option<&'a [f32]>,
    /// Low-rank update.
    pub adapter: Option<Adapter<'a>>,
}

/// Where gradients of a map's weights go; `None` = frozen.
#[derive(Default)]
pub struct Grads<'a> {
    /// `[N, K]`.
    pub w: Option<&'a mut [f32]>,
    /// `[N]`.
    pub bias: Option<&'a mut [f32]>,
    /// `A` and `B`.
    pub adapter: Option<(&'a mut [f32], &'a mut [f32])>,
}

/// Reusable buffers of adapters.
#[derive(Debug, Default)]
pub struct Scratch {
    u: Vec<f32>,
    du: Vec<f32>,
}

impl Linear<'_> {
    /// `y (+)= …`, `x`: `[T, K]`, `y`: `[T, N]`.
    pub fn forward(&self, e: Engine, t: usize, x: &[f32], y: &mut [f32], add: bool, s: &mut Scratch) {
        e.linear(t, self.n, self.k, x, self.w, y, add);
        if let Some(b) = self.bias {
            y.par_chunks_mut(ROWS * self.n).for_each(|y| {
                y.chunks_mut(self.n).for_each(|y| math::axpy(1.0, b, y));
            });
        }
        if let Some(a) = self.adapter {
            let u = size(&mut s.u, t * a.rank);
            e.linear(t, a.rank, self.k, x, a.a, u, false);
            math::scale(u, a.scale);
            e.linear(t, self.n, a.rank, u, a.b, y, true);
        }
    }

    /// Adds weight gradients to `grads` and, if `dx` is given, `∂L/∂x` to it (overwrites it unless `add`).
    pub fn backward(
        &self,
        e: Engine,
        t: usize,
        x: &[f32],
        dy: &[f32],
        dx: Option<&mut [f32]>,
        add: bool,
        grads: Grads<'_>,
        s: &mut Scratch,
    ) {
        if let Some(dw) = grads.w {
            e.linear_dw(t, self.n, self.k, dy, x, dw);
        }
        if let Some(db) = grads.bias {
            let parts: Vec<Vec<f32>> = dy
                .par_chunks(64 * self.n)
                .map(|dy| {
                    let mut part = vec![0.0; self.n];
                    dy.chunks(self.n).for_each(|dy| math::axpy(1.0, dy, &mut part));
                    part
                })
                .collect();
            parts.iter().for_each(|p| math::axpy(1.0, p, db));
        }
        let mut dx = dx;
        if let Some(dx) = dx.as_deref_mut() {
            e.linear_dx(t, self.n, self.k, dy, self.w, dx, add);
        }
        if let Some(a) = self.adapter {
            let (u, du) = (size(&mut s.u, t * a.rank), size(&mut s.du, t * a.rank));
            e.linear_dx(t, self.n, a.rank, dy, a.b, du, false);
            math::scale(du, a.scale);
            if let Some((da, db)) = grads.adapter {
                e.linear(t, a.rank, self.k, x, a.a, u, false);
                math::scale(u, a.scale);
                e.linear_dw(t, self.n, a.rank, dy, u, db);
                e.linear_dw(t, a.rank, self.k, du, x, da);
            }
            if let Some(dx) = dx {
                e.linear_dx(t, a.rank, self.k, du, a.a, dx, true);
            }
        }
    }
}
