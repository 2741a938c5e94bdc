//! Advantages from groups of responses to one prompt, without a value function:
//! leave-one-out (RLOO; Ahmadian et al. 2024) `A_i = R_i − mean_{j≠i} R_j = G/(G−1)·(R_i − mean)`, and group-relative
//! (GRPO; Shao et al. 2024) `A_i = (R_i − mean)/(std + ε)`, unbiased std; without the std it is Dr. GRPO (Liu et al.
//! 2025). ε is 1e-4 in TRL, 1e-6 in verl.

/// Runs `f` on each group's rewards.
fn each(rewards: &[f64], sizes: &[usize], f: impl Fn(&[f64], f64, &mut Vec<f64>)) -> Vec<f64> {
    let (mut out, mut start) = (Vec::with_capacity(rewards.len()), 0);
    for &n in sizes {
        let group = &rewards[start..start + n];
        start += n;
        f(group, group.iter().sum::<f64>() / n as f64, &mut out);
    }
    out
}

/// RLOO: each reward `[S]` less the mean of the others of its group (groups of these `sizes`, in order). A group of
/// one has advantage 0.
pub fn leave_one_out(rewards: &[f64], sizes: &[usize]) -> Vec<f64> {
    each(rewards, sizes, |group, mean, out| {
        let n = group.len() as f64;
        let scale = if n > 1.0 { n / (n - 1.0) } else { 0.0 };
        out.extend(group.iter().map(|r| scale * (r - mean)));
    })
}

/// GRPO: each reward `[S]` less the mean of its group, over the group's standard deviation + ε (`None`: not divided,
/// Dr. GRPO).
pub fn group_relative(rewards: &[f64], sizes: &[usize], epsilon: Option<f64>) -> Vec<f64> {
    each(rewards, sizes, |group, mean, out| {
        let var = group.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (group.len() as f64 - 1.0).max(1.0);
        let scale = epsilon.map_or(1.0, |e| 1.0 / (var.sqrt() + e));
        out.extend(group.iter().map(|r| scale * (r - mean)));
    })
}

/// Several rewards, normalised before they are added (GDPO; TRL's `normalize_then_sum`): each of `components`
/// (`[C][S]`) becomes group-relative, the weighted sum is normalised over the batch. Adding first lets a reward of
/// large scale drown the others, and different responses get the same advantage.
pub fn normalize_then_sum(
    components: &[Vec<f64>],
    weights: &[f64],
    sizes: &[usize],
    epsilon: f64,
) -> Vec<f64> {
    let n: usize = sizes.iter().sum();
    let mut sum = vec![0.0; n];
    for (component, w) in components.iter().zip(weights) {
        for (s, a) in sum.iter_mut().zip(group_relative(component, sizes, Some(epsilon))) {
            *s += w * a;
        }
    }
    group_relative(&sum, &[n], Some(epsilon))
}
