//! What PPO's switches do, each against what it says it does.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code)]

mod bigram;

use bigram::{Bigram, BigramValue, V, log_softmax, table, uneven};
use ecr_algos::losses::{KlEstimator, KlPlace};
use ecr_algos::ppo::{PpoConfig, PpoState, PpoStats, Rollout, ppo_step, ppo_step_mixed};
use ecr_algos::sft::Example;
use ecr_core::seam::Decoding;
use ecr_core::{Kind, Params, Result, Stream};

struct Run {
    policy: Bigram,
    params: Params,
    values: Params,
    reference: Params,
    rollouts: Vec<Rollout>,
    state: PpoState,
}

fn config() -> PpoConfig {
    PpoConfig { learning_rate: 3e-2, value_learning_rate: 3e-2, minibatch_size: 5, ..PpoConfig::default() }
}

impl Run {
    fn new(cfg: &PpoConfig) -> Self {
        let root = Stream::new(31);
        Self {
            policy: Bigram::default(),
            params: table(V, root.child("policy")),
            values: table(1, root.child("value")),
            reference: table(V, root.child("reference")),
            rollouts: uneven(root.child("rollouts")),
            state: PpoState::new(cfg),
        }
    }
    fn step(&mut self, cfg: &PpoConfig, examples: &[Example]) -> Result<PpoStats> {
        ppo_step_mixed(
            &mut self.policy,
            &mut BigramValue::default(),
            &mut self.params,
            &mut self.values,
            &self.reference,
            &self.rollouts,
            examples,
            Decoding::plain(5),
            cfg,
            &mut self.state,
            Stream::new(5),
            0,
        )
    }
}

fn after(cfg: &PpoConfig) -> (Run, PpoStats) {
    let mut run = Run::new(cfg);
    let stats = run.step(cfg, &[]).unwrap();
    (run, stats)
}

#[test]
fn every_switch_changes_the_trajectory() {
    let base = after(&config()).0;
    let same = |r: &Run| r.params.data == base.params.data && r.values.data == base.values.data;
    assert!(same(&after(&config()).0));
    for (name, cfg) in [
        ("clip_range_high", PpoConfig { clip_range_high: Some(0.01), ..config() }),
        ("dual_clip", PpoConfig { dual_clip: Some(1.0001), ..config() }),
        ("value_clip_range", PpoConfig { value_clip_range: Some(1e-3), ..config() }),
        ("value_norm", PpoConfig { value_norm: true, ..config() }),
        ("value_huber", PpoConfig { value_huber: Some(0.1), ..config() }),
        ("kl_in", PpoConfig { kl_in: KlPlace::Loss, kl_estimator: KlEstimator::K2, ..config() }),
        ("missing_eos_score", PpoConfig { missing_eos_score: Some(-3.0), ..config() }),
        ("overlong_buffer", PpoConfig { overlong_buffer: 2, ..config() }),
    ] {
        assert!(!same(&after(&cfg).0), "{name} changed nothing");
    }
}

#[test]
fn over_budget_the_policy_stands_and_the_value_function_learns() {
    // A reference to which the sampled tokens are less likely, so that the KL of this batch is above 0.
    let far = |cfg: &PpoConfig| {
        let mut run = Run::new(cfg);
        run.reference.data = run.params.data.clone();
        for r in &run.rollouts {
            let whole = [&r.prompt[..], &r.response[..]].concat();
            for t in r.prompt.len()..whole.len() {
                run.reference.data[whole[t - 1] as usize * V + whole[t] as usize] -= 1.0;
            }
        }
        let stats = run.step(cfg, &[]).unwrap();
        (run, stats)
    };
    let free = far(&config()).1.metrics.get("objective/kl").unwrap();
    assert!(free > 0.0);
    let start = Run::new(&config());
    for (budget, moves) in [(0.5 * free, false), (2.0 * free, true)] {
        let cfg = PpoConfig { kl_budget: Some(budget), ..config() };
        let (run, stats) = far(&cfg);
        assert_eq!(run.params.data != start.params.data, moves);
        assert_ne!(run.values.data, start.values.data);
        assert_eq!(stats.metrics.get("updates/over_budget"), Some(if moves { 0.0 } else { 1.0 }));
    }
    let (run, _) = after(&PpoConfig { value_only_steps: 1, ..config() });
    assert!(run.params.data == start.params.data && run.values.data != start.values.data);
}

#[test]
fn kl_in_the_loss_leaves_the_reward_alone_and_pulls_to_the_reference() {
    let distance = |p: &Params, q: &Params| -> f64 {
        let kl = |s: u32| -> f64 {
            let (p, q) = (log_softmax(p, s, 1.0), log_softmax(q, s, 1.0));
            p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
        };
        (0..V as u32).map(kl).sum()
    };
    let strong = PpoConfig { kl_in: KlPlace::Loss, kl_coef: 50.0, max_grad_norm: 100.0, ..config() };
    for estimator in [KlEstimator::K2, KlEstimator::K3] {
        let (run, stats) = after(&PpoConfig { kl_estimator: estimator, ..strong.clone() });
        assert_eq!(stats.metrics.get("objective/non_score_reward"), Some(0.0));
        assert!(stats.metrics.get("loss/kl_avg").unwrap() > 0.0);
        let start = Run::new(&strong);
        let (now, before) = (distance(&run.params, &run.reference), distance(&start.params, &run.reference));
        assert!(now < 0.98 * before, "{estimator:?}: KL {now} after {before}");
    }
}

#[test]
fn normalised_values_do_not_feel_the_scale_of_the_reward() {
    let scaled = |scale: f64| {
        let cfg = PpoConfig { value_norm: true, kl_coef: 0.0, missing_eos_penalty: 0.0, ..config() };
        let mut run = Run::new(&cfg);
        run.values.data.fill(0.0);
        run.rollouts.iter_mut().for_each(|r| r.score *= scale);
        let stats = run.step(&cfg, &[]).unwrap();
        let returns = &stats.experience.returns;
        let mean = returns.iter().sum::<f64>() / returns.len() as f64;
        assert!((stats.metrics.get("val/norm_mean").unwrap() - mean).abs() < 1e-9 * scale);
        // The scale is part of the state, and the state survives a checkpoint.
        let again: PpoState = serde_json::from_str(&serde_json::to_string(&run.state).unwrap()).unwrap();
        assert_eq!(again, run.state);
        run.values.data
    };
    let (one, hundred) = (scaled(10.0), scaled(1000.0));
    let off = one.iter().zip(&hundred).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 1e-5 && one.iter().any(|v| v.abs() > 1e-3), "{off}");
    let plain = serde_json::to_string(&PpoState::new(&config())).unwrap();
    assert!(!plain.contains("value_norm"), "a run without it writes what it always wrote");
}

#[test]
fn mixed_in_examples_are_seen_once_an_epoch_and_learnt() {
    let examples: Vec<Example> = (0..7u32)
        .map(|i| Example {
            tokens: (0..4 + i % 3).map(|t| (i + t) % 16).collect(),
            scored: (0..4 + i % 3).map(|t| t != 2).collect(),
        })
        .collect();
    let nll = |p: &Params| -> f64 {
        let mut all = Vec::new();
        for e in &examples {
            for t in (1..e.tokens.len()).filter(|&t| e.scored[t]) {
                all.push(-log_softmax(p, e.tokens[t - 1], 1.0)[e.tokens[t] as usize]);
            }
        }
        all.iter().sum::<f64>() / all.len() as f64
    };
    let cfg = PpoConfig { ptx_coef: 0.5, ppo_epochs: 2, micro_batch_tokens: 9, ..config() };
    let mut run = Run::new(&cfg);
    let before = nll(&run.params);
    let stats = run.step(&cfg, &examples).unwrap();
    for e in &examples {
        assert_eq!(run.policy.seen.iter().filter(|(tokens, _)| *tokens == e.tokens).count(), 2, "{e:?}");
    }
    let without = after(&PpoConfig { ptx_coef: 0.0, ..cfg.clone() }).0;
    assert!(nll(&run.params) < before && nll(&run.params) < nll(&without.params));
    assert!(stats.metrics.get("loss/ptx_avg").unwrap() > 0.0);

    // One minibatch at rate 0: the loss is the weighted mean over all scored tokens, however it is cut.
    for micro_batch_tokens in [9, 4096] {
        let cfg = PpoConfig {
            learning_rate: 0.0,
            minibatch_size: 12,
            ppo_epochs: 1,
            micro_batch_tokens,
            ..cfg.clone()
        };
        let mut run = Run::new(&cfg);
        let stats = run.step(&cfg, &examples).unwrap();
        let want = 0.5 * before;
        assert!((stats.metrics.get("loss/ptx_avg").unwrap() - want).abs() < 1e-5, "{want}");
    }
    let e = Run::new(&cfg).step(&cfg, &[]).unwrap_err();
    assert!(e.kind == Kind::Config && e.to_string().contains("ptx_coef"), "{e}");
}

#[test]
fn several_rollouts_of_a_prompt_come_together() {
    let cfg = PpoConfig { rollouts_per_prompt: 4, batch_size: 12, ..config() };
    let mut run = Run::new(&cfg);
    assert_eq!(run.step(&cfg, &[]).unwrap_err().kind, Kind::Data);
    for i in 0..12 {
        run.rollouts[i].prompt = run.rollouts[i - i % 4].prompt.clone();
    }
    assert!(run.step(&cfg, &[]).unwrap().metrics.get("reward_std").unwrap() > 0.0);
    let e = PpoConfig { rollouts_per_prompt: 5, batch_size: 12, ..config() }.check().unwrap_err();
    assert!(e.to_string().contains("rollouts_per_prompt"), "{e}");
}

#[test]
fn impossible_switches_are_named() {
    for (cfg, name) in [
        (PpoConfig { dual_clip: Some(1.0), ..config() }, "dual_clip"),
        (PpoConfig { clip_range_high: Some(0.0), ..config() }, "clip_range_high"),
        (PpoConfig { kl_budget: Some(0.0), ..config() }, "kl_budget"),
        (PpoConfig { value_huber: Some(-1.0), ..config() }, "value_huber"),
        (PpoConfig { missing_eos_score: Some(f64::NAN), ..config() }, "missing_eos_score"),
        (PpoConfig { ptx_coef: -1.0, ..config() }, "ptx_coef"),
    ] {
        let mut run = Run::new(&cfg);
        let e = ppo_step(
            &mut run.policy,
            &mut BigramValue::default(),
            &mut run.params,
            &mut run.values,
            &run.reference,
            &run.rollouts,
            Decoding::plain(5),
            &cfg,
            &mut run.state,
            Stream::new(5),
            0,
        )
        .unwrap_err();
        assert!(e.kind == Kind::Config && e.to_string().contains(name), "{e}");
    }
}
