//! ecr-algos
