//! Forgets connections whose time is over, and paths' MTUs.

use crate::{error::ApplyError, model::Sweep, program::Maps, sys::map::Map};
use isthmus_dataplane_common::{
    CONNECTION_ANSWERED, CONNECTION_ESTABLISHED, CONNECTION_FIN_FROM, CONNECTION_FIN_TO, CONNECTION_RESET,
    CONNECTION_REVOKED, ConnectionKey, ConnectionValue, TICK_SHIFT,
};
use std::{io, time::Duration};

/// TCP's protocol number.
const TCP: u8 = 6;
/// RFC 1191 section 6.3.
const PATH_MTU_LIFE: Duration = Duration::from_mins(10);

/// How long a connection is kept after its last packet.
///
/// TCP: RFC 5382 section 5 asks for 2 h 4 min at least; 8 h spares long-idle pools of connections. Others: RFC 4787
/// section 4.3 asks for 2 min at least.
pub(crate) fn life(protocol: u8, flags: u32) -> Duration {
    let both_fins = CONNECTION_FIN_FROM | CONNECTION_FIN_TO;
    let seconds = if flags & CONNECTION_REVOKED != 0 {
        60
    } else if protocol != TCP {
        if flags & CONNECTION_ANSWERED != 0 { 180 } else { 60 }
    } else if flags & CONNECTION_RESET != 0 {
        10
    } else if flags & both_fins == both_fins {
        30
    } else if flags & both_fins != 0 {
        // Half closed may go on for long: RFC 9293 section 3.6.
        3_600
    } else if flags & CONNECTION_ESTABLISHED != 0 {
        8 * 3_600
    } else {
        60
    };
    Duration::from_secs(seconds)
}

/// The clock that programs stamp connections with.
pub(crate) fn now_ticks() -> u32 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let nanoseconds = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
    (nanoseconds >> TICK_SHIFT) as u32
}

fn ticks(duration: Duration) -> u32 {
    (duration.as_nanos() >> TICK_SHIFT) as u32
}

/// One pass over all connections.
pub(crate) fn sweep(maps: &Maps, mtu: u32) -> Result<Sweep, ApplyError> {
    let failed = |source: io::Error| ApplyError { what: "sweep the connections".into(), source };
    let now = now_ticks();
    let mut result = Sweep::default();
    for map in [&maps.connection_tcp, &maps.connection_other] {
        sweep_map(map, now, &mut result).map_err(failed)?;
    }
    sweep_paths(maps, now, mtu).map_err(failed)?;
    Ok(result)
}

fn over(key: &ConnectionKey, value: &ConnectionValue, now: u32) -> bool {
    now.wrapping_sub(value.seen) > ticks(life(key.protocol, value.flags))
        // Stamped after `now` was read.
        && now.wrapping_sub(value.seen) < u32::MAX / 2
}

fn sweep_map(map: &Map<ConnectionKey, ConnectionValue>, now: u32, result: &mut Sweep) -> io::Result<()> {
    let mut expired = Vec::new();
    map.for_each_batch(|keys, values| {
        for (key, value) in keys.iter().zip(values) {
            if over(key, value, now) {
                expired.push(*key);
            } else {
                result.live += 1;
            }
        }
    })?;
    for key in expired {
        // A packet may have come since; looked at once more.
        match map.value(&key)? {
            Some(value) if over(&key, &value, now) => {
                map.remove(&key)?;
                result.expired += 1;
            }
            Some(_) => result.live += 1,
            None => {}
        }
    }
    Ok(())
}

/// Forgets paths' MTUs after a while, so that a longer path is found again.
fn sweep_paths(maps: &Maps, now: u32, mtu: u32) -> io::Result<()> {
    let mut floor = mtu;
    for (address, path) in maps.path_mtu.entries()? {
        if now.wrapping_sub(path.learned) > ticks(PATH_MTU_LIFE) {
            maps.path_mtu.remove(&address)?;
        } else {
            floor = floor.min(path.mtu);
        }
    }
    if maps.config()?.path_mtu_floor == floor {
        return Ok(());
    }
    maps.change_config(|config| {
        if config.mtu == mtu {
            config.path_mtu_floor = floor;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_sooner_is_forgotten_sooner() {
        let established = CONNECTION_ANSWERED | CONNECTION_ESTABLISHED;
        assert!(life(TCP, established) >= Duration::from_mins(124));
        assert!(life(TCP, established | CONNECTION_RESET) < life(TCP, 0));
        assert!(life(TCP, established | CONNECTION_REVOKED) <= Duration::from_mins(1));
        assert!(life(17, CONNECTION_ANSWERED) >= Duration::from_mins(2));
    }

    #[test]
    fn a_clock_that_wraps_does_not_expire_anything() {
        let key = ConnectionKey {
            low: [0; 4],
            high: [0; 4],
            low_port: 0,
            high_port: 0,
            protocol: TCP,
            scope: 0,
            reserved: 0,
        };
        let value = ConnectionValue { seen: u32::MAX - 5, ..ConnectionValue::default() };
        assert!(!over(&key, &value, 5));
        assert!(!over(&key, &value, u32::MAX - 6));
        assert!(over(&key, &value, ticks(Duration::from_secs(61)) + 5));
    }
}
