//! Where everything lies in a run directory. No time stamps in names; checkpoints lie outside `models/`.

use std::path::{Path, PathBuf};

/// A run directory.
#[derive(Debug, Clone)]
pub struct RunDir {
    root: PathBuf,
}

impl RunDir {
    /// The directory itself.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }
    /// Its root.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// A path below the root.
    pub fn join(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
    /// A path as results name it: relative to the root.
    pub fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }
    /// `data/`.
    pub fn data(&self) -> PathBuf {
        self.join("data")
    }
    /// `data/labelled/`.
    pub fn labelled(&self) -> PathBuf {
        self.data().join("labelled")
    }
    /// `emotion/SCORER/`.
    pub fn emotion(&self, scorer: &str) -> PathBuf {
        self.join("emotion").join(scorer)
    }
    /// `empathy/SCORER/`: classifiers of EPITOME's levels.
    pub fn empathy(&self, scorer: &str) -> PathBuf {
        self.join("empathy").join(scorer)
    }
    /// `critic_pretrained/`.
    pub fn critic(&self) -> PathBuf {
        self.join("critic_pretrained")
    }
    /// `models/baseline_ecr/`.
    pub fn baseline(&self) -> PathBuf {
        self.join("models/baseline_ecr")
    }
    /// `models/rl_enhanced_ecr/`.
    pub fn rl_enhanced(&self) -> PathBuf {
        self.join("models/rl_enhanced_ecr")
    }
    /// The directory of a model by the name that evaluations use: `baseline`, `rl_enhanced`, or the algorithm that made
    /// it (`models/ALGORITHM_enhanced/`).
    pub fn model(&self, name: &str) -> PathBuf {
        match name {
            "baseline" => self.baseline(),
            "rl_enhanced" | "ppo" => self.rl_enhanced(),
            other => self.join("models").join(format!("{other}_enhanced")),
        }
    }
    /// `evaluation_results/MODEL/`.
    pub fn evaluation(&self, model: &str) -> PathBuf {
        self.join("evaluation_results").join(model)
    }
    /// `checkpoints/STAGE/`.
    pub fn checkpoints(&self, stage: &str) -> PathBuf {
        self.join("checkpoints").join(stage)
    }
    /// `logs/NAME`.
    pub fn log(&self, name: &str) -> PathBuf {
        self.join("logs").join(name)
    }
}
