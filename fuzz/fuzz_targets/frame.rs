//! Frames between adapters and the agent, as each side reads what the other sends.
#![no_main]

use isthmus_api::adapter::{Request, Response, read_frame, write_frame};
use libfuzzer_sys::fuzz_target;
use std::{fmt::Debug, io::Write as _, net::Shutdown, os::unix::net::UnixStream};

/// Less than a socket's buffer holds, so that nobody has to read meanwhile.
const BYTES_MAX: usize = 64 << 10;

fuzz_target!(|data: &[u8]| {
    let data = &data[..data.len().min(BYTES_MAX)];
    read_all::<Request>(data);
    read_all::<Response>(data);
});

/// Reads frames to the end of the data; each that is one is written and read again.
fn read_all<T: serde::Serialize + for<'de> serde::Deserialize<'de> + Debug>(data: &[u8]) {
    let (mut writer, reader) = UnixStream::pair().expect("a pair of sockets");
    writer.write_all(data).expect("the buffer holds it");
    writer.shutdown(Shutdown::Write).expect("a connected socket");
    while let Ok((message, descriptor)) = read_frame::<T>(&reader) {
        assert!(descriptor.is_none());
        let (mut writer, reader) = UnixStream::pair().expect("a pair of sockets");
        write_frame(&mut writer, &message, None).expect("what was read is not too long");
        let (again, _) = read_frame::<T>(&reader).expect("what was written can be read");
        assert_eq!(format!("{message:?}"), format!("{again:?}"));
    }
}
