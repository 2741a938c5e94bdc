//! Guards around an update: what they see of it, what is logged of them, and the last state that proved good.
//!
//! The numbers of an update are those of the policy that drew its rollouts, that is, of the state before it: a state has
//! proved good when the update after it raises no alarm. What is restored is the last such state.

use ecr_algos::Metrics;
use ecr_algos::guards::{Alarm, Decision, GuardConfig, Guards, Signals, stopped};
use ecr_core::{Params, Result};
use serde_json::{Map, Value as Json, json};

/// What the guards see of an update; `skipped` counts its non-finite minibatches.
pub fn signals(metrics: &Metrics, skipped: u64) -> Signals {
    let of = |name: &str| metrics.get(name).unwrap_or(0.0);
    Signals {
        finite: skipped == 0,
        kl: of("objective/kl"),
        // Absent when every minibatch was skipped; then `finite` is false anyway.
        entropy: of("policy/entropy_avg"),
        score: of("objective/scores"),
        held_out: None,
        length: of("response_length/mean"),
    }
}

/// Parameters and the small state that goes with them, before the update and as last proved good.
pub struct Proof<S> {
    /// The state that the coming update starts from.
    pub before: (Vec<Params>, S),
    /// The last state that proved good.
    pub good: (Vec<Params>, S),
}

impl<S: Clone> Proof<S> {
    /// Begins with a state that counts as good.
    pub fn new(params: &[&Params], state: &S) -> Self {
        let all = || (params.iter().map(|p| p.snapshot()).collect(), state.clone());
        Self { before: all(), good: all() }
    }
    /// Remembers the state before an update.
    pub fn begin(&mut self, params: &[&Params], state: &S) {
        self.before = (params.iter().map(|p| p.snapshot()).collect(), state.clone());
    }
    /// Judges the update from its numbers and writes the verdict into its record. Says whether the caller is to restore
    /// [`Proof::good`].
    ///
    /// # Errors
    /// [`ecr_core::Kind::Diverged`] (exit 6) when the rollbacks are used up; the good state is to be kept.
    pub fn judge(
        &mut self,
        guards: &mut Guards,
        cfg: &GuardConfig,
        signals: &Signals,
        step: u64,
        record: &mut Map<String, Json>,
    ) -> (bool, Result<()>) {
        let names = |alarms: &[Alarm]| alarms.iter().map(|a| a.code()).collect::<Vec<_>>();
        let (alarms, back, end) = match guards.observe(signals, cfg) {
            Decision::Continue => (Vec::new(), false, Ok(())),
            Decision::RollBack { alarms, .. } => (alarms, true, Ok(())),
            Decision::Stop { alarms } => {
                let end = Err(stopped(&alarms, guards.rollbacks, step));
                (alarms, true, end)
            }
        };
        record.insert("guard/alarms".into(), json!(names(&alarms)));
        record.insert("guard/rollbacks".into(), json!(guards.rollbacks));
        if !back {
            std::mem::swap(&mut self.good, &mut self.before);
        }
        (back, end)
    }
}
