//! RMSNorm: `y = x · r · w`, `r = 1/√(mean(x²) + ε)`.
//!
//! Legend: `T` rows, `D` width.

use ecr_kernels::math;
use rayon::prelude::*;

use super::ROWS;

/// `x`, `y`: `[T, D]`; `w`: `[D]`; writes `rstd`: `[T]`.
pub fn forward(x: &[f32], w: &[f32], eps: f64, y: &mut [f32], rstd: &mut [f32]) {
    let d = w.len();
    y.par_chunks_mut(ROWS * d).zip(x.par_chunks(ROWS * d)).zip(rstd.par_chunks_mut(ROWS)).for_each(
        |((y, x), r)| {
            for ((y, x), r) in y.chunks_mut(d).zip(x.chunks(d)).zip(r) {
                *r = 1.0 / (math::sum_squares(x) / d as f32 + eps as f32).sqrt();
                apply(x, w, *r, y);
            }
        },
    );
}

/// The same with known `rstd`: recomputes `y` in the backward pass.
pub fn again(x: &[f32], w: &[f32], rstd: &[f32], y: &mut [f32]) {
    let d = w.len();
    y.par_chunks_mut(ROWS * d).zip(x.par_chunks(ROWS * d)).zip(rstd.par_chunks(ROWS)).for_each(
        |((y, x), r)| {
            for ((y, x), r) in y.chunks_mut(d).zip(x.chunks(d)).zip(r) {
                apply(x, w, *r, y);
            }
        },
    );
}

fn apply(x: &[f32], w: &[f32], r: f32, y: &mut [f32]) {
    for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
        *y = x * r * w;
    }
}

/// Adds `∂L/∂x` to `dx` and, where wanted, `∂L/∂w` to `dw`:
/// `dx += r·(g − x·r²·mean(g·x))` with `g = dy·w`; `dw += Σ_t dy·x·r`.
pub fn backward(dy: &[f32], x: &[f32], w: &[f32], rstd: &[f32], dx: &mut [f32], dw: Option<&mut [f32]>) {
    let d = w.len();
    dx.par_chunks_mut(ROWS * d)
        .zip(dy.par_chunks(ROWS * d))
        .zip(x.par_chunks(ROWS * d).zip(rstd.par_chunks(ROWS)))
        .for_each(|((dx, dy), (x, r))| {
            let mut g = vec![0.0; d];
            for (((dx, dy), x), &r) in dx.chunks_mut(d).zip(dy.chunks(d)).zip(x.chunks(d)).zip(r) {
                for ((g, &dy), &w) in g.iter_mut().zip(dy).zip(w) {
                    *g = dy * w;
                }
                math::axpy(r, &g, dx);
                math::axpy(-r * r * r * math::dot(&g, x) / d as f32, x, dx);
            }
        });
    if let Some(dw) = dw {
        let parts: Vec<Vec<f32>> = dy
            .par_chunks(64 * d)
            .zip(x.par_chunks(64 * d).zip(rstd.par_chunks(64)))
            .map(|(dy, (x, r))| {
                let mut part = vec![0.0; d];
                for ((dy, x), &r) in dy.chunks(d).zip(x.chunks(d)).zip(r) {
                    for ((p, &dy), &x) in part.iter_mut().zip(dy).zip(x) {
                        *p += dy * x * r;
                    }
                }
                part
            })
            .collect();
        parts.iter().for_each(|p| math::axpy(1.0, p, dw));
    }
}
