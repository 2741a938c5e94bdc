//! ecr-run
