//! Rotary positions (half-split form) and the change between token-major and head-major layout:
//! `(a, b) → (a·cos − b·sin, b·cos + a·sin)` for element `j` of each half, angle `pos·θ^(−2j/hd)`.
//!
//! Legend: `T` tokens, `H` heads, `hd` head width. Token-major `[T, H·hd]`, head-major `[H, T, hd]`.

use rayon::prelude::*;

/// Cosines and sines up to a position.
#[derive(Debug, Clone, Default)]
pub struct Rope {
    theta: f64,
    half: usize,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Rope {
    /// For heads of width `head_dim`.
    pub fn new(theta: f64, head_dim: usize) -> Self {
        Self { theta, half: head_dim / 2, cos: Vec::new(), sin: Vec::new() }
    }
    /// Makes sure that positions below `n` are tabulated.
    pub fn grow(&mut self, n: usize) {
        for pos in self.cos.len() / self.half.max(1)..n {
            for j in 0..self.half {
                let angle = pos as f64 * self.theta.powf(-2.0 * j as f64 / (2 * self.half) as f64);
                self.cos.push(angle.cos() as f32);
                self.sin.push(angle.sin() as f32);
            }
        }
    }
    /// Rotates one head in place; `forward` false is the inverse (the backward pass).
    pub fn rotate(&self, x: &mut [f32], pos: usize, forward: bool) {
        let h = self.half;
        let (cos, sin) = (&self.cos[pos * h..][..h], &self.sin[pos * h..][..h]);
        let (a, b) = x.split_at_mut(h);
        for j in 0..h {
            let s = if forward { sin[j] } else { -sin[j] };
            let (p, q) = (a[j], b[j]);
            a[j] = p * cos[j] - q * s;
            b[j] = q * cos[j] + p * s;
        }
    }
}

/// Token-major `x` to head-major `y`, rotated if `rope` is given. `positions`: `[T]`.
pub fn split_heads(x: &[f32], heads: usize, positions: &[usize], rope: Option<&Rope>, y: &mut [f32]) {
    let t = positions.len();
    let hd = x.len() / (t * heads).max(1);
    y.par_chunks_mut((t * hd).max(1)).enumerate().for_each(|(h, y)| {
        for (i, row) in y.chunks_mut(hd).enumerate() {
            row.copy_from_slice(&x[(i * heads + h) * hd..][..hd]);
            if let Some(r) = rope {
                r.rotate(row, positions[i], true);
            }
        }
    });
}

/// Head-major `y` to token-major `x`, rotated back if `rope` is given (the backward pass of [`split_heads`]).
pub fn merge_heads(y: &[f32], heads: usize, positions: &[usize], rope: Option<&Rope>, x: &mut [f32]) {
    let t = positions.len();
    let hd = x.len() / (t * heads).max(1);
    x.par_chunks_mut((8 * heads * hd).max(1)).enumerate().for_each(|(c, x)| {
        for (i, row) in x.chunks_mut(heads * hd).enumerate() {
            let i = c * 8 + i;
            for (h, out) in row.chunks_mut(hd).enumerate() {
                out.copy_from_slice(&y[(h * t + i) * hd..][..hd]);
                if let Some(r) = rope {
                    r.rotate(out, positions[i], false);
                }
            }
        }
    });
}
