//! Checkpoints of a stage: committed directories `checkpoints/STAGE/step-N`, the last two kept.
//!
//! A checkpoint holds values and moments of named parameters, and whatever else the stage needs as JSON. There is no
//! random state to save: draws are named by seed, purpose and step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ecr_core::{Error, Params, Result, io};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Checkpoints kept.
const KEEP: usize = 2;

/// Steps of an encoder (emotion, critic) between checkpoints, for each of `run.checkpoint_every`: its steps are
/// short, and its moments are those of all weights.
pub const ENCODER_STEPS: u64 = 10;

/// Writes and finds the checkpoints of one stage.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    dir: PathBuf,
}

/// A verified checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    /// Steps done.
    pub step: u64,
    dir: PathBuf,
    files: BTreeMap<String, Vec<u8>>,
}

impl Checkpoints {
    /// In this directory.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }
    /// Steps of the directories found, ascending.
    fn steps(&self) -> Result<Vec<(u64, PathBuf)>> {
        let mut found: Vec<(u64, PathBuf)> = io::read_dir_sorted(&self.dir)?
            .into_iter()
            .filter_map(|p| {
                let step = p.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok()?;
                Some((step, p))
            })
            .collect();
        found.sort();
        Ok(found)
    }
    /// Writes the checkpoint after `step` steps and drops all but the last two.
    pub fn save(&self, step: u64, state: &impl Serialize, params: &[(&str, &Params)]) -> Result<()> {
        let state =
            serde_json::to_vec(state).map_err(|e| Error::internal(format!("write a checkpoint: {e}")))?;
        let mut files: Vec<(String, Vec<u8>)> = vec![("state.json".into(), state)];
        for (name, p) in params {
            files.push((format!("{name}.step"), p.step.to_le_bytes().to_vec()));
            for (part, values) in [("data", &p.data), ("m", &p.m), ("v", &p.v)] {
                let mut bytes = Vec::with_capacity(4 * values.len());
                values.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
                files.push((format!("{name}.{part}"), bytes));
            }
        }
        let refs: Vec<(&str, &[u8])> = files.iter().map(|(n, b)| (n.as_str(), b.as_slice())).collect();
        io::commit_dir(&self.dir.join(format!("step-{step}")), &refs)?;
        let found = self.steps()?;
        for (_, old) in &found[..found.len().saturating_sub(KEEP)] {
            io::remove_dir_all(old)?;
        }
        Ok(())
    }
    /// The newest checkpoint that is whole; damaged ones are named to `warn` and the one before is tried.
    pub fn latest(&self, mut warn: impl FnMut(&str)) -> Result<Option<Checkpoint>> {
        for (step, dir) in self.steps()?.into_iter().rev() {
            match io::read_committed(&dir) {
                Ok(files) => return Ok(Some(Checkpoint { step, dir, files })),
                Err(e) => warn(&format!("checkpoint {} is damaged and not used\n  {e}", dir.display())),
            }
        }
        Ok(None)
    }
    /// Removes all, when the stage is done or to be run afresh.
    pub fn clear(&self) -> Result<()> {
        io::remove_dir_all(&self.dir)
    }
}

impl Checkpoint {
    fn file(&self, name: &str) -> Result<&[u8]> {
        self.files.get(name).map(Vec::as_slice).ok_or_else(|| self.error(name, "no such file"))
    }
    fn error(&self, name: &str, got: impl Into<String>) -> Error {
        Error::data(format!("read {name} of checkpoint {}", self.dir.display()))
            .got(got)
            .hint("it was written by another version or configuration: run the stage with --force")
    }
    /// What was given to [`Checkpoints::save`].
    pub fn state<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(self.file("state.json")?).map_err(|e| self.error("state.json", e.to_string()))
    }
    /// Restores values and moments.
    pub fn restore(&self, name: &str, p: &mut Params) -> Result<()> {
        let floats = |part: &str| -> Result<Vec<f32>> {
            let file = format!("{name}.{part}");
            let bytes = self.file(&file)?;
            let (chunks, rest) = bytes.as_chunks::<4>();
            if !rest.is_empty() {
                return Err(self.error(&file, format!("{} bytes", bytes.len())));
            }
            Ok(chunks.iter().map(|c| f32::from_le_bytes(*c)).collect())
        };
        let data = floats("data")?;
        if data.len() != p.layout.len {
            return Err(self.error(name, format!("{} parameters instead of {}", data.len(), p.layout.len)));
        }
        let step = self.file(&format!("{name}.step"))?;
        p.step =
            step.try_into().map(u64::from_le_bytes).map_err(|_| self.error(name, "a short step count"))?;
        (p.data, p.m, p.v) = (data, floats("m")?, floats("v")?);
        p.touch();
        Ok(())
    }
    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ecr_core::Layout;

    use super::*;

    fn params(x: f32) -> Params {
        let mut l = Layout::new();
        l.push("w", &[3], true);
        let mut p = Params::from_data(Arc::new(l), vec![x; 3]);
        p.make_trainable();
        p.m.fill(x + 1.0);
        p.step = 7;
        p
    }

    #[test]
    fn restores_bits_keeps_two_and_falls_back_from_damage() {
        let dir = std::env::temp_dir().join(format!("ecr-checkpoints-{}", std::process::id()));
        io::remove_dir_all(&dir).unwrap();
        let c = Checkpoints::new(dir.clone());
        assert!(c.latest(|_| ()).unwrap().is_none());
        for step in [2, 9, 10] {
            c.save(step, &step, &[("policy", &params(step as f32))]).unwrap();
        }
        assert_eq!(io::read_dir_sorted(&dir).unwrap().len(), 2);
        let found = c.latest(|_| panic!("nothing is damaged")).unwrap().unwrap();
        assert_eq!((found.step, found.state::<u64>().unwrap()), (10, 10));
        let mut p = params(0.0);
        found.restore("policy", &mut p).unwrap();
        assert_eq!((p.data[0], p.m[0], p.v[0], p.step), (10.0, 11.0, 0.0, 7));
        // One flipped bit: the checkpoint before is used, and the damage is named.
        let file = dir.join("step-10/policy.data");
        let mut bytes = io::read(&file).unwrap();
        bytes[3] ^= 1;
        io::atomic_write(&file, &bytes).unwrap();
        let mut warned = String::new();
        let found = c.latest(|w| warned = w.to_string()).unwrap().unwrap();
        assert_eq!(found.step, 9);
        assert!(warned.contains("step-10") && warned.contains("policy.data"));
        c.clear().unwrap();
    }
}
