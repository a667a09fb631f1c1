//! Workloads by the names that people write.

use crate::failure::{Exit, Failure};
use isthmus_api::rest::{Resource, WorkloadSpec};
use isthmus_core::{WorkloadName, WorkloadPattern};

/// How many names an error lists at most.
const SHOWN_MAX: usize = 8;

/// The one workload that `text` means.
///
/// # Errors
///
/// None or several match; the error lists them, or those whose names are nearest.
pub fn resolve<'a>(
    text: &str,
    workloads: &'a [Resource<WorkloadSpec>],
) -> Result<&'a Resource<WorkloadSpec>, Failure> {
    let pattern: WorkloadPattern = text.parse().map_err(|why: isthmus_core::WorkloadNameError| {
        Failure::new(Exit::Usage, "ISE-0103", why.to_string(), "")
    })?;
    let matches = |workload: &&Resource<WorkloadSpec>| match full_name(&workload.spec.full_name) {
        Some(name) => pattern.matches(&name, workload.uuid),
        None => pattern == WorkloadPattern::Uuid(workload.uuid),
    };
    let found: Vec<_> = workloads.iter().filter(matches).collect();
    match found[..] {
        [one] => Ok(one),
        [] => Err(unknown(text, workloads)),
        _ => {
            let names: Vec<_> =
                found.iter().take(SHOWN_MAX).map(|workload| workload.spec.full_name.as_str()).collect();
            let more = if found.len() > SHOWN_MAX {
                format!(" and {} more", found.len() - SHOWN_MAX)
            } else {
                String::new()
            };
            let message = format!("app \"{text}\" is ambiguous\nmatches: {}{more}", names.join(", "));
            Err(Failure::new(
                Exit::Usage,
                "ISE-0102",
                message,
                "write the full name, or the UUID that 'app show' prints",
            ))
        }
    }
}

fn unknown(text: &str, workloads: &[Resource<WorkloadSpec>]) -> Failure {
    let short = |name: &str| {
        let app = name.rsplit_once('@').map_or(name, |(name, _cluster)| name);
        app.rsplit(['/', ':']).next().unwrap_or_default().to_owned()
    };
    let wanted = short(text);
    let mut near: Vec<_> = workloads
        .iter()
        .map(|workload| (distance(&wanted, &short(&workload.spec.full_name)), workload))
        .collect();
    near.retain(|(distance, _workload)| *distance <= 1 + wanted.chars().count() / 3);
    near.sort_by(|(a, left), (b, right)| {
        a.cmp(b).then_with(|| left.spec.full_name.cmp(&right.spec.full_name))
    });
    let names: Vec<_> =
        near.iter().take(3).map(|(_distance, workload)| workload.spec.full_name.as_str()).collect();
    let help = if names.is_empty() {
        "list the apps: isthmus app list".to_owned()
    } else {
        format!("did you mean {}?", names.join(", "))
    };
    Failure::new(Exit::Usage, "ISE-0101", format!("no app is called \"{text}\""), help)
}

/// Reads a full name back.
fn full_name(text: &str) -> Option<WorkloadName> {
    match text.parse().ok()? {
        WorkloadPattern::Name { platform, group, app, cluster } => Some(WorkloadName {
            platform: platform?,
            group: group.unwrap_or_default(),
            app,
            cluster: cluster?,
        }),
        WorkloadPattern::Uuid(_) => None,
    }
}

/// Insertions, deletions and replacements that lead from `a` to `b` (Levenshtein).
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let replaced = corner + usize::from(left != *right);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A name for a policy, made of the two names that it is between and the port.
pub fn policy_name(from: &str, to: &str, port: &str) -> String {
    let plain = |text: &str| {
        if uuid(text) {
            return text[..8].to_owned();
        }
        let text = text.rsplit_once('@').map_or(text, |(name, _cluster)| name);
        let text = text.split_once(':').map_or(text, |(_platform, path)| path);
        words(text)
    };
    let name = format!("{}-to-{}-{}", plain(from), plain(to), words(port));
    let name = name.trim_matches('-');
    if name.len() <= isthmus_core::name::NAME_BYTES_MAX && !uuid(from) && !uuid(to) {
        return name.to_owned();
    }
    // FNV-1a over everything, so that two names that were cut alike stay two.
    let whole = format!("{from} {to} {port}");
    let hash = whole.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{}-{:08x}", name[..name.len().min(54)].trim_end_matches('-'), hash as u32)
}

fn uuid(text: &str) -> bool {
    matches!(text.parse(), Ok(WorkloadPattern::Uuid(_)))
}

fn words(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use isthmus_core::PolicyName;
    use uuid::Uuid;

    fn workload(number: u128, full_name: &str) -> Resource<WorkloadSpec> {
        Resource {
            kind: "workload".into(),
            name: number.to_string(),
            uuid: Uuid::from_u128(number),
            revision: 1,
            labels: [].into(),
            spec: WorkloadSpec {
                cluster: "red".into(),
                id: "x".into(),
                full_name: full_name.into(),
                identities: Vec::new(),
                endpoints: 0,
            },
        }
    }

    fn all() -> Vec<Resource<WorkloadSpec>> {
        let names =
            ["cf:acme/prod/cart@green", "cf:acme/stage/cart@green", "k8s:shop/web@red", "host:db1@lab"];
        names.iter().zip(1..).map(|(name, number)| workload(number, name)).collect()
    }

    #[test]
    fn a_short_name_is_enough_when_it_is_unique() {
        let all = all();
        for text in ["web", "k8s:web", "shop/web@red", "00000000-0000-0000-0000-000000000003"] {
            assert_eq!(resolve(text, &all).unwrap().spec.full_name, "k8s:shop/web@red", "{text}");
        }
    }

    #[test]
    fn an_ambiguous_name_lists_the_matches() {
        let text = resolve("cart", &all()).unwrap_err().render();
        assert!(
            text.starts_with(
                "error[ISE-0102]: app \"cart\" is ambiguous\n  matches: cf:acme/prod/cart@green, "
            ),
            "{text}"
        );
    }

    #[test]
    fn an_unknown_name_gets_the_nearest() {
        let text = resolve("k8s:shop/wep", &all()).unwrap_err().render();
        assert_eq!(
            text,
            "error[ISE-0101]: no app is called \"k8s:shop/wep\"\n  help: did you mean k8s:shop/web@red?\n"
        );
        assert!(resolve("something-else", &all()).unwrap_err().render().contains("isthmus app list"));
        assert!(resolve("vms:web", &all()).unwrap_err().render().starts_with("error[ISE-0103]"));
    }

    #[test]
    fn a_policy_gets_a_name_that_the_server_takes() {
        assert_eq!(policy_name("k8s:shop/web@red", "cart", "tcp:8080"), "shop-web-to-cart-tcp-8080");
        let long = "a".repeat(80);
        for (from, to) in
            [("web", long.as_str()), ("cf:o/s/ä@x", "00000000-0000-0000-0000-000000000003"), ("@", "_")]
        {
            let name = policy_name(from, to, "udp:1-2");
            assert!(name.parse::<PolicyName>().is_ok(), "{name}");
        }
        assert_ne!(
            policy_name(&format!("{long}1"), "b", "any"),
            policy_name(&format!("{long}2"), "b", "any")
        );
    }
}
