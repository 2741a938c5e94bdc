//! How the two formats put records into a file, so that a reader knows the last whole one.
//!
//! - TFRecord: `u64 length, masked CRC-32C of the length, payload, masked CRC-32C of the payload`, little endian
//!   (tensorflow/core/lib/io/record_writer.h).
//! - W&B's transaction log: the header `:W&B`, `0xBEE1`, version 0, then LevelDB's log format in blocks of 32,768
//!   bytes counted from the start of the file, with CRC-32 (IEEE) over type and payload instead of LevelDB's masked
//!   CRC-32C (wandb/wandb, core/pkg/leveldb/record.go).

use crate::crc::{crc32, masked_crc32c};

/// Payloads that are whole, in order, and the length of the file that they take.
#[derive(Debug, Default, PartialEq)]
pub struct Whole {
    /// One payload a record.
    pub records: Vec<Vec<u8>>,
    /// Bytes up to the end of the last of them; what follows is torn or damaged.
    pub len: u64,
}

/// One TFRecord.
pub fn tfrecord(payload: &[u8]) -> Vec<u8> {
    let len = (payload.len() as u64).to_le_bytes();
    let mut out = Vec::with_capacity(payload.len() + 16);
    out.extend(len);
    out.extend(masked_crc32c(&len).to_le_bytes());
    out.extend(payload);
    out.extend(masked_crc32c(payload).to_le_bytes());
    out
}

/// The TFRecords of a file.
pub fn read_tfrecords(file: &[u8]) -> Whole {
    let mut out = Whole::default();
    while let Some(payload) = one_tfrecord(&file[out.len as usize..]) {
        out.len += payload.len() as u64 + 16;
        out.records.push(payload.to_vec());
    }
    out
}

fn one_tfrecord(b: &[u8]) -> Option<&[u8]> {
    let len = b.get(..8)?;
    let word = |at: usize| b.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes);
    if word(8)? != masked_crc32c(len) {
        return None;
    }
    let end = 12_usize.checked_add(usize::try_from(u64::from_le_bytes(len.try_into().ok()?)).ok()?)?;
    let payload = b.get(12..end)?;
    (word(end)? == masked_crc32c(payload)).then_some(payload)
}

/// First bytes of a W&B log.
pub const WANDB_HEADER: [u8; 7] = [b':', b'W', b'&', b'B', 0xe1, 0xbe, 0];
const BLOCK: usize = 32_768;
const CHUNK_HEADER: usize = 7;
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// The bytes that put a record at the end of a W&B log of `at` bytes.
pub fn wandb_record(at: u64, mut payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 2 * CHUNK_HEADER);
    let mut first = true;
    loop {
        let left = BLOCK - (at as usize + out.len()) % BLOCK;
        if left < CHUNK_HEADER {
            out.extend(std::iter::repeat_n(0, left));
            continue;
        }
        let (head, tail) = payload.split_at(payload.len().min(left - CHUNK_HEADER));
        let kind = match (first, tail.is_empty()) {
            (true, true) => FULL,
            (true, false) => FIRST,
            (false, false) => MIDDLE,
            (false, true) => LAST,
        };
        out.extend(crc32(&[&[kind], head]).to_le_bytes());
        // A chunk fits in a block, so its length fits in 16 bits.
        out.extend((head.len() as u16).to_le_bytes());
        out.push(kind);
        out.extend(head);
        if tail.is_empty() {
            return out;
        }
        (payload, first) = (tail, false);
    }
}

/// The records of a W&B log; none if it lacks the header.
pub fn read_wandb(file: &[u8]) -> Whole {
    let mut out = Whole::default();
    if !file.starts_with(&WANDB_HEADER) {
        return out;
    }
    let mut at = WANDB_HEADER.len();
    out.len = at as u64;
    let mut record: Option<Vec<u8>> = None;
    loop {
        if BLOCK - at % BLOCK < CHUNK_HEADER {
            at += BLOCK - at % BLOCK;
        }
        let Some((kind, payload)) = chunk(file, at) else { return out };
        at += CHUNK_HEADER + payload.len();
        match (kind, &mut record) {
            (FULL, None) => out.records.push(payload.to_vec()),
            (FIRST, None) => record = Some(payload.to_vec()),
            (MIDDLE, Some(r)) => r.extend(payload),
            (LAST, Some(r)) => {
                r.extend(payload);
                out.records.extend(record.take());
            }
            _ => return out,
        }
        if record.is_none() {
            out.len = at as u64;
        }
    }
}

fn chunk(file: &[u8], at: usize) -> Option<(u8, &[u8])> {
    let head = file.get(at..at + CHUNK_HEADER)?;
    let sum = u32::from_le_bytes(head[..4].try_into().ok()?);
    let len = usize::from(u16::from_le_bytes(head[4..6].try_into().ok()?));
    let payload = file.get(at + CHUNK_HEADER..at + CHUNK_HEADER + len)?;
    (crc32(&[&head[6..], payload]) == sum).then_some((head[6], payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Payloads around every edge of a block.
    fn payloads() -> Vec<Vec<u8>> {
        let sizes = [0, 1, 32_700, 32_700, 40, 70_000, BLOCK - 20, 5, 6, 7, 100_000];
        sizes.iter().enumerate().map(|(i, n)| vec![i as u8; *n]).collect()
    }

    #[test]
    fn a_cut_at_any_byte_leaves_the_whole_records_before_it() {
        type Put = fn(u64, &[u8]) -> Vec<u8>;
        type Read = fn(&[u8]) -> Whole;
        let formats: [(Vec<u8>, Put, Read); 2] = [
            (WANDB_HEADER.to_vec(), wandb_record, read_wandb),
            (Vec::new(), |_, p| tfrecord(p), read_tfrecords),
        ];
        for (mut file, put, read) in formats {
            let mut ends = vec![file.len()];
            for p in payloads() {
                file.extend(put(file.len() as u64, &p));
                ends.push(file.len());
            }
            let all = read(&file);
            assert_eq!((all.records, all.len), (payloads(), file.len() as u64));
            // Every byte around the ends of records and blocks, a sample elsewhere.
            let near = |cut: usize| ends.iter().any(|e| e.abs_diff(cut) < 12) || cut % BLOCK < 9;
            for cut in (ends[0]..file.len()).filter(|c| near(*c) || c.is_multiple_of(4099)) {
                let whole = ends.iter().filter(|e| **e <= cut).count() - 1;
                let got = read(&file[..cut]);
                assert_eq!(got.records.len(), whole, "cut at {cut}");
                assert_eq!(got.len, ends[whole] as u64, "cut at {cut}");
            }
            // A flipped bit ends the reading at the record before, and a record put there is found again.
            let mut bad = file.clone();
            bad[ends[3] - 1] ^= 4;
            let got = read(&bad);
            assert_eq!((got.records.len(), got.len), (2, ends[2] as u64));
            bad.truncate(got.len as usize);
            bad.extend(put(got.len, b"again"));
            assert_eq!(read(&bad).records[2], b"again");
        }
        assert_eq!(read_wandb(b"else").len, 0);
    }
}
