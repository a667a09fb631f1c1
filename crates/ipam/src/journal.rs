//! The bytes of the journal: what the agent appends, and what it finds after a crash.
//!
//! A file is [`MAGIC`] and frames. A frame is a length and a CRC-32 (4 bytes each, little-endian; the CRC covers the
//! length and what follows), then the number of bytes of the file that were known to be durable when the frame was
//! written (8 bytes), then the record. The writer syncs before it writes the next group, so everything before a frame's
//! `durable` was on disk: a bad frame **after** that point of every good one is a torn tail and is cut; a bad frame
//! **before** such a point is damage that nobody may ignore.

use crate::record::{Record, RecordError};

/// How a journal begins.
pub const MAGIC: [u8; 16] = *b"isthmus-ipam-1\n\0";
/// Longest record, in bytes: a detail, an owner, and room.
pub const RECORD_BYTES_MAX: usize = 1 << 20;

const HEAD_BYTES: usize = 8;
const DURABLE_BYTES: usize = 8;

/// What a journal holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The records, in order.
    pub records: Vec<Record>,
    /// Bytes up to the end of the last good record; what follows is a torn tail and must be cut before appending.
    pub valid_bytes: usize,
}

/// Why a file is not a journal that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Another file.
    #[error("it does not begin like an Isthmus address journal of version 1")]
    Foreign,
    /// Durable bytes changed.
    #[error(
        "byte {offset} is damaged, although it had been written durably: the disk or another program changed it"
    )]
    Damaged {
        /// Where the first bad frame begins.
        offset: usize,
    },
    /// A frame whose check sum is right holds no record.
    #[error("the record at byte {offset} was written by another version: {source}")]
    Record {
        /// Where its frame begins.
        offset: usize,
        /// What is wrong with it.
        source: RecordError,
    },
}

/// Appends one frame. `durable` is the length of the file up to which everything is synced.
pub fn encode(record: &Record, durable: u64, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    out.extend_from_slice(&durable.to_le_bytes());
    record.encode(out);
    let length = ((out.len() - start - HEAD_BYTES) as u32).to_le_bytes();
    let sum = crc32(&[&length, &out[start + HEAD_BYTES..]]).to_le_bytes();
    out[start..start + 4].copy_from_slice(&length);
    out[start + 4..start + HEAD_BYTES].copy_from_slice(&sum);
}

/// A whole new journal: what compaction writes beside the old one.
pub fn encode_all<'a>(records: impl IntoIterator<Item = &'a Record>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for record in records {
        encode(record, 0, &mut bytes);
    }
    bytes
}

/// Reads a journal. An empty file is an empty journal.
pub fn read(bytes: &[u8]) -> Result<Contents, JournalError> {
    if bytes.len() < MAGIC.len() && MAGIC.starts_with(bytes) {
        return Ok(Contents { records: Vec::new(), valid_bytes: 0 });
    }
    if !bytes.starts_with(&MAGIC) {
        return Err(JournalError::Foreign);
    }
    let mut records = Vec::new();
    let mut offset = MAGIC.len();
    while offset < bytes.len() {
        let Some(frame) = frame(&bytes[offset..]) else {
            return tail(bytes, offset).map(|()| Contents { records, valid_bytes: offset });
        };
        let record =
            Record::decode(frame.record).map_err(|source| JournalError::Record { offset, source })?;
        records.push(record);
        offset += frame.bytes;
    }
    Ok(Contents { records, valid_bytes: offset })
}

/// Is the bad frame at `offset` a torn tail? Not if a good one behind it says that `offset` was durable.
fn tail(bytes: &[u8], offset: usize) -> Result<(), JournalError> {
    let durable = |start: usize| frame(&bytes[start..]).is_some_and(|frame| frame.durable > offset as u64);
    if (offset + 1..bytes.len()).any(durable) { Err(JournalError::Damaged { offset }) } else { Ok(()) }
}

struct Frame<'a> {
    record: &'a [u8],
    durable: u64,
    bytes: usize,
}

fn frame(bytes: &[u8]) -> Option<Frame<'_>> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<4>()?;
    let count = u32::from_le_bytes(*length) as usize;
    if count <= DURABLE_BYTES || count > RECORD_BYTES_MAX + DURABLE_BYTES || count > rest.len() {
        return None;
    }
    let body = &rest[..count];
    if crc32(&[length, body]) != u32::from_le_bytes(*sum) {
        return None;
    }
    let (durable, record) = body.split_first_chunk::<DURABLE_BYTES>()?;
    Some(Frame { record, durable: u64::from_le_bytes(*durable), bytes: HEAD_BYTES + count })
}

/// CRC-32 as in ISO 3309 and zlib: polynomial 0xedb88320, reflected.
fn crc32(parts: &[&[u8]]) -> u32 {
    let mut sum = u32::MAX;
    for byte in parts.iter().copied().flatten() {
        sum = (sum >> 8) ^ CRC_TABLE[((sum ^ u32::from(*byte)) & 0xff) as usize];
    }
    !sum
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0xedb8_8320 } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Owner;
    use proptest::prelude::*;

    fn record(id: &str) -> Record {
        Record::Released { owner: Owner::new(id).unwrap() }
    }

    #[test]
    fn the_check_sum_is_the_common_one() {
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926);
    }

    #[test]
    fn a_torn_tail_is_cut_at_every_length() {
        let mut bytes = encode_all(&[record("a")]);
        let whole = bytes.len();
        encode(&record("b"), whole as u64, &mut bytes);
        for length in whole..bytes.len() {
            let contents = read(&bytes[..length]).unwrap();
            assert_eq!((contents.records, contents.valid_bytes), (vec![record("a")], whole));
        }
    }

    #[test]
    fn a_tail_of_zeros_is_cut() {
        let mut bytes = encode_all(&[record("a")]);
        let whole = bytes.len();
        bytes.resize(whole + 4_096, 0);
        assert_eq!(read(&bytes).unwrap().valid_bytes, whole);
    }

    #[test]
    fn a_later_page_without_an_earlier_one_is_a_torn_tail() {
        let mut bytes = encode_all(&[record("a")]);
        let whole = bytes.len();
        encode(&record("b"), whole as u64, &mut bytes);
        encode(&record("c"), whole as u64, &mut bytes);
        bytes[whole + 10] ^= 1;
        assert_eq!(read(&bytes).unwrap().valid_bytes, whole);
    }

    #[test]
    fn damage_before_a_durable_point_is_told() {
        let mut bytes = encode_all(&[record("a")]);
        let whole = bytes.len();
        encode(&record("b"), whole as u64, &mut bytes);
        bytes[MAGIC.len() + 9] ^= 1;
        assert_eq!(read(&bytes), Err(JournalError::Damaged { offset: MAGIC.len() }));
    }

    #[test]
    fn another_file_is_refused() {
        assert_eq!(read(b"#!/bin/sh\necho hello\n"), Err(JournalError::Foreign));
    }

    #[test]
    fn a_record_of_another_version_is_told() {
        let mut bytes = MAGIC.to_vec();
        let body = [0, 0, 0, 0, 0, 0, 0, 0, 99];
        let length = 9u32.to_le_bytes();
        bytes.extend_from_slice(&length);
        bytes.extend_from_slice(&crc32(&[&length, &body]).to_le_bytes());
        bytes.extend_from_slice(&body);
        assert!(matches!(read(&bytes), Err(JournalError::Record { offset: 16, .. })));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let mut with_magic = MAGIC.to_vec();
            with_magic.extend_from_slice(&bytes);
            let _ = read(&with_magic);
        }
    }
}
