//! Which student is kept: looks at replies to validation prompts while PPO goes on, the baseline's first, and of the
//! states seen the one of the greatest mean reward that stays within limits.
//!
//! Reward is measured as the comparison does it: normaliser fitted on the baseline and frozen, batches of a rollout's
//! size, and the same prompts and random streams at each look. Test data is not touched.

use ecr_algos::Metrics;
use ecr_core::{Params, Result, Stream, io};
use ecr_data::records::Example;
use ecr_data::redial::Split;
use ecr_rewards::components::empathy::Empathy;
use ecr_rewards::composite::{Mode, NormaliserState};
use ecr_rewards::text::distinct::Distinct;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use crate::config::Select;
use crate::graph::Context;
use crate::prompting::Prompting;
use crate::rewarding::{empathy_eval, reply};
use crate::sampler::Sampler;
use crate::world::World;

/// What a look saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// Updates done.
    pub update: u64,
    /// Mean reward.
    pub reward: f64,
    /// Distinct-2 over all replies.
    pub distinct_2: f64,
    /// Share of replies that ended by themselves.
    pub eos_rate: f64,
    /// Mean empathy by the evaluation-only scorer, of the replies to which it applies.
    pub empathy_eval: f64,
    /// Mean length, tokens.
    pub length: f64,
    /// KL to the baseline of the same state on its training rollouts, nats a reply; not known of the last state, which has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl: Option<f64>,
}

impl Look {
    /// Takes the KL from the update that began with the same state and adds the look to its record, as `valid/NAME`.
    pub fn describe(&mut self, metrics: &Metrics, record: &mut Map<String, Json>) {
        self.kl = metrics.get("objective/kl");
        let Ok(Json::Object(all)) = serde_json::to_value(&*self) else { return };
        let mine = all.into_iter().filter(|(k, _)| !["update", "kl"].contains(&k.as_str()));
        record.extend(mine.map(|(k, v)| (format!("valid/{k}"), v)));
    }
    fn within(&self, first: &Self, s: &Select) -> bool {
        self.distinct_2 >= s.distinct_2 * first.distinct_2 && self.eos_rate >= s.eos_rate * first.eos_rate
    }
}

/// Looks at states that were not thrown away, and which of them is best; belongs into checkpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// In order; the first is the baseline's.
    pub looks: Vec<Look>,
    /// Which of them is kept.
    pub best: usize,
}

impl Seen {
    /// Takes a look; says whether its state is the best so far.
    pub fn take(&mut self, look: Look, s: &Select) -> bool {
        self.looks.push(look);
        let rank = |l: &Look| (l.within(&self.looks[0], s), l.reward);
        // A later one of the same rank is not better.
        let mut best = 0;
        for (i, l) in self.looks.iter().enumerate() {
            if rank(l) > rank(&self.looks[best]) {
                best = i;
            }
        }
        self.best = best;
        best + 1 == self.looks.len()
    }
    /// What the run says of it.
    pub fn report(&self, s: &Select) -> Json {
        let looks: Vec<Json> = self
            .looks
            .iter()
            .map(|l| {
                let mut one = json!(l);
                one["within_limits"] = json!(l.within(&self.looks[0], s));
                one
            })
            .collect();
        json!({ "kept_update": self.looks.get(self.best).map(|l| l.update), "looks": looks })
    }
    /// Ends the stage `name`: writes `logs/NAME.selection.json` and says which student is kept.
    ///
    /// # Errors
    /// Io: the file cannot be written.
    pub fn conclude(&self, cx: &mut Context, name: &str) -> Result<()> {
        let report = self.report(&cx.config.select);
        let text = serde_json::to_vec_pretty(&report).unwrap_or_default();
        let file = format!("{name}.selection.json");
        io::atomic_write(&cx.dir.log(&file), &text)?;
        let kept = &report["kept_update"];
        cx.voice.say(&format!("{name}: the student after {kept} updates is kept (logs/{file})"));
        if kept == 0 {
            let why = "no student was better on validation within the limits: it is the baseline";
            cx.voice.warn(&format!("{name}: {why}"));
        }
        cx.note("kept_update", kept.clone());
        Ok(())
    }
}

/// Looks at students.
pub struct Selector {
    prompts: Vec<(Example, Vec<u32>)>,
    empathy: Empathy,
    batch: usize,
    stream: Stream,
}

impl Selector {
    /// With seeded validation prompts and the evaluation-only empathy scorer of the run.
    ///
    /// # Errors
    /// Data: unreadable validation dialogues or scorer.
    pub fn new(cx: &Context, world: &World, prompting: &Prompting, stream: Stream) -> Result<Self> {
        let stream = stream.child("select");
        let mut prompts = world.prompts(prompting, &world.dialogues(Split::Valid, 0)?)?;
        stream.child("prompts").rng().shuffle(&mut prompts);
        prompts.truncate(cx.config.select.prompts.max(1));
        Ok(Self { prompts, empathy: empathy_eval(cx)?, batch: cx.config.ppo.batch_size, stream })
    }
    /// Looks at `student` after `update` updates. `normaliser` is the baseline's; the sampler's own is left as it was.
    ///
    /// # Errors
    /// Of sampling and scoring.
    pub fn look(
        &mut self,
        sampler: &mut Sampler<'_>,
        normaliser: &NormaliserState,
        student: &Params,
        update: u64,
    ) -> Result<Look> {
        let running = sampler.reward.state().clone();
        sampler.reward.set_state(normaliser.clone())?;
        sampler.reward.set_mode(Mode::Frozen);
        let seen = self.replies(sampler, student);
        sampler.reward.set_mode(Mode::Running);
        sampler.reward.set_state(running)?;
        let (texts, rewards, ended, tokens, empathy) = seen?;
        let mean = |xs: &[f64]| xs.iter().sum::<f64>() / xs.len().max(1) as f64;
        let n = texts.len() as f64;
        let all: Vec<&str> = texts.iter().map(String::as_str).collect();
        Ok(Look {
            update,
            reward: mean(&rewards),
            distinct_2: Distinct::new(&all, 2).ratio(&vec![1; all.len()]).unwrap_or(0.0),
            eos_rate: ended as f64 / n,
            empathy_eval: mean(&empathy),
            length: tokens as f64 / n,
            kl: None,
        })
    }
    /// Replies, rewards, how many ended, tokens of all, evaluation-only empathy where it applies.
    #[allow(clippy::type_complexity)]
    fn replies(
        &mut self,
        sampler: &mut Sampler<'_>,
        student: &Params,
    ) -> Result<(Vec<String>, Vec<f64>, usize, usize, Vec<f64>)> {
        let (mut texts, mut rewards, mut ended, mut tokens, mut empathy) = (vec![], vec![], 0, 0, vec![]);
        let all: Vec<usize> = (0..self.prompts.len()).collect();
        for (k, which) in all.chunks(self.batch.max(1)).enumerate() {
            let batch =
                sampler.sample(student, &self.prompts, which, self.stream.child("replies").at(k as u64))?;
            let replies: Vec<_> = which
                .iter()
                .zip(&batch.texts)
                .zip(&batch.rollouts)
                .map(|((&i, text), r)| reply(&self.prompts[i].0, text, r.finished, r.response.len()))
                .collect();
            empathy.extend(ecr_core::seam::Reward::score(&mut self.empathy, &replies)?.into_iter().flatten());
            ended += batch.rollouts.iter().filter(|r| r.finished).count();
            tokens += batch.rollouts.iter().map(|r| r.response.len()).sum::<usize>();
            rewards.extend(batch.rollouts.iter().map(|r| r.score));
            texts.extend(batch.texts);
        }
        Ok((texts, rewards, ended, tokens, empathy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(update: u64, reward: f64, distinct_2: f64, eos_rate: f64) -> Look {
        Look { update, reward, distinct_2, eos_rate, empathy_eval: 0.5, length: 10.0, kl: None }
    }

    #[test]
    fn the_best_within_limits_is_kept() {
        let s = Select { every: 1, distinct_2: 0.9, eos_rate: 0.9, ..Select::default() };
        let mut seen = Seen::default();
        assert!(seen.take(look(0, 0.0, 0.6, 1.0), &s));
        assert!(seen.take(look(2, 1.0, 0.55, 0.95), &s));
        assert!(!seen.take(look(4, 2.0, 0.53, 1.0), &s), "too little distinct");
        assert!(!seen.take(look(6, 2.0, 0.6, 0.8), &s), "does not end");
        assert!(!seen.take(look(8, 1.0, 0.6, 1.0), &s), "no better");
        assert_eq!(seen.report(&s)["kept_update"], 2);
        assert_eq!(seen.report(&s)["looks"][2]["within_limits"], false);
        // Where every student is worse, the baseline stays.
        let mut seen = Seen::default();
        seen.take(look(0, 0.0, 0.6, 1.0), &s);
        assert!(!seen.take(look(2, -1.0, 0.6, 1.0), &s));
        assert_eq!(seen.report(&s)["kept_update"], 0);
    }
}
