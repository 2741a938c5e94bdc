//! Ground floor of `ecr`: errors, the I/O seam, named random streams, flat parameter buffers, packed
//! batches, optimisers, and the seams (traits) that everything above meets at.
//!
//! Invariants: only [`io`] touches the disk; every random draw names its [`rng::Stream`]; no global state.

pub mod dialogue;
pub mod error;
pub mod io;
pub mod optim;
pub mod packed;
pub mod params;
pub mod rng;
pub mod seam;

pub use dialogue::{ItemId, Role, Utterance};
pub use error::{Error, Kind, Result};
pub use packed::Packed;
pub use params::{Layout, Params, TensorSpec};
pub use rng::Stream;
