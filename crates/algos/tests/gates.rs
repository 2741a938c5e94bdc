//! PPO against exactly known optima (Gates A and B): `π* ∝ π_ref e^{r/β}`, `J* = β log Z`.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod mlp;

use ecr_algos::ppo::{PpoConfig, PpoState, Rollout, ppo_step};
use ecr_core::Stream;
use ecr_core::seam::Decoding;
use mlp::{Mlp, MlpValue, T, V};

type Reward = dyn Fn(usize, &[u32]) -> f64;

fn additive(_: usize, y: &[u32]) -> f64 {
    y.iter().filter(|&&v| v == 0).count() as f64 / T as f64
}
fn prefix(c: usize, y: &[u32]) -> f64 {
    y.iter().enumerate().take_while(|(t, v)| **v as usize == (c + t) % V).count() as f64 / T as f64
}

fn config(beta: f64, steps: u64) -> PpoConfig {
    PpoConfig {
        learning_rate: 3e-3,
        value_learning_rate: 3e-3,
        steps,
        kl_coef: beta,
        batch_size: 256,
        minibatch_size: 256,
        ..PpoConfig::default()
    }
}

/// Trains and returns the exact (E[r], KL).
fn train(cfg: &PpoConfig, prompts: usize, reward: &Reward, seed: u64) -> (f64, f64) {
    let root = Stream::new(seed);
    let (mut policy, mut value) = (Mlp::new(V), MlpValue(Mlp::new(1)));
    let mut params = policy.init(root.child("policy"));
    let mut value_params = value.0.init(root.child("value"));
    let reference = params.frozen_copy();
    let mut state = PpoState::new(cfg);
    for step in 0..cfg.steps {
        let cs: Vec<usize> = (0..cfg.batch_size).map(|i| i % prompts).collect();
        let rollouts: Vec<Rollout> = policy
            .sample(&params, &cs, root.child("rollout").at(step))
            .into_iter()
            .zip(&cs)
            .map(|(y, &c)| Rollout {
                score: reward(c, &y),
                prompt: vec![c as u32],
                response: y,
                finished: true,
            })
            .collect();
        let d = Decoding::plain(T);
        let stream = root.child("ppo");
        let stats = ppo_step(
            &mut policy,
            &mut value,
            &mut params,
            &mut value_params,
            &reference,
            &rollouts,
            d,
            cfg,
            &mut state,
            stream,
            step,
        )
        .unwrap();
        assert!(stats.metrics.iter().all(|(_, v)| v.is_finite()));
    }
    policy.exact(&params, prompts, reward)
}

fn median(mut xs: Vec<f64>) -> f64 {
    xs.sort_by(f64::total_cmp);
    xs[xs.len() / 2]
}

fn gate(name: &str, beta: f64, prompts: usize, reward: &Reward, (kl_star, j_star): (f64, f64), slack: f64) {
    let runs: Vec<(f64, f64)> = (1..=3).map(|s| train(&config(beta, 150), prompts, reward, s)).collect();
    let gap = median(runs.iter().map(|(r, kl)| j_star - (r - beta * kl)).collect());
    let off = median(runs.iter().map(|(_, kl)| (kl - kl_star).abs()).collect());
    eprintln!("{name} beta {beta}: J* - J {gap:.5} (at most {slack:.5}), |KL - KL*| {off:.4}");
    assert!(gap <= slack, "{name} beta {beta}: J* - J = {gap}");
    assert!(off <= (0.15 * kl_star).max(0.005), "{name} beta {beta}: KL off by {off}");
}

#[test]
fn gate_a_additive_reward() {
    for (beta, kl, j) in [
        (1.0, 0.015450, 0.139550),
        (0.5, 0.069384, 0.155940),
        (0.2, 0.579544, 0.216811),
        (0.1, 2.852613, 0.349823),
        (0.05, 7.232593, 0.593329),
    ] {
        gate("A", beta, 1, &additive, (kl, j), (0.01f64 * j).max(0.001));
    }
}

#[test]
fn gate_b_context_and_prefix_credit() {
    gate("B", 0.05, 8, &prefix, (8.018171, 0.586544), 0.03 * 0.586544);
}

#[test]
fn a_constant_reward_does_not_move_the_policy() {
    let (_, kl) = train(&config(0.2, 20), 1, &|_, _| 1.0, 1);
    assert!(kl < 0.02, "KL {kl}");
}

#[test]
fn micro_batches_do_not_change_the_run() {
    let whole = config(0.1, 5);
    let cut = PpoConfig { micro_batch_tokens: 100, ..whole.clone() };
    let (a, b) = (train(&whole, 8, &prefix, 1), train(&cut, 8, &prefix, 1));
    assert!((a.0 - b.0).abs() < 1e-4 && (a.1 - b.1).abs() < 1e-4, "{a:?} {b:?}");
}
