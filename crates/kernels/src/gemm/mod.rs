//! Matrix product `C[m, n] (+)= A[m, k] · B[k, n]` over strided operands, by packed panels and register tiles.
//!
//! Legend: `kc` depth of a block of `k`; a panel of `A` is `MR` rows, a panel of `B` is `NR` columns, both
//! stored depth first. Every element of `C` is summed in the order of `k` by one task, and a row's arithmetic
//! does not depend on how many rows there are: results are the same for any number of threads and any batch.

#![allow(unsafe_code)]

mod kernels;
mod pack;
mod slab;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

pub(crate) use pack::{PackedB, Store, with_panels};

use rayon::prelude::*;

use crate::engine::Tier;
use pack::pack_a;

/// Rows of a register tile.
pub(crate) const MR: usize = 12;
/// Columns of a register tile.
pub(crate) const NR: usize = 32;
/// Depth of a block: a panel of `A` (24 KB) stays in the first-level cache.
pub(crate) const KC: usize = 512;
/// Panels of `A` and of `B` that one task takes.
const TASK: (usize, usize) = (8, 4);
/// Elements of an operand that are packed for all tasks to share (4 MB): they stay in the last-level cache.
const SHARED: usize = 1 << 20;

/// A strided read-only matrix.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// Elements.
    pub data: &'a [f32],
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub col: usize,
}

impl<'a> View<'a> {
    /// Row-major with rows of `width` elements.
    pub fn rows(data: &'a [f32], width: usize) -> Self {
        Self { data, row: width, col: 1 }
    }
    /// The transpose.
    pub fn t(self) -> Self {
        Self { data: self.data, row: self.col, col: self.row }
    }
    fn check(&self, rows: usize, cols: usize) {
        if rows > 0 && cols > 0 {
            assert!(
                (rows - 1) * self.row + (cols - 1) * self.col < self.data.len(),
                "matrix view out of bounds"
            );
        }
    }
}

/// Where tiles of `C` are written; tasks write disjoint tiles.
#[derive(Clone, Copy)]
struct Out {
    c: *mut f32,
    ldc: usize,
}
// SAFETY: each task of `blocks` writes its own rectangle of C.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

/// The right operand.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// Packed beforehand.
    Packed(&'a PackedB),
    /// `[k, n]` as it lies, to be packed as the store says.
    Plain(View<'a>, usize, usize, Store),
}

/// `C[m, n] (+)= A · B`. `parallel` spreads tiles over the thread pool. A block of `A` is packed by all threads; a
/// plain `B` likewise if it is small, else column by column by the task that uses it, so that it stays in cache.
pub(crate) fn gemm(
    tier: Tier,
    m: usize,
    a: View<'_>,
    b: Right<'_>,
    c: &mut [f32],
    ldc: usize,
    add: bool,
    parallel: bool,
) {
    let (k, n, store) = match b {
        Right::Packed(b) => (b.k, b.n, b.store),
        Right::Plain(v, k, n, store) => {
            v.check(k, n);
            (k, n, store)
        }
    };
    if m == 0 || n == 0 {
        return;
    }
    a.check(m, k);
    assert!(ldc >= n && (m - 1) * ldc + n <= c.len(), "output of a matrix product out of bounds");
    if k == 0 {
        if !add {
            (0..m).for_each(|i| c[i * ldc..i * ldc + n].fill(0.0));
        }
        return;
    }
    match b {
        Right::Plain(v, ..) if n * k <= SHARED || !parallel => with_panels(|p| {
            p.fill_part(0..k, 0..n, v, store, parallel);
            blocks(tier, m, a, Right::Packed(p), (k, n, store), c, ldc, add, parallel);
        }),
        _ => blocks(tier, m, a, b, (k, n, store), c, ldc, add, parallel),
    }
}

/// Goes through `A` by blocks of at most [`SHARED`] elements.
fn blocks(
    tier: Tier,
    m: usize,
    a: View<'_>,
    b: Right<'_>,
    (k, n, store): (usize, usize, Store),
    c: &mut [f32],
    ldc: usize,
    add: bool,
    parallel: bool,
) {
    let (np, pairs) = (n.div_ceil(NR), store == Store::Pairs);
    let rows = (SHARED / KC / MR * MR).min(m);
    let depth = (SHARED / rows / KC).max(1) * KC;
    pack::with_scratch(|scratch| {
        for (r0, k0) in (0..m).step_by(rows).flat_map(|r| (0..k).step_by(depth).map(move |p| (r, p))) {
            let (r1, k1) = ((r0 + rows).min(m), (k0 + depth).min(k));
            pack_a(scratch, r0..r1, k0..k1, a, pairs, parallel);
            let (panels, add): (&[u32], bool) = (scratch, add || k0 > 0);
            let (mp, part) = ((r1 - r0).div_ceil(MR), TASK.1.min(np.div_ceil(24)));
            // Rows and columns (in panels) of a task: whole columns if the task packs its own part of `B`.
            let (tm, tn) = if matches!(b, Right::Packed(_)) { TASK } else { (mp, part) };
            let (mt, nt) = (mp.div_ceil(tm), np.div_ceil(tn));
            let out = Out { c: c[r0 * ldc..].as_mut_ptr(), ldc };
            let task = |t: usize| {
                let rows = t % mt * tm..((t % mt + 1) * tm).min(mp);
                let cols = t / mt * tn..((t / mt + 1) * tn).min(np);
                let block = kernels::Block { tier, m: r1 - r0, k: k1 - k0, a: panels, out, add };
                match b {
                    // SAFETY: the tile lies inside C (checked above) and belongs to this task alone.
                    Right::Packed(b) => unsafe { block.run(b, k0 / KC, 0, rows, cols) },
                    Right::Plain(v, ..) => with_panels(|p| {
                        let ns = cols.start * NR..(cols.end * NR).min(n);
                        p.fill_part(k0..k1, ns, v, store, false);
                        // SAFETY: as above.
                        unsafe { block.run(p, 0, cols.start, rows, 0..cols.len()) };
                    }),
                }
            };
            if parallel && mt * nt > 1 {
                (0..mt * nt).into_par_iter().for_each(task);
            } else {
                (0..mt * nt).for_each(task);
            }
        }
    });
}
