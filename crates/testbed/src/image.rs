//! Container images and root file systems that hold nothing but our static binary, and busybox where the host has it.
//!
//! An image is an OCI layout (OCI image specification 1.0) in a tar file, as `ctr images import` reads it. The layer is
//! not compressed: its digest and its diff id are the same.

use crate::command::{self, Call, CommandError};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// Where our binary is in the containers.
pub const BINARY: &str = "/bin/isthmus";
/// Directories that a container needs as mount points.
const DIRECTORIES: [&str; 6] = ["bin", "dev", "etc", "proc", "sys", "tmp"];
/// Commands that a person would like to find in a container's shell.
const APPLETS: [&str; 12] =
    ["sh", "ls", "cat", "ps", "ip", "ping", "wget", "nc", "env", "hostname", "netstat", "traceroute"];
/// Unit of a tar archive.
const BLOCK_BYTES: usize = 512;

/// Why a root file system or an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The binary would not run in an empty root.
    #[error(
        "{path} needs shared libraries and cannot run in a container by itself: build the static one with `make build`"
    )]
    Dynamic {
        /// The binary.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot make {path}: {source}")]
    File {
        /// What was to be made.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The digest could not be computed.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// What goes into the containers.
#[derive(Clone, Debug)]
pub struct Content {
    binary: PathBuf,
    busybox: Option<PathBuf>,
}

impl Content {
    /// Takes `binary` and the host's busybox; both must be static.
    pub fn of(binary: &Path) -> Result<Self, ImageError> {
        if !is_static(binary).map_err(|source| ImageError::File { path: binary.to_owned(), source })? {
            return Err(ImageError::Dynamic { path: binary.to_owned() });
        }
        let busybox = command::find("busybox").filter(|path| is_static(path).unwrap_or(false));
        Ok(Self { binary: binary.to_owned(), busybox })
    }

    /// Makes a root file system in `directory`. The binary is a hard link where possible.
    pub fn unpack(&self, directory: &Path) -> Result<(), ImageError> {
        let inner = || -> io::Result<()> {
            for name in DIRECTORIES {
                fs::create_dir_all(directory.join(name))?;
            }
            place(&self.binary, &directory.join(BINARY.trim_start_matches('/')))?;
            if let Some(busybox) = &self.busybox {
                place(busybox, &directory.join("bin/busybox"))?;
                for applet in APPLETS {
                    symlink("busybox", directory.join("bin").join(applet))?;
                }
            }
            Ok(())
        };
        inner().map_err(|source| ImageError::File { path: directory.to_owned(), source })
    }

    /// Writes an archive with one image for each (name, arguments of our binary) to `path`.
    pub fn archive(&self, path: &Path, images: &[(&str, &[&str])]) -> Result<(), ImageError> {
        let file = |source| ImageError::File { path: path.to_owned(), source };
        let layer = path.with_extension("layer");
        self.write_layer(&layer).map_err(file)?;
        let digest = sha256_file(&layer)?;
        let layer_bytes = fs::metadata(&layer).map_err(file)?.len();
        let mut blobs = Vec::new();
        let mut manifests = Vec::new();
        for (name, arguments) in images {
            let config = blob(&mut blobs, &config(&digest, arguments))?;
            let layer = json!({"mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": format!("sha256:{digest}"), "size": layer_bytes});
            let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": descriptor("application/vnd.oci.image.config.v1+json", &config), "layers": [layer]});
            let manifest = blob(&mut blobs, &manifest)?;
            let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
            entry["annotations"] =
                json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
            manifests.push(entry);
        }
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        let outcome = write_archive(path, &index, &blobs, &layer, &digest);
        fs::remove_file(&layer).map_err(file)?;
        outcome.map_err(file)
    }

    fn write_layer(&self, path: &Path) -> io::Result<()> {
        let mut tar = Tar { out: BufWriter::new(File::create(path)?) };
        for name in DIRECTORIES {
            tar.entry(&format!("{name}/"), Kind::Directory, 0)?;
        }
        tar.file(BINARY.trim_start_matches('/'), &self.binary)?;
        if let Some(busybox) = &self.busybox {
            tar.file("bin/busybox", busybox)?;
            for applet in APPLETS {
                tar.entry(&format!("bin/{applet}"), Kind::Link("busybox"), 0)?;
            }
        }
        tar.finish()
    }
}

/// A small blob and its digest.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

fn blob(blobs: &mut Vec<Blob>, value: &Value) -> Result<(String, usize), CommandError> {
    let bytes = value.to_string().into_bytes();
    let digest = first_word(&Call::new("sha256sum").input(bytes.clone()).run()?);
    let made = (digest.clone(), bytes.len());
    blobs.push(Blob { digest, bytes });
    Ok(made)
}

fn config(layer: &str, arguments: &[&str]) -> Value {
    let entry: Vec<_> = std::iter::once(BINARY).chain(arguments.iter().copied()).collect();
    json!({"architecture": architecture(), "os": "linux",
        "config": {"Entrypoint": entry, "Env": ["PATH=/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]}})
}

/// Go's name of this machine's architecture, as the image specification asks for.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn descriptor(kind: &str, (digest, bytes): &(String, usize)) -> Value {
    json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes})
}

fn write_archive(path: &Path, index: &Value, blobs: &[Blob], layer: &Path, digest: &str) -> io::Result<()> {
    let mut tar = Tar { out: BufWriter::new(File::create(path)?) };
    tar.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.bytes("index.json", index.to_string().as_bytes())?;
    tar.entry("blobs/", Kind::Directory, 0)?;
    tar.entry("blobs/sha256/", Kind::Directory, 0)?;
    for blob in blobs {
        tar.bytes(&format!("blobs/sha256/{}", blob.digest), &blob.bytes)?;
    }
    tar.file(&format!("blobs/sha256/{digest}"), layer)?;
    tar.finish()
}

fn sha256_file(path: &Path) -> Result<String, CommandError> {
    Ok(first_word(&Call::new("sha256sum").arg(path).run()?))
}

fn first_word(text: &str) -> String {
    text.split_whitespace().next().unwrap_or_default().to_owned()
}

fn place(from: &Path, to: &Path) -> io::Result<()> {
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to)?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Whether an ELF file names no program interpreter (ELF specification: program header of type 3).
fn is_static(path: &Path) -> io::Result<bool> {
    const INTERPRETER: u32 = 3;
    let mut head = Vec::new();
    File::open(path)?.take(4096).read_to_end(&mut head)?;
    let field = |at: usize, bytes: usize| -> Option<usize> {
        let bytes = head.get(at..at + bytes)?;
        Some(bytes.iter().rev().fold(0, |value, byte| (value << 8) | usize::from(*byte)))
    };
    // 64-bit little-endian ELF only, which is what we build.
    if head.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Ok(false);
    }
    let (Some(offset), Some(size), Some(count)) = (field(32, 8), field(54, 2), field(56, 2)) else {
        return Ok(false);
    };
    let kinds = (0..count).filter_map(|index| field(offset + index * size, 4));
    Ok(!kinds.into_iter().any(|kind| kind as u32 == INTERPRETER))
}

/// What an entry of an archive is.
#[derive(Clone, Copy)]
enum Kind<'a> {
    File,
    Directory,
    Link(&'a str),
}

/// Writes a tar archive in the POSIX ustar format.
struct Tar {
    out: BufWriter<File>,
}

impl Tar {
    fn entry(&mut self, name: &str, kind: Kind<'_>, size: u64) -> io::Result<()> {
        let mut header = [0_u8; BLOCK_BYTES];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, "0000755\0");
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{size:011o}\0"));
        put(136, "00000000000\0");
        put(148, "        ");
        match kind {
            Kind::File => put(156, "0"),
            Kind::Directory => put(156, "5"),
            Kind::Link(target) => {
                put(156, "2");
                put(157, target);
            }
        }
        put(257, "ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.out.write_all(&header)
    }

    fn bytes(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.entry(name, Kind::File, bytes.len() as u64)?;
        self.out.write_all(bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn file(&mut self, name: &str, path: &Path) -> io::Result<()> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        self.entry(name, Kind::File, size)?;
        io::copy(&mut file, &mut self.out)?;
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> io::Result<()> {
        let rest = size as usize % BLOCK_BYTES;
        if rest == 0 { Ok(()) } else { self.out.write_all(&vec![0; BLOCK_BYTES - rest]) }
    }

    fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK_BYTES])?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(directory: &Path) -> Content {
        let binary = directory.join("binary");
        fs::write(&binary, vec![7; 1000]).unwrap();
        Content { binary, busybox: None }
    }

    #[test]
    fn tar_reads_what_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("layer.tar");
        let binary = content(directory.path()).binary;
        Content { busybox: Some(binary.clone()), binary }.write_layer(&path).unwrap();
        let list = Call::new("tar").arg("-tf").arg(&path).run().unwrap();
        for name in ["proc/", "bin/isthmus", "bin/busybox", "bin/sh"] {
            assert!(list.lines().any(|line| line == name), "{name}: {list}");
        }
        let out = Call::new("tar").arg("-xOf").arg(&path).arg("bin/isthmus").run().unwrap();
        assert_eq!(out.len(), 1000);
    }

    #[test]
    fn an_archive_holds_an_image_for_each_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        content(directory.path())
            .archive(&path, &[("a.local/x:1", &["pause"]), ("a.local/y:1", &["serve"])])
            .unwrap();
        let index = Call::new("tar").arg("-xOf").arg(&path).arg("index.json").run().unwrap();
        let index: Value = serde_json::from_str(&index).unwrap();
        assert_eq!(index["manifests"][1]["annotations"]["io.containerd.image.name"], "a.local/y:1");
        let digest = index["manifests"][0]["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
        let manifest = Call::new("tar").arg("-xOf").arg(&path).arg(digest).run().unwrap();
        assert!(manifest.contains("layers"), "{manifest}");
    }

    #[test]
    fn a_file_that_is_no_static_program_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let content = content(directory.path());
        assert!(matches!(Content::of(&content.binary), Err(ImageError::Dynamic { .. })));
        let shell = fs::canonicalize("/bin/sh").unwrap();
        assert!(matches!(Content::of(&shell), Err(ImageError::Dynamic { .. })));
    }
}
