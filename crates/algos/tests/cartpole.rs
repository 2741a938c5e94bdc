//! Gate I: CartPole, a control task that knows nothing of language, through the same `ppo_step` that trains language
//! models. CleanRL's PPO reports 490 ± 6 after 500,000 steps; the bar is a mean of 475 over 20 fresh episodes.
//!
//! An episode is a "sequence": the prompt is its number, from which its start is drawn, the response its actions. The
//! state before each action follows from both, so that policy and value function are functions of packed tokens like any
//! other. The reward is the length of the episode, paid at the end; the value function adds the steps already made to
//! what it has learnt of those to come, which with γ = 1 is the same as a reward a step. Dynamics: Barto, Sutton and
//! Anderson 1983 as in Gymnasium's CartPole-v1 (Euler, .02 s, 12°, 2.4, 500 steps).
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ecr_algos::ppo::{PpoConfig, PpoState, Rollout, ppo_step};
use ecr_core::seam::{Decoding, Pass, Policy, Scores, Value};
use ecr_core::{Layout, Packed, Params, Result, Stream};

const LONGEST: usize = 500;
/// Steps that count as a reward of 1.
const UNIT: f64 = 100.0;
const H: usize = 64;
const IN: usize = 5;

#[derive(Clone, Copy)]
struct Cart([f64; 4]);

impl Cart {
    fn start(episode: u32) -> Self {
        let mut draws = Stream::new(4711).at(u64::from(episode)).rng();
        Self(std::array::from_fn(|_| 0.1 * draws.uniform() - 0.05))
    }
    /// Pushes left (0) or right (1); says whether the pole still stands.
    fn push(&mut self, action: u32) -> bool {
        let [x, v, a, w] = self.0;
        let force = if action == 1 { 10.0 } else { -10.0 };
        let (sin, cos) = a.sin_cos();
        let temp = (force + 0.05 * w * w * sin) / 1.1;
        let turn = (9.8 * sin - cos * temp) / (0.5 * (4.0 / 3.0 - 0.1 * cos * cos / 1.1));
        let speed = temp - 0.05 * turn * cos / 1.1;
        self.0 = [x + 0.02 * v, v + 0.02 * speed, a + 0.02 * w, w + 0.02 * turn];
        self.0[0].abs() <= 2.4 && self.0[2].abs() <= 12f64.to_radians()
    }
    /// What the networks see after `step` steps.
    fn seen(&self, step: usize) -> [f64; IN] {
        let [x, v, a, w] = self.0;
        [x, v, 5.0 * a, w, step as f64 / LONGEST as f64]
    }
}

/// A scored token: inputs, hidden units and outputs of the network, the action, and the steps made before it.
type Row = ([f64; IN], [f64; H], [f64; 2], usize, usize);

/// A tanh network on the state before each action.
struct Net {
    out: usize,
    /// Of the last pass.
    rows: Vec<Row>,
    kept: bool,
}

impl Net {
    fn new(out: usize) -> Self {
        Self { out, rows: Vec::new(), kept: false }
    }
    fn init(&self, stream: Stream, scale: f64) -> Params {
        let mut layout = Layout::new();
        layout.push("w1", &[IN, H], false);
        layout.push("b1", &[H], false);
        layout.push("w2", &[H, self.out], false);
        layout.push("b2", &[self.out], false);
        let mut draws = stream.rng();
        let mut data = vec![0.0; layout.len];
        for (i, x) in data.iter_mut().enumerate() {
            let bound = if i < IN * H { 1.0 } else { scale / (H as f64).sqrt() };
            let draw = (2.0 * draws.uniform() - 1.0) * bound;
            *x = if (IN * H..IN * H + H).contains(&i) { 0.0 } else { draw as f32 };
        }
        let mut p = Params::from_data(Arc::new(layout), data);
        p.make_trainable();
        p
    }
    fn apply(&self, p: &Params, x: &[f64; IN]) -> ([f64; H], [f64; 2]) {
        let (w1, b1, w2, b2) = (p.tensor(0), p.tensor(1), p.tensor(2), p.tensor(3));
        let mut h = [0.0; H];
        for (j, h) in h.iter_mut().enumerate() {
            let z: f64 = (0..IN).map(|i| x[i] * f64::from(w1[i * H + j])).sum();
            *h = (z + f64::from(b1[j])).tanh();
        }
        let mut out = [0.0; 2];
        for (o, out) in out.iter_mut().enumerate().take(self.out) {
            let z: f64 = (0..H).map(|j| h[j] * f64::from(w2[j * self.out + o])).sum();
            *out = z + f64::from(b2[o]);
        }
        (h, out)
    }
    fn run(&mut self, p: &Params, batch: &Packed) {
        let mut rows = Vec::new();
        for s in 0..batch.sequences() {
            let tokens = &batch.tokens[batch.range(s)];
            let mut cart = Cart::start(tokens[0]);
            for (step, &action) in tokens[1..].iter().enumerate() {
                if batch.scored[batch.starts[s] + 1 + step] {
                    let x = cart.seen(step);
                    let (h, out) = self.apply(p, &x);
                    rows.push((x, h, out, action as usize, step));
                }
                cart.push(action);
            }
        }
        self.rows = rows;
    }
    fn back(&self, p: &mut Params, d: &[[f64; 2]]) {
        let w2 = p.tensor(2).to_vec();
        let (o1, o2, o3) = (IN * H, IN * H + H, IN * H + H + H * self.out);
        let mut grad = vec![0.0; p.grad.len()];
        for ((x, h, ..), d) in self.rows.iter().zip(d) {
            for j in 0..H {
                let mut dh = 0.0;
                for o in 0..self.out {
                    dh += d[o] * f64::from(w2[j * self.out + o]);
                    grad[o2 + j * self.out + o] += d[o] * h[j];
                }
                let dz = dh * (1.0 - h[j] * h[j]);
                (0..IN).for_each(|i| grad[i * H + j] += dz * x[i]);
                grad[o1 + j] += dz;
            }
            (0..self.out).for_each(|o| grad[o3 + o] += d[o]);
        }
        p.grad.iter_mut().zip(grad).for_each(|(g, d)| *g += d as f32);
    }
}

fn log_softmax(z: &[f64; 2]) -> [f64; 2] {
    let top = z[0].max(z[1]);
    let sum = top + ((z[0] - top).exp() + (z[1] - top).exp()).ln();
    [z[0] - sum, z[1] - sum]
}

impl Policy for Net {
    fn forward(&mut self, params: &Params, batch: &Packed, pass: Pass<'_>) -> Result<Scores> {
        self.run(params, batch);
        self.kept = pass.keep;
        let mut s = Scores::default();
        for (_, _, z, action, _) in &self.rows {
            let l = log_softmax(z);
            s.logp.push(l[*action] as f32);
            s.entropy.push(-l.iter().map(|l| l * l.exp()).sum::<f64>() as f32);
        }
        Ok(s)
    }
    fn backward(&mut self, params: &mut Params, d_logp: &[f32], d_entropy: &[f32]) -> Result<()> {
        assert!(self.kept);
        let one = |(n, (_, _, z, action, _)): (usize, &Row)| {
            let l = log_softmax(z);
            let entropy: f64 = -l.iter().map(|l| l * l.exp()).sum::<f64>();
            std::array::from_fn(|v| {
                let p = l[v].exp();
                let hit = f64::from(u8::from(v == *action));
                f64::from(d_logp[n]) * (hit - p) - f64::from(d_entropy[n]) * p * (l[v] + entropy)
            })
        };
        let d: Vec<[f64; 2]> = self.rows.iter().enumerate().map(one).collect();
        self.back(params, &d);
        Ok(())
    }
}

/// Steps made so far plus what the network expects.
struct Left(Net);

impl Value for Left {
    fn forward(&mut self, params: &Params, batch: &Packed, keep: bool) -> Result<Vec<f32>> {
        self.0.run(params, batch);
        self.0.kept = keep;
        Ok(self.0.rows.iter().map(|(_, _, out, _, step)| (*step as f64 / UNIT + out[0]) as f32).collect())
    }
    fn backward(&mut self, params: &mut Params, d_value: &[f32]) -> Result<()> {
        assert!(self.0.kept);
        let d: Vec<[f64; 2]> = d_value.iter().map(|&d| [f64::from(d), 0.0]).collect();
        self.0.back(params, &d);
        Ok(())
    }
}

fn play(policy: &Net, params: &Params, episode: u32, stream: Stream) -> Rollout {
    let (mut cart, mut draws, mut actions) = (Cart::start(episode), stream.rng(), Vec::new());
    loop {
        let l = log_softmax(&policy.apply(params, &cart.seen(actions.len())).1);
        let action = u32::from(draws.uniform() >= l[0].exp());
        actions.push(action);
        if !cart.push(action) || actions.len() == LONGEST {
            let score = actions.len() as f64 / UNIT;
            return Rollout { prompt: vec![episode], response: actions, finished: true, score };
        }
    }
}

/// Mean return of 20 fresh episodes, actions sampled, after at most `budget` steps of training; and the steps.
fn train(seed: u64, budget: usize) -> (f64, usize) {
    let root = Stream::new(seed);
    let (mut policy, mut value) = (Net::new(2), Left(Net::new(1)));
    let mut params = policy.init(root.child("policy"), 0.01);
    let mut value_params = value.0.init(root.child("value"), 0.01);
    let reference = params.frozen_copy();
    let cfg = PpoConfig {
        learning_rate: 2e-3,
        value_learning_rate: 5e-3,
        steps: 1000,
        kl_coef: 0.0,
        batch_size: 16,
        minibatch_size: 4,
        micro_batch_tokens: 100_000,
        ppo_epochs: 4,
        gamma: 1.0,
        lambda: 0.95,
        max_grad_norm: 0.5,
        ..PpoConfig::default()
    };
    let mut state = PpoState::new(&cfg);
    let (mut steps, mut update) = (0, 0);
    while steps < budget {
        let rollouts: Vec<Rollout> = (0..cfg.batch_size)
            .map(|i| {
                let episode = (update * cfg.batch_size as u64) as u32 + i as u32;
                play(&policy, &params, episode, root.child("act").at(u64::from(episode)))
            })
            .collect();
        steps += rollouts.iter().map(|r| r.response.len()).sum::<usize>();
        ppo_step(
            &mut policy,
            &mut value,
            &mut params,
            &mut value_params,
            &reference,
            &rollouts,
            Decoding::plain(LONGEST),
            &cfg,
            &mut state,
            root,
            update,
        )
        .unwrap();
        update += 1;
    }
    let fresh = |i: u32| {
        play(&policy, &params, 1_000_000 + i, root.child("fresh").at(u64::from(i))).response.len() as f64
    };
    ((0..20).map(fresh).sum::<f64>() / 20.0, steps)
}

#[test]
fn the_pole_stands() {
    for seed in 1..=3 {
        let (mean, steps) = train(seed, 300_000);
        eprintln!("CartPole, seed {seed}: mean return {mean:.1} over 20 fresh episodes after {steps} steps");
        assert!(mean >= 475.0 && steps <= 500_000, "seed {seed}: {mean} after {steps} steps");
    }
}
