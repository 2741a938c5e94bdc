//! Where a model lies: nothing is ever downloaded, a name either resolves to a directory or file that is there,
//! or the error says exactly what to put where.

use std::path::{Path, PathBuf};

use ecr_core::{Error, Result, io};

/// Names of weight files inside a model directory, in order of preference.
const WEIGHT_FILES: [&str; 3] =
    ["model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"];

/// Where names of models are looked up, besides as a path.
#[derive(Debug, Clone, Default)]
pub struct ModelDirs {
    /// Directories that hold `NAME/` each (the caller puts `$ECR_MODELS` and its default here).
    pub models: Vec<PathBuf>,
    /// HuggingFace hub caches (`models--ORG--NAME/snapshots/HASH/`).
    pub hub: Vec<PathBuf>,
}

/// Finds the directory or GGUF file of a model: an existing path, `models/NAME`, a single GGUF in it, then the
/// hub caches. `name` may hold an organisation (`FacebookAI/roberta-base`).
///
/// # Errors
/// [`ecr_core::Kind::Config`] naming every place that was looked at and the files to put there.
pub fn resolve_model(name: &str, dirs: &ModelDirs) -> Result<PathBuf> {
    let short = name.rsplit('/').next().unwrap_or(name);
    let mut tried = vec![PathBuf::from(name)];
    for d in &dirs.models {
        for n in [name, short, &short.to_lowercase()] {
            let p = d.join(n);
            if !tried.contains(&p) {
                tried.push(p);
            }
        }
    }
    for p in &tried {
        if let Some(found) = usable(p) {
            return Ok(found);
        }
    }
    for hub in &dirs.hub {
        let wanted = format!("models--{}", name.replace('/', "--"));
        let ending = format!("--{short}");
        for repo in list(hub) {
            let n = repo.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if n == wanted || (!name.contains('/') && n.starts_with("models--") && n.ends_with(&ending)) {
                for snapshot in list(&repo.join("snapshots")) {
                    if let Some(found) = usable(&snapshot) {
                        return Ok(found);
                    }
                }
            }
        }
        tried.push(hub.join(wanted).join("snapshots"));
    }
    let home = dirs.models.first().map_or_else(|| PathBuf::from(name), |d| d.join(short));
    let places: Vec<_> = tried.iter().map(|p| p.display().to_string()).collect();
    Err(Error::config(format!("find the model {name}"))
        .expected("a directory with config.json, tokenizer.json and model.safetensors, or one .gguf file")
        .got(format!("nothing of the kind at {}", places.join(", ")))
        .hint(format!(
            "put config.json, tokenizer.json and model.safetensors of {name} into {} (nothing is downloaded), or \
             give a path",
            home.display()
        )))
}

/// The path itself if it is a usable file or model directory, or the single GGUF file inside it.
fn usable(p: &Path) -> Option<PathBuf> {
    if p.is_file() {
        return Some(p.to_owned());
    }
    if !p.is_dir() {
        return None;
    }
    if p.join("config.json").is_file() && WEIGHT_FILES.iter().any(|f| p.join(f).is_file()) {
        return Some(p.to_owned());
    }
    let mut ggufs = list(p).into_iter().filter(|f| f.extension().is_some_and(|x| x == "gguf"));
    match (ggufs.next(), ggufs.next()) {
        (Some(one), None) => Some(one),
        _ => None,
    }
}

/// Directory entries in name order; none if it cannot be read: then nothing usable is there.
fn list(dir: &Path) -> Vec<PathBuf> {
    io::read_dir_sorted(dir).unwrap_or_default()
}

/// The weights meant by a path: a directory's weight file; a `.pth`, `.pt` or `.bin` path means the safetensors
/// beside it (`x.pth` → `x.safetensors`, else `model.safetensors`), as pickles are not read.
///
/// # Errors
/// [`ecr_core::Kind::Config`] if there is none.
pub fn resolve_weights(path: &Path) -> Result<PathBuf> {
    let pickle = path.extension().is_some_and(|x| x == "pth" || x == "pt" || x == "bin");
    let mut tried = Vec::new();
    if pickle {
        tried.push(path.with_extension("safetensors"));
        if let Some(dir) = path.parent() {
            // The guide's names: critic_pretrained_final.pth lies as critic_pretrained_final.safetensors.
            tried.extend(WEIGHT_FILES.iter().map(|f| dir.join(f)));
        }
    } else if path.is_dir() {
        tried.extend(WEIGHT_FILES.iter().map(|f| path.join(f)));
    } else {
        tried.push(path.to_owned());
    }
    if let Some(found) = tried.iter().find(|p| p.is_file()) {
        return Ok(found.clone());
    }
    let places: Vec<_> = tried.iter().map(|p| p.display().to_string()).collect();
    let mut e = Error::config(format!("find the weights {}", path.display()))
        .expected(format!("one of {}", places.join(", ")))
        .got("none of them exists");
    if pickle {
        e = e.hint("pickles are not read: save the weights as safetensors beside the .pth file");
    }
    Err(e)
}
