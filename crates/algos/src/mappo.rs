//! MAPPO: PPO of cooperating agents with one centralised critic, one update from episodes to new parameters.
//!
//! Sources: Yu et al. 2022 "The Surprising Effectiveness of PPO in Cooperative, Multi-Agent Games" and
//! marlbenchmark/on-policy (value normalisation, Huber value loss, critic input), Wolpert & Tumer 2001 (difference
//! rewards). An agent is a parameter set (an adapter over the shared base), not a model; agents may share one. The
//! critic is a `Value` with an input of its own: context, role and whatever the other agents have said; it is never
//! asked at inference. Departures: value statistics move once an update, not once a minibatch, so that results do not
//! depend on the cut; advantages are whitened over all tokens of a parameter set; the KL to the baseline is in the
//! reward, per agent. With a critic that sees the agent's own prompt only it is independent PPO, the baseline.
//!
//! Legend: `E` episodes, each of one turn an agent that acts; `S` turns of all episodes; `N` response tokens of all
//! turns, laid end to end in turn order.

mod config;

use ecr_core::optim::{AdamW, clip_grad_norm, grad_norm};
use ecr_core::seam::{Decoding, Pass, Policy, Value};
use ecr_core::{Error, Kind, Params, Result, Stream};
use serde::{Deserialize, Serialize};

pub use config::{Credit, MappoConfig};

use crate::Metrics;
use crate::losses::{
    KlController, KlEstimator, ValueNorm, Variance, explained_variance, gae, huber_value_loss, kl_tokens,
    token_rewards, whiten,
};
use crate::rollout::{Rollout, Scored, at, check, micro_batches, offsets, pack};
use crate::update::{Sums, UpdateState, clipped_update, kl_per_sequence};

/// What one agent did in an episode.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Which agent.
    pub agent: usize,
    /// Its own observation, its response, and as score its own reward.
    pub rollout: Rollout,
    /// What the critic sees before the response: context, role, other agents' words; at least one token.
    pub critic_prompt: Vec<u32>,
    /// The team's reward had the agent not acted; needed for difference rewards.
    pub without: Option<f64>,
}

/// One prompt with the turns of all agents that acted, in order, and the reward of their common product.
#[derive(Debug, Clone, PartialEq)]
pub struct Episode {
    /// At least one.
    pub turns: Vec<Turn>,
    /// Team reward, finite.
    pub team: f64,
}

/// Who the agents are.
#[derive(Debug, Clone, Copy)]
pub struct Team<'a> {
    /// A name for each agent, for metrics.
    pub names: &'a [&'a str],
    /// Which parameter set each agent uses; several may use one.
    pub owner: &'a [usize],
}

/// What an update leaves behind besides parameters; belongs into checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MappoState {
    /// β and guards of each parameter set.
    pub agents: Vec<UpdateState>,
    /// Guards of the critic.
    pub critic: UpdateState,
    /// Scale of the returns, if values are normalised.
    pub value_norm: Option<ValueNorm>,
}

impl MappoState {
    /// The state of `sets` parameter sets before the first update.
    pub fn new(cfg: &MappoConfig, sets: usize) -> Self {
        let kl = KlController { coef: cfg.kl_coef, target: cfg.kl_target, horizon: cfg.kl_horizon };
        Self {
            agents: vec![UpdateState::new(kl); sets],
            critic: UpdateState::new(KlController::fixed(0.0)),
            value_norm: cfg.value_norm.then(|| ValueNorm::new(0.99999)),
        }
    }
}

/// One MAPPO update of the parameter sets `params` and the critic. Other arguments as of [`crate::ppo::ppo_step`].
///
/// # Errors
/// [`Kind::Config`] for settings or sampling, [`Kind::Data`] for unusable episodes, [`Kind::Diverged`] after
/// `max_skipped` non-finite minibatches in a row, [`Kind::Internal`] when the first ratio is not one.
pub fn mappo_step(
    policy: &mut dyn Policy,
    value: &mut dyn Value,
    params: &mut [Params],
    team: Team<'_>,
    value_params: &mut Params,
    reference: &Params,
    episodes: &[Episode],
    decoding: Decoding<'_>,
    cfg: &MappoConfig,
    state: &mut MappoState,
    stream: Stream,
    step: u64,
) -> Result<Metrics> {
    cfg.check()?;
    check_episodes(episodes, team, params.len(), state.agents.len(), cfg)?;
    let turns: Vec<&Turn> = episodes.iter().flat_map(|e| &e.turns).collect();
    let acted: Vec<Rollout> = turns.iter().map(|t| t.rollout.clone()).collect();
    check(&acted, &decoding, cfg.temperature)?;
    let pass = Pass { temperature: cfg.temperature as f32, mask: decoding.mask, keep: false };
    let owner: Vec<usize> = turns.iter().map(|t| team.owner[t.agent]).collect();
    let lengths: Vec<usize> = acted.iter().map(|r| r.response.len()).collect();
    let starts = offsets(&lengths);
    let everyone: Vec<usize> = (0..turns.len()).collect();

    // 1. Numbers of each parameter set and the reference; values of the centralised critic.
    let mut sets = Vec::with_capacity(params.len());
    let mut kl = vec![0.0; lengths.iter().sum()];
    for (set, p) in params.iter().enumerate() {
        let mine: Vec<usize> = everyone.iter().copied().filter(|&i| owner[i] == set).collect();
        let rollouts: Vec<Rollout> = mine.iter().map(|&i| acted[i].clone()).collect();
        let x = if mine.is_empty() {
            Scored::default()
        } else {
            Scored::new(policy, p, reference, &rollouts, pass, cfg.micro_batch_tokens)?
        };
        let beta = state.agents[set].kl.coef;
        let tokens: Vec<usize> = mine.iter().flat_map(|&i| starts[i]..starts[i] + lengths[i]).collect();
        for (&t, k) in tokens.iter().zip(kl_tokens(cfg.kl_estimator, &x.logp, &x.ref_logp)) {
            kl[t] = beta * k;
        }
        sets.push((mine, rollouts, x, tokens));
    }
    let seen: Vec<Rollout> =
        turns.iter().map(|t| Rollout { prompt: t.critic_prompt.clone(), ..t.rollout.clone() }).collect();
    let mut raw_values = Vec::new();
    for part in micro_batches(&seen, &everyone, cfg.micro_batch_tokens) {
        raw_values.extend(value.forward(value_params, &pack(&seen, part), false)?);
    }
    if !raw_values.iter().all(|v| v.is_finite()) {
        return Err(Error::new(Kind::Diverged, format!("value the turns of MAPPO step {step}"))
            .expected("finite values")
            .hint("resume from an earlier checkpoint with a lower value_learning_rate"));
    }

    // 2. Rewards: own, and for the team; advantages within a turn, or through the turns of an episode.
    let paid = rewards(episodes, cfg);
    let token_reward = token_rewards(&paid, &kl, 1.0, &lengths);
    let values = state.value_norm.as_ref().map_or_else(|| raw_values.clone(), |n| n.denormalize(&raw_values));
    let chains: Vec<usize> = if cfg.sequential {
        episodes.iter().map(|e| e.turns.iter().map(|t| t.rollout.response.len()).sum()).collect()
    } else {
        lengths.clone()
    };
    let g = gae(&token_reward, &values, &chains, cfg.gamma, cfg.lambda);
    let targets = match &mut state.value_norm {
        None => g.returns.clone(),
        Some(norm) => {
            norm.update(&g.returns);
            norm.normalize(&g.returns)
        }
    };

    // 3. Each parameter set learns from its own turns, clipped by its own ratios.
    let mut metrics = Metrics::default();
    let wide: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
    metrics.set("episode", (step + 1) as f64 * episodes.len() as f64);
    metrics.set("objective/team_score", mean(episodes.iter().map(|e| e.team)));
    metrics.set("val/explained_variance", explained_variance(&wide, &g.returns));
    let update = cfg.update();
    for (set, (mine, rollouts, x, tokens)) in sets.iter().enumerate() {
        let agents: Vec<usize> = (0..team.names.len()).filter(|&a| team.owner[a] == set).collect();
        for &a in &agents {
            describe(&mut metrics, team.names[a], a, &turns, &paid);
        }
        if mine.is_empty() {
            continue;
        }
        let mut advantages = at(&g.advantages, tokens);
        whiten(&mut advantages, true, Variance::Unbiased);
        let order = stream.child("minibatch").child("agent").at(set as u64).at(step);
        let own = &mut state.agents[set];
        let p = &mut params[set];
        let sums = clipped_update(policy, p, rollouts, x, &advantages, pass, &update, own, order, step)?;
        let name = agents.iter().map(|&a| team.names[a]).collect::<Vec<_>>().join("+");
        learned(&mut metrics, &name, &sums, x, own.kl.coef);
        own.kl.update(kl_per_sequence(KlEstimator::K1, x), rollouts.len());
    }

    // 4. The critic learns from every turn.
    let factor = cfg.schedule.factor(step, cfg.warmup_steps, cfg.steps);
    let adam = AdamW { eps: cfg.adam_eps, weight_decay: 0.0, ..AdamW::default() };
    let (mut loss, mut clipped, mut norm, mut minibatches, mut total) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for epoch in 0..cfg.epochs {
        let mut order = everyone.clone();
        stream.child("minibatch").child("critic").at(step).at(epoch as u64).rng().shuffle(&mut order);
        for minibatch in order.chunks(cfg.minibatch_size) {
            let weights = cfg.aggregation.weights(&at(&lengths, minibatch));
            value_params.zero_grad();
            let (mut mine, mut hit, mut done) = (0.0, 0, 0);
            for part in micro_batches(&seen, minibatch, cfg.micro_batch_tokens) {
                let tokens: Vec<usize> =
                    part.iter().flat_map(|&i| starts[i]..starts[i] + lengths[i]).collect();
                let w = &weights[done..done + tokens.len()];
                done += tokens.len();
                let v = value.forward(value_params, &pack(&seen, part), true)?;
                let (old, target) = (at(&raw_values, &tokens), at(&targets, &tokens));
                let l = huber_value_loss(&v, &old, &target, w, cfg.value_clip_range, cfg.value_huber);
                value.backward(value_params, &l.d_value)?;
                mine += l.loss;
                hit += l.clipped;
            }
            let g = grad_norm(value_params);
            if !(mine + g).is_finite() {
                state.critic.skip(cfg.max_skipped)?;
                continue;
            }
            state.critic.skipped_in_row = 0;
            clip_grad_norm(value_params, cfg.max_grad_norm);
            adam.step(value_params, cfg.value_learning_rate * factor);
            loss += mine;
            norm += g;
            clipped += hit as f64;
            minibatches += 1.0;
            total += done as f64;
        }
    }
    if minibatches > 0.0 {
        metrics.set("loss/value_avg", loss / minibatches);
        metrics.set("val/clipfrac_avg", clipped / total);
        metrics.set("val/grad_norm", norm / minibatches);
    }
    if let Some(n) = &state.value_norm {
        let (m, s) = n.mean_std();
        metrics.set("val/norm_mean", m);
        metrics.set("val/norm_std", s);
    }
    let skipped = state.critic.skipped + state.agents.iter().map(|a| a.skipped).sum::<u64>();
    metrics.set("updates/skipped", skipped as f64);
    metrics.set("lr", update.rate(step));
    metrics.set("lr_value", cfg.value_learning_rate * factor);
    Ok(metrics)
}

/// What each turn `[S]` is paid at its end: its own reward and its share of the team's.
pub fn rewards(episodes: &[Episode], cfg: &MappoConfig) -> Vec<f64> {
    let mut out = Vec::new();
    for e in episodes {
        for (i, t) in e.turns.iter().enumerate() {
            let last = i + 1 == e.turns.len();
            let team = match cfg.credit {
                Credit::Difference => e.team - t.without.unwrap_or(0.0),
                Credit::Team if cfg.sequential && !last => 0.0,
                Credit::Team => e.team,
            };
            let end = if t.rollout.finished { 0.0 } else { cfg.missing_eos_penalty };
            out.push(cfg.own_weight * t.rollout.score + cfg.team_weight * team - end);
        }
    }
    out
}

fn mean(xs: impl Iterator<Item = f64>) -> f64 {
    let (n, sum) = xs.fold((0.0f64, 0.0), |(n, sum), x| (n + 1.0, sum + x));
    sum / n.max(1.0)
}

/// Metrics of one agent's turns.
fn describe(metrics: &mut Metrics, name: &str, agent: usize, turns: &[&Turn], paid: &[f64]) {
    let mine = || turns.iter().zip(paid).filter(|(t, _)| t.agent == agent);
    if mine().next().is_none() {
        return;
    }
    for (key, number) in [
        ("agent_rewards", mean(mine().map(|(_, r)| *r))),
        ("own_score", mean(mine().map(|(t, _)| t.rollout.score))),
        ("eos_rate", mean(mine().map(|(t, _)| f64::from(u8::from(t.rollout.finished))))),
        ("response_length", mean(mine().map(|(t, _)| t.rollout.response.len() as f64))),
    ] {
        metrics.set(&format!("{key}/{name}"), number);
    }
}

/// Metrics of a parameter set's update.
fn learned(metrics: &mut Metrics, name: &str, sums: &Sums, x: &Scored, beta: f64) {
    let mut all = Metrics::default();
    all.set("objective/kl", kl_per_sequence(KlEstimator::K1, x));
    all.set("objective/kl_coef", beta);
    sums.report(&mut all);
    for (key, number) in all.iter() {
        metrics.set(&format!("{key}/{name}"), number);
    }
}

fn check_episodes(
    episodes: &[Episode],
    team: Team<'_>,
    sets: usize,
    states: usize,
    cfg: &MappoConfig,
) -> Result<()> {
    let agents = team.names.len();
    if team.owner.len() != agents || team.owner.iter().any(|&o| o >= sets) || states != sets {
        return Err(Error::internal("update a team")
            .expected(format!("a parameter set of {sets} and a state for each of {agents} agents")));
    }
    let bad_turn = |t: &Turn| {
        let missing = cfg.credit == Credit::Difference && !t.without.is_some_and(f64::is_finite);
        t.agent >= agents || t.critic_prompt.is_empty() || missing
    };
    let bad = |e: &Episode| e.turns.is_empty() || !e.team.is_finite() || e.turns.iter().any(bad_turn);
    match episodes.iter().position(bad) {
        None if !episodes.is_empty() => Ok(()),
        at => Err(Error::data("update a team")
            .expected("episodes with a finite team reward and turns of known agents that the critic can see")
            .got(at.map_or("no episodes".to_owned(), |i| format!("episode {i} without them")))
            .hint("difference rewards need the team's reward without each agent")),
    }
}
