//! Global-norm gradient clipping (PyTorch's `clip_grad_norm_`).

use crate::Params;

/// Euclidean norm of all gradients, in f64, summed in buffer order by fixed pieces.
pub fn grad_norm(p: &Params) -> f64 {
    p.grad
        .chunks(1 << 14)
        .map(|c| c.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>())
        .sum::<f64>()
        .sqrt()
}

/// Scales the gradients down so that their norm is at most `max_norm`; returns the norm before.
/// A non-finite norm leaves the gradients alone: the caller's guard decides.
pub fn clip_grad_norm(p: &mut Params, max_norm: f64) -> f64 {
    let norm = grad_norm(p);
    let scale = max_norm / (norm + 1e-6);
    if scale < 1.0 {
        let s = scale as f32;
        p.grad.iter_mut().for_each(|g| *g *= s);
    }
    norm
}
