//! Keys and values of one row of the batch.
//!
//! Legend: `KV` key heads, `hd` head width; per layer `[KV, capacity, hd]`.

use crate::llama::LlamaConfig;

/// One place in the batch.
#[derive(Default)]
pub(super) struct Slot {
    capacity: usize,
    hd: usize,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

impl Slot {
    /// Makes room for `capacity` tokens; contents are lost if it grows.
    pub(super) fn reserve(&mut self, c: &LlamaConfig, capacity: usize) {
        if self.capacity < capacity || self.keys.len() != c.num_layers || self.hd != c.head_dim {
            let capacity = capacity.next_multiple_of(32);
            let n = c.num_kv_heads * capacity * c.head_dim;
            (self.capacity, self.hd) = (capacity, c.head_dim);
            self.keys = (0..c.num_layers).map(|_| vec![0.0; n]).collect();
            self.values = (0..c.num_layers).map(|_| vec![0.0; n]).collect();
        }
    }
    /// Stores key and value of one token, all heads, `[KV·hd]`.
    pub(super) fn put(&mut self, layer: usize, pos: usize, k: &[f32], v: &[f32]) {
        for (head, (k, v)) in k.chunks(self.hd).zip(v.chunks(self.hd)).enumerate() {
            let at = (head * self.capacity + pos) * self.hd;
            self.keys[layer][at..at + self.hd].copy_from_slice(k);
            self.values[layer][at..at + self.hd].copy_from_slice(v);
        }
    }
    /// Keys and values of a head up to `n` tokens, `[n, hd]` each.
    pub(super) fn get(&self, layer: usize, head: usize, n: usize) -> (&[f32], &[f32]) {
        let at = head * self.capacity * self.hd;
        let range = at..at + n * self.hd;
        (&self.keys[layer][range.clone()], &self.values[layer][range])
    }
}
