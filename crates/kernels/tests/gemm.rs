//! Every tier against f64 sums over odd shapes; equal bits for 1 and 2 threads; equal bits for a row alone and
//! in a batch.

use ecr_core::Stream;
use ecr_kernels::{Engine, Precision, Tier, View, Weight};

const TIERS: [Tier; 3] = [Tier::Portable, Tier::Avx2, Tier::Avx512];

fn engines(precision: Precision) -> Vec<Engine> {
    TIERS
        .into_iter()
        .filter_map(|t| {
            let e = Engine::with_tier(t, precision);
            if e.is_none() {
                eprintln!("skipped: tier {} is not on this CPU", t.name());
            }
            e
        })
        .collect()
}

fn random(n: usize, name: &str) -> Vec<f32> {
    let mut r = Stream::new(5).child(name).rng();
    (0..n).map(|_| r.normal() as f32).collect()
}

/// Round to nearest even, written independently of the kernels.
fn bf16(x: f32) -> f32 {
    let (lo, hi) = (x.to_bits() & 0xffff_0000, (x.to_bits() & 0xffff_0000).wrapping_add(0x1_0000));
    let (a, b) = (f32::from_bits(lo), f32::from_bits(hi));
    let (da, db) = ((f64::from(x) - f64::from(a)).abs(), (f64::from(b) - f64::from(x)).abs());
    if da < db || (da == db && (lo >> 16) & 1 == 0) { a } else { b }
}

/// `A[m, k] · B[k, n]` and the sum of absolute products, for the tolerance.
fn reference(
    m: usize,
    n: usize,
    k: usize,
    a: &dyn Fn(usize, usize) -> f32,
    b: &dyn Fn(usize, usize) -> f32,
) -> Vec<(f64, f64)> {
    let mut out = Vec::new();
    for i in 0..m {
        for j in 0..n {
            let terms = (0..k).map(|p| f64::from(a(i, p)) * f64::from(b(p, j)));
            out.push(terms.fold((0.0, 0.0), |(s, t), x| (s + x, t + x.abs())));
        }
    }
    out
}

fn check(got: &[f32], want: &[(f64, f64)], base: f64, what: &str) {
    for (i, (&g, &(s, t))) in got.iter().zip(want).enumerate() {
        let d = (f64::from(g) - s - base).abs();
        assert!(d <= 2e-6 * (t + 1.0), "{what}: element {i}: {g} for {}", s + base);
    }
}

#[test]
fn products_equal_the_reference_on_every_tier() {
    let mut r = Stream::new(9).rng();
    for case in 0..40 {
        let dim = |r: &mut ecr_core::rng::Draws, max: usize| 1 + r.below(max);
        let (m, n, k) = match case {
            0 => (1, 1, 1),
            1 => (12, 32, 512),
            2 => (13, 33, 513),
            3 => (25, 70, 1100),
            _ => (dim(&mut r, 60), dim(&mut r, 130), dim(&mut r, 130)),
        };
        let (x, w, dy) = (random(m * k, "x"), random(n * k, "w"), random(m * n, "dy"));
        for precision in [Precision::F32, Precision::Bf16] {
            for e in engines(precision) {
                let id = |v: f32| v;
                let round: &dyn Fn(f32) -> f32 = if e.bf16_arithmetic() { &bf16 } else { &id };
                let frozen: &dyn Fn(f32) -> f32 = if precision == Precision::Bf16 { &bf16 } else { &id };
                let what = format!("{} {m}x{n}x{k}", e.name());
                let packed = e.pack(n, k, &w);
                for (weight, rw) in [(Weight::Plain(&w[..]), round), (Weight::Packed(&packed), frozen)] {
                    let want = reference(m, n, k, &|i, p| round(x[i * k + p]), &|p, j| rw(w[j * k + p]));
                    let mut y = vec![f32::NAN; m * n];
                    e.linear(m, n, k, &x, weight, &mut y, false);
                    check(&y, &want, 0.0, &what);
                    y.fill(1.0);
                    e.linear(m, n, k, &x, weight, &mut y, true);
                    check(&y, &want, 1.0, &what);
                    let want = reference(m, k, n, &|i, p| round(dy[i * n + p]), &|p, j| rw(w[p * k + j]));
                    let mut dx = vec![f32::NAN; m * k];
                    e.linear_dx(m, n, k, &dy, weight, &mut dx, false);
                    check(&dx, &want, 0.0, &what);
                }
                let want = reference(n, k, m, &|i, p| round(dy[p * n + i]), &|p, j| round(x[p * k + j]));
                let mut dw = vec![1.0; n * k];
                e.linear_dw(m, n, k, &dy, &x, &mut dw);
                check(&dw, &want, 1.0, &what);
                for as_bf16 in [false, true] {
                    let stored = |v: f32| if as_bf16 { bf16(v) } else { v };
                    let want = reference(m, n, k, &|i, p| x[i * k + p], &|p, j| stored(w[j * k + p]));
                    let packed = e.pack_decode(n, k, &w, as_bf16);
                    let mut y = vec![f32::NAN; m * n];
                    e.linear(m, n, k, &x, Weight::Packed(&packed), &mut y, false);
                    check(&y, &want, 0.0, &what);
                }
            }
        }
    }
}

/// Shapes past the size that is packed at once: a large plain weight, many rows, a great depth.
#[test]
fn blocks_of_large_operands_equal_the_reference_for_any_threads() {
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    for (m, n, k) in [(5, 1101, 1003), (301, 37, 4001), (2101, 35, 70)] {
        let (x, w, dy) = (random(m * k, "x"), random(n * k, "w"), random(m * n, "dy"));
        for precision in [Precision::F32, Precision::Bf16] {
            for e in engines(precision) {
                let id = |v: f32| v;
                let round: &dyn Fn(f32) -> f32 = if e.bf16_arithmetic() { &bf16 } else { &id };
                let what = format!("{} {m}x{n}x{k}", e.name());
                let run = || {
                    let (mut y, mut dx, mut dw) = (vec![1.0; m * n], vec![0.0; m * k], vec![0.0; n * k]);
                    e.linear(m, n, k, &x, Weight::Plain(&w), &mut y, true);
                    e.linear_dx(m, n, k, &dy, Weight::Plain(&w), &mut dx, false);
                    e.linear_dw(m, n, k, &dy, &x, &mut dw);
                    (y, dx, dw)
                };
                let (one, two) = (pool(1).install(run), pool(2).install(run));
                assert!(one == two, "{what}: bits differ between 1 and 2 threads");
                let (rx, rw, rdy): (Vec<f32>, Vec<f32>, Vec<f32>) = (
                    x.iter().map(|&v| round(v)).collect(),
                    w.iter().map(|&v| round(v)).collect(),
                    dy.iter().map(|&v| round(v)).collect(),
                );
                // Every seventh row: enough to see each block.
                for i in (0..m).step_by(7) {
                    let want = reference(1, n, k, &|_, p| rx[i * k + p], &|p, j| rw[j * k + p]);
                    check(&one.0[i * n..(i + 1) * n], &want, 1.0, &what);
                    let want = reference(1, k, n, &|_, p| rdy[i * n + p], &|p, j| rw[p * k + j]);
                    check(&one.1[i * k..(i + 1) * k], &want, 0.0, &what);
                }
                for j in (0..n).step_by(7) {
                    let want = reference(1, k, m, &|_, p| rdy[p * n + j], &|p, c| rx[p * k + c]);
                    check(&one.2[j * k..(j + 1) * k], &want, 0.0, &what);
                }
            }
        }
    }
}

#[test]
fn strided_product_stays_inside_its_rows() {
    for e in engines(Precision::F32) {
        let (m, n, k, ldc) = (7, 5, 9, 11);
        let (a, b) = (random(k * 20, "a"), random(n * k, "b"));
        let mut c = vec![-3.0; m * ldc];
        e.matmul(m, n, k, View { data: &a, row: 1, col: 20 }, View::rows(&b, k).t(), &mut c, ldc, false);
        let want = reference(m, n, k, &|i, p| a[p * 20 + i], &|p, j| b[j * k + p]);
        for i in 0..m {
            check(&c[i * ldc..i * ldc + n], &want[i * n..(i + 1) * n], 0.0, "strided");
            assert!(c[i * ldc + n..(i + 1) * ldc].iter().all(|&x| x == -3.0));
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_on_the_batch() {
    let pool = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
    let (m, n, k) = (37, 300, 700);
    let (x, w, dy) = (random(m * k, "x"), random(n * k, "w"), random(m * n, "dy"));
    for precision in [Precision::F32, Precision::Bf16] {
        for e in engines(precision) {
            let run = || {
                let packed = e.pack(n, k, &w);
                let (mut y, mut dx, mut dw) = (vec![0.0; m * n], vec![0.0; m * k], vec![0.0; n * k]);
                e.linear(m, n, k, &x, Weight::Plain(&w), &mut y, false);
                e.linear_dx(m, n, k, &dy, Weight::Packed(&packed), &mut dx, false);
                e.linear_dw(m, n, k, &dy, &x, &mut dw);
                (y, dx, dw)
            };
            let (one, two) = (pool(1).install(run), pool(2).install(run));
            assert!(one == two, "{}: bits differ between 1 and 2 threads", e.name());
            let mut row = vec![0.0; n];
            e.linear(1, n, k, &x[5 * k..6 * k], Weight::Plain(&w), &mut row, false);
            assert!(row == one.0[5 * n..6 * n], "{}: a row alone differs", e.name());
        }
    }
}
