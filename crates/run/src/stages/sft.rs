//! `sft`: the supervised baseline (weak teacher). Loss on every recommender turn, early stopping by validation
//! loss; whether the prompt lists the recommender's candidates is chosen on validation, by loss or by the reward of the
//! best of a few sampled replies (a list costs likelihood, since people seldom name its films, and yet lets a small model
//! name any).

use std::path::PathBuf;

use ecr_algos::rollout::Rollout;
use ecr_algos::sft::{Cursor, EarlyStopping, epoch_batches, sft_step};
use ecr_core::optim::{AdamW, Schedule};
use ecr_core::seam::Decoding;
use ecr_core::{Packed, Params, Result, Stream};
use ecr_data::redial::{Dialogue, Split};
use ecr_models::Llama;
use ecr_rewards::composite::Mode;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::graph::{Context, Stage};
use crate::lm::Lm;
use crate::log::JsonLog;
use crate::measure::{batches, mean_nll, nll};
use crate::prompting::{Window, pack};
use crate::rewarding::composite;
use crate::rundir::RunDir;
use crate::sampler::{Sampler, choose};
use crate::world::{Choices, World};

pub(super) struct Sft;

/// What a checkpoint holds besides parameters.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    /// Trials made.
    trials: Vec<Trial>,
    /// Steps of the trial under way.
    trial_step: u64,
    /// Steps of training.
    step: u64,
    cursor: Cursor,
    early: Option<EarlyStopping>,
    log_len: u64,
}

/// What a trial came to on validation.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Trial {
    candidates: usize,
    nll: f64,
    /// Mean raw reward of the best sampled replies, where that chooses.
    reward: Option<f64>,
}

impl Trial {
    /// Lower is better.
    fn cost(&self) -> f64 {
        self.reward.map_or(self.nll, |r| -r)
    }
}

/// Whether trials are compared by reward.
fn by_reward(c: &Config) -> bool {
    c.sft.trial_replies > 0 && c.sft.candidates.parse::<usize>().is_err()
}

impl Stage for Sft {
    fn name(&self) -> &'static str {
        "sft"
    }
    fn settings(&self, c: &Config) -> Json {
        let reward = by_reward(c).then(|| (crate::rewarding::settings(c), c.ppo.temperature));
        json!([c.sft, c.policy, c.lora, c.eval.max_new, c.run.seed, c.run.precision, reward])
    }
    fn inputs(&self, c: &Config, dir: &RunDir) -> Vec<PathBuf> {
        let mut files = super::policy_files(c, dir);
        files.push(dir.data().join("processed"));
        if by_reward(c) {
            files.push(dir.emotion("train"));
        }
        files
    }
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf> {
        vec![dir.baseline()]
    }

    fn run(&self, cx: &mut Context) -> Result<()> {
        let c = cx.config.clone();
        let world = World::open(&cx.dir)?;
        let lm = Lm::open(&c, &cx.dir, cx.engine)?;
        let train = world.dialogues(Split::Train, 0)?;
        let valid = world.dialogues(Split::Valid, c.sft.valid_dialogues)?;
        let mut job =
            Job { lm: &lm, policy: lm.policy(), world: &world, train, valid, state: State::default() };
        let checkpoints = cx.checkpoints("sft");
        let found = checkpoints.latest(|w| cx.voice.warn(w))?;
        if let Some(f) = &found {
            job.state = f.state()?;
        }
        let mut log = cx.log("sft.metrics.jsonl", job.state.log_len)?;

        // Trials: the same few steps with and without candidates, compared on validation.
        let options: Vec<usize> = match c.sft.candidates.parse() {
            Ok(n) => vec![n],
            Err(_) => vec![0, c.sft.max_candidates],
        };
        while options.len() > 1 && job.state.trials.len() < options.len() {
            let n = options[job.state.trials.len()];
            let trial = job.trial(cx, &mut log, n, found.as_ref())?;
            job.state.trials.push(trial);
            job.state.trial_step = 0;
            job.state.log_len = log.sync()?;
            checkpoints.save(job.number(&c), &job.state, &[])?;
        }
        for t in &job.state.trials {
            cx.note(&format!("trial_valid_nll_{}_candidates", t.candidates), t.nll);
            if let Some(reward) = t.reward {
                cx.note(&format!("trial_valid_reward_{}_candidates", t.candidates), reward);
            }
        }
        let best = job.state.trials.iter().min_by(|a, b| a.cost().total_cmp(&b.cost())).map(|t| t.candidates);
        let candidates = best.unwrap_or(options[0]);
        cx.note("candidates", candidates);

        let (params, best_loss) = job.train(cx, &mut log, candidates, found.as_ref())?;
        cx.note("valid_nll", best_loss);
        if lm.is_pretrained() {
            let prompting = world.prompting(&c, &lm, candidates);
            let windows = world.windows(&prompting, &job.valid)?;
            let rows = nll(&mut job.policy, &lm.untrained(), &windows, c.sft.micro_batch_tokens)?;
            cx.note("valid_nll_untrained", mean_nll(&rows));
        }
        let dir = cx.dir.baseline();
        lm.save(&dir, &params)?;
        Choices { candidates }.save(&dir)
    }
}

struct Job<'a> {
    lm: &'a Lm,
    policy: Llama,
    world: &'a World,
    train: Vec<Dialogue>,
    valid: Vec<Dialogue>,
    state: State,
}

/// Batches of windows of one epoch.
fn plan(windows: &[Window], batch_size: usize, stream: Stream, epoch: u64) -> Vec<Vec<usize>> {
    epoch_batches(&vec![1; windows.len()], batch_size, stream, epoch)
}

/// Cuts a batch into forward passes.
fn micro_batches(windows: &[Window], which: &[usize], budget: usize) -> Vec<Packed> {
    let lengths: Vec<usize> = which.iter().map(|&i| windows[i].tokens.len()).collect();
    let take = |r: std::ops::Range<usize>| pack(&which[r].iter().map(|&i| &windows[i]).collect::<Vec<_>>());
    batches(&lengths, budget).into_iter().map(take).collect()
}

impl Job<'_> {
    fn adam(c: &Config) -> AdamW {
        AdamW { weight_decay: c.sft.weight_decay, ..AdamW::default() }
    }
    fn windows(&self, cx: &Context, candidates: usize, dialogues: &[Dialogue]) -> Result<Vec<Window>> {
        self.world.windows(&self.world.prompting(&cx.config, self.lm, candidates), dialogues)
    }

    /// Number of the checkpoint of the current state: steps of trials and training, in the order made.
    fn number(&self, c: &Config) -> u64 {
        self.state.trials.len() as u64 * c.sft.trial_steps + self.state.trial_step + self.state.step
    }

    /// A short training with `candidates`, and what it comes to on validation.
    fn trial(
        &mut self,
        cx: &Context,
        log: &mut JsonLog,
        candidates: usize,
        found: Option<&Checkpoint>,
    ) -> Result<Trial> {
        let c = &cx.config;
        let stream = cx.stream.child("sft");
        let train = self.windows(cx, candidates, &self.train)?;
        let valid = self.windows(cx, candidates, &self.valid)?;
        let mut params = self.lm.fresh(stream.child("init"));
        let total = c.sft.trial_steps;
        let mut batch_plan = plan(&train, c.sft.batch_size, stream, 0);
        let mut cursor = Cursor::default();
        let begun = self.state.trial_step;
        if begun > 0
            && let Some(f) = found
        {
            f.restore("policy", &mut params)?;
            (0..begun).for_each(|_| cursor.advance(batch_plan.len()));
            batch_plan = plan(&train, c.sft.batch_size, stream, cursor.epoch);
        }
        let name = format!("sft trial {candidates}");
        let mut progress = cx.progress(&name, total, begun);
        for step in begun..total {
            let lr =
                c.sft.learning_rate * Schedule::Linear.factor(step, c.sft.warmup_steps.min(total / 4), total);
            let parts = micro_batches(&train, &batch_plan[cursor.batch], c.sft.micro_batch_tokens);
            let s = sft_step(&mut self.policy, &mut params, &parts, &Self::adam(c), lr, c.sft.max_grad_norm)?;
            log.write(&json!({"trial": candidates, "step": step, "loss": s.loss}))?;
            let epoch = cursor.epoch;
            cursor.advance(batch_plan.len());
            if cursor.epoch != epoch {
                batch_plan = plan(&train, c.sft.batch_size, stream, cursor.epoch);
            }
            self.state.trial_step = step + 1;
            let stop = cx.interrupted();
            if (stop || (step + 1).is_multiple_of(c.run.checkpoint_every)) && step + 1 < total {
                self.state.log_len = log.sync()?;
                cx.checkpoints("sft").save(self.number(c), &self.state, &[("policy", &params)])?;
                if stop {
                    return Err(cx.stopped(&name, step + 1, total));
                }
            }
            progress.tick(&format!("loss {:.3}", s.loss));
        }
        drop(progress);
        let loss = mean_nll(&nll(&mut self.policy, &params, &valid, c.sft.micro_batch_tokens)?);
        let reward = if by_reward(c) { Some(self.reward(cx, candidates, &params)?) } else { None };
        Ok(Trial { candidates, nll: loss, reward })
    }

    /// Mean raw reward of the best replies to seeded validation prompts, the same for every trial.
    fn reward(&self, cx: &Context, candidates: usize, params: &Params) -> Result<f64> {
        let c = &cx.config;
        let prompting = self.world.prompting(c, self.lm, candidates);
        let prompts = self.world.prompts(&prompting, &self.world.dialogues(Split::Valid, 0)?)?;
        let stream = cx.stream.child("sft").child("trial replies");
        let best_of = c.sft.trial_best_of.max(1);
        let which: Vec<usize> = choose(prompts.len(), c.sft.trial_replies, stream.child("prompts"))
            .into_iter()
            .flat_map(|p| std::iter::repeat_n(p, best_of))
            .collect();
        let mut sampler = Sampler {
            lm: self.lm,
            generator: self.lm.generator(c.eval.batch)?,
            decoding: Decoding { temperature: c.ppo.temperature as f32, ..Decoding::plain(c.eval.max_new) },
            reward: composite(cx, self.world, Mode::None)?,
        };
        let batch = sampler.sample(params, &prompts, &which, stream.child("rollout"))?;
        let best = |answers: &[Rollout]| answers.iter().map(|r| r.score).fold(f64::NEG_INFINITY, f64::max);
        Ok(batch.rollouts.chunks(best_of).map(best).sum::<f64>() / c.sft.trial_replies as f64)
    }

    /// Trains to the end or to early stopping; the best parameters and their validation loss.
    fn train(
        &mut self,
        cx: &mut Context,
        log: &mut JsonLog,
        candidates: usize,
        found: Option<&Checkpoint>,
    ) -> Result<(Params, f64)> {
        let c = cx.config.clone();
        let stream = cx.stream.child("sft");
        let train = self.windows(cx, candidates, &self.train)?;
        let valid = self.windows(cx, candidates, &self.valid)?;
        cx.note("train_windows", train.len());
        cx.note("train_tokens", train.iter().map(|w| w.tokens.len()).sum::<usize>());
        let mut params = self.lm.fresh(stream.child("init"));
        let mut best = params.frozen_copy();
        let checkpoints = cx.checkpoints("sft");
        if let Some(f) = found
            && self.state.step > 0
        {
            f.restore("policy", &mut params)?;
            f.restore("best", &mut best)?;
        }
        let mut early = self.state.early.take().unwrap_or_else(|| EarlyStopping::new(c.sft.patience));
        let mut batch_plan = plan(&train, c.sft.batch_size, stream, self.state.cursor.epoch);
        let by_epochs = c.sft.epochs.saturating_mul(batch_plan.len() as u64);
        let total = if c.sft.epochs > 0 { by_epochs.min(c.sft.max_steps) } else { c.sft.max_steps };
        let mut progress = cx.progress("sft", total, self.state.step);
        while self.state.step < total && !early.stop() {
            let step = self.state.step;
            let lr = c.sft.learning_rate * Schedule::Linear.factor(step, c.sft.warmup_steps, total);
            let which = &batch_plan[self.state.cursor.batch];
            let parts = micro_batches(&train, which, c.sft.micro_batch_tokens);
            let s =
                sft_step(&mut self.policy, &mut params, &parts, &Self::adam(&c), lr, c.sft.max_grad_norm)?;
            self.state.step += 1;
            let epoch = self.state.cursor.epoch;
            self.state.cursor.advance(batch_plan.len());
            if self.state.cursor.epoch != epoch {
                batch_plan = plan(&train, c.sft.batch_size, stream, self.state.cursor.epoch);
            }
            let mut record = json!({
                "step": step, "loss": s.loss, "grad_norm": s.grad_norm, "lr": lr, "num_tokens": s.tokens,
                "epoch": self.state.cursor.epoch,
            });
            if self.state.step.is_multiple_of(c.sft.eval_every) || self.state.step == total {
                let loss = mean_nll(&nll(&mut self.policy, &params, &valid, c.sft.micro_batch_tokens)?);
                record["valid_nll"] = json!(loss);
                if early.observe(loss, self.state.step) {
                    best = params.frozen_copy();
                }
            }
            log.write(&record)?;
            let stop = cx.interrupted();
            if (stop || self.state.step.is_multiple_of(c.run.checkpoint_every)) && self.state.step < total {
                self.state.log_len = log.sync()?;
                self.state.early = Some(early.clone());
                checkpoints.save(self.number(&c), &self.state, &[("policy", &params), ("best", &best)])?;
                if stop {
                    return Err(cx.stopped("sft", self.state.step, total));
                }
            }
            progress.tick(&format!("loss {:.3}", s.loss));
        }
        drop(progress);
        cx.note("steps", self.state.step);
        cx.note("best_step", early.best_step);
        Ok((best, early.best.unwrap_or(f64::NAN)))
    }
}
