//! What one model wrote to one prompt, with everything that was measured on it.

use ecr_core::seam::Reply;
use ecr_core::{ItemId, Utterance};
use ecr_data::catalogue::Catalogue;
use ecr_rewards::components::recommendation::named;
use ecr_rewards::composite::Breakdown;
use serde::{Deserialize, Serialize};

/// One reply; a line of a results file. Scores that were not taken are `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// Conversation of the prompt; resampling keeps a conversation together.
    pub conversation: u64,
    /// Turns before the reply.
    pub context: Vec<Utterance>,
    /// The reply.
    pub reply: String,
    /// Whether it ended by itself.
    pub finished: bool,
    /// Its length, tokens, the end token included.
    pub length: usize,
    /// The human reply.
    pub reference: Option<String>,
    /// Films that the human reply newly recommends, canonical ids.
    pub labels: Vec<ItemId>,
    /// Films that the reply newly names, canonical ids.
    pub named: Vec<ItemId>,
    /// Titles in the reply that no film bears, and unfilled slots.
    pub unknown: usize,
    /// Reward by the composite with raw components or a normaliser frozen on the baseline.
    pub reward: Option<Breakdown>,
    /// Score of the evaluation-only empathy scorer.
    pub empathy_eval: Option<f64>,
    /// Nearness to the human reply's levels of empathy (EPITOME), evaluation-only scorer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epitome_eval: Option<f64>,
    /// Sum over the reply's tokens of log π − log π_ref, nats.
    pub kl: Option<f64>,
    /// Quality critic's overall value.
    pub critic_value: Option<f64>,
    /// Likeliest emotion of the last seeker turn of the context, by the evaluation-only scorer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeker_emotion: Option<String>,
}

impl Example {
    /// The reply with the films that it names, no scores yet.
    pub fn new(catalogue: &Catalogue, reply: &Reply<'_>, conversation: u64) -> Self {
        let n = named(catalogue, reply);
        Self {
            conversation,
            context: reply.context.to_vec(),
            reply: reply.text.to_owned(),
            finished: reply.finished,
            length: reply.length,
            reference: reply.reference.map(str::to_owned),
            labels: reply.labels.iter().map(|l| catalogue.canonical(l.item)).collect(),
            named: n.new,
            unknown: n.unknown,
            reward: None,
            empathy_eval: None,
            epitome_eval: None,
            kl: None,
            critic_value: None,
            seeker_emotion: None,
        }
    }
}

/// Negative log-likelihood of the human turns of one dialogue.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReferenceNll {
    /// The dialogue.
    pub conversation: u64,
    /// Sum over its scored tokens, nats.
    pub nll: f64,
    /// Scored tokens.
    pub tokens: u64,
}

/// All that one model did in an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelRun {
    /// Name of the model, e.g. `baseline`.
    pub model: String,
    /// One entry a prompt, in the order of the prompts.
    pub examples: Vec<Example>,
    /// One entry a dialogue; may be empty.
    pub reference_nll: Vec<ReferenceNll>,
}
