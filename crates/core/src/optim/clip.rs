//! Global-norm gradient clipping (PyTorch's `clip_grad_norm_`).

use rayon::prelude::*;

use crate::Params;

/// Elements one task sums; fixed, so that results do not depend on the number of threads.
const PIECE: usize = 1 << 16;

/// Euclidean norm of all gradients. Squares are summed in f64, in eight lanes a piece, pieces in buffer order.
pub fn grad_norm(p: &Params) -> f64 {
    let pieces: Vec<f64> = p.grad.par_chunks(PIECE).map(sum_of_squares).collect();
    pieces.iter().sum::<f64>().sqrt()
}

fn sum_of_squares(g: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 8];
    let chunks = g.chunks_exact(8);
    let rest: f64 = chunks.remainder().iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    for c in chunks {
        for (lane, &x) in lanes.iter_mut().zip(c) {
            *lane += f64::from(x) * f64::from(x);
        }
    }
    lanes.iter().sum::<f64>() + rest
}

/// Scales the gradients down so that their norm is at most `max_norm`; returns the norm before.
/// A non-finite norm leaves the gradients alone: the caller's guard decides.
pub fn clip_grad_norm(p: &mut Params, max_norm: f64) -> f64 {
    let norm = grad_norm(p);
    let scale = max_norm / (norm + 1e-6);
    if scale < 1.0 {
        let s = scale as f32;
        p.grad.par_chunks_mut(PIECE).for_each(|c| c.iter_mut().for_each(|g| *g *= s));
    }
    norm
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Layout;

    #[test]
    fn clips_to_the_norm_and_reports_the_one_before() {
        let mut layout = Layout::new();
        layout.push("w", &[3 * PIECE + 5], true);
        let mut p = Params::zeros(Arc::new(layout));
        p.make_trainable();
        p.grad.fill(2.0);
        let want = (p.grad.len() as f64 * 4.0).sqrt();
        assert!((clip_grad_norm(&mut p, 1.0) - want).abs() < 1e-6 * want);
        assert!((grad_norm(&p) - 1.0).abs() < 1e-5);
        assert!((clip_grad_norm(&mut p, 5.0) - 1.0).abs() < 1e-5);
    }
}
