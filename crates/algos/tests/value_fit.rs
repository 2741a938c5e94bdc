//! Warm start: a good critic helps before any return is seen, returns help more, zero explains nothing.
#![allow(clippy::unwrap_used, unreachable_pub, dead_code)]

mod mlp;

use ecr_algos::value_fit::*;
use ecr_core::optim::AdamW;
use ecr_core::{Params, Stream};
use mlp::{Mlp, MlpValue};

fn rollouts() -> (Vec<ValueExample>, Vec<f64>) {
    let mut draws = Stream::new(2).rng();
    let one = |_| {
        let c = draws.below(8) as u32;
        let response: Vec<u32> = (0..4).map(|_| draws.below(8) as u32).collect();
        let reward = f64::from(c) / 4.0 - 1.0;
        (ValueExample { prompt: vec![c], response, reward }, 3.0 + reward + 0.8 * draws.normal())
    };
    (0..600).map(one).unzip()
}

fn fit(value: &mut MlpValue, params: &mut Params, examples: &[ValueExample], steps: usize) {
    let parts: Vec<Vec<usize>> = (0..512).collect::<Vec<_>>().chunks(128).map(<[usize]>::to_vec).collect();
    for _ in 0..steps {
        value_fit_step(value, params, examples, &parts, 1.0, &AdamW::default(), 1e-2, 1.0).unwrap();
    }
}

#[test]
fn explained_variance_rises_from_zero_to_critic_to_returns() {
    let (truth, scores) = rollouts();
    let rewards: Vec<f64> = truth[..512].iter().map(|e| e.reward).collect();
    let map = ScoreMap::fit(&scores[..512], &rewards);
    let mapped: Vec<ValueExample> =
        truth.iter().zip(&scores).map(|(e, &s)| ValueExample { reward: map.apply(s), ..e.clone() }).collect();
    let held: Vec<Vec<usize>> = vec![(512..600).collect()];
    let mut value = MlpValue(Mlp::new(1));
    let mut params = value.0.init(Stream::new(4));
    let explained =
        |v: &mut MlpValue, p: &Params| held_out_explained_variance(v, p, &truth, &held, 1.0).unwrap();
    let zero = explained(&mut value, &params);
    fit(&mut value, &mut params, &mapped, 60);
    let critic = explained(&mut value, &params);
    fit(&mut value, &mut params, &truth, 60);
    let both = explained(&mut value, &params);
    assert!(zero.abs() < 1e-9, "{zero}");
    assert!(critic > 0.3 && both > critic && both > 0.95, "{zero} {critic} {both}");
}

#[test]
fn the_score_map_is_least_squares() {
    let m = ScoreMap::fit(&[0.0, 1.0, 2.0], &[1.0, 3.0, 5.0]);
    assert!((m.slope - 2.0).abs() < 1e-12 && (m.intercept - 1.0).abs() < 1e-12);
    assert_eq!(ScoreMap::fit(&[1.0, 1.0], &[0.0, 1.0]).apply(9.0), 0.5);
}
