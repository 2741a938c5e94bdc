//! GELU by the error function, elementwise over `[T, F]`.

use ecr_kernels::math;
use rayon::prelude::*;

/// Elements one task takes.
const PIECE: usize = 1 << 14;

/// `x`, `y`: `[T, F]`.
pub fn forward(x: &[f32], y: &mut [f32]) {
    y.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(y, x)| math::gelu(x, y));
}

/// `dy ← dy · gelu'(x)`.
pub fn backward(x: &[f32], dy: &mut [f32]) {
    dy.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(d, x)| math::gelu_backward(x, d));
}
