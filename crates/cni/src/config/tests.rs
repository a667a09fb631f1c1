use super::*;

fn read(json: &str, args: &str) -> Result<Details, CniError> {
    Details::read(json.as_bytes(), &Environment { args: args.to_owned(), ..Environment::default() })
}

#[test]
fn both_spellings_of_runtime_config_mean_the_same() {
    let small = r#"{"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"127.0.0.1"}],
        "dns":{"servers":["10.96.0.10"],"searches":["svc"],"options":["ndots:5"]}}}"#;
    let large = r#"{"runtimeConfig":{"portMappings":[{"HostPort":8080,"ContainerPort":80,"Protocol":"TCP","HostIP":"127.0.0.1"}],
        "dns":{"Servers":["10.96.0.10"],"Searches":["svc"],"Options":["ndots:5"]}}}"#;
    let details = read(small, "").unwrap();
    assert_eq!(details, read(large, "").unwrap());
    let expected = PortMapping {
        host_ip: "127.0.0.1".parse().ok(),
        host_port: 8080,
        container_port: 80,
        protocol: "tcp".into(),
    };
    assert_eq!(details.port_mappings, [expected]);
    assert_eq!(details.dns.nameservers, ["10.96.0.10"]);
}

#[test]
fn what_is_told_at_run_time_beats_args_and_those_beat_cni_args() {
    let json = r#"{"runtimeConfig":{"ips":["10.0.0.1/16"]},"args":{"cni":{"ips":["10.0.0.2"],"mac":"02-00-00-00-00-AB"}}}"#;
    let details = read(json, "IP=10.0.0.3;MAC=02:00:00:00:00:03").unwrap();
    assert_eq!(details.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(details.mac.as_deref(), Some("02:00:00:00:00:ab"));
    assert_eq!(read("{}", "IP=10.0.0.3/24").unwrap().addresses, ["10.0.0.3".parse::<IpAddr>().unwrap()]);
}

#[test]
fn nulls_and_unknown_keys_are_nothing() {
    let json = r#"{"runtimeConfig":{"portMappings":null,"ips":null,"aliases":{"n":["a"]},"cgroupPath":"/x"},
        "args":null,"dns":null,"ipam":null,"custom":{"a":1}}"#;
    assert_eq!(read(json, "").unwrap(), Details::default());
}

#[test]
fn a_fault_is_named_and_has_the_code_of_the_specification() {
    let cases = [
        (
            r#"{"runtimeConfig":{"portMappings":[{"hostPort":70000,"containerPort":80}]}}"#,
            Code::Config,
            "70000",
        ),
        (r#"{"runtimeConfig":{"portMappings":[{"hostPort":80}]}}"#, Code::Config, "containerPort 0"),
        (
            r#"{"runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":1,"protocol":"sctp"}]}}"#,
            Code::Unsupported,
            "sctp",
        ),
        (
            r#"{"runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":1,"hostIP":"x"}]}}"#,
            Code::Config,
            "hostIP",
        ),
        (r#"{"runtimeConfig":{"portMappings":[{"hostPort":"1"}]}}"#, Code::Decode, "portMappings"),
        (r#"{"runtimeConfig":{"ips":["10.0.0"]}}"#, Code::Config, "10.0.0"),
        (r#"{"runtimeConfig":{"mac":"02:00"}}"#, Code::Config, "02:00"),
        (r#"{"runtimeConfig":{"mac":"01:00:00:00:00:01"}}"#, Code::Config, "lowest bit"),
        (r#"{"ipam":{"type":"host-local"}}"#, Code::Config, "host-local"),
        (r#"{"runtimeConfig":[]}"#, Code::Decode, "standard input"),
        ("[", Code::Decode, "standard input"),
    ];
    for (json, code, word) in cases {
        let error = read(json, "").unwrap_err();
        assert_eq!(error.code, code, "{json}");
        assert!(error.message.contains(word), "{json}: {}", error.message);
    }
}

#[test]
fn host_port_zero_asks_for_no_mapping() {
    let json = r#"{"runtimeConfig":{"portMappings":[{"hostPort":0,"containerPort":53,"protocol":"udp"}]}}"#;
    assert!(read(json, "").unwrap().port_mappings.is_empty());
}

#[test]
fn base_takes_defaults_and_refuses_what_cannot_work() {
    let base = Base::read(br#"{"name":"isthmus","type":"isthmus-cni"}"#).unwrap();
    assert_eq!(base.runtime(), "cni:isthmus");
    assert_eq!(base.socket, Path::new(SOCKET));
    assert_eq!(base.timeout, Duration::from_secs(TIMEOUT_SECONDS));
    for json in [
        "{}",
        r#"{"name":"a/b"}"#,
        r#"{"name":"n","timeoutSeconds":0}"#,
        r#"{"name":"n","timeoutSeconds":601}"#,
    ] {
        assert_eq!(Base::read(json.as_bytes()).unwrap_err().code, Code::Config, "{json}");
    }
}

#[test]
fn a_missing_version_is_the_oldest_and_an_unknown_one_is_refused() {
    assert_eq!(read_version(b"{}").unwrap(), Version::V010);
    assert_eq!(read_version(br#"{"cniVersion":"1.1.0"}"#).unwrap(), Version::V110);
    let error = read_version(br#"{"cniVersion":"2.0.0"}"#).unwrap_err();
    assert_eq!(error.code, Code::Version);
    assert!(error.details.contains("1.1.0"));
    assert_eq!(read_version(b" \n").unwrap_err().code, Code::Decode);
}

#[test]
fn garbage_collection_without_a_list_removes_nothing() {
    assert_eq!(valid_attachments(b"{}").unwrap_err().code, Code::Config);
    assert!(valid_attachments(br#"{"cni.dev/valid-attachments":null}"#).unwrap().is_empty());
    let json = br#"{"cni.dev/attachments":[{"containerID":"a","ifname":"eth0"}]}"#;
    assert_eq!(valid_attachments(json).unwrap(), [("a".to_owned(), "eth0".to_owned())]);
}

#[test]
fn mesos_network_info_is_read() {
    let json = r#"{"args":{"org.apache.mesos":{"network_info":{"name":"isthmus","ip_addresses":[{"protocol":"IPv4"}],
        "labels":{"labels":[{"key":"isthmus.dev/app","value":"ads/bidder"},{"key":"flag"}]},
        "port_mappings":[{"host_port":31000,"container_port":80,"protocol":"tcp"}]}}}}"#;
    let details = read(json, "").unwrap();
    assert_eq!(details.port_mappings[0].host_port, 31000);
    assert_eq!(details.metadata.mesos.unwrap()["flag"], "");
    assert!(details.addresses.is_empty());
}
