//! How far predictions agree with labels: rank correlation, order of pairs, calibration. O(n log n).
//!
//! Legend: `n` rows; `times[i]` = how often row `i` counts (a bootstrap resample), all 1 for the rows themselves.

/// Indices of `x` in ascending order, equal values in index order.
fn order(x: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by(|&a, &b| x[a].total_cmp(&x[b]).then(a.cmp(&b)));
    order
}

/// Runs of equal values in an ascending order.
fn runs<'a>(x: &'a [f64], order: &'a [usize]) -> impl Iterator<Item = &'a [usize]> {
    order.chunk_by(|&a, &b| x[a] == x[b])
}

/// Spearman's rank correlation with ties at their mean rank, ready for many resamples.
#[derive(Debug, Clone)]
pub struct Spearman<'a> {
    a: &'a [f64],
    b: &'a [f64],
    orders: [Vec<usize>; 2],
}

impl<'a> Spearman<'a> {
    /// Of `a` and `b`, both `[n]`.
    pub fn new(a: &'a [f64], b: &'a [f64]) -> Self {
        Self { a, b, orders: [order(a), order(b)] }
    }
    /// In -1..1 with row `i` counted `times[i]` times; 0 where either side is constant.
    pub fn value(&self, times: &[u32]) -> f64 {
        let ranks = |x: &[f64], order: &[usize]| {
            let (mut out, mut before) = (vec![0.0; x.len()], 0.0);
            for run in runs(x, order) {
                let n: f64 = run.iter().map(|&i| f64::from(times[i])).sum();
                run.iter().for_each(|&i| out[i] = before + 0.5 * (n + 1.0));
                before += n;
            }
            out
        };
        let (a, b) = (ranks(self.a, &self.orders[0]), ranks(self.b, &self.orders[1]));
        let n = times.iter().map(|&t| f64::from(t)).sum::<f64>().max(1.0);
        let mean = |r: &[f64]| r.iter().zip(times).map(|(x, &t)| x * f64::from(t)).sum::<f64>() / n;
        let (ma, mb) = (mean(&a), mean(&b));
        let (mut cov, mut va, mut vb) = (0.0, 0.0, 0.0);
        for i in 0..times.len() {
            let (x, y, t) = (a[i] - ma, b[i] - mb, f64::from(times[i]));
            cov += t * x * y;
            va += t * x * x;
            vb += t * y * y;
        }
        if va * vb > 0.0 { cov / (va * vb).sqrt() } else { 0.0 }
    }
}

/// Spearman's rank correlation of `a` and `b`, `[n]`.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    Spearman::new(a, b).value(&vec![1; a.len()])
}

/// Share of the pairs with different labels that the predictions order as the labels do, a tie counting half; 0.5
/// without such a pair.
pub fn pairwise_accuracy(predictions: &[f64], labels: &[f64]) -> f64 {
    let mut place = vec![0; labels.len()];
    let by_prediction = order(predictions);
    for (k, run) in runs(predictions, &by_prediction).enumerate() {
        run.iter().for_each(|&i| place[i] = k + 1);
    }
    // Fenwick tree over prediction ranks of the rows with a lower label.
    let mut tree = vec![0usize; labels.len() + 1];
    let below = |tree: &[usize], mut k: usize| {
        let mut n = 0;
        while k > 0 {
            n += tree[k];
            k &= k - 1;
        }
        n
    };
    let (mut right, mut pairs, mut lower) = (0.0, 0.0, 0usize);
    let by_label = order(labels);
    for run in runs(labels, &by_label) {
        for &i in run {
            let (less, at_most) = (below(&tree, place[i] - 1), below(&tree, place[i]));
            right += less as f64 + 0.5 * (at_most - less) as f64;
            pairs += lower as f64;
        }
        for &i in run {
            let mut k = place[i];
            while k < tree.len() {
                tree[k] += 1;
                k += k & k.wrapping_neg();
            }
        }
        lower += run.len();
    }
    if pairs > 0.0 { right / pairs } else { 0.5 }
}

/// Expected calibration error: rows in `bins` of equal count by prediction, mean gap between a bin's mean
/// prediction and its mean label, weighted by rows.
pub fn calibration_error(predictions: &[f64], labels: &[f64], bins: usize) -> f64 {
    let (order, n) = (order(predictions), labels.len());
    let gap = |range: &[usize]| range.iter().map(|&i| predictions[i] - labels[i]).sum::<f64>().abs();
    let bins = bins.clamp(1, n.max(1));
    (0..bins).map(|k| gap(&order[k * n / bins..(k + 1) * n / bins])).sum::<f64>() / n.max(1) as f64
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

/// Scale `a` > 0 and shift `b` that bring `σ(a·z + b)` nearest to the labels in squared error (Platt's form, least
/// squares instead of likelihood). It never turns an order round. Gauss-Newton with step halving from (1, 0).
pub fn calibrate(z: &[f64], labels: &[f64]) -> (f64, f64) {
    let error =
        |(a, b): (f64, f64)| z.iter().zip(labels).map(|(z, y)| (sigmoid(a * z + b) - y).powi(2)).sum::<f64>();
    let (mut at, mut best) = ((1.0, 0.0), error((1.0, 0.0)));
    for _ in 0..50 {
        let (mut haa, mut hab, mut hbb, mut ga, mut gb) = (1e-9, 0.0, 1e-9, 0.0, 0.0);
        for (z, y) in z.iter().zip(labels) {
            let p = sigmoid(at.0 * z + at.1);
            let d = p * (1.0 - p);
            (haa, hab, hbb) = (haa + d * d * z * z, hab + d * d * z, hbb + d * d);
            (ga, gb) = (ga + (p - y) * d * z, gb + (p - y) * d);
        }
        let det = haa * hbb - hab * hab;
        if det <= 0.0 {
            break;
        }
        let (da, db) = ((hbb * ga - hab * gb) / det, (haa * gb - hab * ga) / det);
        let mut step = 1.0;
        let next = loop {
            let to = ((at.0 - step * da).max(1e-3), at.1 - step * db);
            let e = error(to);
            if e < best || step < 1e-4 {
                break (to, e);
            }
            step *= 0.5;
        };
        if next.1 >= best {
            break;
        }
        let done = best - next.1 < 1e-12 * best;
        (at, best) = next;
        if done {
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use ecr_core::Stream;

    fn draws(n: usize, levels: f64, seed: u64) -> Vec<f64> {
        let mut rng = Stream::new(seed).rng();
        (0..n).map(|_| (rng.uniform() * levels).floor() / levels).collect()
    }

    /// Straight from the definitions, O(n²).
    fn slow(p: &[f64], y: &[f64]) -> (f64, f64) {
        let rank = |x: &[f64], v: f64| {
            x.iter().map(|&o| f64::from(u8::from(o < v)) + 0.5 * f64::from(u8::from(o == v))).sum::<f64>()
        };
        let ranks = |x: &[f64]| x.iter().map(|&v| rank(x, v)).collect::<Vec<_>>();
        let (a, b) = (ranks(p), ranks(y));
        let n = a.len() as f64;
        let (ma, mb) = (a.iter().sum::<f64>() / n, b.iter().sum::<f64>() / n);
        let sum = |f: &dyn Fn(usize) -> f64| (0..a.len()).map(f).sum::<f64>();
        let cov = sum(&|i| (a[i] - ma) * (b[i] - mb));
        let scale = (sum(&|i| (a[i] - ma).powi(2)) * sum(&|i| (b[i] - mb).powi(2))).sqrt();
        let (mut right, mut pairs) = (0.0, 0.0);
        for i in 0..y.len() {
            for j in (0..y.len()).filter(|&j| y[i] > y[j]) {
                pairs += 1.0;
                right += f64::from(u8::from(p[i] > p[j])) + 0.5 * f64::from(u8::from(p[i] == p[j]));
            }
        }
        (cov / scale, right / pairs)
    }

    #[test]
    fn ranks_and_pairs_agree_with_their_definitions_on_ties() {
        for (n, levels, seed) in [(1, 3.0, 1), (7, 3.0, 2), (60, 5.0, 3), (200, 1e6, 4), (150, 2.0, 5)] {
            let (p, y) = (draws(n, levels, seed), draws(n, 4.0, seed + 10));
            let (s, w) = slow(&p, &y);
            let (s, w) = if n > 1 { (s, w) } else { (0.0, 0.5) };
            assert!((spearman(&p, &y) - s).abs() < 1e-12, "{n}");
            assert!((pairwise_accuracy(&p, &y) - w).abs() < 1e-12, "{n}");
        }
        assert_eq!(pairwise_accuracy(&[0.1, 0.2], &[1.0, 1.0]), 0.5);
    }

    #[test]
    fn counting_a_row_twice_is_having_it_twice() {
        let (p, y) = (draws(40, 6.0, 1), draws(40, 4.0, 2));
        let times: Vec<u32> = (0..40).map(|i| i % 3).collect();
        let repeat =
            |x: &[f64]| x.iter().zip(&times).flat_map(|(&v, &t)| vec![v; t as usize]).collect::<Vec<f64>>();
        let got = Spearman::new(&p, &y).value(&times);
        assert!((got - spearman(&repeat(&p), &repeat(&y))).abs() < 1e-12);
    }

    #[test]
    fn calibration_finds_scale_and_shift_and_keeps_the_order() {
        let mut rng = Stream::new(3).rng();
        let z: Vec<f64> = (0..400).map(|_| rng.normal()).collect();
        let y: Vec<f64> = z.iter().map(|z| sigmoid(0.3 * z - 0.8)).collect();
        let (a, b) = calibrate(&z, &y);
        assert!((a - 0.3).abs() < 1e-4 && (b + 0.8).abs() < 1e-4, "{a} {b}");
        let p: Vec<f64> = z.iter().map(|z| sigmoid(a * z + b)).collect();
        assert!(calibration_error(&p, &y, 10) < 1e-4);
        let before: Vec<f64> = z.iter().map(|&z| sigmoid(z)).collect();
        assert!(calibration_error(&before, &y, 10) > 0.1);
        // A head that is wrong way round is flattened, never reversed.
        let wrong: Vec<f64> = z.iter().map(|z| sigmoid(-0.5 * z)).collect();
        assert!(calibrate(&z, &wrong).0 > 0.0);
    }
}
