//! The two checksums of the formats: CRC-32 (IEEE) of W&B's log, masked CRC-32C of TensorBoard's records.

/// Table of a reflected polynomial.
const fn table(polynomial: u32) -> [u32; 256] {
    let mut out = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut c, mut k) = (i as u32, 0);
        while k < 8 {
            c = if c & 1 == 1 { polynomial ^ (c >> 1) } else { c >> 1 };
            k += 1;
        }
        out[i] = c;
        i += 1;
    }
    out
}

static IEEE: [u32; 256] = table(0xedb8_8320);
static CASTAGNOLI: [u32; 256] = table(0x82f6_3b78);

fn crc(table: &[u32; 256], parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|p| p.iter());
    !bytes.fold(!0, |c, b| table[usize::from(c as u8 ^ b)] ^ (c >> 8))
}

/// CRC-32 (IEEE 802.3) of the parts in a row.
pub fn crc32(parts: &[&[u8]]) -> u32 {
    crc(&IEEE, parts)
}

/// CRC-32C (Castagnoli), rotated and shifted as TFRecord does it, so that a checksum of checksums is safe.
pub fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc(&CASTAGNOLI, &[bytes]).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_values_of_the_catalogue() {
        // "Check" of CRC-32/ISO-HDLC and CRC-32/ISCSI.
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926);
        assert_eq!(crc(&CASTAGNOLI, &[b"123456789"]), 0xe306_9283);
        assert_eq!(masked_crc32c(b"123456789"), 0xe306_9283_u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }
}
