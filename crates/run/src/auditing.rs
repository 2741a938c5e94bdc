//! `ecr reward audit`: the panel of hacks beside human replies on real contexts, under one reward.
//!
//! The normaliser is the run's own where it has one for this reward; otherwise it is fitted on human replies to
//! *other* contexts, which stand for a fluent policy that does not listen. Hacks are scored in mixed batches of a
//! rollout's size, each kind as rare in its batch as when a policy first finds it: being repeated by the whole batch
//! does not give it away. A hack fails the reward when the upper end of the paired 95 % interval of its mean less the
//! human mean (bootstrap over conversations) is not below 0.

use std::fmt::Write as _;

use ecr_core::seam::{Emotion as _, Reply};
use ecr_core::{Error, Result, io};
use ecr_data::records::Example;
use ecr_data::redial::Split;
use ecr_eval::Bootstrap;
use ecr_rewards::composite::{Breakdown, Composite, Mode, NormaliserState};
use ecr_rewards::panel::{HACKS, Material, ONLY_WITH_BLEU, hacks};
use serde::Serialize;

use crate::graph::Context;
use crate::rewarding::{Hints, composite_with, emotion, reply, response_map};
use crate::scorers::Remembering;
use crate::world::World;

/// One hack under one reward.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The hack.
    pub hack: &'static str,
    /// Contexts that have material for it.
    pub contexts: usize,
    /// Mean reward of the hack.
    pub mean: f64,
    /// Mean reward of the human replies on the same contexts.
    pub reference: f64,
    /// 95 % interval of the difference.
    pub interval: (f64, f64),
    /// Share of contexts where the hack outranks the human reply.
    pub outranks: f64,
    /// Mean weighted difference by component, the hack's less the reference's, largest first.
    pub parts: Vec<(String, f64)>,
    /// Whether the interval lies below 0.
    pub passed: bool,
}

/// The panel under one variant of the reward.
#[derive(Debug, Clone, Serialize)]
pub struct Panel {
    /// `all components`, or `without BLEU and label hits`.
    pub variant: &'static str,
    /// One row a hack.
    pub rows: Vec<Row>,
}

/// The result of an audit.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was audited.
    pub reward: String,
    /// Version of the composite.
    pub version: String,
    /// What the normaliser was fitted on.
    pub normaliser: &'static str,
    /// Contexts.
    pub contexts: usize,
    /// Human replies to which the gate is closed, where there is one.
    pub gate_closed_to_humans: usize,
    /// Both variants.
    pub panels: Vec<Panel>,
}

impl Report {
    /// Names of the hacks that are not below the human reply, with the variant.
    pub fn failures(&self) -> Vec<String> {
        let failed = |p: &Panel| {
            let v = p.variant;
            p.rows.iter().filter(|r| !r.passed).map(|r| format!("{} ({v})", r.hack)).collect::<Vec<_>>()
        };
        self.panels.iter().flat_map(failed).collect()
    }
    /// The report as a page.
    pub fn markdown(&self) -> String {
        let mut out = format!(
            "# Audit of {}\n\n{} test contexts; normaliser: {}. Gate closed to {} human replies.\n",
            self.reward, self.contexts, self.normaliser, self.gate_closed_to_humans
        );
        for p in &self.panels {
            let _ = write!(
                out,
                "\n## {}\n\n| hack | contexts | mean | human | difference, 95 % interval | outranks | best part | |\n\
                 |---|---:|---:|---:|---|---:|---|---|\n",
                p.variant
            );
            for r in &p.rows {
                let best = r.parts.first().map_or(String::new(), |(n, d)| format!("{n} {d:+.2}"));
                let _ = writeln!(
                    out,
                    "| {} | {} | {:+.3} | {:+.3} | {:+.3} ({:+.3} to {:+.3}) | {:.0} % | {best} | {} |",
                    r.hack,
                    r.contexts,
                    r.mean,
                    r.reference,
                    r.mean - r.reference,
                    r.interval.0,
                    r.interval.1,
                    100.0 * r.outranks,
                    if r.passed { "below" } else { "**not below**" },
                );
            }
        }
        out
    }
}

/// How much to audit.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Test contexts, seeded.
    pub contexts: usize,
    /// Bootstrap resamples.
    pub resamples: usize,
}

/// Audits the reward of the context's configuration on the prepared data and scorers of its run directory.
///
/// # Errors
/// Data: nothing prepared, scorers missing, no test context.
pub fn audit(cx: &Context, name: &str, size: Size) -> Result<Report> {
    let world = World::open(&cx.dir)?;
    let stream = cx.stream.child("audit");
    let mut cases: Vec<Example> = Vec::new();
    for d in world.dialogues(Split::Test, 0)? {
        cases.extend(ecr_data::records::examples(&d).into_iter().filter(|e| !e.context.is_empty()));
    }
    stream.child("contexts").rng().shuffle(&mut cases);
    cases.truncate(size.contexts);
    if cases.len() < 2 {
        return Err(Error::data("audit the reward").expected("test contexts").got(cases.len().to_string()));
    }
    // A reply to a context of another conversation: that of half the list away.
    let n = cases.len();
    let mismatched: Vec<Reply<'_>> = (0..n)
        .map(|i| {
            let text = cases[(i + n / 2) % n].reply.as_str();
            reply(&cases[i], text, true, tokens(text))
        })
        .collect();
    let scorer = Remembering::new(emotion(cx, "train")?);
    let texts = panel(cx, &world, &cases, scorer.clone(), stream)?;
    let mut panels = Vec::new();
    let (mut version, mut normaliser, mut closed) = (String::new(), "", 0);
    for (variant, hints) in [("all components", true), ("without BLEU and label hits", false)] {
        let hints = if hints { Hints::Keep } else { Hints::Drop };
        let mut reward = composite_with(cx, &world, Mode::Running, hints, Box::new(scorer.clone()))?;
        normaliser = fit(cx, &mut reward, &mismatched)?;
        if version.is_empty() {
            version = reward.version();
        }
        let has_bleu = reward.weights().any(|(n, w)| n == "bleu" && w > 0.0);
        let judged = |h: &str| h != ONLY_WITH_BLEU || has_bleu;
        let scored = score(cx, &mut reward, &cases, &texts)?;
        closed = scored.iter().filter(|s| s.0.gate.is_some()).count();
        let mut rows = Vec::new();
        for (h, hack) in HACKS.into_iter().enumerate().filter(|(_, h)| judged(h)) {
            let pairs: Vec<(u64, &Breakdown, &Breakdown)> = cases
                .iter()
                .zip(&scored)
                .filter_map(|(c, s)| Some((u64::from(c.conv_id), s.1[h].as_ref()?, &s.0)))
                .collect();
            if !pairs.is_empty() {
                rows.push(row(hack, &pairs, size.resamples, stream)?);
            }
        }
        panels.push(Panel { variant, rows });
    }
    Ok(Report {
        reward: name.into(),
        version,
        normaliser,
        contexts: n,
        gate_closed_to_humans: closed,
        panels,
    })
}

/// A rough length in tokens, the end token included: English has about four for every three words.
fn tokens(text: &str) -> usize {
    text.split_whitespace().count() * 4 / 3 + 1
}

/// The hacks of every case.
fn panel(
    cx: &Context,
    world: &World,
    cases: &[Example],
    mut scorer: Remembering,
    stream: ecr_core::Stream,
) -> Result<Vec<[Option<String>; 12]>> {
    let map = response_map(&cx.config);
    let seeker = |e: &Example| {
        e.context.iter().rfind(|u| u.role == ecr_core::Role::Seeker).map_or(String::new(), |u| u.text.clone())
    };
    let states: Vec<String> = cases.iter().map(seeker).collect();
    let states = scorer.distribution(&states.iter().map(String::as_str).collect::<Vec<_>>())?;
    let n = cases.len();
    let replies: Vec<&str> = cases.iter().map(|c| c.reply.as_str()).collect();
    let one = |(i, e): (usize, &Example)| {
        let target = map.target(&states[i]);
        let unfitting = (0..9).fold(4, |worst, l| if target[l] < target[worst] { l } else { worst });
        let mut others = replies.clone();
        others.rotate_left((i + n / 2) % n);
        others.truncate(n / 2);
        let m = Material {
            catalogue: &world.catalogue,
            others: &others,
            unfitting,
            stream: stream.child("hacks").at(i as u64),
        };
        hacks(&reply(e, "", true, 1), &m)
    };
    Ok(cases.iter().enumerate().map(one).collect())
}

/// Fits or loads the normaliser and freezes it.
fn fit(cx: &Context, reward: &mut Composite, mismatched: &[Reply<'_>]) -> Result<&'static str> {
    let path = cx.dir.rl_enhanced().join(crate::stages::NORMALISER_FILE);
    if path.exists() {
        let state: NormaliserState = serde_json::from_slice(&io::read(&path)?)
            .map_err(|e| Error::data(format!("read {}", path.display())).got(e.to_string()))?;
        if reward.set_state(state).is_ok() {
            reward.set_mode(Mode::Frozen);
            return Ok("the run's own, fitted on baseline rollouts");
        }
    }
    for part in mismatched.chunks(cx.config.ppo.batch_size.max(1)) {
        reward.score(part)?;
    }
    reward.set_mode(Mode::Frozen);
    Ok("fitted on human replies to other contexts")
}

/// Scores of a case: the human reply, and each hack where there is one.
type Scored = (Breakdown, [Option<Breakdown>; 12]);

fn score(
    cx: &Context,
    reward: &mut Composite,
    cases: &[Example],
    texts: &[[Option<String>; 12]],
) -> Result<Vec<Scored>> {
    let together = (cx.config.ppo.batch_size / (HACKS.len() + 1)).max(1);
    let longest = cx.config.eval.max_new;
    let mut out = Vec::with_capacity(cases.len());
    for (cases, texts) in cases.chunks(together).zip(texts.chunks(together)) {
        let mut batch = Vec::new();
        for (e, hacks) in cases.iter().zip(texts) {
            batch.push(reply(e, &e.reply, true, tokens(&e.reply)));
            for text in hacks.iter().flatten() {
                // A policy is cut off where the rollout ends.
                batch.push(reply(e, text, tokens(text) <= longest, tokens(text)));
            }
        }
        let mut scores = reward.score(&batch)?.into_iter();
        for hacks in texts {
            let mut next =
                || scores.next().ok_or_else(|| Error::internal("audit the reward").got("too few scores"));
            let human = next()?;
            let mut all: [Option<Breakdown>; 12] = std::array::from_fn(|_| None);
            for (slot, text) in all.iter_mut().zip(hacks) {
                if text.is_some() {
                    *slot = Some(next()?);
                }
            }
            out.push((human, all));
        }
    }
    Ok(out)
}

fn row(
    hack: &'static str,
    pairs: &[(u64, &Breakdown, &Breakdown)],
    resamples: usize,
    stream: ecr_core::Stream,
) -> Result<Row> {
    let n = pairs.len() as f64;
    let mean = |f: &dyn Fn(&(u64, &Breakdown, &Breakdown)) -> f64| pairs.iter().map(f).sum::<f64>() / n;
    let clusters: Vec<u64> = pairs.iter().map(|p| p.0).collect();
    let differences: Vec<f64> = pairs.iter().map(|p| p.1.total - p.2.total).collect();
    let draws = Bootstrap { resamples, stream: stream.child(hack) }.draw(&clusters)?;
    let interval = draws.interval(|times| {
        let all: f64 = times.iter().map(|&t| f64::from(t)).sum();
        let sum: f64 = differences.iter().zip(times).map(|(d, &t)| d * f64::from(t)).sum();
        (all > 0.0).then(|| sum / all)
    });
    let interval = interval.unwrap_or((f64::NEG_INFINITY, f64::INFINITY));
    let part = |b: &Breakdown, name: &str| b.part(name).and_then(|p| p.weighted).unwrap_or(0.0);
    let mut parts: Vec<(String, f64)> = pairs[0]
        .1
        .parts
        .iter()
        .map(|p| (p.name.clone(), mean(&|x| part(x.1, &p.name) - part(x.2, &p.name))))
        .collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    Ok(Row {
        hack,
        contexts: pairs.len(),
        mean: mean(&|p| p.1.total),
        reference: mean(&|p| p.2.total),
        interval,
        outranks: mean(&|p| f64::from(p.1.total >= p.2.total)),
        parts,
        passed: interval.1 < 0.0,
    })
}
