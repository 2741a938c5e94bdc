//! What most stages read: dialogues, examples, catalogue, recommender, prompting.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ecr_core::{Error, Result, io};
use ecr_data::catalogue::Catalogue;
use ecr_data::recommend::{Cooccurrence, Interactions};
use ecr_data::records::{Example, examples, read_jsonl};
use ecr_data::redial::{Dialogue, Split};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::lm::Lm;
use crate::prompting::{Prompting, Window};
use crate::rundir::RunDir;

/// Prepared data of a run.
pub struct World {
    /// Films.
    pub catalogue: Arc<Catalogue>,
    /// Co-occurrence counted on training interactions.
    pub recommender: Arc<Cooccurrence>,
    processed: PathBuf,
}

/// Choices that go with a trained policy, in its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choices {
    /// Candidates listed before each recommender turn.
    pub candidates: usize,
}

impl Choices {
    /// Its name there.
    pub const FILE: &str = "ecr_prompting.json";
    /// Reads the choices of a policy's directory.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(Self::FILE);
        serde_json::from_slice(&io::read(&path)?)
            .map_err(|e| Error::data(format!("read {}", path.display())).got(e.to_string()))
    }
    /// Writes them.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|e| Error::internal(format!("write choices: {e}")))?;
        io::atomic_write(&dir.join(Self::FILE), &text)
    }
}

impl World {
    /// Opens the prepared data of a run.
    pub fn open(dir: &RunDir) -> Result<Self> {
        let processed = dir.data().join("processed");
        let catalogue = Arc::new(Catalogue::read(&processed.join("catalogue.jsonl"))?);
        let interactions = Interactions::read(&processed.join("interactions.jsonl"), Split::Train)?;
        Ok(Self { catalogue, recommender: Arc::new(Cooccurrence::tuned(&interactions)), processed })
    }
    /// Dialogues of a split, at most `limit` (0 = all).
    pub fn dialogues(&self, split: Split, limit: usize) -> Result<Vec<Dialogue>> {
        let path = self.processed.join(format!("{}_dialogues.jsonl", split.name()));
        let mut d: Vec<Dialogue> = read_jsonl(&path)?;
        if limit > 0 {
            d.truncate(limit);
        }
        Ok(d)
    }
    /// How conversations become tokens, with this many candidates.
    pub fn prompting(&self, config: &Config, lm: &Lm, candidates: usize) -> Prompting {
        Prompting {
            tokenizer: lm.tokenizer.clone(),
            chat: lm.chat.clone(),
            system: config.policy.system.clone(),
            candidates,
            context_max: config.policy.context_max,
            window_max: config.policy.window_max,
        }
    }
    /// Training windows of dialogues.
    pub fn windows(&self, prompting: &Prompting, dialogues: &[Dialogue]) -> Result<Vec<Window>> {
        let mut out = Vec::new();
        for d in dialogues {
            out.extend(prompting.windows(d, self.recommender.as_ref(), &self.catalogue)?);
        }
        Ok(out)
    }
    /// Prompts of recommender turns: example and prompt tokens, in the order of dialogues. Turns that open a
    /// conversation are left out: there is nothing yet to answer.
    pub fn prompts(&self, prompting: &Prompting, dialogues: &[Dialogue]) -> Result<Vec<(Example, Vec<u32>)>> {
        let mut out = Vec::new();
        for d in dialogues {
            for e in examples(d).into_iter().filter(|e| !e.context.is_empty()) {
                let tokens = prompting.prompt(d, e.turn_idx, self.recommender.as_ref(), &self.catalogue)?;
                out.push((e, tokens));
            }
        }
        Ok(out)
    }
}
