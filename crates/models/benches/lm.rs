//! Training steps and decoding of a SmolLM2-shaped model, the same work as PyTorch's in the peers' script:
//! `cargo bench -p ecr-models --bench lm -- train --mode lora|full --precision f32|bf16 [--batch 2] [--tokens 128]`
//! `cargo bench -p ecr-models --bench lm -- decode --precision f32|bf16 [--store bf16] [--batch 8]`
//! Either with `--tier portable|avx2|avx512` to take other kernels than the CPU's best.
//! Prints one JSON line; `tok_s` is from the median step.

use std::sync::Arc;
use std::time::Instant;

use ecr_core::optim::{AdamW, clip_grad_norm};
use ecr_core::seam::{Decoding, Generator, Pass, Policy};
use ecr_core::{Packed, Stream};
use ecr_kernels::{Engine, Precision};
use ecr_models::generate::LlamaGenerator;
use ecr_models::{Base, Frozen, Llama, LlamaConfig, LoraConfig, Proj, init};

fn smol() -> LlamaConfig {
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

/// Processor time used so far by all threads, ms: on a shared machine steadier than the clock.
fn cpu_ms() -> f64 {
    let stat = ecr_core::io::read_to_string(std::path::Path::new("/proc/self/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|x| x.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) * 10.0
}

/// Largest resident set so far, MB, from the kernel's own account.
fn peak_rss_mb() -> u64 {
    let status = ecr_core::io::read_to_string(std::path::Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or("");
    line.split_whitespace().nth(1).and_then(|x| x.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn main() {
    let args: Vec<String> = std::env::args().filter(|a| a != "--bench").collect();
    let get = |name: &str, default: &str| {
        args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned().unwrap_or(default.into())
    };
    let number = |name: &str, default: usize| get(name, "").parse().unwrap_or(default);
    let precision = if get("--precision", "f32") == "bf16" { Precision::Bf16 } else { Precision::F32 };
    let e = match get("--tier", "").as_str() {
        "" => Engine::detect(precision),
        name => Engine::available_tiers()
            .into_iter()
            .find(|t| t.name() == name)
            .and_then(|t| Engine::with_tier(t, precision))
            .unwrap_or_else(|| panic!("this CPU has no tier {name}")),
    };
    let config = smol();
    let steps = number("--steps", 6);
    let mut draws = Stream::new(1).child("ids").rng();
    let mut random = |n: usize| -> Vec<u32> { (0..n).map(|_| draws.below(49152) as u32).collect() };
    let mut times = Vec::new();
    if args.iter().any(|a| a == "train") {
        let (batch, tokens, mode) = (number("--batch", 2), number("--tokens", 128), get("--mode", "lora"));
        let mut all = init::fresh(config.layout(), config.num_layers, Stream::new(2));
        let (mut llama, mut params) = if mode == "lora" {
            let frozen = Arc::new(Frozen::consume(config.clone(), e, all));
            let base = Base::new(frozen, LoraConfig::new(16, 32.0, &[Proj::Q, Proj::V]));
            let mut adapter = init::adapter(base.adapter_layout(), Stream::new(3));
            adapter.make_trainable();
            (Llama::adapted(base, e), adapter)
        } else {
            all.make_trainable();
            (Llama::full(config, e), all)
        };
        let mut cpu = 0.0;
        for step in 0..steps + 2 {
            if step == 2 {
                cpu = cpu_ms();
            }
            let mut b = Packed::new();
            for _ in 0..batch {
                b.push(&random(tokens + 1), &vec![true; tokens + 1]);
            }
            let n = b.n_scored();
            let t = Instant::now();
            let s = llama.forward(&params, &b, Pass::TRAIN).unwrap_or_else(|e| panic!("{e}"));
            params.zero_grad();
            llama
                .backward(&mut params, &vec![-1.0 / n as f32; n], &vec![0.0; n])
                .unwrap_or_else(|e| panic!("{e}"));
            clip_grad_norm(&mut params, 1.0);
            AdamW::default().step(&mut params, 1e-4);
            if step >= 2 {
                times.push(t.elapsed().as_secs_f64());
            }
            assert!(s.logp[0].is_finite());
        }
        let cpu = (cpu_ms() - cpu) / steps as f64;
        let m = median(times);
        let tok_s = (batch * tokens) as f64 / m;
        println!(
            "{{\"bench\":\"ecr_lm\",\"what\":\"train\",\"mode\":\"{mode}\",\"kernels\":\"{}\",\"batch\":{batch},\"tokens\":{tokens},\"tok_s\":{tok_s:.1},\"ms\":{:.1},\"cpu_ms\":{cpu:.0},\"peak_rss_mb\":{}}}",
            e.name(),
            m * 1e3,
            peak_rss_mb()
        );
    } else {
        let (batch, prompt, new) = (number("--batch", 8), number("--prompt", 32), number("--new", 64));
        let all = init::fresh(config.layout(), config.num_layers, Stream::new(2));
        let store = get("--store", "f32") == "bf16";
        let mut g = LlamaGenerator::full(config, e, vec![], batch).store_bf16(store);
        let run = |g: &mut LlamaGenerator, random: &mut dyn FnMut(usize) -> Vec<u32>, new: usize| {
            let prompts: Vec<Vec<u32>> = (0..batch).map(|_| random(prompt)).collect();
            let streams = vec![Stream::new(9); batch];
            let d = Decoding { temperature: 0.0, ..Decoding::plain(new) };
            let t = Instant::now();
            g.generate(&all, &prompts, d, &streams).unwrap_or_else(|e| panic!("{e}"));
            t.elapsed().as_secs_f64()
        };
        run(&mut g, &mut random, 2);
        // Time of the steps alone: with and without them, prefill cancels.
        for _ in 0..steps {
            let short = run(&mut g, &mut random, 1);
            times.push(run(&mut g, &mut random, new) - short);
        }
        let m = median(times);
        let tok_s = (batch * (new - 1)) as f64 / m;
        println!(
            "{{\"bench\":\"ecr_lm\",\"what\":\"decode\",\"kernels\":\"{}\",\"store_bf16\":{store},\"batch\":{batch},\"prompt\":{prompt},\"new\":{new},\"tok_s\":{tok_s:.1},\"peak_rss_mb\":{}}}",
            e.name(),
            peak_rss_mb()
        );
    }
}
