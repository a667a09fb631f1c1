//! Reading kinds: `GET` of a list and of one object.

use super::{App, Refusal, Shared, documents, extract::Params};
use crate::{problem::Code, registry::resolve_name, view::View};
use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::header;
use ipnet::IpNet;
use isthmus_api::rest::{
    BgpPeerSpec, BlockSpec, ClusterSpec, EndpointSpec, IdentitySpec, List, NodeSpec, PolicySpec, PoolSpec,
    Resource, WorkloadSpec,
};
use isthmus_core::{Identity, Labels};
use serde::Serialize;
use std::ops::Bound;
use uuid::Uuid;

/// Objects on a page unless told otherwise.
const PAGE: usize = 1_000;
/// Objects on a page at most.
const PAGE_MAX: usize = 10_000;

/// A kind that can be read.
pub(super) trait Kind {
    type Spec: Serialize + Send + 'static;
    /// The kind's name.
    const KIND: &'static str;
    /// Parameters besides those of every list.
    const FILTERS: &'static [&'static str] = &[];

    /// Cursors of all objects behind `after`, in order.
    fn cursors<'a>(
        view: &'a View,
        after: Option<&str>,
    ) -> Result<Box<dyn Iterator<Item = String> + 'a>, Refusal>;

    /// The object with a cursor, or as people name it in a path.
    fn object(
        app: &App,
        view: &View,
        name: &str,
        params: &Params,
    ) -> Result<Option<Resource<Self::Spec>>, Refusal>;

    /// Whether an object passes the kind's own filters.
    fn passes(_object: &Resource<Self::Spec>, _params: &Params) -> bool {
        true
    }
}

/// `GET /KINDS?limit=&after=&labelSelector=`
pub(super) async fn list<K: Kind>(State(app): Shared, params: Params) -> Result<Response, Refusal> {
    let mut known = vec!["limit", "after", "labelSelector"];
    known.extend(K::FILTERS);
    let params = params.only(&known)?;
    let limit = params.read::<usize>("limit")?.unwrap_or(PAGE);
    if limit == 0 || limit > PAGE_MAX {
        return Err(Refusal::bad(format!("limit={limit} is not from 1 to {PAGE_MAX}")));
    }
    let selector = Selector::read(params.text("labelSelector").unwrap_or_default())?;
    let view = app.registry.fresh_view().await?;
    let mut items = Vec::new();
    let mut last = None;
    let mut more = false;
    for cursor in K::cursors(&view, params.text("after"))? {
        let Some(object) = K::object(&app, &view, &cursor, &params)? else { continue };
        if !selector.selects(&object.labels) || !K::passes(&object, &params) {
            continue;
        }
        if items.len() == limit {
            more = true;
            break;
        }
        items.push(object);
        last = Some(cursor);
    }
    let page = List { revision: view.revision, items, next: last.filter(|_| more) };
    drop(view);
    Ok(Json(page).into_response())
}

/// `GET /KINDS/NAME`
pub(super) async fn one<K: Kind>(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, Refusal> {
    let params = params.only(K::FILTERS)?;
    let view = app.registry.fresh_view().await?;
    let object = K::object(&app, &view, &name, &params)?.ok_or_else(|| Refusal::missing(K::KIND, &name))?;
    drop(view);
    Ok(with_etag(&object))
}

/// An object with its `ETag`.
pub(super) fn with_etag<S: Serialize>(object: &Resource<S>) -> Response {
    ([(header::ETAG, format!("\"{}\"", object.revision))], Json(object)).into_response()
}

type Cursors<'a> = Result<Box<dyn Iterator<Item = String> + 'a>, Refusal>;

fn behind<T: Ord>(after: Option<T>) -> (Bound<T>, Bound<T>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

fn cursor<T: std::str::FromStr>(after: Option<&str>) -> Result<Option<T>, Refusal> {
    let bad = |text: &str| Refusal::bad(format!("after={text} is no cursor: pass `next` of the page before"));
    after.map(|text| text.parse().map_err(|_why| bad(text))).transpose()
}

pub(super) struct Clusters;

impl Kind for Clusters {
    type Spec = ClusterSpec;
    const KIND: &'static str = "cluster";

    fn cursors<'a>(view: &'a View, after: Option<&str>) -> Cursors<'a> {
        Ok(Box::new(view.clusters.range(behind(after.map(str::to_owned))).map(|(name, _)| name.clone())))
    }

    fn object(
        _: &App,
        view: &View,
        name: &str,
        _: &Params,
    ) -> Result<Option<Resource<ClusterSpec>>, Refusal> {
        Ok(documents::cluster(view, name))
    }
}

pub(super) struct Pools;

impl Kind for Pools {
    type Spec = PoolSpec;
    const KIND: &'static str = "pool";
    const FILTERS: &'static [&'static str] = &["cluster"];

    fn cursors<'a>(view: &'a View, after: Option<&str>) -> Cursors<'a> {
        Ok(Box::new(view.pools.range(behind(after.map(str::to_owned))).map(|(name, _)| name.clone())))
    }

    fn object(_: &App, view: &View, name: &str, _: &Params) -> Result<Option<Resource<PoolSpec>>, Refusal> {
        Ok(documents::pool(view, name))
    }

    fn passes(object: &Resource<PoolSpec>, params: &Params) -> bool {
        params.text("cluster").is_none_or(|cluster| cluster == object.spec.cluster)
    }
}

pub(super) struct Nodes;

impl Kind for Nodes {
    type Spec = NodeSpec;
    const KIND: &'static str = "node";
    const FILTERS: &'static [&'static str] = &["cluster"];

    fn cursors<'a>(view: &'a View, after: Option<&str>) -> Cursors<'a> {
        Ok(Box::new(view.nodes.range(behind(after.map(str::to_owned))).map(|(name, _)| name.clone())))
    }

    fn object(app: &App, view: &View, name: &str, _: &Params) -> Result<Option<Resource<NodeSpec>>, Refusal> {
        Ok(documents::node(view, &app.agents, name))
    }

    fn passes(object: &Resource<NodeSpec>, params: &Params) -> bool {
        params.text("cluster").is_none_or(|cluster| object.spec.clusters.iter().any(|name| name == cluster))
    }
}

pub(super) struct Blocks;

impl Kind for Blocks {
    type Spec = BlockSpec;
    const KIND: &'static str = "block";
    const FILTERS: &'static [&'static str] = &["cluster", "node", "pool"];

    fn cursors<'a>(view: &'a View, after: Option<&str>) -> Cursors<'a> {
        let after: Option<IpNet> = cursor(after)?;
        Ok(Box::new(view.blocks.range(behind(after)).map(|(block, _)| block.to_string())))
    }

    fn object(_: &App, view: &View, name: &str, _: &Params) -> Result<Option<Resource<BlockSpec>>, Refusal> {
        Ok(documents::block(view, name))
    }

    fn passes(object: &Resource<BlockSpec>, params: &Params) -> bool {
        let spec = &object.spec;
        [("cluster", &spec.cluster), ("node", &spec.node), ("pool", &spec.pool)]
            .into_iter()
            .all(|(name, value)| params.text(name).is_none_or(|wanted| wanted == value))
    }
}

pub(super) struct Identities;

impl Kind for Identities {
    type Spec = IdentitySpec;
    const KIND: &'static str = "identity";

    fn cursors<'a>(view: &'a View, after: Option<&str>) -> Cursors<'a> {
        let after: Option<Identity> = cursor(after)?;
        Ok(Box::new(view.identities.range(behind(after)).map(|(identity, _)| identity.to_string())))
    }

    fn object(
        _: &App,
        view: &View,
        name: &str,
        _: &Params,
    ) -> Result<Option<Resource<IdentitySpec>>, Refusal> {
        Ok(documents::identity(view, name))
    }
}

pub(super) struct Workloads;

impl Kind for Workloads {
    type Spec = WorkloadSpec;
    const KIND: &'static str = "workload";
    const FILTERS: &'static [&'static str] = &["cluster"];

    /// The cursor is the UUID, because two apps can share a name for a moment.
    fn cursors<'a>(view: &'a View, after: Option<&str>) -> Cursors<'a> {
        let after: Option<Uuid> = cursor(after)?;
        Ok(Box::new(view.workloads.range(behind(after)).map(|(uuid, _)| uuid.to_string())))
    }

    fn object(
        _: &App,
        view: &View,
        name: &str,
        _: &Params,
    ) -> Result<Option<Resource<WorkloadSpec>>, Refusal> {
        let uuid = match Uuid::try_parse(name) {
            Ok(uuid) => uuid,
            Err(_) => match resolve_name(view, name) {
                Ok(uuid) => uuid,
                Err(problem) if problem.code() == Code::UnknownName => return Ok(None),
                Err(problem) => return Err(problem.into()),
            },
        };
        Ok(documents::workload(view, uuid))
    }

    fn passes(object: &Resource<WorkloadSpec>, params: &Params) -> bool {
        params.text("cluster").is_none_or(|cluster| cluster == object.spec.cluster)
    }
}

pub(super) struct Endpoints;

impl Kind for Endpoints {
    type Spec = EndpointSpec;
    const KIND: &'static str = "endpoint";
    const FILTERS: &'static [&'static str] = &["cluster", "node", "workload"];

    fn cursors<'a>(view: &'a View, after: Option<&str>) -> Cursors<'a> {
        Ok(Box::new(view.endpoints.range(behind(after.map(str::to_owned))).map(|(name, _)| name.clone())))
    }

    fn object(
        _: &App,
        view: &View,
        name: &str,
        _: &Params,
    ) -> Result<Option<Resource<EndpointSpec>>, Refusal> {
        Ok(documents::endpoint(view, name))
    }

    fn passes(object: &Resource<EndpointSpec>, params: &Params) -> bool {
        let spec = &object.spec;
        let workload = spec.workload.to_string();
        [("cluster", &spec.cluster), ("node", &spec.node), ("workload", &workload)]
            .into_iter()
            .all(|(name, value)| params.text(name).is_none_or(|wanted| wanted == value))
    }
}

pub(super) struct Policies;

impl Kind for Policies {
    type Spec = PolicySpec;
    const KIND: &'static str = "policy";
    const FILTERS: &'static [&'static str] = &["names"];

    fn cursors<'a>(view: &'a View, after: Option<&str>) -> Cursors<'a> {
        Ok(Box::new(view.policies.range(behind(after.map(str::to_owned))).map(|(name, _)| name.clone())))
    }

    fn object(
        _: &App,
        view: &View,
        name: &str,
        params: &Params,
    ) -> Result<Option<Resource<PolicySpec>>, Refusal> {
        Ok(documents::policy(view, name, params.switch("names")?))
    }
}

pub(super) struct BgpPeers;

impl Kind for BgpPeers {
    type Spec = BgpPeerSpec;
    const KIND: &'static str = "bgpPeer";
    const FILTERS: &'static [&'static str] = &["cluster"];

    fn cursors<'a>(view: &'a View, after: Option<&str>) -> Cursors<'a> {
        Ok(Box::new(view.bgp_peers.range(behind(after.map(str::to_owned))).map(|(name, _)| name.clone())))
    }

    fn object(
        _: &App,
        view: &View,
        name: &str,
        _: &Params,
    ) -> Result<Option<Resource<BgpPeerSpec>>, Refusal> {
        Ok(documents::bgp_peer(view, name))
    }

    fn passes(object: &Resource<BgpPeerSpec>, params: &Params) -> bool {
        params.text("cluster").is_none_or(|cluster| object.spec.cluster.as_deref() == Some(cluster))
    }
}

/// `GET /network`
pub(super) async fn network(State(app): Shared, params: Params) -> Result<Response, Refusal> {
    params.only(&[])?;
    let view = app.registry.fresh_view().await?;
    let object = documents::network(&view);
    drop(view);
    Ok(with_etag(&object))
}

/// `name=value`, `name!=value`, `name`, `!name`, joined by commas: all must hold.
#[derive(Debug, PartialEq, Eq)]
struct Selector(Vec<Term>);

#[derive(Debug, PartialEq, Eq)]
enum Term {
    Equal(String, String),
    Different(String, String),
    Present(String),
    Absent(String),
}

impl Selector {
    fn read(text: &str) -> Result<Self, Refusal> {
        let terms = text.split(',').map(str::trim).filter(|term| !term.is_empty());
        terms.map(term).collect::<Result<_, _>>().map(Self)
    }

    fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|term| match term {
            Term::Equal(name, value) => labels.get(name) == Some(value),
            Term::Different(name, value) => labels.get(name) != Some(value),
            Term::Present(name) => labels.contains_key(name),
            Term::Absent(name) => !labels.contains_key(name),
        })
    }
}

fn term(text: &str) -> Result<Term, Refusal> {
    let own = |text: &str| text.trim().to_owned();
    let term = if let Some((name, value)) = text.split_once("!=") {
        Term::Different(own(name), own(value))
    } else if let Some((name, value)) = text.split_once('=') {
        Term::Equal(own(name), own(value.trim_start_matches('=')))
    } else if let Some(name) = text.strip_prefix('!') {
        Term::Absent(own(name))
    } else {
        Term::Present(own(text))
    };
    let (Term::Equal(name, _) | Term::Different(name, _) | Term::Present(name) | Term::Absent(name)) = &term;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(Refusal::bad(format!(
            "labelSelector has \"{text}\": write name=value, name!=value, name or !name, joined by commas"
        )));
    }
    Ok(term)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_select() {
        let labels: Labels = [("app", "web"), ("tier", "front")]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web, tier", true),
            ("app!=web", false),
            ("!canary", true),
            ("!tier", false),
            ("app=web,tier=back", false),
        ] {
            assert_eq!(Selector::read(text).unwrap().selects(&labels), expected, "{text}");
        }
        assert!(Selector::read("app in (a)").is_err());
        assert!(Selector::read("=x").is_err());
    }
}
