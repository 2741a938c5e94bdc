//! The training reward and what it is measured with.

use std::rc::Rc;
use std::time::Duration;

use ecr_core::seam::{Emotion, Purpose, Reply, Reward};
use ecr_core::{Error, Result};
use ecr_data::records::Example;
use ecr_rewards::cached::{Cached, ScoreStore};
use ecr_rewards::components::bleu::Bleu;
use ecr_rewards::components::critic::Critic;
use ecr_rewards::components::distinct::Distinct;
use ecr_rewards::components::empathy::{Empathy, ResponseMap};
use ecr_rewards::components::eos::Eos;
use ecr_rewards::components::epitome::{Epitome, Target};
use ecr_rewards::components::external::{self, External};
use ecr_rewards::components::format::Format;
use ecr_rewards::components::knowledge::Knowledge;
use ecr_rewards::components::length::Length;
use ecr_rewards::components::novelty::Novelty;
use ecr_rewards::components::own;
use ecr_rewards::components::recommendation::{Recommendation, Settings};
use ecr_rewards::components::relevance::Relevance;
use ecr_rewards::components::repetition::Repetition;
use ecr_rewards::components::wrong_moment::WrongMoment;
use ecr_rewards::composite::{Aggregation, Composite, Mode, Schedule, Weights};
use ecr_rewards::gate::Gate;
use serde_json::Value as Json;

use crate::cache::Cache;
use crate::config::Config;
use crate::graph::Context;
use crate::judges::{CriticHead, Embedder, LevelScorer};
use crate::scorers::{EmotionScorer, Scorer};
use crate::world::World;

/// Files of an emotion scorer: `model.safetensors`.
pub const SCORER_FILE: &str = "model";

/// The emotion scorer of this name (`train` or `evaluate`).
pub fn emotion(cx: &Context, name: &str) -> Result<EmotionScorer> {
    Ok(EmotionScorer(Scorer::load(&cx.dir.emotion(name), SCORER_FILE, cx.engine)?))
}

/// The evaluation-only empathy component.
pub fn empathy_eval(cx: &Context) -> Result<Empathy> {
    Ok(Empathy::evaluate(Box::new(emotion(cx, "evaluate")?), ResponseMap::standard()))
}

/// The classifier of EPITOME's levels of this name (`train` or `evaluate`).
fn levels(cx: &Context, name: &str) -> Result<LevelScorer> {
    LevelScorer::load(&cx.dir.empathy(name), cx.config.empathy.max_length, cx.engine)
}

/// The evaluation-only component of EPITOME's levels, where `ecr train empathy` has left its classifier.
pub fn epitome_eval(cx: &Context) -> Result<Option<Epitome>> {
    if !cx.dir.empathy("evaluate").exists() {
        return Ok(None);
    }
    let target = Target::parse(&cx.config.reward.epitome_target)?;
    Ok(Some(Epitome::evaluate(Box::new(levels(cx, "evaluate")?), target)))
}

/// Components that are always built, and those that are only with a weight above 0.
const ALWAYS: [&str; 5] = ["bleu", "distinct", "empathy", "recommendation", "format"];

/// Weights by component: of those that are always built, and of the others where they are above 0.
///
/// # Errors
/// Config: `reward.own` names a component that is not there, or gives no weight.
fn weights(config: &Config) -> Result<Weights> {
    let r = &config.reward;
    let mut all: Weights = [
        ("bleu", r.bleu),
        ("distinct", r.distinct),
        ("empathy", r.empathy),
        ("recommendation", r.recommendation),
        ("format", r.format),
        ("wrong_moment", r.wrong_moment),
        ("repetition", r.repetition),
        ("novelty", r.novelty),
        ("length", r.length),
        ("eos", r.eos),
        ("knowledge", r.knowledge),
        ("relevance", r.relevance),
        ("critic", r.critic),
        ("epitome", r.epitome),
        ("external", r.external),
    ]
    .map(|(n, w)| (n.to_string(), w))
    .into();
    for line in &r.own {
        let bad = || {
            let have: Vec<&str> = own::OWN.iter().map(|o| o.name).collect();
            Error::config("read reward.own")
                .expected(format!("NAME WEIGHT, NAME one of {}", have.join(", ")))
                .got(format!("{line:?}"))
        };
        let (name, weight) = line.split_once(' ').ok_or_else(bad)?;
        let own = own::find(name).ok_or_else(bad)?;
        all.insert(own.name.into(), weight.trim().parse().map_err(|_| bad())?);
    }
    // A weight that is no number is for the composite to refuse.
    all.retain(|n, w| ALWAYS.contains(&n.as_str()) || *w != 0.0);
    Ok(all)
}

/// The component of this name, over the run's data and models.
fn component(
    name: &str,
    cx: &Context,
    world: &World,
    hints: Hints,
    scorer: &mut Option<Box<dyn Emotion>>,
) -> Result<Box<dyn Reward>> {
    let r = &cx.config.reward;
    Ok(match name {
        "bleu" => Box::new(Bleu),
        "distinct" => Box::new(Distinct),
        "format" => Box::new(Format),
        "empathy" => {
            let scorer =
                scorer.take().ok_or_else(|| Error::internal("build the reward").got("two scorers"))?;
            Box::new(Empathy::train(scorer, response_map(&cx.config)))
        }
        "recommendation" => {
            let (catalogue, recommender) = (world.catalogue.clone(), world.recommender.clone());
            let c = Recommendation::new(catalogue, recommender, "co-occurrence", Settings::default());
            Box::new(if hints == Hints::Drop { c.without_label_hits() } else { c })
        }
        "wrong_moment" => Box::new(WrongMoment(world.catalogue.clone())),
        "repetition" => Box::new(Repetition),
        "novelty" => Box::<Novelty>::default(),
        "length" => Box::new(Length { least: r.length_least, most: r.length_most }),
        "eos" => Box::new(Eos),
        "knowledge" => Box::new(Knowledge::new(world.catalogue.clone())),
        "relevance" => Box::new(Relevance(Box::new(Embedder::load(&r.relevance_model, cx.engine)?))),
        "critic" => {
            let critic = Scorer::load(&cx.dir.critic(), crate::stages::CRITIC_FILE, cx.engine)?;
            Box::new(Critic(Box::new(CriticHead::new(critic, &r.critic_head, cx.config.critic.max_length)?)))
        }
        "epitome" => {
            Box::new(Epitome::train(Box::new(levels(cx, "train")?), Target::parse(&r.epitome_target)?))
        }
        "external" => Box::new(External::new(external_settings(&cx.config)?)?),
        other => match own::find(other) {
            Some(o) => (o.build)(),
            None => return Err(Error::internal("build the reward").got(format!("no component {other}"))),
        },
    })
}

fn external_settings(config: &Config) -> Result<external::Settings> {
    let r = &config.reward;
    if !(r.external_timeout > 0.0 && r.external_timeout < 1e6) {
        return Err(Error::config("read reward.external_timeout")
            .expected("seconds above 0")
            .got(r.external_timeout.to_string()));
    }
    Ok(external::Settings {
        command: r.external_command.clone(),
        range: (r.external_low, r.external_high),
        timeout: Duration::from_secs_f64(r.external_timeout),
        version: r.external_version.clone(),
    })
}

/// What the human reply has for nothing: the reference text and the labelled films.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hints {
    /// Score them, as training does.
    Keep,
    /// BLEU without weight, labelled films scored by rank: for audits.
    Drop,
}

/// How the seeker's emotion maps to that of a fitting reply, for the training scorer of a run.
pub fn response_map(config: &Config) -> ResponseMap {
    if config.data.source == "redial" {
        // GoEmotions knows neither nostalgia nor agreement: their mass goes to the labels that the scorer has.
        ResponseMap::standard().restricted([true, true, true, true, true, true, false, false, true])
    } else {
        ResponseMap::standard()
    }
}

/// The composite reward of a run.
pub fn composite(cx: &Context, world: &World, mode: Mode) -> Result<Composite> {
    composite_with(cx, world, mode, Hints::Keep, Box::new(emotion(cx, "train")?))
}

/// The composite reward over this emotion scorer, with or without what the human reply has for nothing.
pub fn composite_with(
    cx: &Context,
    world: &World,
    mode: Mode,
    hints: Hints,
    scorer: Box<dyn Emotion>,
) -> Result<Composite> {
    let mut weights = weights(&cx.config)?;
    if hints == Hints::Drop {
        weights.insert("bleu".into(), 0.0);
    }
    let cache: Option<Rc<dyn ScoreStore>> = match cx.config.reward.cache.as_str() {
        "" => None,
        path => Some(Rc::new(Cache::new(path))),
    };
    let mut scorer = Some(scorer);
    let optional = weights.keys().map(String::as_str).filter(|n| !ALWAYS.contains(n));
    let mut components: Vec<Box<dyn Reward>> = Vec::new();
    for name in ALWAYS.into_iter().chain(optional) {
        let c = component(name, cx, world, hints, &mut scorer)?;
        // What runs a model is worth looking up.
        let expensive = ["empathy", "relevance", "critic", "epitome"].contains(&name);
        components.push(match &cache {
            Some(store) if expensive => {
                let arithmetic = format!("{} on {}", cx.engine.name(), crate::graph::cpu_kind());
                Box::new(Cached::new(c, store.clone(), arithmetic))
            }
            _ => c,
        });
    }
    let r = &cx.config.reward;
    let mut reward = Composite::new(components, &weights, mode, Purpose::Train)?
        .aggregated(aggregation(&cx.config)?)?
        .scheduled(r.schedules.iter().map(|s| Schedule::parse(s)).collect::<Result<_>>()?)?;
    if r.gate {
        reward = reward.gated(Gate::new(world.catalogue.clone()));
    }
    Ok(reward)
}

/// What the configuration says of the aggregation.
///
/// # Errors
/// Config: an unknown name, or a constraint of another form than `NAME >= X`.
pub fn aggregation(config: &Config) -> Result<Aggregation> {
    let r = &config.reward;
    Ok(match r.aggregation.as_str() {
        "sum" => Aggregation::Sum,
        "sum_then_normalise" => Aggregation::SumThenNormalise,
        "worst_case" => Aggregation::WorstCase { of: r.ensemble.clone() },
        "constrained" => {
            let one = |line: &String| {
                let (name, bar) = line.split_once(">=").unwrap_or((line, ""));
                let bar = bar.trim().parse::<f64>().map_err(|_| {
                    Error::config("read reward.at_least").expected("NAME >= X").got(format!("{line:?}"))
                })?;
                Ok((name.trim().to_owned(), bar))
            };
            let at_least = r.at_least.iter().map(one).collect::<Result<_>>()?;
            Aggregation::Constrained { at_least, rate: r.multiplier_rate, most: r.multiplier_max }
        }
        other => {
            return Err(Error::config("read reward.aggregation")
                .expected("\"sum\", \"sum_then_normalise\", \"worst_case\" or \"constrained\"")
                .got(format!("{other:?}")));
        }
    })
}

/// The reward's part of a stage's settings: what is off is left out, so that a new option does not make a finished
/// stage stale.
pub fn settings(config: &Config) -> Json {
    let all = |r: &crate::config::Reward| serde_json::to_value(r).unwrap_or_default();
    let (mut mine, off) = (all(&config.reward), all(&crate::config::Reward::default()));
    if let Json::Object(map) = &mut mine {
        map.remove("cache");
        map.retain(|k, v| ALWAYS.contains(&k.as_str()) || *v != off[k]);
    }
    mine
}

/// A reply to an example as rewards see it.
pub fn reply<'a>(e: &'a Example, text: &'a str, finished: bool, length: usize) -> Reply<'a> {
    Reply {
        context: &e.context,
        text,
        finished,
        length,
        reference: Some(&e.reply),
        labels: &e.labels,
        mentioned: &e.mentioned,
        rejected: &e.rejected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_are_off_leave_settings_as_they_were() {
        let mut c = Config::default();
        let keys = |c: &Config| -> Vec<String> {
            settings(c).as_object().map(|m| m.keys().cloned().collect()).unwrap_or_default()
        };
        assert_eq!(keys(&c), ["bleu", "distinct", "empathy", "recommendation", "format"]);
        c.reward.cache = "somewhere.redb".into();
        c.reward.gate = true;
        assert_eq!(keys(&c), ["bleu", "distinct", "empathy", "recommendation", "format", "gate"]);
    }

    #[test]
    fn only_what_has_a_weight_is_built() {
        let mut c = Config::default();
        c.reward.knowledge = 0.5;
        c.reward.own = vec!["safety 0.25".into()];
        let w = weights(&c).unwrap();
        let names: Vec<&str> = w.keys().map(String::as_str).collect();
        assert_eq!(names, ["bleu", "distinct", "empathy", "format", "knowledge", "recommendation", "safety"]);
        assert_eq!((w["knowledge"], w["safety"]), (0.5, 0.25));
        for bad in ["safety", "saftey 1", "safety x"] {
            c.reward.own = vec![bad.into()];
            assert!(weights(&c).unwrap_err().to_string().contains("safety"), "{bad}");
        }
    }

    #[test]
    fn aggregations_are_read() {
        let mut c = Config::default();
        assert_eq!(aggregation(&c).unwrap(), Aggregation::Sum);
        c.reward.aggregation = "constrained".into();
        c.reward.at_least = vec!["distinct >= 0.8".into()];
        let Aggregation::Constrained { at_least, .. } = aggregation(&c).unwrap() else { panic!() };
        assert_eq!(at_least["distinct"], 0.8);
        c.reward.at_least = vec!["distinct 0.8".into()];
        assert!(aggregation(&c).is_err());
        c.reward.aggregation = "mean".into();
        assert!(aggregation(&c).unwrap_err().to_string().contains("worst_case"));
    }
}
