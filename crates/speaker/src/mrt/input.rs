//! MRT files to be read, compressed or not.

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Bytes that are read from the disk at once.
const BUFFER_BYTES: usize = 256 << 10;

/// A file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be opened.
    #[error("{path} cannot be opened")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is compressed in a way that is not read here.
    #[error("{path} is compressed with {with}, which is not read here: decompress it first ({how})")]
    Compressed {
        /// Which.
        path: PathBuf,
        /// By which program.
        with: &'static str,
        /// What to run.
        how: &'static str,
    },
}

/// What is in a file, without its compression. Reading it in small pieces costs little.
pub struct Input {
    content: Box<dyn Read + Send>,
    taken: Arc<AtomicU64>,
    length: Option<u64>,
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Input {
    /// How much of the file was read, in thousandths; `None` where its length is not known.
    pub fn progress(&self) -> Option<u64> {
        let length = self.length.filter(|length| *length > 0)?;
        Some((self.taken.load(Ordering::Relaxed).saturating_mul(1_000) / length).min(1_000))
    }
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.content.read(into)
    }
}

/// Counts what is read from the disk.
struct Counted {
    file: File,
    taken: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(into)?;
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// Opens a file; what begins as gzip or bzip2 is decompressed as it is read, whatever its name is.
pub fn open(path: &Path) -> Result<Input, OpenError> {
    let failed = |source| OpenError::Open { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    let length = found.is_file().then_some(found.len());
    let taken = Arc::new(AtomicU64::new(0));
    let mut start = BufReader::with_capacity(BUFFER_BYTES, Counted { file, taken: Arc::clone(&taken) });
    let head = start.fill_buf().map_err(failed)?;
    let unread = |with, how| Err(OpenError::Compressed { path: path.to_owned(), with, how });
    let content: Box<dyn Read + Send> = match head {
        [0x1f, 0x8b, ..] => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(start))),
        [b'B', b'Z', b'h', ..] => {
            Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiBzDecoder::new(start)))
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return unread("xz", "xz -d"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return unread("zstd", "zstd -d"),
        _ => Box::new(start),
    };
    Ok(Input { content, taken, length })
}
