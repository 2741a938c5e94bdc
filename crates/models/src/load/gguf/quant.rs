//! Number formats of tensors, to f32. Blocks as in ggml's `ggml-quants.c`.

use half::{bf16, f16};

/// Number formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quant {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
}

impl Quant {
    /// The format of a code in the file.
    pub(super) fn of(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            8 => Self::Q8_0,
            30 => Self::Bf16,
            _ => return None,
        })
    }
    /// Elements and bytes of a block.
    pub(super) fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
        }
    }
    /// Whole blocks to f32.
    pub(super) fn dequantise(self, raw: &[u8]) -> Vec<f32> {
        let half = |b: &[u8]| f16::from_le_bytes([b[0], b[1]]).to_f32();
        let (elements, bytes) = self.block();
        let mut out = Vec::with_capacity(raw.len() / bytes * elements);
        for b in raw.chunks_exact(bytes) {
            match self {
                Self::F32 => out.push(f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
                Self::F16 => out.push(half(b)),
                Self::Bf16 => out.push(bf16::from_le_bytes([b[0], b[1]]).to_f32()),
                Self::Q8_0 => {
                    let d = half(b);
                    out.extend(b[2..].iter().map(|&q| f32::from(q as i8) * d));
                }
                Self::Q4_0 => {
                    let d = half(b);
                    out.extend(b[2..].iter().map(|&q| (f32::from(q & 15) - 8.0) * d));
                    out.extend(b[2..].iter().map(|&q| (f32::from(q >> 4) - 8.0) * d));
                }
                Self::Q4_1 => {
                    let (d, m) = (half(b), half(&b[2..]));
                    out.extend(b[4..].iter().map(|&q| f32::from(q & 15) * d + m));
                    out.extend(b[4..].iter().map(|&q| f32::from(q >> 4) * d + m));
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_dequantised() {
        let d = f16::from_f32(0.5).to_le_bytes();
        let m = f16::from_f32(-1.0).to_le_bytes();
        let mut q8 = d.to_vec();
        q8.extend((0..32).map(|i| (i as i8 - 16) as u8));
        assert_eq!(Quant::Q8_0.dequantise(&q8)[..3], [-8.0, -7.5, -7.0]);
        let mut q4 = d.to_vec();
        q4.extend((0..16).map(|i| i | (15 - i) << 4));
        let x = Quant::Q4_0.dequantise(&q4);
        assert_eq!((x[0], x[15], x[16], x[31]), (-4.0, 3.5, 3.5, -4.0));
        let mut q41 = d.to_vec();
        q41.extend(m);
        q41.extend((0..16).map(|i| i | (15 - i) << 4));
        let x = Quant::Q4_1.dequantise(&q41);
        assert_eq!((x[0], x[15], x[16], x[31]), (-1.0, 6.5, 6.5, -1.0));
    }
}
