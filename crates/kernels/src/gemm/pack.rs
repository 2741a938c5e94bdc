//! Panels: operands rearranged so that the register tile reads memory in order.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::slab::{self, Source};
use super::{KC, MR, NR, View};

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
    /// Reads column `j` back, `[k]`.
    pub(crate) fn column(&self, j: usize, out: &mut [f32]) {
        assert!(j < self.n && out.len() == self.k, "column of a packed matrix");
        let (panel, lane, half) = (j / NR, j % NR, NR / 2);
        let low = |w: u32| f32::from_bits(w << 16);
        let high = |w: u32| f32::from_bits(w & 0xffff_0000);
        for (block, out) in out.chunks_mut(KC).enumerate() {
            let panel = &self.data[self.offset(block, panel)..];
            for (p, out) in out.iter_mut().enumerate() {
                *out = match self.store {
                    Store::F32 => f32::from_bits(panel[p * NR + lane]),
                    Store::Bf16 if lane < half => low(panel[p * half + lane]),
                    Store::Bf16 => high(panel[p * half + lane - half]),
                    Store::Pairs if p % 2 == 0 => low(panel[p / 2 * NR + lane]),
                    Store::Pairs => high(panel[p / 2 * NR + lane]),
                };
            }
        }
    }
    /// An empty matrix to be filled by [`PackedB::fill`].
    pub(crate) fn empty() -> Self {
        Self { n: 0, k: 0, store: Store::F32, data: Vec::new() }
    }
    /// Packs `B[k, n]`, reusing the buffer.
    pub(crate) fn fill(&mut self, k: usize, n: usize, b: View<'_>, store: Store, parallel: bool) {
        b.check(k, n);
        self.fill_part(0..k, 0..n, b, store, parallel);
    }
    /// Packs depths `ks` and columns `ns` of `b`, reusing the buffer.
    pub(super) fn fill_part(
        &mut self,
        ks: Range<usize>,
        ns: Range<usize>,
        b: View<'_>,
        store: Store,
        parallel: bool,
    ) {
        (self.k, self.n, self.store) = (ks.len(), ns.len(), store);
        let np = ns.len().div_ceil(NR);
        let words = |kc: usize| Self::words(store, kc);
        panels(&mut self.data, ks.len(), np, slice(b.col), &words, parallel, |panel, q0, kc, j| {
            let j0 = ns.start + j * NR;
            let source = Source {
                data: b.data,
                base: (ks.start + q0) * b.row + j0 * b.col,
                deep: b.row,
                side: b.col,
                lanes: (ns.end - j0).min(NR),
            };
            slab::fill(panel, NR, kc, source, store);
        });
    }
}

/// Depths at a time of a group of panels whose lanes lie `side` apart.
fn slice(side: usize) -> usize {
    if side == 1 { 16 } else { KC }
}

/// Cuts `data` into panels, depth block by depth block, and fills them by `f(part, first depth, depths, index)`.
/// A task takes a group of panels and goes through them `slice` depths at a time (an even number): where panels lie
/// side by side in long rows, the group then reads whole cache lines and few pages at once.
fn panels(
    data: &mut Vec<u32>,
    k: usize,
    count: usize,
    slice: usize,
    words: &(dyn Fn(usize) -> usize + Sync),
    parallel: bool,
    f: impl Fn(&mut [u32], usize, usize, usize) + Sync,
) {
    let (whole, last) = (k / KC, k % KC);
    data.resize(count * (whole * words(KC) + words(last)), 0);
    let group = if slice < KC { (count / 16).clamp(1, 16) } else { 1 };
    let fill = |chunk: &mut [u32], q0: usize, kc: usize, first: usize| {
        for s0 in (0..kc).step_by(slice) {
            let s1 = (s0 + slice).min(kc);
            for (i, panel) in chunk.chunks_mut(words(kc)).enumerate() {
                f(&mut panel[words(s0)..words(s1)], q0 + s0, s1 - s0, first + i);
            }
        }
    };
    let block = |(q, block): (usize, &mut [u32])| {
        let kc = if q < whole { KC } else { last };
        let size = group * words(kc);
        if parallel && count > group {
            let chunks = block.par_chunks_mut(size).enumerate();
            chunks.for_each(|(g, c)| fill(c, q * KC, kc, g * group));
        } else {
            block.chunks_mut(size).enumerate().for_each(|(g, c)| fill(c, q * KC, kc, g * group));
        }
    };
    let (blocks, tail) = data.split_at_mut(count * whole * words(KC));
    if parallel && whole > 1 {
        blocks.par_chunks_mut(count * words(KC)).enumerate().for_each(block);
    } else {
        blocks.chunks_mut(count * words(KC)).enumerate().for_each(block);
    }
    if last > 0 {
        block((whole, tail));
    }
}

/// Packs rows `ms` and depths `ks` of `a` in panels of [`MR`] rows: depth block by depth block, panel by panel,
/// `[kc, MR]` each (`[kc / 2, MR]` pairs of bf16 if `pairs`). Rows beyond the last are zero.
pub(super) fn pack_a(
    out: &mut Vec<u32>,
    ms: Range<usize>,
    ks: Range<usize>,
    a: View<'_>,
    pairs: bool,
    parallel: bool,
) {
    let (store, mp) = (if pairs { Store::Pairs } else { Store::F32 }, ms.len().div_ceil(MR));
    let words = |kc: usize| if pairs { kc.div_ceil(2) * MR } else { kc * MR };
    panels(out, ks.len(), mp, slice(a.row), &words, parallel, |panel, q0, kc, i| {
        let i0 = ms.start + i * MR;
        let source = Source {
            data: a.data,
            base: (ks.start + q0) * a.col + i0 * a.row,
            deep: a.col,
            side: a.row,
            lanes: (ms.end - i0).min(MR),
        };
        slab::fill(panel, MR, kc, source, store);
    });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_read_back_as_stored() {
        for (k, n) in [(5, 3), (576, 70), (1025, 33)] {
            let data: Vec<f32> = (0..n * k).map(|i| (i as f32 * 0.37).sin()).collect();
            for store in [Store::F32, Store::Bf16, Store::Pairs] {
                let mut b = PackedB::empty();
                b.fill(k, n, View::rows(&data, k).t(), store, false);
                let mut out = vec![9.0; k];
                for j in 0..n {
                    b.column(j, &mut out);
                    for (&got, &x) in out.iter().zip(&data[j * k..]) {
                        let bf16 = f32::from_bits(u32::from(bf16_round(x)) << 16);
                        assert_eq!(got, if store == Store::F32 { x } else { bf16 });
                    }
                }
            }
        }
    }
}
