//! `ppo`: the aligned student. It starts from the baseline, which is also the reference; the value head is first
//! fitted on baseline rollouts (the critic's score mapped to reward, then returns).

use std::path::PathBuf;

use ecr_algos::guards::Guards;
use ecr_algos::ppo::{PpoConfig, PpoState, Rollout, ppo_step_mixed};
use ecr_algos::sft::{Example as Mixed, epoch_batches};
use ecr_algos::value_fit::{ScoreMap, ValueExample, held_out_explained_variance, value_fit_step};
use ecr_core::optim::AdamW;
use ecr_core::seam::Decoding;
use ecr_core::{Packed, Params, Result, Stream, io};
use ecr_data::records::Example;
use ecr_data::redial::Split;
use ecr_models::value::TrunkValue;
use ecr_rewards::composite::{Mode, NormaliserState};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::critic::CRITIC_FILE;
use crate::config::Config;
use crate::curriculum::Curriculum;
use crate::graph::{Context, Stage};
use crate::guarding::{Proof, signals};
use crate::lm::Lm;
use crate::rewarding::composite;
use crate::rundir::RunDir;
use crate::sampler::{Sampler, choose};
use crate::scorers::Scorer;
use crate::selecting::{Seen, Selector};
use crate::world::{Choices, World};

pub(super) struct Ppo;

/// The reward normaliser as fitted on baseline rollouts; frozen, it measures both models alike.
pub(crate) const NORMALISER_FILE: &str = "reward_normaliser.json";

/// Parameters of a checkpoint.
const NAMES: [&str; 6] = ["student", "value", "good_student", "good_value", "best_student", "best_value"];

/// What a checkpoint holds besides parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    ppo: PpoState,
    /// That of the last state which proved good, and the guards' memory.
    good_ppo: PpoState,
    guards: Guards,
    /// Normaliser now, and as it was fitted on the baseline.
    normaliser: NormaliserState,
    baseline_normaliser: NormaliserState,
    log_len: u64,
    samples_len: u64,
    /// Looks at validation; none without `select.every`.
    #[serde(default)]
    seen: Seen,
}

impl Stage for Ppo {
    fn name(&self) -> &'static str {
        "ppo"
    }
    fn settings(&self, c: &Config) -> Json {
        json!([
            c.ppo,
            c.guard,
            c.select,
            (c.curriculum != Default::default()).then_some(&c.curriculum),
            crate::rewarding::settings(c),
            c.value,
            c.policy,
            c.lora,
            c.eval.max_new,
            c.run.seed,
            c.run.precision,
            c.run.debug,
            c.run.log_all,
            (c.ppo.ptx_coef > 0.0).then_some(c.sft.batch_size)
        ])
    }
    fn inputs(&self, c: &Config, dir: &RunDir) -> Vec<PathBuf> {
        let mut files = super::policy_files(c, dir);
        files.extend([dir.data().join("processed"), dir.baseline(), dir.critic(), dir.emotion("train")]);
        if c.select.every > 0 {
            files.push(dir.emotion("evaluate"));
        }
        if c.reward.epitome != 0.0 {
            files.push(dir.empathy("train"));
        }
        files
    }
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf> {
        vec![dir.rl_enhanced()]
    }

    fn run(&self, cx: &mut Context) -> Result<()> {
        let c = cx.config.clone();
        let world = World::open(&cx.dir)?;
        let lm = Lm::open(&c, &cx.dir, cx.engine)?;
        let reference = lm.load(&cx.dir.baseline())?;
        let choices = Choices::load(&cx.dir.baseline())?;
        let prompting = world.prompting(&c, &lm, choices.candidates);
        let dialogues = world.dialogues(Split::Train, 0)?;
        let prompts = world.prompts(&prompting, &dialogues)?;
        // Training windows to mix in, `sft.batch_size` an update; none unless they count.
        let windows = match c.ppo.ptx_coef > 0.0 {
            true => world.windows(&prompting, &dialogues)?,
            false => Vec::new(),
        };
        let curriculum = Curriculum::new(&c.curriculum, &prompts)?;
        let mut sampler = Sampler {
            lm: &lm,
            generator: lm.generator(c.eval.batch)?,
            decoding: Decoding { temperature: c.ppo.temperature as f32, ..Decoding::plain(c.eval.max_new) },
            reward: composite(cx, &world, Mode::Running)?,
        };
        let stream = cx.stream.child("ppo");
        let mut student = Params::from_data(reference.layout.clone(), reference.data.clone());
        student.make_trainable();
        let mut value = TrunkValue::new(lm.policy(), reference.frozen_copy(), c.value.hidden);
        let mut head = value.fresh(stream.child("value init"));
        head.make_trainable();

        let checkpoints = cx.checkpoints("ppo");
        // A student and its value head: now, as last proved good, and with looks at validation the best.
        let names = &NAMES[..if c.select.every > 0 { 6 } else { 4 }];
        let (mut done, mut state);
        let found = checkpoints.latest(|w| cx.voice.warn(w))?;
        match &found {
            Some(found) => {
                state = found.state::<State>()?;
                found.restore("student", &mut student)?;
                found.restore("value", &mut head)?;
                sampler.reward.set_state(state.normaliser.clone())?;
                // Step 1 of the checkpoints is the warm start.
                done = found.step - 1;
            }
            None => {
                let report =
                    warm_start(cx, &mut sampler, &prompts, &reference, &mut value, &mut head, stream)?;
                let text = serde_json::to_vec_pretty(&report).unwrap_or_default();
                io::atomic_write(&cx.dir.log("value_warm_start.json"), &text)?;
                let normaliser = sampler.reward.state().clone();
                state = State {
                    ppo: PpoState::new(&c.ppo),
                    good_ppo: PpoState::new(&c.ppo),
                    guards: Guards::default(),
                    normaliser: normaliser.clone(),
                    baseline_normaliser: normaliser,
                    log_len: 0,
                    samples_len: 0,
                    seen: Seen::default(),
                };
                done = 0;
                let all: Vec<_> =
                    names.iter().zip([&student, &head].into_iter().cycle()).map(|(n, p)| (*n, p)).collect();
                checkpoints.save(1, &state, &all)?;
            }
        }
        let (mut best_student, mut best_head) = (student.snapshot(), head.snapshot());
        if let Some(found) = found.as_ref().filter(|_| c.select.every > 0) {
            found.restore("best_student", &mut best_student)?;
            found.restore("best_value", &mut best_head)?;
        }
        let mut selector = match c.select.every {
            0 => None,
            _ => Some(Selector::new(cx, &world, &prompting, stream)?),
        };
        let mut proof = Proof::new(&[&student, &head], &state.good_ppo);
        if let Some(found) = &found {
            for (name, p) in ["good_student", "good_value"].into_iter().zip(&mut proof.good.0) {
                found.restore(name, p)?;
            }
        }
        if let Ok(Json::Object(report)) = io::read(&cx.dir.log("value_warm_start.json"))
            .map(|b| serde_json::from_slice(&b).unwrap_or_default())
        {
            report.into_iter().for_each(|(k, v)| cx.note(&k, v));
        }

        let mut policy = lm.policy();
        let mut log = cx.log("ppo.metrics.jsonl", state.log_len)?;
        let mut samples = cx.log("ppo.samples.jsonl", state.samples_len)?;
        let mut progress = cx.progress("ppo", c.ppo.steps, done);
        while done < c.ppo.steps {
            let each = c.ppo.rollouts_per_prompt.max(1);
            let which =
                curriculum.choose(done, c.ppo.batch_size / each, each, stream.child("prompts").at(done));
            let mixed: Vec<Mixed> = match windows.len() {
                0 => Vec::new(),
                n => choose(n, c.sft.batch_size, stream.child("ptx windows").at(done))
                    .into_iter()
                    .map(|i| Mixed {
                        tokens: windows[i].tokens.clone(),
                        scored: windows[i].loss_mask.clone(),
                    })
                    .collect(),
            };
            let mut look = match &mut selector {
                Some(s) if done.is_multiple_of(c.select.every) => {
                    Some(s.look(&mut sampler, &state.baseline_normaliser, &student, done)?)
                }
                _ => None,
            };
            sampler.reward.set_step(done);
            let batch = sampler.sample(&student, &prompts, &which, stream.child("rollout").at(done))?;
            value.forget();
            proof.begin(&[&student, &head], &state.ppo);
            let (lr, _) = state.guards.factors(&c.guard);
            let cfg = PpoConfig {
                learning_rate: c.ppo.learning_rate * lr,
                value_learning_rate: c.ppo.value_learning_rate * lr,
                ..c.ppo.clone()
            };
            let stats = ppo_step_mixed(
                &mut policy,
                &mut value,
                &mut student,
                &mut head,
                &reference,
                &batch.rollouts,
                &mixed,
                sampler.decoding,
                &cfg,
                &mut state.ppo,
                stream,
                done,
            )?;
            let mut record = batch.record(done, &stats.metrics, &sampler.reward);
            let mut seen = signals(&stats.metrics, state.ppo.skipped - proof.before.1.skipped);
            if let Some(l) = &mut look {
                l.describe(&stats.metrics, &mut record);
                // Both scores of G4 are of the same replies.
                (seen.score, seen.held_out) = (l.reward, Some(l.empathy_eval));
            }
            let (back, verdict) = proof.judge(&mut state.guards, &c.guard, &seen, done, &mut record);
            if back {
                cx.voice.warn(&format!(
                    "ppo: update {done} raised {}; back to the last good state",
                    record["guard/alarms"]
                ));
                (student, head) = (proof.good.0[0].snapshot(), proof.good.0[1].snapshot());
                state.ppo = proof.good.1.clone();
                state.ppo.kl.coef = c.ppo.kl_coef.max(state.ppo.kl.coef) * c.guard.kl_factor;
                proof.good.1 = state.ppo.clone();
            } else if let Some(l) = look
                && state.seen.take(l, &c.select)
            {
                // What was looked at is the state before this update.
                (best_student, best_head) = (proof.good.0[0].snapshot(), proof.good.0[1].snapshot());
            }
            state.good_ppo = proof.good.1.clone();
            log.write(&record)?;
            let shown = if c.run.log_all || c.run.debug { batch.texts.len() } else { 2 };
            let mut at = 0;
            for i in 0..batch.texts.len() {
                let n = stats.experience.lengths[i];
                if i < shown {
                    let mut line = batch.sample_line(i, done, &prompts[which[i]].0);
                    if c.run.debug {
                        line["prompt"] = json!(lm.tokenizer.decode(&batch.rollouts[i].prompt, false)?);
                        line["tokens"] = json!(batch.rollouts[i].response);
                        line["logp"] = json!(stats.experience.logp[at..at + n]);
                    }
                    samples.write(&line)?;
                }
                at += n;
            }
            done += 1;
            progress.tick(&format!(
                "reward {:.3} KL {:.2}",
                stats.metrics.get("objective/scores").unwrap_or(0.0),
                stats.metrics.get("objective/kl").unwrap_or(0.0)
            ));
            let stop = cx.interrupted();
            let save = stop || verdict.is_err() || done.is_multiple_of(c.run.checkpoint_every);
            if save && (done < c.ppo.steps || verdict.is_err()) {
                state.normaliser = sampler.reward.state().clone();
                (state.log_len, state.samples_len) = (log.sync()?, samples.sync()?);
                let params = [&student, &head, &proof.good.0[0], &proof.good.0[1], &best_student, &best_head];
                let all: Vec<_> = names.iter().copied().zip(params).collect();
                checkpoints.save(done + 1, &state, &all)?;
                verdict?;
                if stop {
                    return Err(cx.stopped("ppo", done, c.ppo.steps));
                }
            }
        }
        drop(progress);
        if let Some(selector) = &mut selector {
            let last = selector.look(&mut sampler, &state.baseline_normaliser, &student, done)?;
            if !state.seen.take(last, &c.select) {
                (student, head) = (best_student, best_head);
            }
            state.seen.conclude(cx, "ppo")?;
        }
        let dir = cx.dir.rl_enhanced();
        lm.save(&dir, &student)?;
        choices.save(&dir)?;
        let text = serde_json::to_vec_pretty(&state.baseline_normaliser)
            .map_err(|e| ecr_core::Error::internal(format!("write the normaliser: {e}")))?;
        io::atomic_write(&dir.join(NORMALISER_FILE), &text)?;
        ecr_models::save::save_params(&dir.join("value_head.safetensors"), &head, "")?;
        cx.note("rollouts", c.ppo.steps * c.ppo.batch_size as u64);
        cx.note(
            "reference",
            io::blake3(&reference.data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()),
        );
        Ok(())
    }
}

/// Fits the value head on baseline rollouts; explained variance on held-out ones for zero, critic-only and both.
fn warm_start(
    cx: &Context,
    sampler: &mut Sampler<'_>,
    prompts: &[(Example, Vec<u32>)],
    reference: &Params,
    value: &mut TrunkValue,
    head: &mut Params,
    stream: Stream,
) -> Result<Json> {
    let c = &cx.config;
    let n = c.value.rollouts + c.value.held_out;
    let stream = stream.child("warm start");
    let which = choose(prompts.len(), n, stream.child("prompts"));
    cx.voice.say(&format!("ppo: {n} baseline rollouts to fit the value head"));
    let batch = sampler.sample(reference, prompts, &which, stream.child("rollout"))?;
    let mut critic = Scorer::load(&cx.dir.critic(), CRITIC_FILE, cx.engine)?;
    let inputs = which
        .iter()
        .zip(&batch.texts)
        .map(|(&i, text)| critic.encode_pair(&prompts[i].0.context, text, c.critic.max_length))
        .collect::<Result<Vec<_>>>()?;
    let heads = critic.outputs.len();
    // The head that people's ratings taught, or the first.
    let overall = critic.outputs.iter().position(|o| o == "overall").unwrap_or(0);
    let scores: Vec<f64> = critic.score(&inputs)?.chunks(heads).map(|s| s[overall]).collect();
    let rewards: Vec<f64> = batch
        .rollouts
        .iter()
        .map(|r| r.score - if r.finished { 0.0 } else { c.ppo.missing_eos_penalty })
        .collect();
    let split = c.value.rollouts;
    let map = ScoreMap::fit(&scores[..split], &rewards[..split]);
    let examples = |reward: &dyn Fn(usize) -> f64| -> Vec<ValueExample> {
        let one = |(i, r): (usize, &Rollout)| ValueExample {
            prompt: r.prompt.clone(),
            response: r.response.clone(),
            reward: reward(i),
        };
        batch.rollouts.iter().enumerate().map(one).collect()
    };
    let truth = examples(&|i| rewards[i]);
    let by_critic = examples(&|i| map.apply(scores[i]));
    let held: Vec<Vec<usize>> = vec![(split..n).collect()];
    let ones = vec![1; split];
    let adam = AdamW { weight_decay: 0.0, ..AdamW::default() };
    let gamma = c.ppo.gamma;
    let fit = |value: &mut TrunkValue, head: &mut Params, data: &[ValueExample], name: &str| -> Result<()> {
        for epoch in 0..c.value.epochs {
            for which in epoch_batches(&ones, 32, stream.child(name), epoch) {
                value_fit_step(value, head, data, &[which], gamma, &adam, c.value.learning_rate, 1.0)?;
            }
        }
        Ok(())
    };
    let mut seen = Packed::new();
    batch.rollouts[..split].iter().for_each(|r| seen.push_response(&r.prompt, &r.response));
    value.standardise(head, &seen)?;
    let zero = held_out_explained_variance(value, head, &truth, &held, gamma)?;
    if c.value.warm_start == "critic_and_returns" {
        fit(value, head, &by_critic, "critic")?;
    }
    let critic_only = held_out_explained_variance(value, head, &truth, &held, gamma)?;
    if c.value.warm_start != "none" {
        fit(value, head, &truth, "returns")?;
    }
    let both = held_out_explained_variance(value, head, &truth, &held, gamma)?;
    // Moments of the warm start do not belong to PPO's optimiser.
    head.forget_moments();
    value.forget();
    Ok(json!({
        "explained_variance_zero": zero,
        "explained_variance_critic_only": critic_only,
        "explained_variance_critic_and_returns": both,
        "critic_score_slope": map.slope,
        "baseline_rollouts": split,
    }))
}
