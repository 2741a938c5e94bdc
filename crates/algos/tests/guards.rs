//! Each alarm fires on its trajectory and on no other; decisions follow the rule.
#![allow(clippy::unwrap_used)]

use ecr_algos::guards::*;

fn good(i: usize) -> Signals {
    let x = i as f64;
    Signals {
        finite: true,
        kl: 0.5 + 0.3 * x,
        entropy: 2.0 - 0.02 * x,
        score: 0.1 * x,
        held_out: i.is_multiple_of(2).then_some(0.05 * x),
        length: 20.0 + (i % 3) as f64,
    }
}

/// Guards after ten good updates.
fn settled(cfg: &GuardConfig) -> Guards {
    let mut g = Guards::default();
    for i in 0..10 {
        assert_eq!(g.observe(&good(i), cfg), Decision::Continue, "update {i}");
    }
    g
}

fn alarms(s: Signals) -> Vec<Alarm> {
    let cfg = GuardConfig::default();
    match settled(&cfg).observe(&s, &cfg) {
        Decision::Continue => vec![],
        Decision::RollBack { alarms, .. } | Decision::Stop { alarms } => alarms,
    }
}

#[test]
fn a_healthy_run_raises_nothing() {
    let cfg = GuardConfig::default();
    let mut g = settled(&cfg);
    assert!((10..60).all(|i| g.observe(&good(i), &cfg) == Decision::Continue));
}

#[test]
fn each_alarm_has_its_cause() {
    let next = good(10);
    assert_eq!(alarms(Signals { finite: false, ..next }), [Alarm::NonFinite]);
    assert_eq!(alarms(Signals { kl: f64::NAN, ..next }), [Alarm::NonFinite]);
    assert_eq!(alarms(Signals { held_out: Some(f64::INFINITY), ..next }), [Alarm::NonFinite]);
    // The largest KL of the window is 3.2.
    assert_eq!(alarms(Signals { kl: 9.7, ..next }), [Alarm::KlSpike]);
    assert_eq!(alarms(Signals { kl: 9.5, ..next }), []);
    // The mean of the first five is 1.96.
    assert_eq!(alarms(Signals { entropy: 0.39, ..next }), [Alarm::EntropyCollapse]);
    assert_eq!(alarms(Signals { entropy: 0.40, ..next }), []);
    // Lengths of the first five: 20, 21, 22, 20, 21.
    assert_eq!(alarms(Signals { length: 41.7, ..next }), [Alarm::LengthDrift]);
    assert_eq!(alarms(Signals { length: 10.3, ..next }), [Alarm::LengthDrift]);
    assert_eq!(alarms(Signals { length: 41.5, ..next }), []);
    assert_eq!(alarms(Signals { length: 10.5, ..next }), []);
    let both = alarms(Signals { kl: 50.0, entropy: 0.0, ..next });
    assert_eq!(both, [Alarm::KlSpike, Alarm::EntropyCollapse]);
}

#[test]
fn a_fixed_limit_holds_from_the_first_update() {
    let cfg = GuardConfig { kl_limit: Some(4.0), ..GuardConfig::default() };
    let first = Signals { kl: 4.1, ..good(0) };
    assert!(matches!(Guards::default().observe(&first, &cfg), Decision::RollBack { .. }));
    let none = GuardConfig::default();
    assert_eq!(Guards::default().observe(&first, &none), Decision::Continue);
}

#[test]
fn reward_up_and_held_out_down_must_last() {
    let cfg = GuardConfig::default();
    let run = |held_out: [f64; 4], score: [f64; 4]| {
        let mut g = Guards::default();
        let each = held_out.iter().zip(score);
        let decisions: Vec<Decision> = each
            .map(|(&h, s)| g.observe(&Signals { held_out: Some(h), score: s, ..good(3) }, &cfg))
            .collect();
        assert!(decisions[..3].iter().all(|d| *d == Decision::Continue));
        decisions[3].clone()
    };
    let up = [0.1, 0.2, 0.3, 0.4];
    let fell = Decision::RollBack { alarms: vec![Alarm::HeldOutFalls], lr: 0.5, kl: 1.5 };
    assert_eq!(run([0.9, 0.8, 0.7, 0.6], up), fell);
    assert_eq!(run([0.9, 0.8, 0.85, 0.6], up), Decision::Continue, "held-out recovered once");
    assert_eq!(run([0.9, 0.8, 0.7, 0.6], [0.1, 0.2, 0.15, 0.4]), Decision::Continue, "no reward to game");
}

#[test]
fn three_rollbacks_then_stop_with_exit_six() {
    let cfg = GuardConfig::default();
    let mut g = settled(&cfg);
    let bad = Signals { finite: false, ..good(10) };
    for (lr, kl) in [(0.5, 1.5), (0.25, 2.25), (0.125, 3.375)] {
        assert_eq!(g.observe(&bad, &cfg), Decision::RollBack { alarms: vec![Alarm::NonFinite], lr, kl });
        // What the guards know survives a checkpoint, and a good update does not forgive.
        g = serde_json::from_str(&serde_json::to_string(&g).unwrap()).unwrap();
        assert_eq!(g.observe(&good(10), &cfg), Decision::Continue);
    }
    let Decision::Stop { alarms } = g.observe(&bad, &cfg) else { panic!("goes on after three rollbacks") };
    let e = stopped(&alarms, g.rollbacks, 17);
    assert_eq!(e.exit_code(), 6);
    assert!(e.to_string().contains("G1") && e.to_string().contains("3 rollbacks"), "{e}");
}

#[test]
fn guards_can_be_turned_off() {
    let cfg = GuardConfig {
        kl_spike: f64::INFINITY,
        entropy_floor: 0.0,
        held_out_falls: 0,
        length_drift: 0.0,
        ..GuardConfig::default()
    };
    let mut g = settled(&cfg);
    for i in 0..5 {
        let x = i as f64;
        let wild = Signals { finite: true, kl: 1e6, entropy: 0.0, score: x, held_out: Some(-x), length: 1e4 };
        assert_eq!(g.observe(&wild, &cfg), Decision::Continue);
    }
}
