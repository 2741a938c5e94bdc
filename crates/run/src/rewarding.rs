//! The training reward and what it is measured with.

use std::collections::BTreeMap;

use ecr_core::Result;
use ecr_core::seam::{Emotion, Purpose, Reply, Reward};
use ecr_data::records::Example;
use ecr_rewards::components::bleu::Bleu;
use ecr_rewards::components::distinct::Distinct;
use ecr_rewards::components::empathy::{Empathy, ResponseMap};
use ecr_rewards::components::format::Format;
use ecr_rewards::components::recommendation::{Recommendation, Settings};
use ecr_rewards::composite::{Composite, Mode, Weights};

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
    Composite::new(components, &weights, mode, Purpose::Train)
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
