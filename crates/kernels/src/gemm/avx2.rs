//! The register tile with AVX2 and FMA: 6 × 16 sums in 12 registers, four of them to a tile of panels.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::kernels::Tile;
use super::{MR, NR};

/// Rows in registers at a time.
const ROWS: usize = 6;

/// Adds the sums of `R` rows and 16 columns to C, or stores them.
///
/// # Safety
/// `c` points to `R` rows of `cols` columns.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn finish<const R: usize>(c: *mut f32, ldc: usize, cols: usize, add: bool, acc: [[__m256; 2]; R]) {
    for (r, sums) in acc.into_iter().enumerate() {
        // SAFETY: whole vectors only where 16 columns exist; else element by element.
        unsafe {
            let c = c.add(r * ldc);
            if cols >= 16 {
                for (h, mut s) in sums.into_iter().enumerate() {
                    if add {
                        s = _mm256_add_ps(_mm256_loadu_ps(c.add(8 * h)), s);
                    }
                    _mm256_storeu_ps(c.add(8 * h), s);
                }
            } else {
                let mut row = [0.0f32; 16];
                _mm256_storeu_ps(row.as_mut_ptr(), sums[0]);
                _mm256_storeu_ps(row.as_mut_ptr().add(8), sums[1]);
                for (j, s) in row.iter().enumerate().take(cols) {
                    *c.add(j) = if add { *c.add(j) + s } else { *s };
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn f32_rows<const R: usize>(t: &Tile, r0: usize, half: usize) {
    let mut acc = [[_mm256_setzero_ps(); 2]; R];
    // SAFETY: panels hold `depth` steps; `finish` stays inside the tile.
    unsafe {
        let (mut a, mut b) = (t.a.cast::<f32>().add(r0), t.b.cast::<f32>().add(16 * half));
        for _ in 0..t.depth {
            let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
            for r in 0..R {
                let x = _mm256_broadcast_ss(&*a.add(r));
                acc[r][0] = _mm256_fmadd_ps(x, b0, acc[r][0]);
                acc[r][1] = _mm256_fmadd_ps(x, b1, acc[r][1]);
            }
            a = a.add(MR);
            b = b.add(NR);
        }
        finish(t.c.add(r0 * t.ldc + 16 * half), t.ldc, t.cols - 16 * half, t.add, acc);
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn bf16_rows<const R: usize>(t: &Tile, r0: usize, half: usize) {
    let mut acc = [[_mm256_setzero_ps(); 2]; R];
    let high = _mm256_set1_epi32(0xffff_0000u32 as i32);
    // SAFETY: as above. Columns j and j + 16 share a word: the low halves are columns 0..16.
    unsafe {
        let (mut a, mut b) = (t.a.cast::<f32>().add(r0), t.b);
        for _ in 0..t.depth {
            let (w0, w1) = (_mm256_loadu_si256(b.cast()), _mm256_loadu_si256(b.add(8).cast()));
            let (b0, b1) = if half == 0 {
                (_mm256_slli_epi32::<16>(w0), _mm256_slli_epi32::<16>(w1))
            } else {
                (_mm256_and_si256(w0, high), _mm256_and_si256(w1, high))
            };
            let (b0, b1) = (_mm256_castsi256_ps(b0), _mm256_castsi256_ps(b1));
            for r in 0..R {
                let x = _mm256_broadcast_ss(&*a.add(r));
                acc[r][0] = _mm256_fmadd_ps(x, b0, acc[r][0]);
                acc[r][1] = _mm256_fmadd_ps(x, b1, acc[r][1]);
            }
            a = a.add(MR);
            b = b.add(NR / 2);
        }
        finish(t.c.add(r0 * t.ldc + 16 * half), t.ldc, t.cols - 16 * half, t.add, acc);
    }
}

/// All 32 columns of up to three rows at a time: few rows do not fill the multipliers with 16.
#[target_feature(enable = "avx2,fma")]
unsafe fn f32_wide<const R: usize>(t: &Tile, r0: usize) {
    let mut acc = [[[_mm256_setzero_ps(); 2]; R]; 2];
    // SAFETY: panels hold `depth` steps; `finish` stays inside the tile.
    unsafe {
        let (mut a, mut b) = (t.a.cast::<f32>().add(r0), t.b.cast::<f32>());
        for _ in 0..t.depth {
            let w = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
            let v = [_mm256_loadu_ps(b.add(16)), _mm256_loadu_ps(b.add(24))];
            for r in 0..R {
                let x = _mm256_broadcast_ss(&*a.add(r));
                for q in 0..2 {
                    acc[0][r][q] = _mm256_fmadd_ps(x, w[q], acc[0][r][q]);
                    acc[1][r][q] = _mm256_fmadd_ps(x, v[q], acc[1][r][q]);
                }
            }
            a = a.add(MR);
            b = b.add(NR);
        }
        finish(t.c.add(r0 * t.ldc), t.ldc, t.cols, t.add, acc[0]);
        finish(t.c.add(r0 * t.ldc + 16), t.ldc, t.cols - 16, t.add, acc[1]);
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn bf16_wide<const R: usize>(t: &Tile, r0: usize) {
    let mut acc = [[[_mm256_setzero_ps(); 2]; R]; 2];
    let high = _mm256_set1_epi32(0xffff_0000u32 as i32);
    // SAFETY: as above.
    unsafe {
        let (mut a, mut b) = (t.a.cast::<f32>().add(r0), t.b);
        for _ in 0..t.depth {
            let both = [_mm256_loadu_si256(b.cast()), _mm256_loadu_si256(b.add(8).cast())];
            for q in 0..2 {
                let w = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(both[q]));
                let v = _mm256_castsi256_ps(_mm256_and_si256(both[q], high));
                for r in 0..R {
                    let x = _mm256_broadcast_ss(&*a.add(r));
                    acc[0][r][q] = _mm256_fmadd_ps(x, w, acc[0][r][q]);
                    acc[1][r][q] = _mm256_fmadd_ps(x, v, acc[1][r][q]);
                }
            }
            a = a.add(MR);
            b = b.add(NR / 2);
        }
        finish(t.c.add(r0 * t.ldc), t.ldc, t.cols, t.add, acc[0]);
        finish(t.c.add(r0 * t.ldc + 16), t.ldc, t.cols - 16, t.add, acc[1]);
    }
}

macro_rules! tile {
    ($t:expr, $f:ident, $wide:ident) => {
        if $t.rows <= 3 && $t.cols > 16 {
            match $t.rows {
                1 => $wide::<1>($t, 0),
                2 => $wide::<2>($t, 0),
                _ => $wide::<3>($t, 0),
            }
        } else {
            for half in 0..$t.cols.div_ceil(16) {
                for r0 in (0..$t.rows).step_by(ROWS) {
                    match $t.rows - r0 {
                        1 => $f::<1>($t, r0, half),
                        2 => $f::<2>($t, r0, half),
                        3 => $f::<3>($t, r0, half),
                        4 => $f::<4>($t, r0, half),
                        5 => $f::<5>($t, r0, half),
                        _ => $f::<6>($t, r0, half),
                    }
                }
            }
        }
    };
}

/// f32 panels.
///
/// # Safety
/// `t` points to whole panels and its own tile of C; the CPU has AVX2 and FMA.
pub(super) unsafe fn f32(t: &Tile) {
    // SAFETY: passed on.
    unsafe { tile!(t, f32_rows, f32_wide) }
}

/// bf16-stored B, f32 arithmetic.
///
/// # Safety
/// As [`f32`].
pub(super) unsafe fn bf16(t: &Tile) {
    // SAFETY: passed on.
    unsafe { tile!(t, bf16_rows, bf16_wide) }
}
