//! `dpo`: the baseline tuned on a file of preferences (TRL's JSONL), such as a round of MACPO leaves. The reference is
//! the baseline. Optional stage: `ecr train dpo --set preferences.path=FILE`.

use std::path::PathBuf;

use ecr_algos::dpo::{Pair, dpo_step, evaluate, pair_logps};
use ecr_algos::preference::Text;
use ecr_algos::sft::epoch_batches;
use ecr_core::{Error, Params, Result, io};
use ecr_models::chat::Message;
use serde_json::{Value as Json, json};

use crate::config::Config;
use crate::graph::{Context, Stage};
use crate::lm::Lm;
use crate::preferences;
use crate::rundir::RunDir;
use crate::world::Choices;

pub(super) struct Dpo;

impl Stage for Dpo {
    fn name(&self) -> &'static str {
        "dpo"
    }
    fn optional(&self) -> bool {
        true
    }
    fn settings(&self, c: &Config) -> Json {
        json!([c.dpo, c.preferences.epochs, c.policy, c.lora, c.eval.max_new, c.run.seed, c.run.precision])
    }
    fn inputs(&self, c: &Config, dir: &RunDir) -> Vec<PathBuf> {
        let mut files = super::policy_files(c, dir);
        files.extend([dir.baseline(), PathBuf::from(&c.preferences.path)]);
        files
    }
    fn outputs(&self, dir: &RunDir) -> Vec<PathBuf> {
        vec![dir.model("dpo")]
    }

    fn run(&self, cx: &mut Context) -> Result<()> {
        let c = cx.config.clone();
        if c.preferences.path.is_empty() {
            return Err(Error::config("train on preferences")
                .expected("preferences.path: a JSONL file with prompt, chosen and rejected")
                .got("nothing")
                .hint("a round of MACPO leaves such files in macpo/round-N/"));
        }
        let lm = Lm::open(&c, &cx.dir, cx.engine)?;
        let reference = lm.load(&cx.dir.baseline())?;
        let pairs = pairs(&lm, &c)?;
        let stream = cx.stream.child("dpo");
        let ones = vec![1; pairs.len()];
        let order: Vec<Vec<usize>> = (0..c.preferences.epochs)
            .flat_map(|e| epoch_batches(&ones, c.dpo.batch_size, stream, e))
            .collect();
        let cfg = ecr_algos::dpo::DpoConfig { steps: order.len().max(1) as u64, ..c.dpo.clone() };
        let mut policy = lm.policy();
        let logps = pair_logps(&mut policy, &reference, &pairs, cfg.micro_batch_tokens)?;
        let mut student = Params::from_data(reference.layout.clone(), reference.data.clone());
        student.make_trainable();
        let checkpoints = cx.checkpoints("dpo");
        let (mut done, mut log_len) = (0u64, 0u64);
        if let Some(found) = checkpoints.latest(|w| cx.voice.warn(w))? {
            found.restore("student", &mut student)?;
            (done, log_len) = (found.step, found.state()?);
        }
        let mut log = cx.log("dpo.metrics.jsonl", log_len)?;
        let mut progress = cx.progress("dpo", cfg.steps, done);
        while done < order.len() as u64 {
            let which = &order[done as usize];
            let some: Vec<Pair> = which.iter().map(|&i| pairs[i].clone()).collect();
            let base: Vec<_> = which.iter().map(|&i| logps[i]).collect();
            let metrics = dpo_step(&mut policy, &mut student, &some, &base, &cfg, done)?;
            let mut record = serde_json::Map::from_iter([("step".to_owned(), json!(done))]);
            record.extend(metrics.iter().map(|(k, v)| (k.to_string(), json!(v))));
            log.write(&record)?;
            done += 1;
            progress.tick("");
            let stop = cx.interrupted();
            if (stop || done.is_multiple_of(c.run.checkpoint_every)) && done < order.len() as u64 {
                let len = log.sync()?;
                checkpoints.save(done, &len, &[("student", &student)])?;
                if stop {
                    return Err(cx.stopped("dpo", done, cfg.steps));
                }
            }
        }
        drop(progress);
        let (loss, accuracy) = evaluate(&mut policy, &student, &pairs, &logps, &cfg)?;
        cx.note("pairs", pairs.len());
        cx.note("train_loss", loss);
        cx.note("train_accuracy", accuracy);
        cx.note(
            "reference",
            io::blake3(&reference.data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>()),
        );
        let dir = cx.dir.model("dpo");
        lm.save(&dir, &student)?;
        Choices::load(&cx.dir.baseline())?.save(&dir)
    }
}

/// The file's pairs in the policy's tokens. A prompt of messages goes through the chat template; one of text is taken as
/// it is. Prompts are cut from the left, responses end with the end token.
fn pairs(lm: &Lm, c: &Config) -> Result<Vec<Pair>> {
    let end = lm.chat.end_id(&lm.tokenizer)?;
    let response = |text: &str| -> Result<Vec<u32>> {
        let mut ids = lm.tokenizer.encode(&lm.tokenizer.strip_specials(text))?;
        ids.truncate(c.eval.max_new.saturating_sub(1).max(1));
        ids.push(end);
        Ok(ids)
    };
    let mut out = Vec::new();
    for p in preferences::read(std::path::Path::new(&c.preferences.path))? {
        let mut prompt = match &p.prompt {
            Text::Plain(text) => lm.tokenizer.encode(text)?,
            Text::Messages(said) => {
                let messages: Vec<Message> = said
                    .iter()
                    .map(|m| {
                        let text = lm.tokenizer.strip_specials(&m.content);
                        match m.role.as_str() {
                            "assistant" => Message::assistant(text),
                            "system" => Message::system(text),
                            _ => Message::user(text),
                        }
                    })
                    .collect();
                lm.chat.encode_prompt(&messages, &lm.tokenizer)?
            }
        };
        prompt.drain(..prompt.len().saturating_sub(c.policy.context_max));
        out.push(Pair {
            prompt,
            chosen: response(preferences::text(&p.chosen))?,
            rejected: response(preferences::text(&p.rejected))?,
            weight: 1.0,
        });
    }
    Ok(out)
}
