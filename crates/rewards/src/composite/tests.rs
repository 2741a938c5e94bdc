//! Aggregations, gate and schedules, on components whose scores are given.

use std::sync::Arc;

use super::*;
use crate::testing::{films, reply};

/// Scores are the numbers in the reply: `a b`, a dash where absent.
struct Column(&'static str, usize);

impl Reward for Column {
    fn name(&self) -> &'static str {
        self.0
    }
    fn range(&self) -> (f64, f64) {
        (-10.0, 10.0)
    }
    fn version(&self) -> String {
        self.0.into()
    }
    fn purpose(&self) -> Purpose {
        Purpose::Train
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        let column = |r: &Reply<'_>| r.text.split_whitespace().nth(self.1)?.parse().ok();
        Ok(batch.iter().map(column).collect())
    }
}

fn two(mode: Mode) -> Composite {
    let weights = [("a".to_owned(), 2.0), ("b".to_owned(), 1.0)].into();
    let columns: Vec<Box<dyn Reward>> = vec![Box::new(Column("a", 0)), Box::new(Column("b", 1))];
    Composite::new(columns, &weights, mode, Purpose::Train).unwrap()
}

fn totals(c: &mut Composite, texts: &[&str]) -> Vec<f64> {
    let batch: Vec<Reply<'_>> = texts.iter().map(|t| reply(t)).collect();
    c.score(&batch).unwrap().iter().map(|b| (b.total * 1e6).round() / 1e6).collect()
}

#[test]
fn the_sum_is_normalised_before_or_after() {
    // a has ten times b's spread: normalised after, b hardly counts.
    let texts = ["10 0", "-10 1", "10 1", "-10 0"];
    let before = totals(&mut two(Mode::Running), &texts);
    assert_eq!(before, [1.0, -1.0, 3.0, -3.0]);
    let mut after = two(Mode::Running).aggregated(Aggregation::SumThenNormalise).unwrap();
    let z = totals(&mut after, &texts);
    assert!((z.iter().sum::<f64>()).abs() < 1e-8 && z[2] > z[0] && z[0] > 0.9 && z[1] < -0.9, "{z:?}");
    // Frozen, the same reply scores the same alone, from a state that went through JSON.
    let state = serde_json::to_vec(after.state()).unwrap();
    let mut again = two(Mode::Frozen).aggregated(Aggregation::SumThenNormalise).unwrap();
    again.set_state(serde_json::from_slice(&state).unwrap()).unwrap();
    assert_eq!(totals(&mut again, &["10 1"]), [z[2]]);
    // Its state is not that of the plain sum.
    assert!(two(Mode::Frozen).set_state(after.state().clone()).is_err());
}

#[test]
fn the_worst_of_an_ensemble_stands_for_all() {
    let of = || Aggregation::WorstCase { of: vec!["a".into(), "b".into()] };
    let mut worst = two(Mode::None).aggregated(of()).unwrap();
    assert_eq!(totals(&mut worst, &["5 1", "1 5", "2 -"]), [3.0, 3.0, 6.0]);
    let alone = Aggregation::WorstCase { of: vec!["a".into()] };
    assert!(two(Mode::None).aggregated(alone).is_err());
    let stranger = Aggregation::WorstCase { of: vec!["a".into(), "c".into()] };
    assert!(two(Mode::None).aggregated(stranger).err().unwrap().to_string().contains("\"c\""));
}

#[test]
fn a_multiplier_rises_below_its_bar_falls_above_it_and_resumes_to_the_bit() {
    let make = |mode| {
        let at_least = [("b".to_owned(), 0.5)].into();
        two(mode).aggregated(Aggregation::Constrained { at_least, rate: 0.1, most: 1.5 }).unwrap()
    };
    let mut c = make(Mode::Running);
    for _ in 0..20 {
        totals(&mut c, &["1 0", "2 0.2", "3 0.1"]);
    }
    assert_eq!(c.current_weights(), [2.0, 1.5], "bounded from above");
    let saved = serde_json::to_vec(c.state()).unwrap();
    let mut resumed = make(Mode::Running);
    resumed.set_state(serde_json::from_slice(&saved).unwrap()).unwrap();
    for _ in 0..3 {
        assert_eq!(totals(&mut c, &["1 1", "2 0.9"]), totals(&mut resumed, &["1 1", "2 0.9"]));
    }
    assert_eq!(c.state(), resumed.state());
    assert!(c.current_weights()[1] < 1.5);
    for _ in 0..60 {
        totals(&mut c, &["1 1", "2 0.9"]);
    }
    assert_eq!(c.current_weights()[1], 0.0, "never negative");
    // Measured with the configured weights, whatever training made of them.
    let mut frozen = make(Mode::Frozen);
    frozen.set_state(c.state().clone()).unwrap();
    assert_eq!(frozen.current_weights(), [2.0, 1.0]);
}

#[test]
fn schedules_change_weights_while_training_only() {
    let lines = ["a linear 2 to 0 over 4", "b 5 once a >= 3"];
    let make =
        |mode| two(mode).scheduled(lines.iter().map(|l| Schedule::parse(l).unwrap()).collect()).unwrap();
    let mut c = make(Mode::Running);
    c.set_step(1);
    assert_eq!(c.current_weights(), [1.5, 1.0]);
    totals(&mut c, &["2 0", "3 0"]);
    assert_eq!(c.current_weights()[1], 1.0);
    totals(&mut c, &["4 0", "3 0"]);
    c.set_step(9);
    assert_eq!(c.current_weights(), [0.0, 5.0]);
    totals(&mut c, &["0 0"]);
    assert_eq!(c.current_weights()[1], 5.0, "once begun it stays");
    let mut frozen = make(Mode::Frozen);
    frozen.set_state(c.state().clone()).unwrap();
    assert_eq!(frozen.current_weights(), [2.0, 1.0]);
    let twice = ["a 1 from step 1", "a 2 from step 2"].map(|l| Schedule::parse(l).unwrap());
    assert!(two(Mode::Running).scheduled(twice.into()).is_err());
}

#[test]
fn behind_a_closed_gate_nothing_pays() {
    let mut c = two(Mode::Frozen).gated(Gate::new(Arc::new(films())));
    let m = Moments { count: 10, mean: 0.0, m2: 10.0 };
    let moments = [("a".to_owned(), m), ("b".to_owned(), m)].into();
    c.set_state(NormaliserState { moments, ..NormaliserState::default() }).unwrap();
    let texts = ["3 3 that is what I think of it", "3 3 3 3 3 3 3 3", "-4 -4 -4 -4 -4 -4"];
    let batch: Vec<Reply<'_>> = texts.iter().map(|t| reply(t)).collect();
    let s = c.score(&batch).unwrap();
    assert!((s[0].total - 9.0).abs() < 1e-6 && s[0].gate.is_none());
    assert_eq!((s[1].total, s[1].gate.as_deref()), (-6.0, Some("repeats itself")));
    assert!(s[2].total < -11.9, "a closed gate never lifts");
}

#[test]
fn the_state_of_a_plain_sum_is_written_as_before() {
    let mut c = two(Mode::Running);
    totals(&mut c, &["1 0"]);
    let text = serde_json::to_string(c.state()).unwrap();
    assert_eq!(text, r#"{"a":{"count":1,"mean":1.0,"m2":0.0},"b":{"count":1,"mean":0.0,"m2":0.0}}"#);
}

/// Scores how many replies it was reminded of.
struct Reminded(usize, usize);

impl Reward for Reminded {
    fn name(&self) -> &'static str {
        "reminded"
    }
    fn range(&self) -> (f64, f64) {
        (0.0, 10.0)
    }
    fn version(&self) -> String {
        "reminded".into()
    }
    fn purpose(&self) -> Purpose {
        Purpose::Train
    }
    fn memory(&self) -> usize {
        self.0
    }
    fn recall(&mut self, recent: &[String]) {
        self.1 = recent.len();
    }
    fn score(&mut self, batch: &[Reply<'_>]) -> Result<Vec<Option<f64>>> {
        Ok(vec![Some(self.1 as f64); batch.len()])
    }
}

#[test]
fn recent_replies_are_kept_while_training_and_travel_with_the_state() {
    let weights: Weights = [("reminded".to_owned(), 1.0)].into();
    let new =
        || Composite::new(vec![Box::new(Reminded(3, 0))], &weights, Mode::Running, Purpose::Train).unwrap();
    let seen = |c: &mut Composite, texts: &[&str]| {
        let batch: Vec<Reply<'_>> = texts.iter().map(|t| reply(t)).collect();
        c.score(&batch).unwrap()[0].parts[0].raw.unwrap()
    };
    let mut c = new();
    assert_eq!([seen(&mut c, &["1", "2"]), seen(&mut c, &["3", "4"]), seen(&mut c, &["5"])], [0.0, 2.0, 3.0]);
    assert_eq!(c.state().recent, ["3", "4", "5"]);
    let text = serde_json::to_string(c.state()).unwrap();
    let mut back = new();
    back.set_state(serde_json::from_str(&text).unwrap()).unwrap();
    back.set_mode(Mode::Frozen);
    assert_eq!([seen(&mut back, &["6"]), seen(&mut back, &["7"])], [3.0, 3.0]);
    assert_eq!(back.state().recent, ["3", "4", "5"]);
    // A composite without such a component writes nothing of it.
    assert!(!serde_json::to_string(two(Mode::Running).state()).unwrap().contains("recent"));
}
