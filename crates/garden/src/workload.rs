//! What a container is an instance of, from the properties that Cloud Foundry gives it.

use crate::json::Object;
use isthmus_api::adapter::Workload;
use std::collections::BTreeMap;

/// What all of Diego's health-check containers are instances of: they belong to no app, and each has a handle of its own.
const HEALTH_CHECK: &str = "healthcheck";

/// A container by name: what it is an instance of, and what people call the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What it is an instance of.
    pub workload: Workload,
    /// `app/index`, else the handle.
    pub instance: String,
}

/// Names the container with this handle and these properties.
///
/// The app is its GUID, for good (`policy_group_id`, the GUID that policies are written for, also for tasks and staging).
/// The names that people read come from `log_config`, and change when an app is renamed; without them the GUID stands in.
pub fn name(handle: &str, properties: &BTreeMap<String, String>) -> Named {
    let property = |key: &str| properties.get(key).map(String::as_str).filter(|text| !text.is_empty());
    let guid = property("policy_group_id").or_else(|| property("app_id"));
    let Some(guid) = guid else {
        let id = if property("healthcheck") == Some("true") { HEALTH_CHECK } else { handle };
        let workload = Workload { id: id.to_owned(), app: spoken(id), ..Workload::default() };
        return Named { workload, instance: handle.to_owned() };
    };
    let log = property("log_config").and_then(|text| Object::parse(text.as_bytes()).ok()).unwrap_or_default();
    let tags = log.object("tags").unwrap_or_default();
    let tag = |key: &str| tags.text(key).ok().filter(|text| !text.is_empty()).map(|text| spoken(&text));
    let app = tag("app_name").unwrap_or_else(|| spoken(guid));
    let names = [tag("organization_name"), tag("space_name")];
    let ids = ["org_id", "space_id"].map(|key| property(key).map(spoken));
    let group: Vec<_> = names.into_iter().zip(ids).filter_map(|(name, id)| name.or(id)).collect();
    let index = log.number("index", 0, i64::MAX).unwrap_or_default();
    let labels = [("cf.org_id", "org_id"), ("cf.space_id", "space_id")];
    let labels =
        labels.into_iter().filter_map(|(label, key)| Some((label.to_owned(), property(key)?.to_owned())));
    let workload =
        Workload { id: guid.to_owned(), group: group.join("/"), app: app.clone(), labels: labels.collect() };
    Named { workload, instance: format!("{app}/{index}") }
}

/// A name that can be part of `platform:group/app@cluster`. Cloud Foundry allows any text; the GUID stays exact, so two
/// apps that read alike here are still two.
fn spoken(name: &str) -> String {
    let plain =
        |c: char| if matches!(c, '/' | ':' | '@') || c.is_whitespace() || c.is_control() { '-' } else { c };
    name.chars().map(plain).take(253).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    const GUID: &str = "bc6f229d-5e4a-4c41-a63f-e8795496c283";
    const LOG: &str = r#"{"guid":"g","index":2,"source_name":"APP/PROC/WEB",
        "tags":{"app_name":"cart","space_name":"prod","organization_name":"acme","instance_id":"2"}}"#;

    #[test]
    fn an_app_is_its_guid_and_has_the_names_of_its_log_config() {
        let named = name(
            "h-1",
            &properties(&[
                ("policy_group_id", GUID),
                ("app_id", GUID),
                ("org_id", "o"),
                ("space_id", "s"),
                ("log_config", LOG),
            ]),
        );
        assert_eq!((named.workload.id.as_str(), named.workload.app.as_str()), (GUID, "cart"));
        assert_eq!((named.workload.group.as_str(), named.instance.as_str()), ("acme/prod", "cart/2"));
        assert_eq!(named.workload.labels, properties(&[("cf.org_id", "o"), ("cf.space_id", "s")]));
    }

    #[test]
    fn without_names_the_guids_stand_in() {
        for log in ["", "{", r#"{"tags":null,"index":null}"#, r#"{"tags":[],"index":"x"}"#] {
            let named = name(
                "h",
                &properties(&[("app_id", GUID), ("org_id", "o"), ("space_id", "s"), ("log_config", log)]),
            );
            assert_eq!((named.workload.app.as_str(), named.workload.group.as_str()), (GUID, "o/s"), "{log}");
            assert_eq!(named.instance, format!("{GUID}/0"));
        }
    }

    #[test]
    fn containers_without_an_app_are_told_apart_from_health_checks() {
        let check = |handle| name(handle, &properties(&[("healthcheck", "true")])).workload;
        assert_eq!(check("check-1"), check("check-2"));
        assert_eq!(name("staging-7", &properties(&[])).workload.id, "staging-7");
    }

    #[test]
    fn a_name_that_could_not_be_read_back_is_made_plain() {
        let log = r#"{"tags":{"app_name":"my app/v:2@x","space_name":"a b","organization_name":"o/o"}}"#;
        let named = name("h", &properties(&[("app_id", GUID), ("log_config", log)]));
        assert_eq!((named.workload.app.as_str(), named.workload.group.as_str()), ("my-app-v-2-x", "o-o/a-b"));
    }
}
