//! The smallest language model: a table of logits by previous token, and one of values. Prompts of any length,
//! scored tokens wherever the batch says, temperature; so small that a test can compute everything again.

use std::sync::Arc;

use ecr_algos::rollout::Rollout;
use ecr_core::seam::{Pass, Policy, Scores, Value};
use ecr_core::{Layout, Packed, Params, Result, Stream};

pub const V: usize = 16;

/// A table `[V, width]` of normal draws.
pub fn table(width: usize, stream: Stream) -> Params {
    let mut layout = Layout::new();
    layout.push("table", &[V, width], false);
    let mut draws = stream.rng();
    let data = (0..layout.len).map(|_| draws.normal() as f32).collect();
    let mut p = Params::from_data(Arc::new(layout), data);
    p.make_trainable();
    p
}

/// Log-softmax of `table[previous] / temperature`, `[V]`.
pub fn log_softmax(p: &Params, previous: u32, temperature: f64) -> Vec<f64> {
    let row = &p.data[previous as usize * V..(previous as usize + 1) * V];
    let z: Vec<f64> = row.iter().map(|&x| f64::from(x) / temperature).collect();
    let sum = z.iter().map(|x| x.exp()).sum::<f64>().ln();
    z.iter().map(|x| x - sum).collect()
}

/// Gradients that came back for one sequence, one a token and 0 where it was not scored.
pub type Seen = Vec<(Vec<u32>, Vec<f64>)>;

fn note(seen: &mut Seen, batch: &Packed, d: &[f32]) {
    let mut d = d.iter();
    for s in 0..batch.sequences() {
        let one = |t| if batch.scored[t] { f64::from(*d.next().unwrap()) } else { 0.0 };
        seen.push((batch.tokens[batch.range(s)].to_vec(), batch.range(s).map(one).collect()));
    }
}

/// The policy; remembers the gradients it was given.
#[derive(Default)]
pub struct Bigram {
    kept: Option<(Packed, f64)>,
    pub seen: Seen,
}

impl Policy for Bigram {
    fn forward(&mut self, p: &Params, b: &Packed, pass: Pass<'_>) -> Result<Scores> {
        let (mut s, temperature) = (Scores::default(), f64::from(pass.temperature));
        for t in b.scored_positions() {
            let l = log_softmax(p, b.tokens[t - 1], temperature);
            s.logp.push(l[b.tokens[t] as usize] as f32);
            s.entropy.push(-l.iter().map(|x| x * x.exp()).sum::<f64>() as f32);
        }
        if pass.keep {
            self.kept = Some((b.clone(), temperature));
        }
        Ok(s)
    }
    fn backward(&mut self, p: &mut Params, d_logp: &[f32], d_entropy: &[f32]) -> Result<()> {
        assert!(d_entropy.iter().all(|&d| d == 0.0), "no entropy bonus here");
        let (b, temperature) = self.kept.take().unwrap();
        note(&mut self.seen, &b, d_logp);
        for (n, t) in b.scored_positions().into_iter().enumerate() {
            let (previous, y) = (b.tokens[t - 1], b.tokens[t] as usize);
            let l = log_softmax(p, previous, temperature);
            for v in 0..V {
                let hit = if v == y { 1.0 } else { 0.0 };
                p.grad[previous as usize * V + v] +=
                    (f64::from(d_logp[n]) * (hit - l[v].exp()) / temperature) as f32;
            }
        }
        Ok(())
    }
}

/// The value function; remembers the gradients it was given.
#[derive(Default)]
pub struct BigramValue {
    kept: Packed,
    pub seen: Seen,
}

impl Value for BigramValue {
    fn forward(&mut self, p: &Params, b: &Packed, keep: bool) -> Result<Vec<f32>> {
        if keep {
            self.kept = b.clone();
        }
        Ok(b.scored_positions().into_iter().map(|t| p.data[b.tokens[t - 1] as usize]).collect())
    }
    fn backward(&mut self, p: &mut Params, d: &[f32]) -> Result<()> {
        note(&mut self.seen, &self.kept, d);
        for (n, t) in self.kept.scored_positions().into_iter().enumerate() {
            p.grad[self.kept.tokens[t - 1] as usize] += d[n];
        }
        Ok(())
    }
}

/// Twelve rollouts of unequal length, prompts included; each begins with a token of its own.
pub fn uneven(stream: Stream) -> Vec<Rollout> {
    let mut draws = stream.rng();
    let mut one = |i: usize| {
        let mut some = |n: usize| -> Vec<u32> { (0..n).map(|_| draws.below(V) as u32).collect() };
        let prompt = [vec![i as u32], some(1 + i % 3)].concat();
        let response = some(1 + i % 5);
        Rollout { prompt, response, finished: !i.is_multiple_of(4), score: draws.normal() }
    };
    (0..12).map(&mut one).collect()
}
