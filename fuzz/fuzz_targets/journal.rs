//! The address journal as it is found after a crash or a fault of the disk.
//!
//! The first byte chooses: even, the rest is the file; odd, the rest is records (a length and that many bytes each) that
//! are put into frames whose check sums are right, which no fuzzer would find.
#![no_main]

use isthmus_ipam::{Ipam, Record, journal};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let file = if choice % 2 == 0 { rest.to_vec() } else { framed(rest) };
    let Ok(contents) = journal::read(&file) else { return };
    assert!(contents.valid_bytes <= file.len());
    let cut = journal::read(&file[..contents.valid_bytes]).expect("a file without its torn tail is whole");
    assert_eq!(cut, contents);
    assert_eq!(records(&journal::encode_all(&contents.records)), contents.records);
    let Ok(ipam) = Ipam::replay(&contents.records) else { return };
    // What compaction writes is the same state.
    let snapshot = ipam.snapshot();
    let again = Ipam::replay(&records(&journal::encode_all(&snapshot))).expect("a snapshot is a state");
    assert_eq!(again.snapshot(), snapshot);
});

fn records(file: &[u8]) -> Vec<Record> {
    journal::read(file).expect("what was written can be read").records
}

fn framed(mut rest: &[u8]) -> Vec<u8> {
    let mut file = journal::MAGIC.to_vec();
    while let Some((length, more)) = rest.split_first() {
        let (record, more) = more.split_at(more.len().min(usize::from(*length)));
        rest = more;
        let mut sealed = (record.len() as u32 + 8).to_le_bytes().to_vec();
        // Nothing is known to be durable.
        sealed.extend([0; 8]);
        sealed.extend(record);
        file.extend(&sealed[..4]);
        file.extend(crc32(&sealed).to_le_bytes());
        file.extend(&sealed[4..]);
    }
    file
}

/// CRC-32 of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}
