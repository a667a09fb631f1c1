//! What the kernel counts of connections that never come to be: segments that it drops because of TCP MD5 (RFC 2385).
//!
//! It counts for the whole network namespace and names no neighbour, so this is a hint for people and nothing else.

use std::fs;

const FILE: &str = "/proc/net/netstat";

/// Segments that were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Md5Drops {
    /// Signed with another password.
    wrong: u64,
    /// Not signed, where a password is set.
    missing: u64,
    /// Signed, where none is set.
    unexpected: u64,
}

impl Md5Drops {
    /// What was counted since the machine started; `None` if it cannot be told.
    pub(crate) fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string(FILE).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        Some(Self {
            wrong: counter(text, "TCPMD5Failure")?,
            missing: counter(text, "TCPMD5NotFound")?,
            unexpected: counter(text, "TCPMD5Unexpected")?,
        })
    }

    /// What these numbers say about a neighbour that does not answer, if anything; `before` they were so.
    pub(crate) fn hint(self, before: Self, has_password: bool) -> Option<String> {
        let grew = |number: fn(&Self) -> u64| number(&self).saturating_sub(number(&before));
        let (wrong, missing, unexpected) =
            (grew(|drops| drops.wrong), grew(|drops| drops.missing), grew(|drops| drops.unexpected));
        let (count, what) = match has_password {
            true if wrong > 0 => (wrong, "with another password"),
            true if missing > 0 => (missing, "without a password"),
            false if unexpected > 0 => (unexpected, "with a password, and none is set here (auth-password)"),
            _ => return None,
        };
        let plural = if count == 1 { "" } else { "s" };
        Some(format!("meanwhile the kernel dropped {count} segment{plural} {what}, if they were its"))
    }
}

/// Finds a counter of TCP in pairs of lines, the first with names and the second with numbers, behind the same title.
fn counter(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut counters = names.split_whitespace().zip(numbers.split_whitespace());
    counters.find(|(found, _)| *found == name)?.1.parse().ok()
}

/// Runs until a counter has grown, so that a test knows that the kernel dropped something.
#[cfg(test)]
pub(crate) async fn until_dropped<T>(name: &str, what: impl AsyncFnOnce() -> T) -> T {
    let read = || counter(&fs::read_to_string(FILE).unwrap(), name).unwrap();
    let before = read();
    let result = what().await;
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while read() == before {
        assert!(tokio::time::Instant::now() < until, "{name} does not grow");
        // Between two looks at a condition with a deadline.
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "TcpExt: SyncookiesSent TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure\nTcpExt: 1 2 3 4\n\
        IpExt: InNoRoutes\nIpExt: 9\n";

    #[test]
    fn counters_are_found_by_their_names() {
        let drops = Md5Drops { wrong: 4, missing: 2, unexpected: 3 };
        assert_eq!(Md5Drops::parse(TEXT), Some(drops));
        assert_eq!(Md5Drops::parse("TcpExt: TCPMD5Failure\nTcpExt: 1\n"), None);
        assert_eq!(Md5Drops::parse("IpExt: 1\n"), None);
        assert!(Md5Drops::read().is_some());
    }

    #[test]
    fn what_grew_is_told_where_it_can_be_the_reason() {
        let before = Md5Drops { wrong: 1, missing: 1, unexpected: 1 };
        let hint = |drops: Md5Drops, has_password| drops.hint(before, has_password).unwrap_or_default();
        assert_eq!(hint(before, true), "");
        assert!(
            hint(Md5Drops { wrong: 3, missing: 2, ..before }, true)
                .contains("2 segments with another password")
        );
        assert!(hint(Md5Drops { missing: 2, ..before }, true).contains("1 segment without a password"));
        assert!(hint(Md5Drops { unexpected: 2, ..before }, false).contains("auth-password"));
        assert_eq!(hint(Md5Drops { unexpected: 2, ..before }, true), "");
        assert_eq!(hint(Md5Drops { wrong: 2, ..before }, false), "");
    }
}
