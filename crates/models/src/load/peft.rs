//! LoRA adapters in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.

use std::path::Path;
use std::sync::Arc;

use ecr_core::{Error, Params, Result};
use serde_json::Value as Json;

use super::hf_dir::read_json;
use super::{fill_params, safetensors, some_names};
use crate::{LlamaConfig, LoraConfig, Proj, lora_layout};

/// Reads an adapter of a model of this shape.
///
/// # Errors
/// [`ecr_core::Kind::Data`] for another kind of adapter, a variant that is not supported, or tensors that do not
/// fit the model.
pub fn load_adapter(dir: &Path, model: &LlamaConfig) -> Result<(LoraConfig, Params)> {
    let config = read_json(&dir.join("adapter_config.json"))?;
    let lora = parse_config(&config, &dir.join("adapter_config.json").display().to_string())?;
    let file = dir.join("adapter_model.safetensors");
    let what = file.display().to_string();
    let mut tensors: super::TensorMap = safetensors::read(&file)?
        .into_iter()
        .map(|(k, t)| (k.replace(".default.weight", ".weight"), t))
        .collect();
    // The rank is the file's to prove before it sizes anything.
    if let Some((name, t)) = tensors.iter().find(|(k, _)| k.ends_with("lora_A.weight"))
        && t.shape.first() != Some(&lora.rank)
    {
        return Err(Error::data(format!("load {what}"))
            .expected(format!("rank {}, as adapter_config.json says", lora.rank))
            .got(format!("{name} of shape {:?}", t.shape)));
    }
    if lora.rank > tensors.values().map(|t| t.data.len()).sum() {
        return Err(Error::data(format!("load {what}"))
            .expected(format!("rank {}", lora.rank))
            .got("fewer values"));
    }
    let params = fill_params(&Arc::new(lora_layout(model, &lora)), &mut tensors, &what)?;
    if !tensors.is_empty() {
        return Err(Error::data(format!("load {what}"))
            .expected("only the adapters that adapter_config.json names")
            .got(format!("also {}", some_names(&tensors))));
    }
    Ok((lora, params))
}

fn parse_config(v: &Json, what: &str) -> Result<LoraConfig> {
    let bad = |expected: &str, got: String| Error::data(format!("read {what}")).expected(expected).got(got);
    let show = |key: &str| v.get(key).map_or_else(|| format!("no {key}"), |x| format!("{key} = {x}"));
    if v.get("peft_type").and_then(Json::as_str) != Some("LORA") {
        return Err(bad("peft_type LORA", show("peft_type")));
    }
    for key in ["use_rslora", "use_dora", "fan_in_fan_out"] {
        if v.get(key).and_then(Json::as_bool) == Some(true) {
            return Err(bad("a plain LoRA", show(key)));
        }
    }
    if v.get("bias").and_then(Json::as_str).is_some_and(|b| b != "none") {
        return Err(bad("bias none", show("bias")));
    }
    for key in ["rank_pattern", "alpha_pattern", "modules_to_save", "layers_to_transform"] {
        let empty = match v.get(key) {
            None | Some(Json::Null) => true,
            Some(Json::Object(o)) => o.is_empty(),
            Some(Json::Array(a)) => a.is_empty(),
            Some(_) => false,
        };
        if !empty {
            return Err(bad("the same adapter everywhere", show(key)));
        }
    }
    let rank = v.get("r").and_then(Json::as_u64).filter(|&r| r > 0 && r < 1 << 16);
    let rank = rank.ok_or_else(|| bad("a positive rank r", show("r")))? as usize;
    let alpha = v.get("lora_alpha").and_then(Json::as_f64).filter(|a| a.is_finite());
    let alpha = alpha.ok_or_else(|| bad("a number lora_alpha", show("lora_alpha")))?;
    let targets = match v.get("target_modules") {
        Some(Json::Array(names)) if !names.is_empty() => {
            names.iter().map(|n| Proj::parse(n.as_str().unwrap_or_default())).collect::<Result<Vec<_>>>()?
        }
        Some(Json::String(s)) if s == "all-linear" => Proj::ALL.to_vec(),
        _ => return Err(bad("a list of target_modules", show("target_modules"))),
    };
    Ok(LoraConfig::new(rank, alpha, &targets))
}
