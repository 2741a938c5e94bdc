//! ecr-data
