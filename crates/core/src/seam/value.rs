//! The value function: packed sequences in, one value a scored token out.

use crate::{Packed, Params, Result};

/// `V(s_t)` for each scored token `t`, where `s_t` is everything before the token (its own packed input: a
/// centralised critic may see more than the policy does). A head on the policy's trunk is one implementation.
pub trait Value {
    /// Values at the scored tokens, in units of reward, `[N]`. `keep` stores what `backward` needs.
    fn forward(&mut self, params: &Params, batch: &Packed, keep: bool) -> Result<Vec<f32>>;

    /// Takes back `∂L/∂V` (`[N]`) of the last kept forward and adds `∂L/∂params` to `params.grad`.
    fn backward(&mut self, params: &mut Params, d_value: &[f32]) -> Result<()>;
}
