//! What the configuration accepts, and how it says no.

use super::*;

fn faults(text: &str) -> Vec<(usize, String)> {
    let faults = Config::from_toml(text, "agent.toml").unwrap_err();
    faults.faults.into_iter().map(|fault| (fault.line, fault.text)).collect()
}

#[test]
fn a_short_configuration_has_defaults() {
    let config = Config::from_toml("node = \"n1\"\nclusters = [\"red\"]\n", "agent.toml").unwrap();
    assert_eq!(config.server, SERVER);
    assert_eq!(config.vxlan_port, 4_789);
    assert_eq!(config.garden_start_port, 61_000);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/isthmus/agent"));
}

#[test]
fn what_is_rendered_reads_as_the_same() {
    let text = "node = \"n1\"\nserver = \"10.0.0.1:7443\"\naddress = \"10.0.0.2\"\nclusters = [\"red\", \"blue\"]\n\
                vxlan_port = 4790\nattach = \"clsact\"\nmtu = 1400\nmetrics = \"127.0.0.1:9480\"\n\
                flow_log = \"/var/log/isthmus/flows.log\"\n[limits]\nendpoints = 100\n";
    let config = Config::from_toml(text, "agent.toml").unwrap();
    assert_eq!(config.limits.endpoints, 100);
    assert_eq!(Config::from_toml(&config.render(), "rendered").unwrap(), config);
}

#[test]
fn all_faults_come_at_once_with_their_lines() {
    let text = "node = \"a b\"\nclusters = [\"red\"]\nvxlan_prot = 1\nmtu = 100\nattach = \"xdp\"\n\
                data_dir = \"here\"\naddress = 7\n[limits]\nendpoints = 0\nfoo = 1\n";
    let found = faults(text);
    let lines: Vec<_> = found.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 3, 4, 5, 6, 7, 9, 10], "{found:?}");
    assert!(found[1].1.contains("did you mean vxlan_port?"), "{found:?}");
    assert!(found[3].1.contains("one of auto, tcx, clsact"), "{found:?}");
    assert!(found[6].1.starts_with("limits.endpoints: 0 is not"), "{found:?}");
}

#[test]
fn clusters_are_needed() {
    assert!(faults("node = \"n1\"\n")[0].1.starts_with("clusters is missing"));
    assert!(faults("node = \"n1\"\nclusters = []\n")[0].1.contains("[] is not names"));
    assert!(faults("node = \"n1\"\nclusters = [1]\n")[0].1.starts_with("clusters: integer is not"));
}

#[test]
fn text_that_is_no_toml_is_told_with_its_line() {
    assert_eq!(faults("node = \"n1\"\nclusters = [\n")[0].0, 2);
}

#[test]
fn a_server_without_a_port_is_refused() {
    for server in ["10.0.0.1", ":7443", "10.0.0.1:0", "10.0.0.1:x"] {
        let text = format!("node = \"n1\"\nclusters = [\"red\"]\nserver = \"{server}\"\n");
        assert_eq!(faults(&text)[0].0, 3, "{server}");
    }
}
