//! One panel of an operand: `lanes` rows or columns side by side, depth after depth. Packing copies (and rounds to
//! bf16) but does not calculate, so that every instruction set gives the same panel.
//!
//! Legend: `lanes ≤ width` elements used at each depth, `width` elements stored; lanes beyond are zero.
#![allow(unsafe_code)]

use super::pack::{Store, bf16_round};

/// Where a panel comes from: element `(depth p, lane j)` is `data[base + p · deep + j · side]`.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) data: &'a [f32],
    pub(super) base: usize,
    pub(super) deep: usize,
    pub(super) side: usize,
    pub(super) lanes: usize,
}

/// Fills `panel`, `[kc, width]` words (f32), `[kc, width / 2]` (bf16: lanes `j` and `j + width / 2` share a word)
/// or `[⌈kc / 2⌉, width]` (pairs of depths).
pub(super) fn fill(panel: &mut [u32], width: usize, kc: usize, s: Source<'_>, store: Store) {
    debug_assert!(s.lanes >= 1 && s.lanes <= width && kc >= 1);
    assert!(s.base + (kc - 1) * s.deep + (s.lanes - 1) * s.side < s.data.len(), "panel out of bounds");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: AVX2 is there.
        unsafe { x86::fill(panel, width, kc, s, store) };
        return;
    }
    plain(panel, width, kc, s, store, 0);
}

/// Word of two bf16.
#[inline(always)]
fn word(lo: f32, hi: f32) -> u32 {
    u32::from(bf16_round(lo)) | (u32::from(bf16_round(hi)) << 16)
}

/// Depths from `from` on, element by element (`from` is even).
fn plain(panel: &mut [u32], width: usize, kc: usize, s: Source<'_>, store: Store, from: usize) {
    let at = |p: usize, j: usize| {
        if p < kc && j < s.lanes { s.data[s.base + p * s.deep + j * s.side] } else { 0.0 }
    };
    match store {
        Store::F32 => {
            for p in from..kc {
                for (j, d) in panel[p * width..(p + 1) * width].iter_mut().enumerate() {
                    *d = at(p, j).to_bits();
                }
            }
        }
        Store::Bf16 => {
            let half = width / 2;
            for p in from..kc {
                for (j, d) in panel[p * half..(p + 1) * half].iter_mut().enumerate() {
                    *d = word(at(p, j), at(p, j + half));
                }
            }
        }
        Store::Pairs => {
            for p in from / 2..kc.div_ceil(2) {
                for (j, d) in panel[p * width..(p + 1) * width].iter_mut().enumerate() {
                    *d = word(at(2 * p, j), at(2 * p + 1, j));
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Source, Store, plain, word};

    /// # Safety
    /// The CPU has AVX2; the source was checked.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn fill(panel: &mut [u32], width: usize, kc: usize, s: Source<'_>, store: Store) {
        if s.side == 1 {
            if s.lanes == width {
                match width {
                    32 => return rows::<32, 16>(panel, kc, s, store),
                    12 => return rows::<12, 6>(panel, kc, s, store),
                    _ => {}
                }
            }
            return plain(panel, width, kc, s, store, 0);
        }
        if s.deep == 1 && width.is_multiple_of(4) {
            // SAFETY: passed on.
            let done = unsafe { columns(panel, width, kc, s, store) };
            return plain(panel, width, kc, s, store, done);
        }
        plain(panel, width, kc, s, store, 0);
    }

    /// Lanes that are neighbours in the source: row by row (`H` = `W / 2`).
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn rows<const W: usize, const H: usize>(panel: &mut [u32], kc: usize, s: Source<'_>, store: Store) {
        let row = |p: usize| -> &[f32; W] {
            let at = s.base + p * s.deep;
            (&s.data[at..at + W]).try_into().unwrap_or(&[0.0; W])
        };
        match store {
            Store::F32 => {
                for (p, d) in panel.chunks_exact_mut(W).take(kc).enumerate() {
                    let r = row(p);
                    for j in 0..W {
                        d[j] = r[j].to_bits();
                    }
                }
            }
            Store::Bf16 => {
                for (p, d) in panel.chunks_exact_mut(H).take(kc).enumerate() {
                    let r = row(p);
                    for j in 0..H {
                        d[j] = word(r[j], r[j + H]);
                    }
                }
            }
            Store::Pairs => {
                for (p, d) in panel.chunks_exact_mut(W).take(kc.div_ceil(2)).enumerate() {
                    let lo = row(2 * p);
                    let hi = if 2 * p + 1 < kc { row(2 * p + 1) } else { &[0.0; W] };
                    for j in 0..W {
                        d[j] = word(lo[j], hi[j]);
                    }
                }
            }
        }
    }

    /// Rounds to bf16 (nearest, ties to even; NaN stays NaN): the high halves of the words.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn round(x: __m256) -> __m256i {
        let u = _mm256_castps_si256(x);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(u), _mm256_set1_epi32(1));
        let r = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
        _mm256_blendv_epi8(r, _mm256_or_si256(u, _mm256_set1_epi32(0x40_0000)), nan)
    }

    /// Transposes eight words of eight lanes.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn transpose(r: [__m256; 8]) -> [__m256; 8] {
        let mut t = r;
        for i in 0..4 {
            t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
        }
        let mut u = t;
        for i in 0..2 {
            let q = 4 * i;
            u[q] = _mm256_shuffle_ps::<0x44>(t[q], t[q + 2]);
            u[q + 1] = _mm256_shuffle_ps::<0xee>(t[q], t[q + 2]);
            u[q + 2] = _mm256_shuffle_ps::<0x44>(t[q + 1], t[q + 3]);
            u[q + 3] = _mm256_shuffle_ps::<0xee>(t[q + 1], t[q + 3]);
        }
        let mut o = u;
        for i in 0..4 {
            o[i] = _mm256_permute2f128_ps::<0x20>(u[i], u[i + 4]);
            o[i + 4] = _mm256_permute2f128_ps::<0x31>(u[i], u[i + 4]);
        }
        o
    }

    /// Lanes that are rows of the source, eight at a time, eight words of depth at a time; returns the depths done.
    ///
    /// # Safety
    /// The source was checked.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn columns(panel: &mut [u32], width: usize, kc: usize, s: Source<'_>, store: Store) -> usize {
        let step = if store == Store::Pairs { 16 } else { 8 };
        let done = kc / step * step;
        let words = match store {
            Store::F32 => done * width,
            Store::Bf16 | Store::Pairs => done / 2 * width,
        };
        assert!(panel.len() >= words);
        let half = width / 2;
        if store == Store::Bf16 && !half.is_multiple_of(8) {
            return 0;
        }
        let dst = panel.as_mut_ptr();
        for p in (0..done).step_by(step) {
            // SAFETY: lanes and depths are inside the source; stores stay inside their row of the panel: the last
            // four of a width such as 12 are stored as four.
            unsafe {
                let load = |j0: usize| -> [__m256; 8] {
                    let mut r = [_mm256_setzero_ps(); 8];
                    for (j, r) in r.iter_mut().enumerate() {
                        if j0 + j < s.lanes {
                            let src = s.data.as_ptr().add(s.base + (j0 + j) * s.side + p);
                            *r = match store {
                                Store::Pairs => {
                                    let a = _mm256_srli_epi32::<16>(round(_mm256_loadu_ps(src)));
                                    let b = _mm256_srli_epi32::<16>(round(_mm256_loadu_ps(src.add(8))));
                                    let ab = _mm256_packus_epi32(a, b);
                                    _mm256_castsi256_ps(_mm256_permute4x64_epi64::<0xd8>(ab))
                                }
                                _ => _mm256_loadu_ps(src),
                            };
                        }
                    }
                    transpose(r)
                };
                match store {
                    Store::Bf16 => {
                        for j0 in (0..half).step_by(8) {
                            let (lo, hi) = (load(j0), load(j0 + half));
                            for q in 0..8 {
                                let l = _mm256_srli_epi32::<16>(round(lo[q]));
                                let h = _mm256_and_si256(round(hi[q]), _mm256_set1_epi32(-65536));
                                let d = dst.add((p + q) * half + j0);
                                _mm256_storeu_si256(d.cast(), _mm256_or_si256(l, h));
                            }
                        }
                    }
                    _ => {
                        let row = if store == Store::Pairs { p / 2 } else { p };
                        for j0 in (0..width).step_by(8) {
                            let t = load(j0);
                            for (q, t) in t.into_iter().enumerate() {
                                let d = dst.add((row + q) * width + j0).cast::<f32>();
                                if j0 + 8 <= width {
                                    _mm256_storeu_ps(d, t);
                                } else {
                                    _mm_storeu_ps(d, _mm256_castps256_ps128(t));
                                }
                            }
                        }
                    }
                }
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_packing_gives_the_same_panel() {
        let data: Vec<f32> = (0..40_000).map(|i| ((i * 7919) % 10_007) as f32 * 1e-3 - 5.0).collect();
        let mut data = data;
        data[77] = f32::NAN;
        data[1234] = f32::INFINITY;
        for width in [12, 32] {
            for lanes in [1, 3, 8, 11, 12, 17, 32].into_iter().filter(|&l| l <= width) {
                for kc in [1usize, 2, 7, 8, 15, 16, 33, 100] {
                    for (deep, side) in [(1, 131), (300, 1), (120, 3)] {
                        for store in [Store::F32, Store::Bf16, Store::Pairs] {
                            let s = Source { data: &data, base: 5, deep, side, lanes };
                            let words = if store == Store::F32 { kc } else { kc.div_ceil(2) } * width;
                            let (mut a, mut b) =
                                (vec![9; words.max(kc * width / 2)], vec![9; words.max(kc * width / 2)]);
                            fill(&mut a, width, kc, s, store);
                            plain(&mut b, width, kc, s, store, 0);
                            assert_eq!(a, b, "{width} {lanes} {kc} {deep} {side} {store:?}");
                        }
                    }
                }
            }
        }
    }
}
