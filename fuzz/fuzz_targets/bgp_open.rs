//! The body of an OPEN: what can be read can be written, and then means the same.
#![no_main]

use isthmus_bgp::wire::{HEADER_BYTES, Open};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(open) = Open::decode(data) else { return };
    let bytes = open.encode();
    if bytes.len() > data.len() + HEADER_BYTES + 8 {
        // Texts that are no UTF-8 grow when they are replaced, and are cut then.
        return;
    }
    let again = Open::decode(&bytes[HEADER_BYTES..]).expect("what was written can be read");
    assert_eq!(open.asn(), again.asn());
    assert_eq!((open.as_field, open.hold_time, open.router_id), (again.as_field, again.hold_time, again.router_id));
    assert_eq!(open.capabilities.len(), again.capabilities.len());
});
