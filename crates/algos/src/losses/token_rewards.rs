//! Token rewards of the KL-regularised objective: `r_t = −β·kl_t`, plus the sequence's score at its *last*
//! scored token (the end token), as OpenRLHF, verl and torchtune place it; TRL put it one slot later.

/// Rewards `[N]` from `scores` `[S]`, token KLs `[N]` and `kl_coef` β. An empty sequence has no reward.
pub fn token_rewards(scores: &[f64], kl: &[f64], kl_coef: f64, lengths: &[usize]) -> Vec<f64> {
    let mut rewards: Vec<f64> = kl.iter().map(|k| -kl_coef * k).collect();
    let mut end = 0;
    for (&len, &score) in lengths.iter().zip(scores) {
        end += len;
        if len > 0 {
            rewards[end - 1] += score;
        }
    }
    rewards
}
