//! `rloo` and `grpo`: critic-free baselines of PPO, on the same rewards, prompts and reference. Optional stages: they
//! belong to a run that names them in `run.also`, or that `ecr train rloo|grpo` extends.

use std::path::PathBuf;

use ecr_algos::Metrics;
use ecr_algos::grpo::grpo_step;
use ecr_algos::rloo::rloo_step;
use ecr_algos::rollout::Rollout;
use ecr_algos::update::UpdateState;
use ecr_core::seam::{Decoding, Policy};
use ecr_core::{Params, Result, Stream};
use ecr_data::redial::Split;
use ecr_rewards::composite::{Mode, NormaliserState};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::curriculum::Curriculum;
use crate::graph::{Context, Stage};
use crate::lm::Lm;
use crate::rewarding::composite;
use crate::rundir::RunDir;
use crate::sampler::{Sampler, choose};
use crate::selecting::{Seen, Selector};
use crate::world::{Choices, World};

/// A group method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Rloo,
    Grpo,
}

/// What a checkpoint holds besides parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    update: UpdateState,
    normaliser: NormaliserState,
    /// As it was fitted on the baseline, and the looks at validation by it.
    baseline_normaliser: NormaliserState,
    seen: Seen,
    log_len: u64,
    samples_len: u64,
}

/// What both methods are told alike.
struct Plan {
    steps: u64,
    batch_size: usize,
    group_size: usize,
    temperature: f64,
    state: UpdateState,
}

impl Group {
    fn plan(self, c: &Config) -> Plan {
        let (r, g) = (&c.rloo, &c.grpo);
        match self {
            Self::Rloo => Plan {
                steps: r.steps,
                batch_size: r.batch_size,
                group_size: r.group_size,
                temperature: r.temperature,
                state: r.state(),
            },
            Self::Grpo => Plan {
                steps: g.steps,
                batch_size: g.batch_size,
                group_size: g.group_size,
                temperature: g.temperature,
                state: g.state(),
            },
        }
    }
    fn step(
        self,
        c: &Config,
        policy: &mut dyn Policy,
        (student, reference): (&mut Params, &Params),
        rollouts: &[Rollout],
        decoding: Decoding<'_>,
        state: &mut UpdateState,
        stream: Stream,
        step: u64,
    ) -> Result<Metrics> {
        match self {
            Self::Rloo => {
                rloo_step(policy, student, reference, rollouts, decoding, &c.rloo, state, stream, step)
            }
            Self::Grpo => {
                grpo_step(policy, student, reference, rollouts, decoding, &c.grpo, state, stream, step)
            }
        }
    }
}

impl Stage for Group {
    fn name(&self) -> &'static str {
        match self {
            Self::Rloo => "rloo",
            Self::Grpo => "grpo",
        }
    }
    fn optional(&self) -> bool {
        true
    }
    fn settings(&self, c: &Config) -> Json {
        let own = match self {
            Self::Rloo => json!(c.rloo),
            Self::Grpo => json!(c.grpo),
        };
        json!([
            own,
            c.select,
            (c.curriculum != Default::default()).then_some(&c.curriculum),
            crate::rewarding::settings(c),
            c.value.rollouts,
            c.policy,
            c.lora,
            c.eval.max_new,
            c.run.seed,
            c.run.precision,
            c.run.log_all
        ])
    }
    fn inputs(&self, c: &Config, dir: &RunDir) -> Vec<PathBuf> {
        let mut files = super::policy_files(c, dir);
        files.extend([dir.data().join("processed"), dir.baseline(), dir.emotion("train")]);
        if c.select.every > 0 {
            files.push(dir.emotion("evaluate"));
        }
        files
    }
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf> {
        vec![dir.model(self.name())]
    }

    fn run(&self, cx: &mut Context) -> Result<()> {
        let c = cx.config.clone();
        let (name, plan) = (self.name(), self.plan(&c));
        let world = World::open(&cx.dir)?;
        let lm = Lm::open(&c, &cx.dir, cx.engine)?;
        let reference = lm.load(&cx.dir.baseline())?;
        let choices = Choices::load(&cx.dir.baseline())?;
        let prompting = world.prompting(&c, &lm, choices.candidates);
        let prompts = world.prompts(&prompting, &world.dialogues(Split::Train, 0)?)?;
        let curriculum = Curriculum::new(&c.curriculum, &prompts)?;
        let mut sampler = Sampler {
            lm: &lm,
            generator: lm.generator(c.eval.batch)?,
            decoding: Decoding { temperature: plan.temperature as f32, ..Decoding::plain(c.eval.max_new) },
            reward: composite(cx, &world, Mode::Running)?,
        };
        let stream = cx.stream.child(name);
        let mut student = Params::from_data(reference.layout.clone(), reference.data.clone());
        student.make_trainable();

        let mut best = student.snapshot();
        let names = &["student", "best_student"][..if c.select.every > 0 { 2 } else { 1 }];
        let checkpoints = cx.checkpoints(name);
        let (mut done, mut state);
        match checkpoints.latest(|w| cx.voice.warn(w))? {
            Some(found) => {
                state = found.state::<State>()?;
                found.restore("student", &mut student)?;
                if c.select.every > 0 {
                    found.restore("best_student", &mut best)?;
                }
                sampler.reward.set_state(state.normaliser.clone())?;
                done = found.step - 1;
            }
            None => {
                // Rewards are normalised by what the baseline earns, as in PPO.
                let stream = stream.child("normaliser");
                let which = choose(prompts.len(), c.value.rollouts, stream.child("prompts"));
                cx.voice.say(&format!("{name}: {} baseline rollouts to normalise the reward", which.len()));
                sampler.sample(&reference, &prompts, &which, stream.child("rollout"))?;
                let normaliser = sampler.reward.state().clone();
                state = State {
                    update: plan.state,
                    normaliser: normaliser.clone(),
                    baseline_normaliser: normaliser,
                    seen: Seen::default(),
                    log_len: 0,
                    samples_len: 0,
                };
                done = 0;
                let all: Vec<_> = names.iter().copied().zip([&student, &best]).collect();
                checkpoints.save(1, &state, &all)?;
            }
        }
        let mut selector = match c.select.every {
            0 => None,
            _ => Some(Selector::new(cx, &world, &prompting, stream)?),
        };

        let mut policy = lm.policy();
        let mut log = cx.log(&format!("{name}.metrics.jsonl"), state.log_len)?;
        let mut samples = cx.log(&format!("{name}.samples.jsonl"), state.samples_len)?;
        let mut progress = cx.progress(name, plan.steps, done);
        while done < plan.steps {
            let mut look = match &mut selector {
                Some(s) if done.is_multiple_of(c.select.every) => {
                    let look = s.look(&mut sampler, &state.baseline_normaliser, &student, done)?;
                    Some((look, student.snapshot()))
                }
                _ => None,
            };
            let groups = plan.batch_size / plan.group_size.max(1);
            let which = curriculum.choose(done, groups, plan.group_size, stream.child("prompts").at(done));
            let batch = sampler.sample(&student, &prompts, &which, stream.child("rollout").at(done))?;
            let metrics = self.step(
                &c,
                &mut policy,
                (&mut student, &reference),
                &batch.rollouts,
                sampler.decoding,
                &mut state.update,
                stream,
                done,
            )?;
            let mut record = batch.record(done, &metrics, &sampler.reward);
            if let Some((look, _)) = &mut look {
                look.describe(&metrics, &mut record);
            }
            log.write(&record)?;
            if let Some((look, looked_at)) = look
                && state.seen.take(look, &c.select)
            {
                best = looked_at;
            }
            let shown = if c.run.log_all { batch.texts.len() } else { 2 };
            for i in 0..shown.min(batch.texts.len()) {
                samples.write(&batch.sample_line(i, done, &prompts[which[i]].0))?;
            }
            done += 1;
            progress.tick(&format!(
                "reward {:.3} KL {:.2}",
                metrics.get("objective/scores").unwrap_or(0.0),
                metrics.get("objective/kl").unwrap_or(0.0)
            ));
            let stop = cx.interrupted();
            if (stop || done.is_multiple_of(c.run.checkpoint_every)) && done < plan.steps {
                state.normaliser = sampler.reward.state().clone();
                (state.log_len, state.samples_len) = (log.sync()?, samples.sync()?);
                let all: Vec<_> = names.iter().copied().zip([&student, &best]).collect();
                checkpoints.save(done + 1, &state, &all)?;
                if stop {
                    return Err(cx.stopped(name, done, plan.steps));
                }
            }
        }
        drop(progress);
        if let Some(selector) = &mut selector {
            let last = selector.look(&mut sampler, &state.baseline_normaliser, &student, done)?;
            if !state.seen.take(last, &c.select) {
                student = best;
            }
            state.seen.conclude(cx, name)?;
        }
        let dir = cx.dir.model(name);
        lm.save(&dir, &student)?;
        choices.save(&dir)?;
        cx.note("rollouts", plan.steps * plan.batch_size as u64);
        Ok(())
    }
}
