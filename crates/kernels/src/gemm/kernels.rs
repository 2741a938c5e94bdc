//! One task of a product: a rectangle of panels, depth block by depth block, through the tier's register tile.
#![allow(unsafe_code)]

use std::ops::Range;

use super::pack::Store;
use super::{KC, MR, NR, Out, PackedB, depth_blocks};
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

/// Computes the rectangle `rows × cols` (in panels) of `C`.
///
/// # Safety
/// The rectangle lies inside `C` and no other task writes to it; `a` holds all panels of `A`.
pub(super) unsafe fn block(
    tier: Tier,
    m: usize,
    a: &[u32],
    b: &PackedB,
    rows: Range<usize>,
    cols: Range<usize>,
    out: Out,
    add: bool,
) {
    let mp = m.div_ceil(MR);
    let steps = |kc: usize| if b.pairs() { kc.div_ceil(2) } else { kc };
    for q in 0..depth_blocks(b.k) {
        let kc = (b.k - q * KC).min(KC);
        let depth = steps(kc);
        for i in rows.clone() {
            let pa = &a[q * mp * MR * steps(KC) + i * MR * depth..][..MR * depth];
            for j in cols.clone() {
                let tile = Tile {
                    rows: (m - i * MR).min(MR),
                    cols: (b.n - j * NR).min(NR),
                    depth,
                    a: pa.as_ptr(),
                    b: b.data[b.offset(q, j)..].as_ptr(),
                    // SAFETY: the caller promises that the rectangle lies inside C.
                    c: unsafe { out.c.add(i * MR * out.ldc + j * NR) },
                    ldc: out.ldc,
                    add: add || q > 0,
                };
                // SAFETY: the tile's panels are whole; `Engine` only names a tier that the CPU has.
                unsafe { run(tier, b.store, &tile) }
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
