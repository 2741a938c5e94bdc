//! Faults that an update can have while its loss still falls, and the bounds that catch them.
//!
//! Two bounds: `every_gradient_is_what_the_equations_say`, which computes each advantage, return and gradient of an
//! update again from the equations, and gate A, whose optimum is known. Both are first held to `ppo_step` itself,
//! then to an update that differs from it by one fault only.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code)]

mod bigram;
mod mirror;
mod mlp;

use bigram::{Bigram, BigramValue, Seen, log_softmax, table, uneven};
use ecr_algos::ppo::{PpoConfig, PpoState, Rollout, ppo_step};
use ecr_core::seam::{Decoding, Policy, Value};
use ecr_core::{Params, Stream};
use mirror::{Fault, Last, update};
use mlp::{Mlp, MlpValue, T, V};

/// The update under test: `ppo_step`, or the mirror with a fault.
struct Updater {
    fault: Option<Fault>,
    state: PpoState,
    last: Last,
}

impl Updater {
    fn new(fault: Option<Fault>, cfg: &PpoConfig) -> Self {
        Self { fault, state: PpoState::new(cfg), last: Last::default() }
    }
    fn step(
        &mut self,
        policy: &mut dyn Policy,
        value: &mut dyn Value,
        (params, value_params, reference): (&mut Params, &mut Params, &Params),
        rollouts: &[Rollout],
        cfg: &PpoConfig,
        step: u64,
    ) {
        let stream = Stream::new(11);
        let decoding = Decoding { temperature: cfg.temperature as f32, ..Decoding::plain(T) };
        match self.fault {
            Some(fault) => update(
                fault,
                policy,
                value,
                params,
                value_params,
                reference,
                &mut self.last,
                rollouts,
                cfg,
                stream,
                step,
            ),
            None => {
                ppo_step(
                    policy,
                    value,
                    params,
                    value_params,
                    reference,
                    rollouts,
                    decoding,
                    cfg,
                    &mut self.state,
                    stream,
                    step,
                )
                .unwrap();
            }
        }
    }
}

fn uneven_config() -> PpoConfig {
    PpoConfig {
        learning_rate: 3e-3,
        value_learning_rate: 3e-3,
        kl_coef: 0.3,
        gamma: 0.97,
        temperature: 0.7,
        minibatch_size: 5,
        ppo_epochs: 2,
        ..PpoConfig::default()
    }
}

/// Advantages (whitened), returns and values of each rollout, from the equations and nothing else.
fn by_hand(
    params: &Params,
    values: &Params,
    reference: &Params,
    rollouts: &[Rollout],
    c: &PpoConfig,
) -> [Vec<Vec<f64>>; 3] {
    let (mut advantages, mut returns, mut all_values) = (Vec::new(), Vec::new(), Vec::new());
    for r in rollouts {
        let whole = [&r.prompt[..], &r.response[..]].concat();
        let (p, n) = (r.prompt.len(), r.response.len());
        let v: Vec<f64> = (0..n).map(|t| f64::from(values.data[whole[p + t - 1] as usize])).collect();
        let delta = |t: usize| {
            let (previous, y) = (whole[p + t - 1], whole[p + t] as usize);
            let d = log_softmax(params, previous, c.temperature)[y]
                - log_softmax(reference, previous, c.temperature)[y];
            let mut reward = -c.kl_coef * d;
            if t == n - 1 {
                reward += r.score - if r.finished { 0.0 } else { c.missing_eos_penalty };
            }
            reward + if t + 1 < n { c.gamma * v[t + 1] } else { 0.0 } - v[t]
        };
        // A_t = Σ_l (γλ)^(l−t) δ_l, without a recursion.
        let a: Vec<f64> = (0..n)
            .map(|t| (t..n).map(|l| (c.gamma * c.lambda).powi((l - t) as i32) * delta(l)).sum())
            .collect();
        returns.push(a.iter().zip(&v).map(|(a, v)| a + v).collect());
        advantages.push(a);
        all_values.push(v);
    }
    let flat: Vec<f64> = advantages.concat();
    let n = flat.len() as f64;
    let mean = flat.iter().sum::<f64>() / n;
    let sd = (flat.iter().map(|a| (a - mean).powi(2)).sum::<f64>() / (n - 1.0) + 1e-8).sqrt();
    advantages.iter_mut().flatten().for_each(|a| *a = (*a - mean) / sd);
    [advantages, returns, all_values]
}

/// Largest distance between the gradients that arrived, times the tokens of their minibatch, and `want`
/// (`[rollout][token]`). A gradient at a token that is not of a response is infinitely far.
fn distance(seen: &Seen, rollouts: &[Rollout], minibatch: usize, want: &[Vec<f64>]) -> f64 {
    let mut worst: f64 = 0.0;
    assert_eq!(seen.len() % rollouts.len(), 0, "each rollout once an epoch");
    for epoch in seen.chunks(rollouts.len()) {
        for part in epoch.chunks(minibatch) {
            let of = |tokens: &[u32]| tokens[0] as usize;
            let n: usize = part.iter().map(|(tokens, _)| rollouts[of(tokens)].response.len()).sum();
            for (tokens, d) in part {
                let (p, want) = (rollouts[of(tokens)].prompt.len(), &want[of(tokens)]);
                for (t, d) in d.iter().enumerate() {
                    let inside = t >= p && t - p < want.len();
                    let off = if inside { d * n as f64 - want[t - p] } else { d * f64::INFINITY };
                    worst = if *d == 0.0 && !inside { worst } else { worst.max(off.abs()) };
                }
            }
        }
    }
    worst
}

/// Two updates of a policy that does not move (rate 0, so every ratio is 1 and the gradient of token `t` is
/// `−A_t / N` in each minibatch), with other parameters in between: how far gradients are from the equations.
fn off_the_equations(fault: Option<Fault>) -> f64 {
    let cfg = PpoConfig { learning_rate: 0.0, value_learning_rate: 0.0, ..uneven_config() };
    let mut updater = Updater::new(fault, &cfg);
    let root = Stream::new(17);
    let reference = table(bigram::V, root.child("reference"));
    let mut worst: f64 = 0.0;
    for step in 0..2 {
        let mut params = table(bigram::V, root.child("policy").at(step));
        let mut values = table(1, root.child("value").at(step));
        let rollouts = uneven(root.child("rollouts").at(step));
        let [a, g, v] = by_hand(&params, &values, &reference, &rollouts, &cfg);
        let (mut policy, mut value) = (Bigram::default(), BigramValue::default());
        updater.step(&mut policy, &mut value, (&mut params, &mut values, &reference), &rollouts, &cfg, step);
        let minus_a: Vec<Vec<f64>> = a.iter().map(|a| a.iter().map(|a| -a).collect()).collect();
        let slope =
            |(v, g): (&Vec<f64>, &Vec<f64>)| v.iter().zip(g).map(|(v, g)| cfg.vf_coef * (v - g)).collect();
        let slopes: Vec<Vec<f64>> = v.iter().zip(&g).map(slope).collect();
        worst = worst.max(distance(&policy.seen, &rollouts, cfg.minibatch_size, &minus_a));
        worst = worst.max(distance(&value.seen, &rollouts, cfg.minibatch_size, &slopes));
    }
    worst
}

/// Largest distance allowed: f32 gradients of numbers of order one.
const BOUND: f64 = 1e-5;

#[test]
fn every_gradient_is_what_the_equations_say() {
    let off = off_the_equations(None);
    assert!(off <= BOUND, "{off}");
}

/// Trains gate A at β = .2; the exact (E[r], KL).
fn gate_a(fault: Option<Fault>) -> (f64, f64) {
    let temperature = if fault == Some(Fault::TemperatureOnlyInLoss) { 0.7 } else { 1.0 };
    let cfg = PpoConfig {
        learning_rate: 3e-3,
        value_learning_rate: 3e-3,
        steps: 150,
        kl_coef: 0.2,
        batch_size: 256,
        minibatch_size: 256,
        temperature,
        ..PpoConfig::default()
    };
    let root = Stream::new(1);
    let (mut policy, mut value) = (Mlp::new(V), MlpValue(Mlp::new(1)));
    let mut params = policy.init(root.child("policy"));
    let mut value_params = value.0.init(root.child("value"));
    let reference = params.frozen_copy();
    let mut updater = Updater::new(fault, &cfg);
    let reward = |y: &[u32]| y.iter().filter(|&&v| v == 0).count() as f64 / T as f64;
    for step in 0..cfg.steps {
        let sampled = policy.sample(&params, &[0; 256], root.child("rollout").at(step));
        let rollouts: Vec<Rollout> = sampled
            .into_iter()
            .map(|y| Rollout { score: reward(&y), prompt: vec![0], response: y, finished: true })
            .collect();
        let all = (&mut params, &mut value_params, &reference);
        updater.step(&mut policy, &mut value, all, &rollouts, &cfg, step);
    }
    policy.exact(&params, 1, &|_, y| reward(y))
}

/// The bounds of gate A at β = .2.
fn passes_gate_a((r, kl): (f64, f64)) -> bool {
    let (kl_star, j_star, beta) = (0.579544, 0.216811, 0.2);
    j_star - (r - beta * kl) <= (0.01f64 * j_star).max(0.001)
        && (kl - kl_star).abs() <= (0.15f64 * kl_star).max(0.005)
}

#[test]
fn the_faultless_mirror_is_the_update_to_the_bit() {
    let cfg = uneven_config();
    let run = |fault| {
        let root = Stream::new(23);
        let (mut params, mut values) =
            (table(bigram::V, root.child("policy")), table(1, root.child("value")));
        let reference = table(bigram::V, root.child("reference"));
        let mut updater = Updater::new(fault, &cfg);
        for step in 0..3 {
            let rollouts = uneven(root.child("rollouts").at(step));
            let all = (&mut params, &mut values, &reference);
            updater.step(&mut Bigram::default(), &mut BigramValue::default(), all, &rollouts, &cfg, step);
        }
        (params.data, values.data)
    };
    let start = table(bigram::V, Stream::new(23).child("policy")).data;
    let (one, two) = (run(None), run(Some(Fault::None)));
    assert!(one == two && one.0 != start);
    assert!(passes_gate_a(gate_a(Some(Fault::None))));
}

#[test]
fn each_fault_is_caught_by_the_equations() {
    use Fault::*;
    for fault in [
        KlSign,
        BetaTwice,
        KlToOld,
        ScoreLate,
        GaeAcross,
        PaddingCounted,
        PromptCounted,
        TemperatureOnlyInLoss,
        NoTemperature,
        WhitenMinibatch,
        StaleReference,
        StaleNumbers,
    ] {
        let off = off_the_equations(Some(fault));
        // Not narrowly: a hundred times the bound.
        assert!(off > 100.0 * BOUND, "{fault:?} is within the bound: {off}");
    }
}

#[test]
fn faults_that_change_the_optimum_are_caught_by_gate_a() {
    use Fault::*;
    for fault in [KlSign, BetaTwice, KlToOld, ScoreLate, GaeAcross, TemperatureOnlyInLoss, StaleReference] {
        let run = gate_a(Some(fault));
        assert!(!passes_gate_a(run), "{fault:?} passes: {run:?}");
    }
}
