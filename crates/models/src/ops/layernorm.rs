//! LayerNorm with bias: `y = (x − μ)·r·w + b`, `r = 1/√(var(x) + ε)`, biased variance.
//!
//! Legend: `T` rows, `D` width.

use ecr_kernels::math;
use rayon::prelude::*;

use super::ROWS;

/// `x`, `y`: `[T, D]`; `w`, `b`: `[D]`; writes mean and reciprocal deviation, `stats`: `[T]`.
pub fn forward(x: &[f32], w: &[f32], b: &[f32], eps: f64, y: &mut [f32], stats: &mut [(f32, f32)]) {
    let d = w.len();
    y.par_chunks_mut(ROWS * d).zip(x.par_chunks(ROWS * d)).zip(stats.par_chunks_mut(ROWS)).for_each(
        |((y, x), s)| {
            for ((y, x), s) in y.chunks_mut(d).zip(x.chunks(d)).zip(s) {
                let mean = math::sum(x) / d as f32;
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = x - mean;
                }
                let r = 1.0 / (math::sum_squares(y) / d as f32 + eps as f32).sqrt();
                *s = (mean, r);
                for ((y, &w), &b) in y.iter_mut().zip(w).zip(b) {
                    *y = *y * r * w + b;
                }
            }
        },
    );
}

/// Overwrites `dx` by `r·(g − mean(g) − x̂·mean(g·x̂))` with `g = dy·w`, `x̂ = (x − μ)·r`; adds `∂L/∂w`, `∂L/∂b` where
/// wanted.
pub fn backward(
    dy: &[f32],
    x: &[f32],
    w: &[f32],
    stats: &[(f32, f32)],
    dx: &mut [f32],
    grads: Option<(&mut [f32], &mut [f32])>,
) {
    let d = w.len();
    dx.par_chunks_mut(ROWS * d)
        .zip(dy.par_chunks(ROWS * d))
        .zip(x.par_chunks(ROWS * d).zip(stats.par_chunks(ROWS)))
        .for_each(|((dx, dy), (x, s))| {
            let mut hat = vec![0.0; d];
            for (((dx, dy), x), &(mean, r)) in dx.chunks_mut(d).zip(dy.chunks(d)).zip(x.chunks(d)).zip(s) {
                for i in 0..d {
                    hat[i] = (x[i] - mean) * r;
                    dx[i] = dy[i] * w[i];
                }
                let (a, b) = (math::sum(dx) / d as f32, math::dot(dx, &hat) / d as f32);
                for i in 0..d {
                    dx[i] = r * (dx[i] - a - hat[i] * b);
                }
            }
        });
    if let Some((dw, db)) = grads {
        let parts: Vec<(Vec<f32>, Vec<f32>)> = dy
            .par_chunks(64 * d)
            .zip(x.par_chunks(64 * d).zip(stats.par_chunks(64)))
            .map(|(dy, (x, s))| {
                let (mut pw, mut pb) = (vec![0.0; d], vec![0.0; d]);
                for ((dy, x), &(mean, r)) in dy.chunks(d).zip(x.chunks(d)).zip(s) {
                    for i in 0..d {
                        pw[i] += dy[i] * (x[i] - mean) * r;
                        pb[i] += dy[i];
                    }
                }
                (pw, pb)
            })
            .collect();
        for (pw, pb) in &parts {
            math::axpy(1.0, pw, dw);
            math::axpy(1.0, pb, db);
        }
    }
}
