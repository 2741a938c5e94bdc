//! `macpo`: rounds of contrast between weak teachers and the student (see `ecr_algos::macpo`). Teachers are the baseline,
//! each tuned a little further on a shard of the training dialogues of its own; every learner has a negative agent,
//! itself tuned on spoilt replies. Each round leaves its preference files and its verdict in `macpo/round-N/`. A
//! round that does not earn its place on validation prompts is undone. Optional stage; it continues between and
//! inside rounds.

mod agents;

use std::path::PathBuf;

use ecr_algos::dpo::{Pair, pair_logps};
use ecr_algos::macpo::{
    Candidate, HeldOut, NegativeKind, Phase, Progress, ReferenceKind, Verdict, batches, build_pairs,
    drop_contradictions, judge, learn_step, repetition,
};
use ecr_algos::preference::{Record, Text};
use ecr_algos::rollout::Rollout;
use ecr_core::seam::{Completion, Decoding};
use ecr_core::{Params, Result, Stream, io};
use ecr_data::records::Example;
use ecr_data::redial::Split;
use ecr_models::Llama;
use ecr_rewards::composite::{Mode, NormaliserState};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use self::agents::Agents;
use crate::config::Config;
use crate::graph::{Context, Stage};
use crate::lm::Lm;
use crate::log::JsonLog;
use crate::measure::response_logp;
use crate::preferences;
use crate::rewarding::{self, composite};
use crate::rundir::RunDir;
use crate::sampler::{Batch, Sampler, choose};
use crate::world::{Choices, World};

pub(super) struct Macpo;

/// Tokens of one scoring pass.
const BUDGET: usize = 2048;

/// A pair as a checkpoint keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row(Vec<u32>, Vec<u32>, Vec<u32>, f64);

/// What a checkpoint holds besides parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    progress: Progress,
    /// Pairs of the student, then of each teacher, of the round under way.
    pairs: Vec<Vec<Row>>,
    /// The student before the round, and at the beginning of all.
    before: Option<HeldOut>,
    normaliser: NormaliserState,
    /// Optimiser steps made, in all.
    steps: u64,
    /// Number of the checkpoint.
    saves: u64,
    log_len: u64,
    rounds: Vec<Json>,
}

impl Stage for Macpo {
    fn name(&self) -> &'static str {
        "macpo"
    }
    fn optional(&self) -> bool {
        true
    }
    fn settings(&self, c: &Config) -> Json {
        json!([
            c.macpo,
            c.teachers,
            rewarding::settings(c),
            c.value.rollouts,
            c.policy,
            c.lora,
            c.eval.max_new,
            c.run.seed,
            c.run.precision
        ])
    }
    fn inputs(&self, c: &Config, dir: &RunDir) -> Vec<PathBuf> {
        let mut files = super::policy_files(c, dir);
        files.extend([dir.data().join("processed"), dir.baseline(), dir.emotion("train")]);
        files
    }
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf> {
        vec![dir.model("macpo"), dir.join("macpo")]
    }

    fn run(&self, cx: &mut Context) -> Result<()> {
        let c = cx.config.clone();
        c.macpo.check()?;
        let world = World::open(&cx.dir)?;
        let lm = Lm::open(&c, &cx.dir, cx.engine)?;
        let choices = Choices::load(&cx.dir.baseline())?;
        let prompting = world.prompting(&c, &lm, choices.candidates);
        let train = world.dialogues(Split::Train, 0)?;
        let stream = cx.stream.child("macpo");
        let mut job = Job {
            baseline: lm.load(&cx.dir.baseline())?,
            policy: lm.policy(),
            prompts: world.prompts(&prompting, &train)?,
            valid: world.prompts(&prompting, &world.dialogues(Split::Valid, 0)?)?,
            sampler: Sampler {
                lm: &lm,
                generator: lm.generator(c.eval.batch)?,
                decoding: Decoding {
                    temperature: c.teachers.temperature as f32,
                    ..Decoding::plain(c.eval.max_new)
                },
                reward: composite(cx, &world, Mode::Running)?,
            },
            lm: &lm,
            stream,
        };
        let mut state;
        let mut agents = match cx.checkpoints("macpo").latest(|w| cx.voice.warn(w))? {
            Some(found) => {
                state = found.state::<State>()?;
                let mut a = Agents::like(&job.baseline, c.macpo.teachers);
                a.each(|name, p| found.restore(name, p))?;
                a
            }
            None => {
                io::remove_dir_all(&cx.dir.join("macpo"))?;
                let which =
                    choose(job.prompts.len(), c.value.rollouts, stream.child("normaliser").child("prompts"));
                let draws = stream.child("normaliser").child("rollout");
                job.sampler.sample(&job.baseline, &job.prompts, &which, draws)?;
                state = State {
                    progress: Progress::default(),
                    pairs: Vec::new(),
                    before: None,
                    normaliser: job.sampler.reward.state().clone(),
                    steps: 0,
                    saves: 0,
                    log_len: 0,
                    rounds: Vec::new(),
                };
                let a = Agents::train(
                    cx,
                    &c,
                    &world,
                    &prompting,
                    &job.baseline,
                    &mut job.policy,
                    &train,
                    stream,
                )?;
                save(cx, &mut state, &a)?;
                a
            }
        };
        job.sampler.reward.set_state(state.normaliser.clone())?;
        job.sampler.reward.set_mode(Mode::Frozen);
        let mut log = cx.log("macpo.metrics.jsonl", state.log_len)?;
        let mut progress = cx.progress("macpo", c.macpo.rounds as u64, state.progress.round as u64);
        while state.progress.phase != Phase::Done {
            let round = state.progress.round;
            job.phase(cx, &c, &mut agents, &mut state, &mut log)?;
            if state.progress.round > round {
                progress.tick("");
            }
            state.log_len = log.sync()?;
            save(cx, &mut state, &agents)?;
            if cx.interrupted() && state.progress.phase != Phase::Done {
                return Err(cx.stopped("macpo", state.progress.round as u64, c.macpo.rounds as u64));
            }
        }
        drop(progress);
        let dir = cx.dir.model("macpo");
        lm.save(&dir, &agents.student)?;
        choices.save(&dir)?;
        cx.note("rounds", json!(state.rounds));
        cx.note("steps", state.steps);
        cx.note("prompts_per_round", c.teachers.prompts);
        Ok(())
    }
}

fn save(cx: &Context, state: &mut State, agents: &Agents) -> Result<()> {
    state.saves += 1;
    let named = agents.named();
    let parts: Vec<(&str, &Params)> = named.iter().map(|(n, p)| (n.as_str(), *p)).collect();
    cx.checkpoints("macpo").save(state.saves, state, &parts)
}

/// What the rounds work with.
struct Job<'a> {
    lm: &'a Lm,
    policy: Llama,
    baseline: Params,
    prompts: Vec<(Example, Vec<u32>)>,
    valid: Vec<(Example, Vec<u32>)>,
    sampler: Sampler<'a>,
    stream: Stream,
}

impl Job<'_> {
    /// One phase of a round.
    fn phase(
        &mut self,
        cx: &mut Context,
        c: &Config,
        agents: &mut Agents,
        state: &mut State,
        log: &mut JsonLog,
    ) -> Result<()> {
        let round = state.progress.round;
        // Negatives that are drawn once need the same prompts in every round.
        let drawn = if c.macpo.refresh_negatives { round as u64 } else { 0 };
        let which = choose(self.prompts.len(), c.teachers.prompts, self.stream.child("prompts").at(drawn));
        let dir = cx.dir.join("macpo").join(format!("round-{}", round + 1));
        match state.progress.phase {
            Phase::Respond => {
                agents.begin_round();
                if state.before.is_none() {
                    state.before = Some(self.held_out(c, &agents.student)?);
                }
                let mut positives = Vec::new();
                if c.macpo.mutual {
                    for (k, teacher) in agents.teachers.iter().enumerate() {
                        let draws = self.stream.child("teacher").at(round as u64).at(k as u64);
                        positives.push((
                            format!("teacher-{k}"),
                            self.sampler.sample(teacher, &self.prompts, &which, draws)?,
                        ));
                    }
                } else {
                    let draws = self.stream.child("self").at(round as u64);
                    positives.push((
                        "student".into(),
                        self.sampler.sample(&agents.student, &self.prompts, &which, draws)?,
                    ));
                }
                // Easy negatives are another agent's.
                let (by, negative) = match c.macpo.negatives {
                    NegativeKind::Hard => ("student-negative", &agents.student_negative),
                    NegativeKind::Easy => ("teacher-0-negative", &agents.teacher_negatives[0]),
                };
                let draws = self.stream.child("student negative").at(drawn);
                let negatives =
                    vec![(by.to_owned(), self.sampler.sample(negative, &self.prompts, &which, draws)?)];
                let pairs = self.pairs(
                    c,
                    &agents.student,
                    &which,
                    &positives,
                    &negatives,
                    &[],
                    round,
                    "student",
                    log,
                    &dir,
                )?;
                state.pairs = vec![pairs];
                state.progress.finish_phase(&c.macpo);
            }
            Phase::Student => {
                let reference = match c.macpo.reference {
                    ReferenceKind::StartOfRound => &agents.student_start,
                    ReferenceKind::StartOfRun => &self.baseline,
                    ReferenceKind::Base => &self.lm.untrained(),
                };
                let reference = reference.frozen_copy();
                self.learn(cx, c, state, log, 0, &reference, agents, "student")?;
            }
            Phase::Answer => {
                let draws = self.stream.child("student").at(round as u64);
                let answers = vec![(
                    "student".to_owned(),
                    self.sampler.sample(&agents.student, &self.prompts, &which, draws)?,
                )];
                state.pairs.truncate(1);
                let mine = unpack(&state.pairs[0]);
                for k in 0..agents.teachers.len() {
                    let draws = self.stream.child("teacher negative").at(drawn).at(k as u64);
                    let by = format!("teacher-{k}-negative");
                    let negatives = vec![(
                        by,
                        self.sampler.sample(&agents.teacher_negatives[k], &self.prompts, &which, draws)?,
                    )];
                    let name = format!("teacher-{k}");
                    let teacher = agents.teachers[k].frozen_copy();
                    let pairs = self
                        .pairs(c, &teacher, &which, &answers, &negatives, &mine, round, &name, log, &dir)?;
                    state.pairs.push(pairs);
                }
                state.progress.finish_phase(&c.macpo);
            }
            Phase::Teacher(k) => {
                let reference = match c.macpo.reference {
                    ReferenceKind::StartOfRound => &agents.teacher_starts[k],
                    ReferenceKind::StartOfRun => &agents.teacher_firsts[k],
                    ReferenceKind::Base => &self.lm.untrained(),
                };
                let reference = reference.frozen_copy();
                self.learn(cx, c, state, log, k + 1, &reference, agents, &format!("teacher-{k}"))?;
            }
            Phase::Judge => {
                let after = self.held_out(c, &agents.student)?;
                let before = state.before.unwrap_or(after);
                let verdict = judge(&before, &after, &c.macpo);
                let kept = verdict == Verdict::Kept;
                if kept {
                    state.before = Some(after);
                } else {
                    agents.undo_round();
                    cx.voice.warn(&format!("macpo: round {} is undone: {verdict:?}", round + 1));
                }
                let report =
                    json!({"round": round + 1, "before": before, "after": after, "verdict": verdict});
                let text = serde_json::to_vec_pretty(&report)
                    .map_err(|e| ecr_core::Error::internal(format!("write a round's verdict: {e}")))?;
                io::atomic_write(&dir.join("verdict.json"), &text)?;
                log.write(&report)?;
                state.rounds.push(report);
                state.pairs.clear();
                state.progress.finish_phase(&c.macpo);
            }
            Phase::Done => {}
        }
        Ok(())
    }

    /// Builds a learner's pairs, writes them as a preference file, and logs what became of the candidates.
    fn pairs(
        &mut self,
        c: &Config,
        learner: &Params,
        which: &[usize],
        positives: &[(String, Batch)],
        negatives: &[(String, Batch)],
        others: &[Pair],
        round: usize,
        name: &str,
        log: &mut JsonLog,
        dir: &std::path::Path,
    ) -> Result<Vec<Row>> {
        let prompts: Vec<Vec<u32>> = which.iter().map(|&i| self.prompts[i].1.clone()).collect();
        let plus = self.candidates(learner, &prompts, positives)?;
        let minus = self.candidates(learner, &prompts, negatives)?;
        let (mut pairs, metrics) = build_pairs(&prompts, &plus, &minus, &c.macpo);
        let contradictions = drop_contradictions(&mut pairs, others);
        let mut rows = Vec::new();
        for p in &pairs {
            let said = |of: &[Vec<Candidate>], by: &[(String, Batch)], response: &[u32]| {
                let i = prompts.iter().position(|q| *q == p.prompt)?;
                let c = of[i].iter().find(|c| c.response == response)?;
                Some(by[c.source].0.clone())
            };
            let by = [
                ("chosen_by", said(&plus, positives, &p.chosen)),
                ("rejected_by", said(&minus, negatives, &p.rejected)),
            ];
            rows.push(Record {
                prompt: Text::Plain(self.lm.tokenizer.decode(&p.prompt, false)?),
                chosen: Text::Plain(self.lm.text(&p.chosen)?),
                rejected: Text::Plain(self.lm.text(&p.rejected)?),
                extra: by.into_iter().map(|(k, v)| (k.to_owned(), json!(v))).collect(),
            });
        }
        preferences::write(&dir.join(format!("{name}.jsonl")), &rows)?;
        let mut record = serde_json::Map::from_iter([
            ("round".to_owned(), json!(round + 1)),
            ("learner".to_owned(), json!(name)),
            ("pairs/contradictions".to_owned(), json!(contradictions)),
        ]);
        record.extend(metrics.iter().map(|(k, v)| (k.to_string(), json!(v))));
        log.write(&record)?;
        Ok(pairs.into_iter().map(|p| Row(p.prompt, p.chosen, p.rejected, p.weight)).collect())
    }

    /// The replies of several agents as candidates of a learner, `[prompts][agents]`.
    fn candidates(
        &mut self,
        learner: &Params,
        prompts: &[Vec<u32>],
        said: &[(String, Batch)],
    ) -> Result<Vec<Vec<Candidate>>> {
        let mut out: Vec<Vec<Candidate>> = vec![Vec::new(); prompts.len()];
        for (source, (_, batch)) in said.iter().enumerate() {
            let done: Vec<Completion> = batch.rollouts.iter().map(completion).collect();
            let logp = response_logp(&mut self.policy, learner, prompts, &done, BUDGET)?;
            for (i, r) in batch.rollouts.iter().enumerate() {
                out[i].push(Candidate {
                    source,
                    response: r.response.clone(),
                    finished: r.finished,
                    logp: logp[i],
                    reward: r.score,
                });
            }
        }
        Ok(out)
    }

    /// The learning phase of one learner (0 = student, k + 1 = teacher k).
    fn learn(
        &mut self,
        cx: &Context,
        c: &Config,
        state: &mut State,
        log: &mut JsonLog,
        learner: usize,
        reference: &Params,
        agents: &mut Agents,
        name: &str,
    ) -> Result<()> {
        let pairs = unpack(&state.pairs[learner]);
        if pairs.is_empty() {
            cx.voice.warn(&format!("macpo: round {}: no pair for {name}", state.progress.round + 1));
            state.progress.finish_phase(&c.macpo);
            return Ok(());
        }
        let round = state.progress.round;
        let order =
            batches(pairs.len(), &c.macpo, self.stream.child("learn").at(round as u64).at(learner as u64));
        let logps = pair_logps(&mut self.policy, reference, &pairs, c.macpo.dpo.micro_batch_tokens)?;
        if state.progress.step == 0 {
            agents.learner(learner).forget_moments();
        }
        let phase = state.progress.phase;
        while state.progress.phase == phase {
            let step = state.progress.step;
            let params = agents.learner(learner);
            let metrics = learn_step(&mut self.policy, params, &pairs, &logps, &order, &c.macpo, step)?;
            let mut record = serde_json::Map::from_iter([
                ("round".to_owned(), json!(round + 1)),
                ("learner".to_owned(), json!(name)),
                ("step".to_owned(), json!(step)),
            ]);
            record.extend(metrics.iter().map(|(k, v)| (k.to_string(), json!(v))));
            log.write(&record)?;
            state.steps += 1;
            state.progress.stepped(order.len(), &c.macpo);
            let inside = state.progress.phase == phase;
            let stop = cx.interrupted();
            if inside && (stop || state.steps.is_multiple_of(c.run.checkpoint_every)) {
                state.log_len = log.sync()?;
                save(cx, state, agents)?;
                if stop {
                    return Err(cx.stopped("macpo", round as u64, c.macpo.rounds as u64));
                }
            }
        }
        Ok(())
    }

    /// The student on validation prompts, always the same and with the same draws.
    fn held_out(&mut self, c: &Config, student: &Params) -> Result<HeldOut> {
        let stream = self.stream.child("held out");
        let which = choose(self.valid.len(), c.teachers.held_out.max(1), stream.child("prompts"));
        let batch = self.sampler.sample(student, &self.valid, &which, stream.child("rollout"))?;
        let prompts: Vec<Vec<u32>> = which.iter().map(|&i| self.valid[i].1.clone()).collect();
        let done: Vec<Completion> = batch.rollouts.iter().map(completion).collect();
        let own = response_logp(&mut self.policy, student, &prompts, &done, BUDGET)?;
        let base = response_logp(&mut self.policy, &self.baseline, &prompts, &done, BUDGET)?;
        let n = which.len() as f64;
        let mean = |f: &dyn Fn(usize) -> f64| (0..which.len()).map(f).sum::<f64>() / n;
        let different: std::collections::BTreeSet<&String> = batch.texts.iter().collect();
        Ok(HeldOut {
            reward: mean(&|i| batch.rollouts[i].score),
            kl: mean(&|i| own[i] - base[i]),
            length: mean(&|i| batch.rollouts[i].response.len() as f64),
            eos_rate: mean(&|i| f64::from(u8::from(batch.rollouts[i].finished))),
            repetition: mean(&|i| repetition(&batch.rollouts[i].response, 3)),
            distinct: different.len() as f64 / n,
        })
    }
}

fn completion(r: &Rollout) -> Completion {
    Completion { tokens: r.response.clone(), logp: Vec::new(), finished: r.finished }
}

fn unpack(rows: &[Row]) -> Vec<Pair> {
    let pair =
        |r: &Row| Pair { prompt: r.0.clone(), chosen: r.1.clone(), rejected: r.2.clone(), weight: r.3 };
    rows.iter().map(pair).collect()
}
