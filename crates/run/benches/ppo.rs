//! One PPO update after the other, the same work as TRL's in the peers' trl_ppo.py: 16 prompts of 64 tokens, 16 responses
//! of exactly 48, log-probabilities of policy and reference, values, GAE, four epochs of one minibatch of 16.
//! `cargo bench -p ecr-run --bench ppo -- --mode lora|full --precision f32|bf16 [--updates 4]`
//!
//! Prints one JSON line; seconds are medians without the first update. The model has SmolLM2-135M's shape and fresh
//! weights; the reward, the share of even tokens, costs nothing. Unlike TRL's, the value function is a head on the frozen
//! trunk of the reference, not a second model trained in full: that is what the product does.

use std::sync::Arc;
use std::time::Instant;

use ecr_algos::ppo::{PpoConfig, PpoState, Rollout, ppo_step};
use ecr_core::seam::{Decoding, Generator};
use ecr_core::{Params, Stream};
use ecr_kernels::{Engine, Precision};
use ecr_models::generate::LlamaGenerator;
use ecr_models::value::TrunkValue;
use ecr_models::{Base, Frozen, Llama, LlamaConfig, LoraConfig, Proj, init};

const PROMPTS: usize = 16;
const PROMPT: usize = 64;
const RESPONSE: usize = 48;

fn shape() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 49152,
        hidden_size: 576,
        intermediate_size: 1536,
        num_layers: 30,
        num_heads: 9,
        num_kv_heads: 3,
        head_dim: 64,
        rope_theta: 1e5,
        rms_norm_eps: 1e-5,
        max_position_embeddings: 2048,
        tie_word_embeddings: true,
    }
}

fn median(mut x: Vec<f64>) -> f64 {
    x.sort_by(f64::total_cmp);
    x[x.len() / 2]
}

/// Largest resident set so far, MB, from the kernel's own account.
fn peak_rss_mb() -> u64 {
    let status = ecr_core::io::read_to_string(std::path::Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|x| x.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn main() -> ecr_core::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let get = |name: &str, default: &str| {
        args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned().unwrap_or(default.into())
    };
    let (mode, precision) = (get("--mode", "lora"), get("--precision", "f32"));
    let updates: u64 = get("--updates", "4").parse().unwrap_or(4).max(2);
    let e = Engine::detect(if precision == "bf16" { Precision::Bf16 } else { Precision::F32 });
    let all = init::fresh(shape().layout(), shape().num_layers, Stream::new(2));
    let (mut policy, trunk, mut generator, mut params): (Llama, Llama, LlamaGenerator, Params) =
        if mode == "lora" {
            let frozen = Arc::new(Frozen::consume(shape(), e, all));
            let base = Base::new(frozen, LoraConfig::new(16, 32.0, &[Proj::Q, Proj::V]));
            let adapter = init::adapter(base.adapter_layout(), Stream::new(3));
            let generator = LlamaGenerator::adapted(base.clone(), e, vec![], PROMPTS);
            (Llama::adapted(base.clone(), e), Llama::adapted(base, e), generator, adapter)
        } else {
            let generator = LlamaGenerator::full(shape(), e, vec![], PROMPTS);
            (Llama::full(shape(), e), Llama::full(shape(), e), generator, all)
        };
    let reference = params.frozen_copy();
    params.make_trainable();
    let mut value = TrunkValue::new(trunk, reference.frozen_copy(), 64);
    let mut head = value.fresh(Stream::new(4));
    head.make_trainable();
    let cfg = PpoConfig {
        learning_rate: 1e-6,
        steps: updates,
        batch_size: PROMPTS,
        minibatch_size: PROMPTS,
        ppo_epochs: 4,
        micro_batch_tokens: 1024,
        missing_eos_penalty: 0.0,
        ratio_tolerance: 1e-3,
        ..PpoConfig::default()
    };
    let mut state = PpoState::new(&cfg);
    let stream = Stream::new(5);
    let decoding = Decoding::plain(RESPONSE);
    let (mut rollout, mut total) = (Vec::new(), Vec::new());
    for update in 0..updates {
        let mut draws = stream.child("prompts").at(update).rng();
        let prompts: Vec<Vec<u32>> =
            (0..PROMPTS).map(|_| (0..PROMPT).map(|_| 100 + draws.below(49_000) as u32).collect()).collect();
        let streams: Vec<Stream> =
            (0..PROMPTS as u64).map(|i| stream.child("sample").at(update).at(i)).collect();
        let start = Instant::now();
        let done = generator.generate(&params, &prompts, decoding, &streams)?;
        let rolled = start.elapsed().as_secs_f64();
        let rollouts: Vec<Rollout> = prompts
            .into_iter()
            .zip(done)
            .map(|(prompt, d)| {
                let even = d.tokens.iter().filter(|&&t| t % 2 == 0).count();
                let score = even as f64 / d.tokens.len() as f64;
                Rollout { prompt, score, finished: false, response: d.tokens }
            })
            .collect();
        assert!(rollouts.iter().all(|r| r.response.len() == RESPONSE));
        value.forget();
        let stats = ppo_step(
            &mut policy,
            &mut value,
            &mut params,
            &mut head,
            &reference,
            &rollouts,
            decoding,
            &cfg,
            &mut state,
            stream,
            update,
        )?;
        assert!(stats.metrics.get("updates/applied").is_some_and(|n| n >= 1.0));
        if update > 0 {
            rollout.push(rolled);
            total.push(start.elapsed().as_secs_f64());
        }
    }
    let (rollout, total) = (median(rollout), median(total));
    let tokens = (PROMPTS * RESPONSE) as f64;
    println!(
        "{{\"bench\":\"ecr_ppo\",\"mode\":\"{mode}\",\"kernels\":\"{}\",\"seconds\":{{\"total\":{total:.2},\"rollout\":{rollout:.2},\"rest\":{:.2}}},\"response_tok_s\":{:.2},\"rollout_tok_s\":{:.1},\"peak_rss_mb\":{}}}",
        e.name(),
        total - rollout,
        tokens / total,
        tokens / rollout,
        peak_rss_mb()
    );
    Ok(())
}
