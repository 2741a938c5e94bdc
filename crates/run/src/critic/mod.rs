//! What the critic learns from and how it is reported on; the stage itself is `stages/critic.rs`.

pub mod plan;
pub mod report;
pub mod rows;

use ecr_data::critic_rows::CriticRow;

/// Whether people rated this row (else it belongs to a group of known order).
pub(crate) fn rated(row: &CriticRow) -> bool {
    row.group.is_empty()
}
