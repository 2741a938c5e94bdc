//! One task of a product: a rectangle of panels, depth block by depth block, through the tier's register tile.
#![allow(unsafe_code)]

use std::ops::Range;

use super::pack::Store;
use super::{KC, MR, NR, Out, PackedB};
use crate::engine::Tier;

/// One register tile: `rows ≤ MR` rows and `cols ≤ NR` columns of `C (+)= a · b` over one depth block.
/// `a` is a panel of `A`, `b` a panel of `B`, `depth` the steps they hold (pairs count as one).
pub(super) struct Tile {
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) depth: usize,
    pub(super) a: *const u32,
    pub(super) b: *const u32,
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
    pub(super) add: bool,
}

/// A packed block of `A` (`m` rows, `k` depths) and the rows of `C` it belongs to.
pub(super) struct Block<'a> {
    pub(super) tier: Tier,
    pub(super) m: usize,
    pub(super) k: usize,
    pub(super) a: &'a [u32],
    pub(super) out: Out,
    pub(super) add: bool,
}

impl Block<'_> {
    /// Computes the rectangle `rows × cols` (in panels of `A` and of `b`) of `C`. The block's first depth is depth
    /// block `q0` of `b`; panel 0 of `b` is panel `j0` of `C`.
    ///
    /// # Safety
    /// The rectangle lies inside `C` and no other task writes to it; `a` holds all panels of the block.
    pub(super) unsafe fn run(
        &self,
        b: &PackedB,
        q0: usize,
        j0: usize,
        rows: Range<usize>,
        cols: Range<usize>,
    ) {
        let mp = self.m.div_ceil(MR);
        let steps = |kc: usize| if b.pairs() { kc.div_ceil(2) } else { kc };
        for q in 0..self.k.div_ceil(KC) {
            let depth = steps((self.k - q * KC).min(KC));
            for i in rows.clone() {
                let pa = &self.a[q * mp * MR * steps(KC) + i * MR * depth..][..MR * depth];
                for j in cols.clone() {
                    let tile = Tile {
                        rows: (self.m - i * MR).min(MR),
                        cols: (b.n - j * NR).min(NR),
                        depth,
                        a: pa.as_ptr(),
                        b: b.data[b.offset(q0 + q, j)..].as_ptr(),
                        // SAFETY: the caller promises that the rectangle lies inside C.
                        c: unsafe { self.out.c.add(i * MR * self.out.ldc + (j0 + j) * NR) },
                        ldc: self.out.ldc,
                        add: self.add || q > 0,
                    };
                    // SAFETY: the tile's panels are whole; `Engine` only names a tier that the CPU has.
                    unsafe { run(self.tier, b.store, &tile) }
                }
            }
        }
    }
}

/// # Safety
/// `t` points to whole panels and to a tile of C of its own; the CPU has `tier`.
#[inline]
unsafe fn run(tier: Tier, store: Store, t: &Tile) {
    // SAFETY: passed on from the caller.
    unsafe {
        match (tier, store) {
            #[cfg(target_arch = "x86_64")]
            (Tier::Avx512, Store::Pairs) => super::avx512::pairs(t),
            #[cfg(target_arch = "x86_64")]
            (Tier::Avx512, Store::F32) => super::avx512::f32(t),
            #[cfg(target_arch = "x86_64")]
            (Tier::Avx512, Store::Bf16) => super::avx512::bf16(t),
            #[cfg(target_arch = "x86_64")]
            (Tier::Avx2, Store::F32) => super::avx2::f32(t),
            #[cfg(target_arch = "x86_64")]
            (Tier::Avx2, Store::Bf16) => super::avx2::bf16(t),
            (_, Store::F32) => super::portable::f32(t),
            (_, Store::Bf16) => super::portable::bf16(t),
            (_, Store::Pairs) => super::portable::pairs(t),
        }
    }
}
