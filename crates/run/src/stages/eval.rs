//! `eval`: baseline and student on the same seeded test prompts with the same decoding and random streams, and the
//! likelihood of human replies on test dialogues; for a pretrained model also before any training (zero-shot).

use std::path::PathBuf;

use ecr_core::seam::{Decoding, EMOTIONS, Emotion, EmotionDistribution, Generator, Reward};
use ecr_core::{Error, Params, Result, Role, Stream, io};
use ecr_data::records::Example as Turn;
use ecr_data::redial::Split;
use ecr_eval::{Bootstrap, Evaluation, Example, ModelRun, ReferenceNll};
use ecr_models::Llama;
use ecr_rewards::composite::{Mode, NormaliserState};
use serde_json::{Value as Json, json};

use super::critic::CRITIC_FILE;
use super::ppo::NORMALISER_FILE;
use crate::config::Config;
use crate::graph::{Context, Stage};
use crate::lm::Lm;
use crate::measure::{Nll, mean_nll, nll, response_logp};
use crate::prompting::Window;
use crate::rewarding::{composite, emotion, empathy_eval, epitome_eval, reply};
use crate::rundir::RunDir;
use crate::scorers::Scorer;
use crate::world::{Choices, World};

pub(super) struct Eval;

/// Names of the two models of every run, as in the comparison.
pub(super) const MODELS: [&str; 2] = ["baseline", "rl_enhanced"];
/// All replies of a model with their scores: what the comparison is made from.
pub(crate) const REPLIES_FILE: &str = "replies.json";

/// Tokens of one scoring pass.
const BUDGET: usize = 2048;

impl Stage for Eval {
    fn name(&self) -> &'static str {
        "eval"
    }
    fn settings(&self, c: &Config) -> Json {
        // What is as it always was is left out, so that a new option does not make a finished stage stale.
        let mut eval = json!(c.eval);
        if let Json::Object(map) = &mut eval {
            map.retain(|k, v| k != "split" || *v != "test");
        }
        json!([
            eval,
            c.policy,
            c.lora,
            crate::rewarding::settings(c),
            c.ppo.batch_size,
            c.run.seed,
            c.run.precision
        ])
    }
    fn inputs(&self, c: &Config, dir: &RunDir) -> Vec<PathBuf> {
        let mut files = super::policy_files(c, dir);
        files.extend([dir.data().join("processed"), dir.critic(), dir.join("emotion")]);
        for name in super::models(dir) {
            files.extend([dir.model(name), model_dir(c, dir, name)]);
        }
        // Optional: a run without it stays as it was.
        files.extend(Some(dir.join("empathy")).filter(|d| d.exists()));
        files
    }
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf> {
        super::models(dir).into_iter().chain(["zero_shot"]).map(|m| dir.evaluation(m)).collect()
    }

    fn run(&self, cx: &mut Context) -> Result<()> {
        let c = cx.config.clone();
        let world = World::open(&cx.dir)?;
        let lm = Lm::open(&c, &cx.dir, cx.engine)?;
        // A baseline from elsewhere may come without its choices; then the run's own are taken.
        let start = model_dir(&c, &cx.dir, MODELS[0]);
        let chosen = if start.join(Choices::FILE).exists() { start.clone() } else { cx.dir.baseline() };
        let choices = Choices::load(&chosen)?;
        let prompting = world.prompting(&c, &lm, choices.candidates);
        let stream = cx.stream.child("eval");
        let split = if c.eval.split == "valid" { Split::Valid } else { Split::Test };
        let mut dialogues = world.dialogues(split, 0)?;
        let mut prompts = world.prompts(&prompting, &dialogues)?;
        stream.child("prompts").rng().shuffle(&mut prompts);
        prompts.truncate(c.eval.prompts);
        stream.child("dialogues").rng().shuffle(&mut dialogues);
        dialogues.truncate(c.eval.dialogues);
        let windows = world.windows(&prompting, &dialogues)?;
        let baseline = lm.load(&start)?;
        let mut policy = lm.policy();

        let mut trained = Vec::new();
        for name in super::models(&cx.dir) {
            let params = &lm.load(&model_dir(&c, &cx.dir, name))?;
            let rows = nll(&mut policy, params, &windows, BUDGET)?;
            cx.note(&format!("{name}_{}_nll", split.name()), mean_nll(&rows));
            let run =
                measure(cx, &world, &lm, &mut policy, name, params, &baseline, &prompts, &rows, stream)?;
            let evaluation = Evaluation::new(run)?;
            let dir = cx.dir.evaluation(name);
            io::atomic_write(
                &dir.join("evaluation_results.json"),
                evaluation.results_json(REPLIES_FILE).as_bytes(),
            )?;
            let text = serde_json::to_vec(&evaluation.run)
                .map_err(|e| Error::internal(format!("write the replies of {name}: {e}")))?;
            io::atomic_write(&dir.join(REPLIES_FILE), &text)?;
            trained.push(rows);
        }
        if lm.is_pretrained() {
            let report = zero_shot(cx, &lm, &mut policy, &windows, &trained[0], stream)?;
            let text = serde_json::to_vec_pretty(&report)
                .map_err(|e| Error::internal(format!("write the zero-shot results: {e}")))?;
            io::atomic_write(&cx.dir.evaluation("zero_shot").join("evaluation_results.json"), &text)?;
        }
        Ok(())
    }
}

/// The directory of a model: the run's, or as configured.
fn model_dir(c: &Config, dir: &RunDir, name: &str) -> PathBuf {
    let given = match name {
        "baseline" => c.eval.baseline_path.as_str(),
        "rl_enhanced" => c.eval.rl_enhanced_path.as_str(),
        _ => "",
    };
    if given.is_empty() { dir.model(name) } else { PathBuf::from(given) }
}

/// Replies of one model with every score.
fn measure(
    cx: &Context,
    world: &World,
    lm: &Lm,
    policy: &mut Llama,
    name: &str,
    params: &Params,
    baseline: &Params,
    prompts: &[(Turn, Vec<u32>)],
    rows: &[Nll],
    stream: Stream,
) -> Result<ModelRun> {
    let c = &cx.config;
    cx.voice.say(&format!("eval: {} replies of {name}", prompts.len()));
    let decoding = Decoding {
        temperature: c.eval.temperature as f32,
        top_p: c.eval.top_p as f32,
        ..Decoding::plain(c.eval.max_new)
    };
    let tokens: Vec<Vec<u32>> = prompts.iter().map(|p| p.1.clone()).collect();
    let streams: Vec<Stream> = (0..prompts.len()).map(|i| stream.child("sample").at(i as u64)).collect();
    let done = lm.generator(c.eval.batch)?.generate(params, &tokens, decoding, &streams)?;
    let texts = done.iter().map(|d| lm.text(&d.tokens)).collect::<Result<Vec<_>>>()?;
    let replies: Vec<_> = prompts
        .iter()
        .zip(&texts)
        .zip(&done)
        .map(|((p, text), d)| reply(&p.0, text, d.finished, d.tokens.len()))
        .collect();

    let mut reward = composite(cx, world, Mode::Frozen)?;
    let mut path = cx.dir.rl_enhanced().join(NORMALISER_FILE);
    if !path.exists() {
        path = model_dir(c, &cx.dir, MODELS[1]).join(NORMALISER_FILE);
    }
    let state: NormaliserState = serde_json::from_slice(&io::read(&path)?)
        .map_err(|e| Error::data(format!("read {}", path.display())).got(e.to_string()))?;
    reward.set_state(state)?;
    // In batches of a rollout's size: diversity is measured against the batch, and the normaliser knows those.
    let mut breakdowns = Vec::with_capacity(replies.len());
    for part in replies.chunks(c.ppo.batch_size) {
        breakdowns.extend(reward.score(part)?);
    }
    let twin = empathy_eval(cx)?.score(&replies)?;
    let levels = match epitome_eval(cx)? {
        Some(mut c) => c.score(&replies)?,
        None => vec![None; replies.len()],
    };
    let feelings = seeker_emotions(cx, prompts)?;
    let mut critic = Scorer::load(&cx.dir.critic(), CRITIC_FILE, cx.engine)?;
    let inputs = prompts
        .iter()
        .zip(&texts)
        .map(|(p, text)| critic.encode_pair(&p.0.context, text, c.critic.max_length))
        .collect::<Result<Vec<_>>>()?;
    let heads = critic.outputs.len();
    let overall = critic.outputs.iter().position(|o| o == "overall").unwrap_or(0);
    let values: Vec<f64> = critic.score(&inputs)?.chunks(heads).map(|s| s[overall]).collect();
    let own = response_logp(policy, params, &tokens, &done, BUDGET)?;
    // The baseline is its own reference.
    let base = if name == MODELS[0] {
        own.clone()
    } else {
        response_logp(policy, baseline, &tokens, &done, BUDGET)?
    };

    let mut examples = Vec::with_capacity(replies.len());
    for (i, r) in replies.iter().enumerate() {
        let mut e = Example::new(&world.catalogue, r, u64::from(prompts[i].0.conv_id));
        e.reward = Some(breakdowns[i].clone());
        e.empathy_eval = twin[i];
        e.epitome_eval = levels[i];
        e.seeker_emotion.clone_from(&feelings[i]);
        e.kl = Some(own[i] - base[i]);
        e.critic_value = Some(values[i]);
        examples.push(e);
    }
    let reference_nll = rows
        .iter()
        .map(|r| ReferenceNll { conversation: u64::from(r.conv_id), nll: r.sum, tokens: r.tokens as u64 })
        .collect();
    Ok(ModelRun { model: name.into(), examples, reference_nll })
}

/// Likeliest emotion of the last seeker turn before each prompt, by the scorer that training never sees.
fn seeker_emotions(cx: &Context, prompts: &[(Turn, Vec<u32>)]) -> Result<Vec<Option<String>>> {
    let last = |p: &(Turn, Vec<u32>)| p.0.context.iter().rposition(|u| u.role == Role::Seeker);
    let at: Vec<Option<usize>> = prompts.iter().map(last).collect();
    let texts: Vec<&str> =
        prompts.iter().zip(&at).filter_map(|(p, at)| at.map(|at| p.0.context[at].text.as_str())).collect();
    let mut scored = emotion(cx, "evaluate")?.distribution(&texts)?.into_iter();
    let likeliest = |p: EmotionDistribution| {
        // The first of equals.
        let best = (0..p.len()).rev().max_by(|&a, &b| p[a].total_cmp(&p[b])).unwrap_or(0);
        EMOTIONS[best].to_owned()
    };
    Ok(at.iter().map(|at| at.and_then(|_| scored.next()).map(likeliest)).collect())
}

/// Likelihood before training, on the same targets and prompts, and its paired difference to the baseline.
fn zero_shot(
    cx: &mut Context,
    lm: &Lm,
    policy: &mut Llama,
    windows: &[Window],
    trained: &[Nll],
    stream: Stream,
) -> Result<Json> {
    let rows = nll(policy, &lm.untrained(), windows, BUDGET)?;
    let clusters: Vec<u64> = rows.iter().map(|r| u64::from(r.conv_id)).collect();
    let draws = Bootstrap { resamples: cx.config.eval.resamples, stream: stream.child("zero shot") }
        .draw(&clusters)?;
    let difference = |times: &[u32]| {
        let mean = |rows: &[Nll]| {
            let weigh = |f: &dyn Fn(&Nll) -> f64| -> f64 {
                rows.iter().zip(times).map(|(r, &t)| f64::from(t) * f(r)).sum()
            };
            weigh(&|r| r.sum) / weigh(&|r| r.tokens as f64)
        };
        Some(mean(&rows) - mean(trained))
    };
    let gain = difference(&vec![1; rows.len()]).unwrap_or(f64::NAN);
    let (low, high) = draws.interval(difference).unwrap_or((f64::NAN, f64::NAN));
    cx.note("zero_shot_test_nll", mean_nll(&rows));
    cx.note("fine_tuned_gain_nats", gain);
    cx.note("fine_tuned_gain_ci", json!([low, high]));
    Ok(json!({
        "model": "zero_shot",
        "test_nll": mean_nll(&rows),
        "target_tokens": rows.iter().map(|r| r.tokens).sum::<usize>(),
        "dialogues": rows.len(),
        "fine_tuned_gain_nats": gain,
        "ci_low": low,
        "ci_high": high,
    }))
}
