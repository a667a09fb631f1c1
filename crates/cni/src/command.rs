//! The six commands.

use crate::{
    agent,
    config::{self, Base, Details},
    environment::Environment,
    error::{CniError, Code},
    netns::open_netns,
    network::Network,
    version::Version,
    workload,
};
use isthmus_api::adapter::{Attach, Attached, AttachmentKey, Check, Collect, RequestBody};
use serde_json::json;
use std::{
    io::Read,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
};

/// Longest configuration that is read. A kubelet's largest, with all annotations, is below half of it.
const INPUT_BYTES_MAX: u64 = 4 << 20;

/// What the process says in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Goes to standard output: one JSON document, or nothing.
    pub stdout: String,
    /// Whether the process ends with 0.
    pub ok: bool,
}

/// Serves one call.
pub fn run(environment: &Environment, stdin: &mut dyn Read) -> Outcome {
    let mut input = Vec::new();
    // The version of an error document is that of the configuration, once it is known.
    let mut version = Version::V110;
    let answer = match stdin.take(INPUT_BYTES_MAX + 1).read_to_end(&mut input) {
        Err(why) => Err(CniError::new(Code::Io, format!("standard input cannot be read: {why}"), "")),
        Ok(read) if read as u64 > INPUT_BYTES_MAX => {
            let message =
                format!("the configuration on standard input is longer than {INPUT_BYTES_MAX} bytes");
            Err(CniError::new(Code::Decode, message, ""))
        }
        Ok(_read) => serve(environment, &input, &mut version),
    };
    match answer {
        Ok(stdout) => Outcome { stdout, ok: true },
        Err(error) => Outcome { stdout: error.render(version), ok: false },
    }
}

fn serve(environment: &Environment, input: &[u8], version: &mut Version) -> Result<String, CniError> {
    if environment.command == "VERSION" {
        return answer_version(input);
    }
    *version = config::read_version(input)?;
    let call = Call { environment, input, version: *version };
    match environment.command.as_str() {
        "ADD" => call.add(),
        "DEL" => call.del(),
        "CHECK" => call.check(),
        "GC" => call.gc(),
        "STATUS" => call.status(),
        other => {
            let message = format!("the environment variable CNI_COMMAND is {other:?}, which is no command");
            Err(CniError::new(Code::Environment, message, "use ADD, DEL, CHECK, GC, STATUS or VERSION"))
        }
    }
}

fn answer_version(input: &[u8]) -> Result<String, CniError> {
    let asked = config::version_text(input)?.unwrap_or_else(|| Version::V110.as_str().to_owned());
    let spoken: Vec<_> = Version::ALL.iter().map(|version| version.as_str()).collect();
    Ok(json!({ "cniVersion": asked, "supportedVersions": spoken }).to_string())
}

struct Call<'a> {
    environment: &'a Environment,
    input: &'a [u8],
    version: Version,
}

impl Call<'_> {
    fn add(&self) -> Result<String, CniError> {
        let base = Base::read(self.input)?;
        let key = self.key(&base)?;
        let path = self.environment.netns()?;
        let details = Details::read(self.input, self.environment)?;
        let named = workload::name(&self.environment.args()?, &details.metadata, &key.container)?;
        // What could fail is done before the agent is asked: afterwards there would be something to undo.
        let mut network = match config::previous_result(self.input)? {
            Some(previous) => Network::read(&previous)?,
            None => Network::default(),
        };
        let netns = open_netns(path, self.environment.may_use_own_netns())?;
        let attach = Attach {
            key,
            cluster: base.cluster.clone(),
            workload: named.workload,
            instance: named.instance,
            addresses: Vec::new(),
            mac: details.mac,
            port_mappings: details.port_mappings,
        };
        let attached = attach_first(&base, &attach, &details.addresses, netns.as_fd())?;
        network.add(&attached, &attach.key.interface, path);
        if !details.dns.nameservers.is_empty() {
            network.dns = details.dns;
        }
        Ok(network.render(self.version).to_string())
    }

    /// Comes with nothing but container and interface, several times, and for what never was.
    fn del(&self) -> Result<String, CniError> {
        let base = Base::read(self.input)?;
        let key = self.key(&base)?;
        agent::ask(&base, RequestBody::Detach(key), None).map(|_done| String::new())
    }

    fn check(&self) -> Result<String, CniError> {
        self.since(Version::V040)?;
        let base = Base::read(self.input)?;
        let key = self.key(&base)?;
        let netns = open_netns(self.environment.netns()?, self.environment.may_use_own_netns())?;
        let Some(previous) = config::previous_result(self.input)? else {
            let message = "CHECK came without prevResult, so there is nothing to compare with";
            return Err(CniError::new(Code::Config, message, "the runtime must send the result of the ADD"));
        };
        let addresses = Network::read(&previous)?.addresses_of(&key.interface);
        let check = RequestBody::Check(Check { key, addresses });
        agent::ask(&base, check, Some(netns.as_fd())).map(|_done| String::new())
    }

    fn gc(&self) -> Result<String, CniError> {
        self.since(Version::V110)?;
        let base = Base::read(self.input)?;
        let valid = config::valid_attachments(self.input)?;
        let collect = RequestBody::Collect(Collect { runtime: base.runtime(), valid });
        agent::ask(&base, collect, None).map(|_done| String::new())
    }

    fn status(&self) -> Result<String, CniError> {
        self.since(Version::V110)?;
        let base = Base::read(self.input)?;
        let status = RequestBody::Status { cluster: base.cluster.clone() };
        // Whatever the reason, to STATUS it is one thing: no container can be attached now.
        let unavailable = |error: CniError| match error.code {
            Code::TryAgain | Code::Io => CniError { code: Code::Unavailable, ..error },
            _ => error,
        };
        agent::ask(&base, status, None).map(|_done| String::new()).map_err(unavailable)
    }

    fn key(&self, base: &Base) -> Result<AttachmentKey, CniError> {
        Ok(AttachmentKey {
            runtime: base.runtime(),
            container: self.environment.container()?.to_owned(),
            interface: self.environment.interface()?.to_owned(),
        })
    }

    fn since(&self, first: Version) -> Result<(), CniError> {
        if self.version >= first {
            return Ok(());
        }
        let message = format!("{} does not exist in CNI {}", self.environment.command, self.version);
        Err(CniError::new(Code::Version, message, format!("set cniVersion to {first} or newer")))
    }
}

/// Attaches with the first of the wanted addresses that the node can give.
///
/// More than one of a family comes from `podman network reload`, which names the address once asked for and the one that
/// was given: whichever is ours is meant.
fn attach_first(
    base: &Base,
    attach: &Attach,
    wanted: &[IpAddr],
    netns: BorrowedFd<'_>,
) -> Result<Attached, CniError> {
    let mut choices = choices(wanted).into_iter();
    let mut addresses = choices.next().unwrap_or_default();
    loop {
        let failed = match agent::attach(base, Attach { addresses, ..attach.clone() }, netns) {
            Ok(attached) => return Ok(attached),
            Err(error) => error,
        };
        match choices.next() {
            Some(next) if failed.code == Code::Config => addresses = next,
            _ => return Err(failed),
        }
    }
}

/// Sets of at most one address of each family, in the order in which they are to be tried.
fn choices(wanted: &[IpAddr]) -> Vec<Vec<IpAddr>> {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = wanted.iter().partition(|address| address.is_ipv4());
    let pick = |family: &[IpAddr], index: usize| family.get(index).or(family.last()).copied();
    let count = v4.len().max(v6.len());
    (0..count).map(|index| [pick(&v4, index), pick(&v6, index)].into_iter().flatten().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_of_each_family_is_asked_for_at_a_time() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(choices(&[]).is_empty());
        let tried = choices(&[ip("10.0.0.1"), ip("10.0.0.2"), ip("fd00::1")]);
        assert_eq!(tried, [vec![ip("10.0.0.1"), ip("fd00::1")], vec![ip("10.0.0.2"), ip("fd00::1")]]);
    }
}
