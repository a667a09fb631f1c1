//! Random pauses from a seed, and what comes first.

use std::time::Duration;

/// Random numbers that are only there to keep peers from doing things at the same moment (`SplitMix64`).
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between three quarters and the whole of it (RFC 4271 section 10).
    pub(crate) fn shorten(&mut self, whole: Duration) -> Duration {
        self.between(whole * 3 / 4, whole)
    }

    /// Somewhere between the two.
    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let permille = (self.next() % 1_001) as u32;
        least + most.saturating_sub(least) * permille / 1_000
    }
}

/// The earlier of two moments that may never come.
pub(crate) fn earliest(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
