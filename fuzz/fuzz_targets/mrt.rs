//! An MRT file: records that can be read can be written, and then are the same.
#![no_main]

use isthmus_bgp::mrt::{Body, Reader, Record, Unfolder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut reader = Reader::with_limit(data, 1 << 16);
    let mut unfolder = Unfolder::new();
    while let Some(record) = reader.next() {
        let Ok(record) = record.inspect_err(|error| drop(error.to_string())) else { continue };
        let peers = reader.peers().map(|index| index.peers.len());
        let mut out = Vec::new();
        if encode(&record, &mut out) {
            // An index that is written has AS numbers of four bytes, and may be longer than the limit.
            let bytes = &out[12..];
            let again = Record::decode(record.time.seconds, record.kind, bytes, peers);
            assert_eq!(again.expect("what was written can be read").body, record.body);
        }
        let _ = unfolder.unfold(record);
    }
    assert!(reader.offset() <= data.len() as u64);
});

/// Whether it is of a kind that is written, and nothing was wrong with it.
fn encode(record: &Record, out: &mut Vec<u8>) -> bool {
    match &record.body {
        Body::PeerIndex(index) => index.encode(record.time.seconds, out).is_ok(),
        Body::Rib(rib) => {
            rib.entries.iter().all(|entry| entry.faults.is_empty()) && rib.encode(record.time.seconds, out).is_ok()
        }
        Body::Message(message) => message.encode(record.time, out).is_ok(),
        Body::State(change) => {
            change.encode(record.time, out);
            true
        }
        Body::Entry(_) | Body::Skipped => false,
    }
}
