//! LoRA adapters in PEFT's format.

use std::path::Path;

use ecr_core::{Params, Result, io};
use serde_json::json;

use super::{save_json, save_params};
use crate::LoraConfig;

/// Writes `adapter_model.safetensors` and `adapter_config.json`; `base` names the model that it adapts (a hub
/// name or a path relative to the adapter).
pub fn save_adapter(dir: &Path, lora: &LoraConfig, params: &Params, base: &str) -> Result<()> {
    io::create_dir_all(dir)?;
    save_params(&dir.join("adapter_model.safetensors"), params, "")?;
    let targets: Vec<_> = lora.targets.iter().map(|p| p.name()).collect();
    save_json(
        &dir.join("adapter_config.json"),
        &json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": lora.rank, "lora_alpha": lora.alpha,
            "lora_dropout": 0.0, "target_modules": targets, "bias": "none", "fan_in_fan_out": false,
            "use_rslora": false, "base_model_name_or_path": base, "inference_mode": true,
        }),
    )
}
