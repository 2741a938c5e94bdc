//! GFLOP/s of the products on this CPU, one JSON line a shape, tier and precision (best of several repeats).
//! `cargo bench -p ecr-kernels --bench gemm`

use std::time::Instant;

use ecr_kernels::{Engine, PackedWeight, Precision, Tier, Weight};

fn main() {
    let shapes = [
        (256, 1536, 576),
        (256, 576, 1536),
        (512, 1536, 576),
        (1024, 1024, 1024),
        (256, 49152, 576),
        (8, 1536, 576),
        (8, 49152, 576),
        (1, 49152, 576),
    ];
    for (m, n, k) in shapes {
        let x: Vec<f32> = (0..m * k).map(|i| (i % 97) as f32 * 0.01 - 0.5).collect();
        let w: Vec<f32> = (0..n * k).map(|i| (i % 89) as f32 * 0.01 - 0.4).collect();
        let mut y = vec![0.0; m * n];
        for tier in [Tier::Avx2, Tier::Avx512] {
            for precision in [Precision::F32, Precision::Bf16] {
                let Some(e) = Engine::with_tier(tier, precision) else { continue };
                let packed: PackedWeight = e.pack_forward(n, k, &w);
                let decode = e.pack_decode(n, k, &w, precision == Precision::Bf16);
                for (name, weight) in [
                    ("plain", Weight::Plain(&w[..])),
                    ("packed", Weight::Packed(&packed)),
                    ("decode", Weight::Packed(&decode)),
                ] {
                    let mut best = f64::MAX;
                    let begin = Instant::now();
                    while begin.elapsed().as_secs_f64() < 0.3 {
                        let t = Instant::now();
                        e.linear(m, n, k, &x, weight, &mut y, false);
                        best = best.min(t.elapsed().as_secs_f64());
                    }
                    let gflops = 2.0 * (m * n * k) as f64 / best / 1e9;
                    println!(
                        "{{\"bench\":\"gemm\",\"m\":{m},\"n\":{n},\"k\":{k},\"kernels\":\"{}\",\"weight\":\"{name}\",\"gflop_s\":{gflops:.1}}}",
                        e.name()
                    );
                }
            }
        }
    }
}
