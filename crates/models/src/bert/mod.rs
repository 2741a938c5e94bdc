//! BERT and RoBERTa encoders: post-norm blocks with biases, erf GELU, learned positions.

mod config;

mod model;
pub use config::{BertConfig, BertFamily, BertLayerIndex};
pub use model::Bert;
