//! Does fitting the value function before PPO help, and does the critic's share of it? Three arms from the same baseline, seed by
//! seed: no warm start, returns of baseline rollouts, the critic's scores and then those returns. All arms draw the
//! same baseline rollouts and prompts.

use ecr_core::{Error, Result, io};
use serde::Serialize;
use serde_json::Value as Json;

use crate::config::Layers;
use crate::graph::{self, Plan};
use crate::log::Voice;
use crate::rundir::RunDir;
use crate::stages;

/// Values of `value.warm_start`, the reference first.
pub const ARMS: [&str; 3] = ["none", "returns", "critic_and_returns"];

/// What one run of PPO showed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Seed of the whole run.
    pub seed: u64,
    /// Value of `value.warm_start`.
    pub arm: String,
    /// Explained variance of the returns in the first fifth of the updates (at least one), before each update.
    pub explained_variance_start: f64,
    /// The same over all updates.
    pub explained_variance: f64,
    /// Variance of the mean reward a rollout of an update around its straight-line trend over the run.
    pub reward_variance: f64,
    /// Mean reward in the last fifth of the updates.
    pub final_reward: f64,
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len().max(1) as f64
}

fn variance(x: &[f64]) -> f64 {
    let m = mean(x);
    x.iter().map(|x| (x - m).powi(2)).sum::<f64>() / x.len().saturating_sub(1).max(1) as f64
}

/// Variance of `y` around its least-squares line over the index, `n - 2` degrees of freedom.
fn variance_around_trend(y: &[f64]) -> f64 {
    let n = y.len() as f64;
    if y.len() < 3 {
        return 0.0;
    }
    let (mx, my) = ((n - 1.0) / 2.0, mean(y));
    let (mut xy, mut xx) = (0.0, 0.0);
    for (i, y) in y.iter().enumerate() {
        xy += (i as f64 - mx) * (y - my);
        xx += (i as f64 - mx).powi(2);
    }
    let line = |i: usize| my + xy / xx * (i as f64 - mx);
    y.iter().enumerate().map(|(i, y)| (y - line(i)).powi(2)).sum::<f64>() / (n - 2.0)
}

/// Reads the log of a PPO run.
fn outcome(log: &[u8], seed: u64, arm: &str) -> Result<Outcome> {
    let bad = |what: String| Error::data("read logs/ppo.metrics.jsonl").got(what);
    let (mut explained, mut rewards) = (Vec::new(), Vec::new());
    for line in log.split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
        let record: Json = serde_json::from_slice(line).map_err(|e| bad(e.to_string()))?;
        let number = |key: &str| record[key].as_f64().ok_or_else(|| bad(format!("a record without {key}")));
        explained.push(number("val/explained_variance")?);
        rewards.push(number("objective/scores")?);
    }
    if rewards.is_empty() {
        return Err(bad("no record".into()));
    }
    let fifth = (rewards.len() / 5).max(1);
    Ok(Outcome {
        seed,
        arm: arm.into(),
        explained_variance_start: mean(&explained[..fifth]),
        explained_variance: mean(&explained),
        reward_variance: variance_around_trend(&rewards),
        final_reward: mean(&rewards[rewards.len() - fifth..]),
    })
}

/// Runs every arm for `seeds` seeds in `dir`, beginning with the seed that is set. An arm that was
/// finished there with the same settings is not run again.
pub fn run(layers: &Layers, dir: &RunDir, seeds: u64, plan: &Plan, voice: Voice) -> Result<Vec<Outcome>> {
    let first = layers.config()?.run.seed;
    let mut out = Vec::new();
    for seed in first..first + seeds {
        let run = RunDir::new(dir.join(&format!("seed-{seed}")));
        for arm in ARMS {
            let mut layers = layers.clone();
            layers.set(&format!("run.seed={seed}"))?;
            layers.set(&format!("value.warm_start={arm}"))?;
            let settings = serde_json::to_vec(&layers.config()?)
                .map_err(|e| Error::internal(format!("write a configuration: {e}")))?;
            let kept = run.join(&format!("{arm}-{}.metrics.jsonl", &io::blake3(&settings)[..12]));
            if plan.dry_run || !kept.exists() {
                voice.say(&format!("seed {seed}, warm start: {arm}"));
                graph::run(&stages::all(), &layers, run.clone(), plan, voice)?;
            }
            if plan.dry_run {
                continue;
            }
            if !kept.exists() {
                io::atomic_write(&kept, &io::read(&run.log("ppo.metrics.jsonl"))?)?;
            }
            out.push(outcome(&io::read(&kept)?, seed, arm)?);
        }
    }
    if plan.dry_run {
        return Ok(out);
    }
    let text = serde_json::to_vec_pretty(&out)
        .map_err(|e| Error::internal(format!("write the experiment's outcome: {e}")))?;
    io::atomic_write(&dir.join("critic_warmstart.json"), &text)?;
    io::atomic_write(&dir.join("critic_warmstart.md"), markdown(&out).as_bytes())?;
    Ok(out)
}

/// The outcome as a table: means over seeds, change against no warm start, and the range over seeds.
pub fn markdown(outcomes: &[Outcome]) -> String {
    let mut out = String::from(
        "| quantity | warm start | mean over seeds | lowest | highest | change against none |\n|---|---|---:|---:|---:|---:|\n",
    );
    type Field = fn(&Outcome) -> f64;
    let fields: [(&str, Field); 4] = [
        ("explained variance, first fifth", |o| o.explained_variance_start),
        ("explained variance, all updates", |o| o.explained_variance),
        ("variance of the mean reward around its trend", |o| o.reward_variance),
        ("reward, last fifth", |o| o.final_reward),
    ];
    let of = |arm: &str, f: Field| -> Vec<f64> { outcomes.iter().filter(|o| o.arm == arm).map(f).collect() };
    for (name, f) in fields {
        let base = mean(&of(ARMS[0], f));
        for arm in ARMS {
            let x = of(arm, f);
            let (low, high) = x.iter().fold((f64::MAX, f64::MIN), |(l, h), &v| (l.min(v), h.max(v)));
            let change = mean(&x) - base;
            out += &format!("| {name} | {arm} | {:.4} | {low:.4} | {high:.4} | {change:+.4} |\n", mean(&x));
        }
    }
    for arm in ARMS {
        let v = variance(&of(arm, |o| o.final_reward));
        out += &format!("| variance of the last reward over seeds | {arm} | {v:.4} | | | |\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trend_is_no_variance_and_noise_around_it_is() {
        let line: Vec<f64> = (0..20).map(|i| 0.3 * f64::from(i) - 1.0).collect();
        assert!(variance_around_trend(&line) < 1e-20);
        let noisy: Vec<f64> =
            line.iter().enumerate().map(|(i, y)| y + [0.5, -0.5, -0.5, 0.5][i % 4]).collect();
        let v = variance_around_trend(&noisy);
        assert!((v - 0.25 * 20.0 / 18.0).abs() < 0.01, "{v}");
    }

    #[test]
    fn an_outcome_is_read_from_the_log_and_arms_are_set_beside_none() {
        let log = |ev: f64| -> String {
            (0..10)
                .map(|i| {
                    let ev = if i < 2 { ev } else { 0.5 };
                    format!("{{\"step\":{i},\"val/explained_variance\":{ev},\"objective/scores\":{i}}}\n")
                })
                .collect()
        };
        let all: Vec<Outcome> = ARMS
            .iter()
            .zip([0.0, 0.1, 0.3])
            .map(|(arm, ev)| outcome(log(ev).as_bytes(), 1, arm).unwrap())
            .collect();
        assert!((all[2].explained_variance_start - 0.3).abs() < 1e-12);
        assert!((all[2].explained_variance - 0.46).abs() < 1e-12);
        assert_eq!(all[0].final_reward, 8.5);
        let text = markdown(&all);
        assert!(
            text.contains("first fifth | critic_and_returns | 0.3000 | 0.3000 | 0.3000 | +0.3000 |"),
            "{text}"
        );
        assert!(outcome(b"{\"step\":1}\n", 1, "none").is_err());
    }
}
