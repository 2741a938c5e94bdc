//! What the metrics of an alignment run say about it: findings with their evidence, and the preset that may help.
//!
//! | code | finding | preset |
//! |---|---|---|
//! | D1 | unstable updates: guard alarms, skipped minibatches, a clip that holds much of the batch, mean ratios over 2 | `remedy-instability` |
//! | D2 | the reward does not rise, by a straight line through all updates | `remedy-reward` |
//! | D3 | the value function explains nothing | `remedy-critic` |
//! | D4 | entropy collapses, or replies become the same | `remedy-instability` |
//! | D5 | fewer replies end by themselves, or their length drifts: the reward is being gamed | `remedy-instability` |
//! | D6 | a component falls while the total rises, or never varies | `remedy-reward` |
//!
//! Where memory is short, `remedy-memory` gives the same results with less of it.

use serde::Serialize;
use serde_json::{Map, Value as Json};

/// Something to know about a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// D1 to D6.
    pub code: &'static str,
    /// What.
    pub finding: String,
    /// The numbers that say so.
    pub evidence: String,
    /// Preset to lay over the settings.
    pub preset: &'static str,
}

/// Fewest updates of which anything is said.
pub const FEWEST: usize = 6;

/// A metric over the updates that have it.
fn series(records: &[Map<String, Json>], name: &str) -> Vec<f64> {
    records.iter().filter_map(|r| r.get(name)?.as_f64()).collect()
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len().max(1) as f64
}

/// Means of the first and the last third.
fn thirds(x: &[f64]) -> (f64, f64) {
    let n = (x.len() / 3).max(1);
    (mean(&x[..n]), mean(&x[x.len() - n..]))
}

/// Slope of the least-squares line over updates and its t statistic; `None` for fewer than [`FEWEST`] points.
pub fn trend(y: &[f64]) -> Option<(f64, f64)> {
    let n = y.len();
    if n < FEWEST {
        return None;
    }
    let (mx, my) = ((n - 1) as f64 / 2.0, mean(y));
    let sxx: f64 = (0..n).map(|i| (i as f64 - mx).powi(2)).sum();
    let sxy: f64 = y.iter().enumerate().map(|(i, v)| (i as f64 - mx) * (v - my)).sum();
    let slope = sxy / sxx;
    let rest: f64 = y.iter().enumerate().map(|(i, v)| (v - my - slope * (i as f64 - mx)).powi(2)).sum();
    let error = (rest / (n - 2) as f64 / sxx).sqrt();
    Some((slope, if error > 0.0 { slope / error } else { f64::INFINITY * slope.signum() }))
}

/// The findings of one algorithm's metrics, in the order of their codes.
pub fn diagnose(records: &[Map<String, Json>]) -> Vec<Finding> {
    let mut out = Vec::new();
    let mut say = |code, finding: &str, evidence: String, preset| {
        out.push(Finding { code, finding: finding.into(), evidence, preset });
    };
    if records.len() < FEWEST {
        return out;
    }
    let of = |name: &str| series(records, name);

    let alarms: Vec<String> = records
        .iter()
        .filter_map(|r| r.get("guard/alarms")?.as_array())
        .flatten()
        .filter_map(|a| Some(a.as_str()?.to_owned()))
        .collect();
    let skipped = of("updates/skipped").last().copied().unwrap_or(0.0);
    let clipped = mean(&of("policy/clipfrac_avg"));
    let ratio = of("val/ratio").into_iter().fold(0.0, f64::max);
    if !alarms.is_empty() || skipped > 0.0 || clipped > 0.3 || ratio > 2.0 {
        let evidence = format!(
            "guard alarms {}; {skipped} non-finite minibatches; clip fraction {clipped:.2}; largest mean ratio {ratio:.2}",
            if alarms.is_empty() { "none".to_owned() } else { alarms.join(", ") }
        );
        say("D1", "updates are unstable", evidence, "remedy-instability");
    }

    let scores = of("objective/scores");
    let rises = trend(&scores);
    if let Some((slope, t)) = rises
        && t < 2.0
    {
        let (first, last) = thirds(&scores);
        let evidence =
            format!("slope {slope:+.4} an update (t = {t:.1}), first third {first:.3}, last third {last:.3}");
        say("D2", "the reward does not measurably rise", evidence, "remedy-reward");
    }

    let explained = of("val/explained_variance");
    if explained.len() >= FEWEST {
        let (first, last) = thirds(&explained);
        if last < 0.02 {
            let evidence = format!("explained variance {first:.3} in the first third, {last:.3} in the last");
            say("D3", "the value function is no better than a constant", evidence, "remedy-critic");
        }
    }

    let entropy = of("policy/entropy_avg");
    let unique = of("unique_responses");
    if entropy.len() >= FEWEST && unique.len() >= FEWEST {
        let ((e0, e1), (_, u1)) = (thirds(&entropy), thirds(&unique));
        if e1 < 0.4 * e0 || u1 < 0.5 {
            let evidence = format!(
                "entropy a token {e0:.2} then {e1:.2}; {:.0} % of replies differ at the end",
                100.0 * u1
            );
            say("D4", "the policy collapses onto few replies", evidence, "remedy-instability");
        }
    }

    let (ends, lengths) = (of("eos_rate"), of("response_length/mean"));
    if ends.len() >= FEWEST && lengths.len() >= FEWEST {
        let ((e0, e1), (l0, l1)) = (thirds(&ends), thirds(&lengths));
        if e1 < e0 - 0.05 || l1 > 1.5 * l0 || l1 * 1.5 < l0 {
            let evidence = format!("{e0:.2} then {e1:.2} of replies end; length {l0:.1} then {l1:.1} tokens");
            say("D5", "replies change their form: read the samples", evidence, "remedy-instability");
        }
    }

    let components: std::collections::BTreeSet<String> = records
        .iter()
        .flat_map(|r| r.keys())
        .filter_map(|k| Some(k.strip_prefix("rewards/")?.strip_suffix("/raw")?.to_owned()))
        .collect();
    for name in components {
        let raw = of(&format!("rewards/{name}/raw"));
        let spread = raw.iter().map(|x| (x - mean(&raw)).powi(2)).sum::<f64>();
        if raw.len() >= FEWEST && spread < 1e-18 {
            say("D6", &format!("{name} never varies"), format!("always {:.4}", mean(&raw)), "remedy-reward");
        } else if let (Some((slope, t)), Some((_, total))) = (trend(&raw), rises)
            && t < -2.0
            && total > 2.0
        {
            let evidence =
                format!("slope {slope:+.5} an update (t = {t:.1}) while the total rises (t = {total:.1})");
            say("D6", &format!("{name} falls while the total rises"), evidence, "remedy-reward");
        }
    }
    out
}

/// A point of the trade between reward and distance from the baseline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Updates done.
    pub update: u64,
    /// KL to the baseline, nats a reply.
    pub kl: f64,
    /// Mean reward of replies to validation prompts.
    pub reward: f64,
    /// Their distinct-2, over all of them.
    pub distinct_2: f64,
    /// Whether no other point has as much reward at as little KL.
    pub on_frontier: bool,
}

/// The reward–KL frontier: one point a look at validation (`select.every`).
pub fn frontier(records: &[Map<String, Json>]) -> Vec<Point> {
    let of = |r: &Map<String, Json>, name: &str| r.get(name).and_then(Json::as_f64);
    let mut points: Vec<Point> = records
        .iter()
        .filter_map(|r| {
            Some(Point {
                update: r.get("step")?.as_u64()?,
                kl: of(r, "objective/kl")?,
                reward: of(r, "valid/reward")?,
                distinct_2: of(r, "valid/distinct_2")?,
                on_frontier: false,
            })
        })
        .collect();
    for i in 0..points.len() {
        let p = &points[i];
        let beaten = points
            .iter()
            .any(|q| q.kl <= p.kl && q.reward >= p.reward && (q.kl < p.kl || q.reward > p.reward));
        points[i].on_frontier = !beaten;
    }
    points
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(f: impl Fn(usize) -> Json) -> Vec<Map<String, Json>> {
        (0..12).filter_map(|i| f(i).as_object().cloned()).collect()
    }
    fn codes(f: &[Finding]) -> Vec<&str> {
        f.iter().map(|f| f.code).collect()
    }
    fn healthy(i: usize) -> Json {
        let noise = if i.is_multiple_of(2) { 0.05 } else { -0.05 };
        json!({
            "objective/scores": 0.1 * i as f64 + noise, "val/explained_variance": 0.1, "policy/entropy_avg": 2.0,
            "unique_responses": 1.0, "eos_rate": 0.99, "response_length/mean": 20.0, "policy/clipfrac_avg": 0.02,
            "val/ratio": 1.01, "updates/skipped": 0, "guard/alarms": [],
            "rewards/empathy/raw": 0.5 + 0.01 * i as f64 + 0.1 * noise, "rewards/bleu/raw": 0.1 + noise,
        })
    }

    #[test]
    fn a_healthy_run_has_no_finding_and_a_short_one_none_either() {
        assert_eq!(diagnose(&run(healthy)), []);
        assert_eq!(diagnose(&run(healthy)[..5]), []);
    }

    #[test]
    fn each_trouble_is_named_by_its_code() {
        let with = |key: &'static str, f: &dyn Fn(usize) -> Json| {
            let records = run(|i| {
                let mut r = healthy(i);
                r[key] = f(i);
                r
            });
            codes(&diagnose(&records)).join(" ")
        };
        assert_eq!(with("guard/alarms", &|i| if i == 3 { json!(["G2"]) } else { json!([]) }), "D1");
        assert_eq!(with("updates/skipped", &|i| json!(i)), "D1");
        assert_eq!(with("objective/scores", &|i| json!(if i.is_multiple_of(2) { 1.0 } else { -1.0 })), "D2");
        assert_eq!(with("val/explained_variance", &|i| json!(0.2 - 0.05 * i as f64)), "D3");
        assert_eq!(with("policy/entropy_avg", &|i| json!(2.0 / (1 + i) as f64)), "D4");
        assert_eq!(with("eos_rate", &|i| json!(1.0 - 0.03 * i as f64)), "D5");
        assert_eq!(
            with("rewards/empathy/raw", &|i| json!(1.0 - 0.02 * i as f64 - if i == 2 { 0.01 } else { 0.0 })),
            "D6"
        );
        assert_eq!(with("rewards/bleu/raw", &|_| json!(0.3)), "D6");
    }

    #[test]
    fn the_frontier_is_what_nothing_beats_in_both() {
        let looks = [(0, 0.0, 0.1), (4, 1.0, 0.5), (8, 2.0, 0.4), (12, 1.5, 0.9)];
        let mut records: Vec<Map<String, Json>> = run(healthy);
        for (step, kl, reward) in looks {
            records[step as usize % 12] = json!({
                "step": step, "objective/kl": kl, "valid/reward": reward, "valid/distinct_2": 0.5
            })
            .as_object()
            .cloned()
            .unwrap();
        }
        // The last look takes the place of the first: three remain, one of which another beats.
        let points = frontier(&records);
        let on: Vec<(u64, bool)> = points.iter().map(|p| (p.update, p.on_frontier)).collect();
        assert_eq!(on, [(12, true), (4, true), (8, false)]);
    }

    #[test]
    fn a_line_has_the_slope_and_t_of_the_textbook() {
        // y = 0 1 2 3 4 9: slope 1.5714, t 3.5933 (worked by hand: sxx 17.5, rest 13.3905).
        let (slope, t) = trend(&[0.0, 1.0, 2.0, 3.0, 4.0, 9.0]).unwrap();
        assert!((slope - 1.571_428).abs() < 1e-5, "{slope}");
        let rest: f64 = [0.0, 1.0, 2.0, 3.0, 4.0, 9.0]
            .iter()
            .enumerate()
            .map(|(i, y)| (y - 19.0 / 6.0 - slope * (i as f64 - 2.5)).powi(2))
            .sum();
        assert!((t - slope / (rest / 4.0 / 17.5).sqrt()).abs() < 1e-9);
        assert!(trend(&[1.0; 5]).is_none());
    }
}
