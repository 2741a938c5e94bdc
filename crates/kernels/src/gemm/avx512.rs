//! The register tile with AVX-512: up to 12 × 32 sums in 24 registers; f32, bf16-stored, or bf16 dot products.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::kernels::Tile;
use super::{MR, NR};

/// Adds the sums to C or stores them.
///
/// # Safety
/// See [`Tile`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn finish<const R: usize, const V: usize>(t: &Tile, acc: [[__m512; V]; R]) {
    let mask = |c: usize| -> __mmask16 { if c >= 16 { 0xffff } else { (1u16 << c) - 1 } };
    for (r, sums) in acc.into_iter().enumerate() {
        for (q, mut x) in sums.into_iter().enumerate() {
            let keep = mask(t.cols.saturating_sub(16 * q));
            // SAFETY: masked to the columns of the tile; a masked-out lane is not touched.
            unsafe {
                let c = t.c.wrapping_add(r * t.ldc + 16 * q);
                if t.add {
                    x = _mm512_add_ps(_mm512_maskz_loadu_ps(keep, c), x);
                }
                _mm512_mask_storeu_ps(c, keep, x);
            }
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn f32_rows<const R: usize, const V: usize>(t: &Tile) {
    let mut acc = [[_mm512_setzero_ps(); V]; R];
    // SAFETY: panels hold `depth` steps.
    unsafe {
        let (mut a, mut b) = (t.a.cast::<f32>(), t.b.cast::<f32>());
        for _ in 0..t.depth {
            let mut w = [_mm512_setzero_ps(); V];
            for q in 0..V {
                w[q] = _mm512_loadu_ps(b.add(16 * q));
            }
            for r in 0..R {
                let x = _mm512_set1_ps(*a.add(r));
                for q in 0..V {
                    acc[r][q] = _mm512_fmadd_ps(x, w[q], acc[r][q]);
                }
            }
            a = a.add(MR);
            b = b.add(NR);
        }
        finish(t, acc);
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn bf16_rows<const R: usize, const V: usize>(t: &Tile) {
    let mut acc = [[_mm512_setzero_ps(); V]; R];
    let high = _mm512_set1_epi32(0xffff_0000u32 as i32);
    // SAFETY: panels hold `depth` steps.
    unsafe {
        let (mut a, mut b) = (t.a.cast::<f32>(), t.b);
        for _ in 0..t.depth {
            let both = _mm512_loadu_si512(b.cast());
            let mut w = [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(both)); V];
            if V > 1 {
                w[V - 1] = _mm512_castsi512_ps(_mm512_and_si512(both, high));
            }
            for r in 0..R {
                let x = _mm512_set1_ps(*a.add(r));
                for q in 0..V {
                    acc[r][q] = _mm512_fmadd_ps(x, w[q], acc[r][q]);
                }
            }
            a = a.add(MR);
            b = b.add(NR / 2);
        }
        finish(t, acc);
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pairs_rows<const R: usize, const V: usize>(t: &Tile) {
    let mut acc = [[_mm512_setzero_ps(); V]; R];
    // SAFETY: panels hold `depth` steps of pairs.
    unsafe {
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.depth {
            let mut w = [std::mem::transmute::<__m512i, __m512bh>(_mm512_setzero_si512()); V];
            for q in 0..V {
                w[q] = std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(b.add(16 * q).cast()));
            }
            for r in 0..R {
                let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(*a.add(r) as i32));
                for q in 0..V {
                    acc[r][q] = _mm512_dpbf16_ps(acc[r][q], x, w[q]);
                }
            }
            a = a.add(MR);
            b = b.add(NR);
        }
        finish(t, acc);
    }
}

/// Up to 12 rows; one vector of columns or two.
macro_rules! by_rows {
    ($t:expr, $f:ident) => {
        match ($t.rows, $t.cols <= 16) {
            (1, true) => $f::<1, 1>($t),
            (1, false) => $f::<1, 2>($t),
            (2, true) => $f::<2, 1>($t),
            (2, false) => $f::<2, 2>($t),
            (3, true) => $f::<3, 1>($t),
            (3, false) => $f::<3, 2>($t),
            (4, true) => $f::<4, 1>($t),
            (4, false) => $f::<4, 2>($t),
            (5, true) => $f::<5, 1>($t),
            (5, false) => $f::<5, 2>($t),
            (6, true) => $f::<6, 1>($t),
            (6, false) => $f::<6, 2>($t),
            (7, true) => $f::<7, 1>($t),
            (7, false) => $f::<7, 2>($t),
            (8, true) => $f::<8, 1>($t),
            (8, false) => $f::<8, 2>($t),
            (9, true) => $f::<9, 1>($t),
            (9, false) => $f::<9, 2>($t),
            (10, true) => $f::<10, 1>($t),
            (10, false) => $f::<10, 2>($t),
            (11, true) => $f::<11, 1>($t),
            (11, false) => $f::<11, 2>($t),
            (_, true) => $f::<12, 1>($t),
            (_, false) => $f::<12, 2>($t),
        }
    };
}

/// f32 panels.
///
/// # Safety
/// `t` points to whole panels and its own tile of C; the CPU has AVX-512F.
pub(super) unsafe fn f32(t: &Tile) {
    // SAFETY: passed on.
    unsafe { by_rows!(t, f32_rows) }
}

/// bf16-stored B, f32 arithmetic.
///
/// # Safety
/// As [`f32`].
pub(super) unsafe fn bf16(t: &Tile) {
    // SAFETY: passed on.
    unsafe { by_rows!(t, bf16_rows) }
}

/// bf16 dot products.
///
/// # Safety
/// As [`f32`], and the CPU has AVX512-BF16.
pub(super) unsafe fn pairs(t: &Tile) {
    // SAFETY: passed on.
    unsafe { by_rows!(t, pairs_rows) }
}
