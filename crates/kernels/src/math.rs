//! Vector math, compiled once per instruction set and chosen at run time.
//!
//! Bodies are plain loops without fused multiply-adds and with sums in sixteen fixed lanes: every tier gives the
//! same bits.
#![allow(unsafe_code)]

/// Lanes of a sum.
const L: usize = 16;

/// Compiles a body for AVX-512, AVX2 and the baseline, and dispatches by what the CPU has.
macro_rules! tiered {
    ($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block) => {
        $(#[$doc])*
        #[inline]
        pub fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
                unsafe fn v4($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2")]
                unsafe fn v3($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                {
                    // SAFETY: the features were just detected.
                    return unsafe { v4($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: as above.
                    return unsafe { v3($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}

/// `e^x`: range reduction by ln 2 and a polynomial of degree 7. Relative error ≤ 1.5e-7 on [-87, 88]; 0 below -87.3;
/// +∞ above 88.7; NaN stays NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let magic = 12_582_912.0f32; // 1.5 · 2^23: adding it rounds to an integer
    let t = x.clamp(-88.0, 89.0);
    let n = (t * std::f32::consts::LOG2_E + magic) - magic;
    let r = (t - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.0 / 5040.0;
    let p = p * r + 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * (r * r) + r + 1.0;
    // Two factors, so that 2^n neither overflows nor becomes subnormal on its own.
    let n = n as i32;
    let half = n >> 1;
    let scale = |e: i32| f32::from_bits(((e + 127) << 23) as u32);
    let y = p * scale(half) * scale(n - half);
    let y = if x < -87.3 { 0.0 } else { y };
    let y = if x > 88.73 { f32::INFINITY } else { y };
    if x.is_nan() { x } else { y }
}

/// Error function, absolute error ≤ 2e-7 (Abramowitz & Stegun 7.1.26).
#[inline(always)]
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = ((((1.061_405_4 * t - 1.453_152_1) * t + 1.421_413_8) * t - 0.284_496_72) * t) + 0.254_829_6;
    let y = 1.0 - p * t * exp(-a * a);
    if x < 0.0 { -y } else { y }
}

#[inline(always)]
fn lanes(xs: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut s = [0.0f32; L];
    let chunks = xs.chunks_exact(L);
    let rest: f32 = chunks.remainder().iter().map(|&x| f(x)).sum();
    for c in chunks {
        for i in 0..L {
            s[i] += f(c[i]);
        }
    }
    s.iter().sum::<f32>() + rest
}

/// Sum of the lanes by halves: a short chain, for sums of few elements.
#[inline(always)]
fn tree(s: [f32; L]) -> f32 {
    let a: [f32; 8] = std::array::from_fn(|i| s[i] + s[i + 8]);
    let b: [f32; 4] = std::array::from_fn(|i| a[i] + a[i + 4]);
    (b[0] + b[2]) + (b[1] + b[3])
}

tiered! {
    /// `Σ aᵢ bᵢ`.
    dot(a: &[f32], b: &[f32]) -> f32 {
        let n = a.len().min(b.len());
        let (a, b) = (&a[..n], &b[..n]);
        let mut s = [0.0f32; L];
        let whole = n - n % L;
        for p in (0..whole).step_by(L) {
            let (x, y) = (&a[p..p + L], &b[p..p + L]);
            for i in 0..L {
                s[i] += x[i] * y[i];
            }
        }
        let rest: f32 = (whole..n).map(|i| a[i] * b[i]).sum();
        s.iter().sum::<f32>() + rest
    }
}
tiered! {
    /// `Σ xᵢ²`.
    sum_squares(x: &[f32]) -> f32 { lanes(x, |x| x * x) }
}
tiered! {
    /// `Σ xᵢ`.
    sum(x: &[f32]) -> f32 { lanes(x, |x| x) }
}
tiered! {
    /// `y ← y + s·x`.
    axpy(s: f32, x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y += s * x;
        }
    }
}
tiered! {
    /// Greatest element; −∞ of none.
    max(x: &[f32]) -> f32 {
        let mut m = [f32::NEG_INFINITY; L];
        let chunks = x.chunks_exact(L);
        let rest = chunks.remainder().iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        for c in chunks {
            for i in 0..L {
                m[i] = if c[i] > m[i] { c[i] } else { m[i] };
            }
        }
        m.iter().fold(rest, |a, &b| if b > a { b } else { a })
    }
}
tiered! {
    /// `x ← e^(scale·x − shift)`; returns the sum.
    exp_sum(x: &mut [f32], scale: f32, shift: f32) -> f32 {
        let mut s = [0.0f32; L];
        let mut chunks = x.chunks_exact_mut(L);
        for c in &mut chunks {
            for i in 0..L {
                c[i] = exp(scale * c[i] - shift);
                s[i] += c[i];
            }
        }
        let mut rest = 0.0;
        for v in chunks.into_remainder() {
            *v = exp(scale * *v - shift);
            rest += *v;
        }
        s.iter().sum::<f32>() + rest
    }
}
tiered! {
    /// `Σ e^(scale·x − shift)` and `Σ e^(scale·x − shift)·(scale·x − shift)`: what a log-sum-exp and an entropy need.
    exp_moments(x: &[f32], scale: f32, shift: f32) -> (f32, f32) {
        let (mut s, mut q) = ([0.0f32; L], [0.0f32; L]);
        let chunks = x.chunks_exact(L);
        let (mut rs, mut rq) = (0.0, 0.0);
        for &v in chunks.remainder() {
            let z = scale * v - shift;
            let e = exp(z);
            rs += e;
            rq += if e > 0.0 { e * z } else { 0.0 };
        }
        for c in chunks {
            for i in 0..L {
                let z = scale * c[i] - shift;
                let e = exp(z);
                s[i] += e;
                q[i] += if e > 0.0 { e * z } else { 0.0 };
            }
        }
        (s.iter().sum::<f32>() + rs, q.iter().sum::<f32>() + rq)
    }
}
tiered! {
    /// Gradient of log-probability and entropy by the logits: `z ← s·(−g·p − h·p·(ln p + H))` with `ln p = s·z − lse`,
    /// `p = e^(ln p)`, `H` the entropy, `g`, `h` the gradients of log-probability and entropy. The target's own
    /// `+ s·g` is the caller's.
    head_gradient(z: &mut [f32], scale: f32, lse: f32, entropy: f32, g: f32, h: f32) {
        for v in z.iter_mut() {
            let lp = scale * *v - lse;
            let p = exp(lp);
            let d = -g * p - h * p * (lp + entropy);
            *v = if p > 0.0 { scale * d } else { 0.0 };
        }
    }
}
tiered! {
    /// `x ← x · s`.
    scale(x: &mut [f32], s: f32) {
        for v in x.iter_mut() {
            *v *= s;
        }
    }
}
tiered! {
    /// SwiGLU: `y = silu(gate) · up`.
    swiglu(gate: &[f32], up: &[f32], y: &mut [f32]) {
        for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
            *y = g / (1.0 + exp(-g)) * u;
        }
    }
}
tiered! {
    /// Backward of [`swiglu`]: overwrites `gate` and `up` by their gradients.
    swiglu_backward(dy: &[f32], gate: &mut [f32], up: &mut [f32]) {
        for ((&d, g), u) in dy.iter().zip(gate.iter_mut()).zip(up.iter_mut()) {
            let s = 1.0 / (1.0 + exp(-*g));
            let silu = *g * s;
            let dg = d * *u * (s + silu * (1.0 - s));
            *u = d * silu;
            *g = dg;
        }
    }
}
tiered! {
    /// GELU by the error function: `y = x·Φ(x)`.
    gelu(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}
tiered! {
    /// Backward of [`gelu`]: `dy ← dy · (Φ(x) + x·φ(x))`.
    gelu_backward(x: &[f32], dy: &mut [f32]) {
        for (d, &x) in dy.iter_mut().zip(x) {
            let cdf = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
            *d *= cdf + x * 0.398_942_3 * exp(-0.5 * x * x);
        }
    }
}

tiered! {
    /// Dot products of one query with `scores.len()` keys, `k`: `[keys, d]`.
    query_keys(q: &[f32], k: &[f32], scores: &mut [f32]) {
        let d = q.len();
        let whole = d - d % L;
        for (s, k) in scores.iter_mut().zip(k.chunks_exact(d)) {
            let mut acc = [0.0f32; L];
            for p in (0..whole).step_by(L) {
                for i in 0..L {
                    acc[i] += q[p + i] * k[p + i];
                }
            }
            let rest: f32 = (whole..d).map(|i| q[i] * k[i]).sum();
            *s = tree(acc) + rest;
        }
    }
}
tiered! {
    /// `o = Σ_j p_j·v_j`, `v`: `[keys, d]`, in the order of keys.
    weighted_sum(p: &[f32], v: &[f32], o: &mut [f32]) {
        let d = o.len();
        let whole = d - d % (2 * L);
        // Two vectors of sums at a time stay in registers.
        for c in (0..whole).step_by(2 * L) {
            let mut acc = [0.0f32; 2 * L];
            for (&p, v) in p.iter().zip(v.chunks_exact(d)) {
                for (a, &v) in acc.iter_mut().zip(&v[c..c + 2 * L]) {
                    *a += p * v;
                }
            }
            o[c..c + 2 * L].copy_from_slice(&acc);
        }
        o[whole..].fill(0.0);
        for (&p, v) in p.iter().zip(v.chunks_exact(d)) {
            for (o, &v) in o[whole..].iter_mut().zip(&v[whole..]) {
                *o += p * v;
            }
        }
    }
}

/// `x ← softmax(scale·x)`; a row of −∞ becomes zeros.
pub fn softmax(x: &mut [f32], factor: f32) {
    let m = max(x);
    if m == f32::NEG_INFINITY {
        x.fill(0.0);
        return;
    }
    let s = exp_sum(x, factor, factor * m);
    scale(x, 1.0 / s);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_right_to_one_and_a_half_e_7() {
        let mut worst = 0.0f64;
        for i in 0..2_000_000 {
            let x = -87.0 + i as f32 * (175.0 / 2e6);
            let want = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) / want - 1.0).abs());
        }
        assert!(worst < 1.5e-7, "{worst}");
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(1000.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn gelu_and_silu_gradients_agree_with_differences() {
        for i in -40..40 {
            let x = i as f32 * 0.1 + 0.01;
            let f = |x: f32| {
                let mut y = [0.0];
                gelu(&[x], &mut y);
                f64::from(y[0])
            };
            let mut d = [1.0];
            gelu_backward(&[x], &mut d);
            let want = (f(x + 1e-2) - f(x - 1e-2)) / 2e-2;
            assert!((f64::from(d[0]) - want).abs() < 1e-4, "{x}");
            let g = |x: f32, u: f32| {
                let mut y = [0.0];
                swiglu(&[x], &[u], &mut y);
                f64::from(y[0])
            };
            let (mut a, mut b) = ([x], [0.7]);
            swiglu_backward(&[1.0], &mut a, &mut b);
            assert!((f64::from(a[0]) - (g(x + 1e-2, 0.7) - g(x - 1e-2, 0.7)) / 2e-2).abs() < 1e-4);
            assert!((f64::from(b[0]) - (g(x, 0.8) - g(x, 0.6)) / 0.2).abs() < 1e-4);
        }
    }

    #[test]
    fn attention_of_one_query() {
        for d in [6, 32, 64, 70] {
            let x: Vec<f32> = (0..5 * d).map(|i| (i as f32 * 0.37).sin()).collect();
            let q: Vec<f32> = (0..d).map(|i| (i as f32 * 0.91).cos()).collect();
            let (mut s, mut o) = ([0.0; 5], vec![9.0; d]);
            query_keys(&q, &x, &mut s);
            weighted_sum(&s, &x, &mut o);
            for j in 0..5 {
                let want: f64 = (0..d).map(|i| f64::from(q[i]) * f64::from(x[j * d + i])).sum();
                assert!((f64::from(s[j]) - want).abs() < 1e-5);
            }
            for i in 0..d {
                let want: f64 = (0..5).map(|j| f64::from(s[j]) * f64::from(x[j * d + i])).sum();
                assert!((f64::from(o[i]) - want).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn sums_and_moments() {
        let x: Vec<f32> = (0..45).map(|i| (i as f32 * 0.37).sin()).collect();
        let want: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        assert!((f64::from(sum_squares(&x)) - want).abs() < 1e-5);
        assert!((f64::from(dot(&x, &x)) - want).abs() < 1e-5);
        let (s, q) = exp_moments(&x, 0.5, 0.25);
        let z: Vec<f64> = x.iter().map(|&v| 0.5 * f64::from(v) - 0.25).collect();
        assert!((f64::from(s) - z.iter().map(|z| z.exp()).sum::<f64>()).abs() < 1e-4);
        assert!((f64::from(q) - z.iter().map(|z| z.exp() * z).sum::<f64>()).abs() < 1e-4);
        let mut p = x.clone();
        softmax(&mut p, 2.0);
        assert!((sum(&p) - 1.0).abs() < 1e-6);
        assert_eq!(max(&x), x.iter().copied().fold(f32::MIN, f32::max));
    }
}
