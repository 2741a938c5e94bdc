//! The training reward and what it is measured with.

use std::collections::BTreeMap;

use ecr_core::seam::{Emotion, Purpose, Reply, Reward};
use ecr_core::{Error, Result};
use ecr_data::records::Example;
use ecr_rewards::components::bleu::Bleu;
use ecr_rewards::components::distinct::Distinct;
use ecr_rewards::components::empathy::{Empathy, ResponseMap};
use ecr_rewards::components::format::Format;
use ecr_rewards::components::recommendation::{Recommendation, Settings};
use ecr_rewards::composite::{Aggregation, Composite, Mode, Schedule, Weights};
use ecr_rewards::gate::Gate;
use serde_json::Value as Json;

use crate::config::Config;
use crate::graph::Context;
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

fn weights(config: &Config) -> Weights {
    let r = &config.reward;
    BTreeMap::from(
        [
            ("bleu", r.bleu),
            ("distinct", r.distinct),
            ("empathy", r.empathy),
            ("recommendation", r.recommendation),
            ("format", r.format),
        ]
        .map(|(n, w)| (n.to_string(), w)),
    )
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
    let mut recommendation = Recommendation::new(
        world.catalogue.clone(),
        world.recommender.clone(),
        "co-occurrence",
        Settings::default(),
    );
    let mut weights = weights(&cx.config);
    if hints == Hints::Drop {
        weights.insert("bleu".into(), 0.0);
        recommendation = recommendation.without_label_hits();
    }
    let components: Vec<Box<dyn Reward>> = vec![
        Box::new(Bleu),
        Box::new(Distinct),
        Box::new(Empathy::train(scorer, response_map(&cx.config))),
        Box::new(recommendation),
        Box::new(Format),
    ];
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
    const ALWAYS: [&str; 5] = ["bleu", "distinct", "empathy", "recommendation", "format"];
    let all = |r: &crate::config::Reward| serde_json::to_value(r).unwrap_or_default();
    let (mut mine, off) = (all(&config.reward), all(&crate::config::Reward::default()));
    if let Json::Object(map) = &mut mine {
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
        c.reward.gate = true;
        assert_eq!(keys(&c), ["bleu", "distinct", "empathy", "recommendation", "format", "gate"]);
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
