//! From-scratch initialisation (GPT-2's): matrices N(0, 0.02²), output projections of residual branches scaled by
//! `1/√(2·layers)`, norms 1, biases 0.

use std::sync::Arc;

use ecr_core::{Layout, Params, Stream};

/// Fresh parameters of a layout; `layers`: residual blocks. Each tensor draws from a stream of its own name.
pub fn fresh(layout: Layout, layers: usize, stream: Stream) -> Params {
    let layout = Arc::new(layout);
    let mut p = Params::zeros(layout.clone());
    for t in &layout.tensors {
        let values = &mut p.data[t.range()];
        if t.shape.len() == 1 {
            values.fill(if t.name.ends_with("bias") { 0.0 } else { 1.0 });
            continue;
        }
        let residual = ["o_proj", "down_proj", "output.dense"].iter().any(|s| t.name.contains(s));
        let std = if residual { 0.02 / (2.0 * layers as f64).sqrt() } else { 0.02 };
        let mut draws = stream.child(&t.name).rng();
        values.iter_mut().for_each(|v| *v = (std * draws.normal()) as f32);
    }
    p
}

/// A fresh LoRA adapter: `A` N(0, 1/√in) as PEFT's Kaiming-like start, `B` zero, so that it begins as the base.
pub fn adapter(layout: Arc<Layout>, stream: Stream) -> Params {
    let mut p = Params::zeros(layout.clone());
    for t in layout.tensors.iter().filter(|t| t.name.contains("lora_A")) {
        let std = 1.0 / (t.shape[1] as f64).sqrt();
        let mut draws = stream.child(&t.name).rng();
        p.data[t.range()].iter_mut().for_each(|v| *v = (std * draws.normal()) as f32);
    }
    p
}
