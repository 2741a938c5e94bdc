//! Every operation's backward pass against central differences of its forward pass, and equal bits for pools of one
//! and two threads at sizes that are cut into several pieces.
#![allow(clippy::unwrap_used)]

use ecr_core::Stream;
use ecr_kernels::{Engine, Precision, Weight};
use ecr_models::ops::attention::Attention;
use ecr_models::ops::head::Head;
use ecr_models::ops::linear::{Adapter, Grads, Linear, Scratch};
use ecr_models::ops::rope::{Rope, merge_heads, split_heads};
use ecr_models::ops::{embedding, gelu, layernorm, rmsnorm, swiglu};

/// `n` normal deviates; another name, other numbers.
fn normal(name: &str, n: usize) -> Vec<f32> {
    let mut d = Stream::new(11).child(name).rng();
    (0..n).map(|_| d.normal() as f32).collect()
}
fn engine() -> Engine {
    Engine::detect(Precision::F32)
}

/// What an operation gives: its output and the gradients of its tensors.
type Out = (Vec<f32>, Vec<Vec<f32>>);
/// An operation as a test sees it: tensors in; the output and, given its gradient, the gradients of the tensors.
type Op<'a> = &'a (dyn Fn(&[Vec<f32>], Option<&[f32]>) -> Out + Sync);

/// Central differences of `Σ c·y` for up to 60 elements of each tensor. A tensor's tolerance is 3e-3 of the larger of
/// the element's own gradient and the root mean square of the tensor's.
fn differences(name: &str, inputs: &[Vec<f32>], op: Op<'_>) {
    let n = op(inputs, None).0.len();
    let c = normal(name, n);
    let loss = |x: &[Vec<f32>]| -> f64 {
        op(x, None).0.iter().zip(&c).map(|(&y, &c)| f64::from(y) * f64::from(c)).sum()
    };
    let grads = op(inputs, Some(&c)).1;
    assert_eq!(grads.len(), inputs.len(), "{name}");
    for (i, g) in grads.iter().enumerate() {
        assert_eq!(g.len(), inputs[i].len(), "{name}: gradient {i}");
        let rms = (g.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>() / g.len() as f64).sqrt();
        assert!(rms > 0.0, "{name}: gradient {i} is zero");
        for j in (0..g.len()).step_by(g.len().div_ceil(60)) {
            let mut x = inputs.to_vec();
            let h = 1e-2f32;
            x[i][j] = inputs[i][j] + h;
            let (up, at) = (loss(&x), f64::from(x[i][j]));
            x[i][j] = inputs[i][j] - h;
            let want = (up - loss(&x)) / (at - f64::from(x[i][j]));
            let d = (f64::from(g[j]) - want).abs();
            assert!(d <= 3e-3 * want.abs().max(rms), "{name}: gradient {i}[{j}] is {} for {want}", g[j]);
        }
    }
}

/// Output and gradients are equal to the bit in pools of one and two threads.
fn threads(name: &str, inputs: &[Vec<f32>], op: Op<'_>) {
    let run = |n: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
        pool.install(|| {
            let y = op(inputs, None).0;
            let g = op(inputs, Some(&normal(name, y.len()))).1;
            (y, g)
        })
    };
    let bits = |(y, g): Out| -> Vec<u32> {
        y.into_iter().chain(g.into_iter().flatten()).map(f32::to_bits).collect()
    };
    assert!(bits(run(1)) == bits(run(2)), "{name}: other bits for two threads");
}

fn embedding_op(ids: Vec<u32>, d: usize) -> impl Fn(&[Vec<f32>], Option<&[f32]>) -> Out {
    move |x, dy| {
        let mut y = vec![0.0; ids.len() * d];
        embedding::forward(&ids, &x[0], d, &mut y).unwrap();
        let mut g = vec![0.0; x[0].len()];
        if let Some(dy) = dy {
            embedding::backward(&ids, dy, d, &mut g);
        }
        (y, vec![g])
    }
}

#[test]
fn embedding_gradients() {
    differences("embedding", &[normal("table", 5 * 7)], &embedding_op(vec![3, 0, 3, 4, 1, 3, 2], 7));
    let ids: Vec<u32> = (0..300).map(|i| i * i % 50).collect();
    threads("embedding", &[normal("table", 50 * 64)], &embedding_op(ids, 64));
    assert!(embedding::forward(&[5], &[0.0; 10], 2, &mut [0.0; 2]).is_err());
}

fn rmsnorm_op(x: &[Vec<f32>], dy: Option<&[f32]>) -> Out {
    let (d, t) = (x[1].len(), x[0].len() / x[1].len());
    let (mut y, mut rstd) = (vec![0.0; t * d], vec![0.0; t]);
    rmsnorm::forward(&x[0], &x[1], 1e-5, &mut y, &mut rstd);
    let mut again = vec![0.0; t * d];
    rmsnorm::again(&x[0], &x[1], &rstd, &mut again);
    assert_eq!(y, again);
    let (mut dx, mut dw) = (vec![0.0; t * d], vec![0.0; d]);
    if let Some(dy) = dy {
        rmsnorm::backward(dy, &x[0], &x[1], &rstd, &mut dx, Some(&mut dw));
    }
    (y, vec![dx, dw])
}

#[test]
fn rmsnorm_gradients() {
    differences("rmsnorm", &[normal("x", 3 * 37), normal("w", 37)], &rmsnorm_op);
    threads("rmsnorm", &[normal("x", 300 * 64), normal("w", 64)], &rmsnorm_op);
}

fn layernorm_op(x: &[Vec<f32>], dy: Option<&[f32]>) -> Out {
    let (d, t) = (x[1].len(), x[0].len() / x[1].len());
    let (mut y, mut stats) = (vec![0.0; t * d], vec![(0.0, 0.0); t]);
    layernorm::forward(&x[0], &x[1], &x[2], 1e-5, &mut y, &mut stats);
    let (mut dx, mut dw, mut db) = (vec![0.0; t * d], vec![0.0; d], vec![0.0; d]);
    if let Some(dy) = dy {
        layernorm::backward(dy, &x[0], &x[1], &stats, &mut dx, Some((&mut dw, &mut db)));
    }
    (y, vec![dx, dw, db])
}

#[test]
fn layernorm_gradients() {
    differences("layernorm", &[normal("x", 3 * 37), normal("w", 37), normal("b", 37)], &layernorm_op);
    threads("layernorm", &[normal("x", 300 * 64), normal("w", 64), normal("b", 64)], &layernorm_op);
}

/// Heads split and turned; the backward pass turns back and merges.
fn rope_op(positions: Vec<usize>, heads: usize) -> impl Fn(&[Vec<f32>], Option<&[f32]>) -> Out {
    move |x, dy| {
        let mut rope = Rope::new(1e4, x[0].len() / positions.len() / heads);
        rope.grow(positions.iter().max().unwrap() + 1);
        let (mut y, mut dx) = (vec![0.0; x[0].len()], vec![0.0; x[0].len()]);
        split_heads(&x[0], heads, &positions, Some(&rope), &mut y);
        if let Some(dy) = dy {
            merge_heads(dy, heads, &positions, Some(&rope), &mut dx);
        }
        (y, vec![dx])
    }
}

#[test]
fn rope_gradients() {
    differences("rope", &[normal("x", 5 * 3 * 8)], &rope_op(vec![0, 1, 2, 0, 1], 3));
    threads("rope", &[normal("x", 100 * 3 * 32)], &rope_op((0..100).collect(), 3));
    // Position 1 of a head of width two turns by one radian.
    let mut rope = Rope::new(1e4, 2);
    rope.grow(2);
    let mut x = [1.0, 0.0];
    rope.rotate(&mut x, 1, true);
    assert!((x[0] - 1f32.cos()).abs() < 1e-6 && (x[1] - 1f32.sin()).abs() < 1e-6);
}

/// Inputs: queries, keys, values, head-major.
fn attention_op(
    starts: Vec<usize>,
    (heads, kv_heads, head_dim): (usize, usize, usize),
    causal: bool,
) -> impl Fn(&[Vec<f32>], Option<&[f32]>) -> Out {
    move |x, d_o| {
        let a = Attention { engine: engine(), heads, kv_heads, head_dim, starts: &starts, causal };
        let mut o = vec![0.0; x[0].len()];
        a.forward(&x[0], &x[1], &x[2], &mut o);
        // The backward pass overwrites what lies there.
        let mut g: Vec<Vec<f32>> = x.iter().map(|x| vec![7.0; x.len()]).collect();
        if let Some(d_o) = d_o {
            let [dq, dk, dv] = &mut g[..] else { unreachable!() };
            a.backward(&x[0], &x[1], &x[2], d_o, dq, dk, dv);
        }
        (o, g)
    }
}

#[test]
fn attention_gradients() {
    for causal in [true, false] {
        for (heads, kv) in [(2, 2), (4, 2), (3, 1)] {
            let shape = (heads, kv, 6);
            let x = |t: usize, hd: usize| {
                [normal("q", heads * t * hd), normal("k", kv * t * hd), normal("v", kv * t * hd)]
            };
            let op = attention_op(vec![0, 4, 5, 11], shape, causal);
            differences("attention", &x(11, 6), &op);
            // One sequence is longer than a block of queries.
            threads("attention", &x(210, 6), &attention_op(vec![0, 150, 170, 210], shape, causal));
        }
    }
    // Longer than a block and no whole number of blocks: differences reach across blocks.
    let x = [normal("q", 2 * 70 * 4), normal("k", 70 * 4), normal("v", 70 * 4)];
    differences("long attention", &x, &attention_op(vec![0, 70], (2, 1, 4), true));
}

fn swiglu_op(x: &[Vec<f32>], dy: Option<&[f32]>) -> Out {
    let mut y = vec![0.0; x[0].len()];
    swiglu::forward(&x[0], &x[1], &mut y);
    let (mut g, mut u) = (x[0].clone(), x[1].clone());
    if let Some(dy) = dy {
        swiglu::backward(dy, &mut g, &mut u);
    }
    (y, vec![g, u])
}

fn gelu_op(x: &[Vec<f32>], dy: Option<&[f32]>) -> Out {
    let mut y = vec![0.0; x[0].len()];
    gelu::forward(&x[0], &mut y);
    let mut g = dy.map_or_else(|| x[0].clone(), <[f32]>::to_vec);
    gelu::backward(&x[0], &mut g);
    (y, vec![g])
}

#[test]
fn activation_gradients() {
    differences("swiglu", &[normal("g", 77), normal("u", 77)], &swiglu_op);
    differences("gelu", &[normal("x", 77)], &gelu_op);
    threads("swiglu", &[normal("g", 50_001), normal("u", 50_001)], &swiglu_op);
    threads("gelu", &[normal("x", 50_001)], &gelu_op);
}

/// Inputs: `x`, `W`, bias, `A`, `B`.
fn linear_op(n: usize, k: usize, rank: usize) -> impl Fn(&[Vec<f32>], Option<&[f32]>) -> Out {
    move |x, dy| {
        let (e, t, mut s) = (engine(), x[0].len() / k, Scratch::default());
        let adapter = Adapter { a: Weight::Plain(&x[3]), b: Weight::Plain(&x[4]), rank, scale: 1.5 };
        let l = Linear { w: Weight::Plain(&x[1]), n, k, bias: Some(&x[2]), adapter: Some(adapter) };
        let mut y = vec![0.0; t * n];
        l.forward(e, t, &x[0], &mut y, false, &mut s);
        let mut g: Vec<Vec<f32>> = x.iter().map(|x| vec![0.0; x.len()]).collect();
        if let Some(dy) = dy {
            let [dx, w, bias, a, b] = &mut g[..] else { unreachable!() };
            let grads = Grads { w: Some(w), bias: Some(bias), adapter: Some((a, b)) };
            l.backward(e, t, &x[0], dy, Some(dx), false, grads, &mut s);
            // Once more onto what is there: twice the gradient of the input, halved again.
            l.backward(e, t, &x[0], dy, Some(dx), true, Grads::default(), &mut s);
            dx.iter_mut().for_each(|g| *g *= 0.5);
        }
        (y, g)
    }
}

#[test]
fn linear_gradients() {
    let x = |t, n, k, r| {
        [normal("x", t * k), normal("w", n * k), normal("b", n), normal("a", r * k), normal("b2", n * r)]
    };
    differences("linear", &x(5, 13, 9, 2), &linear_op(13, 9, 2));
    threads("linear", &x(200, 130, 90, 8), &linear_op(130, 90, 8));
}

/// Inputs: states, head. Output: log-probabilities, then entropies.
fn head_op(v: usize, targets: Vec<u32>, temperature: f32) -> impl Fn(&[Vec<f32>], Option<&[f32]>) -> Out {
    move |x, dy| {
        let (e, w, n) = (engine(), Weight::Plain(&x[1]), targets.len());
        let (mut head, mut y, mut entropy) = (Head::default(), vec![], vec![]);
        head.forward(e, w, v, &x[0], &targets, temperature, None, &mut y, &mut entropy);
        y.extend(entropy);
        let (mut dh, mut dw) = (vec![0.0; x[0].len()], vec![0.0; x[1].len()]);
        if let Some(dy) = dy {
            head.backward(e, w, v, &x[0], &targets, None, &dy[..n], &dy[n..], &mut dh, Some(&mut dw));
        }
        (y, vec![dh, dw])
    }
}

#[test]
fn head_gradients() {
    for temperature in [1.0, 0.7, 2.0] {
        let x = [normal("h", 4 * 6), normal("e", 11 * 6)];
        differences("head", &x, &head_op(11, vec![3, 0, 10, 3], temperature));
    }
    // More rows than one chunk of logits: the backward pass makes them again.
    let targets: Vec<u32> = (0..600).map(|i| i * 7 % 50).collect();
    threads("head", &[normal("h", 600 * 8), normal("e", 50 * 8)], &head_op(50, targets.clone(), 0.9));
    let x = [normal("h", 600 * 2), normal("e", 50 * 2)];
    differences("long head", &x, &head_op(50, targets, 0.9));
}
