//! A process that is killed between or within commits loses nothing that it acknowledged.
//!
//! The writer is this same test binary, started again with a variable that names the file.
#![expect(clippy::unwrap_used, reason = "a test may panic; the lint only knows functions marked as tests")]

use isthmus_store::{Operation, RedbStore, Store, Txn};
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::Arc,
};

const FILE_VARIABLE: &str = "ISTHMUS_STORE_CRASH_FILE";

/// Writes until it is killed, from eight tasks at once, and says each acknowledged key on standard output.
#[test]
fn writer_of_the_crash_test() {
    let Ok(path) = std::env::var(FILE_VARIABLE) else { return };
    let store = Arc::new(RedbStore::open(path).unwrap());
    let start = store.revision().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..8 {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                for n in 0.. {
                    let key = format!("{start}-{writer}-{n}");
                    let twin = Operation::put(format!("twin-{key}"), vec![1; 2_000]);
                    let txn = Txn::new().then(Operation::put(key.clone(), vec![1; 2_000])).then(twin);
                    let revision = store.commit(txn).await.unwrap().revision();
                    let line = format!("acknowledged {key} {revision}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
        }
        writers.join_next().await;
    });
}

fn start_writer(path: &std::path::Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer_of_the_crash_test", "--nocapture", "--test-threads=1"])
        .env(FILE_VARIABLE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The next key and revision that the writer acknowledged; a torn last line does not count.
fn next_acknowledged(output: &mut impl BufRead) -> Option<(String, u64)> {
    loop {
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let whole = line.strip_suffix('\n')?;
        if let Some((key, revision)) =
            whole.strip_prefix("acknowledged ").and_then(|rest| rest.split_once(' '))
        {
            return Some((key.to_owned(), revision.parse().unwrap()));
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.redb");
    let mut acknowledged = Vec::new();
    for round in 1..=5 {
        let mut writer = start_writer(&path);
        let mut output = BufReader::new(writer.stdout.take().unwrap());
        acknowledged.extend(std::iter::from_fn(|| next_acknowledged(&mut output)).take(100 + 37 * round));
        writer.kill().unwrap();
        writer.wait().unwrap();
        acknowledged.extend(std::iter::from_fn(|| next_acknowledged(&mut output)));

        let store = RedbStore::open(&path).unwrap();
        for (key, revision) in &acknowledged {
            let entry = store.entry(key).unwrap().unwrap_or_else(|| panic!("{key} is lost in round {round}"));
            assert_eq!(entry.mod_revision, *revision);
        }
        let all = store.range("", None, 0).unwrap().entries;
        let twins = all.iter().filter(|entry| entry.key.starts_with("twin-")).count();
        assert_eq!(all.len(), 2 * twins, "a transaction was carried out in part");
    }
    assert!(acknowledged.len() > 500);
}
