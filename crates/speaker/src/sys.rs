//! What no crate does for us without `unsafe`, in the only module of this crate that has some: keys of TCP MD5 (RFC 2385),
//! the least TTL (RFC 5082), and waiting for sockets that tokio does not know.

use ipnet::IpNet;
use std::{
    ffi::c_int,
    io,
    net::IpAddr,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Waits for a descriptor of any kind.
pub(crate) fn waited_for(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is open until it is dropped, is the same all the time, and who owns it cannot be had out
    // of what is returned but by dropping that, which ends the registration first.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// Longest password of TCP MD5 (`TCP_MD5SIG_MAXKEYLEN` of `linux/tcp.h`).
pub(crate) const MD5_PASSWORD_BYTES_MAX: usize = libc::TCP_MD5SIG_MAXKEYLEN;

/// `sizeof(struct tcp_md5sig)`: an address in 128 bytes, flags, prefix length, key length, interface, the key.
const MD5SIG_BYTES: usize = 128 + 1 + 1 + 2 + 4 + MD5_PASSWORD_BYTES_MAX;
/// `TCP_MD5SIG_FLAG_PREFIX` of `linux/tcp.h`.
const MD5SIG_FLAG_PREFIX: u8 = 1;

/// Has the kernel sign what goes to `peers` with a password, and drop what comes from them without. An empty password takes
/// the key away again; that there is none is an error of kind `NotFound`.
///
/// The family of `peers` must be that of the socket. Of several ranges with an address in them the narrowest counts.
/// Ranges need Linux 4.13.
pub(crate) fn set_md5_key(socket: BorrowedFd<'_>, peers: IpNet, password: &str) -> io::Result<()> {
    if password.len() > MD5_PASSWORD_BYTES_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let name = if peers.prefix_len() == peers.max_prefix_len() { Name::Md5Key } else { Name::Md5KeyOfPrefix };
    set(socket, name, &md5sig(peers, password))
}

/// Has the kernel drop what comes with a lower TTL, or hop limit where the socket is one of IPv6. Zero: nothing.
pub(crate) fn set_ttl_min(socket: BorrowedFd<'_>, is_ipv4: bool, ttl_min: u8) -> io::Result<()> {
    let name = if is_ipv4 { Name::TtlMin } else { Name::HopLimitMin };
    set(socket, name, &c_int::from(ttl_min).to_ne_bytes())
}

/// `struct tcp_md5sig` of `linux/tcp.h`.
fn md5sig(peers: IpNet, password: &str) -> [u8; MD5SIG_BYTES] {
    let mut bytes = [0; MD5SIG_BYTES];
    let mut put = |at: usize, field: &[u8]| {
        for (byte, value) in bytes.iter_mut().skip(at).zip(field) {
            *byte = *value;
        }
    };
    // `struct sockaddr_in` and `sockaddr_in6`: family, port, then the address, behind the flow label for IPv6.
    match peers.network() {
        IpAddr::V4(address) => {
            put(0, &(libc::AF_INET as u16).to_ne_bytes());
            put(4, &address.octets());
        }
        IpAddr::V6(address) => {
            put(0, &(libc::AF_INET6 as u16).to_ne_bytes());
            put(8, &address.octets());
        }
    }
    put(128, &[MD5SIG_FLAG_PREFIX, peers.prefix_len()]);
    put(130, &(password.len() as u16).to_ne_bytes());
    put(136, password.as_bytes());
    bytes
}

/// The options that are set here. None holds a pointer.
#[derive(Clone, Copy)]
enum Name {
    /// `TCP_MD5SIG`: flags and prefix length are not looked at.
    Md5Key,
    /// `TCP_MD5SIG_EXT`.
    Md5KeyOfPrefix,
    TtlMin,
    HopLimitMin,
}

impl Name {
    fn level_and_number(self) -> (c_int, c_int) {
        match self {
            Self::Md5Key => (libc::IPPROTO_TCP, libc::TCP_MD5SIG),
            Self::Md5KeyOfPrefix => (libc::IPPROTO_TCP, libc::TCP_MD5SIG_EXT),
            Self::TtlMin => (libc::IPPROTO_IP, libc::IP_MINTTL),
            Self::HopLimitMin => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
        }
    }
}

fn set(socket: BorrowedFd<'_>, name: Name, value: &[u8]) -> io::Result<()> {
    let (level, number) = name.level_and_number();
    // SAFETY: the descriptor is open while it is borrowed; the kernel only reads the value, and no more than its length;
    // whatever bytes it finds there, it takes them for no pointer.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            number,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::os::fd::AsFd;

    fn socket(domain: Domain) -> Socket {
        Socket::new(domain, Type::STREAM, None).unwrap()
    }

    #[test]
    fn a_key_lies_as_the_kernel_reads_it() {
        let bytes = md5sig("192.0.2.0/24".parse().unwrap(), "abc");
        assert_eq!(bytes.len(), 216);
        assert_eq!(bytes[..8], [2, 0, 0, 0, 192, 0, 2, 0]);
        assert_eq!(bytes[128..140], [1, 24, 3, 0, 0, 0, 0, 0, b'a', b'b', b'c', 0]);
        let bytes = md5sig("2001:db8::1/128".parse().unwrap(), "");
        assert_eq!(bytes[..12], [10, 0, 0, 0, 0, 0, 0, 0, 0x20, 0x01, 0x0d, 0xb8]);
        assert_eq!(bytes[129], 128);
    }

    #[test]
    fn the_kernel_takes_keys_and_gives_them_up() {
        for (domain, ranges) in
            [(Domain::IPV4, ["10.0.0.1/32", "10.0.0.0/8"]), (Domain::IPV6, ["fd00::1/128", "fd00::/64"])]
        {
            let socket = socket(domain);
            for range in ranges.map(|range| range.parse().unwrap()) {
                let set = |password: &str| set_md5_key(socket.as_fd(), range, password);
                assert_eq!(set("").unwrap_err().kind(), io::ErrorKind::NotFound, "{range}");
                set(&"p".repeat(MD5_PASSWORD_BYTES_MAX)).unwrap();
                set("another").unwrap();
                set("").unwrap();
                assert_eq!(set("").unwrap_err().kind(), io::ErrorKind::NotFound, "{range}");
                let long = "p".repeat(MD5_PASSWORD_BYTES_MAX + 1);
                assert_eq!(set(&long).unwrap_err().kind(), io::ErrorKind::InvalidInput);
            }
        }
    }

    #[test]
    fn a_key_of_the_other_family_is_refused() {
        let key = |domain, range: &str| set_md5_key(socket(domain).as_fd(), range.parse().unwrap(), "p");
        assert!(key(Domain::IPV4, "fd00::1/128").is_err());
        assert!(key(Domain::IPV6, "10.0.0.1/32").is_err());
    }

    #[test]
    fn the_least_ttl_is_taken_for_both_families() {
        set_ttl_min(socket(Domain::IPV4).as_fd(), true, 254).unwrap();
        set_ttl_min(socket(Domain::IPV6).as_fd(), false, 254).unwrap();
    }
}
