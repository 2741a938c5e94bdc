//! SwiGLU: `y = silu(gate) · up`, elementwise over `[T, F]`.

use ecr_kernels::math;
use rayon::prelude::*;

/// Elements one task takes: few enough that a decoding step is shared out too.
const PIECE: usize = 1 << 12;

/// `gate`, `up`, `y`: `[T, F]`.
pub fn forward(gate: &[f32], up: &[f32], y: &mut [f32]) {
    y.par_chunks_mut(PIECE)
        .zip(gate.par_chunks(PIECE).zip(up.par_chunks(PIECE)))
        .for_each(|(y, (g, u))| math::swiglu(g, u, y));
}

/// Overwrites `gate` and `up` by `∂L/∂gate` and `∂L/∂up`.
pub fn backward(dy: &[f32], gate: &mut [f32], up: &mut [f32]) {
    gate.par_chunks_mut(PIECE)
        .zip(up.par_chunks_mut(PIECE))
        .zip(dy.par_chunks(PIECE))
        .for_each(|((g, u), d)| math::swiglu_backward(d, g, u));
}
