//! Routes as the API shows them, and as it takes them.

use super::{
    api::{self, nlri::Nlri},
    attributes, family, proto, read_family,
    service::read_neighbor,
    timestamp,
};
use crate::interface;
use crate::view::{DestinationView, Lookup, PathView, Table};
use isthmus_bgp::{Attributes, Family, PathId, Prefix};
use std::net::{IpAddr, Ipv4Addr};
use tonic::Status;
use uuid::Uuid;

/// A prefix and the paths to it.
pub(super) fn show_destination(view: &DestinationView, table: Table) -> api::Destination {
    let paths = view.paths.iter().map(|path| show(path, table)).collect();
    api::Destination { prefix: view.prefix.to_string(), paths }
}

/// One path.
pub(super) fn show(view: &PathView, table: Table) -> api::Path {
    let is_sent = matches!(table, Table::AdjOut(_));
    let source = view.source;
    api::Path {
        nlri: Some(attributes::nlri(view.prefix)),
        pattrs: attributes::show(&view.attributes, view.prefix),
        age: view.received_at.map(timestamp),
        best: view.best,
        is_withdraw: view.withdrawn,
        no_implicit_withdraw: false,
        family: Some(family(view.prefix.family())),
        source_asn: source.map_or(0, |source| source.asn.0),
        source_id: source.map(|source| source.router_id.to_string()).unwrap_or_default(),
        filtered: view.filtered,
        stale: view.stale,
        is_from_external: source.is_some_and(|source| source.external),
        neighbor_ip: source.map_or_else(|| "<nil>".to_owned(), |source| interface::shown(source.address)),
        uuid: view.uuid.map(|uuid| uuid.as_bytes().to_vec()).unwrap_or_default(),
        is_nexthop_invalid: view.unresolved,
        identifier: if is_sent { 0 } else { view.path_id.0 },
        local_identifier: if is_sent { view.path_id.0 } else { 0 },
    }
}

/// Reads the prefix of a path that a client adds or takes away, with the client's number for the path.
pub(super) fn read_nlri(path: &api::Path) -> Result<isthmus_bgp::Nlri, Status> {
    let nlri = path.nlri.as_ref().ok_or_else(|| Status::invalid_argument("the path has no prefix"))?;
    let Some(Nlri::Prefix(shown)) = &nlri.nlri else {
        return Err(Status::unimplemented("only paths to IP prefixes are spoken here"));
    };
    let (address, len) = (shown.prefix.parse::<IpAddr>(), u8::try_from(shown.prefix_len));
    let prefix = address.ok().zip(len.ok()).and_then(|(address, len)| Prefix::new(address, len));
    let prefix = prefix.ok_or_else(|| {
        Status::invalid_argument(format!("{}/{} is no prefix", shown.prefix, shown.prefix_len))
    })?;
    if path.family.is_some() && read_family(path.family)? != prefix.family() {
        return Err(Status::invalid_argument(format!("{prefix} is of another family than the path says")));
    }
    Ok(isthmus_bgp::Nlri { prefix, path_id: PathId(number(path)) })
}

/// What tells several paths of ours to one prefix apart: the client's number, or as in GoBGP the router id of the speaker that
/// the path is said to be from, as `gobgp mrt inject` says it.
fn number(path: &api::Path) -> u32 {
    match (path.identifier, path.source_id.parse::<Ipv4Addr>()) {
        (0, Ok(source)) => source.to_bits(),
        (identifier, _) => identifier,
    }
}

/// Reads a path that a client adds.
pub(super) fn read(path: &api::Path) -> Result<(isthmus_bgp::Nlri, Attributes), Status> {
    let nlri = read_nlri(path)?;
    let prefix = nlri.prefix;
    let read = attributes::read(&path.pattrs)?;
    match (prefix.family(), read.next_hop.map(|next_hop| Family::of(next_hop.address()))) {
        // RFC 8950 lets IPv4 have an IPv6 next hop; the other way round has no form on the wire.
        (Family::Ipv6Unicast, Some(Family::Ipv4Unicast)) => {
            Err(Status::invalid_argument(format!("{prefix} cannot have an IPv4 next hop")))
        }
        _ => Ok((nlri, read)),
    }
}

/// Which table a request means.
pub(super) fn read_table(table_type: i32, name: &str) -> Result<Table, Status> {
    let neighbor = || read_neighbor(name);
    match proto::TableType::try_from(table_type) {
        Ok(proto::TableType::Global) => Ok(Table::Global),
        Ok(proto::TableType::AdjIn) => neighbor().map(Table::AdjIn),
        Ok(proto::TableType::AdjOut) => neighbor().map(Table::AdjOut),
        Ok(proto::TableType::Local) => {
            let text = "no neighbour has a table of its own: route server clients are not served yet";
            Err(Status::unimplemented(text))
        }
        Ok(proto::TableType::Vrf) => Err(Status::unimplemented("there is only the global table here")),
        Err(_) => Err(Status::invalid_argument(format!("there is no table of type {table_type}"))),
    }
}

/// Which prefixes a request means. GoBGP takes an address for the narrowest prefix that holds it.
pub(super) fn read_lookup(lookup: &proto::TableLookupPrefix) -> Result<Lookup, Status> {
    use proto::table_lookup_prefix::Type;
    let text = &lookup.prefix;
    let kind = Type::try_from(lookup.r#type).unwrap_or(Type::Exact);
    if let (Ok(address), Type::Exact) = (text.parse::<IpAddr>(), kind) {
        return Ok(Lookup::Covering(address));
    }
    let address = text.parse::<IpAddr>().ok();
    let whole = address.and_then(|address| Prefix::new(address, Family::of(address).bits()));
    let prefix = whole.or_else(|| text.parse().ok());
    let prefix = prefix
        .ok_or_else(|| Status::invalid_argument(format!("\"{text}\" is neither a prefix nor an address")))?;
    Ok(match kind {
        Type::Exact => Lookup::Exact(prefix),
        Type::Longer => Lookup::Longer(prefix),
        Type::Shorter => Lookup::Shorter(prefix),
    })
}

/// Reads the name of a path that was put in through the API; none where it is empty.
pub(super) fn read_uuid(bytes: &[u8]) -> Result<Option<Uuid>, Status> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Uuid::from_slice(bytes).map(Some).map_err(|_why| {
        Status::invalid_argument(format!("a path's name has 16 bytes, and this one {}", bytes.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::api::attribute::Attr, *};

    fn path(text: &str, attr: Option<Attr>) -> api::Path {
        let pattrs = attr.map(|attr| api::Attribute { attr: Some(attr) }).into_iter().collect();
        api::Path { nlri: Some(attributes::nlri(text.parse().unwrap())), pattrs, ..api::Path::default() }
    }

    fn lookup(text: &str, kind: i32) -> Result<Lookup, Status> {
        read_lookup(&proto::TableLookupPrefix { prefix: text.to_owned(), r#type: kind })
    }

    #[test]
    fn a_path_is_read_with_its_prefix_and_number() {
        let numbered = api::Path { identifier: 7, ..path("10.0.0.0/24", None) };
        let (nlri, attributes) = read(&numbered).unwrap();
        assert_eq!((nlri.prefix.to_string().as_str(), nlri.path_id), ("10.0.0.0/24", PathId(7)));
        assert_eq!(attributes.next_hop, None);
    }

    #[test]
    fn a_path_that_cannot_be_is_refused() {
        let long = proto::IpAddressPrefix { prefix_len: 33, prefix: "10.0.0.0".to_owned() };
        let nlri = |nlri| api::Path { nlri: Some(api::Nlri { nlri }), ..api::Path::default() };
        let next_hop = Attr::NextHop(proto::NextHopAttribute { next_hop: "192.0.2.1".to_owned() });
        let six = Some(proto::Family { afi: 2, safi: 1 });
        for (bad, why) in [
            (api::Path::default(), "no prefix"),
            (nlri(Some(Nlri::Prefix(long))), "10.0.0.0/33 is no prefix"),
            (nlri(None), "only paths to IP prefixes"),
            (path("2001:db8::/32", Some(next_hop)), "IPv4 next hop"),
            (api::Path { family: six, ..path("10.0.0.0/24", None) }, "another family"),
        ] {
            let status = read(&bad).unwrap_err();
            assert!(status.message().contains(why), "{status}");
        }
    }

    #[test]
    fn an_address_means_the_narrowest_prefix_around_it() {
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(lookup("10.0.0.1", 0).unwrap(), Lookup::Covering(address));
        assert_eq!(lookup("10.0.0.0/8", 0).unwrap(), Lookup::Exact("10.0.0.0/8".parse().unwrap()));
        assert_eq!(lookup("10.0.0.0/8", 1).unwrap(), Lookup::Longer("10.0.0.0/8".parse().unwrap()));
        assert_eq!(lookup("10.0.0.1", 2).unwrap(), Lookup::Shorter("10.0.0.1/32".parse().unwrap()));
        assert!(lookup("x", 0).unwrap_err().message().contains("neither a prefix nor an address"));
    }

    #[test]
    fn tables_need_a_neighbour_where_they_are_its() {
        assert_eq!(read_table(0, "").unwrap(), Table::Global);
        assert_eq!(read_table(2, "192.0.2.1").unwrap(), Table::AdjIn("192.0.2.1".parse().unwrap()));
        assert_eq!(read_table(3, "192.0.2.1").unwrap(), Table::AdjOut("192.0.2.1".parse().unwrap()));
        for (kind, name) in [(2, ""), (1, "192.0.2.1"), (4, "v"), (9, "")] {
            assert!(read_table(kind, name).is_err(), "{kind}");
        }
    }

    #[test]
    fn a_name_has_sixteen_bytes() {
        assert_eq!(read_uuid(&[]).unwrap(), None);
        assert!(read_uuid(&[0; 16]).unwrap().is_some());
        assert!(read_uuid(&[0; 15]).is_err());
    }
}
