//! Cooperation (gate D), signalling (gate E, a report), rewards, chains and per-agent updates of MAPPO.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code)]

mod mlp;

use ecr_algos::mappo::{Credit, Episode, MappoConfig, MappoState, Team, Turn, mappo_step, rewards};
use ecr_algos::rollout::Rollout;
use ecr_core::optim::Schedule;
use ecr_core::seam::Decoding;
use ecr_core::{Kind, Stream};
use mlp::{Mlp, MlpValue, V};

fn config() -> MappoConfig {
    MappoConfig {
        learning_rate: 5e-3,
        value_learning_rate: 5e-3,
        schedule: Schedule::Constant,
        steps: 40,
        batch_size: 512,
        epochs: 10,
        entropy_coef: 0.01,
        own_weight: 0.0,
        team_weight: 1.0,
        kl_coef: 0.0,
        ..MappoConfig::default()
    }
}

fn turn(agent: usize, prompt: &[u32], y: u32, critic: &[u32]) -> Turn {
    Turn {
        agent,
        rollout: Rollout { prompt: prompt.to_vec(), response: vec![y], finished: true, score: 0.0 },
        critic_prompt: critic.to_vec(),
        without: None,
    }
}

/// Gate D: both see c; agent 0 must say c, agent 1, who hears it, (3c + 1) mod 8; 1 for both, .25 for one. The role is
/// the position. Returns the first update after which success is above .95, and success at the end.
fn cooperation(scale: f64, value_norm: bool, sets: usize, seed: u64) -> (u64, f64) {
    let cfg = MappoConfig { value_norm, ..config() };
    let root = Stream::new(seed);
    let (mut policy, mut value) = (Mlp::new(V), MlpValue(Mlp::new(1)));
    let mut params: Vec<_> = (0..sets).map(|i| policy.init(root.child("policy").at(i as u64))).collect();
    let mut critic = value.0.init(root.child("value"));
    let reference = params[0].frozen_copy();
    let mut state = MappoState::new(&cfg, sets);
    let owner = if sets == 1 { [0, 0] } else { [0, 1] };
    let (mut first, mut success) = (u64::MAX, 0.0);
    let target = |c: usize| (3 * c + 1) % V;
    for step in 0..cfg.steps {
        let cs: Vec<usize> = (0..cfg.batch_size).map(|i| i % V).collect();
        let one: Vec<_> = cs.iter().map(|&c| (c, 0, None)).collect();
        let said = policy.choose(&params[owner[0]], &one, root.child("zero").at(step));
        let two: Vec<_> = cs.iter().zip(&said).map(|(&c, &y)| (c, 1, Some(y as usize))).collect();
        let heard = policy.choose(&params[owner[1]], &two, root.child("one").at(step));
        let episodes: Vec<Episode> = (0..cs.len())
            .map(|i| {
                let (c, a, b) = (cs[i] as u32, said[i], heard[i]);
                let right = usize::from(a == c) + usize::from(b as usize == target(cs[i]));
                let turns = vec![turn(0, &[c], a, &[c]), turn(1, &[c, a], b, &[c, a])];
                Episode { turns, team: scale * [0.0, 0.25, 1.0][right] }
            })
            .collect();
        let team = Team { names: &["says", "answers"], owner: &owner };
        let metrics = mappo_step(
            &mut policy,
            &mut value,
            &mut params,
            team,
            &mut critic,
            &reference,
            &episodes,
            Decoding::plain(1),
            &cfg,
            &mut state,
            root.child("mappo"),
            step,
        )
        .unwrap();
        assert!(metrics.iter().all(|(_, v)| v.is_finite()));
        success = (0..V)
            .map(|c| {
                let a = policy.probabilities(&params[owner[0]], c, 0, None)[c];
                a * policy.probabilities(&params[owner[1]], c, 1, Some(c))[target(c)] / V as f64
            })
            .sum();
        if success > 0.95 {
            first = first.min(step + 1);
        }
    }
    (first, success)
}

fn median<T: Ord + Copy>(mut xs: Vec<T>) -> T {
    xs.sort_unstable();
    xs[xs.len() / 2]
}

#[test]
fn gate_d_cooperation() {
    for (what, sets) in [("one set", 1), ("a set an agent", 2)] {
        let runs = |scale: f64, norm| -> Vec<(u64, f64)> {
            (1..=3).map(|seed| cooperation(scale, norm, sets, seed)).collect()
        };
        let firsts = |r: &[(u64, f64)]| r.iter().map(|r| r.0).collect::<Vec<_>>();
        let (one, hundred) = (runs(1.0, true), runs(100.0, true));
        eprintln!("D {what}: scale 1 {one:.4?}, scale 100 {hundred:.4?}");
        for (_, success) in one.iter().chain(&hundred) {
            assert!(*success >= 0.99, "{what}: success {success}");
        }
        assert!(median(firsts(&hundred)) <= median(firsts(&one)) + 2, "{what}: slower at scale 100");
    }
}

/// Gate E: only agent 0 sees c, agent 1 must say it. The critic sees c in both turns, or (independent PPO) what the
/// agent sees. Returns the success at the end.
fn signalling(central: bool, seed: u64) -> f64 {
    let cfg = MappoConfig { steps: 60, ..config() };
    let root = Stream::new(seed);
    let (mut policy, mut value) = (Mlp::new(V), MlpValue(Mlp::new(1)));
    let mut params = vec![policy.init(root.child("policy"))];
    let mut critic = value.0.init(root.child("value"));
    let reference = params[0].frozen_copy();
    let mut state = MappoState::new(&cfg, 1);
    for step in 0..cfg.steps {
        let cs: Vec<usize> = (0..cfg.batch_size).map(|i| i % V).collect();
        let one: Vec<_> = cs.iter().map(|&c| (c, 0, None)).collect();
        let said = policy.choose(&params[0], &one, root.child("zero").at(step));
        // Agent 1's prompt is [0, 0, message]: position 2, no context.
        let two: Vec<_> = said.iter().map(|&y| (0, 2, Some(y as usize))).collect();
        let heard = policy.choose(&params[0], &two, root.child("one").at(step));
        let episodes: Vec<Episode> = (0..cs.len())
            .map(|i| {
                let (c, a, b) = (cs[i] as u32, said[i], heard[i]);
                let central = if central { vec![c, a] } else { vec![0, 0, a] };
                let turns = vec![turn(0, &[c], a, &[c]), turn(1, &[0, 0, a], b, &central)];
                Episode { turns, team: f64::from(u8::from(b == c)) }
            })
            .collect();
        mappo_step(
            &mut policy,
            &mut value,
            &mut params,
            Team { names: &["sees", "hears"], owner: &[0, 0] },
            &mut critic,
            &reference,
            &episodes,
            Decoding::plain(1),
            &cfg,
            &mut state,
            root.child("mappo"),
            step,
        )
        .unwrap();
    }
    let mut success = 0.0;
    for c in 0..V {
        let said = policy.probabilities(&params[0], c, 0, None);
        for (y, p) in said.iter().enumerate() {
            success += p * policy.probabilities(&params[0], 0, 2, Some(y))[c] / V as f64;
        }
    }
    success
}

#[test]
fn gate_e_signalling_is_reported() {
    let run = |central| -> Vec<f64> { (1..=3).map(|seed| signalling(central, seed)).collect() };
    let (mappo, independent) = (run(true), run(false));
    eprintln!("E (pooling is .875): centralised critic {mappo:.3?}, independent PPO {independent:.3?}");
    let median = |mut xs: Vec<f64>| {
        xs.sort_by(f64::total_cmp);
        xs[1]
    };
    assert!(median(mappo) >= 0.70);
}

fn episode() -> Episode {
    let mut turns = vec![turn(0, &[1], 2, &[1]), turn(1, &[1, 2], 3, &[1, 2])];
    turns[0].rollout.score = 2.0;
    turns[1].rollout.finished = false;
    turns[0].without = Some(1.0);
    turns[1].without = Some(7.0);
    Episode { turns, team: 10.0 }
}

#[test]
fn agents_are_paid_for_themselves_and_for_the_team() {
    let cfg =
        MappoConfig { own_weight: 0.7, team_weight: 0.3, missing_eos_penalty: 1.0, ..MappoConfig::default() };
    let pay = |cfg: &MappoConfig| rewards(&[episode()], cfg);
    let close = |got: Vec<f64>, want: [f64; 2]| {
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-12), "{got:?} instead of {want:?}");
    };
    close(pay(&cfg), [1.4 + 3.0, 3.0 - 1.0]);
    close(pay(&MappoConfig { credit: Credit::Difference, ..cfg.clone() }), [1.4 + 2.7, 0.9 - 1.0]);
    close(pay(&MappoConfig { sequential: true, ..cfg }), [1.4, 3.0 - 1.0]);
}

/// One update of two parameter sets on `episodes`; whether each set moved, and the metrics.
fn update(cfg: &MappoConfig, episodes: &[Episode]) -> ecr_core::Result<([bool; 2], ecr_algos::Metrics)> {
    let root = Stream::new(1);
    let (mut policy, mut value) = (Mlp::new(V), MlpValue(Mlp::new(1)));
    let mut params = vec![policy.init(root.child("a")), policy.init(root.child("b"))];
    let before: Vec<_> = params.iter().map(|p| p.data.clone()).collect();
    let reference = params[0].frozen_copy();
    let mut critic = value.0.init(root.child("value"));
    let mut state = MappoState::new(cfg, 2);
    let metrics = mappo_step(
        &mut policy,
        &mut value,
        &mut params,
        Team { names: &["first", "second"], owner: &[0, 1] },
        &mut critic,
        &reference,
        episodes,
        Decoding::plain(2),
        cfg,
        &mut state,
        root,
        0,
    )?;
    Ok(([0, 1].map(|i| params[i].data != before[i]), metrics))
}

#[test]
fn who_did_not_act_does_not_learn() {
    let mut poor = Episode { team: 0.0, ..episode() };
    poor.turns.iter_mut().for_each(|t| t.rollout.response = vec![6]);
    let both = [episode(), poor];
    assert_eq!(update(&config(), &both).unwrap().0, [true, true]);
    let alone = both.clone().map(|mut e| {
        e.turns.truncate(1);
        e
    });
    let (moved, metrics) = update(&config(), &alone).unwrap();
    assert_eq!(moved, [true, false]);
    assert!(metrics.get("agent_rewards/first").is_some() && metrics.get("agent_rewards/second").is_none());
}

#[test]
fn a_chain_passes_the_teams_reward_back_to_the_first_agent() {
    // Only the team's reward differs between episodes; the first agent's own turn earns nothing.
    let mut rich = episode();
    rich.turns.iter_mut().for_each(|t| (t.rollout.score, t.rollout.finished) = (0.0, true));
    let mut poor = Episode { team: 0.0, ..rich.clone() };
    poor.turns[0].rollout.response = vec![5];
    poor.turns[1].rollout.prompt = vec![1, 5];
    poor.turns[1].critic_prompt = vec![1, 5];
    let cfg = MappoConfig { sequential: true, ..config() };
    let (_, metrics) = update(&cfg, &[rich.clone(), poor.clone()]).unwrap();
    assert!(metrics.get("policy/grad_norm/first").unwrap() > 1e-3);
    // Without the chain between turns (λ and γ cut it) it would learn nothing but its entropy.
    let cut = MappoConfig { gamma: 0.0, entropy_coef: 0.0, ..cfg };
    assert_eq!(update(&cut, &[rich, poor]).unwrap().1.get("policy/grad_norm/first"), Some(0.0));
}

#[test]
fn unusable_episodes_are_refused() {
    let kind = |cfg: &MappoConfig, e: &[Episode]| update(cfg, e).unwrap_err().kind;
    assert_eq!(kind(&config(), &[]), Kind::Data);
    assert_eq!(kind(&config(), &[Episode { turns: vec![], team: 1.0 }]), Kind::Data);
    assert_eq!(kind(&config(), &[Episode { team: f64::NAN, ..episode() }]), Kind::Data);
    let mut e = episode();
    e.turns[0].agent = 2;
    assert_eq!(kind(&config(), &[e]), Kind::Data);
    let mut e = episode();
    e.turns[1].without = None;
    assert_eq!(kind(&MappoConfig { credit: Credit::Difference, ..config() }, &[e]), Kind::Data);
    let wrong = MappoConfig { team_weight: -1.0, ..config() };
    assert_eq!(kind(&wrong, &[episode()]), Kind::Config);
}
