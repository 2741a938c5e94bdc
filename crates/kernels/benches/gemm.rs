//! GFLOP/s of the products on this CPU, one JSON line a shape, product, kernels and way of holding the weight (best
//! of repeats within a quarter of a second).
//! `cargo bench -p ecr-kernels --bench gemm [-- WORD]` runs the lines that contain the word.

use std::time::Instant;

use ecr_kernels::{Engine, PackedWeight, Precision, Tier, View, Weight};

fn line(e: Engine, what: &str, (m, n, k): (usize, usize, usize), mut f: impl FnMut()) {
    let head = format!(
        "{{\"bench\":\"gemm\",\"product\":\"{what}\",\"m\":{m},\"n\":{n},\"k\":{k},\"kernels\":\"{}\"",
        e.name()
    );
    let word = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    if word.is_some_and(|w| !head.contains(&w)) {
        return;
    }
    let (mut best, begin) = (f64::MAX, Instant::now());
    while begin.elapsed().as_secs_f64() < 0.25 {
        let t = Instant::now();
        f();
        best = best.min(t.elapsed().as_secs_f64());
    }
    let rate = 2.0 * (m * n * k) as f64 / best / 1e9;
    println!("{head},\"us\":{:.1},\"gflop_s\":{rate:.1}}}", best * 1e6);
}

fn main() {
    // From inside the pool, as a model calls them.
    rayon::scope(|_| all());
}

fn all() {
    let shapes = [
        (256, 1536, 576),
        (256, 576, 1536),
        (256, 192, 576),
        (256, 8, 576),
        (256, 1536, 8),
        (1024, 1024, 1024),
        (256, 49152, 576),
        (8, 1536, 576),
        (8, 49152, 576),
        (1, 576, 576),
        (1, 1536, 576),
        (1, 49152, 576),
    ];
    for (m, n, k) in shapes {
        let s = (m, n, k);
        let x: Vec<f32> = (0..m * k).map(|i| (i % 97) as f32 * 0.01 - 0.5).collect();
        let w: Vec<f32> = (0..n * k).map(|i| (i % 89) as f32 * 0.01 - 0.4).collect();
        let (mut y, mut dx) = (vec![0.0; m * n], vec![0.0; m * k]);
        let mut dw = if m > 8 { vec![0.0; n * k] } else { Vec::new() };
        for tier in [Tier::Avx2, Tier::Avx512] {
            for precision in [Precision::F32, Precision::Bf16] {
                let Some(e) = Engine::with_tier(tier, precision) else { continue };
                let packed: PackedWeight = e.pack(n, k, &w);
                let (packed, plain) = (Weight::Packed(&packed), Weight::Plain(&w[..]));
                line(e, "linear packed", s, || e.linear(m, n, k, &x, packed, &mut y, false));
                if m <= 8 {
                    let decode = e.pack_decode(n, k, &w, precision == Precision::Bf16);
                    let decode = Weight::Packed(&decode);
                    line(e, "linear decode", s, || e.linear(m, n, k, &x, decode, &mut y, false));
                    continue;
                }
                line(e, "linear plain", s, || e.linear(m, n, k, &x, plain, &mut y, false));
                line(e, "dx packed", s, || e.linear_dx(m, n, k, &y, packed, &mut dx, false));
                line(e, "dx plain", s, || e.linear_dx(m, n, k, &y, plain, &mut dx, false));
                line(e, "dw", s, || e.linear_dw(m, n, k, &y, &x, &mut dw));
                line(e, "pack", s, || drop(e.pack(n, k, &w)));
            }
        }
    }
    for (m, n, k) in [(64, 128, 64), (64, 64, 128), (128, 64, 64)] {
        let (a, b) = (vec![0.5; m * k], vec![0.25; n * k]);
        let mut c = vec![0.0; m * n];
        for tier in [Tier::Avx2, Tier::Avx512] {
            let Some(e) = Engine::with_tier(tier, Precision::F32) else { continue };
            let (av, bv) = (View::rows(&a, k), View::rows(&b, n));
            line(e, "matmul NN", (m, n, k), || e.matmul(m, n, k, av, bv, &mut c, n, false));
            let bt = View::rows(&b, k).t();
            line(e, "matmul NT", (m, n, k), || e.matmul(m, n, k, av, bt, &mut c, n, false));
            let at = View::rows(&a, m).t();
            line(e, "matmul TN", (m, n, k), || e.matmul(m, n, k, at, bv, &mut c, n, false));
        }
    }
}
