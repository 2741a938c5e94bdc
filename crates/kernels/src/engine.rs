//! The kernels' front door: which tier and precision, and the three products of a linear layer.
//!
//! Legend: `m` rows (tokens), `k` input width, `n` output width; weights are `[n, k]` row major as in PyTorch.

use std::sync::Arc;

/// Instruction set in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Plain Rust.
    Portable,
    /// AVX2 and FMA, f32.
    Avx2,
    /// AVX-512 (f32, and bf16 dot products where the CPU has them).
    Avx512,
}

/// Arithmetic of the matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// f32 throughout.
    F32,
    /// Inputs of products rounded to bf16, sums in f32; weights stored as bf16.
    Bf16,
}

/// A weight matrix `[n, k]`.
#[derive(Clone, Copy)]
pub enum Weight<'a> {
    /// As it lies; packed at every product.
    Plain(&'a [f32]),
    /// Packed once by [`Engine::pack`] (frozen weights, decoding).
    Packed(&'a PackedWeight),
}

/// A frozen weight in the engine's own layout, for `x·Wᵀ` and `dy·W`.
#[derive(Debug, Clone)]
pub struct PackedWeight {
    data: Arc<Vec<f32>>,
}

/// Kernel choice; cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engine {
    /// Instruction set.
    pub tier: Tier,
    /// Arithmetic.
    pub precision: Precision,
}

impl Engine {
    /// The best tier of this CPU.
    pub fn detect(precision: Precision) -> Self {
        Self { tier: Tier::Portable, precision }
    }
    /// Packs a weight `[n, k]`.
    pub fn pack(&self, n: usize, k: usize, w: &[f32]) -> PackedWeight {
        assert_eq!(w.len(), n * k);
        PackedWeight { data: Arc::new(w.to_vec()) }
    }
    /// `y[m, n] = x[m, k] · wᵀ` (added to `y` if `add`).
    pub fn linear(&self, m: usize, n: usize, k: usize, x: &[f32], w: Weight<'_>, y: &mut [f32], add: bool) {
        let w = plain(&w);
        for i in 0..m {
            for j in 0..n {
                let s: f32 = (0..k).map(|p| x[i * k + p] * w[j * k + p]).sum();
                let y = &mut y[i * n + j];
                *y = if add { *y + s } else { s };
            }
        }
    }
    /// `dx[m, k] = dy[m, n] · w` (added if `add`).
    pub fn linear_dx(
        &self,
        m: usize,
        n: usize,
        k: usize,
        dy: &[f32],
        w: Weight<'_>,
        dx: &mut [f32],
        add: bool,
    ) {
        let w = plain(&w);
        for i in 0..m {
            let row = &mut dx[i * k..(i + 1) * k];
            if !add {
                row.fill(0.0);
            }
            for j in 0..n {
                let g = dy[i * n + j];
                for p in 0..k {
                    row[p] += g * w[j * k + p];
                }
            }
        }
    }
    /// `dw[n, k] += dyᵀ[n, m] · x[m, k]`.
    pub fn linear_dw(&self, m: usize, n: usize, k: usize, dy: &[f32], x: &[f32], dw: &mut [f32]) {
        for i in 0..m {
            for j in 0..n {
                let g = dy[i * n + j];
                for p in 0..k {
                    dw[j * k + p] += g * x[i * k + p];
                }
            }
        }
    }
}

fn plain<'a>(w: &'a Weight<'a>) -> &'a [f32] {
    match w {
        Weight::Plain(w) => w,
        Weight::Packed(p) => &p.data,
    }
}
