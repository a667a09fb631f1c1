//! What the API has for MRT: dumps that begin and end, and routes of files that come as a stream of paths.

use super::{
    api, attributes, family, paths, proto,
    service::{only_global, status},
    version3,
};
use crate::{
    Handle,
    config::{ChangeError, MrtDump, MrtKind},
    handle::Refusal,
};
use isthmus_bgp::{Attributes, Nlri};
use std::{
    path::{Component, PathBuf},
    time::Duration,
};
use tonic::{Response, Status, Streaming};

/// Where clients of the API may have files written. A file has bytes in it that a client chose, as attributes of its own
/// routes: whoever may write anywhere can become whoever runs the speaker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DumpFiles {
    /// Nowhere.
    #[default]
    Nowhere,
    /// Within a directory.
    Within(PathBuf),
    /// Anywhere: whoever reaches the API is who runs the speaker.
    Anywhere,
}

impl DumpFiles {
    fn place(&self, name: &str) -> Result<String, Status> {
        let directory = match self {
            Self::Anywhere => return Ok(name.to_owned()),
            Self::Within(directory) => directory,
            Self::Nowhere => {
                let text = "clients of this API may have no files written: start the speaker with --mrt-directory, or write [[mrt-dump]] into its file";
                return Err(Status::permission_denied(text));
            }
        };
        let path = directory.join(name);
        let is_within =
            path.starts_with(directory) && path.components().all(|part| part != Component::ParentDir);
        let text = format!("files are only written within {}: \"{name}\" is not", directory.display());
        is_within.then(|| path.display().to_string()).ok_or_else(|| Status::permission_denied(text))
    }

    /// The name of a dump as it was made with.
    pub(super) fn known(&self, name: &str) -> String {
        self.place(name).unwrap_or_else(|_elsewhere| name.to_owned())
    }
}

/// Reads what shall be dumped, by the rules of the file.
pub(super) fn read_dump(request: &proto::EnableMrtRequest, files: &DumpFiles) -> Result<MrtDump, Status> {
    use proto::enable_mrt_request::DumpType;
    let kind = match DumpType::try_from(request.r#type) {
        Ok(DumpType::Updates) => MrtKind::Updates,
        Ok(DumpType::Table) => MrtKind::Table,
        Err(_) => {
            return Err(Status::invalid_argument(format!("there is no dump of type {}", request.r#type)));
        }
    };
    let seconds = |seconds: u64| Some(Duration::from_secs(seconds));
    let (rotation, interval) = (seconds(request.rotation_interval), seconds(request.dump_interval));
    let dump = MrtDump::new(kind, request.filename.clone(), rotation, interval).map_err(|faults| {
        let text =
            faults.into_iter().map(|(key, why)| format!("{key}: {why}")).collect::<Vec<_>>().join("; ");
        status(&Refusal::Change(ChangeError::fault("mrt-dump.config", text)))
    })?;
    Ok(MrtDump { file_name: files.place(&request.filename)?, ..dump })
}

/// Which table a message of a stream means, and the paths in it.
type Batch = (i32, Vec<Result<api::Path, Status>>);

/// Takes a stream of paths. One that cannot be read is left out, and told at the end: files of whole tables have some that
/// no speaker wants.
///
/// This goes on in a task of its own: the stock client 3.10 sends its last paths and leaves without waiting for an answer,
/// whereupon the call, with what it has not read yet, would be dropped.
pub(super) async fn inject<M: Send + 'static>(
    speaker: Handle,
    mut requests: Streaming<M>,
    read: fn(M) -> Batch,
) -> Result<Response<proto::Empty>, Status> {
    let injecting = tokio::spawn(async move {
        let mut injection = Injection { speaker, taken: 0, refused: 0, first_refusal: None };
        while let Some(request) = requests.message().await.inspect_err(|why| injection.cut_off(why))? {
            let (table_type, paths) = read(request);
            only_global(table_type)?;
            injection.add(paths).await?;
        }
        injection.finish()
    });
    injecting.await.map_err(|why| Status::internal(why.to_string()))?
}

struct Injection {
    speaker: Handle,
    taken: u64,
    refused: u64,
    first_refusal: Option<Status>,
}

impl Injection {
    /// Takes the paths of one message, all at once.
    async fn add(&mut self, shown: Vec<Result<api::Path, Status>>) -> Result<(), Status> {
        let mut taken = Vec::with_capacity(shown.len());
        for path in shown {
            match path.and_then(|path| read(&path)) {
                Ok(path) => taken.push(path),
                Err(why) => {
                    self.refused += 1;
                    self.first_refusal.get_or_insert(why);
                }
            }
        }
        self.taken += taken.len() as u64;
        self.speaker.inject(taken).await.map_err(|why| status(&why))
    }

    /// Nobody waits for the answer.
    fn cut_off(&self, why: &Status) {
        let (taken, refused) = (self.taken, self.refused);
        tracing::debug!(taken, refused, %why, "a client left its stream of paths without waiting for the answer");
    }

    /// The answer to the stream: an error if any path was left out.
    fn finish(self) -> Result<Response<proto::Empty>, Status> {
        let Some(first) = self.first_refusal else { return Ok(Response::new(proto::Empty {})) };
        let (taken, refused) = (self.taken, self.refused);
        let text = format!("{taken} paths were taken and {refused} were not; the first: {}", first.message());
        Err(Status::new(first.code(), text))
    }
}

fn read(path: &api::Path) -> Result<(Nlri, Option<Attributes>), Status> {
    if path.is_withdraw {
        return Ok((paths::read_nlri(path)?, None));
    }
    paths::read(path).map(|(nlri, attributes)| (nlri, Some(attributes)))
}

/// A path as a client of version 3 puts it into such a stream; without attributes one that is taken away.
pub(crate) fn show_injected(nlri: Nlri, attributes: Option<&Attributes>) -> proto::Path {
    version3::path(api::Path {
        nlri: Some(attributes::nlri(nlri.prefix)),
        pattrs: attributes.map(|attributes| attributes::show(attributes, nlri.prefix)).unwrap_or_default(),
        is_withdraw: attributes.is_none(),
        family: Some(family(nlri.prefix.family())),
        identifier: nlri.path_id.0,
        ..api::Path::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_read_by_the_rules_of_the_file() {
        let request = |kind, name: &str, dump_interval, rotation_interval| proto::EnableMrtRequest {
            r#type: kind,
            filename: name.to_owned(),
            dump_interval,
            rotation_interval,
        };
        let read_dump = |request: proto::EnableMrtRequest| read_dump(&request, &DumpFiles::Anywhere);
        let dump = read_dump(request(1, "/t", 0, 0)).unwrap();
        assert_eq!((dump.kind, dump.interval), (MrtKind::Table, Some(Duration::from_mins(1))));
        let dump = read_dump(request(0, "/u", 5, 7)).unwrap();
        assert_eq!(
            (dump.kind, dump.interval, dump.rotation),
            (MrtKind::Updates, None, Some(Duration::from_secs(7)))
        );
        for (bad, why) in [
            (request(2, "/t", 0, 0), "no dump of type 2"),
            (request(0, "", 0, 0), "names no file"),
            (request(1, "/t", 60, 60), "exclude each other"),
        ] {
            let refused = read_dump(bad).unwrap_err();
            assert!(refused.message().contains(why), "{refused}");
        }
    }

    #[test]
    fn files_are_only_where_clients_may_have_them() {
        let within = DumpFiles::Within("/var/mrt".into());
        for (name, expected) in [("a/u.mrt", "/var/mrt/a/u.mrt"), ("/var/mrt/u.mrt", "/var/mrt/u.mrt")] {
            assert_eq!(within.place(name).unwrap(), expected);
        }
        for name in ["/etc/profile.d/x.sh", "../x", "a/../../x", "/var/mrt/../x", "/var/mrtx/u"] {
            assert_eq!(within.place(name).unwrap_err().code(), tonic::Code::PermissionDenied, "{name}");
        }
        assert!(DumpFiles::Nowhere.place("u").unwrap_err().message().contains("--mrt-directory"));
        assert_eq!(DumpFiles::Anywhere.place("/x").unwrap(), "/x");
    }

    #[test]
    fn an_injected_path_is_read_as_it_was() {
        let nlri = Nlri { prefix: "2001:db8::/32".parse().unwrap(), path_id: isthmus_bgp::PathId(7) };
        let attributes = Attributes::local(isthmus_bgp::Origin::Egp);
        let shown = version3::read_path(&show_injected(nlri, Some(&attributes))).unwrap();
        assert_eq!(read(&shown).unwrap(), (nlri, Some(attributes)));
        let shown = version3::read_path(&show_injected(nlri, None)).unwrap();
        assert_eq!(read(&shown).unwrap(), (nlri, None));
        // What `gobgp mrt inject` says of who sent it tells paths apart.
        let from = api::Path { identifier: 0, source_id: "0.0.0.9".to_owned(), ..shown };
        assert_eq!(read(&from).unwrap().0.path_id.0, 9);
    }
}
