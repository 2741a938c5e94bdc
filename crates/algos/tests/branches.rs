//! Branches of the update that the gates do not take.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code)]

mod mlp;

use ecr_algos::ppo::{PpoConfig, PpoState, PpoStats, Rollout, ppo_step};
use ecr_core::seam::{Decoding, Pass, Policy, Scores};
use ecr_core::{Kind, Packed, Params, Result, Stream};
use mlp::{Mlp, MlpValue, T, V};

/// What a policy does wrong in its kept passes.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Log-probabilities differ from those of the scoring pass.
    Shifted,
    /// NaN in every kept pass.
    Nan,
    /// NaN from the second kept pass on.
    NanLater,
}

struct Faulty {
    inner: Mlp,
    fault: Fault,
    kept: usize,
}

impl Policy for Faulty {
    fn forward(&mut self, p: &Params, b: &Packed, pass: Pass<'_>) -> Result<Scores> {
        let mut s = self.inner.forward(p, b, pass)?;
        if pass.keep {
            self.kept += 1;
            match self.fault {
                Fault::Shifted => s.logp[0] += 0.01,
                Fault::Nan => s.logp[0] = f32::NAN,
                Fault::NanLater if self.kept > 1 => s.logp[0] = f32::NAN,
                _ => {}
            }
        }
        Ok(s)
    }
    fn backward(&mut self, p: &mut Params, l: &[f32], h: &[f32]) -> Result<()> {
        self.inner.backward(p, l, h)
    }
}

struct World {
    policy: Faulty,
    value: MlpValue,
    params: Params,
    value_params: Params,
    state: PpoState,
}

fn config() -> PpoConfig {
    PpoConfig {
        learning_rate: 3e-3,
        value_learning_rate: 3e-3,
        batch_size: 32,
        minibatch_size: 8,
        ..PpoConfig::default()
    }
}

impl World {
    fn new(cfg: &PpoConfig, fault: Fault) -> Self {
        let root = Stream::new(3);
        let policy = Mlp::new(V);
        let value = MlpValue(Mlp::new(1));
        let params = policy.init(root.child("policy"));
        let value_params = value.0.init(root.child("value"));
        Self {
            policy: Faulty { inner: policy, fault, kept: 0 },
            value,
            params,
            value_params,
            state: PpoState::new(cfg),
        }
    }
    /// Responses of unequal length, some unfinished.
    fn rollouts(&mut self) -> Vec<Rollout> {
        let cs: Vec<usize> = (0..32).map(|i| i % V).collect();
        let sampled = self.policy.inner.sample(&self.params, &cs, Stream::new(4));
        let one = |(i, (mut y, c)): (usize, (Vec<u32>, usize))| {
            y.truncate(1 + i % T);
            Rollout { score: f64::from(y[0] == 0), prompt: vec![c as u32], response: y, finished: i % 3 > 0 }
        };
        sampled.into_iter().zip(cs).enumerate().map(one).collect()
    }
    fn step(&mut self, cfg: &PpoConfig, decoding: Decoding<'_>) -> Result<PpoStats> {
        let rollouts = self.rollouts();
        let reference = self.params.frozen_copy();
        ppo_step(
            &mut self.policy,
            &mut self.value,
            &mut self.params,
            &mut self.value_params,
            &reference,
            &rollouts,
            decoding,
            cfg,
            &mut self.state,
            Stream::new(5),
            0,
        )
    }
}

fn after(cfg: &PpoConfig) -> (Vec<f32>, PpoStats) {
    let mut w = World::new(cfg, Fault::None);
    let stats = w.step(cfg, Decoding::plain(T)).unwrap();
    (w.params.data, stats)
}

#[test]
fn a_first_ratio_off_one_is_refused() {
    let cfg = config();
    let e = World::new(&cfg, Fault::Shifted).step(&cfg, Decoding::plain(T)).unwrap_err();
    assert_eq!(e.kind, Kind::Internal);
    assert!(e.to_string().contains("ratio"), "{e}");
}

#[test]
fn sampling_that_is_not_plain_is_refused() {
    let cfg = config();
    for d in [
        Decoding { top_k: 5, ..Decoding::plain(T) },
        Decoding { top_p: 0.9, ..Decoding::plain(T) },
        Decoding { no_repeat_ngram: 3, ..Decoding::plain(T) },
        Decoding { temperature: 0.7, ..Decoding::plain(T) },
    ] {
        assert_eq!(World::new(&cfg, Fault::None).step(&cfg, d).unwrap_err().kind, Kind::Config);
    }
}

#[test]
fn a_non_finite_minibatch_touches_nothing_and_three_in_a_row_end_the_run() {
    let mut cfg = config();
    cfg.max_skipped = 100;
    let mut w = World::new(&cfg, Fault::Nan);
    let (before, moments) = (w.params.data.clone(), w.params.m.clone());
    let stats = w.step(&cfg, Decoding::plain(T)).unwrap();
    assert_eq!((w.params.data, w.params.m, w.params.step), (before, moments, 0));
    assert_eq!(stats.metrics.get("updates/applied"), Some(0.0));
    assert_eq!(stats.metrics.get("updates/skipped"), Some(16.0));
    assert_eq!(stats.metrics.get("val/ratio"), None);
    cfg.max_skipped = 3;
    let e = World::new(&cfg, Fault::NanLater).step(&cfg, Decoding::plain(T)).unwrap_err();
    assert_eq!(e.kind, Kind::Diverged);
    assert_eq!(e.exit_code(), 6);
}

#[test]
fn an_update_that_goes_too_far_stops_early() {
    let cfg = PpoConfig { target_kl: Some(1e-9), ..config() };
    let (_, stats) = after(&cfg);
    assert_eq!(stats.metrics.get("updates/early_stop"), Some(1.0));
    assert!(stats.metrics.get("updates/applied").unwrap() < 16.0);
    assert!(stats.metrics.get("policy/approxkl_k3").unwrap() > 0.0, "the KL that stopped it is logged");
}

#[test]
fn unfinished_responses_pay_and_advantages_stay_inside_a_response() {
    let free = PpoConfig { missing_eos_penalty: 0.0, whiten: false, ..config() };
    let dear = PpoConfig { missing_eos_penalty: 5.0, ..free.clone() };
    let (a, b) = (after(&free).1.experience, after(&dear).1.experience);
    let mut at = 0;
    for (i, &n) in a.lengths.iter().enumerate() {
        for t in at..at + n {
            let change = a.returns[t] - b.returns[t];
            // γ = 1: the penalty at the last token reaches each earlier one by λ per step, and no other response.
            let want = if i % 3 == 0 { 5.0 * 0.95f64.powi((at + n - 1 - t) as i32) } else { 0.0 };
            assert!((change - want).abs() < 1e-6, "rollout {i} token {}: {change} for {want}", t - at);
        }
        at += n;
    }
}

#[test]
fn settings_change_the_trajectory_and_micro_batches_do_not() {
    let base = after(&config()).0;
    let close = |x: &[f32]| x.iter().zip(&base).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(close(&after(&PpoConfig { micro_batch_tokens: 7, ..config() }).0));
    for (name, cfg) in [
        ("learning_rate", PpoConfig { learning_rate: 1e-3, ..config() }),
        ("minibatch_size", PpoConfig { minibatch_size: 16, ..config() }),
        ("ppo_epochs", PpoConfig { ppo_epochs: 2, ..config() }),
        ("clip_range", PpoConfig { clip_range: 1e-4, ..config() }),
        ("entropy_coef", PpoConfig { entropy_coef: 0.5, ..config() }),
        ("lambda", PpoConfig { lambda: 0.0, ..config() }),
        ("missing_eos_penalty", PpoConfig { missing_eos_penalty: 0.0, ..config() }),
    ] {
        assert!(!close(&after(&cfg).0), "{name} changed nothing");
    }
}

#[test]
fn impossible_settings_are_named() {
    for (cfg, name) in [
        (PpoConfig { clip_range: 0.0, ..config() }, "clip_range"),
        (PpoConfig { kl_coef: -0.1, ..config() }, "kl_coef"),
        (PpoConfig { gamma: 1.5, ..config() }, "gamma"),
        (PpoConfig { learning_rate: f64::NAN, ..config() }, "learning_rate"),
    ] {
        let e = cfg.check().unwrap_err();
        assert!(e.kind == Kind::Config && e.to_string().contains(name), "{e}");
    }
}
