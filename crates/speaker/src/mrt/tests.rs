//! Files that grow and files that are whole; inputs with and without compression.

use super::{
    file::{GrowingFile, WholeFile, put_aside},
    input::{OpenError, open},
};
use isthmus_bgp::mrt::{PeerIndex, Reader};
use std::{fs, io::Write, path::Path};
use tempfile::tempdir;

/// A record, and the bytes of so many of it.
fn records(count: usize) -> Vec<u8> {
    let index = PeerIndex { collector: isthmus_bgp::RouterId(1), view: "x".to_owned(), peers: Vec::new() };
    let mut bytes = Vec::new();
    (0..count).for_each(|_| index.encode(7, &mut bytes).unwrap());
    bytes
}

#[tokio::test]
async fn a_whole_file_appears_when_it_is_finished() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("a/b/table.mrt");
    let part = directory.path().join("a/b/table.mrt.part");
    let mut file = WholeFile::create(&path).await.unwrap();
    file.write(&records(1)).await.unwrap();
    assert!(part.exists() && !path.exists());
    drop(file);
    assert!(!part.exists(), "what is not finished is removed");
    fs::write(&path, b"old").unwrap();
    let mut file = WholeFile::create(&path).await.unwrap();
    file.write(&records(2)).await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    file.finish().await.unwrap();
    assert_eq!(fs::read(&path).unwrap(), records(2));
    assert!(!part.exists());
}

#[tokio::test]
async fn a_growing_file_goes_on_behind_its_last_whole_record() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("updates.mrt");
    for (there, whole) in [
        (records(2), 2),
        (Vec::new(), 0),
        (records(3)[..records(3).len() - 1].to_vec(), 2),
        ([records(1), vec![0; 5]].concat(), 1),
        (vec![1; 5], 0),
    ] {
        fs::write(&path, &there).unwrap();
        let mut file = GrowingFile::open(&path).await.unwrap();
        file.write(&records(1)).await.unwrap();
        file.close().await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), records(whole + 1), "{} bytes", there.len());
    }
    let text = b"this is somebody's letter".as_slice();
    fs::write(&path, text).unwrap();
    let refused = GrowingFile::open(&path).await.unwrap_err();
    assert!(refused.to_string().contains("is no MRT file"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), text, "it stays as it is");
}

#[tokio::test]
async fn a_file_before_a_gap_is_put_aside() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("updates.mrt");
    assert_eq!(put_aside(&path, 5).await.unwrap(), None);
    fs::write(&path, b"").unwrap();
    assert_eq!(put_aside(&path, 5).await.unwrap(), None);
    fs::write(&path, [records(2), vec![9; 3]].concat()).unwrap();
    let aside = put_aside(&path, 5).await.unwrap().unwrap();
    assert_eq!(aside, directory.path().join("updates.mrt.until-gap-5"));
    assert_eq!(fs::read(aside).unwrap(), records(2), "without the half record at its end");
    assert!(!path.exists());
}

fn count(path: &Path) -> usize {
    let mut reader = Reader::new(open(path).unwrap());
    let count = reader.by_ref().inspect(|record| assert!(record.is_ok(), "{record:?}")).count();
    assert_eq!(reader.input().progress(), Some(1_000));
    count
}

#[test]
fn compressed_files_are_read_whatever_their_name_is() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("table");
    fs::write(&path, records(3)).unwrap();
    assert_eq!(count(&path), 3);
    // Two streams behind each other, as programs that compress in parallel write them.
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    fs::write(&path, [gzip(&records(3)), gzip(&records(2))].concat()).unwrap();
    assert_eq!(count(&path), 5);
    let bzip2 = |bytes: &[u8]| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    fs::write(&path, [bzip2(&records(3)), bzip2(&records(2))].concat()).unwrap();
    assert_eq!(count(&path), 5);
    for (head, program) in [(&b"\xfd7zXZ\0"[..], "xz"), (b"\x28\xb5\x2f\xfd", "zstd")] {
        fs::write(&path, head).unwrap();
        let refused = open(&path).unwrap_err();
        assert!(matches!(refused, OpenError::Compressed { with, .. } if with == program), "{refused}");
    }
    assert!(matches!(open(&directory.path().join("nothing")), Err(OpenError::Open { .. })));
    // What is compressed and cut off is no end of the file.
    let cut_off = gzip(&records(300));
    fs::write(&path, &cut_off[..cut_off.len() / 2]).unwrap();
    assert!(Reader::new(open(&path).unwrap()).last().unwrap().is_err());
}
