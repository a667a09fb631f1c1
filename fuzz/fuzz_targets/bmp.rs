//! A stream of BMP's messages: what can be read can be written, and then is the same.
#![no_main]

use isthmus_bgp::bmp::decode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut stream = data;
    while let Ok(Some((message, length))) = decode(stream) {
        stream = &stream[length..];
        let mut out = Vec::new();
        message.encode(&mut out);
        let (again, written) = decode(&out).expect("ours").expect("whole");
        assert_eq!((again, written), (message, out.len()));
    }
});
