//! The closed set of fused operations, one file each: formula, shapes, forward, hand-written backward.
//!
//! Rows are cut into pieces of fixed size and partial sums are added in order, so that results do not depend
//! on the number of threads.

pub mod attention;
pub mod embedding;
pub mod gelu;
pub mod head;
pub mod layernorm;
pub mod linear;
pub mod rmsnorm;
pub mod rope;
pub mod swiglu;

/// Rows one task takes in row-wise operations.
pub(crate) const ROWS: usize = 16;

/// Resizes a reusable buffer; contents are unspecified.
pub(crate) fn size(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    &mut buffer[..n]
}

/// Runs a whole pass on a thread of the pool, so that its many short parallel steps need no hand-over from outside.
pub(crate) fn on_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}
