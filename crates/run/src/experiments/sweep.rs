//! Sweeps: settings tried on validation prompts, and which of them no other beats in everything (Pareto).

use std::path::Path;

use ecr_core::{Error, Result, Stream, io};
use ecr_eval::many::ComparisonAll;
use ecr_eval::names::info;
use serde::Serialize;

use super::spec::{Spec, Variant};
use super::study::{Study, json};
use crate::graph::Plan;
use crate::log::Voice;

/// A metric and which way is better.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Goal {
    /// The metric.
    pub metric: String,
    /// Whether more is better.
    pub up: bool,
}

impl Goal {
    /// `NAME`, `NAME:max` or `NAME:min`; the direction may be left out where the metric has one. KL has: less.
    ///
    /// # Errors
    /// Config: no such metric, or one without a better direction and none given.
    pub fn parse(text: &str) -> Result<Self> {
        let (metric, way) = text.split_once(':').unwrap_or((text, ""));
        let i = info(metric);
        let up = match way {
            "max" => Some(true),
            "min" => Some(false),
            "" if metric.starts_with("kl") => Some(false),
            "" => i.higher_is_better,
            _ => None,
        };
        match up {
            Some(up) if !i.about.is_empty() => Ok(Self { metric: metric.into(), up }),
            _ => Err(Error::config(format!("read the goal {text}"))
                .expected(
                    "a metric of comparison.json, with :max or :min where neither way is better in itself",
                )
                .got(format!("{text:?}"))
                .files("nothing was changed")),
        }
    }
}

/// Splits `key=rest`.
fn key(text: &str) -> Result<(&str, &str)> {
    text.split_once('=').filter(|(k, v)| k.contains('.') && !v.is_empty()).ok_or_else(|| {
        Error::config(format!("read the axis {text}"))
            .expected("section.key=values")
            .got(format!("{text:?}"))
            .files("nothing was changed")
    })
}

/// All combinations of `key=a,b,c`, each a list of assignments; the last axis varies fastest. A comma within brackets
/// belongs to its value.
///
/// # Errors
/// Config: an axis that is none.
pub fn grid(axes: &[String]) -> Result<Vec<Vec<String>>> {
    let mut points = vec![Vec::new()];
    for axis in axes {
        let (key, values) = key(axis)?;
        let (mut depth, mut parts) = (0, vec![String::new()]);
        for c in values.chars() {
            depth += i32::from(c == '[') - i32::from(c == ']');
            match parts.last_mut() {
                Some(part) if c != ',' || depth > 0 => part.push(c),
                _ => parts.push(String::new()),
            }
        }
        points = points
            .iter()
            .flat_map(|p| parts.iter().map(move |v| [p.as_slice(), &[format!("{key}={v}")]].concat()))
            .collect();
    }
    Ok(points)
}

/// `n` random points: `key=A..B` uniform, `key=log:A..B` uniform in the logarithm, `key=int:A..B` whole numbers, both ends
/// included. Point `i` does not depend on `n`.
///
/// # Errors
/// Config: an axis that is none, or bounds in the wrong order (above 0 for `log:`).
pub fn random(axes: &[String], n: usize, stream: Stream) -> Result<Vec<Vec<String>>> {
    let mut read = Vec::new();
    for axis in axes {
        let (key, text) = key(axis)?;
        let (kind, range) = text.split_once(':').unwrap_or(("", text));
        let ends =
            range.split_once("..").and_then(|(a, b)| Some((a.parse::<f64>().ok()?, b.parse::<f64>().ok()?)));
        match ends {
            Some((a, b)) if a <= b && ["", "log", "int"].contains(&kind) && (kind != "log" || a > 0.0) => {
                read.push((key, kind, a, b));
            }
            _ => {
                return Err(Error::config(format!("read the axis {axis}"))
                    .expected("key=A..B, key=log:A..B or key=int:A..B, A at most B")
                    .got(format!("{text:?}"))
                    .files("nothing was changed"));
            }
        }
    }
    let point = |i: usize| {
        let mut rng = stream.at(i as u64).rng();
        let draw = |&(key, kind, a, b): &(&str, &str, f64, f64)| {
            let u = rng.uniform();
            match kind {
                "log" => format!("{key}={}", short((a.ln() + u * (b.ln() - a.ln())).exp())),
                "int" => format!("{key}={}", (a + (u * (b - a + 1.0)).floor()).min(b)),
                _ => format!("{key}={}", short(a + u * (b - a))),
            }
        };
        read.iter().map(draw).collect()
    };
    Ok((0..n).map(point).collect())
}

/// Three significant digits: enough to repeat, short enough to read.
fn short(x: f64) -> f64 {
    format!("{x:.2e}").parse().unwrap_or(x)
}

/// A sweep.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Name of its directory and page.
    pub name: String,
    /// Preset or file that all runs begin with.
    pub base: String,
    /// Stage whose model is judged.
    pub stage: String,
    /// Assignments of each point.
    pub points: Vec<Vec<String>>,
    /// Training seeds.
    pub seeds: Vec<u64>,
    /// What is wanted.
    pub goals: Vec<Goal>,
    /// `key=value` over every run's settings.
    pub over: Vec<String>,
}

/// One point of a sweep, measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// Its directory.
    pub name: String,
    /// Its settings.
    pub set: Vec<String>,
    /// Means over seeds, by goal.
    pub values: Vec<f64>,
    /// Whether no other point is at least as good in every goal and better in one.
    pub best: bool,
}

/// What came out: `sweep.json`.
#[derive(Debug, Clone, Serialize)]
pub struct SweepOutcome {
    /// Version of the file, 1.
    pub version: u32,
    /// Split that the points were judged on.
    pub split: String,
    /// What was wanted.
    pub goals: Vec<Goal>,
    /// Values of the baseline, by goal.
    pub baseline: Vec<Option<f64>>,
    /// All points, those that none beats first, then by the first goal.
    pub points: Vec<Point>,
    /// Every metric of every point.
    pub comparison: ComparisonAll,
    /// Text of the page.
    #[serde(skip)]
    pub markdown: String,
}

impl Sweep {
    /// Trains every point on the shared baseline, judges it on validation prompts, writes `sweep.md` and `sweep.json`
    /// into `root`. `None` of a dry run.
    ///
    /// # Errors
    /// Those of the stages; Config before anything runs, if any point has a wrong setting.
    pub fn run(&self, root: &Path, plan: &Plan, voice: Voice) -> Result<Option<SweepOutcome>> {
        if self.points.is_empty() || self.goals.is_empty() {
            return Err(Error::config("sweep")
                .expected("at least one point and one goal")
                .got(format!("{} and {}", self.points.len(), self.goals.len()))
                .hint("--grid section.key=a,b,c or --random section.key=A..B --budget N"));
        }
        let study = self.study();
        for v in &study.spec.variants {
            study.spec.layers(v, self.seeds.first().copied().unwrap_or(1), &self.over)?;
        }
        let Some(o) = study.train(root, plan, voice)? else { return Ok(None) };
        let value = |m: &str, goal: &Goal| Some(o.comparison.metrics.get(&goal.metric)?.values.get(m)?.value);
        let mut points = Vec::new();
        for (v, set) in study.spec.variants.iter().zip(&self.points) {
            let name = study.spec.entry(v, &self.stage);
            let values: Option<Vec<f64>> = self.goals.iter().map(|g| value(&name, g)).collect();
            let values = values.ok_or_else(|| {
                Error::config("sweep").expected("goals that every point was measured by").got(v.name.clone())
            })?;
            points.push(Point { name: v.name.clone(), set: set.clone(), values, best: false });
        }
        rank(&mut points, &self.goals);
        let mut out = SweepOutcome {
            version: 1,
            split: "valid".into(),
            goals: self.goals.clone(),
            baseline: self.goals.iter().map(|g| value(super::study::REFERENCE, g)).collect(),
            points,
            comparison: o.comparison,
            markdown: String::new(),
        };
        out.markdown = self.page(&out);
        io::atomic_write(&root.join("sweep.json"), json(&out)?.as_bytes())?;
        io::atomic_write(&root.join("sweep.md"), out.markdown.as_bytes())?;
        Ok(Some(out))
    }
    /// The sweep as an experiment on validation prompts.
    fn study(&self) -> Study {
        // Names do not depend on how many points there are: a larger budget keeps the finished ones.
        let variant = |(i, set): (usize, &Vec<String>)| Variant {
            name: format!("point-{:03}", i + 1),
            set: set.clone(),
            stages: Vec::new(),
        };
        let spec = Spec {
            base: self.base.clone(),
            set: vec!["eval.split=valid".into()],
            seeds: self.seeds.clone(),
            stages: vec![self.stage.clone()],
            metrics: self.goals.iter().map(|g| g.metric.clone()).collect(),
            variants: self.points.iter().enumerate().map(variant).collect(),
            ..Spec::default()
        };
        Study { name: self.name.clone(), spec, over: self.over.clone() }
    }
    fn page(&self, o: &SweepOutcome) -> String {
        use std::fmt::Write as _;
        let mut s = format!(
            "# Sweep: {}\n\n{} points of `{}`, {} seed(s) each, judged on {} validation prompts. A star marks points \
             that no other beats in one goal without losing in another.\n\n",
            self.name,
            o.points.len(),
            self.stage,
            self.seeds.len(),
            o.comparison.prompts
        );
        let cell = |x: f64| format!(" {x:.4} |");
        let heads: Vec<String> = o
            .goals
            .iter()
            .map(|g| format!(" {} ({}) |", g.metric, if g.up { "more" } else { "less" }))
            .collect();
        // Writing to a String cannot fail.
        let _ = writeln!(s, "| | point | settings |{}", heads.concat());
        let _ = writeln!(s, "|---|---|---|{}", "---:|".repeat(o.goals.len()));
        for p in &o.points {
            let star = if p.best { "*" } else { "" };
            let values: String = p.values.iter().map(|v| cell(*v)).collect();
            let _ = writeln!(s, "| {star} | {} | `{}` |{values}", p.name, p.set.join("` `"));
        }
        let base: String = o.baseline.iter().map(|v| v.map_or_else(|| " |".into(), cell)).collect();
        let _ = writeln!(s, "| | baseline | |{base}");
        s.push_str(
            "\nThe best of many points looks better than it is: measure the choice anew on test prompts and other seeds \
             (`ecr run` with its settings, or an experiment). Points that differ in the reward's weights have different \
             `mean_reward`s, which cannot be compared.\n",
        );
        s
    }
}

impl SweepOutcome {
    /// Text of `sweep.json`.
    ///
    /// # Errors
    /// Internal: a number that JSON has no word for.
    pub fn json(&self) -> Result<String> {
        json(self)
    }
}

/// Marks the points that none beats and puts them first.
fn rank(points: &mut [Point], goals: &[Goal]) {
    let score = |p: &Point, i: usize| if goals[i].up { p.values[i] } else { -p.values[i] };
    let beats = |a: &Point, b: &Point| {
        (0..goals.len()).all(|i| score(a, i) >= score(b, i))
            && (0..goals.len()).any(|i| score(a, i) > score(b, i))
    };
    let best: Vec<bool> = points.iter().map(|p| !points.iter().any(|q| beats(q, p))).collect();
    points.iter_mut().zip(best).for_each(|(p, b)| p.best = b);
    points.sort_by(|a, b| {
        b.best.cmp(&a.best).then(score(b, 0).total_cmp(&score(a, 0))).then(a.name.cmp(&b.name))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(xs: &[&str]) -> Vec<String> {
        xs.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn grids_multiply_and_lists_stay_whole() {
        let g = grid(&texts(&["ppo.steps=1,2", "lora.targets=[\"q\",\"v\"],[]"])).unwrap();
        assert_eq!(g.len(), 4);
        assert_eq!(g[0], ["ppo.steps=1", "lora.targets=[\"q\",\"v\"]"]);
        assert_eq!(g[3], ["ppo.steps=2", "lora.targets=[]"]);
        assert_eq!(grid(&[]).unwrap(), [Vec::<String>::new()]);
        assert!(grid(&texts(&["steps=1"])).unwrap_err().to_string().contains("section.key"));
    }

    #[test]
    fn random_points_stay_in_range_and_more_of_them_begin_the_same() {
        let axes = texts(&["a.x=0.5..2", "a.y=log:1e-5..1e-2", "a.n=int:1..3"]);
        let points = random(&axes, 200, Stream::new(1)).unwrap();
        assert_eq!(points[..5], random(&axes, 5, Stream::new(1)).unwrap());
        let column = |i: usize| -> Vec<f64> {
            points.iter().map(|p| p[i].split_once('=').unwrap().1.parse().unwrap()).collect()
        };
        assert!(column(0).iter().all(|x| (0.5..=2.0).contains(x)));
        let below = column(1).iter().filter(|x| **x < 10f64.powf(-3.5)).count();
        assert!((70..130).contains(&below), "half of a log range lies below its middle: {below}");
        for n in [1.0, 2.0, 3.0] {
            assert!(column(2).contains(&n));
        }
        for bad in ["a.x=2..1", "a.x=log:0..1", "a.x=exp:1..2", "a.x=1"] {
            assert_eq!(random(&texts(&[bad]), 1, Stream::new(1)).unwrap_err().exit_code(), 2, "{bad}");
        }
    }

    #[test]
    fn the_front_by_hand() {
        let goals = [Goal::parse("empathy").unwrap(), Goal::parse("kl").unwrap()];
        assert!(goals[0].up && !goals[1].up);
        let point = |name: &str, e: f64, kl: f64| Point {
            name: name.into(),
            set: vec![],
            values: vec![e, kl],
            best: false,
        };
        let mut p = vec![
            point("far", 0.5, 9.0),
            point("beaten", 0.3, 4.0),
            point("near", 0.2, 1.0),
            point("middle", 0.4, 3.0),
            point("twin", 0.4, 3.0),
        ];
        rank(&mut p, &goals);
        let names: Vec<(&str, bool)> = p.iter().map(|p| (p.name.as_str(), p.best)).collect();
        assert_eq!(
            names,
            [("far", true), ("middle", true), ("twin", true), ("near", true), ("beaten", false)]
        );
        assert!(Goal::parse("length").is_err() && Goal::parse("length:min").is_ok());
        assert!(Goal::parse("empathie:max").is_err());
    }
}
