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
unsafe fn finish<const R: usize>(t: &Tile, acc: [[__m512; 2]; R]) {
    let mask = |c: usize| -> __mmask16 { if c >= 16 { 0xffff } else { (1u16 << c) - 1 } };
    let (m0, m1) = (mask(t.cols), mask(t.cols.saturating_sub(16)));
    for (r, [mut x, mut y]) in acc.into_iter().enumerate() {
        // SAFETY: masked to the columns of the tile; a masked-out lane is not touched.
        unsafe {
            let c = t.c.add(r * t.ldc);
            let c1 = c.wrapping_add(16);
            if t.add {
                x = _mm512_add_ps(_mm512_maskz_loadu_ps(m0, c), x);
                y = _mm512_add_ps(_mm512_maskz_loadu_ps(m1, c1), y);
            }
            _mm512_mask_storeu_ps(c, m0, x);
            _mm512_mask_storeu_ps(c1, m1, y);
        }
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn f32_rows<const R: usize>(t: &Tile) {
    let mut acc = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: panels hold `depth` steps.
    unsafe {
        let (mut a, mut b) = (t.a.cast::<f32>(), t.b.cast::<f32>());
        for _ in 0..t.depth {
            let (b0, b1) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
            for r in 0..R {
                let x = _mm512_set1_ps(*a.add(r));
                acc[r][0] = _mm512_fmadd_ps(x, b0, acc[r][0]);
                acc[r][1] = _mm512_fmadd_ps(x, b1, acc[r][1]);
            }
            a = a.add(MR);
            b = b.add(NR);
        }
        finish(t, acc);
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn bf16_rows<const R: usize>(t: &Tile) {
    let mut acc = [[_mm512_setzero_ps(); 2]; R];
    let high = _mm512_set1_epi32(0xffff_0000u32 as i32);
    // SAFETY: panels hold `depth` steps.
    unsafe {
        let (mut a, mut b) = (t.a.cast::<f32>(), t.b);
        for _ in 0..t.depth {
            let w = _mm512_loadu_si512(b.cast());
            let b0 = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(w));
            let b1 = _mm512_castsi512_ps(_mm512_and_si512(w, high));
            for r in 0..R {
                let x = _mm512_set1_ps(*a.add(r));
                acc[r][0] = _mm512_fmadd_ps(x, b0, acc[r][0]);
                acc[r][1] = _mm512_fmadd_ps(x, b1, acc[r][1]);
            }
            a = a.add(MR);
            b = b.add(NR / 2);
        }
        finish(t, acc);
    }
}

#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pairs_rows<const R: usize>(t: &Tile) {
    let mut acc = [[_mm512_setzero_ps(); 2]; R];
    // SAFETY: panels hold `depth` steps of pairs.
    unsafe {
        let (mut a, mut b) = (t.a, t.b);
        for _ in 0..t.depth {
            let b0: __m512bh = std::mem::transmute(_mm512_loadu_si512(b.cast()));
            let b1: __m512bh = std::mem::transmute(_mm512_loadu_si512(b.add(16).cast()));
            for r in 0..R {
                let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(*a.add(r) as i32));
                acc[r][0] = _mm512_dpbf16_ps(acc[r][0], x, b0);
                acc[r][1] = _mm512_dpbf16_ps(acc[r][1], x, b1);
            }
            a = a.add(MR);
            b = b.add(NR);
        }
        finish(t, acc);
    }
}

macro_rules! by_rows {
    ($t:expr, $f:ident) => {
        match $t.rows {
            1 => $f::<1>($t),
            2 => $f::<2>($t),
            3 => $f::<3>($t),
            4 => $f::<4>($t),
            5 => $f::<5>($t),
            6 => $f::<6>($t),
            7 => $f::<7>($t),
            8 => $f::<8>($t),
            9 => $f::<9>($t),
            10 => $f::<10>($t),
            11 => $f::<11>($t),
            _ => $f::<12>($t),
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
