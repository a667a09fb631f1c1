//! One record after the other.

use super::{
    Body, HEADER_BYTES, PeerIndex, ReadError, Record, RecordFault, RecordType, What, kind, take_array,
    take_u16, take_u32,
};
use std::{
    io::{self, Read},
    sync::Arc,
};

/// Longest record that is taken unless told otherwise. Those of collectors with hundreds of peers have some 100 kB.
pub const RECORD_BYTES_MAX: u32 = 4 << 20;

/// Takes records off `input`, each when it is asked for. It reads in small pieces: give it something that is buffered.
///
/// After an error that [`ReadError::can_go_on`] the next record comes; after another one nothing does.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    offset: u64,
    bytes: Vec<u8>,
    bytes_max: u32,
    peers: Option<Arc<PeerIndex>>,
    is_over: bool,
}

impl<R: Read> Reader<R> {
    /// Reads from here on.
    pub fn new(input: R) -> Self {
        Self::with_limit(input, RECORD_BYTES_MAX)
    }

    /// As [`Reader::new`], with another limit of what one record may have, in bytes.
    pub fn with_limit(input: R, bytes_max: u32) -> Self {
        Self { input, offset: 0, bytes: Vec::new(), bytes_max, peers: None, is_over: false }
    }

    /// What it reads from.
    pub fn input(&self) -> &R {
        &self.input
    }

    /// Bytes that were taken.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whom the paths of [`Body::Rib`] are from: the last peer index that came.
    pub fn peers(&self) -> Option<&Arc<PeerIndex>> {
        self.peers.as_ref()
    }

    fn take_record(&mut self) -> Result<Option<Record>, (Option<RecordType>, What)> {
        let found = self.fill(HEADER_BYTES as u64).map_err(|why| (None, What::Io(why)))?;
        if found == 0 {
            return Ok(None);
        }
        let mut rest = self.bytes.as_slice();
        let (Some(seconds), Some(kind), Some(subtype), Some(bytes)) =
            (take_u32(&mut rest), take_u16(&mut rest), take_u16(&mut rest), take_array(&mut rest))
        else {
            return Err((None, What::Truncated { bytes: found, expected: HEADER_BYTES as u64 }));
        };
        let is_first = self.offset == found;
        let bytes = u32::from_be_bytes(bytes);
        let kind = RecordType { kind, subtype };
        if is_first && !kind::KNOWN.contains(&kind.kind) {
            return Err((Some(kind), What::NotMrt));
        }
        let at = |what| (Some(kind), what);
        let is_taken = bytes <= self.bytes_max;
        let found = if is_taken { self.fill(bytes.into()) } else { self.pass_over(bytes.into()) };
        let found = found.map_err(|why| at(What::Io(why)))?;
        if found < u64::from(bytes) {
            return Err(at(What::Truncated { bytes: found, expected: bytes.into() }));
        }
        if !is_taken {
            return Err(at(What::Record(RecordFault::TooLong { bytes, bytes_max: self.bytes_max })));
        }
        let peers = self.peers.as_ref().map(|index| index.peers.len());
        let record = Record::decode(seconds, kind, &self.bytes, peers);
        let record = record.map_err(|fault| at(What::Record(fault)))?;
        if let Body::PeerIndex(index) = &record.body {
            self.peers = Some(Arc::new(index.clone()));
        }
        Ok(Some(record))
    }

    /// Has the next bytes in the buffer, fewer at the end of the file. Memory grows only with what is really there.
    fn fill(&mut self, bytes: u64) -> io::Result<u64> {
        self.bytes.clear();
        let found = (&mut self.input).take(bytes).read_to_end(&mut self.bytes)? as u64;
        self.offset += found;
        Ok(found)
    }

    fn pass_over(&mut self, bytes: u64) -> io::Result<u64> {
        let found = io::copy(&mut (&mut self.input).take(bytes), &mut io::sink())?;
        self.offset += found;
        Ok(found)
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let offset = self.offset;
        let taken = self.take_record().map_err(|(kind, what)| ReadError { offset, kind, what });
        self.is_over = match &taken {
            Ok(record) => record.is_none(),
            Err(error) => !error.can_go_on(),
        };
        taken.transpose()
    }
}
