//! A value head on a frozen trunk: `V(s) = w₂·tanh(W₁·x(s) + b₁) + b₂`, `x = (h − mean)·scale`, `h(s)` the trunk's final
//! state before the token. A trained trunk has a few dimensions that are many times larger than the others; without
//! standardisation they drown the rest. Mean and scale are measured once ([`TrunkValue::standardise`]) and then fixed.
//!
//! Legend: `N` scored tokens, `D` trunk width, `M` hidden units. The trunk is a Llama under parameters that do not
//! move (the reference's), so states are computed once a sequence and kept: PPO's epochs pay for the head alone.

use std::collections::HashMap;

use ecr_core::seam::Value;
use ecr_core::{Error, Layout, Packed, Params, Result, Stream};
use ecr_kernels::{Engine, Weight};

use crate::llama::Llama;
use crate::ops::linear::{Grads, Linear, Scratch};

/// Tokens that one trunk pass takes at most.
const BUDGET: usize = 2048;

/// Places of the input's mean and scale in the layout.
const MEAN: usize = 4;
const SCALE: usize = 5;

/// The head over a frozen trunk.
pub struct TrunkValue {
    trunk: Llama,
    trunk_params: Params,
    hidden: usize,
    /// States at the scored tokens of sequences seen since [`TrunkValue::forget`].
    states: HashMap<Vec<u32>, Vec<f32>>,
    kept: Option<Kept>,
    scratch: Scratch,
}

struct Kept {
    states: Vec<f32>,
    activations: Vec<f32>,
}

impl TrunkValue {
    /// A head with `hidden` units on `trunk` under `trunk_params`.
    pub fn new(trunk: Llama, trunk_params: Params, hidden: usize) -> Self {
        Self { trunk, trunk_params, hidden, states: HashMap::new(), kept: None, scratch: Scratch::default() }
    }
    /// Tensors of the head.
    pub fn layout(&self) -> Layout {
        let mut l = Layout::new();
        l.push("value_head.hidden.weight", &[self.hidden, self.trunk.config().hidden_size], true);
        l.push("value_head.hidden.bias", &[self.hidden], false);
        l.push("value_head.out.weight", &[1, self.hidden], true);
        l.push("value_head.out.bias", &[1], false);
        // No gradient ever reaches these two.
        l.push("value_head.input.mean", &[self.trunk.config().hidden_size], false);
        l.push("value_head.input.scale", &[self.trunk.config().hidden_size], false);
        l
    }
    /// Fresh head parameters: it begins at `V = 0` everywhere.
    pub fn fresh(&self, stream: Stream) -> Params {
        let mut p = Params::zeros(std::sync::Arc::new(self.layout()));
        let std = 1.0 / (self.trunk.config().hidden_size as f64).sqrt();
        let mut draws = stream.rng();
        let range = p.layout.tensors[0].range();
        p.data[range].iter_mut().for_each(|w| *w = (std * draws.normal()) as f32);
        let scale = p.layout.tensors[SCALE].range();
        p.data[scale].fill(1.0);
        p
    }
    /// Sets the input's mean and scale of `params` from the states at the scored tokens of `batch`.
    pub fn standardise(&mut self, params: &mut Params, batch: &Packed) -> Result<()> {
        let states = self.features(batch)?;
        let d = self.trunk.config().hidden_size;
        let n = (states.len() / d).max(1) as f64;
        let (mean, scale) = (params.layout.tensors[MEAN].range(), params.layout.tensors[SCALE].range());
        for j in 0..d {
            let column = || states.iter().skip(j).step_by(d).map(|&x| f64::from(x));
            let m = column().sum::<f64>() / n;
            let var = column().map(|x| (x - m).powi(2)).sum::<f64>() / n;
            params.data[mean.start + j] = m as f32;
            params.data[scale.start + j] = (1.0 / (var + 1e-6).sqrt()) as f32;
        }
        Ok(())
    }
    /// Drops the stored states; call between updates, when the sequences change.
    pub fn forget(&mut self) {
        self.states.clear();
    }
    fn engine(&self) -> Engine {
        self.trunk.engine()
    }

    /// States of all scored tokens, `[N, D]`, computed for the sequences that are not stored yet.
    fn features(&mut self, batch: &Packed) -> Result<Vec<f32>> {
        let d = self.trunk.config().hidden_size;
        // What is scored belongs to the key: a state exists for each scored token.
        let key = |s: usize| -> Vec<u32> {
            let r = batch.range(s);
            let scored = r.clone().map(|t| u32::from(batch.scored[t]));
            batch.tokens[r.clone()].iter().copied().chain(scored).collect()
        };
        let keys: Vec<Vec<u32>> = (0..batch.sequences()).map(key).collect();
        let missing: Vec<usize> = (0..keys.len()).filter(|&s| !self.states.contains_key(&keys[s])).collect();
        let mut from = 0;
        while from < missing.len() {
            let (mut part, mut to) = (Packed::new(), from);
            while to < missing.len()
                && (to == from || part.tokens.len() + batch.range(missing[to]).len() <= BUDGET)
            {
                let r = batch.range(missing[to]);
                part.push(&batch.tokens[r.clone()], &batch.scored[r]);
                to += 1;
            }
            self.trunk.states_only(&self.trunk_params, &part)?;
            let mut rest = self.trunk.states();
            for (&s, n) in missing[from..to].iter().zip(part.scored_lengths()) {
                let (mine, tail) = rest.split_at(n * d);
                self.states.insert(keys[s].clone(), mine.to_vec());
                rest = tail;
            }
            from = to;
        }
        Ok(keys.iter().flat_map(|k| self.states[k].iter().copied()).collect())
    }
}

fn maps<'a>(p: &'a Params) -> [Linear<'a>; 2] {
    [0, 2].map(|i| {
        let shape = &p.layout.tensors[i].shape;
        let (w, bias) = (Weight::Plain(p.tensor(i)), Some(p.tensor(i + 1)));
        Linear { w, n: shape[0], k: shape[1], bias, adapter: None }
    })
}

impl Value for TrunkValue {
    fn forward(&mut self, params: &Params, batch: &Packed, keep: bool) -> Result<Vec<f32>> {
        let mut states = self.features(batch)?;
        let (mean, scale) = (params.tensor(MEAN), params.tensor(SCALE));
        for row in states.chunks_mut(mean.len()) {
            row.iter_mut().zip(mean.iter().zip(scale)).for_each(|(x, (m, s))| *x = (*x - m) * s);
        }
        let (n, e) = (batch.n_scored(), self.engine());
        let [first, second] = maps(params);
        let mut activations = vec![0.0; n * self.hidden];
        first.forward(e, n, &states, &mut activations, false, &mut self.scratch);
        activations.iter_mut().for_each(|a| *a = a.tanh());
        let mut v = vec![0.0; n];
        second.forward(e, n, &activations, &mut v, false, &mut self.scratch);
        self.kept = keep.then_some(Kept { states, activations });
        Ok(v)
    }

    fn backward(&mut self, params: &mut Params, d_value: &[f32]) -> Result<()> {
        let kept = self
            .kept
            .take()
            .ok_or_else(|| Error::internal("run a value head backward").expected("a kept forward pass"))?;
        let (n, e) = (d_value.len(), self.engine());
        let layout = params.layout.clone();
        let mut grad = std::mem::take(&mut params.grad);
        let [first, second] = maps(params);
        let (head, tail) = grad.split_at_mut(layout.tensors[2].offset);
        let (w2, tail) = tail.split_at_mut(layout.tensors[2].len());
        let b2 = &mut tail[..1];
        let (w1, b1) = head.split_at_mut(layout.tensors[0].len());
        let mut da = vec![0.0; n * self.hidden];
        let g = Grads { w: Some(w2), bias: Some(b2), adapter: None };
        second.backward(e, n, &kept.activations, d_value, Some(&mut da), false, g, &mut self.scratch);
        for (d, a) in da.iter_mut().zip(&kept.activations) {
            *d *= 1.0 - a * a;
        }
        let g = Grads { w: Some(w1), bias: Some(b1), adapter: None };
        first.backward(e, n, &kept.states, &da, None, false, g, &mut self.scratch);
        params.grad = grad;
        Ok(())
    }
}

impl Llama {
    /// Final states that predict the scored tokens, without the head; read them by [`Llama::states`].
    pub fn states_only(&mut self, params: &Params, batch: &Packed) -> Result<()> {
        let rows = batch.scored_positions().iter().map(|t| t - 1).collect();
        self.run_trunk(params, batch, rows)
    }
}

#[cfg(test)]
mod tests {
    use ecr_kernels::Precision;

    use super::*;
    use crate::{LlamaConfig, init};

    fn value() -> TrunkValue {
        let c = LlamaConfig {
            vocab_size: 13,
            hidden_size: 16,
            intermediate_size: 24,
            num_layers: 2,
            num_heads: 2,
            num_kv_heads: 1,
            head_dim: 8,
            rope_theta: 1e4,
            rms_norm_eps: 1e-5,
            max_position_embeddings: 64,
            tie_word_embeddings: true,
        };
        let p = init::fresh(c.layout(), 2, Stream::new(1));
        TrunkValue::new(Llama::full(c, Engine::detect(Precision::F32)), p, 5)
    }

    #[test]
    fn gradients_agree_with_differences_and_stored_states_change_nothing() {
        let mut v = value();
        let mut p = v.fresh(Stream::new(2));
        let mut draws = Stream::new(3).rng();
        p.data.iter_mut().for_each(|x| *x += 0.3 * draws.normal() as f32);
        p.make_trainable();
        let mut b = Packed::new();
        b.push_response(&[1, 2], &[3, 4, 5]);
        b.push_response(&[7], &[8, 9]);
        let first = v.forward(&p, &b, true).unwrap();
        let d: Vec<f32> = (0..first.len()).map(|i| i as f32 - 1.5).collect();
        v.backward(&mut p, &d).unwrap();
        for t in p.layout.clone().tensors.iter().take(MEAN) {
            let i = t.offset + t.len() / 2;
            let at = |v: &mut TrunkValue, p: &mut Params, h: f32| {
                let x = p.data[i];
                p.data[i] = x + h;
                let out = v.forward(p, &b, false).unwrap();
                p.data[i] = x;
                out.iter().zip(&d).map(|(a, b)| f64::from(a * b)).sum::<f64>()
            };
            let want = (at(&mut v, &mut p, 1e-2) - at(&mut v, &mut p, -1e-2)) / 2e-2;
            assert!((f64::from(p.grad[i]) - want).abs() < 1e-2 * want.abs().max(1.0), "{}", t.name);
        }
        v.forget();
        assert_eq!(v.forward(&p, &b, false).unwrap(), first);
    }

    #[test]
    fn standardised_states_have_mean_zero_and_variance_one() {
        let mut v = value();
        let mut p = v.fresh(Stream::new(2));
        p.make_trainable();
        let mut b = Packed::new();
        b.push_response(&[1, 2], &[3, 4, 5, 6, 7, 8]);
        b.push_response(&[7], &[8, 9, 1]);
        v.standardise(&mut p, &b).unwrap();
        v.forward(&p, &b, true).unwrap();
        let states = v.kept.as_ref().unwrap().states.clone();
        for j in 0..16 {
            let column: Vec<f32> = states.iter().skip(j).step_by(16).copied().collect();
            let mean = column.iter().sum::<f32>() / 9.0;
            let var = column.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 9.0;
            assert!(mean.abs() < 1e-4 && (var - 1.0).abs() < 1e-2, "{mean} {var}");
        }
        // Neither is trained.
        v.backward(&mut p, &[1.0; 9]).unwrap();
        let fixed = p.layout.tensors[MEAN].offset;
        assert!(p.grad[fixed..].iter().all(|g| *g == 0.0) && p.grad[..fixed].iter().any(|g| *g != 0.0));
    }

    #[test]
    fn a_fresh_head_is_zero() {
        let mut v = value();
        let p = v.fresh(Stream::new(2));
        let mut b = Packed::new();
        b.push_response(&[1, 2], &[3, 4, 5]);
        assert_eq!(v.forward(&p, &b, false).unwrap(), [0.0; 3]);
    }
}
