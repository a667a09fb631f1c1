//! Files of dumps on the disk: those that are whole at once, and those that grow.

use isthmus_bgp::mrt::HEADER_BYTES;
use std::{
    fs, io,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};
use tokio::{
    fs::{File, OpenOptions},
    io::AsyncWriteExt,
    task::spawn_blocking,
};

/// A file that appears under its name when it is whole. What is not finished is removed when this is dropped.
#[derive(Debug)]
pub(super) struct WholeFile {
    file: File,
    part: PathBuf,
    path: PathBuf,
    is_finished: bool,
}

impl WholeFile {
    /// Begins the file, with the directories that it needs.
    pub(super) async fn create(path: &Path) -> io::Result<Self> {
        make_directory(path).await?;
        let part = with_ending(path, "part");
        let file = File::create(&part).await?;
        Ok(Self { file, part, path: path.to_owned(), is_finished: false })
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes).await
    }

    /// Has all of it on the disk, and then under its name.
    pub(super) async fn finish(mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.sync_all().await?;
        tokio::fs::rename(&self.part, &self.path).await?;
        self.is_finished = true;
        let directory = self.path.parent().map(Path::to_owned).unwrap_or_default();
        spawn_blocking(move || sync_directory(&directory)).await.unwrap_or(Ok(()))
    }
}

impl Drop for WholeFile {
    fn drop(&mut self) {
        if !self.is_finished {
            // Who cannot remove it replaces it the next time.
            let _ = fs::remove_file(&self.part);
        }
    }
}

/// A file that grows, record by record.
#[derive(Debug)]
pub(super) struct GrowingFile {
    file: File,
    pub(super) path: PathBuf,
}

impl GrowingFile {
    /// Goes on with the file behind its last whole record, or begins it, with the directories that it needs.
    pub(super) async fn open(path: &Path) -> io::Result<Self> {
        make_directory(path).await?;
        let name = path.to_owned();
        spawn_blocking(move || cut_to_whole_records(&name)).await.unwrap_or(Ok(()))?;
        let file = OpenOptions::new().create(true).append(true).open(path).await?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Writes whole records. After an error the file may end in the middle of one, until it is opened again.
    pub(super) async fn write(&mut self, records: &[u8]) -> io::Result<()> {
        self.file.write_all(records).await?;
        self.file.flush().await
    }

    /// Has all of it on the disk.
    pub(super) async fn close(mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.file.sync_data().await
    }
}

/// Puts a file that ends before a gap under another name, so that none under its name has one. Says which.
pub(super) async fn put_aside(path: &Path, unix_seconds: u64) -> io::Result<Option<PathBuf>> {
    let aside = with_ending(path, &format!("until-gap-{unix_seconds}"));
    match tokio::fs::metadata(path).await {
        Ok(found) if found.len() > 0 => {}
        Ok(_) => return Ok(None),
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(why),
    }
    let name = path.to_owned();
    spawn_blocking(move || cut_to_whole_records(&name)).await.unwrap_or(Ok(()))?;
    tokio::fs::rename(path, &aside).await?;
    Ok(Some(aside))
}

async fn make_directory(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent().filter(|directory| *directory != Path::new("")) else {
        return Ok(());
    };
    let made = tokio::fs::create_dir_all(directory).await;
    made.map_err(|why| io::Error::new(why.kind(), format!("its directory cannot be made: {why}")))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    let directory = if directory == Path::new("") { Path::new(".") } else { directory };
    fs::File::open(directory)?.sync_all()
}

/// Cuts off what a crash or a full disk left of a record at the end. A file that is no MRT file stays as it is.
fn cut_to_whole_records(path: &Path) -> io::Result<()> {
    let file = match fs::OpenOptions::new().read(true).write(true).open(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let found = file.metadata()?;
    // A pipe or a device has no end that could be cut.
    if !found.is_file() {
        return Ok(());
    }
    let length = found.len();
    let mut reader = BufReader::new(&file);
    let (mut whole, mut header) = (0, [0; HEADER_BYTES]);
    while whole + HEADER_BYTES as u64 <= length {
        reader.read_exact(&mut header)?;
        let [.., a, b, c, d] = header;
        let bytes = u32::from_be_bytes([a, b, c, d]);
        let end = whole + HEADER_BYTES as u64 + u64::from(bytes);
        if end > length {
            break;
        }
        reader.seek_relative(i64::from(bytes))?;
        whole = end;
    }
    drop(reader);
    if whole < length {
        if whole == 0 && length > HEADER_BYTES as u64 {
            let text = format!("{} is there, and is no MRT file: it is not written to", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        tracing::warn!(file = %path.display(), bytes = length - whole, "the end of an MRT file is no whole record, and is cut off");
        file.set_len(whole)?;
        (&file).seek(SeekFrom::End(0))?;
    }
    Ok(())
}
