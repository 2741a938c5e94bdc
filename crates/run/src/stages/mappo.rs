//! `mappo`: several agents and one centralised critic. An agent is a role with its own parameters (an adapter over the
//! shared frozen base, or all weights of a model from scratch) and its own emphasis on the reward; all begin as the
//! baseline, which is the reference. Each answers the same prompts; it is paid for its own reply and for the team's mean.
//! The critic reads role, prompt and the other agents' replies; no one needs it afterwards. Optional stage.

use std::path::PathBuf;

use ecr_algos::mappo::{Credit, Episode, MappoState, Team, Turn, mappo_step};
use ecr_algos::rollout::Rollout;
use ecr_core::seam::Decoding;
use ecr_core::{Error, Packed, Params, Result, Stream};
use ecr_data::records::Example;
use ecr_data::redial::Split;
use ecr_models::value::TrunkValue;
use ecr_rewards::composite::{Breakdown, Mode, NormaliserState};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::graph::{Context, Stage};
use crate::lm::Lm;
use crate::rewarding::{self, composite};
use crate::rundir::RunDir;
use crate::sampler::{Batch, Sampler, choose};
use crate::world::{Choices, World};

pub(super) struct Mappo;

/// Roles and the components that each counts `team.emphasis` times.
const ROLES: [(&str, &[&str]); 3] = [
    ("conversation", &["bleu", "distinct", "format"]),
    ("empathy", &["empathy"]),
    ("recommendation", &["recommendation"]),
];

/// What a checkpoint holds besides parameters.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    mappo: MappoState,
    normaliser: NormaliserState,
    log_len: u64,
    samples_len: u64,
}

impl Stage for Mappo {
    fn name(&self) -> &'static str {
        "mappo"
    }
    fn optional(&self) -> bool {
        true
    }
    fn settings(&self, c: &Config) -> Json {
        json!([
            c.mappo,
            c.team,
            rewarding::settings(c),
            c.value.rollouts,
            c.value.hidden,
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
        files
    }
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf> {
        vec![dir.model("mappo")]
    }

    fn run(&self, cx: &mut Context) -> Result<()> {
        let c = cx.config.clone();
        check(&c)?;
        let world = World::open(&cx.dir)?;
        let lm = Lm::open(&c, &cx.dir, cx.engine)?;
        let reference = lm.load(&cx.dir.baseline())?;
        let choices = Choices::load(&cx.dir.baseline())?;
        let prompting = world.prompting(&c, &lm, choices.candidates);
        let prompts = world.prompts(&prompting, &world.dialogues(Split::Train, 0)?)?;
        let mut sampler = Sampler {
            lm: &lm,
            generator: lm.generator(c.eval.batch)?,
            decoding: Decoding { temperature: c.mappo.temperature as f32, ..Decoding::plain(c.eval.max_new) },
            reward: composite(cx, &world, Mode::Running)?,
        };
        let stream = cx.stream.child("mappo");
        let roles: Vec<String> = (0..c.team.num_agents).map(role).collect();
        let names: Vec<&str> = roles.iter().map(String::as_str).collect();
        let mut agents: Vec<Params> = names
            .iter()
            .map(|_| {
                let mut p = Params::from_data(reference.layout.clone(), reference.data.clone());
                p.make_trainable();
                p
            })
            .collect();
        let mut value = TrunkValue::new(lm.policy(), reference.frozen_copy(), c.value.hidden);
        let mut head = value.fresh(stream.child("value init"));
        head.make_trainable();

        let checkpoints = cx.checkpoints("mappo");
        let (mut done, mut state);
        match checkpoints.latest(|w| cx.voice.warn(w))? {
            Some(found) => {
                state = found.state::<State>()?;
                for (name, p) in names.iter().zip(&mut agents) {
                    found.restore(name, p)?;
                }
                found.restore("value", &mut head)?;
                sampler.reward.set_state(state.normaliser.clone())?;
                done = found.step - 1;
            }
            None => {
                // The baseline's replies fix the scale of rewards and of the critic's input.
                let stream = stream.child("normaliser");
                let which = choose(prompts.len(), c.value.rollouts, stream.child("prompts"));
                cx.voice.say(&format!("mappo: {} baseline rollouts to normalise the reward", which.len()));
                let batch = sampler.sample(&reference, &prompts, &which, stream.child("rollout"))?;
                let mut seen = Packed::new();
                batch.rollouts.iter().for_each(|r| seen.push_response(&r.prompt, &r.response));
                value.standardise(&mut head, &seen)?;
                let mappo = MappoState::new(&c.mappo, agents.len());
                let normaliser = sampler.reward.state().clone();
                state = State { mappo, normaliser, log_len: 0, samples_len: 0 };
                done = 0;
                save(cx, 1, &state, &names, &agents, &head)?;
            }
        }

        let owner: Vec<usize> = (0..agents.len()).collect();
        let team = Team { names: &names, owner: &owner };
        let mut policy = lm.policy();
        let mut log = cx.log("mappo.metrics.jsonl", state.log_len)?;
        let mut samples = cx.log("mappo.samples.jsonl", state.samples_len)?;
        let mut progress = cx.progress("mappo", c.mappo.steps, done);
        while done < c.mappo.steps {
            let which = choose(prompts.len(), c.mappo.batch_size, stream.child("prompts").at(done));
            let mut batches: Vec<Batch> = Vec::with_capacity(agents.len());
            for (a, p) in agents.iter().enumerate() {
                let draws = stream.child("rollout").at(done).at(a as u64);
                batches.push(sampler.sample(p, &prompts, &which, draws)?);
            }
            let episodes = (0..which.len())
                .map(|i| episode(&c, &lm, &names, &batches, i))
                .collect::<Result<Vec<_>>>()?;
            value.forget();
            let metrics = mappo_step(
                &mut policy,
                &mut value,
                &mut agents,
                team,
                &mut head,
                &reference,
                &episodes,
                sampler.decoding,
                &c.mappo,
                &mut state.mappo,
                stream,
                done,
            )?;
            let mut record = serde_json::Map::new();
            record.insert("step".into(), done.into());
            metrics.iter().for_each(|(k, v)| {
                record.insert(k.to_string(), json!(v));
            });
            for (name, batch) in names.iter().zip(&batches) {
                let own = batch.record(done, &ecr_algos::Metrics::default(), &sampler.reward);
                record.extend(
                    own.into_iter().filter(|(k, _)| k != "step").map(|(k, v)| (format!("{k}/{name}"), v)),
                );
            }
            log.write(&record)?;
            for i in 0..(if c.run.log_all { which.len() } else { 1 }) {
                for (name, batch) in names.iter().zip(&batches) {
                    let mut line = batch.sample_line(i, done, &prompts[which[i]].0);
                    line["agent"] = json!(name);
                    samples.write(&line)?;
                }
            }
            done += 1;
            progress.tick(&format!("team {:.3}", metrics.get("objective/team_score").unwrap_or(0.0)));
            let stop = cx.interrupted();
            if (stop || done.is_multiple_of(c.run.checkpoint_every)) && done < c.mappo.steps {
                state.normaliser = sampler.reward.state().clone();
                (state.log_len, state.samples_len) = (log.sync()?, samples.sync()?);
                save(cx, done + 1, &state, &names, &agents, &head)?;
                if stop {
                    return Err(cx.stopped("mappo", done, c.mappo.steps));
                }
            }
        }
        drop(progress);

        let dir = cx.dir.model("mappo");
        for (name, p) in names.iter().zip(&agents) {
            lm.save(&dir.join("agents").join(name), p)?;
        }
        let valid = world.prompts(&prompting, &world.dialogues(Split::Valid, 0)?)?;
        let chosen = finish(cx, &mut sampler, &valid, &names, &agents, stream)?;
        lm.save(&dir, &chosen)?;
        choices.save(&dir)?;
        cx.note("rollouts", c.mappo.steps * (c.mappo.batch_size * agents.len()) as u64);
        cx.note("agents", json!(names));
        let floats = |p: &Params| 4 * (p.data.len() + p.grad.len() + p.m.len() + p.v.len());
        cx.note("bytes_per_agent", floats(&agents[0]));
        Ok(())
    }
}

/// What is not built is refused, not ignored.
fn check(c: &Config) -> Result<()> {
    if c.mappo.sequential {
        return Err(Error::config("train a team")
            .expected("mappo.sequential = false: agents answer side by side")
            .got("true"));
    }
    if c.team.num_agents == 0 {
        return Err(Error::config("train a team").expected("team.num_agents of 1 or more").got("0"));
    }
    for (key, value, known) in [
        ("team.critic", &c.team.critic, ["centralised", "own"]),
        ("team.final_model", &c.team.final_model, ["best", "averaged"]),
    ] {
        if !known.contains(&value.as_str()) {
            return Err(Error::config(format!("read {key}")).expected(known.join(" or ")).got(value.clone()));
        }
    }
    Ok(())
}

/// Name of agent `a`: its role, numbered from the second round of roles on.
fn role(a: usize) -> String {
    let (name, round) = (ROLES[a % ROLES.len()].0, a / ROLES.len());
    if round == 0 { name.to_owned() } else { format!("{name}{}", round + 1) }
}

/// The reward as agent `a` sees it: its role's components count `emphasis` times. A closed gate stays closed.
fn own_score(a: usize, b: &Breakdown, emphasis: f64) -> f64 {
    if b.gate.is_some() {
        return b.total;
    }
    let dear = |p: &&ecr_rewards::composite::Part| ROLES[a % ROLES.len()].1.contains(&p.name.as_str());
    b.total + (emphasis - 1.0) * b.parts.iter().filter(dear).filter_map(|p| p.weighted).sum::<f64>()
}

/// Prompt `i` of the batch as all agents answered it.
fn episode(c: &Config, lm: &Lm, names: &[&str], batches: &[Batch], i: usize) -> Result<Episode> {
    let total: f64 = batches.iter().map(|b| b.breakdowns[i].total).sum();
    let n = batches.len() as f64;
    let turn = |a: usize| -> Result<Turn> {
        let r = &batches[a].rollouts[i];
        let score = own_score(a, &batches[a].breakdowns[i], c.team.emphasis);
        let critic_prompt = if c.team.critic == "own" {
            r.prompt.clone()
        } else {
            let others = (0..batches.len()).filter(|&b| b != a).map(|b| batches[b].texts[i].as_str());
            let text = format!("{}: {}\n", names[a], others.collect::<Vec<_>>().join(" | "));
            let mut tokens = lm.tokenizer.encode(&text)?;
            tokens.extend(&r.prompt);
            // The model's positions are limited; the prompt's end matters most.
            let room = lm.config.max_position_embeddings.saturating_sub(r.response.len() + 1).max(1);
            tokens.split_off(tokens.len().saturating_sub(room))
        };
        let without = (c.mappo.credit == Credit::Difference)
            .then(|| (total - batches[a].breakdowns[i].total) / (n - 1.0).max(1.0));
        Ok(Turn { agent: a, rollout: Rollout { score, ..r.clone() }, critic_prompt, without })
    };
    Ok(Episode { turns: (0..batches.len()).map(turn).collect::<Result<_>>()?, team: total / n })
}

fn save(
    cx: &Context,
    step: u64,
    state: &State,
    names: &[&str],
    agents: &[Params],
    head: &Params,
) -> Result<()> {
    let mut parts: Vec<(&str, &Params)> = names.iter().copied().zip(agents).collect();
    parts.push(("value", head));
    cx.checkpoints("mappo").save(step, state, &parts)
}

/// The model that the team leaves behind: the agent whose replies to validation prompts earn most by the team's reward
/// (scale of the baseline), or the mean of all agents' parameters.
fn finish(
    cx: &mut Context,
    sampler: &mut Sampler<'_>,
    prompts: &[(Example, Vec<u32>)],
    names: &[&str],
    agents: &[Params],
    stream: Stream,
) -> Result<Params> {
    let c = cx.config.team.clone();
    sampler.reward.set_mode(Mode::Frozen);
    let stream = stream.child("final");
    let which = choose(prompts.len(), c.selection_prompts.max(1), stream.child("prompts"));
    let mut averaged = agents[0].frozen_copy();
    for (i, x) in averaged.data.iter_mut().enumerate() {
        *x = agents.iter().map(|a| a.data[i]).sum::<f32>() / agents.len() as f32;
    }
    let mut scores = Vec::new();
    for (name, p) in names.iter().copied().chain(["averaged"]).zip(agents.iter().chain([&averaged])) {
        let batch = sampler.sample(p, prompts, &which, stream.child("rollout"))?;
        let mean = batch.rollouts.iter().map(|r| r.score).sum::<f64>() / which.len() as f64;
        cx.note(&format!("valid_team_reward_{name}"), mean);
        scores.push(mean);
    }
    let best = (0..agents.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap_or(0);
    cx.note("final_model", if c.final_model == "averaged" { "averaged" } else { names[best] });
    Ok(if c.final_model == "averaged" { averaged } else { agents[best].frozen_copy() })
}

#[cfg(test)]
mod tests {
    use ecr_rewards::composite::Part;

    use super::*;

    #[test]
    fn roles_repeat_with_numbers_and_weigh_their_own_components() {
        assert_eq!(
            (0..5).map(role).collect::<Vec<_>>(),
            ["conversation", "empathy", "recommendation", "conversation2", "empathy2"]
        );
        let part = |name: &str, w: f64| Part {
            name: name.into(),
            raw: Some(w),
            normalised: Some(w),
            weighted: Some(w),
        };
        let parts = vec![part("bleu", 1.0), part("empathy", 2.0), part("recommendation", -3.0)];
        let mut b = Breakdown { total: 0.0, parts, gate: None };
        assert_eq!([0, 1, 2].map(|a| own_score(a, &b, 2.0)), [1.0, 2.0, -3.0]);
        b.gate = Some("copy".into());
        b.total = -5.0;
        assert_eq!(own_score(1, &b, 2.0), -5.0);
    }
}
