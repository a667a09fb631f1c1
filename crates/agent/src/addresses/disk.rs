//! The file under the journal.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// What the journal's writer asks of a disk. All that succeeds is durable.
pub(crate) trait Disk: Send + std::fmt::Debug {
    /// Appends.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Cuts to a length.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Puts other contents in place of all, at once.
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// A file.
#[derive(Debug)]
pub(crate) struct FileDisk {
    path: PathBuf,
    file: File,
}

impl FileDisk {
    /// Opens or makes the file, and reads it.
    pub(crate) fn open(path: &Path) -> io::Result<(Vec<u8>, Self)> {
        let mut file = open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok((bytes, Self { path: path.to_owned(), file }))
    }
}

fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

impl Disk for FileDisk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::End(0))?;
        self.file.write_all(bytes)?;
        self.file.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        if self.file.metadata()?.len() == length {
            return Ok(());
        }
        self.file.set_len(length)?;
        self.file.sync_data()
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        replace_file(&self.path, bytes)?;
        self.file = open(&self.path)?;
        Ok(())
    }
}

/// Writes a file beside `path`, then renames it over `path`: whoever reads `path` sees all of the old or all of the new.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let written = write_synced(&new, bytes).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // A full disk is not helped by half a file.
        drop(fs::remove_file(&new));
    }
    written?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
