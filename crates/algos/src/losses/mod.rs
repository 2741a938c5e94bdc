//! Losses and targets of reinforcement and supervised learning, as pure functions: f32 arrays of the seams
//! in, sums in f64, analytic gradients out.
//!
//! Legend: `S` sequences, `N` scored tokens of all of them laid end to end (never padded), `lengths: [S]`
//! says how many belong to each. A loss is `Σ_t weight_t · loss_t`; [`Aggregation::weights`] makes the weights
//! from the *whole* batch, so that a batch cut into micro-batches has the same loss and gradients.

mod adaptive_kl;
mod aggregate;
mod entropy;
mod explained_variance;
mod gae;
mod group;
mod kl;
mod nll;
mod policy;
mod preference;
mod shaping;
mod token_rewards;
mod value;
mod value_norm;
mod whiten;

pub use adaptive_kl::KlController;
pub use aggregate::Aggregation;
pub use entropy::{EntropyBonus, entropy_bonus};
pub use explained_variance::explained_variance;
pub use gae::{Gae, gae};
pub use group::{group_relative, leave_one_out, normalize_then_sum};
pub use kl::{KlEstimator, KlLoss, KlPlace, kl_loss, kl_tokens, sequence_sums};
pub use nll::{Nll, nll};
pub use policy::{Clip, PolicyLoss, policy_loss};
pub use preference::{Preference, bradley_terry};
pub use shaping::EndShaping;
pub use token_rewards::token_rewards;
pub use value::{ValueLoss, huber_value_loss, value_loss};
pub use value_norm::ValueNorm;
pub use whiten::{Variance, whiten};
