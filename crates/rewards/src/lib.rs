//! ecr-rewards
