//! ecr-models
