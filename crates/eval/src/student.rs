//! Student's t distribution: how much wider an interval must be when its standard error rests on few values.
//!
//! The distribution function is a regularised incomplete beta function, by its continued fraction (Lentz's method;
//! Numerical Recipes, 3rd ed., §6.4 and §6.14); the quantile inverts it by bisection.

/// More degrees of freedom than this are the normal distribution to every digit that is printed.
const MANY: f64 = 1e6;

/// ln Γ(x), x > 0 (Lanczos, g = 7, nine terms; relative error about 1e-15).
fn ln_gamma(x: f64) -> f64 {
    const C: [f64; 9] = [
        0.999_999_999_999_809_9,
        676.520_368_121_885_1,
        -1_259.139_216_722_402_8,
        771.323_428_777_653_1,
        -176.615_029_162_140_6,
        12.507_343_278_686_905,
        -0.138_571_095_265_720_12,
        9.984_369_578_019_572e-6,
        1.505_632_735_149_311_6e-7,
    ];
    let x = x - 1.0;
    let sum = C.iter().enumerate().skip(1).fold(C[0], |s, (i, c)| s + c / (x + i as f64));
    let t = x + 7.5;
    0.5 * std::f64::consts::TAU.ln() + (x + 0.5) * t.ln() - t + sum.ln()
}

/// Regularised incomplete beta function I_x(a, b), 0..1.
fn incomplete_beta(a: f64, b: f64, x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    // The fraction converges fast on this side only.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(b, a, 1.0 - x);
    }
    let front = (ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b) + a * x.ln() + b * (-x).ln_1p()).exp() / a;
    let tiny = 1e-300;
    let keep = |v: f64| if v.abs() < tiny { tiny } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / keep(1.0 - (a + b) * x / (a + 1.0));
    let mut f = d;
    for m in 1..10_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / keep(1.0 + even * d);
        c = keep(1.0 + even / c);
        f *= d * c;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / keep(1.0 + odd * d);
        c = keep(1.0 + odd / c);
        f *= d * c;
        if (d * c - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * f
}

/// P(|T| ≥ |t|) with `df` degrees of freedom (any number above 0), 0..1.
pub fn two_sided(t: f64, df: f64) -> f64 {
    let df = df.clamp(f64::MIN_POSITIVE, MANY);
    incomplete_beta(0.5 * df, 0.5, df / (df + t * t))
}

/// The t above which lies `tail` of the probability, 0 < tail ≤ .5; 1.96 for .025 and many degrees of freedom.
pub fn upper(tail: f64, df: f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while two_sided(high, df) > 2.0 * tail && high < 1e12 {
        (low, high) = (high, 2.0 * high);
    }
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if two_sided(middle, df) > 2.0 * tail {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed tables (e.g. Abramowitz and Stegun 26.10), and scipy.stats.t.ppf for the fractional one.
    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (tail, df, want) in [
            (0.025, 1.0, 12.7062),
            (0.025, 2.0, 4.302_65),
            (0.025, 4.0, 2.776_45),
            (0.025, 10.0, 2.228_14),
            (0.05, 5.0, 2.015_05),
            (0.2, 30.0, 0.853_77),
            (0.025, 1e9, 1.959_96),
        ] {
            assert!((upper(tail, df) - want).abs() < 1e-4 * want, "{tail} {df}: {}", upper(tail, df));
        }
        let between = upper(0.025, 2.5);
        assert!(between < upper(0.025, 2.0) && between > upper(0.025, 3.0));
    }

    #[test]
    fn tails_with_closed_forms_are_exact() {
        // Cauchy: P(|T| ≥ 1) = 1/2. Two degrees: P(|T| ≥ t) = 1 − t / √(2 + t²).
        assert!((two_sided(1.0, 1.0) - 0.5).abs() < 1e-13);
        for t in [0.1, 1.0, 3.0, 30.0f64] {
            assert!((two_sided(t, 2.0) - (1.0 - t / (2.0 + t * t).sqrt())).abs() < 1e-12);
        }
        assert_eq!(two_sided(0.0, 7.0), 1.0);
        assert_eq!(two_sided(f64::INFINITY, 3.0), 0.0);
    }
}
