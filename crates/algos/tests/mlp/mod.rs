//! A tiny policy and value function whose objective can be enumerated: 8 tokens, 4 steps, a 64-unit tanh
//! network on one-hot prompt, position and previous token, output initialised to zero. The inputs are few
//! (288), so a batch costs one pass over those that occur.

use std::sync::Arc;

use ecr_core::seam::{Pass, Policy, Scores, Value};
use ecr_core::{Layout, Packed, Params, Result, Stream};

pub const V: usize = 8;
pub const T: usize = 4;
const H: usize = 64;
const INPUTS: usize = 8 * T * 9;

/// The network; `out` is 8 for the policy, 1 for the value function.
pub struct Mlp {
    out: usize,
    hidden: Vec<f64>,
    logits: Vec<f64>,
    /// Log-probabilities and probabilities at each input of the last pass, and their entropy.
    logp: Vec<[f64; V]>,
    prob: Vec<[f64; V]>,
    entropy: Vec<f64>,
    kept: Vec<(usize, usize)>,
    temperature: f64,
}

/// Index of an input; `previous` is `None` at the first step.
fn input(prompt: usize, position: usize, previous: Option<usize>) -> usize {
    (prompt * T + position) * 9 + previous.unwrap_or(8)
}

fn features(i: usize) -> [usize; 3] {
    [i / (9 * T), 8 + i / 9 % T, 8 + T + i % 9]
}

impl Mlp {
    pub fn new(out: usize) -> Self {
        let (hidden, logits) = (vec![0.0; INPUTS * H], vec![0.0; INPUTS * out]);
        Self {
            out,
            hidden,
            logits,
            logp: vec![[0.0; V]; INPUTS],
            prob: vec![[0.0; V]; INPUTS],
            entropy: vec![0.0; INPUTS],
            kept: Vec::new(),
            temperature: 1.0,
        }
    }
    pub fn init(&self, stream: Stream) -> Params {
        let mut layout = Layout::new();
        layout.push("w1", &[8 + T + 9, H], false);
        layout.push("b1", &[H], false);
        layout.push("w2", &[H, self.out], false);
        layout.push("b2", &[self.out], false);
        let mut data = vec![0.0; layout.len];
        let mut draws = stream.rng();
        for x in &mut data[..(8 + T + 9) * H] {
            *x = ((2.0 * draws.uniform() - 1.0) / 21f64.sqrt()) as f32;
        }
        let mut p = Params::from_data(Arc::new(layout), data);
        p.make_trainable();
        p
    }
    fn run(&mut self, p: &Params, i: usize) {
        let (w1, b1, w2, b2) = (p.tensor(0), p.tensor(1), p.tensor(2), p.tensor(3));
        let [a, b, c] = features(i);
        let z = &mut self.logits[i * self.out..(i + 1) * self.out];
        z.iter_mut().zip(b2).for_each(|(z, &b)| *z = f64::from(b));
        for j in 0..H {
            let x = w1[a * H + j] + w1[b * H + j] + w1[c * H + j] + b1[j];
            let h = f64::from(x.tanh());
            self.hidden[i * H + j] = h;
            for o in 0..self.out {
                z[o] += h * f64::from(w2[j * self.out + o]);
            }
        }
        if self.out == V {
            z.iter_mut().for_each(|z| *z /= self.temperature);
            let l = self.log_softmax(i);
            self.logp[i] = l;
            self.prob[i] = l.map(f64::exp);
            self.entropy[i] = -l.iter().map(|x| x * x.exp()).sum::<f64>();
        }
    }
    fn inputs(batch: &Packed) -> Vec<(usize, usize)> {
        let mut out = Vec::new();
        for s in 0..batch.sequences() {
            let t = &batch.tokens[batch.range(s)];
            for k in (1..t.len()).filter(|k| batch.scored[batch.starts[s] + k]) {
                let previous = (k > 1).then(|| t[k - 1] as usize);
                out.push((input(t[0] as usize, k - 1, previous), t[k] as usize));
            }
        }
        out
    }
    fn run_all(&mut self, p: &Params, batch: &Packed) -> Vec<(usize, usize)> {
        let tokens = Self::inputs(batch);
        let mut seen = [false; INPUTS];
        for &(i, _) in &tokens {
            if !std::mem::replace(&mut seen[i], true) {
                self.run(p, i);
            }
        }
        tokens
    }
    /// Log-probabilities at an input of the last pass.
    fn log_softmax(&self, i: usize) -> [f64; V] {
        let z = &self.logits[i * V..(i + 1) * V];
        let top = z.iter().copied().fold(f64::MIN, f64::max);
        let log_sum = top + z.iter().map(|x| (x - top).exp()).sum::<f64>().ln();
        std::array::from_fn(|v| z[v] - log_sum)
    }
    fn back(&self, p: &mut Params, d: &[f64]) {
        let w2 = p.tensor(2).to_vec();
        let (o1, o2) = ((8 + T + 9) * H, (8 + T + 9) * H + H);
        for i in 0..INPUTS {
            let dz = &d[i * self.out..(i + 1) * self.out];
            if dz.iter().all(|&x| x == 0.0) {
                continue;
            }
            for j in 0..H {
                let h = self.hidden[i * H + j];
                let mut dh = 0.0;
                for o in 0..self.out {
                    dh += dz[o] * f64::from(w2[j * self.out + o]);
                    p.grad[o2 + j * self.out + o] += (dz[o] * h) as f32;
                }
                let dx = (dh * (1.0 - h * h)) as f32;
                features(i).iter().for_each(|f| p.grad[f * H + j] += dx);
                p.grad[o1 + j] += dx;
            }
            let o3 = o2 + H * self.out;
            (0..self.out).for_each(|o| p.grad[o3 + o] += dz[o] as f32);
        }
    }
    /// Draws a response to each prompt, at temperature 1.
    pub fn sample(&mut self, p: &Params, prompts: &[usize], stream: Stream) -> Vec<Vec<u32>> {
        self.temperature = 1.0;
        (0..INPUTS).for_each(|i| self.run(p, i));
        let draw = |(k, &c): (usize, &usize)| {
            let mut draws = stream.at(k as u64).rng();
            let mut out: Vec<u32> = Vec::new();
            for t in 0..T {
                let p = &self.prob[input(c, t, out.last().map(|&v| v as usize))];
                let (mut u, mut v) = (draws.uniform(), 0);
                while v < V - 1 && u >= p[v] {
                    u -= p[v];
                    v += 1;
                }
                out.push(v as u32);
            }
            out
        };
        prompts.iter().enumerate().map(draw).collect()
    }
    /// Draws one token at each `(prompt, position, previous)`.
    pub fn choose(&mut self, p: &Params, at: &[(usize, usize, Option<usize>)], stream: Stream) -> Vec<u32> {
        self.temperature = 1.0;
        (0..INPUTS).for_each(|i| self.run(p, i));
        let mut draws = stream.rng();
        let one = |&(c, t, previous): &(usize, usize, Option<usize>)| {
            let (mut u, mut v) = (draws.uniform(), 0);
            let p = &self.prob[input(c, t, previous)];
            while v < V - 1 && u >= p[v] {
                u -= p[v];
                v += 1;
            }
            v as u32
        };
        at.iter().map(one).collect()
    }
    /// Probabilities at `(prompt, position, previous)`.
    pub fn probabilities(&mut self, p: &Params, c: usize, t: usize, previous: Option<usize>) -> [f64; V] {
        self.temperature = 1.0;
        self.run(p, input(c, t, previous));
        self.prob[input(c, t, previous)]
    }
    /// Exact expected reward and KL to the uniform reference over `prompts`, by enumeration.
    pub fn exact(&mut self, p: &Params, prompts: usize, reward: &dyn Fn(usize, &[u32]) -> f64) -> (f64, f64) {
        self.temperature = 1.0;
        (0..INPUTS).for_each(|i| self.run(p, i));
        let (mut r, mut kl) = (0.0, 0.0);
        for c in 0..prompts {
            for code in 0..V.pow(T as u32) {
                let y: Vec<u32> = (0..T).map(|t| (code / V.pow(t as u32) % V) as u32).collect();
                let mut logp = 0.0;
                for t in 0..T {
                    let previous = (t > 0).then(|| y[t - 1] as usize);
                    logp += self.logp[input(c, t, previous)][y[t] as usize];
                }
                r += logp.exp() * reward(c, &y);
                kl += logp.exp() * (logp + T as f64 * (V as f64).ln());
            }
        }
        (r / prompts as f64, kl / prompts as f64)
    }
}

impl Policy for Mlp {
    fn forward(&mut self, params: &Params, batch: &Packed, pass: Pass<'_>) -> Result<Scores> {
        self.temperature = f64::from(pass.temperature);
        let tokens = self.run_all(params, batch);
        let mut s = Scores::default();
        for &(i, y) in &tokens {
            s.logp.push(self.logp[i][y] as f32);
            s.entropy.push(self.entropy[i] as f32);
        }
        if pass.keep {
            self.kept = tokens;
        }
        Ok(s)
    }
    fn backward(&mut self, params: &mut Params, d_logp: &[f32], d_entropy: &[f32]) -> Result<()> {
        let mut d = vec![0.0; INPUTS * V];
        for (n, &(i, y)) in self.kept.iter().enumerate() {
            let (l, p, h) = (&self.logp[i], &self.prob[i], self.entropy[i]);
            let (g, e) = (f64::from(d_logp[n]), f64::from(d_entropy[n]));
            for v in 0..V {
                let hit = if v == y { 1.0 } else { 0.0 };
                let dz = g * (hit - p[v]) - e * p[v] * (l[v] + h);
                d[i * V + v] += dz / self.temperature;
            }
        }
        self.back(params, &d);
        Ok(())
    }
}

/// The same network as a value function.
pub struct MlpValue(pub Mlp);

impl Value for MlpValue {
    fn forward(&mut self, params: &Params, batch: &Packed, keep: bool) -> Result<Vec<f32>> {
        let tokens = self.0.run_all(params, batch);
        let out = tokens.iter().map(|&(i, _)| self.0.logits[i] as f32).collect();
        if keep {
            self.0.kept = tokens;
        }
        Ok(out)
    }
    fn backward(&mut self, params: &mut Params, d_value: &[f32]) -> Result<()> {
        let mut d = vec![0.0; INPUTS];
        self.0.kept.iter().zip(d_value).for_each(|(&(i, _), &g)| d[i] += f64::from(g));
        self.0.back(params, &d);
        Ok(())
    }
}
