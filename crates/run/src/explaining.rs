//! `ecr reward explain`: where the reward of one reply comes from.

use std::fmt::Write as _;

use ecr_core::{Error, ItemId, Result, Utterance, io};
use ecr_data::records::Example;
use ecr_data::redial::Split;
use ecr_rewards::composite::{Mode, NormaliserState};
use serde::{Deserialize, Serialize};

use crate::graph::Context;
use crate::rewarding::{composite, reply};
use crate::world::World;

/// One component's share.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// Component.
    pub name: String,
    /// As scored; `None` = absent.
    pub raw: Option<f64>,
    /// After normalisation and clip.
    pub normalised: Option<f64>,
    /// Its weight.
    pub weight: f64,
    /// What it adds.
    pub weighted: Option<f64>,
    /// Its version.
    pub version: String,
    /// What the score rests on.
    pub notes: Vec<String>,
}

/// The reward of one reply.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The reply.
    pub response: String,
    /// The human reply, if known.
    pub reference: Option<String>,
    /// The turn before.
    pub last_turn: Option<String>,
    /// What normalises: the run's statistics, or nothing.
    pub normaliser: &'static str,
    /// All components.
    pub parts: Vec<Part>,
    /// Why the gate is closed.
    pub gate: Option<String>,
    /// The reward.
    pub total: f64,
    /// Version of the composite.
    pub version: String,
}

/// What a reply answers to.
#[derive(Debug, Clone)]
pub enum To {
    /// The nth recommender turn of the run's test dialogues (from 0; openings are left out).
    Record(usize),
    /// A conversation in a JSON file: `[{"role": "seeker", "text": "…"}, …]`, or an object with `context` and, if known,
    /// `reference`.
    File(std::path::PathBuf),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Conversation {
    Turns(Vec<Utterance>),
    #[serde(rename_all = "snake_case")]
    Record {
        context: Vec<Utterance>,
        #[serde(default)]
        reference: Option<String>,
    },
}

/// The example, and whether its human reply is known.
fn example(cx: &Context, world: &World, to: &To) -> Result<(Example, bool)> {
    match to {
        To::Record(n) => {
            let (mut at, mut seen) = (*n, 0);
            for d in world.dialogues(Split::Test, 0)? {
                let turns: Vec<Example> =
                    ecr_data::records::examples(&d).into_iter().filter(|e| !e.context.is_empty()).collect();
                seen += turns.len();
                match turns.into_iter().nth(at) {
                    Some(e) => return Ok((e, true)),
                    None => at = n - seen,
                }
            }
            Err(Error::config(format!("find record {n} of {}", cx.dir.root().display()))
                .expected(format!("a number below {seen}"))
                .got(n.to_string()))
        }
        To::File(path) => {
            let c: Conversation = serde_json::from_slice(&io::read(path)?).map_err(|e| {
                Error::data(format!("read the conversation in {}", path.display()))
                    .expected("[{\"role\": \"seeker\", \"text\": \"…\"}, …] or {\"context\": […], \"reference\": \"…\"}")
                    .got(e.to_string())
            })?;
            let (context, reference) = match c {
                Conversation::Turns(t) => (t, None),
                Conversation::Record { context, reference } => (context, reference),
            };
            let mut mentioned: Vec<ItemId> = Vec::new();
            for u in &context {
                for item in world.catalogue.items(&u.text) {
                    if !mentioned.contains(&item) {
                        mentioned.push(item);
                    }
                }
            }
            let known = reference.is_some();
            let reference = reference.unwrap_or_default();
            let fresh = world.catalogue.items(&reference).into_iter().filter(|i| !mentioned.contains(i));
            let labels: Vec<_> = fresh.map(|item| ecr_core::seam::Label { item, liked: None }).collect();
            let e = Example {
                conv_id: 0,
                turn_idx: context.len(),
                split: Split::Test,
                reply_slots: reference.clone(),
                reply: reference,
                recommending: !labels.is_empty(),
                context,
                labels,
                mentioned,
                rejected: Vec::new(),
            };
            Ok((e, known))
        }
    }
}

/// Explains the reward of a response (of the human reply, where none is given).
///
/// # Errors
/// Data: no such record, no such scorer; config: neither a response nor a human reply.
pub fn explain(cx: &Context, to: &To, response: Option<&str>) -> Result<Explanation> {
    let world = World::open(&cx.dir)?;
    let (e, known) = example(cx, &world, to)?;
    let response = match response {
        Some(r) => r.to_owned(),
        None if known => e.reply.clone(),
        None => return Err(Error::config("explain the reward").expected("--response TEXT").got("no reply")),
    };
    let mut reward = composite(cx, &world, Mode::None)?;
    let path = cx.dir.rl_enhanced().join(crate::stages::NORMALISER_FILE);
    let mut normaliser = "none: raw scores, the run has no statistics of this reward";
    if path.exists() {
        let state: NormaliserState = serde_json::from_slice(&io::read(&path)?)
            .map_err(|e| Error::data(format!("read {}", path.display())).got(e.to_string()))?;
        if reward.set_state(state).is_ok() {
            reward.set_mode(Mode::Frozen);
            normaliser = "the run's own, fitted on baseline rollouts";
        }
    }
    let mut r = reply(&e, &response, true, response.split_whitespace().count() * 4 / 3 + 1);
    r.reference = known.then_some(e.reply.as_str());
    // Explained first: a cached component tells whether it had the score before.
    let names: Vec<(&str, f64)> = reward.weights().collect();
    let mut notes = Vec::new();
    for (name, _) in &names {
        let c = reward.component(name).ok_or_else(|| Error::internal("explain the reward").got(*name))?;
        notes.push((c.version(), c.explain(&r)?));
    }
    let b = reward.score(&[r])?.pop().ok_or_else(|| Error::internal("explain the reward").got("no score"))?;
    let parts = b
        .parts
        .iter()
        .zip(names)
        .zip(notes)
        .map(|((p, (_, weight)), (version, notes))| Part {
            name: p.name.clone(),
            raw: p.raw,
            normalised: p.normalised,
            weight,
            weighted: p.weighted,
            version,
            notes,
        })
        .collect();
    Ok(Explanation {
        reference: known.then(|| e.reply.clone()),
        last_turn: e.context.last().map(|u| u.text.clone()),
        response,
        normaliser,
        parts,
        gate: b.gate,
        total: b.total,
        version: reward.version(),
    })
}

impl Explanation {
    /// The explanation as a page.
    pub fn text(&self) -> String {
        let number = |x: Option<f64>| x.map_or("absent".to_owned(), |x| format!("{x:+.3}"));
        let mut out = String::new();
        for (what, text) in [
            ("context", self.last_turn.as_deref()),
            ("human", self.reference.as_deref()),
            ("response", Some(self.response.as_str())),
        ] {
            let _ = writeln!(out, "{what:9} {}", text.unwrap_or("-"));
        }
        let _ = writeln!(out, "normaliser {}\n", self.normaliser);
        let _ = writeln!(
            out,
            "{:16} {:>8} {:>10} {:>7} {:>9}",
            "component", "raw", "normalised", "weight", "weighted"
        );
        for p in &self.parts {
            let _ = writeln!(
                out,
                "{:16} {:>8} {:>10} {:>7} {:>9}",
                p.name,
                number(p.raw),
                number(p.normalised),
                format!("{:.2}", p.weight),
                number(p.weighted)
            );
            for n in p.notes.iter().chain([&p.version]) {
                let _ = writeln!(out, "    {n}");
            }
        }
        if let Some(why) = &self.gate {
            let _ = writeln!(out, "gate closed: {why}");
        }
        let _ = writeln!(out, "reward {:+.4}", self.total);
        out
    }
}
