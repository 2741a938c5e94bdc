//! Drawing one token from logits.

use ecr_core::rng::Draws;
use ecr_core::seam::Decoding;
use ecr_core::{Error, Result};
use ecr_kernels::math;

/// Draws a token and gives its log-probability under the distribution drawn from (greedy: under the plain
/// softmax). Overwrites the logits. One uniform number a token, by the inverse of the cumulative distribution in
/// the order of ids, or of rank where top-k or top-p cut.
pub(super) fn sample(
    z: &mut [f32],
    response: &[u32],
    d: Decoding<'_>,
    draws: &mut Draws,
) -> Result<(u32, f32)> {
    if let Some(mask) = d.mask {
        let mut allowed = vec![true; z.len()];
        mask.restrict(response, &mut allowed);
        forbid(z, |i| !allowed[i]);
    }
    if d.no_repeat_ngram > 0 && response.len() + 1 >= d.no_repeat_ngram {
        let n = d.no_repeat_ngram - 1;
        let tail = &response[response.len() - n..];
        for w in response.windows(n + 1).filter(|w| &w[..n] == tail) {
            z[w[n] as usize] = f32::NEG_INFINITY;
        }
    }
    let u = draws.uniform();
    let greedy = d.temperature <= 0.0;
    let scale = if greedy { 1.0 } else { 1.0 / d.temperature };
    let top = math::max(z);
    if !top.is_finite() {
        return Err(Error::new(ecr_core::Kind::Diverged, "sample a token")
            .expected("finite logits and at least one allowed token")
            .got(top.to_string()));
    }
    if greedy {
        let best = z.iter().position(|&x| x == top).unwrap_or(0);
        let sum = math::exp_sum(z, 1.0, top);
        return Ok((best as u32, -sum.ln()));
    }
    let sum = math::exp_sum(z, scale, scale * top);
    if d.top_k == 0 && d.top_p >= 1.0 {
        let i = inverse(z, u, f64::from(sum));
        return Ok((i as u32, (z[i] / sum).ln()));
    }
    let mut order: Vec<u32> = (0..z.len() as u32).filter(|&i| z[i as usize] > 0.0).collect();
    order.sort_by(|&a, &b| z[b as usize].total_cmp(&z[a as usize]).then(a.cmp(&b)));
    if d.top_k > 0 {
        order.truncate(d.top_k);
    }
    let kept: f64 = order.iter().map(|&i| f64::from(z[i as usize])).sum();
    let (mut mass, mut n) = (0.0, 0);
    while n < order.len() && (n == 0 || mass < f64::from(d.top_p) * kept) {
        mass += f64::from(z[order[n] as usize]);
        n += 1;
    }
    let probs: Vec<f32> = order[..n].iter().map(|&i| z[i as usize]).collect();
    let j = inverse(&probs, u, mass);
    Ok((order[j], (f64::from(probs[j]) / mass).ln() as f32))
}

fn forbid(z: &mut [f32], banned: impl Fn(usize) -> bool) {
    for (i, z) in z.iter_mut().enumerate() {
        if banned(i) {
            *z = f32::NEG_INFINITY;
        }
    }
}

/// First index whose cumulative weight exceeds `u · total`; never one of weight zero.
fn inverse(weights: &[f32], u: f64, total: f64) -> usize {
    let target = u * total;
    let mut sum = 0.0;
    let mut last = 0;
    for (b, block) in weights.chunks(64).enumerate() {
        let s = f64::from(math::sum(block));
        if sum + s <= target {
            sum += s;
            if let Some(p) = block.iter().rposition(|&w| w > 0.0) {
                last = b * 64 + p;
            }
            continue;
        }
        for (i, &w) in block.iter().enumerate() {
            sum += f64::from(w);
            if w > 0.0 {
                last = b * 64 + i;
                if sum > target {
                    return last;
                }
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use ecr_core::Stream;

    use super::*;

    fn frequencies(d: Decoding<'_>, logits: &[f32]) -> Vec<f64> {
        let mut draws = Stream::new(3).rng();
        let n = 40_000;
        let mut f = vec![0.0; logits.len()];
        for _ in 0..n {
            let (t, logp) = sample(&mut logits.to_vec(), &[], d, &mut draws).unwrap();
            assert!(logp <= 1e-6);
            f[t as usize] += 1.0 / f64::from(n);
        }
        f
    }

    #[test]
    fn draws_follow_the_distribution() {
        let logits = [0.0, 1.0, 2.0, f32::NEG_INFINITY];
        let z: f64 = [0.0f64, 1.0, 2.0].iter().map(|x| (x / 0.5).exp()).sum();
        let d = Decoding { temperature: 0.5, ..Decoding::plain(1) };
        for (i, f) in frequencies(d, &logits).iter().enumerate() {
            let want = if i == 3 { 0.0 } else { (f64::from(logits[i]) / 0.5).exp() / z };
            assert!((f - want).abs() < 0.01, "{i}: {f} for {want}");
        }
        let d = Decoding { top_k: 2, ..Decoding::plain(1) };
        assert!(frequencies(d, &logits)[0] == 0.0);
        let d = Decoding { top_p: 0.5, ..Decoding::plain(1) };
        assert!(frequencies(d, &logits)[2] > 0.9999);
    }

    #[test]
    fn greedy_takes_the_best_and_repetition_is_barred() {
        let d = Decoding { temperature: 0.0, no_repeat_ngram: 2, ..Decoding::plain(9) };
        let mut draws = Stream::new(1).rng();
        assert_eq!(sample(&mut [0.0, 5.0, 4.0], &[0], d, &mut draws).unwrap().0, 1);
        assert_eq!(sample(&mut [0.0, 5.0, 4.0], &[0, 1, 0], d, &mut draws).unwrap().0, 2);
        assert!(sample(&mut [f32::NAN], &[], d, &mut draws).is_err());
    }
}
