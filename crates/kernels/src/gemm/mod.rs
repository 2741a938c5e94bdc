//! Matrix product `C[m, n] (+)= A[m, k] · B[k, n]` over strided operands, by packed panels and register tiles.
//!
//! Legend: `kc` depth of a block of `k`; a panel of `A` is [`MR`] rows, a panel of `B` is [`NR`] columns, both
//! stored depth first. Every element of `C` is summed in the order of `k` by one task, and a row's arithmetic
//! does not depend on how many rows there are: results are the same for any number of threads and any batch.

#![allow(unsafe_code)]

mod kernels;
mod pack;

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
// SAFETY: each task of `gemm_packed` writes its own rectangle of C.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}

/// Blocks of the depth.
fn depth_blocks(k: usize) -> usize {
    k.div_ceil(KC).max(1)
}

/// `C[m, n] (+)= A · B` with `B` packed. `parallel` spreads tiles over the thread pool.
pub(crate) fn gemm_packed(
    tier: Tier,
    m: usize,
    a: View<'_>,
    b: &PackedB,
    c: &mut [f32],
    ldc: usize,
    add: bool,
    parallel: bool,
) {
    let (n, k) = (b.n, b.k);
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
    pack::with_scratch(|scratch| {
        pack_a(scratch, m, k, a, b.pairs(), parallel);
        let a_panels: &[u32] = scratch;
        let out = Out { c: c.as_mut_ptr(), ldc };
        let (mp, np) = (m.div_ceil(MR), n.div_ceil(NR));
        let (mt, nt) = (mp.div_ceil(TASK.0), np.div_ceil(TASK.1));
        let task = |t: usize| {
            let (ti, tj) = (t % mt, t / mt);
            let rows = ti * TASK.0..((ti + 1) * TASK.0).min(mp);
            let cols = tj * TASK.1..((tj + 1) * TASK.1).min(np);
            // SAFETY: the tile lies inside C (checked above) and belongs to this task alone; panels are whole.
            unsafe { kernels::block(tier, m, a_panels, b, rows, cols, out, add) };
        };
        if parallel && mt * nt > 1 {
            (0..mt * nt).into_par_iter().for_each(task);
        } else {
            (0..mt * nt).for_each(task);
        }
    });
}
