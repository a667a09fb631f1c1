//! The journal's file, with disks that fail.

use super::*;
use isthmus_core::ClusterName;
use isthmus_ipam::{Family, Owner, Request};
use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
};

fn cluster() -> ClusterName {
    "red".parse().unwrap()
}

fn owner(id: &str) -> Owner {
    Owner::new(id).unwrap()
}

fn request(id: &str) -> Request {
    Request {
        owner: owner(id),
        cluster: cluster(),
        family: Family::V4,
        wanted: None,
        avoid: BTreeSet::new(),
        detail: vec![7],
    }
}

fn lease(addresses: &Addresses) {
    let (leased, ticket) = addresses.change(|ipam| ipam.lease(cluster(), "10.0.0.0/24".parse().unwrap()));
    leased.unwrap();
    ticket.wait().unwrap();
}

fn allocate(addresses: &Addresses, id: &str) -> Result<IpAddr, JournalFailure> {
    let (address, ticket) = addresses.change(|ipam| ipam.allocate(request(id)));
    ticket.wait().map(|()| address.unwrap())
}

fn held(path: &Path) -> BTreeSet<String> {
    let bytes = std::fs::read(path).unwrap();
    let ipam = Ipam::replay(&journal::read(&bytes).unwrap().records).unwrap();
    ipam.allocations().map(|held| held.owner.to_string()).collect()
}

#[test]
fn what_was_answered_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("addresses");
    let addresses = Addresses::open(&path).unwrap();
    lease(&addresses);
    let first = allocate(&addresses, "a").unwrap();
    drop(addresses);
    let again = Addresses::open(&path).unwrap();
    assert_eq!(again.read(|ipam| ipam.allocation(&owner("a")).unwrap().address), first);
}

#[test]
fn many_callers_at_once_each_get_an_address_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("addresses");
    let addresses = Addresses::open(&path).unwrap();
    lease(&addresses);
    let given: Mutex<BTreeSet<IpAddr>> = Mutex::default();
    std::thread::scope(|scope| {
        for caller in 0..16 {
            let (addresses, given) = (&addresses, &given);
            scope.spawn(move || {
                for n in 0..10 {
                    let address = allocate(addresses, &format!("{caller}-{n}")).unwrap();
                    assert!(lock(given).insert(address), "{address} was given twice");
                }
            });
        }
    });
    assert_eq!(held(&path).len(), 160);
}

#[test]
fn a_torn_tail_is_cut_before_more_is_appended() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("addresses");
    let addresses = Addresses::open(&path).unwrap();
    lease(&addresses);
    allocate(&addresses, "a").unwrap();
    allocate(&addresses, "b").unwrap();
    drop(addresses);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
    let addresses = Addresses::open(&path).unwrap();
    allocate(&addresses, "c").unwrap();
    assert_eq!(held(&path), ["a", "c"].map(str::to_owned).into());
}

#[test]
fn another_file_is_refused_with_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("addresses");
    std::fs::write(&path, "this is something else").unwrap();
    let error = Addresses::open(&path).unwrap_err().to_string();
    assert!(error.contains("ISE-0505") && error.contains(path.to_str().unwrap()), "{error}");
}

/// A disk that is full while a switch is on; half of what is appended then reaches it.
#[derive(Debug)]
struct FullDisk {
    disk: FileDisk,
    full: Arc<AtomicBool>,
    path: PathBuf,
}

impl FullDisk {
    fn check(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Disk for FullDisk {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let part = if self.check().is_err() { bytes.len() / 2 } else { bytes.len() };
        self.disk.append(&bytes[..part])?;
        self.check()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.check()?;
        self.disk.cut(length)
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(self.path.exists());
        self.check()?;
        self.disk.replace(bytes)
    }
}

#[test]
fn a_full_disk_is_told_and_nothing_refused_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("addresses");
    let full = Arc::new(AtomicBool::new(false));
    let (_, mut disk) = FileDisk::open(&path).unwrap();
    let bytes = journal::encode_all(&[]);
    disk.replace(&bytes).unwrap();
    let disk = FullDisk { disk, full: Arc::clone(&full), path: path.clone() };
    let addresses = Addresses::start(Ipam::default(), Box::new(disk), "addresses", bytes.len() as u64);
    lease(&addresses);
    allocate(&addresses, "a").unwrap();

    full.store(true, Ordering::SeqCst);
    for id in ["b", "c"] {
        let error = allocate(&addresses, id).unwrap_err().to_string();
        assert!(error.contains("addresses cannot be written"), "{error}");
        addresses.change(|ipam| ipam.release(&owner(id))).1.forget();
    }

    assert!(addresses.nudge().wait().is_err());
    full.store(false, Ordering::SeqCst);
    assert!(addresses.nudge().wait().is_ok());
    assert_eq!(held(&path), ["a".to_owned()].into());
    allocate(&addresses, "d").unwrap();
    allocate(&addresses, "e").unwrap();
    assert_eq!(held(&path), ["a", "d", "e"].map(str::to_owned).into());
}

#[test]
fn a_long_life_is_compacted() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("addresses");
    let addresses = Addresses::open(&path).unwrap();
    lease(&addresses);
    allocate(&addresses, "kept").unwrap();
    let big = Request { detail: vec![1; 60_000], ..request("big") };
    for _ in 0..40 {
        let ticket = addresses.change(|ipam| {
            ipam.allocate(big.clone()).unwrap();
            ipam.release(&big.owner)
        });
        ticket.1.wait().unwrap();
    }
    drop(addresses);
    assert!(std::fs::metadata(&path).unwrap().len() < 1 << 20);
    assert_eq!(held(&path), ["kept".to_owned()].into());
}
