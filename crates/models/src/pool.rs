//! Mean pooling over the tokens of each packed sequence.
//!
//! Legend: `T` tokens, `S` sequences, `D` width.

use ecr_kernels::math;

/// `[T, D]` to `[S, D]`.
pub fn mean(hidden: &[f32], starts: &[usize], d: usize) -> Vec<f32> {
    let mut out = vec![0.0; starts.len().saturating_sub(1) * d];
    for (w, out) in starts.windows(2).zip(out.chunks_mut(d)) {
        let s = 1.0 / (w[1] - w[0]).max(1) as f32;
        for t in w[0]..w[1] {
            math::axpy(s, &hidden[t * d..(t + 1) * d], out);
        }
    }
    out
}

/// Adds the gradient of [`mean`] to `d_hidden`.
pub fn mean_backward(d_pooled: &[f32], starts: &[usize], d: usize, d_hidden: &mut [f32]) {
    for (w, g) in starts.windows(2).zip(d_pooled.chunks(d)) {
        let s = 1.0 / (w[1] - w[0]).max(1) as f32;
        for t in w[0]..w[1] {
            math::axpy(s, g, &mut d_hidden[t * d..(t + 1) * d]);
        }
    }
}
