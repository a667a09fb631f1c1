//! Texts that match communities and AS paths: a value as it is written, or a regular expression over such texts.

use regex::{Regex, RegexBuilder};
use std::net::Ipv4Addr;

/// Most memory of a compiled expression; one that needs more is refused.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// What an underscore stands for in an expression for AS paths: an end, or anything between two numbers.
const BETWEEN: &str = "(?:^|[,{}() ]|$)";

/// Communities with a name (RFC 1997, 7999, 8326, 9494).
const WELL_KNOWN: [(&str, u32); 8] = [
    ("graceful-shutdown", 0xffff_0000),
    ("accept-own", 0xffff_0001),
    ("llgr-stale", 0xffff_0006),
    ("no-llgr", 0xffff_0007),
    ("blackhole", 0xffff_029a),
    ("no-export", 0xffff_ff01),
    ("no-advertise", 0xffff_ff02),
    ("no-export-subconfed", 0xffff_ff03),
];

/// One member of a set.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Pattern {
    /// Matches communities: `65000:100`, a number, a name such as `no-export`, or an expression.
    pub fn community(text: &str) -> Result<Self, String> {
        let exact = community(text).map(|value| format!("^{}:{}$", value >> 16, value & 0xffff));
        Self::new(text, exact)
    }

    /// Matches large communities: `65000:1:2`, or an expression.
    pub fn large_community(text: &str) -> Result<Self, String> {
        let exact = large_community(text).map(|(global, one, two)| format!("^{global}:{one}:{two}$"));
        Self::new(text, exact)
    }

    /// Matches extended communities with their kind before them: `rt:65000:100`, or `rt:` and an expression.
    pub fn ext_community(text: &str) -> Result<Self, String> {
        let (kind, value) = text.split_once(':').ok_or_else(|| ext_hint(text))?;
        if !matches!(kind, "rt" | "soo") {
            return Err(ext_hint(text));
        }
        // GoBGP takes what follows the kind as an expression of its own, so anchors are moved before the kind.
        let (anchor, value) = value.strip_prefix('^').map_or(("", value), |rest| ("^", rest));
        let exact = match ext_community(text) {
            Some(_) => format!("^{}$", regex::escape(text)),
            None if anchor.is_empty() => format!("^{kind}:.*(?:{value})"),
            None => format!("^{kind}:{value}"),
        };
        Self::new(text, Some(exact))
    }

    /// Matches AS paths, written as numbers with spaces between and sets in braces.
    pub fn as_path(text: &str) -> Result<Self, String> {
        Self::new(text, Some(text.replace('_', BETWEEN)))
    }

    fn new(text: &str, expression: Option<String>) -> Result<Self, String> {
        let expression = expression.unwrap_or_else(|| text.to_owned());
        let regex = RegexBuilder::new(&expression).size_limit(COMPILED_BYTES_MAX).build();
        let regex = regex.map_err(|why| {
            let why = why.to_string();
            let last = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("\"{text}\" is neither a value nor a regular expression: {last}")
        })?;
        Ok(Self { text: text.to_owned(), regex })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a community or path in its written form fits.
    pub fn is_match(&self, written: &str) -> bool {
        self.regex.is_match(written)
    }
}

fn ext_hint(text: &str) -> String {
    format!("\"{text}\" is no extended community that can be matched: write rt:65000:100 or soo:65000:100")
}

/// A community as a number.
pub fn community(text: &str) -> Option<u32> {
    if let Some((_, value)) = WELL_KNOWN.iter().find(|(name, _)| *name == text) {
        return Some(*value);
    }
    match text.split_once(':') {
        None => text.parse().ok(),
        Some((high, low)) => {
            let (high, low): (u16, u16) = (high.parse().ok()?, low.parse().ok()?);
            Some(u32::from(high) << 16 | u32::from(low))
        }
    }
}

/// The three numbers of a large community.
pub fn large_community(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split(':').map(|part| part.parse().ok());
    let value = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(value)
}

/// The eight bytes of a route target or site of origin (RFC 4360 section 3, RFC 5668).
pub fn ext_community(text: &str) -> Option<u64> {
    let mut parts = text.split(':');
    let sub_type: u64 = match parts.next()? {
        "rt" => 2,
        "soo" => 3,
        _ => return None,
    };
    let (global, local) = (parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let (kind, value): (u64, u64) = if let Ok(asn) = global.parse::<u16>() {
        (0, u64::from(asn) << 32 | u64::from(local.parse::<u32>().ok()?))
    } else if let Ok(asn) = global.parse::<u32>() {
        (2, u64::from(asn) << 16 | u64::from(local.parse::<u16>().ok()?))
    } else {
        let address: Ipv4Addr = global.parse().ok()?;
        (1, u64::from(u32::from(address)) << 16 | u64::from(local.parse::<u16>().ok()?))
    };
    Some(kind << 56 | sub_type << 48 | value)
}

/// A community as it is written.
pub fn write_community(value: u32) -> String {
    format!("{}:{}", value >> 16, value & 0xffff)
}

/// An extended community as it is written; `None` for kinds that have no text here.
pub fn write_ext_community(value: u64) -> Option<String> {
    let kind = match value >> 48 & 0xff {
        2 => "rt",
        3 => "soo",
        _ => return None,
    };
    let low = value as u16;
    match value >> 56 {
        0 => Some(format!("{kind}:{}:{}", (value >> 32) as u16, value as u32)),
        1 => Some(format!("{kind}:{}:{low}", Ipv4Addr::from((value >> 16) as u32))),
        2 => Some(format!("{kind}:{}:{low}", (value >> 16) as u32)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_community_matches_as_number_name_and_expression() {
        for text in ["65000:100", "4259840100", "^65000:.*$", "65000:1.."] {
            let pattern = Pattern::community(text).unwrap();
            assert!(pattern.is_match("65000:100"), "{text}");
            assert!(!pattern.is_match("65001:100"), "{text}");
        }
        assert!(Pattern::community("no-export").unwrap().is_match("65535:65281"));
        assert!(!Pattern::community("65000:10").unwrap().is_match("65000:100"), "values are whole");
    }

    #[test]
    fn an_underscore_is_any_border_of_an_as_path() {
        for (pattern, path, expected) in [
            ("^65000_", "65000 65001", true),
            ("^65000_", "65000", true),
            ("^65000_", "650001", false),
            ("_65001$", "65000 65001", true),
            ("_65001_", "65000 {65001,65002} 1", true),
            ("_65001_", "65000 165001 1", false),
            ("^$", "", true),
        ] {
            assert_eq!(Pattern::as_path(pattern).unwrap().is_match(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn extended_communities_are_read_and_written_alike() {
        for text in ["rt:65000:100", "soo:192.0.2.1:7", "rt:4200000000:9"] {
            let value = ext_community(text).unwrap();
            assert_eq!(write_ext_community(value).as_deref(), Some(text));
            assert!(Pattern::ext_community(text).unwrap().is_match(text));
        }
        assert!(Pattern::ext_community("rt:^65000:.*$").unwrap().is_match("rt:65000:9"));
        assert!(!Pattern::ext_community("rt:65000:.*$").unwrap().is_match("soo:65000:9"));
        assert!(Pattern::ext_community("encap:vxlan").is_err());
    }

    #[test]
    fn a_broken_expression_says_why() {
        let why = Pattern::as_path("(65000").unwrap_err();
        assert!(why.contains("(65000") && why.contains("unclosed group"), "{why}");
    }

    #[test]
    fn large_communities_have_three_parts() {
        assert_eq!(large_community("1:2:3"), Some((1, 2, 3)));
        assert_eq!(large_community("1:2"), None);
        assert_eq!(large_community("1:2:3:4"), None);
    }
}
