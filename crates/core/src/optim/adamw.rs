//! AdamW (Loshchilov & Hutter 2019), decoupled decay, PyTorch form of epsilon:
//! `m ← β₁m + (1−β₁)g`, `v ← β₂v + (1−β₂)g²`, `θ ← θ − lr·(λθ + m̂/(√v̂ + ε))`.

use rayon::prelude::*;

use crate::Params;

/// Hyper-parameters; PyTorch's defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// β₁, in [0, 1).
    pub beta1: f64,
    /// β₂, in [0, 1).
    pub beta2: f64,
    /// ε > 0, added to √v̂.
    pub eps: f64,
    /// Decoupled weight decay λ ≥ 0, on tensors whose layout says `decay`.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

/// Elements one task updates; fixed, so that results do not depend on the number of threads.
const PIECE: usize = 1 << 16;

impl AdamW {
    /// One step with learning rate `lr`; gradients are left as they are.
    pub fn step(&self, p: &mut Params, lr: f64) {
        p.step += 1;
        let t = p.step as i32;
        let (b1, b2) = (self.beta1 as f32, self.beta2 as f32);
        let c1 = 1.0 - self.beta1.powi(t);
        let c2 = 1.0 - self.beta2.powi(t);
        let step_size = (lr / c1) as f32;
        let inv_c2_sqrt = (1.0 / c2.sqrt()) as f32;
        let eps = self.eps as f32;
        let layout = p.layout.clone();
        for spec in &layout.tensors {
            let r = spec.range();
            let keep = if spec.decay { (1.0 - lr * self.weight_decay) as f32 } else { 1.0 };
            p.data[r.clone()]
                .par_chunks_mut(PIECE)
                .zip(p.grad[r.clone()].par_chunks(PIECE))
                .zip(p.m[r.clone()].par_chunks_mut(PIECE).zip(p.v[r].par_chunks_mut(PIECE)))
                .for_each(|((w, g), (m, v))| {
                    for i in 0..w.len() {
                        m[i] = b1 * m[i] + (1.0 - b1) * g[i];
                        v[i] = b2 * v[i] + (1.0 - b2) * g[i] * g[i];
                        w[i] = w[i] * keep - step_size * m[i] / (v[i].sqrt() * inv_c2_sqrt + eps);
                    }
                });
        }
        p.touch();
    }
}
