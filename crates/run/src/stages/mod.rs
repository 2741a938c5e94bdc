//! The stages of the pipeline, one file each, in order.

mod compare;
mod critic;
mod dpo;
mod emotion;
mod empathy;
mod eval;
mod group;
mod label;
mod macpo;
mod mappo;
mod ppo;
mod prepare;
mod sft;

use std::path::PathBuf;

use crate::config::Config;
use crate::graph::Stage;
use crate::rundir::RunDir;

pub use compare::{ALL_JSON, ALL_PAGE, compare_files, read_replies};
pub(crate) use critic::CRITIC_FILE;
pub(crate) use eval::REPLIES_FILE;
pub(crate) use ppo::NORMALISER_FILE;

/// All stages, in the order in which they run; optional ones only when asked for.
pub fn all() -> Vec<Box<dyn Stage>> {
    vec![
        Box::new(prepare::Prepare),
        Box::new(emotion::Emotion),
        Box::new(empathy::Empathy),
        Box::new(label::Label),
        Box::new(critic::Critic),
        Box::new(sft::Sft),
        Box::new(ppo::Ppo),
        Box::new(group::Group::Rloo),
        Box::new(group::Group::Grpo),
        Box::new(dpo::Dpo),
        Box::new(mappo::Mappo),
        Box::new(macpo::Macpo),
        Box::new(eval::Eval),
        Box::new(compare::Compare),
    ]
}

/// Names under which models are evaluated: the two of every run, and those of optional stages that exist in `dir`.
fn models(dir: &RunDir) -> Vec<&'static str> {
    let optional = all().into_iter().filter(|s| s.optional()).map(|s| s.name());
    eval::MODELS.into_iter().chain(optional.filter(|n| dir.model(n).exists())).collect()
}

/// Files of the policy's starting point: the pretrained model, or the tokenizer that a model from scratch needs.
fn policy_files(c: &Config, dir: &RunDir) -> Vec<PathBuf> {
    if c.policy.path.is_empty() {
        return vec![dir.data().join("tokenizer.json")];
    }
    let found = ecr_models::load::resolve_model(&c.policy.path, &crate::scorers::model_dirs());
    found.into_iter().collect()
}
