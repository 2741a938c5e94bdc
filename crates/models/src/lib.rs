//! Language models and encoders on the explicit engine: a closed set of fused operations with hand-written
//! backward passes, and the model families built from them.
//!
//! Public modules: [`llama`] (decoder policies), [`bert`] (BERT and RoBERTa encoders), [`lora`] (adapters).

pub mod bert;
pub mod chat;
pub mod generate;
pub mod init;
pub mod llama;
pub mod load;
pub mod lora;
pub mod ops;
pub mod pool;
pub mod save;
pub mod tokenizer;
pub mod value;

pub use bert::{Bert, BertConfig, BertFamily};
pub use llama::{Base, Frozen, Llama, LlamaConfig};
pub use lora::{LoraConfig, Proj, lora_layout};
