//! Distributions: counts between equally spaced edges, as `numpy.histogram` makes them.

/// Bins of every histogram.
pub const BINS: usize = 30;

/// Counts of finite values between edges.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// [BINS] values in each bin; a bin holds its left edge, the last one its right edge too.
    pub counts: Vec<u64>,
    /// [BINS + 1] ascending.
    pub edges: Vec<f64>,
    /// Sum of the values.
    pub sum: f64,
    /// Sum of their squares.
    pub sum_squares: f64,
}

impl Histogram {
    /// Counts `values`; not finite ones are left out. `None` without any.
    pub fn of(values: &[f64]) -> Option<Self> {
        let values: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
        let mut low = values.iter().copied().reduce(f64::min)?;
        let mut high = values.iter().copied().reduce(f64::max)?;
        if low == high {
            (low, high) = (low - 0.5, high + 0.5);
        }
        let width = (high - low) / BINS as f64;
        let mut edges: Vec<f64> = (0..BINS).map(|i| low + i as f64 * width).collect();
        edges.push(high);
        let mut counts = vec![0; BINS];
        for v in &values {
            let right = edges.partition_point(|e| e <= v);
            counts[right.saturating_sub(1).min(BINS - 1)] += 1;
        }
        let sum = values.iter().sum();
        Some(Self { counts, edges, sum, sum_squares: values.iter().map(|v| v * v).sum() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_as_numpy_does() {
        let h = Histogram::of(&[0.0, 0.05, 1.0, 2.9, 3.0, f64::NAN]).unwrap();
        // numpy.histogram([0, .05, 1, 2.9, 3], bins=30): 2.9 lies just below the edge 29 * .1.
        let filled: Vec<(usize, u64)> =
            h.counts.iter().copied().enumerate().filter(|(_, c)| *c > 0).collect();
        assert_eq!(filled, [(0, 2), (10, 1), (28, 1), (29, 1)]);
        assert_eq!((h.edges.len(), h.edges[30]), (31, 3.0));
        let one = Histogram::of(&[2.0]).unwrap();
        assert_eq!((one.edges[0], one.edges[30], one.counts[15]), (1.5, 2.5, 1));
        assert_eq!(Histogram::of(&[f64::INFINITY]), None);
    }
}
