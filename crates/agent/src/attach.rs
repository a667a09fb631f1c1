//! Putting containers on the network and taking them off: what the adapters ask for.
//!
//! | attach | undone on failure by |
//! | --- | --- |
//! | 1. resolve the workload (memory or server) | nothing to undo |
//! | 2. reserve ports of the node | releasing them |
//! | 3. allocate the address; the journal's sync runs beside the next steps | releasing it |
//! | 4. load the rules towards the identity, if they are not loaded | they stay for a grace |
//! | 5. make the link | removing it |
//! | 6. wait for the journal; make the ports known; answer | all of the above |
//!
//! A crash at any point leaves either a link that the journal does not know, which the next agent removes before it
//! serves anybody, or an address without a link, which is released when its namespace is gone. Detach goes the other way
//! round: maps and link first, the address last.

use crate::{
    addresses::Ticket,
    agent::{Agent, fail, is_whole, unix_now},
    attachment::{Attachment, Detail, State, check_key, id, parse_mac},
    kernel::{Fault, KernelError},
    netns,
    reconcile::place,
    view::Resolved,
};
use isthmus_api::{
    adapter::{Attach, Attached, AttachmentKey, Check, Collect, Failure, FailureKind, PortMapping},
    stream::{self, from_agent},
};
use isthmus_core::ClusterName;
use isthmus_dataplane::model::{Link, LinkRequest};
use isthmus_ipam::{AllocateError, Family, Owner, Request};
use std::{
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

/// How often an attach leases a block that others then fill before it gets an address.
const LEASE_ATTEMPTS_MAX: usize = 4;

/// An attach whose words are all valid.
struct Plan {
    id: String,
    owner: Owner,
    request: Attach,
    cluster: ClusterName,
    wanted: Option<IpAddr>,
    mac: Option<[u8; 6]>,
    netns: u64,
}

impl Agent {
    /// Puts a container on the network. The same call again gives the same answer if the link is whole, and makes it anew
    /// if not.
    pub(crate) fn attach(self: &Arc<Self>, request: Attach, netns: &OwnedFd) -> Result<Attached, Failure> {
        let plan = self.plan(request, netns)?;
        let _busy = self.busy.lock(&plan.id);
        if let Some(answer) = self.attached_already(&plan)? {
            return Ok(answer);
        }
        let wanted = plan.wanted.or_else(|| self.attachments().get(&plan.id).map(|before| before.address));
        self.take_down(&plan.id)?;
        let attached = self.build(&plan, wanted, netns);
        match attached {
            Ok(attachment) => Ok(self.announce(&plan.id, attachment)),
            Err(failure) => {
                self.undo(&plan);
                Err(failure)
            }
        }
    }

    fn plan(&self, request: Attach, netns: &OwnedFd) -> Result<Plan, Failure> {
        check_key(&request.key)?;
        let cluster = self.cluster(&request.cluster)?;
        if request.workload.id.is_empty() || request.workload.app.is_empty() {
            let message = "the container's workload has no id or no name";
            return Err(fail(FailureKind::Invalid, message, "this is a fault of the adapter: report it"));
        }
        let wanted = match request.addresses.as_slice() {
            [] => None,
            [one @ IpAddr::V4(_)] => Some(*one),
            other => {
                let message = format!("{other:?} cannot be given: a container has one IPv4 address");
                return Err(fail(FailureKind::Invalid, message, "ask for one IPv4 address, or for none"));
            }
        };
        let mac = request.mac.as_deref().filter(|mac| !mac.is_empty());
        let parsed = mac.map(|text| {
            let wrong = || format!("\"{text}\" is no MAC address of one interface");
            parse_mac(text)
                .ok_or_else(|| fail(FailureKind::Invalid, wrong(), "write it as 02:00:5e:10:00:01"))
        });
        let system =
            |error: std::io::Error| fail(FailureKind::System, error.to_string(), "see the agent's log");
        let id = id(&request.key);
        let owner = Owner::new(id.clone())
            .map_err(|error| fail(FailureKind::Invalid, error.to_string(), "use shorter names"))?;
        let mac = parsed.transpose()?;
        Ok(Plan { id, owner, cluster, wanted, mac, netns: netns::inode(netns).map_err(system)?, request })
    }

    /// The answer for a call that was made before, if what it made is whole.
    fn attached_already(&self, plan: &Plan) -> Result<Option<Attached>, Failure> {
        let Some(before) = self.attachments().get(&plan.id).cloned() else { return Ok(None) };
        if !is_whole(&before) || before.netns != plan.netns || before.request != plan.request {
            return Ok(None);
        }
        let links = self.kernel.links().map_err(|error| system(&error))?;
        let whole = links.iter().any(|link| is_link_of(link, &before) && link.whole);
        Ok(whole.then(|| before.answer(self.kernel.mtu(), self.tunnel_address)))
    }

    /// Removes what an earlier attach of the same key left, but for its address.
    fn take_down(&self, id: &str) -> Result<(), Failure> {
        let Some(before) = self.attachments().get(id).cloned() else { return Ok(()) };
        self.kernel.detach(&before.host_interface, before.address).map_err(|error| system(&error))?;
        self.ports.release(id);
        Ok(())
    }

    fn build(
        self: &Arc<Self>,
        plan: &Plan,
        wanted: Option<IpAddr>,
        netns: &OwnedFd,
    ) -> Result<Attachment, Failure> {
        let (resolved, confirmed) = self.resolve(&plan.cluster, &plan.request.workload)?;
        let ports = self.ports.reserve(&plan.id, &plan.request.port_mappings)?;
        let mut attachment = self.draft(plan, &resolved, confirmed, ports);
        let (address, ticket) = self.allocate(plan, wanted, &Detail::of(&attachment))?;
        attachment.address = address;
        self.attachments().insert(plan.id.clone(), attachment.clone());
        self.ensure_table(resolved.identity, plan.cluster.as_str())?;
        let request = LinkRequest {
            host_interface: attachment.host_interface.clone(),
            interface: plan.request.key.interface.clone(),
            address,
            mac: plan.mac,
            identity: resolved.identity,
        };
        let link = self.kernel.attach(netns.as_fd(), &request).map_err(|error| system(&error))?;
        attachment.mac = link.mac;
        ticket.wait().map_err(|error| self.journal_failed(&error.to_string()))?;
        self.problems.set("journal", None);
        if !attachment.ports.is_empty() {
            self.publish_ports().map_err(|error| system(&error))?;
        }
        attachment.state = State::Whole;
        Ok(attachment)
    }

    fn draft(
        &self,
        plan: &Plan,
        resolved: &Resolved,
        confirmed: bool,
        ports: Vec<PortMapping>,
    ) -> Attachment {
        let AttachmentKey { runtime, container, interface } = &plan.request.key;
        Attachment {
            request: plan.request.clone(),
            cluster: plan.cluster.clone(),
            address: IpAddr::from([0, 0, 0, 0]),
            identity: resolved.identity,
            uuid: resolved.uuid.clone(),
            confirmed,
            host_interface: self.kernel.link_name(runtime, container, interface),
            mac: [0; 6],
            netns: plan.netns,
            ports,
            created_unix: unix_now().as_secs(),
            state: State::Attaching,
        }
    }

    /// Gives the container its address: the one that it had, the one that it wants, or any.
    fn allocate(
        self: &Arc<Self>,
        plan: &Plan,
        wanted: Option<IpAddr>,
        detail: &[u8],
    ) -> Result<(IpAddr, Ticket), Failure> {
        let mut avoid = self.kernel.borrowed();
        if let Some(before) = self.attachments().get(&plan.id) {
            // What it has it keeps, whoever says to have it too.
            avoid.remove(&before.address);
        }
        for _ in 0..LEASE_ATTEMPTS_MAX {
            let request = Request {
                owner: plan.owner.clone(),
                cluster: plan.cluster.clone(),
                family: Family::V4,
                wanted,
                avoid: avoid.clone(),
                detail: detail.to_vec(),
            };
            let (allocated, ticket) = self.addresses.change(|ipam| {
                ipam.release(&plan.owner);
                ipam.allocate(request)
            });
            match allocated {
                Ok(address) => {
                    self.lease_ahead(&plan.cluster);
                    return Ok((address, ticket));
                }
                Err(AllocateError::NoRoom { .. }) => self.lease_block(&plan.cluster)?,
                Err(error) => {
                    let help = format!("see: isthmus ipam show --cluster {}", plan.cluster);
                    return Err(fail(FailureKind::Invalid, error.to_string(), help));
                }
            }
        }
        let message = format!("others took all addresses of cluster {} on this node meanwhile", plan.cluster);
        Err(fail(FailureKind::TryAgain, message, "try again"))
    }

    fn announce(&self, id: &str, attachment: Attachment) -> Attached {
        let answer = attachment.answer(self.kernel.mtu(), self.tunnel_address);
        let body = from_agent::Body::Endpoint(attachment.endpoint());
        tracing::info!(
            endpoint = %id, address = %attachment.address, identity = %attachment.identity, "endpoint attached"
        );
        let mut attachments = self.attachments();
        attachments.insert(id.to_owned(), attachment);
        // Under the lock, so that the server hears it after the whole list that lacks it.
        self.link.tell(body);
        answer
    }

    /// Leaves nothing of an attach that failed.
    fn undo(&self, plan: &Plan) {
        let before = self.attachments().get(&plan.id).cloned();
        if let Some(attachment) = before
            && let Err(error) = self.kernel.detach(&attachment.host_interface, attachment.address)
        {
            // The address stays with its link; the reconciler or the runtime's DEL gets both.
            tracing::warn!(endpoint = %plan.id, %error, "a link that failed cannot be removed yet");
            if let Some(kept) = self.attachments().get_mut(&plan.id) {
                kept.state = State::Broken { gone_since: None };
            }
            return;
        }
        self.forget(&plan.id, &plan.owner).forget();
    }

    /// Forgets an attachment whose link is gone.
    fn forget(&self, id: &str, owner: &Owner) -> Ticket {
        self.ports.release(id);
        self.problems.set(&place(id), None);
        let had_ports = {
            let mut attachments = self.attachments();
            let gone = attachments.remove(id);
            if gone.is_some() {
                self.link.tell(from_agent::Body::EndpointGone(stream::EndpointGone { id: id.to_owned() }));
            }
            gone.is_some_and(|gone| !gone.ports.is_empty())
        };
        if had_ports && let Err(error) = self.publish_ports() {
            self.problems.set("ports", Some(format!("ports of the node are not the newest: {error}")));
        }
        self.addresses.change(|ipam| ipam.release(owner)).1
    }

    fn journal_failed(&self, why: &str) -> Failure {
        self.problems.set("journal", Some(why.to_owned()));
        fail(
            FailureKind::System,
            format!("error[ISE-0505]: {why}"),
            "free space on the disk; see: isthmus help ISE-0505",
        )
    }

    /// Takes a container off the network. Succeeds when there is nothing.
    pub(crate) fn detach(&self, key: &AttachmentKey) -> Result<(), Failure> {
        check_key(key)?;
        let id = id(key);
        let _busy = self.busy.lock(&id);
        let owner =
            Owner::new(id.clone()).map_err(|error| fail(FailureKind::Invalid, error.to_string(), ""))?;
        let before = self.attachments().get(&id).cloned();
        let Some(before) = before else { return self.detach_unknown(key, &owner) };
        self.kernel.detach(&before.host_interface, before.address).map_err(|error| system(&error))?;
        let released = self.forget(&id, &owner).wait();
        // The link is gone, and an address that the journal still has is released at the next look.
        self.problems.set("journal", released.err().map(|error| error.to_string()));
        tracing::info!(endpoint = %id, address = %before.address, "endpoint detached");
        Ok(())
    }

    /// Cleans what a crash may have left of an attachment that is not known.
    fn detach_unknown(&self, key: &AttachmentKey, owner: &Owner) -> Result<(), Failure> {
        let name = self.kernel.link_name(&key.runtime, &key.container, &key.interface);
        let links = self.kernel.links().map_err(|error| system(&error))?;
        for link in links.iter().filter(|link| link.host_interface == name) {
            self.kernel.detach(&link.host_interface, link.address).map_err(|error| system(&error))?;
        }
        self.addresses.change(|ipam| ipam.release(owner)).1.forget();
        Ok(())
    }

    /// Is an attachment as it was made?
    pub(crate) fn check(&self, check: &Check) -> Result<(), Failure> {
        check_key(&check.key)?;
        let id = id(&check.key);
        let _busy = self.busy.lock(&id);
        let Some(attachment) = self.attachments().get(&id).cloned() else {
            let message = format!("{id} is not attached on node {}", self.config.node);
            return Err(fail(FailureKind::Unknown, message, "run ADD again"));
        };
        let differs = |what: String| Err(fail(FailureKind::Differs, what, "run DEL and ADD again"));
        if let Some(other) = check.addresses.iter().find(|address| **address != attachment.address) {
            return differs(format!("{id} should have {other}, but has {}", attachment.address));
        }
        let links = self.kernel.links().map_err(|error| system(&error))?;
        let Some(link) = links.iter().find(|link| is_link_of(link, &attachment)) else {
            return differs(format!("the link {} of {id} is gone", attachment.host_interface));
        };
        if !link.whole || link.identity != attachment.identity {
            return differs(format!("the link {} of {id} is not as it was made", attachment.host_interface));
        }
        Ok(())
    }

    /// Detaches what its runtime does not have any more. Goes on past failures and tells them all.
    pub(crate) fn collect(&self, collect: &Collect) -> Result<(), Failure> {
        let stale: Vec<AttachmentKey> = {
            let attachments = self.attachments();
            let keys = attachments.values().map(|attachment| &attachment.request.key);
            let of_runtime = keys.filter(|key| key.runtime == collect.runtime);
            let valid = |key: &&AttachmentKey| {
                collect
                    .valid
                    .iter()
                    .any(|(container, interface)| *container == key.container && *interface == key.interface)
            };
            of_runtime.filter(|key| !valid(key)).cloned().collect()
        };
        let failures: Vec<String> =
            stale.iter().filter_map(|key| self.detach(key).err().map(|failure| failure.message)).collect();
        if failures.is_empty() {
            return Ok(());
        }
        Err(fail(FailureKind::System, failures.join("; "), "see the agent's log"))
    }

    /// Could an attach succeed now?
    pub(crate) fn status(&self, cluster: &str) -> Result<(), Failure> {
        let cluster = self.cluster(cluster)?;
        if !self.link.is_up() && self.view().cluster(cluster.as_str()).is_none() {
            let message =
                format!("node {} has never heard of cluster {cluster} from the server", self.config.node);
            let help = format!("start the server at {}, or create the cluster", self.config.server);
            return Err(fail(FailureKind::Unavailable, message, help));
        }
        match self.problems.at("journal") {
            Some(problem) => Err(fail(FailureKind::Unavailable, problem, "see: isthmus help ISE-0505")),
            None => Ok(()),
        }
    }
}

/// Whether a link of the kernel is an attachment's.
pub(crate) fn is_link_of(link: &Link, attachment: &Attachment) -> bool {
    link.host_interface == attachment.host_interface && link.address == attachment.address
}

fn system(error: &KernelError) -> Failure {
    match error.fault {
        Fault::Caller => fail(FailureKind::Invalid, error.to_string(), "correct what the runtime asks for"),
        Fault::Full => fail(FailureKind::Unavailable, error.to_string(), "raise [limits] in agent.toml"),
        Fault::System => {
            fail(FailureKind::System, error.to_string(), "see: isthmus status, and the agent's log")
        }
    }
}
