//! The register tile in plain Rust: the reference of the other tiers' arithmetic, and the only tier elsewhere.
#![allow(unsafe_code)]

use super::kernels::Tile;
use super::{MR, NR};

/// Rows that stay in registers at a time.
const ROWS: usize = 4;

fn widen(half: u32) -> f32 {
    f32::from_bits(half << 16)
}

/// # Safety
/// See [`Tile`].
unsafe fn tile(t: &Tile, step: impl Fn(&mut [[f32; NR]; ROWS], usize, usize, usize)) {
    for r0 in (0..t.rows).step_by(ROWS) {
        let rows = (t.rows - r0).min(ROWS);
        let mut acc = [[0.0f32; NR]; ROWS];
        for p in 0..t.depth {
            step(&mut acc, p, r0, rows);
        }
        for (r, acc) in acc.iter().enumerate().take(rows) {
            for (j, &s) in acc.iter().enumerate().take(t.cols) {
                // SAFETY: rows and cols bound the tile of C.
                unsafe {
                    let c = t.c.add((r0 + r) * t.ldc + j);
                    *c = if t.add { *c + s } else { s };
                }
            }
        }
    }
}

/// f32 panels.
///
/// # Safety
/// `t` points to whole panels and to its own tile of C.
pub(super) unsafe fn f32(t: &Tile) {
    // SAFETY: a panel of B holds `depth · NR` words, one of A `depth · MR`.
    unsafe {
        let (a, b) = (panel(t.a, t.depth * MR), panel(t.b, t.depth * NR));
        tile(t, |acc, p, r0, rows| {
            for r in 0..rows {
                let x = f32::from_bits(a[p * MR + r0 + r]);
                for j in 0..NR {
                    acc[r][j] += x * f32::from_bits(b[p * NR + j]);
                }
            }
        });
    }
}

/// bf16-stored B, f32 arithmetic.
///
/// # Safety
/// As [`f32`].
pub(super) unsafe fn bf16(t: &Tile) {
    // SAFETY: as above; two columns a word.
    unsafe {
        let (a, b) = (panel(t.a, t.depth * MR), panel(t.b, t.depth * NR / 2));
        tile(t, |acc, p, r0, rows| {
            for r in 0..rows {
                let x = f32::from_bits(a[p * MR + r0 + r]);
                for j in 0..NR / 2 {
                    let w = b[p * NR / 2 + j];
                    acc[r][j] += x * widen(w & 0xffff);
                    acc[r][j + NR / 2] += x * f32::from_bits(w & 0xffff_0000);
                }
            }
        });
    }
}

/// Pairs of bf16, f32 sums: `acc + hi·hi + lo·lo` as the bf16 dot product adds.
///
/// # Safety
/// As [`f32`].
pub(super) unsafe fn pairs(t: &Tile) {
    // SAFETY: as above.
    unsafe {
        let (a, b) = (panel(t.a, t.depth * MR), panel(t.b, t.depth * NR));
        tile(t, |acc, p, r0, rows| {
            for r in 0..rows {
                let x = a[p * MR + r0 + r];
                let (xl, xh) = (widen(x & 0xffff), f32::from_bits(x & 0xffff_0000));
                for j in 0..NR {
                    let w = b[p * NR + j];
                    acc[r][j] += xh * f32::from_bits(w & 0xffff_0000) + xl * widen(w & 0xffff);
                }
            }
        });
    }
}

/// # Safety
/// `p` points to `n` words that live as long as the tile's packs.
unsafe fn panel<'a>(p: *const u32, n: usize) -> &'a [u32] {
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(p, n) }
}
