//! Replies of a policy to prompts, scored: what PPO learns from and what the choice of a prompt's form looks at.

use ecr_algos::Metrics;
use ecr_algos::rollout::Rollout;
use ecr_core::seam::{Completion, Decoding, Generator};
use ecr_core::{Params, Result, Stream};
use ecr_data::records::Example;
use ecr_models::generate::LlamaGenerator;
use ecr_rewards::composite::{Breakdown, Composite};
use serde_json::{Value as Json, json};

use crate::lm::Lm;
use crate::rewarding::reply;

/// Draws replies and scores them.
pub struct Sampler<'a> {
    /// The language model.
    pub lm: &'a Lm,
    /// Its decoder.
    pub generator: LlamaGenerator,
    /// How replies are drawn.
    pub decoding: Decoding<'static>,
    /// What scores them.
    pub reward: Composite,
}

/// Replies with their rewards.
pub struct Batch {
    /// Prompts, responses and total rewards.
    pub rollouts: Vec<Rollout>,
    /// Replies as text.
    pub texts: Vec<String>,
    /// Rewards in parts.
    pub breakdowns: Vec<Breakdown>,
}

/// `n` prompts of `total`, seeded.
pub fn choose(total: usize, n: usize, stream: Stream) -> Vec<usize> {
    let mut draws = stream.rng();
    (0..n).map(|_| draws.below(total)).collect()
}

impl Sampler<'_> {
    /// One reply to each of `which` prompts; `stream` names the draws.
    pub fn sample(
        &mut self,
        params: &Params,
        prompts: &[(Example, Vec<u32>)],
        which: &[usize],
        stream: Stream,
    ) -> Result<Batch> {
        let tokens: Vec<Vec<u32>> = which.iter().map(|&i| prompts[i].1.clone()).collect();
        let streams: Vec<Stream> = (0..which.len()).map(|i| stream.at(i as u64)).collect();
        let done: Vec<Completion> = self.generator.generate(params, &tokens, self.decoding, &streams)?;
        let texts = done.iter().map(|d| self.lm.text(&d.tokens)).collect::<Result<Vec<_>>>()?;
        let replies: Vec<_> = which
            .iter()
            .zip(&texts)
            .zip(&done)
            .map(|((&i, text), d)| reply(&prompts[i].0, text, d.finished, d.tokens.len()))
            .collect();
        let breakdowns = self.reward.score(&replies)?;
        let rollouts = done
            .into_iter()
            .zip(tokens)
            .zip(&breakdowns)
            .map(|((d, prompt), b)| Rollout {
                prompt,
                response: d.tokens,
                finished: d.finished,
                score: b.total,
            })
            .collect();
        Ok(Batch { rollouts, texts, breakdowns })
    }
}

impl Batch {
    /// The metrics record of an update on this batch.
    pub fn record(&self, step: u64, metrics: &Metrics, reward: &Composite) -> serde_json::Map<String, Json> {
        let mut record = serde_json::Map::new();
        record.insert("step".into(), step.into());
        metrics.iter().for_each(|(k, v)| {
            record.insert(k.to_string(), json!(v));
        });
        self.describe(reward, &mut record);
        record
    }
    /// Reply `i` with its reward in parts, for the log of samples.
    pub fn sample_line(&self, i: usize, step: u64, example: &Example) -> Json {
        json!({
            "step": step, "conv_id": example.conv_id, "turn": example.turn_idx,
            "reply": self.texts[i], "reward": self.breakdowns[i],
        })
    }
    /// Means of each component, raw, normalised and weighted, over the replies to which it applies. Where training
    /// changes weights, those of the next batch; with a gate, the share of replies to which it was closed.
    fn describe(&self, reward: &Composite, record: &mut serde_json::Map<String, Json>) {
        let mean = |xs: Vec<f64>| {
            if xs.is_empty() { Json::Null } else { json!(xs.iter().sum::<f64>() / xs.len() as f64) }
        };
        for (name, _) in reward.weights() {
            let part = |f: &dyn Fn(&ecr_rewards::composite::Part) -> Option<f64>| -> Json {
                mean(self.breakdowns.iter().filter_map(|b| b.part(name).and_then(f)).collect())
            };
            record.insert(format!("rewards/{name}/raw"), part(&|p| p.raw));
            record.insert(format!("rewards/{name}/normalised"), part(&|p| p.normalised));
            record.insert(format!("rewards/{name}/weighted"), part(&|p| p.weighted));
        }
        if reward.is_adaptive() {
            for ((name, _), weight) in reward.weights().zip(reward.current_weights()) {
                record.insert(format!("rewards/{name}/weight"), json!(weight));
            }
        }
        if reward.is_gated() {
            let closed = self.breakdowns.iter().filter(|b| b.gate.is_some()).count();
            record
                .insert("rewards/gate_closed".into(), json!(closed as f64 / self.texts.len().max(1) as f64));
        }
        // Each reply's own, for distributions.
        let totals: Vec<f64> = self.breakdowns.iter().map(|b| b.total).collect();
        let lengths: Vec<usize> = self.rollouts.iter().map(|r| r.response.len()).collect();
        record.insert("rewards/total".into(), json!(totals));
        record.insert("response_lengths".into(), json!(lengths));
        let unique: std::collections::BTreeSet<&String> = self.texts.iter().collect();
        record.insert("unique_responses".into(), json!(unique.len() as f64 / self.texts.len().max(1) as f64));
    }
}
