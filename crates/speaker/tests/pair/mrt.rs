//! One of the two dumps what it hears.

use crate::rig::{Speaker, config, text, wait};
use isthmus_speaker::{
    ClientError, Nlri, Options, PathId,
    client::{Injected, Route},
    gobgp::{api, proto},
    mrt::{
        format::{Item, Reader, Seen, Unfolder},
        open,
    },
};
use std::{fs, path::Path};
use tempfile::tempdir;
use tokio::sync::mpsc;
use tonic::Code;

fn dump(kind: &str, file: &Path, rest: &str) -> String {
    format!(
        "[[mrt-dump]]\n[mrt-dump.config]\ndump-type = \"{kind}\"\nfile-name = \"{}\"\n{rest}",
        file.display()
    )
}

/// Their prefixes, and whether they are of the speaker itself.
fn prefixes(routes: &[Route]) -> Vec<(&str, bool)> {
    let mut prefixes: Vec<_> =
        routes.iter().map(|route| (route.prefix.as_str(), route.neighbor.is_none())).collect();
    prefixes.sort_unstable();
    prefixes
}

/// All that a file says; nothing while it is not there.
fn read(file: &Path) -> Vec<Seen> {
    let Ok(input) = open(file) else { return Vec::new() };
    let mut unfolder = Unfolder::new();
    // The last record may be on its way.
    Reader::new(input).map_while(Result::ok).flat_map(|record| unfolder.unfold(record)).collect()
}

fn words(seen: &[Seen]) -> Vec<String> {
    let word = |one: &Seen| match &one.item {
        Item::Announced { nlri, .. } => format!("+{}", nlri.prefix),
        Item::Withdrawn { nlri, .. } => format!("-{}", nlri.prefix),
        Item::State { old, new } => format!("{old}>{new}"),
        Item::Path { nlri, .. } => {
            format!("{} from {} AS{}", nlri.prefix, one.origin.address, one.origin.asn)
        }
        other => format!("{other:?}"),
    };
    seen.iter().map(word).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_is_dumped_while_the_file_says_so() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("new/updates.mrt");
    let (one, two) = (text(101, 1, 2, ""), text(101, 2, 1, ""));
    let ours = Speaker::start(&one).await;
    let theirs = Speaker::start(&two).await;
    theirs.inject(&["10.1.0.0/24"]).await;
    ours.wait_routes("the routes are there", 1).await;
    ours.reloads.send(config(&format!("{one}{}", dump("updates", &file, "")))).await.unwrap();
    wait("the dump is there", || async { file.exists().then_some(()) }).await;
    theirs.inject(&["10.1.1.0/24", "10.1.2.0/24"]).await;
    wait("what comes is in it", || async { (read(&file).len() == 2).then_some(()) }).await;
    let seen = read(&file);
    assert_eq!(seen[0].origin.asn.0, 65_002);
    assert!(seen[0].time.micros.is_some());
    let status = ours.dumps().await;
    assert_eq!((status.len(), status[0].kind.as_str(), status[0].problem.as_str()), (1, "updates", ""));
    assert_eq!(status[0].file, file.display().to_string());
    assert!(status[0].records >= 1 && status[0].bytes > 0 && status[0].lost == 0);
    // The session goes while the dump runs.
    theirs.stop().await;
    let is_down = |seen: &[Seen]| words(seen).contains(&"established>idle".to_owned());
    wait("the state is in it", || async { is_down(&read(&file)).then_some(()) }).await;
    assert_eq!(words(&read(&file))[..2], ["+10.1.1.0/24", "+10.1.2.0/24"]);
    ours.reloads.send(config(&one)).await.unwrap();
    wait("the dump ends", || async { ours.dumps().await.is_empty().then_some(()) }).await;
    let length = fs::metadata(&file).unwrap().len();
    let theirs = Speaker::start(&two).await;
    theirs.inject(&["10.1.3.0/24"]).await;
    ours.wait_routes("the routes are there", 1).await;
    assert_eq!(fs::metadata(&file).unwrap().len(), length, "nothing is dumped any longer");
    theirs.stop().await;
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_is_dumped_again_and_again_as_it_came() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("table.mrt");
    let policy = "[global.apply-policy.config]\ndefault-import-policy = \"reject-route\"\n";
    let dump = dump("table", &file, "dump-interval = 1\n");
    let ours = Speaker::start(&text(102, 1, 2, &format!("{policy}{dump}"))).await;
    let theirs = Speaker::start(&text(102, 2, 1, "")).await;
    ours.inject(&["10.9.0.0/24"]).await;
    theirs.inject(&["10.1.0.0/24"]).await;
    // What policy refuses is dumped too: it is what the neighbour sent.
    let expected = ["10.1.0.0/24 from 127.0.102.2 AS65002", "10.9.0.0/24 from 0.0.0.0 AS65001"];
    let sorted = |seen: &[Seen]| {
        let mut words = words(seen);
        words.sort();
        words
    };
    wait("both are in it", || async { (sorted(&read(&file)) == expected).then_some(()) }).await;
    theirs.inject(&["10.1.1.0/24"]).await;
    wait("a later one is too", || async { (read(&file).len() == 3).then_some(()) }).await;
    let mut bytes = Vec::new();
    let take = |piece: &[u8], _, left_out| {
        assert_eq!(left_out, 0);
        bytes.extend(piece);
        Ok::<_, ClientError>(())
    };
    ours.client().await.dump_table(take).await.unwrap();
    let mut unfolder = Unfolder::new();
    let now: Vec<Seen> =
        Reader::new(bytes.as_slice()).flat_map(|record| unfolder.unfold(record.unwrap())).collect();
    assert_eq!(sorted(&now), sorted(&read(&file)));
    assert_eq!(ours.dumps().await[0].problem, "");
    ours.stop().await;
    theirs.stop().await;
    let left: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["table.mrt"], "nothing half done is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_written_are_told_and_tried_again() {
    let directory = tempdir().unwrap();
    let obstacle = directory.path().join("obstacle");
    fs::write(&obstacle, "a file where a directory should be").unwrap();
    let (updates, table) = (obstacle.join("updates.mrt"), obstacle.join("table.mrt"));
    let dumps = dump("updates", &updates, "")
        + &dump("table", &table, "dump-interval = 1\n")
        + &dump("updates", Path::new("/dev/full"), "");
    let ours = Speaker::start(&text(103, 1, 2, &dumps)).await;
    let theirs = Speaker::start(&text(103, 2, 1, "")).await;
    theirs.inject(&["10.1.0.0/24"]).await;
    ours.wait_routes("the routes are there", 1).await;
    let problems = || async {
        let dumps = ours.dumps().await;
        dumps.iter().all(|dump| !dump.problem.is_empty()).then_some(dumps)
    };
    let dumps = wait("all problems are told", problems).await;
    let of = |name: &str| dumps.iter().find(|dump| dump.file_name.ends_with(name)).unwrap().clone();
    assert!(of("full").problem.contains("No space left on device"), "{dumps:?}");
    assert!(of("updates.mrt").problem.contains("directory cannot be made"), "{dumps:?}");
    assert!(of("table.mrt").problem.contains("directory cannot be made"), "{dumps:?}");
    assert!(of("updates.mrt").lost > 0);
    fs::remove_file(&obstacle).unwrap();
    // What comes while nothing can be written is lost; what comes behind the pause is there.
    let written = || async {
        theirs.inject(&["10.1.1.0/24"]).await;
        let dumps = ours.dumps().await;
        let well = dumps.iter().filter(|dump| dump.problem.is_empty()).count();
        (well == 2 && updates.exists() && table.exists()).then_some(())
    };
    wait("two are well again", written).await;
    assert!(!read(&table).is_empty());
    ours.stop().await;
    theirs.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dumps_begin_and_end_through_both_versions_of_the_api() {
    let directory = tempdir().unwrap();
    let file = directory.path().join("updates.mrt");
    let ours = Speaker::start_with(
        &text(104, 1, 2, ""),
        Options { mrt_directory: Some(directory.path().to_owned()), ..Options::default() },
    )
    .await;
    let mut three = ours.raw().await;
    let filename = file.display().to_string();
    let enable = |kind, filename: &str| proto::EnableMrtRequest {
        r#type: kind,
        filename: filename.to_owned(),
        ..proto::EnableMrtRequest::default()
    };
    three.enable_mrt(enable(0, &filename)).await.unwrap();
    wait("the file is there", || async { file.exists().then_some(()) }).await;
    let again = three.enable_mrt(enable(0, &filename)).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists, "{again}");
    let mut four = api::go_bgp_service_client::GoBgpServiceClient::connect(format!("http://{}", ours.api))
        .await
        .unwrap();
    // Version 4 counts from 1.
    four.enable_mrt(enable(2, &format!("{filename}.table"))).await.unwrap();
    let elsewhere = three.enable_mrt(enable(0, "/etc/x.mrt")).await.unwrap_err();
    assert_eq!(elsewhere.code(), Code::PermissionDenied, "{elsewhere}");
    let kinds: Vec<String> = ours.dumps().await.into_iter().map(|dump| dump.kind).collect();
    assert_eq!(kinds, ["updates", "table"]);
    // What came through the API outlives a reload.
    ours.reloads.send(config(&text(104, 1, 3, ""))).await.unwrap();
    wait("the file is read", || async {
        let peers = ours.client().await.peers(None).await.unwrap();
        peers[0].conf.as_ref()?.neighbor_address.ends_with(".3").then_some(())
    })
    .await;
    assert_eq!(ours.dumps().await.len(), 2);
    let disable = proto::DisableMrtRequest { filename };
    four.disable_mrt(disable.clone()).await.unwrap();
    assert_eq!(ours.dumps().await.len(), 1);
    assert_eq!(three.disable_mrt(disable).await.unwrap_err().code(), Code::NotFound);
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_paths_leaves_out_what_cannot_be_and_goes_on() {
    let ours = Speaker::start(&text(105, 1, 2, "")).await;
    ours.inject(&["10.1.0.0/24", "10.1.1.0/24"]).await;
    ours.wait_routes("the routes are there", 2).await;
    // What is not there is withdrawn without a word.
    let nlri = |prefix: &str| Nlri { prefix: prefix.parse().unwrap(), path_id: PathId(0) };
    let (batches, taken) = mpsc::channel(1);
    let withdrawn =
        ["10.1.1.0/24", "10.7.0.0/24"].map(|prefix| Injected { nlri: nlri(prefix), attributes: None });
    batches.send(withdrawn.to_vec()).await.unwrap();
    drop(batches);
    ours.client().await.inject(taken).await.unwrap();
    assert_eq!(prefixes(&ours.routes(None).await), [("10.1.0.0/24", true)]);
    let path = |prefix: &str, len| {
        let prefix = proto::IpAddressPrefix { prefix_len: len, prefix: prefix.to_owned() };
        let value = prost::Message::encode_to_vec(&prefix);
        let nlri = proto::Any { type_url: "type.googleapis.com/apipb.IPAddressPrefix".to_owned(), value };
        proto::Path { nlri: Some(nlri), ..proto::Path::default() }
    };
    let request = proto::AddPathStreamRequest {
        paths: vec![path("10.2.0.0", 24), path("10.3.0.0", 64), path("10.4.0.0", 24)],
        ..proto::AddPathStreamRequest::default()
    };
    let refused = ours.raw().await.add_path_stream(futures::stream::iter([request])).await.unwrap_err();
    assert!(
        refused.message().contains("2 paths were taken and 1 were not; the first: 10.3.0.0/64 is no prefix"),
        "{refused}"
    );
    let routes = ours.wait_routes("the routes are there", 3).await;
    assert_eq!(prefixes(&routes)[2], ("10.4.0.0/24", true));
    ours.stop().await;
}
