//! The limits of a store. What exceeds one is refused with [`StoreError::TooLarge`](crate::StoreError::TooLarge).

/// Operations, and likewise compares, in one transaction.
pub const OPERATIONS_MAX: usize = 512;
/// Bytes of one value.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// Bytes of one key.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Bytes of all keys and values of one transaction.
pub const TXN_BYTES_MAX: usize = 64 << 20;
/// Entries that one [`range`](crate::Store::range) returns at most.
pub const RANGE_MAX: usize = 100_000;
/// Leases at one time.
pub const LEASES_MAX: usize = 65_536;
/// Entries under one lease.
pub const LEASE_KEYS_MAX: usize = 4_096;
/// Revisions that a watch can lie behind before it is told that it is compacted.
pub const LOG_REVISIONS_MAX: usize = 16_384;
/// Bytes of the changes that a watch can lie behind; the newest change is always kept.
pub const LOG_BYTES_MAX: usize = 64 << 20;
/// Commits that wait for the writer; the next caller waits for room.
pub const COMMITS_WAITING_MAX: usize = 1_024;
/// Commits that share one write to the disk.
pub const GROUP_MAX: usize = 256;
/// Bytes of keys and values that share one write to the disk, beyond the first commit's.
pub const GROUP_BYTES_MAX: usize = 32 << 20;
