//! The programs and their maps: pinned, and attached by links that are pinned, so that the next agent finds them, and
//! another version's programs take over without a packet seeing a gap.

use crate::{
    error::{ApplyError, OpenError},
    model::{AttachMode, Limits},
    sys::map::{Map, Plain},
};
use aya::{
    EbpfLoader,
    maps::{MapData, RingBuf},
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
    },
};
use isthmus_dataplane_common::{
    Address, BlockValue, ConfigValue, ConnectionKey, ConnectionValue, EPOCH_NONE, EndpointValue,
    LAYOUT_VERSION, MultipathValue, NodeValue, PathMtuValue, PolicyKey, PolicyValue, SampleKey, SampleValue,
    SlotValue,
};
use std::{
    collections::HashSet,
    fs, io,
    net::Ipv4Addr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Priority of our clsact filters; low enough to leave room before, so that it is found again.
const CLSACT_PRIORITY: u16 = 0x1573;
/// Handle of our clsact filters.
const CLSACT_HANDLE: u16 = 1;

/// A program and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    FromContainer,
    ToContainer,
    FromWire,
    FromOverlay,
    ToOverlay,
}

impl Hook {
    pub(crate) const ALL: [Self; 5] =
        [Self::FromContainer, Self::ToContainer, Self::FromWire, Self::FromOverlay, Self::ToOverlay];

    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::FromContainer => "from_container",
            Self::ToContainer => "to_container",
            Self::FromWire => "from_wire",
            Self::FromOverlay => "from_overlay",
            Self::ToOverlay => "to_overlay",
        }
    }

    const fn direction(self) -> TcAttachType {
        match self {
            Self::FromContainer | Self::FromWire | Self::FromOverlay => TcAttachType::Ingress,
            Self::ToContainer | Self::ToOverlay => TcAttachType::Egress,
        }
    }
}

/// Constants of the programs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Constants {
    pub(crate) vxlan_port: u16,
    pub(crate) tunnel_address: Ipv4Addr,
    pub(crate) vxlan_ifindex: u32,
}

/// The loaded programs.
pub(crate) struct Programs {
    classifiers: Mutex<Vec<(Hook, SchedClassifier)>>,
    links: PathBuf,
    versions: PathBuf,
    version: PathBuf,
    mode: AttachMode,
    /// Whether an earlier agent loaded them.
    adopted: bool,
}

/// The maps that userspace reads or writes.
pub(crate) struct Maps {
    pub(crate) endpoint_by_ifindex: Map<u32, EndpointValue>,
    pub(crate) endpoint_by_address: Map<Address, EndpointValue>,
    pub(crate) block: Map<crate::sys::map::Prefixed, BlockValue>,
    pub(crate) node: Map<Address, NodeValue>,
    pub(crate) peer: Map<Address, u32>,
    pub(crate) multipath: Map<crate::sys::map::Prefixed, MultipathValue>,
    pub(crate) path_mtu: Map<Address, PathMtuValue>,
    pub(crate) slot: Map<u32, SlotValue>,
    pub(crate) policy: Map<PolicyKey, PolicyValue>,
    pub(crate) connection_tcp: Map<ConnectionKey, ConnectionValue>,
    pub(crate) connection_other: Map<ConnectionKey, ConnectionValue>,
    pub(crate) sample: Map<SampleKey, SampleValue>,
    config: Map<u32, ConfigValue>,
    /// Held by who changes `config`, whose fields have several writers.
    config_writer: Mutex<()>,
    pub(crate) counter: Map<u32, u64>,
}

/// How many entries a map shall have; `None`: as in the object.
type Size = fn(&Limits) -> Option<u32>;

/// Maps in the object, with what limits them.
const MAPS: [(&str, Size); 16] = [
    ("ENDPOINT_BY_IFINDEX", |limits| Some(limits.endpoints)),
    ("ENDPOINT_BY_ADDRESS", |limits| Some(limits.endpoints)),
    ("BLOCK", |limits| Some(limits.blocks)),
    ("NODE", |limits| Some(limits.nodes)),
    ("PEER", |limits| Some(limits.peers)),
    ("MULTIPATH", |_| None),
    ("PATH_MTU", |_| None),
    ("SLOT", |limits| Some(limits.endpoints)),
    ("POLICY", |limits| Some(limits.policy_entries)),
    ("CONNECTION_TCP", |limits| Some(limits.connections_tcp)),
    ("CONNECTION_OTHER", |limits| Some(limits.connections_other)),
    ("FRAGMENT", |_| None),
    ("SAMPLE", |_| None),
    ("CONFIG", |_| None),
    ("COUNTER", |_| None),
    ("EVENT", |_| None),
];

/// Where a node's pins are: a directory for each version of the layout.
pub(crate) fn pins(bpffs: &Path, node: &str) -> PathBuf {
    bpffs.join(node).join(format!("v{LAYOUT_VERSION}"))
}

/// Opens the programs and maps: an earlier agent's where they are of the same object and constants, which spares the
/// verifier its second; else new programs over the pinned maps, or over new ones.
pub(crate) fn open(
    pins: &Path,
    limits: &Limits,
    constants: Constants,
    mode: AttachMode,
) -> Result<(Programs, Maps, RingBuf<MapData>), OpenError> {
    let maps_at = pins.join("maps");
    let links = pins.join("links");
    let all_programs = pins.join("programs");
    let programs_at = all_programs.join(format!("{:016x}", fingerprint(constants)));
    for directory in [&maps_at, &links, &programs_at] {
        fs::create_dir_all(directory)
            .map_err(|source| OpenError::Bpffs { path: directory.clone(), source })?;
    }
    let mut adopted = true;
    if pinned_programs(&programs_at).is_none() {
        load(&maps_at, &programs_at, limits, constants)?;
        adopted = false;
    }
    let missing =
        || ApplyError { what: "open the pinned programs".into(), source: io::ErrorKind::NotFound.into() };
    let classifiers = pinned_programs(&programs_at).ok_or_else(missing)?;
    let maps = Maps::open(&maps_at)?;
    // Before the first packet: no epoch is true of an entry that has none.
    maps.begin_epoch().map_err(ApplyError::of("begin an epoch of the connections"))?;
    let failed = |error: &dyn std::fmt::Display| ApplyError {
        what: "open the ring buffer of verdicts".into(),
        source: io::Error::other(error.to_string()),
    };
    let events = MapData::from_pin(maps_at.join("EVENT")).map_err(|error| failed(&error))?;
    let events = aya::maps::Map::from_map_data(events).map_err(|error| failed(&error))?;
    let events = RingBuf::try_from(events).map_err(|error| failed(&error))?;
    let programs = Programs {
        classifiers: Mutex::new(classifiers),
        links,
        versions: all_programs,
        version: programs_at,
        mode: settle(mode),
        adopted,
    };
    Ok((programs, maps, events))
}

/// The programs of an earlier agent, if all are there.
fn pinned_programs(directory: &Path) -> Option<Vec<(Hook, SchedClassifier)>> {
    Hook::ALL
        .iter()
        .map(|hook| Some((*hook, SchedClassifier::from_pin(directory.join(hook.program())).ok()?)))
        .collect()
}

/// Has the verifier look at the programs, and pins them and new maps.
fn load(maps_at: &Path, programs_at: &Path, limits: &Limits, constants: Constants) -> Result<(), OpenError> {
    let tunnel = u32::from_ne_bytes(constants.tunnel_address.octets());
    let mut loader = EbpfLoader::new();
    loader
        .override_global("VXLAN_PORT", &constants.vxlan_port, true)
        .override_global("TUNNEL_ADDRESS", &tunnel, true)
        .override_global("VXLAN_IFINDEX", &constants.vxlan_ifindex, true);
    for (name, limit) in MAPS {
        if let Some(entries) = limit(limits) {
            loader.map_max_entries(name, entries);
        }
        loader.map_pin_path(name, maps_at.join(name));
    }
    let mut ebpf = loader.load(object()).map_err(|source| OpenError::Object(Box::new(source)))?;
    for hook in Hook::ALL {
        let program = ebpf.program_mut(hook.program()).expect("the object has every program");
        let program: &mut SchedClassifier = program.try_into().expect("every program is a classifier");
        program
            .load()
            .map_err(|source| OpenError::Program { program: hook.program(), source: Box::new(source) })?;
        let pin = programs_at.join(hook.program());
        // Left by an agent that was killed between two pins.
        let _ = fs::remove_file(&pin);
        program
            .pin(&pin)
            .map_err(io::Error::other)
            .map_err(ApplyError::of(format!("pin {}", hook.program())))?;
    }
    Ok(())
}

/// Tells one object with its constants from another: FNV-1a, 64 bits.
fn fingerprint(constants: Constants) -> u64 {
    let constants = format!("{constants:?}");
    let bytes = object().iter().chain(constants.as_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The object, aligned as its reader needs it.
fn object() -> &'static [u8] {
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/isthmus-ebpf"))
}

/// tcx if it is asked for or, where the choice is ours, if the kernel has it: a query of the loopback's hook tells.
fn settle(mode: AttachMode) -> AttachMode {
    match mode {
        AttachMode::Auto => match SchedClassifier::query_tcx("lo", TcAttachType::Ingress) {
            Ok(_) => AttachMode::Tcx,
            Err(_) => AttachMode::Clsact,
        },
        chosen => chosen,
    }
}

impl Maps {
    fn open(directory: &Path) -> Result<Self, ApplyError> {
        Ok(Self {
            endpoint_by_ifindex: map(directory, "ENDPOINT_BY_IFINDEX")?,
            endpoint_by_address: map(directory, "ENDPOINT_BY_ADDRESS")?,
            block: map(directory, "BLOCK")?,
            node: map(directory, "NODE")?,
            peer: map(directory, "PEER")?,
            multipath: map(directory, "MULTIPATH")?,
            path_mtu: map(directory, "PATH_MTU")?,
            slot: map(directory, "SLOT")?,
            policy: map(directory, "POLICY")?,
            connection_tcp: map(directory, "CONNECTION_TCP")?,
            connection_other: map(directory, "CONNECTION_OTHER")?,
            sample: map(directory, "SAMPLE")?,
            config: map(directory, "CONFIG")?,
            config_writer: Mutex::new(()),
            counter: map(directory, "COUNTER")?,
        })
    }
}

impl Maps {
    /// What programs read beside the maps.
    pub(crate) fn config(&self) -> io::Result<ConfigValue> {
        Ok(self.config.value(&0)?.unwrap_or_default())
    }

    /// Changes what programs read beside the maps.
    pub(crate) fn change_config(&self, change: impl FnOnce(&mut ConfigValue)) -> io::Result<()> {
        let _writer = self.config_writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut config = self.config()?;
        change(&mut config);
        self.config.set(&0, &config)
    }

    /// Has every connection judged again, and learn again where it leads: behind each change of what it was judged by.
    pub(crate) fn begin_epoch(&self) -> io::Result<()> {
        self.change_config(|config| {
            config.epoch = config.epoch.wrapping_add(1);
            if config.epoch == EPOCH_NONE {
                config.epoch += 1;
            }
        })
    }
}

/// A typed handle of a pinned map; the types stand in `crates/ebpf/src/maps.rs`.
fn map<K: Plain, V: Plain>(directory: &Path, name: &str) -> Result<Map<K, V>, ApplyError> {
    let what = || format!("open the map {name}");
    let data = MapData::from_pin(directory.join(name))
        .map_err(|error| ApplyError { what: what(), source: io::Error::other(error.to_string()) })?;
    let fd = data.fd().as_fd().try_clone_to_owned().map_err(ApplyError::of(what()))?;
    Ok(Map::new(fd))
}

impl Programs {
    /// How programs are attached.
    pub(crate) fn mode(&self) -> AttachMode {
        self.mode
    }

    /// Attaches a program, or replaces an earlier agent's without a gap.
    pub(crate) fn attach(&self, hook: Hook, interface: &str) -> io::Result<()> {
        let mut classifiers = self.classifiers.lock().unwrap_or_else(PoisonError::into_inner);
        let program = classifiers.iter_mut().find(|(of, _)| *of == hook).map(|(_, program)| program);
        let program = program.expect("there is one for each hook");
        match self.mode {
            AttachMode::Clsact => attach_clsact(program, hook, interface),
            AttachMode::Auto | AttachMode::Tcx => {
                attach_tcx(program, hook, interface, &self.pin(hook, interface))
            }
        }
    }

    /// Forgets the programs of earlier agents, which nothing runs any more.
    pub(crate) fn forget_earlier(&self) {
        for directory in self.earlier() {
            let _ = fs::remove_dir_all(directory);
        }
    }

    fn earlier(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.versions) else { return Vec::new() };
        entries.flatten().map(|entry| entry.path()).filter(|path| *path != self.version).collect()
    }

    /// The interfaces, as pins name them, that have these programs already: an agent took all over, and none of another
    /// version came after it, which would have left its own.
    pub(crate) fn taken_over(&self) -> HashSet<String> {
        if self.adopted && self.mode == AttachMode::Tcx && self.earlier().is_empty() {
            // The second of both hooks that are attached.
            self.pinned(Hook::ToContainer)
        } else {
            HashSet::new()
        }
    }

    /// Interfaces, as pins name them, whose link of a hook is pinned.
    fn pinned(&self, hook: Hook) -> HashSet<String> {
        let Ok(entries) = fs::read_dir(&self.links) else { return HashSet::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let pairs =
            names.filter_map(|name| name.split_once('+').map(|(of, i)| (of == hook.program(), i.to_owned())));
        pairs.filter_map(|(this, interface)| this.then_some(interface)).collect()
    }

    /// Programs of others on the interface's hooks, told from ours by their number: anybody may use our names.
    pub(crate) fn foreign(&self, interface: &str) -> Vec<String> {
        let classifiers = self.classifiers.lock().unwrap_or_else(PoisonError::into_inner);
        let ours: Vec<_> =
            classifiers.iter().filter_map(|(_, program)| Some(program.info().ok()?.id())).collect();
        let mut found = Vec::new();
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            let Ok((_, programs)) = SchedClassifier::query_tcx(interface, direction) else { continue };
            let theirs = programs.iter().filter(|program| !ours.contains(&program.id()));
            found.extend(
                theirs.map(|program| program.name_as_str().unwrap_or("a program without a name").to_owned()),
            );
        }
        found
    }

    /// Where the links are pinned.
    pub(crate) fn pins(&self) -> Pins {
        Pins { links: self.links.clone() }
    }

    /// Whether the program is on the interface.
    pub(crate) fn attached(&self, hook: Hook, interface: &str) -> bool {
        match self.mode {
            // A filter cannot vanish without its interface but by hand; the next attach replaces it.
            AttachMode::Clsact => true,
            AttachMode::Auto | AttachMode::Tcx => self.pin(hook, interface).exists(),
        }
    }

    /// Names of the interfaces that have pinned links.
    pub(crate) fn pinned_interfaces(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.links) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<_> =
            names.filter_map(|name| name.split_once('+').map(|(_, i)| i.to_owned())).collect();
        names.sort();
        names.dedup();
        names
    }

    fn pin(&self, hook: Hook, interface: &str) -> PathBuf {
        pin(&self.links, hook, interface)
    }
}

/// Where the links are pinned.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    links: PathBuf,
}

impl Pins {
    /// Forgets the links of an interface that is gone. Not before: without its programs an interface lets everything pass.
    pub(crate) fn forget(&self, interface: &str) {
        for hook in Hook::ALL {
            let _ = fs::remove_file(pin(&self.links, hook, interface));
        }
    }
}

fn pin(links: &Path, hook: Hook, interface: &str) -> PathBuf {
    links.join(format!("{}+{}", hook.program(), pin_name(interface)))
}

/// An interface's name as pins have it: it may have dots, which the BPF file system refuses.
pub(crate) fn pin_name(interface: &str) -> String {
    interface.replace('.', "_")
}

fn attach_tcx(program: &mut SchedClassifier, hook: Hook, interface: &str, pin: &Path) -> io::Result<()> {
    if pin.exists() {
        let pinned = PinnedLink::from_pin(pin).map_err(io::Error::other)?;
        let link = SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(io::Error::other)?;
        // ENOLINK: the interface of that link is gone, and this one only has its name.
        if let Ok(id) = program.attach_to_link(link) {
            // Taken out, so that dropping the program later does not touch it.
            let _ = program.take_link(id);
            return Ok(());
        }
        fs::remove_file(pin)?;
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(interface, hook.direction(), options).map_err(io::Error::other)?;
    let link = program.take_link(id).map_err(io::Error::other)?;
    let link = FdLink::try_from(link).map_err(io::Error::other)?;
    link.pin(pin).map_err(io::Error::other)?;
    Ok(())
}

fn attach_clsact(program: &mut SchedClassifier, hook: Hook, interface: &str) -> io::Result<()> {
    // It may be there already: ours, or another's; both are shared.
    let _ = tc::qdisc_add_clsact(interface);
    let handle = TcHandle::new(0, CLSACT_HANDLE);
    let earlier = SchedClassifierLink::attached(interface, hook.direction(), CLSACT_PRIORITY, handle, None)?;
    // Replaces our filter in place if there is one; a new one is made only where there is none.
    if let Ok(id) = program.attach_to_link(earlier) {
        forget_link(program, id);
        return Ok(());
    }
    let options = NlOptions { priority: CLSACT_PRIORITY, handle, classid: None };
    let options = TcAttachOptions::Netlink(options);
    let id = program.attach_with_options(interface, hook.direction(), options).map_err(io::Error::other)?;
    forget_link(program, id);
    Ok(())
}

/// A filter has no descriptor: dropping its link would remove it.
fn forget_link(program: &mut SchedClassifier, id: tc::SchedClassifierLinkId) {
    if let Ok(link) = program.take_link(id) {
        std::mem::forget(link);
    }
}

/// Removes our clsact filters from an interface.
pub(crate) fn remove_filters(interface: &str) {
    for hook in Hook::ALL {
        let _ = tc::qdisc_detach_program(interface, hook.direction(), hook.program());
    }
}
