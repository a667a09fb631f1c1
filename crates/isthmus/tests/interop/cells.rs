//! The cells of one column: two networks, and what is tried in them.

use crate::{
    bird::Bird,
    frr::Frr,
    gobgp::{Gobgp, Program, many},
    lab::{Lab, Node},
    matrix::{Column, Feature, Kind, Outcomes},
    plan::{BEFORE, Carried, Family, LLGR_STALE, OURS, Own, Path, Plan, Role, SOURCE, Session, v4, v6},
    speaker::{Speaker, wait},
};
use std::net::Ipv4Addr;

const SUBJECT: u8 = 1;
const PEER: u8 = 2;
const FEED: u8 = 3;
const FELLOW: u8 = 4;

type Outcome = Result<(), String>;

fn speaker(kind: Kind, plan: Plan, node: Node) -> Box<dyn Speaker> {
    match kind {
        Kind::Isthmus => Box::new(Gobgp::new(Program::Isthmus, plan, node)),
        Kind::Gobgp => Box::new(Gobgp::new(Program::Gobgpd, plan, node)),
        Kind::Bird => Box::new(Bird::new(plan, node)),
        Kind::Frr => Box::new(Frr::new(plan, node)),
    }
}

/// The routes of subject or peer.
fn own(node: u8) -> Vec<Own> {
    let mut own = vec![
        Own { full: true, ..Own::plain(format!("10.{node}.0.0/24")) },
        Own::plain(format!("10.{node}.1.0/24")),
        Own::plain(format!("10.{node}.3.0/24")),
    ];
    own.push(Own { full: true, ..Own::plain(format!("2001:db8:{node}::/64")) });
    own.push(Own::plain(format!("2001:db8:{node}:3::/64")));
    own
}

/// Both ends of a session between subject and peer, alike but for what `at` sets at the end that is given.
fn between(
    column: Column,
    name: &'static str,
    address: fn(u8, u8) -> std::net::IpAddr,
    link: u8,
    at: impl Fn(&mut Session, u8),
) -> [Session; 2] {
    let role = column.role;
    [(SUBJECT, PEER, role.peer_as()), (PEER, SUBJECT, OURS)].map(|(near, far, asn)| {
        let mut session = Session::new(name, address(link, near), address(link, far), asn);
        let reflects = if near == SUBJECT { Role::Client } else { Role::Reflector };
        session.client = role == reflects;
        at(&mut session, near);
        session
    })
}

/// Subject and peer with these sessions, running.
fn pair(
    column: Column,
    lab: &Lab,
    sessions: Vec<[Session; 2]>,
    more: [Vec<Session>; 2],
    multipath: bool,
) -> Result<[Box<dyn Speaker>; 2], String> {
    let mut plans = [(SUBJECT, OURS), (PEER, column.role.peer_as())].map(|(node, asn)| Plan {
        node,
        asn,
        sessions: Vec::new(),
        own: own(node),
        multipath,
    });
    for ends in sessions {
        for (plan, end) in plans.iter_mut().zip(ends) {
            plan.sessions.push(end);
        }
    }
    for (plan, more) in plans.iter_mut().zip(more) {
        plan.sessions.extend(more);
    }
    let [ours, theirs] = plans;
    let mut both =
        [speaker(column.subject, ours, lab.node(SUBJECT)), speaker(column.peer, theirs, lab.node(PEER))];
    both.iter_mut().try_for_each(|speaker| speaker.start(false))?;
    Ok(both)
}

/// BIRD as the source or the fellow.
fn helper(lab: &Lab, plan: Plan) -> Result<Bird, String> {
    let node = lab.node(plan.node);
    let mut bird = Bird::new(plan, node);
    bird.start(false)?;
    Ok(bird)
}

fn present(what: &str, speaker: &dyn Speaker, session: &str, prefix: &str) -> Result<Path, String> {
    expect(what, speaker, session, prefix, |_| true)
}

/// Waits until a speaker has one path from a session that is as wanted.
fn expect(
    what: &str,
    speaker: &dyn Speaker,
    session: &str,
    prefix: &str,
    is_so: impl Fn(&Path) -> bool,
) -> Result<Path, String> {
    let (title, what) = (speaker.title(), format!("{what}: {} has {prefix} from {session}", speaker.title()));
    let found = wait(
        &what,
        || speaker.paths_from(session, prefix),
        |paths| matches!(&paths[..], [path] if is_so(path)),
    );
    let found = found.map_err(|why| format!("{why}\nlog of {title}:\n{}", tail(&speaker.log())))?;
    Ok(found.into_iter().next().unwrap())
}

fn absent(what: &str, speaker: &dyn Speaker, session: &str, prefix: &str) -> Outcome {
    let what = format!("{what}: {} has no {prefix} from {session}", speaker.title());
    wait(&what, || speaker.paths_from(session, prefix), Vec::is_empty).map(drop)
}

fn up(speaker: &dyn Speaker, session: &str) -> Outcome {
    let what = format!("{} has {session} up", speaker.title());
    let found = wait(&what, || speaker.is_up(session), |is_up| *is_up);
    found.map(drop).map_err(|why| format!("{why}\n{}\n{}", speaker.about(session), tail(&speaker.log())))
}

fn down(speaker: &dyn Speaker, session: &str) -> Outcome {
    let what = format!("{} has {session} down", speaker.title());
    wait(&what, || speaker.is_up(session), |is_up| !is_up).map(drop)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, wanted: &T, found: &T) -> Outcome {
    if wanted == found { Ok(()) } else { Err(format!("{what}: wanted {wanted:?}, found {found:?}")) }
}

/// Waits until a speaker says one of these words about a session, whatever their case.
fn says(speaker: &dyn Speaker, session: &str, words: &[&str]) -> Outcome {
    let what = format!("{} says one of {words:?} about {session}", speaker.title());
    let has = |text: &String| words.iter().any(|word| text.to_lowercase().contains(&word.to_lowercase()));
    wait(&what, || speaker.about(session), has).map(drop).map_err(|why| tail(&why))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// Collects what comes of the features of a column that can be tried.
struct Results(Column, Outcomes);

impl Results {
    fn cell(&mut self, feature: Feature, attempt: impl FnOnce() -> Outcome) {
        if self.0.lacking(feature).is_none() {
            self.1.push((feature, attempt()));
        }
    }
}

/// Four nodes: what routes carry, who gets them, and what becomes of them when a speaker is killed.
pub(crate) fn routes(column: Column) -> Result<Outcomes, String> {
    let lab = Lab::new(4);
    let role = column.role;
    let graceful = |session: &mut Session, _| session.graceful = Some(120);
    let base4 = between(column, "base4", v4, 0, |session, end| {
        graceful(session, end);
        session.add_path = true;
    });
    let base6 = between(column, "base6", v6, 0, graceful);
    let feed = |node| Session {
        add_path: true,
        graceful: Some(120),
        ..Session::new("feed", v4(0, node), v4(0, FEED), SOURCE)
    };
    let reflects = matches!(role, Role::Client | Role::External);
    let reflector = if role == Role::Reflector { PEER } else { SUBJECT };
    let to_fellow = Session {
        client: reflects || role == Role::Reflector,
        graceful: Some(120),
        ..Session::new("fellow", v4(0, reflector), v4(0, FELLOW), OURS)
    };
    let mut more = [vec![feed(SUBJECT)], vec![feed(PEER)]];
    more[usize::from(reflector == PEER)].push(to_fellow);
    let [mut ours, mut theirs] = pair(column, &lab, vec![base4, base6], more, false)?;
    let fellow = Plan {
        node: FELLOW,
        asn: OURS,
        sessions: vec![Session {
            graceful: Some(120),
            ..Session::new("up", v4(0, FELLOW), v4(0, reflector), OURS)
        }],
        own: vec![Own { full: true, ..Own::plain("10.4.0.0/24") }],
        multipath: false,
    };
    let _source = helper(&lab, source(role))?;
    let fellow = helper(&lab, fellow)?;

    let mut results = Results(column, Vec::new());
    results.cell(Feature::RoutesV4, || exchange(&*ours, &*theirs, "base4", Family::V4));
    results.cell(Feature::RoutesV6, || exchange(&*ours, &*theirs, "base6", Family::V6));
    results.cell(Feature::WeKeepIn, || no_export(role, &*ours, &*theirs));
    results.cell(Feature::TheyKeepIn, || no_export(role, &*theirs, &*ours));
    results.cell(Feature::Reflection, || reflection(role, &*ours, &*theirs, &fellow));
    results.cell(Feature::AddPathIn, || two_paths(&*ours, "10.32.1.0/24"));
    results.cell(Feature::AddPathOut, || two_paths(&*theirs, "10.31.1.0/24"));
    results.cell(Feature::ExtendedMessages, || {
        for (speaker, prefix) in [(&ours, "10.32.2.0/24"), (&theirs, "10.31.2.0/24")] {
            let path = present("a long route", &**speaker, "base4", prefix)?;
            // birdc shows the first of them.
            let has_all = path.carried.large == many()
                || speaker.title() == "BIRD" && path.carried.large.is_subset(&many());
            same("all its communities", &true, &(has_all && !path.carried.large.is_empty()))?;
        }
        Ok(())
    });
    results.cell(Feature::WeAskAgain, || ask_again(&*ours, &*theirs));
    results.cell(Feature::TheyAskAgain, || ask_again(&*theirs, &*ours));
    results.cell(Feature::EnhancedRefresh, || enhanced(&*ours, &*theirs));
    results.cell(Feature::Withdraw, || withdraw(&*ours, &*theirs));
    results.cell(Feature::TheyRestart, || they_restart(&*ours, &mut *theirs));
    results.cell(Feature::WeRestart, || we_restart(&mut *ours, &*theirs));
    results.cell(Feature::ShutdownText, || {
        up(&*ours, "base4")?;
        up(&*ours, "base6")?;
        ours.shut_down("base6", "rack 7 moves");
        says(&*theirs, "base6", &["rack 7 moves"])?;
        theirs.shut_down("base4", "power goes at nine");
        says(&*ours, "base4", &["power goes at nine"])
    });
    Ok(results.1)
}

/// Two paths and a long route for each of subject and peer.
fn source(role: Role) -> Plan {
    let of = |node: u8| {
        let hops = [21, 22].map(|last| Ipv4Addr::new(10, 99, 0, last)).to_vec();
        let two = Own { next_hops: hops, ..Own::plain(format!("10.3{node}.1.0/24")) };
        let inside = Own { no_export: true, ..Own::plain(format!("10.3{node}.3.0/24")) };
        [two, Own { many: true, ..Own::plain(format!("10.3{node}.2.0/24")) }, inside]
    };
    let session = |name, node, asn| Session {
        add_path: true,
        graceful: Some(120),
        ..Session::new(name, v4(0, FEED), v4(0, node), asn)
    };
    Plan {
        node: FEED,
        asn: SOURCE,
        sessions: vec![session("s1", SUBJECT, OURS), session("s2", PEER, role.peer_as())],
        own: [of(SUBJECT), of(PEER)].concat(),
        multipath: false,
    }
}

/// Each has the other's route, with all that it carries, and the other as next hop.
fn exchange(ours: &dyn Speaker, theirs: &dyn Speaker, session: &str, family: Family) -> Outcome {
    up(ours, session)?;
    up(theirs, session)?;
    for (to, from) in [(ours, theirs), (theirs, ours)] {
        let (node, asn) = (from.plan().node, from.plan().asn);
        let prefix = match family {
            Family::V4 => format!("10.{node}.0.0/24"),
            Family::V6 => format!("2001:db8:{node}::/64"),
        };
        let path = present("a full route", to, session, &prefix)?;
        let mut found = path.carried.clone();
        // What a router shows for a route of an external neighbour is its own.
        if asn != to.plan().asn {
            found.local_pref = None;
        }
        same(
            &format!("{} of {} at {}", prefix, from.title(), to.title()),
            &Carried::full(asn, to.plan().asn),
            &found,
        )?;
        same("its next hop", &Some(to.plan().session(session).remote), &path.next_hop)?;
    }
    Ok(())
}

/// The source told one of them not to let a route out of its AS.
fn no_export(role: Role, from: &dyn Speaker, to: &dyn Speaker) -> Outcome {
    let node = from.plan().node;
    let (kept, other) = (format!("10.3{node}.3.0/24"), format!("10.3{node}.1.0/24"));
    present("a route of the source", from, "feed", &kept)?;
    if role != Role::External {
        return present("a route with no-export", to, "base4", &kept).map(drop);
    }
    // It would have come before or with this one.
    wait("the source's other route", || to.paths_from("base4", &other), |paths| !paths.is_empty())?;
    same("paths with no-export", &Vec::new(), &to.paths_from("base4", &kept))
}

fn router_id(node: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, node)
}

/// RFC 4456 sections 6 to 8.
fn reflection(role: Role, ours: &dyn Speaker, theirs: &dyn Speaker, fellow: &dyn Speaker) -> Outcome {
    let fellows = "10.4.0.0/24";
    let reflected = |speaker: &dyn Speaker, session: &str, prefix: &str, from: u8, by: u8| {
        let path = present("a reflected route", speaker, session, prefix)?;
        same("its originator", &Some(router_id(from)), &path.originator)?;
        same("its clusters", &vec![router_id(by)], &path.cluster_list)?;
        same("its next hop", &Some(v4(0, from)), &path.next_hop)?;
        same("what it carries", &Carried::full(OURS, OURS), &path.carried)
    };
    match role {
        Role::Client => {
            reflected(fellow, "up", "10.2.0.0/24", PEER, SUBJECT)?;
            reflected(theirs, "base4", fellows, FELLOW, SUBJECT)
        }
        Role::Reflector => {
            reflected(fellow, "up", "10.1.0.0/24", SUBJECT, PEER)?;
            reflected(ours, "base4", fellows, FELLOW, PEER)?;
            same("our own route from there", &Vec::new(), &ours.paths_from("base4", "10.1.0.0/24"))
        }
        // Between two that are no clients nothing is passed on.
        Role::Internal => {
            present("the fellow's route", ours, "fellow", fellows)?;
            present("our route", fellow, "up", "10.1.1.0/24")?;
            present("the peer's route", ours, "base4", "10.2.1.0/24")?;
            present("the source's route", fellow, "up", "10.31.2.0/24")?;
            same("the peer's routes at the fellow", &Vec::new(), &fellow.paths_from("up", "10.2.1.0/24"))?;
            same("the fellow's routes at the peer", &Vec::new(), &theirs.paths_from("base4", fellows))
        }
        Role::External => {
            let path = present("the fellow's route", theirs, "base4", fellows)?;
            same("its originator", &None, &path.originator)?;
            same("its clusters", &Vec::new(), &path.cluster_list)?;
            same("its path", &vec![OURS, BEFORE], &path.carried.as_path)
        }
    }
}

/// Of paths that went stale in a restart FRR 8.4 takes one back at end-of-RIB, and others when their time is over.
fn two_paths(speaker: &dyn Speaker, prefix: &str) -> Outcome {
    let what = format!("{} has two fresh paths to {prefix}", speaker.title());
    let is_so = |paths: &Vec<Path>| paths.iter().filter(|path| !path.stale).count() == 2;
    wait(&what, || speaker.paths_from("base4", prefix), is_so).map(drop)
}

/// One asks; its updates grow, and nothing goes down or away.
fn ask_again(asker: &dyn Speaker, other: &dyn Speaker) -> Outcome {
    let prefix = format!("10.{}.1.0/24", other.plan().node);
    present("the route", asker, "base4", &prefix)?;
    let before = asker.updates("base4");
    asker.ask_again("base4");
    let what = format!("{} gets updates again, more than {before}", asker.title());
    wait(&what, || asker.updates("base4"), |count| *count > before)?;
    same("the session", &true, &asker.is_up("base4"))?;
    present("the route, still", asker, "base4", &prefix).map(drop)
}

/// Both offer it, and what was refreshed in between is still there (RFC 7313 section 4).
fn enhanced(ours: &dyn Speaker, theirs: &dyn Speaker) -> Outcome {
    for speaker in [ours, theirs] {
        says(
            speaker,
            "base4",
            &[
                "enhanced-route-refresh:\tadvertised and received",
                "enhanced refresh",
                "enhancedRouteRefresh\":\"advertisedAndReceived",
            ],
        )?;
    }
    ask_again(ours, theirs)?;
    ask_again(theirs, ours)?;
    for (to, node) in [(ours, PEER), (theirs, SUBJECT)] {
        present("a route", to, "base4", &format!("10.{node}.0.0/24"))?;
        two_paths(to, &format!("10.3{node}.1.0/24"))?;
    }
    Ok(())
}

fn withdraw(ours: &dyn Speaker, theirs: &dyn Speaker) -> Outcome {
    for (session, family) in [("base4", Family::V4), ("base6", Family::V6)] {
        for (to, from) in [(ours, theirs), (theirs, ours)] {
            let node = from.plan().node;
            let prefix = match family {
                Family::V4 => format!("10.{node}.3.0/24"),
                Family::V6 => format!("2001:db8:{node}:3::/64"),
            };
            present("before", to, session, &prefix)?;
            from.withdraw(&Own::plain(prefix.clone()));
            absent("after", to, session, &prefix)?;
        }
    }
    Ok(())
}

/// Their routes stay while they are away, and are fresh when they are back.
fn they_restart(ours: &dyn Speaker, theirs: &mut dyn Speaker) -> Outcome {
    let kept = [("base4", "10.2.1.0/24"), ("base6", "2001:db8:2::/64")];
    for (session, prefix) in kept {
        present("before", ours, session, prefix)?;
    }
    theirs.kill();
    for (session, prefix) in kept {
        down(ours, session)?;
        same("paths that are kept", &1, &ours.paths_from(session, prefix).len())?;
    }
    theirs.start(true)?;
    for (session, prefix) in kept {
        up(ours, session)?;
        expect("fresh", ours, session, prefix, |path| !path.stale)?;
    }
    two_paths(ours, "10.32.1.0/24")
}

/// Ours stay there meanwhile: no look finds them gone.
fn we_restart(ours: &mut dyn Speaker, theirs: &dyn Speaker) -> Outcome {
    let kept = [("base4", "10.1.1.0/24"), ("base4", "10.31.2.0/24"), ("base6", "2001:db8:1::/64")];
    // A route of 5 kB does not go to everyone.
    let kept: Vec<_> =
        kept.into_iter().filter(|(session, prefix)| !theirs.paths_from(session, prefix).is_empty()).collect();
    present("before", theirs, "base4", "10.1.1.0/24")?;
    two_paths(theirs, "10.31.1.0/24")?;
    ours.kill();
    for (session, prefix) in &kept {
        down(theirs, session)?;
        same("paths that are kept", &1, &theirs.paths_from(session, prefix).len())?;
    }
    ours.start(true)?;
    let looks = || {
        let counts = theirs.paths_from("base4", "10.31.1.0/24").len();
        (counts, theirs.is_up("base4") && theirs.is_up("base6"))
    };
    let found = wait("kept until it is back", looks, |(count, is_up)| *count == 0 || *is_up)?;
    same("a route of the source is there", &true, &(found.0 > 0))?;
    for (session, prefix) in &kept {
        expect("fresh", theirs, session, prefix, |path| !path.stale)?;
    }
    two_paths(theirs, "10.31.1.0/24")
}

/// A session for each way to have one.
fn ways(column: Column) -> Vec<[Session; 2]> {
    let at = |end: u8, set: fn(&mut Session)| {
        move |session: &mut Session, near: u8| {
            if near == end {
                set(session);
            }
        }
    };
    let long_lived = |session: &mut Session, _| {
        (session.graceful, session.long_lived) = (Some(1), Some(60));
    };
    let over6 = |session: &mut Session, _| {
        (session.families, session.extended_next_hop) = (vec![Family::V4], true);
    };
    let limit: fn(&mut Session) = |session| session.prefixes_max = Some(1);
    let dynamic: fn(&mut Session) = |session| session.dynamic = true;
    let passive: fn(&mut Session) = |session| session.passive = true;
    vec![
        between(column, "stays", v4, 0, long_lived),
        between(column, "dyn_ours", v4, 4, at(SUBJECT, dynamic)),
        between(column, "dyn_theirs", v4, 5, at(PEER, dynamic)),
        between(column, "limit_ours", v4, 6, at(SUBJECT, limit)),
        between(column, "limit_theirs", v4, 7, at(PEER, limit)),
        between(column, "over6", v6, 8, over6),
        between(column, "passive_ours", v4, 9, at(SUBJECT, passive)),
        between(column, "passive_theirs", v4, 10, at(PEER, passive)),
        between(column, "password", v4, 1, |session, _| session.password = Some("nine-lives")),
        between(column, "wrong", v4, 3, |session, end| {
            session.password = Some(if end == SUBJECT { "one" } else { "another" });
        }),
        between(column, "secured", v4, 2, |session, _| session.secured = true),
        between(column, "bfd", v4, 11, |session, _| session.bfd = column.lacking(Feature::Bfd).is_none()),
    ]
}

/// Two nodes with a session for each way to have one.
pub(crate) fn sessions(column: Column) -> Result<Outcomes, String> {
    let lab = Lab::new(2);
    let [mut ours, mut theirs] = pair(column, &lab, ways(column), [Vec::new(), Vec::new()], true)?;
    let both_up = |session: &str| {
        up(&*ours, session)?;
        up(&*theirs, session)?;
        present("theirs", &*ours, session, "10.2.1.0/24")?;
        present("ours", &*theirs, session, "10.1.1.0/24").map(drop)
    };
    let mut results = Results(column, Vec::new());
    results.cell(Feature::WeAreDynamic, || both_up("dyn_ours"));
    results.cell(Feature::TheyAreDynamic, || both_up("dyn_theirs"));
    results.cell(Feature::Passive, || {
        both_up("passive_ours")?;
        both_up("passive_theirs")
    });
    results.cell(Feature::Password, || {
        both_up("password")?;
        same(
            "the session with another password",
            &[false, false],
            &[&ours, &theirs].map(|end| end.is_up("wrong")),
        )
    });
    results.cell(Feature::Secured, || both_up("secured"));
    results.cell(Feature::ExtendedNextHop, || {
        both_up("over6")?;
        for (to, node) in [(&ours, PEER), (&theirs, SUBJECT)] {
            let path = present("a route", &**to, "over6", &format!("10.{node}.1.0/24"))?;
            same("its next hop", &Some(v6(8, node)), &path.next_hop)?;
        }
        Ok(())
    });
    results.cell(Feature::WeSpread, || spreads(&*ours, "10.2.1.0/24"));
    results.cell(Feature::TheySpread, || spreads(&*theirs, "10.1.1.0/24"));
    results.cell(Feature::WeLimit, || limited(&*ours, &*theirs, "limit_ours"));
    results.cell(Feature::TheyLimit, || limited(&*theirs, &*ours, "limit_theirs"));
    results.cell(Feature::LongLived, || {
        stays_long(&*ours, &mut *theirs, "10.2.1.0/24")?;
        stays_long(&*theirs, &mut *ours, "10.1.1.0/24")
    });
    // The last one: it cuts the wire.
    results.cell(Feature::Bfd, || path_breaks(&lab, &*ours, &*theirs));
    Ok(results.1)
}

/// Several sessions brought the same route, each with a next hop of its own.
fn spreads(speaker: &dyn Speaker, prefix: &str) -> Outcome {
    let what = format!("{}'s kernel has {prefix} over several next hops", speaker.title());
    wait(&what, || speaker.hops(prefix), |count| *count > 1).map(drop)
}

/// RFC 5880 and 5882: both give the session up because of BFD, long before the hold time of 30 s is over.
fn path_breaks(lab: &Lab, ours: &dyn Speaker, theirs: &dyn Speaker) -> Outcome {
    for end in [ours, theirs] {
        up(end, "bfd")?;
        let what = format!("{} has BFD up", end.title());
        wait(&what, || end.bfd_is_up("bfd"), |is_up| *is_up).map_err(|why| why + &end.about("bfd"))?;
    }
    lab.cut(PEER);
    for end in [ours, theirs] {
        says(end, "bfd", &["nothing came for", "BFD session down", "Cease/BFD Down"])?;
        down(end, "bfd")?;
    }
    Ok(())
}

/// The one who limits says so, and so does the other, who was told (RFC 4486).
fn limited(limiter: &dyn Speaker, other: &dyn Speaker, session: &str) -> Outcome {
    says(
        limiter,
        session,
        &["prefixes of ipv4", "PFXCT", "maxpfxexceed", "route limit exceeded", "6/1", "subcode\":1"],
    )?;
    says(other, session, &["maximum number of prefixes", "max prefixes", "6/1", "subcode\":1"])?;
    down(limiter, session)
}

/// A route is kept beyond the restart time, and marked (RFC 9494).
fn stays_long(helper: &dyn Speaker, other: &mut dyn Speaker, prefix: &str) -> Outcome {
    up(helper, "stays")?;
    present("before", helper, "stays", prefix)?;
    other.kill();
    expect("long-lived stale", helper, "stays", prefix, |path| {
        path.carried.communities.contains(LLGR_STALE)
    })?;
    other.start(true)?;
    up(helper, "stays")?;
    expect("fresh", helper, "stays", prefix, |path| !path.carried.communities.contains(LLGR_STALE)).map(drop)
}
