//! RLOO, GRPO and DPO: every gradient of a step against the equations, and the branches that the gates do not take.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code)]

mod bigram;

use bigram::{Bigram, V, log_softmax, table, uneven};
use ecr_algos::Metrics;
use ecr_algos::dpo::{self, DpoConfig, Pair, PairLogp, dpo_step, pair_logps};
use ecr_algos::grpo::{GrpoConfig, grpo_step};
use ecr_algos::losses::{Aggregation, KlController, KlEstimator, KlPlace, Preference};
use ecr_algos::rloo::{RlooConfig, rloo_step};
use ecr_algos::rollout::Rollout;
use ecr_algos::update::UpdateState;
use ecr_core::seam::{Decoding, Pass, Policy, Scores};
use ecr_core::{Kind, Packed, Params, Result, Stream};

const GROUP: usize = 4;
const LIMIT: usize = 6;

/// Twelve rollouts in groups of four, each distinguishable by its response.
fn rollouts() -> Vec<Rollout> {
    let mut all = uneven(Stream::new(41).child("rollouts"));
    for i in 0..all.len() {
        all[i].prompt = all[i - i % GROUP].prompt.clone();
        all[i].response.push(i as u32);
    }
    all
}

struct World {
    policy: Bigram,
    params: Params,
    reference: Params,
    rollouts: Vec<Rollout>,
    state: UpdateState,
}

impl World {
    fn new() -> Self {
        let root = Stream::new(41);
        Self {
            policy: Bigram::default(),
            params: table(V, root.child("policy")),
            reference: table(V, root.child("reference")),
            rollouts: rollouts(),
            state: UpdateState::new(KlController::adaptive(0.3, 0.01, 100.0)),
        }
    }
    fn rloo(&mut self, cfg: &RlooConfig) -> Result<Metrics> {
        let d = Decoding { temperature: cfg.temperature as f32, ..Decoding::plain(LIMIT) };
        let (r, s) = (&self.rollouts, &mut self.state);
        rloo_step(&mut self.policy, &mut self.params, &self.reference, r, d, cfg, s, Stream::new(5), 0)
    }
    fn grpo(&mut self, cfg: &GrpoConfig) -> Result<Metrics> {
        let d = Decoding { temperature: cfg.temperature as f32, ..Decoding::plain(LIMIT) };
        let (r, s) = (&self.rollouts, &mut self.state);
        grpo_step(&mut self.policy, &mut self.params, &self.reference, r, d, cfg, s, Stream::new(5), 0)
    }
    /// Log-ratio to the reference at each response token of rollout `i`.
    fn log_ratios(&self, i: usize, temperature: f64) -> Vec<f64> {
        let r = &self.rollouts[i];
        let whole = [&r.prompt[..], &r.response[..]].concat();
        let at = |p: &Params, t: usize| log_softmax(p, whole[t - 1], temperature)[whole[t] as usize];
        (r.prompt.len()..whole.len()).map(|t| at(&self.params, t) - at(&self.reference, t)).collect()
    }
    /// Reward of each rollout less `beta` times its KL.
    fn rewards(&self, beta: f64, temperature: f64) -> Vec<f64> {
        let one = |i: usize| {
            let r = &self.rollouts[i];
            let kl: f64 = self.log_ratios(i, temperature).iter().sum();
            r.score - if r.finished { 0.0 } else { 1.0 } - beta * kl
        };
        (0..self.rollouts.len()).map(one).collect()
    }
    /// Holds the gradient that came back at each response token against `want(rollout, token)`, and 0 elsewhere.
    fn check(&self, want: impl Fn(usize, usize) -> f64) {
        assert_eq!(self.policy.seen.len(), self.rollouts.len());
        for (i, r) in self.rollouts.iter().enumerate() {
            let whole = [&r.prompt[..], &r.response[..]].concat();
            let (_, d) = self.policy.seen.iter().find(|(tokens, _)| *tokens == whole).unwrap();
            for (t, d) in d.iter().enumerate() {
                let want = if t < r.prompt.len() { 0.0 } else { want(i, t - r.prompt.len()) };
                assert!((d - want).abs() < 1e-6, "rollout {i} token {t}: {d} instead of {want}");
            }
        }
    }
}

fn mean(xs: &[f64]) -> f64 {
    xs.iter().sum::<f64>() / xs.len() as f64
}

/// Reward of rollout `i` less the mean of the others of its group.
fn others(r: &[f64], i: usize) -> f64 {
    let start = i - i % GROUP;
    let rest: Vec<f64> = (start..start + GROUP).filter(|&j| j != i).map(|j| r[j]).collect();
    r[i] - mean(&rest)
}

/// Distance from the group's mean, and the group's unbiased standard deviation.
fn relative(r: &[f64], i: usize) -> (f64, f64) {
    let g = &r[i - i % GROUP..i - i % GROUP + GROUP];
    let m = mean(g);
    (r[i] - m, (g.iter().map(|x| (x - m).powi(2)).sum::<f64>() / 3.0).sqrt())
}

fn rloo_config() -> RlooConfig {
    RlooConfig { learning_rate: 0.0, batch_size: 12, temperature: 0.7, ..RlooConfig::default() }
}

fn grpo_config() -> GrpoConfig {
    GrpoConfig {
        learning_rate: 0.0,
        batch_size: 12,
        group_size: GROUP,
        temperature: 0.7,
        ..GrpoConfig::default()
    }
}

#[test]
fn rloo_gradients_are_what_the_equations_say() {
    for micro_batch_tokens in [9, 4096] {
        let mut w = World::new();
        let rewards = w.rewards(0.3, 0.7);
        let n: usize = w.rollouts.iter().map(|r| r.response.len()).sum();
        let m = w.rloo(&RlooConfig { micro_batch_tokens, ..rloo_config() }).unwrap();
        w.check(|i, _| -others(&rewards, i) / n as f64);
        let scores = w.rewards(0.0, 0.7);
        let get = |name: &str| m.get(name).unwrap();
        assert!((get("objective/scores") - mean(&scores)).abs() < 1e-6);
        assert!((get("objective/rlhf_reward") - mean(&rewards)).abs() < 1e-5);
        let spread = mean(&[0, 4, 8].map(|i| relative(&scores, i).1));
        assert!((get("reward_std") - spread).abs() < 1e-6);
        assert_eq!((get("frac_reward_zero_std"), get("lr")), (0.0, 0.0));
        assert_eq!(get("eos_rate"), w.rollouts.iter().filter(|r| r.finished).count() as f64 / 12.0);
        assert!(w.state.kl.coef != 0.3, "an adaptive coefficient moves");
    }
    // Per response: the paper's average.
    let mut w = World::new();
    let rewards = w.rewards(0.3, 0.7);
    w.rloo(&RlooConfig { aggregation: Aggregation::SeqMeanTokenSum, ..rloo_config() }).unwrap();
    w.check(|i, _| -others(&rewards, i) / 12.0);
}

#[test]
fn grpo_gradients_are_what_the_equations_say() {
    let mut w = World::new();
    let n: usize = w.rollouts.iter().map(|r| r.response.len()).sum();
    let rewards = w.rewards(0.3, 0.7);
    w.grpo(&grpo_config()).unwrap();
    w.check(|i, _| {
        let (off, std) = relative(&rewards, i);
        -off / (std + 1e-4) / n as f64
    });
    // Dr. GRPO: no division by the deviation, one fixed length.
    let mut w = World::new();
    w.grpo(&GrpoConfig { dr: true, ..grpo_config() }).unwrap();
    w.check(|i, _| -relative(&rewards, i).0 / (12 * LIMIT) as f64);
    // The KL in the loss: not in the reward, and its slope at each token.
    for (estimator, slope) in
        [(KlEstimator::K2, (|d: f64| d) as fn(f64) -> f64), (KlEstimator::K3, |d: f64| 1.0 - (-d).exp())]
    {
        let mut w = World::new();
        let plain = w.rewards(0.0, 0.7);
        let ratios: Vec<Vec<f64>> = (0..12).map(|i| w.log_ratios(i, 0.7)).collect();
        let cfg = GrpoConfig { kl_in: KlPlace::Loss, kl_estimator: estimator, ..grpo_config() };
        let m = w.grpo(&cfg).unwrap();
        w.check(|i, t| {
            let (off, std) = relative(&plain, i);
            (-off / (std + 1e-4) + 0.3 * slope(ratios[i][t])) / n as f64
        });
        assert_eq!(m.get("objective/non_score_reward"), Some(0.0));
        assert!(m.get("loss/kl_avg").unwrap() > 0.0);
    }
}

#[test]
fn group_settings_change_the_trajectory() {
    let rate = |cfg: GrpoConfig| GrpoConfig { learning_rate: 0.05, epochs: 2, ..cfg };
    let after = |cfg: GrpoConfig| {
        let mut w = World::new();
        w.grpo(&cfg).unwrap();
        w.params.data
    };
    let base = after(rate(grpo_config()));
    for (name, cfg) in [
        ("minibatch_size", GrpoConfig { minibatch_size: 5, ..rate(grpo_config()) }),
        ("epochs", GrpoConfig { epochs: 1, ..rate(grpo_config()) }),
        ("clip_range", GrpoConfig { clip_range: 1e-3, ..rate(grpo_config()) }),
        ("clip_range_high", GrpoConfig { clip_range_high: Some(1e-3), ..rate(grpo_config()) }),
        ("dual_clip", GrpoConfig { dual_clip: Some(1.0001), ..rate(grpo_config()) }),
        ("target_kl", GrpoConfig { target_kl: Some(1e-9), ..rate(grpo_config()) }),
        ("std_eps", GrpoConfig { std_eps: 1.0, ..rate(grpo_config()) }),
    ] {
        assert_ne!(after(cfg), base, "{name} changed nothing");
    }
    let mut w = World::new();
    let m = w.grpo(&GrpoConfig { target_kl: Some(1e-9), ..rate(grpo_config()) }).unwrap();
    assert_eq!((m.get("updates/early_stop"), m.get("updates/applied")), (Some(1.0), Some(1.0)));
    let whitened = |whiten| {
        let mut w = World::new();
        w.rloo(&RlooConfig { whiten, ..rloo_config() }).unwrap();
        w.policy.seen
    };
    assert_ne!(whitened(true), whitened(false));
}

#[test]
fn groups_and_settings_that_cannot_be_are_refused() {
    let mut w = World::new();
    w.rollouts[5].prompt.push(3);
    assert_eq!(w.rloo(&rloo_config()).unwrap_err().kind, Kind::Data);
    let mut w = World::new();
    w.rollouts.pop();
    assert_eq!(w.grpo(&grpo_config()).unwrap_err().kind, Kind::Data);
    let mut w = World::new();
    w.rollouts[0].score = f64::INFINITY;
    assert_eq!(w.grpo(&grpo_config()).unwrap_err().kind, Kind::Data);
    for (e, name) in [
        (RlooConfig { group_size: 1, ..rloo_config() }.check(), "group_size"),
        (RlooConfig { batch_size: 13, ..rloo_config() }.check(), "batch_size"),
        (RlooConfig { clip_range: 1.0, ..rloo_config() }.check(), "clip_range"),
        (RlooConfig { kl_coef: -1.0, ..rloo_config() }.check(), "kl_coef"),
        (GrpoConfig { std_eps: 0.0, ..grpo_config() }.check(), "std_eps"),
        (GrpoConfig { dual_clip: Some(1.0), ..grpo_config() }.check(), "dual_clip"),
        (GrpoConfig { temperature: 0.0, ..grpo_config() }.check(), "temperature"),
        (GrpoConfig { learning_rate: f64::NAN, ..grpo_config() }.check(), "learning_rate"),
        (GrpoConfig { kl_target: Some(0.0), ..grpo_config() }.check(), "kl_target"),
    ] {
        let e = e.unwrap_err();
        assert!(e.kind == Kind::Config && e.to_string().contains(name), "{e}");
    }
    let mut w = World::new();
    let d = Decoding { top_k: 5, temperature: 0.7, ..Decoding::plain(LIMIT) };
    let e = grpo_step(
        &mut w.policy,
        &mut w.params,
        &w.reference,
        &w.rollouts,
        d,
        &grpo_config(),
        &mut w.state,
        Stream::new(1),
        0,
    );
    assert_eq!(e.unwrap_err().kind, Kind::Config);
}

/// A policy whose kept passes are shifted or not finite.
struct Broken(Bigram, f32);

impl Policy for Broken {
    fn forward(&mut self, p: &Params, b: &Packed, pass: Pass<'_>) -> Result<Scores> {
        let mut s = self.0.forward(p, b, pass)?;
        if pass.keep {
            s.logp[0] += self.1;
        }
        Ok(s)
    }
    fn backward(&mut self, p: &mut Params, l: &[f32], h: &[f32]) -> Result<()> {
        self.0.backward(p, l, h)
    }
}

#[test]
fn a_broken_forward_reaches_no_parameter() {
    let run = |shift: f32, max_skipped: u32| {
        let mut w = World::new();
        let before = w.params.data.clone();
        let cfg =
            GrpoConfig { learning_rate: 0.1, minibatch_size: 4, epochs: 2, max_skipped, ..grpo_config() };
        let d = Decoding { temperature: 0.7, ..Decoding::plain(LIMIT) };
        let r = &w.rollouts;
        let mut policy = Broken(Bigram::default(), shift);
        let out =
            grpo_step(&mut policy, &mut w.params, &w.reference, r, d, &cfg, &mut w.state, Stream::new(1), 0);
        assert!(w.params.data == before && w.params.step == 0);
        (out, w.state.skipped)
    };
    assert_eq!(run(0.01, 3).0.unwrap_err().kind, Kind::Internal);
    assert_eq!(run(f32::NAN, 3).0.unwrap_err().kind, Kind::Diverged);
    let (metrics, skipped) = run(f32::NAN, 100);
    let metrics = metrics.unwrap();
    assert_eq!((skipped, metrics.get("updates/skipped"), metrics.get("val/ratio")), (6, Some(6.0), None));
}

fn pairs() -> Vec<Pair> {
    let all = rollouts();
    let pair = |i: usize| Pair {
        prompt: all[i].prompt.clone(),
        chosen: all[i].response.clone(),
        rejected: all[i + 1].response.clone(),
        weight: 0.5 + i as f64 / 4.0,
    };
    (0..6).map(|i| pair(2 * i)).collect()
}

#[test]
fn dpo_gradients_are_what_the_equations_say_however_the_batch_is_cut() {
    let (params, reference) = (table(V, Stream::new(1)), table(V, Stream::new(2)));
    let pairs = pairs();
    let logps = pair_logps(&mut Bigram::default(), &reference, &pairs, 1).unwrap();
    for (micro_batch_tokens, length_normalize) in [(1, false), (25, true), (4096, false)] {
        let cfg = DpoConfig {
            learning_rate: 0.0,
            beta: 0.4,
            sft_coef: 0.2,
            micro_batch_tokens,
            length_normalize,
            ..DpoConfig::default()
        };
        let mut p = Params::from_data(params.layout.clone(), params.data.clone());
        p.make_trainable();
        let mut policy = Bigram::default();
        let m = dpo_step(&mut policy, &mut p, &pairs, &logps, &cfg, 0).unwrap();
        let sum = |p: &Params, prompt: &[u32], y: &[u32]| -> f64 {
            let whole = [prompt, y].concat();
            (prompt.len()..whole.len()).map(|t| log_softmax(p, whole[t - 1], 1.0)[whole[t] as usize]).sum()
        };
        let (mut loss, mut right) = (0.0, 0.0);
        for (k, pair) in pairs.iter().enumerate() {
            let [plus, minus] = [&pair.chosen, &pair.rejected]
                .map(|y| sum(&params, &pair.prompt, y) - sum(&reference, &pair.prompt, y));
            let (a, b) = (pair.chosen.len() as f64, pair.rejected.len() as f64);
            let (pa, pb) = if length_normalize { (1.0 / a, 1.0 / b) } else { (1.0, 1.0) };
            let slope = -0.4 / (1.0 + (0.4 * (plus * pa - minus * pb)).exp());
            let nll = -sum(&params, &pair.prompt, &pair.chosen) / a;
            let preference = (1.0 + (-0.4 * (plus * pa - minus * pb)).exp()).ln();
            loss += pair.weight / 6.0 * (preference + 0.2 * nll);
            right += f64::from(u8::from(plus > minus)) / 6.0;
            let w = pair.weight / 6.0;
            for (j, want) in [(2 * k, w * (slope * pa - 0.2 / a)), (2 * k + 1, -w * slope * pb)] {
                let (_, d) = &policy.seen[j];
                let n = pair.prompt.len();
                assert!(d[..n].iter().all(|d| *d == 0.0), "prompts carry no gradient");
                assert!(d[n..].iter().all(|d| (d - want).abs() < 1e-6), "pair {k}: {d:?} for {want}");
            }
        }
        let get = |name: &str| m.get(name).unwrap();
        assert!((get("loss") - loss).abs() < 1e-5, "{} for {loss}", get("loss"));
        assert!((get("rewards/accuracies") - right).abs() < 1e-9);
        let margin = get("rewards/chosen") - get("rewards/rejected");
        assert!((get("rewards/margins") - margin).abs() < 1e-12);
        let (l, r) = dpo::evaluate(&mut Bigram::default(), &params, &pairs, &logps, &cfg).unwrap();
        assert!((r - right).abs() < 1e-9 && l.is_finite());
    }
}

#[test]
fn dpo_learns_the_pairs_and_refuses_what_it_cannot_use() {
    let mut p = table(V, Stream::new(1));
    let reference = p.frozen_copy();
    let pairs = pairs();
    let logps = pair_logps(&mut Bigram::default(), &reference, &pairs, 4096).unwrap();
    for loss in [Preference::Sigmoid, Preference::Robust, Preference::Hinge, Preference::Ipo] {
        let cfg =
            DpoConfig { learning_rate: 0.05, loss, beta: 0.5, label_smoothing: 0.1, ..DpoConfig::default() };
        p.data.clone_from(&reference.data);
        for step in 0..30 {
            dpo_step(&mut Bigram::default(), &mut p, &pairs, &logps, &cfg, step).unwrap();
        }
        let (_, right) = dpo::evaluate(&mut Bigram::default(), &p, &pairs, &logps, &cfg).unwrap();
        assert!(right > 0.99, "{loss:?}: accuracy {right}");
    }
    let cfg = DpoConfig::default();
    let before = p.data.clone();
    let mut step = |pairs: &[Pair], logps: &[PairLogp], cfg: &DpoConfig| {
        dpo_step(&mut Bigram::default(), &mut p, pairs, logps, cfg, 0).unwrap_err().kind
    };
    assert_eq!(step(&[], &[], &cfg), Kind::Data);
    assert_eq!(step(&pairs, &logps[1..], &cfg), Kind::Internal);
    let empty = Pair { rejected: vec![], ..pairs[0].clone() };
    assert_eq!(step(&[empty], &logps[..1], &cfg), Kind::Data);
    let heavy = Pair { weight: -1.0, ..pairs[0].clone() };
    assert_eq!(step(&[heavy], &logps[..1], &cfg), Kind::Data);
    let nan = PairLogp { chosen: f64::NAN, rejected: 0.0 };
    assert_eq!(step(&pairs[..1], &[nan], &cfg), Kind::Diverged);
    for (wrong, name) in [
        (DpoConfig { beta: 0.0, ..cfg.clone() }, "beta"),
        (DpoConfig { label_smoothing: 0.5, ..cfg.clone() }, "label_smoothing"),
        (DpoConfig { sft_coef: -0.1, ..cfg.clone() }, "sft_coef"),
    ] {
        assert!(wrong.check().unwrap_err().to_string().contains(name));
        assert_eq!(step(&pairs, &logps, &wrong), Kind::Config);
    }
    assert_eq!(p.data, before, "a refused step touches nothing");
}
