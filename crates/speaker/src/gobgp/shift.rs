//! Enumerations of version 4, most of which count from 1 where version 3 counts from 0. Messages are those of version 3;
//! `down` reads what came, `up` makes what goes.

use super::{api, proto};

/// A number of version 4 as version 3 has it; what is not said is the first.
pub(super) fn down(number: i32) -> i32 {
    number.saturating_sub(1).max(0)
}

fn up(number: &mut i32) {
    *number += 1;
}

fn lower(number: &mut i32) {
    *number = down(*number);
}

/// Both ways for everything within a statement.
fn statement(statement: &mut proto::Statement, number: fn(&mut i32), rpki: fn(i32) -> i32) {
    if let Some(conditions) = &mut statement.conditions {
        let sets = [
            &mut conditions.prefix_set,
            &mut conditions.neighbor_set,
            &mut conditions.as_path_set,
            &mut conditions.community_set,
            &mut conditions.ext_community_set,
            &mut conditions.large_community_set,
        ];
        sets.into_iter().flatten().for_each(|set| number(&mut set.r#type));
        conditions.as_path_length.iter_mut().for_each(|length| number(&mut length.r#type));
        conditions.rpki_result = rpki(conditions.rpki_result);
    }
    if let Some(actions) = &mut statement.actions {
        let communities = [&mut actions.community, &mut actions.ext_community, &mut actions.large_community];
        communities.into_iter().flatten().for_each(|action| number(&mut action.r#type));
        actions.med.iter_mut().for_each(|med| number(&mut med.r#type));
    }
}

/// 0 and 1 are "no condition" in version 4, and less than 1 in version 3.
fn statement_down(one: &mut proto::Statement) {
    statement(one, lower, |result| result.saturating_sub(1).max(0));
}

fn statement_up(one: &mut proto::Statement) {
    statement(one, up, |result| if result < 1 { 0 } else { result + 1 });
}

pub(super) fn watch_request(request: &mut proto::WatchEventRequest) {
    let filters = request.table.iter_mut().flat_map(|table| &mut table.filters);
    filters.for_each(|filter| lower(&mut filter.r#type));
}

pub(super) fn bmp_request(request: &mut proto::AddBmpRequest) {
    lower(&mut request.policy);
}

pub(super) fn reset_request(request: &mut proto::ResetPeerRequest) {
    // Where no direction is said, both are meant.
    request.direction = match request.direction {
        0 => i32::from(proto::reset_peer_request::Direction::Both),
        said => down(said),
    };
}

pub(super) fn list_path_request(request: &mut proto::ListPathRequest) {
    lower(&mut request.table_type);
    request.prefixes.iter_mut().for_each(|prefix| lower(&mut prefix.r#type));
}

pub(super) fn table_request(request: &mut proto::GetTableRequest) {
    lower(&mut request.table_type);
}

pub(super) fn enable_mrt(request: &mut proto::EnableMrtRequest) {
    lower(&mut request.r#type);
}

pub(super) fn level_request(request: &mut proto::SetLogLevelRequest) {
    // Without a level there is nothing to set: the reader refuses it.
    request.level -= 1;
}

pub(super) fn add_policy_request(request: &mut proto::AddPolicyRequest) {
    policy(request.policy.as_mut(), statement_down);
}

pub(super) fn delete_policy_request(request: &mut proto::DeletePolicyRequest) {
    policy(request.policy.as_mut(), statement_down);
}

pub(super) fn policies_request(request: &mut proto::SetPoliciesRequest) {
    request.defined_sets.iter_mut().for_each(|set| lower(&mut set.defined_type));
    request.policies.iter_mut().for_each(|one| policy(Some(one), statement_down));
}

pub(super) fn policy_response(response: &mut proto::ListPolicyResponse) {
    policy(response.policy.as_mut(), statement_up);
}

fn policy(policy: Option<&mut proto::Policy>, translate: fn(&mut proto::Statement)) {
    policy.into_iter().flat_map(|policy| &mut policy.statements).for_each(translate);
}

pub(super) fn add_statement_request(request: &mut proto::AddStatementRequest) {
    request.statement.iter_mut().for_each(statement_down);
}

pub(super) fn delete_statement_request(request: &mut proto::DeleteStatementRequest) {
    request.statement.iter_mut().for_each(statement_down);
}

pub(super) fn statement_response(response: &mut proto::ListStatementResponse) {
    response.statement.iter_mut().for_each(statement_up);
}

pub(super) fn assignment_response(response: &mut proto::ListPolicyAssignmentResponse) {
    let policies = response.assignment.iter_mut().flat_map(|assignment| &mut assignment.policies);
    policies.for_each(|one| policy(Some(one), statement_up));
}

pub(super) fn add_set_request(request: &mut proto::AddDefinedSetRequest) {
    request.defined_set.iter_mut().for_each(|set| lower(&mut set.defined_type));
}

pub(super) fn delete_set_request(request: &mut proto::DeleteDefinedSetRequest) {
    request.defined_set.iter_mut().for_each(|set| lower(&mut set.defined_type));
}

pub(super) fn list_set_request(request: &mut proto::ListDefinedSetRequest) {
    lower(&mut request.defined_type);
}

pub(super) fn set_response(response: &mut proto::ListDefinedSetResponse) {
    response.defined_set.iter_mut().for_each(|set| up(&mut set.defined_type));
}

pub(super) fn add_group_request(request: &mut proto::AddPeerGroupRequest) {
    request.peer_group.iter_mut().for_each(group_down);
}

pub(super) fn update_group_request(request: &mut proto::UpdatePeerGroupRequest) {
    request.peer_group.iter_mut().for_each(group_down);
}

fn group_down(group: &mut proto::PeerGroup) {
    // It has other fields, and none of them is read.
    group.apply_policy = None;
    group.conf.iter_mut().for_each(|conf| lower(&mut conf.r#type));
}

pub(super) fn group_response(response: &mut proto::ListPeerGroupResponse) {
    let Some(group) = &mut response.peer_group else { return };
    group.conf.iter_mut().for_each(|conf| up(&mut conf.r#type));
    // Version 4 has the export policy where version 3 has another one, and the import policy behind it.
    group.apply_policy = group.apply_policy.take().map(|applied| proto::ApplyPolicy {
        in_policy: applied.export_policy,
        export_policy: applied.import_policy,
        import_policy: None,
    });
}

/// A neighbour that a client adds.
pub(super) fn read_peer(peer: api::Peer) -> proto::Peer {
    proto::Peer {
        apply_policy: None,
        conf: peer.conf.map(|mut conf| {
            lower(&mut conf.r#type);
            conf
        }),
        ebgp_multihop: peer.ebgp_multihop,
        route_reflector: peer.route_reflector,
        state: None,
        timers: peer.timers,
        transport: peer.transport,
        route_server: peer.route_server,
        graceful_restart: peer.graceful_restart,
        afi_safis: peer.afi_safis,
        ttl_security: peer.ttl_security,
        bfd: peer.bfd,
    }
}

/// A neighbour that is shown, with what the session offered to it and what it offered.
pub(super) fn peer(
    peer: proto::Peer,
    (local_cap, remote_cap): (Vec<api::Capability>, Vec<api::Capability>),
) -> api::Peer {
    api::Peer {
        apply_policy: peer.apply_policy.map(|applied| api::ApplyPolicy {
            export_policy: applied.export_policy,
            import_policy: applied.import_policy,
        }),
        conf: peer.conf.map(|mut conf| {
            up(&mut conf.r#type);
            conf
        }),
        ebgp_multihop: peer.ebgp_multihop,
        route_reflector: peer.route_reflector,
        state: peer.state.map(|state| api::PeerState {
            description: state.description,
            local_asn: state.local_asn,
            messages: state.messages,
            neighbor_address: state.neighbor_address,
            peer_asn: state.peer_asn,
            peer_group: state.peer_group,
            r#type: state.r#type + 1,
            queues: state.queues,
            remove_private: state.remove_private,
            session_state: state.session_state,
            admin_state: state.admin_state + 1,
            out_q: state.out_q,
            flops: state.flops,
            remote_cap,
            local_cap,
            router_id: state.router_id,
            disconnect_message: state.why,
        }),
        timers: peer.timers,
        transport: peer.transport,
        route_server: peer.route_server,
        graceful_restart: peer.graceful_restart,
        afi_safis: peer.afi_safis,
        ttl_security: peer.ttl_security,
        bfd: peer.bfd,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    /// The bytes are those that a client of version 4 sends for one statement of every kind of condition and action.
    #[test]
    fn a_statement_comes_back_as_it_went() {
        let set = |kind| Some(proto::MatchSet { r#type: kind, name: "n".to_owned() });
        let community = |kind| Some(proto::CommunityAction { r#type: kind, communities: vec![] });
        let of_version3 = proto::Statement {
            name: "s".to_owned(),
            conditions: Some(proto::Conditions {
                prefix_set: set(2),
                neighbor_set: set(0),
                community_set: set(1),
                as_path_length: Some(proto::AsPathLength { r#type: 1, length: 3 }),
                route_type: 2,
                ..proto::Conditions::default()
            }),
            actions: Some(proto::Actions {
                route_action: 2,
                community: community(2),
                large_community: community(0),
                med: Some(proto::MedAction { r#type: 1, value: 5 }),
                ..proto::Actions::default()
            }),
        };
        let mut shown = of_version3.clone();
        statement_up(&mut shown);
        let conditions = shown.conditions.clone().unwrap();
        assert_eq!(conditions.prefix_set.as_ref().unwrap().r#type, 3, "MatchSet.TYPE_INVERT");
        assert_eq!(conditions.as_path_length.unwrap().r#type, 2, "COMPARISON_GE");
        assert_eq!(
            (conditions.route_type, conditions.rpki_result),
            (2, 0),
            "ROUTE_TYPE_EXTERNAL, no condition"
        );
        let actions = shown.actions.clone().unwrap();
        assert_eq!(actions.community.unwrap().r#type, 3, "CommunityAction.TYPE_REPLACE");
        assert_eq!(
            (actions.med.unwrap().r#type, actions.route_action),
            (2, 2),
            "MedAction.TYPE_REPLACE, REJECT"
        );
        statement_down(&mut shown);
        assert_eq!(shown, of_version3);
    }

    #[test]
    fn what_is_not_said_is_the_first_or_both() {
        assert_eq!((down(0), down(1), down(4)), (0, 0, 3));
        let mut reset = proto::ResetPeerRequest { soft: true, ..proto::ResetPeerRequest::default() };
        reset_request(&mut reset);
        assert_eq!(reset.direction(), proto::reset_peer_request::Direction::Both);
        reset.direction = 2;
        reset_request(&mut reset);
        assert_eq!(reset.direction(), proto::reset_peer_request::Direction::Out);
    }

    /// Field numbers of GoBGP 4's proto files, byte by byte.
    #[test]
    fn messages_of_version_4_have_its_bytes() {
        let prefix = proto::IpAddressPrefix { prefix_len: 24, prefix: "10.0.0.0".to_owned() };
        let nlri = api::Nlri { nlri: Some(api::nlri::Nlri::Prefix(prefix)) };
        let origin =
            api::Attribute { attr: Some(api::attribute::Attr::Origin(proto::OriginAttribute { origin: 2 })) };
        let path =
            api::Path { nlri: Some(nlri), pattrs: vec![origin], identifier: 5, ..api::Path::default() };
        let expected = b"\x0a\x0e\x0a\x0c\x08\x18\x12\x0810.0.0.0\x12\x04\x12\x02\x08\x02\x90\x01\x05";
        assert_eq!(path.encode_to_vec(), expected);
        let request =
            api::AddPathRequest { table_type: 1, path: Some(path), ..api::AddPathRequest::default() };
        assert_eq!(request.encode_to_vec()[..4], [0x08, 0x01, 0x1a, expected.len() as u8]);
        let state = proto::PeerState { session_state: 6, why: "w".to_owned(), ..proto::PeerState::default() };
        let shown = peer(proto::Peer { state: Some(state), ..proto::Peer::default() }, (vec![], vec![]));
        // type 8 external or not, session_state 13, admin_state 15, disconnect_message 22.
        let expected = [0x2a, 10, 0x40, 1, 0x68, 6, 0x78, 1, 0xb2, 0x01, 1, b'w'];
        assert_eq!(shown.encode_to_vec(), expected);
    }
}
