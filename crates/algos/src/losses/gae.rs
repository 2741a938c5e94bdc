//! Generalised advantage estimation (Schulman et al. 2016), within each sequence's scored tokens:
//! `δ_t = r_t + γ V_{t+1} − V_t`, `A_t = δ_t + γλ A_{t+1}`, `G_t = A_t + V_t`, both 0 after the last token.

/// Advantages and returns of every token.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gae {
    /// `A_t`, `[N]`.
    pub advantages: Vec<f64>,
    /// `G_t = A_t + V_t`, `[N]`: what the value function is fitted to.
    pub returns: Vec<f64>,
}

/// GAE of token `rewards` `[N]` and `values` `[N]`; `gamma`, `lambda` in [0, 1].
pub fn gae(rewards: &[f64], values: &[f32], lengths: &[usize], gamma: f64, lambda: f64) -> Gae {
    let mut advantages = vec![0.0; rewards.len()];
    let mut start = 0;
    for &len in lengths {
        let (mut next_value, mut next_advantage) = (0.0, 0.0);
        for t in (start..start + len).rev() {
            let v = f64::from(values[t]);
            next_advantage = rewards[t] + gamma * next_value - v + gamma * lambda * next_advantage;
            advantages[t] = next_advantage;
            next_value = v;
        }
        start += len;
    }
    let returns = advantages.iter().zip(values).map(|(a, &v)| a + f64::from(v)).collect();
    Gae { advantages, returns }
}
