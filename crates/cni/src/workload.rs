//! What a container is an instance of, from what its runtime says.
//!
//! No runtime passes labels, except Mesos; each has its own way to say a name:
//!
//! | caller | group | app |
//! | --- | --- | --- |
//! | kubelet (containerd, CRI-O) | namespace | annotation `isthmus.dev/app`, else the pod's name |
//! | Nomad | namespace | the job, `JOB.GROUP` where the group has another name |
//! | Mesos | first parts of label `isthmus.dev/app` | its last part, else the container's id |
//! | podman | | the container's or pod's name |
//! | others | | the container's id |

use crate::{
    config::Metadata,
    error::{CniError, Code},
};
use isthmus_api::adapter::Workload;
use std::collections::BTreeMap;

/// Says the app's name.
const APP: &str = "isthmus.dev/app";
/// Says labels, `k=v,k=v`.
const LABELS: &str = "isthmus.dev/labels";

/// A container by name: what it is an instance of, and what people call the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What it is an instance of.
    pub workload: Workload,
    /// The pod's name, Nomad's allocation, the container's id.
    pub instance: String,
}

/// Names a container.
///
/// # Errors
///
/// A name that could not be written as `platform:group/app@cluster`, or labels that are none.
pub fn name(args: &BTreeMap<&str, &str>, metadata: &Metadata, container: &str) -> Result<Named, CniError> {
    let arg = |key: &str| args.get(key).copied().filter(|value| !value.is_empty());
    let mut named = if let Some(job) = arg("NOMAD_JOB_ID") {
        nomad(
            job,
            arg("NOMAD_GROUP_NAME"),
            arg("NOMAD_NAMESPACE"),
            arg("NOMAD_ALLOC_ID").unwrap_or(container),
        )?
    } else if let Some(labels) = &metadata.mesos {
        mesos(labels, container)?
    } else {
        pod(arg("K8S_POD_NAMESPACE"), arg("K8S_POD_NAME").unwrap_or(container), metadata)?
    };
    if let Some(text) = metadata.annotations.get(LABELS) {
        named.workload.labels.extend(labels(text)?);
    }
    for (key, value) in metadata.labels.iter().chain(metadata.mesos.iter().flatten()) {
        match key.as_str() {
            APP => {}
            LABELS => named.workload.labels.extend(labels(value)?),
            _ => drop(named.workload.labels.insert(key.clone(), value.clone())),
        }
    }
    Ok(named)
}

fn pod(namespace: Option<&str>, pod: &str, metadata: &Metadata) -> Result<Named, CniError> {
    let said = metadata.labels.get(APP).or_else(|| metadata.annotations.get(APP));
    let app = said.map_or(pod, String::as_str);
    let group = namespace.unwrap_or_default();
    check("namespace", group, "")?;
    check(if said.is_some() { APP } else { "name of the pod or container" }, app, "/")?;
    Ok(Named { workload: workload(group, app), instance: pod.to_owned() })
}

fn nomad(
    job: &str,
    group: Option<&str>,
    namespace: Option<&str>,
    allocation: &str,
) -> Result<Named, CniError> {
    let job = parent_job(job);
    let group = group.unwrap_or(job);
    let namespace = namespace.unwrap_or("default");
    for (what, value) in [("Nomad job", job), ("Nomad group", group), ("Nomad namespace", namespace)] {
        check(what, value, "")?;
    }
    let app = if group == job { job.to_owned() } else { format!("{job}.{group}") };
    let mut workload = workload(namespace, &app);
    // Group "b" of job "a" and a job "a.b" read alike; their ids must not, or one would have the other's identity.
    if job.contains('.') || group.contains('.') {
        workload.id = format!("{namespace}/{job}:{group}");
    }
    workload.labels = [("nomad.job", job), ("nomad.group", group)].map(|(k, v)| (k.into(), v.into())).into();
    Ok(Named { workload, instance: allocation.to_owned() })
}

/// Nomad makes a job of its own for each run of a periodic or dispatched job; all are instances of the parent.
fn parent_job(job: &str) -> &str {
    let run = ["/periodic-", "/dispatch-"].iter().filter_map(|word| job.rfind(word)).max();
    run.map_or(job, |end| &job[..end])
}

fn mesos(labels: &BTreeMap<String, String>, container: &str) -> Result<Named, CniError> {
    let path = labels.get(APP).map_or(container, |path| path.trim_matches('/'));
    let (group, app) = path.rsplit_once('/').unwrap_or(("", path));
    check(APP, group, "")?;
    check(APP, app, "/")?;
    Ok(Named { workload: workload(group, app), instance: container.to_owned() })
}

fn workload(group: &str, app: &str) -> Workload {
    let id = if group.is_empty() { app.to_owned() } else { format!("{group}/{app}") };
    Workload { id, group: group.to_owned(), app: app.to_owned(), labels: BTreeMap::new() }
}

fn labels(text: &str) -> Result<BTreeMap<String, String>, CniError> {
    let pairs = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let read = |pair: &str| {
        let label = pair.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
        label.filter(|(key, _value)| !key.is_empty()).ok_or_else(|| {
            let message = format!("{LABELS} has \"{pair}\", which is not key=value");
            CniError::new(Code::Config, message, format!("write {LABELS} as key=value,key=value"))
        })
    };
    pairs.map(read).collect()
}

/// Refuses what would break `platform:group/app@cluster` apart when it is read back.
fn check(what: &str, value: &str, also: &str) -> Result<(), CniError> {
    let empty_app = value.is_empty() && also.contains('/');
    let wrong = |c: char| matches!(c, '@' | ':') || also.contains(c) || c.is_whitespace() || c.is_control();
    if !empty_app && value.len() <= 253 && !value.contains(wrong) {
        return Ok(());
    }
    let message =
        format!("the {what} is {value:?}: Isthmus could not write it as platform:group/app@cluster");
    let details = "use 1 to 253 bytes without '@', ':' and spaces, and no '/' in an app's name";
    Err(CniError::new(Code::Config, message, details))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(args: &[(&'static str, &'static str)], metadata: &Metadata) -> Named {
        name(&args.iter().copied().collect(), metadata, "c0ffee").unwrap()
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_pod_is_named_by_its_annotation_or_itself() {
        let args = [("K8S_POD_NAMESPACE", "team-a"), ("K8S_POD_NAME", "shop-6d4-x")];
        let bare = named(&args, &Metadata::default());
        assert_eq!((bare.workload.id.as_str(), bare.instance.as_str()), ("team-a/shop-6d4-x", "shop-6d4-x"));
        let annotations = map(&[(APP, "shop"), (LABELS, "tier=fe, zone = a,")]);
        let shop = named(&args, &Metadata { annotations, ..Metadata::default() });
        assert_eq!((shop.workload.id.as_str(), shop.workload.app.as_str()), ("team-a/shop", "shop"));
        assert_eq!(shop.workload.labels, map(&[("tier", "fe"), ("zone", "a")]));
    }

    #[test]
    fn args_beat_annotations() {
        let metadata = Metadata {
            annotations: map(&[(APP, "old"), (LABELS, "a=1,b=1")]),
            labels: map(&[(APP, "new"), ("b", "2")]),
            mesos: None,
        };
        let named = named(&[("K8S_POD_NAMESPACE", "n"), ("K8S_POD_NAME", "p")], &metadata);
        assert_eq!(named.workload.app, "new");
        assert_eq!(named.workload.labels, map(&[("a", "1"), ("b", "2")]));
    }

    #[test]
    fn a_nomad_group_is_named_by_its_job() {
        let job = |job, group| {
            let args = [("NOMAD_NAMESPACE", "default"), ("NOMAD_JOB_ID", job), ("NOMAD_GROUP_NAME", group)];
            named(&args, &Metadata::default()).workload
        };
        assert_eq!(job("ledger", "ledger").id, "default/ledger");
        assert_eq!(job("ledger", "").id, "default/ledger");
        assert_eq!(job("ledger", "db").id, "default/ledger.db");
        assert_eq!(job("ledger", "db").labels, map(&[("nomad.job", "ledger"), ("nomad.group", "db")]));
        assert_eq!(job("night/periodic-1700000000", "run").app, "night.run");
        assert_ne!(job("a", "b").id, job("a.b", "a.b").id);
        assert_ne!(job("a.b", "c").id, job("a", "b.c").id);
        assert_ne!(job("a.b", "c").id, job("a.b.c", "a.b.c").id);
    }

    #[test]
    fn a_mesos_task_is_named_by_its_label_or_its_container() {
        let task = |labels: &[(&str, &str)]| {
            named(&[], &Metadata { mesos: Some(map(labels)), ..Metadata::default() }).workload
        };
        assert_eq!(task(&[(APP, "/ads/eu/bidder"), ("x", "")]).group, "ads/eu");
        assert_eq!(task(&[(APP, "/ads/eu/bidder"), ("x", "")]).labels, map(&[("x", "")]));
        assert_eq!(task(&[]).id, "c0ffee");
    }

    #[test]
    fn without_any_name_the_container_is_the_app() {
        assert_eq!(named(&[], &Metadata::default()).workload.id, "c0ffee");
        assert_eq!(named(&[("K8S_POD_NAME", "pw1")], &Metadata::default()).workload.id, "pw1");
    }

    #[test]
    fn names_that_could_not_be_read_back_are_refused() {
        for app in ["", "a/b", "a@b", "a:b", "a b", "a\n"] {
            let metadata = Metadata { annotations: map(&[(APP, app)]), ..Metadata::default() };
            assert_eq!(name(&BTreeMap::new(), &metadata, "c").unwrap_err().code, Code::Config, "{app:?}");
        }
        let metadata = Metadata { annotations: map(&[(LABELS, "a")]), ..Metadata::default() };
        assert_eq!(name(&BTreeMap::new(), &metadata, "c").unwrap_err().code, Code::Config);
    }
}
