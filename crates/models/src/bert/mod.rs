//! BERT and RoBERTa encoders: post-norm blocks with biases, erf GELU, learned positions.

mod config;

pub use config::{BertConfig, BertFamily, BertLayerIndex};
