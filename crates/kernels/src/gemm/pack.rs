//! Panels: operands rearranged so that the register tile reads memory in order.

use std::cell::RefCell;

use rayon::prelude::*;

use super::{KC, MR, NR, View, depth_blocks};

/// How the elements of a packed matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    /// f32.
    F32,
    /// bf16, widened to f32 before use: half the memory traffic, f32 arithmetic.
    Bf16,
    /// Pairs of bf16 along the depth, for the bf16 dot product.
    Pairs,
}

/// Rounds to bf16, to nearest, ties to even; the high half of the f32.
#[inline]
pub(crate) fn bf16_round(x: f32) -> u16 {
    let u = x.to_bits();
    if x.is_nan() {
        return ((u >> 16) | 0x40) as u16;
    }
    ((u.wrapping_add(0x7fff + ((u >> 16) & 1))) >> 16) as u16
}

/// `B[k, n]` in panels of [`NR`] columns: depth block by depth block, panel by panel, `[kc, NR]` each.
#[derive(Debug, Clone)]
pub(crate) struct PackedB {
    /// Columns.
    pub(crate) n: usize,
    /// Depth.
    pub(crate) k: usize,
    /// How elements are stored.
    pub(crate) store: Store,
    /// Elements as words: one f32, two bf16 of one depth, or one pair of depths.
    pub(crate) data: Vec<u32>,
}

impl PackedB {
    /// Whether the depth goes by pairs.
    pub(crate) fn pairs(&self) -> bool {
        self.store == Store::Pairs
    }
    /// Words a depth step of one panel takes, as a fraction: (numerator, depths).
    fn words(store: Store, kc: usize) -> usize {
        match store {
            Store::F32 => kc * NR,
            Store::Bf16 => kc * NR / 2,
            Store::Pairs => kc.div_ceil(2) * NR,
        }
    }
    /// Word offset of a panel in a depth block.
    pub(crate) fn offset(&self, block: usize, panel: usize) -> usize {
        let np = self.n.div_ceil(NR);
        let kc = (self.k - block * KC).min(KC);
        block * np * Self::words(self.store, KC) + panel * Self::words(self.store, kc)
    }
    /// An empty matrix to be filled by [`PackedB::fill`].
    pub(crate) fn empty() -> Self {
        Self { n: 0, k: 0, store: Store::F32, data: Vec::new() }
    }
    /// Packs `B[k, n]`, reusing the buffer.
    pub(crate) fn fill(&mut self, k: usize, n: usize, b: View<'_>, store: Store, parallel: bool) {
        b.check(k, n);
        (self.n, self.k, self.store) = (n, k, store);
        let np = n.div_ceil(NR);
        let total = (0..depth_blocks(k)).map(|q| np * Self::words(store, (k - q * KC).min(KC))).sum();
        self.data.resize(total, 0);
        let mut rest = self.data.as_mut_slice();
        for q in 0..depth_blocks(k) {
            let kc = (k - q * KC).min(KC);
            let words = Self::words(store, kc);
            let (block, tail) = rest.split_at_mut(np * words);
            rest = tail;
            let pack = |(j, panel): (usize, &mut [u32])| pack_panel(panel, q * KC, kc, j * NR, n, b, store);
            if words == 0 {
                continue;
            }
            if parallel && np > 1 {
                block.par_chunks_mut(words).enumerate().for_each(pack);
            } else {
                block.chunks_mut(words).enumerate().for_each(pack);
            }
        }
    }
}

/// Packs columns `j0..j0 + NR` (zeros beyond `n`) of depths `k0..k0 + kc`.
fn pack_panel(panel: &mut [u32], k0: usize, kc: usize, j0: usize, n: usize, b: View<'_>, store: Store) {
    let cols = (n - j0).min(NR);
    if cols < NR {
        panel.fill(0);
    }
    let at = |p: usize, j: usize| b.data[(k0 + p) * b.row + (j0 + j) * b.col];
    match store {
        Store::F32 if b.col == 1 => {
            for p in 0..kc {
                let src = &b.data[(k0 + p) * b.row + j0..][..cols];
                for (d, s) in panel[p * NR..p * NR + cols].iter_mut().zip(src) {
                    *d = s.to_bits();
                }
            }
        }
        Store::F32 if b.row == 1 => {
            // Four rows of the source at a time keep both streams in the cache.
            for j in 0..cols {
                let src = &b.data[(j0 + j) * b.col + k0..][..kc];
                for (p, s) in src.iter().enumerate() {
                    panel[p * NR + j] = s.to_bits();
                }
            }
        }
        Store::F32 => {
            for p in 0..kc {
                for j in 0..cols {
                    panel[p * NR + j] = at(p, j).to_bits();
                }
            }
        }
        Store::Bf16 => {
            // Columns j and j + 16 share a word, so that one widening gives 16 neighbours.
            for p in 0..kc {
                for j in 0..NR / 2 {
                    let lo = if j < cols { bf16_round(at(p, j)) } else { 0 };
                    let hi = if j + NR / 2 < cols { bf16_round(at(p, j + NR / 2)) } else { 0 };
                    panel[p * NR / 2 + j] = u32::from(lo) | (u32::from(hi) << 16);
                }
            }
        }
        Store::Pairs if b.row == 1 => {
            for j in 0..cols {
                let src = &b.data[(j0 + j) * b.col + k0..][..kc];
                for (p, s) in src.chunks(2).enumerate() {
                    let hi = s.get(1).map_or(0, |&x| u32::from(bf16_round(x)));
                    panel[p * NR + j] = u32::from(bf16_round(s[0])) | (hi << 16);
                }
            }
        }
        Store::Pairs => {
            for p in 0..kc.div_ceil(2) {
                for j in 0..cols {
                    let lo = u32::from(bf16_round(at(2 * p, j)));
                    let hi = if 2 * p + 1 < kc { u32::from(bf16_round(at(2 * p + 1, j))) } else { 0 };
                    panel[p * NR + j] = lo | (hi << 16);
                }
            }
        }
    }
}

/// Packs `A[m, k]` in panels of [`MR`] rows: depth block by depth block, panel by panel, `[kc, MR]` each
/// (`[kc / 2, MR]` pairs of bf16 if `pairs`). Rows beyond `m` are zero.
pub(super) fn pack_a(out: &mut Vec<u32>, m: usize, k: usize, a: View<'_>, pairs: bool, parallel: bool) {
    let mp = m.div_ceil(MR);
    let depth = |kc: usize| if pairs { kc.div_ceil(2) } else { kc };
    let total = (0..depth_blocks(k)).map(|q| mp * MR * depth((k - q * KC).min(KC))).sum();
    out.resize(total, 0);
    let mut rest = out.as_mut_slice();
    for q in 0..depth_blocks(k) {
        let (k0, kc) = (q * KC, (k - q * KC).min(KC));
        let words = MR * depth(kc);
        let (block, tail) = rest.split_at_mut(mp * words);
        rest = tail;
        let pack = |(i, panel): (usize, &mut [u32])| {
            let rows = (m - i * MR).min(MR);
            if rows < MR {
                panel.fill(0);
            }
            for r in 0..rows {
                let base = (i * MR + r) * a.row + k0 * a.col;
                if pairs {
                    for p in 0..depth(kc) {
                        let lo = u32::from(bf16_round(a.data[base + 2 * p * a.col]));
                        let hi = if 2 * p + 1 < kc {
                            u32::from(bf16_round(a.data[base + (2 * p + 1) * a.col]))
                        } else {
                            0
                        };
                        panel[p * MR + r] = lo | (hi << 16);
                    }
                } else if a.col == 1 {
                    for (p, s) in a.data[base..base + kc].iter().enumerate() {
                        panel[p * MR + r] = s.to_bits();
                    }
                } else {
                    for p in 0..kc {
                        panel[p * MR + r] = a.data[base + p * a.col].to_bits();
                    }
                }
            }
        };
        if parallel && mp > 1 {
            block.par_chunks_mut(words).enumerate().for_each(pack);
        } else {
            block.chunks_mut(words).enumerate().for_each(pack);
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<Vec<u32>>> = const { RefCell::new(Vec::new()) };
    static PANELS: RefCell<Vec<PackedB>> = const { RefCell::new(Vec::new()) };
}

/// Lends a reusable buffer; nested calls (a worker that steals another product) get their own.
pub(super) fn with_scratch<R>(f: impl FnOnce(&mut Vec<u32>) -> R) -> R {
    let mut buffer = SCRATCH.with_borrow_mut(|s| s.pop()).unwrap_or_default();
    let r = f(&mut buffer);
    SCRATCH.with_borrow_mut(|s| s.push(buffer));
    r
}

/// Lends a reusable packed matrix.
pub(crate) fn with_panels<R>(f: impl FnOnce(&mut PackedB) -> R) -> R {
    let mut b = PANELS.with_borrow_mut(|s| s.pop()).unwrap_or_else(PackedB::empty);
    let r = f(&mut b);
    PANELS.with_borrow_mut(|s| s.push(b));
    r
}
