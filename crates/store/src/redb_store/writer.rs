//! The one writer: takes what waits, carries it out in one transaction of the database, answers.

use super::{LeaseTime, Shared, tables::WriteTables};
use crate::{
    Batch, Committed, LeaseId, Revision, StoreError, Txn,
    apply::{self, Tables},
    limits::{GROUP_BYTES_MAX, GROUP_MAX},
};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Something to write, and whom to answer. Transactions are checked before they are queued.
pub(super) enum Job {
    Commit { txn: Txn, reply: Reply<Committed> },
    Grant { ttl: Duration, now: Instant, reply: Reply<LeaseId> },
    Revoke { lease: LeaseId, if_over_at: Option<Instant>, reply: Reply<Revoked> },
}

/// What became of a lease.
#[derive(Clone, Copy, Debug)]
pub(super) struct Revoked {
    pub(super) revision: Revision,
    /// Whether it was there, and is gone now.
    pub(super) ended: bool,
}

/// What a job came to, before it is on the disk.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Committed(Committed),
    Granted(LeaseId),
    Revoked(Revoked),
}

type Outcomes = Vec<Result<Outcome, StoreError>>;

/// Writes until nobody can ask any more.
pub(super) fn run(shared: &Shared, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut bytes = 0;
        let mut jobs = vec![first];
        while jobs.len() < GROUP_MAX && bytes < GROUP_BYTES_MAX {
            let Ok(job) = queue.try_recv() else { break };
            bytes += job.bytes();
            jobs.push(job);
        }
        write(shared, jobs);
    }
}

/// Writes the jobs together; if they do not fit on the disk together, one by one.
pub(super) fn write(shared: &Shared, jobs: Vec<Job>) {
    match write_group(shared, &jobs) {
        Ok(outcomes) => answer(shared, jobs, outcomes),
        Err(StoreError::Full { .. }) if jobs.len() > 1 => {
            for job in jobs {
                write(shared, vec![job]);
            }
        }
        Err(error) => jobs.into_iter().for_each(|job| job.fail(error.clone())),
    }
}

/// Writes the jobs in one transaction, after opening the database again if an earlier failure asks for it.
fn write_group(shared: &Shared, jobs: &[Job]) -> Result<Outcomes, StoreError> {
    let mut may_try_again = true;
    loop {
        let mut carried_out = None;
        let (generation, result) = shared.with(|database| commit(database, shared, jobs, &mut carried_out));
        let Err(error) = result else { return carried_out.map(|done| done.0).ok_or(StoreError::Closed) };
        shared.reopen(generation)?;
        match carried_out {
            // It was closed before we began: somebody else's failure.
            None if super::is_closed(&error) && may_try_again => may_try_again = false,
            // The changes are there although the database failed while it made them durable.
            Some((outcomes, Some(newest))) if newest <= shared.hub.newest() => return Ok(outcomes),
            _ => return Err(shared.error("write", &error)),
        }
    }
}

/// Carries out the jobs, makes them durable, and tells the watches.
///
/// `carried_out` is there as soon as nothing but the disk can still fail: the outcomes and the newest revision.
fn commit(
    database: &redb::Database,
    shared: &Shared,
    jobs: &[Job],
    carried_out: &mut Option<(Outcomes, Option<Revision>)>,
) -> Result<(), redb::Error> {
    let txn = database.begin_write()?;
    let mut tables = WriteTables::open(&txn)?;
    let mut outcomes = Vec::with_capacity(jobs.len());
    let mut batches = Vec::new();
    for job in jobs {
        let applied = apply_job(&mut tables, shared, job);
        if let Some(error) = tables.error.take() {
            return Err(error);
        }
        outcomes.push(applied.map(|(outcome, batch)| {
            batches.extend(batch);
            outcome
        }));
    }
    let dirty = tables.dirty;
    drop(tables);
    *carried_out = Some((outcomes, batches.last().map(|newest: &Batch| newest.revision)));
    if !dirty {
        return Ok(txn.abort()?);
    }
    shared.set_in_doubt(batches);
    txn.commit()?;
    shared.hub.publish(shared.take_in_doubt());
    Ok(())
}

fn apply_job(tables: &mut WriteTables<'_>, shared: &Shared, job: &Job) -> apply::Applied<Outcome> {
    match job {
        Job::Commit { txn, .. } => {
            let (committed, batch) = apply::commit(tables, txn)?;
            Ok((Outcome::Committed(committed), batch))
        }
        Job::Grant { ttl, .. } => Ok((Outcome::Granted(apply::grant(tables, *ttl)?), None)),
        Job::Revoke { lease, if_over_at, .. } => {
            let still = if_over_at
                .is_some_and(|now| shared.leases().get(lease).is_none_or(|time| !time.is_over(now)));
            let ended = !still && tables.has_lease(*lease)?;
            if !ended {
                let revision = tables.revision()?;
                return Ok((Outcome::Revoked(Revoked { revision, ended }), None));
            }
            let (revision, batch) = apply::revoke(tables, *lease)?;
            Ok((Outcome::Revoked(Revoked { revision, ended }), batch))
        }
    }
}

/// Tells the callers. The watches know already: who is told that a change is made finds it in every watch.
fn answer(shared: &Shared, jobs: Vec<Job>, outcomes: Outcomes) {
    for (job, outcome) in jobs.into_iter().zip(outcomes) {
        // A caller that has gone does not want the answer.
        match (job, outcome) {
            (Job::Commit { reply, .. }, Ok(Outcome::Committed(committed))) => drop(reply.send(Ok(committed))),
            (Job::Grant { ttl, now, reply }, Ok(Outcome::Granted(lease))) => {
                shared.leases().insert(lease, LeaseTime { ttl, ends: now.checked_add(ttl) });
                drop(reply.send(Ok(lease)));
            }
            (Job::Revoke { lease, reply, .. }, Ok(Outcome::Revoked(revoked))) => {
                if revoked.ended {
                    shared.leases().remove(&lease);
                }
                drop(reply.send(Ok(revoked)));
            }
            (job, Err(error)) => job.fail(error),
            (_, Ok(_)) => unreachable!("each job has the outcome of its kind"),
        }
    }
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Commit { txn, .. } => apply::txn_bytes(txn),
            Self::Grant { .. } | Self::Revoke { .. } => 0,
        }
    }

    fn fail(self, error: StoreError) {
        match self {
            Self::Commit { reply, .. } => drop(reply.send(Err(error))),
            Self::Grant { reply, .. } => drop(reply.send(Err(error))),
            Self::Revoke { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}
