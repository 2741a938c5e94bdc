//! Constrained decoding.

/// Which tokens may come next. Must depend on the response so far only.
pub trait TokenMask: Sync {
    /// Clears `allowed[v]` for every token `v` that may not follow `response`. `allowed` comes in all true and
    /// must keep at least one.
    fn restrict(&self, response: &[u32], allowed: &mut [bool]);
}
