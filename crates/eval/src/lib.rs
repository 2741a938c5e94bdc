//! ecr-eval
