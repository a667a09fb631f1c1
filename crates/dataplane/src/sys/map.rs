//! Maps through their descriptors: shared references suffice, because the kernel does the locking, and there are batches,
//! which the loader's own map types lack.

use isthmus_dataplane_common::{
    BlockKey, BlockValue, ConfigValue, ConnectionKey, ConnectionValue, EndpointValue, EventValue,
    FragmentKey, FragmentValue, MultipathValue, NodeValue, PathMtuValue, PolicyKey, PolicyValue, SampleKey,
    SampleValue, SlotValue,
};
use std::{
    ffi::{c_int, c_uint},
    io,
    marker::PhantomData,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// Types that a map may hold: fixed layout, no padding, every pattern of bits valid.
///
/// # Safety
///
/// The type must be `repr(C)` without padding, and any bytes of its size must be a valid value.
pub(crate) unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),* $(,)?) => {
        $(
            // SAFETY: integers, or `repr(C)` structs of them whose size is asserted where they are defined.
            unsafe impl Plain for $type {}
        )*
    };
}

plain!(
    u32,
    u64,
    [u32; 4],
    BlockKey,
    BlockValue,
    ConfigValue,
    ConnectionKey,
    ConnectionValue,
    EndpointValue,
    EventValue,
    FragmentKey,
    FragmentValue,
    MultipathValue,
    NodeValue,
    PathMtuValue,
    PolicyKey,
    PolicyValue,
    Prefixed,
    SampleKey,
    SampleValue,
    SlotValue,
);

/// Key of a longest-prefix trie.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefixed {
    /// Leading bits that count.
    pub(crate) prefix_len: u32,
    /// What they are of.
    pub(crate) key: BlockKey,
}
const _: () = assert!(size_of::<Prefixed>() == 24, "padding would reach the kernel uninitialised");

/// One map of the kernel.
#[derive(Debug)]
pub(crate) struct Map<K, V> {
    fd: OwnedFd,
    types: PhantomData<fn(K) -> V>,
}

/// Commands of `bpf(2)`, from `linux/bpf.h`.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Command {
    LookUp = 1,
    Update = 2,
    Delete = 3,
    NextKey = 4,
    LookUpBatch = 24,
    UpdateBatch = 26,
    DeleteBatch = 27,
}

/// `struct { map_fd; key; value; flags }` of `union bpf_attr`.
#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `batch` of `union bpf_attr`.
#[repr(C)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

/// Entries per call of a batch.
const BATCH: usize = 4096;

fn bpf<T>(command: Command, attr: &mut T) -> io::Result<()> {
    // SAFETY: `attr` is one of the two structs above, laid out as the kernel's union, and its pointers live in the caller.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as c_uint, std::ptr::from_mut(attr), size_of::<T>() as c_uint)
    };
    if result as c_int >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn address<T>(reference: &T) -> u64 {
    std::ptr::from_ref(reference) as u64
}

impl<K: Plain, V: Plain> Map<K, V> {
    /// The map behind a descriptor; the caller vouches for the types.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd, types: PhantomData }
    }

    /// The value of a key.
    pub(crate) fn value(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = MaybeUninit::<V>::uninit();
        let mut attr = self.element(address(key), value.as_mut_ptr() as u64, 0);
        match bpf(Command::LookUp, &mut attr) {
            // SAFETY: the kernel wrote the whole value, and every pattern of bits is valid.
            Ok(()) => Ok(Some(unsafe { value.assume_init() })),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The values of a key of a per-CPU map, for each of `cpus` possible CPUs.
    pub(crate) fn values_per_cpu(&self, key: &K, cpus: usize) -> io::Result<Vec<V>> {
        // The kernel pads each CPU's value to 8 bytes; only 8-byte values are used so.
        assert!(size_of::<V>() == 8, "per-CPU values are 8 bytes");
        let mut values = Vec::<V>::with_capacity(cpus);
        let mut attr = self.element(address(key), values.as_mut_ptr() as u64, 0);
        bpf(Command::LookUp, &mut attr)?;
        // SAFETY: the kernel wrote one value for each possible CPU, which `cpus` counts.
        unsafe { values.set_len(cpus) };
        Ok(values)
    }

    /// Sets the value of a key.
    pub(crate) fn set(&self, key: &K, value: &V) -> io::Result<()> {
        bpf(Command::Update, &mut self.element(address(key), address(value), 0))
    }

    /// Removes a key; whether it was there.
    pub(crate) fn remove(&self, key: &K) -> io::Result<bool> {
        match bpf(Command::Delete, &mut self.element(address(key), 0, 0)) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All entries of a hash map, in batches. Entries that change meanwhile may be missing or old.
    pub(crate) fn entries(&self) -> io::Result<Vec<(K, V)>> {
        let mut entries = Vec::new();
        self.for_each_batch(|keys, values| entries.extend(keys.iter().copied().zip(values.iter().copied())))?;
        Ok(entries)
    }

    /// Calls `batch` with the entries of a hash map, some thousand at a time.
    pub(crate) fn for_each_batch(&self, mut batch: impl FnMut(&[K], &[V])) -> io::Result<()> {
        let mut keys = Vec::<K>::with_capacity(BATCH);
        let mut values = Vec::<V>::with_capacity(BATCH);
        let mut token = 0_u64;
        let mut started = false;
        loop {
            let mut next_token = 0_u64;
            let mut attr = BatchAttr {
                in_batch: if started { address(&token) } else { 0 },
                out_batch: std::ptr::from_mut(&mut next_token) as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: BATCH as u32,
                map_fd: self.raw(),
                element_flags: 0,
                flags: 0,
            };
            let result = bpf(Command::LookUpBatch, &mut attr);
            let done = match &result {
                Ok(()) => false,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
                // One bucket holds more than a batch: cannot be with maps that are not overfull.
                Err(_) => return result,
            };
            // SAFETY: the kernel wrote `count` keys and values, at most the capacity.
            unsafe {
                keys.set_len(attr.count as usize);
                values.set_len(attr.count as usize);
            }
            batch(&keys, &values);
            keys.clear();
            values.clear();
            if done {
                return Ok(());
            }
            token = next_token;
            started = true;
        }
    }

    /// All keys, one call each: for tries, and small maps.
    pub(crate) fn keys(&self) -> io::Result<Vec<K>> {
        let mut keys = Vec::<K>::new();
        loop {
            let mut next = MaybeUninit::<K>::uninit();
            let previous = keys.last().map_or(0, address);
            let mut attr = self.element(previous, next.as_mut_ptr() as u64, 0);
            match bpf(Command::NextKey, &mut attr) {
                // SAFETY: the kernel wrote the whole key.
                Ok(()) => keys.push(unsafe { next.assume_init() }),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sets many entries. On an error some of them may be set.
    pub(crate) fn set_batch(&self, keys: &[K], values: &[V]) -> io::Result<()> {
        assert_eq!(keys.len(), values.len(), "one value for each key");
        for (keys, values) in keys.chunks(BATCH).zip(values.chunks(BATCH)) {
            let mut attr = self.batch(keys, values.as_ptr() as u64);
            bpf(Command::UpdateBatch, &mut attr)?;
        }
        Ok(())
    }

    /// Removes many entries; those that are not there do not matter.
    pub(crate) fn remove_batch(&self, keys: &[K]) -> io::Result<()> {
        let mut rest = keys;
        while !rest.is_empty() {
            let chunk = &rest[..rest.len().min(BATCH)];
            let mut attr = self.batch(chunk, 0);
            match bpf(Command::DeleteBatch, &mut attr) {
                Ok(()) => rest = &rest[chunk.len()..],
                // `count` says how many were removed before the one that is missing.
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                    rest = &rest[(attr.count as usize + 1).min(rest.len())..];
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn element(&self, key: u64, value: u64, flags: u64) -> ElementAttr {
        ElementAttr { map_fd: self.raw(), padding: 0, key, value, flags }
    }

    fn batch(&self, keys: &[K], values: u64) -> BatchAttr {
        BatchAttr {
            in_batch: 0,
            out_batch: 0,
            keys: keys.as_ptr() as u64,
            values,
            count: keys.len() as u32,
            map_fd: self.raw(),
            element_flags: 0,
            flags: 0,
        }
    }

    fn raw(&self) -> u32 {
        self.fd.as_raw_fd() as u32
    }
}

impl<K, V> AsFd for Map<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
