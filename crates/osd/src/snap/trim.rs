//! Trimming: removed snapshots leave the objects that still have them, in the background.
//!
//! As in Ceph a few PGs trim at a time, each of them one snapshot and a few objects of it, with a pause
//! after these; then another PG has its turn. Each object is one logged transaction, under the object's
//! lock; aggregation, which returns the space of what nobody sees any more, comes with it, so that what
//! is done at a time is one batch of the WAL. The index entries of a snapshot go last, with the note that
//! the PG has purged it: so a restart takes up again what was not finished.

mod object;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, LocalBoxFuture, join_all, pending, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use spirula_maps::{SnapIntervals, flags};
use spirula_store::StoreError;
use spirula_vos::ReadError;
use spirula_wire::types::{PgId, SnapId};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};
use spirula_xstream::{sleep, yield_now};

use crate::apply::meta_object;
use crate::object::dkey;
use crate::options::Options;
use crate::pg::Pg;
use crate::target::{Target, TargetError};
use object::{purge, trim_object};

/// Index entries looked at at a time.
const BATCH: usize = 64;
/// Until what could not be done is tried again.
const RETRY: Duration = Duration::from_secs(5);
const PURGED_VERSION: u8 = 1;

/// Whether a PG has removed snapshots to trim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Trimming {
    /// No, or it must not.
    #[default]
    No,
    Waits,
    Runs,
    /// It could not be done; it is tried again.
    Failed,
}

/// How it came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// The PG must not go on, or is no longer ours.
    Stopped,
    /// An error, which was logged.
    Failed,
}

/// Trims for ever.
pub async fn run(target: Target) -> Result<(), TargetError> {
    let mut trimmer = Trimmer { target, jobs: FuturesUnordered::new(), turn: None };
    let mut busy = BTreeSet::new();
    while !trimmer.target.is_stopping() {
        trimmer.start_due(&mut busy);
        let target = trimmer.target.clone();
        if let Some(done) = trimmer.job_done_or(target.map_changed()).await {
            let pg = done?;
            busy.remove(&pg.pgid.pgid);
            pg.trimming.set(Trimming::No);
            if busy.is_empty() && trimmer.next_due(&busy).is_none() {
                trimmer.target.report_now();
            }
        }
    }
    Ok(())
}

/// A PG trims a snapshot.
type Job = LocalBoxFuture<'static, Result<Rc<Pg>, TargetError>>;

struct Trimmer {
    target: Target,
    jobs: FuturesUnordered<Job>,
    /// The PG that began last.
    turn: Option<PgId>,
}

impl Trimmer {
    /// Begins as many jobs as may run at a time.
    fn start_due(&mut self, busy: &mut BTreeSet<PgId>) {
        let max = self.target.option_number("osd_max_trimming_pgs") as usize;
        while let Some((pg, snap)) = self.next_due(busy) {
            if busy.len() >= max {
                break;
            }
            let pgid = pg.pgid.pgid;
            busy.insert(pgid);
            self.turn = Some(pgid);
            self.jobs.push(Box::pin(job(self.target.clone(), pg, snap)));
        }
    }

    /// A removed snapshot of the PG whose turn it is; notes which ones each PG still has. What the
    /// monitor has forgotten needs no note.
    fn next_due(&self, busy: &BTreeSet<PgId>) -> Option<(Rc<Pg>, SnapId)> {
        let map = self.target.map();
        let allowed = map.flags & flags::NOSNAPTRIM == 0;
        let mut waiting = Vec::new();
        for pg in self.target.pgs().all() {
            let mut due = pg.snaps().removed.clone();
            let purged = &mut pg.state.borrow_mut().purged;
            if map.epoch > 0 && !purged.is_empty() {
                *purged = purged.intersection(&due);
            }
            due.subtract(purged);
            if !busy.contains(&pg.pgid.pgid) {
                let first = due.iter().next().filter(|_| allowed && pg.active.get());
                pg.trimming.set(if first.is_some() { Trimming::Waits } else { Trimming::No });
                waiting.extend(first.map(|(snap, _)| (pg.clone(), SnapId(snap))));
            }
            *pg.snap_trimq.borrow_mut() = due;
        }
        let is_next = |(pg, _): &(Rc<Pg>, SnapId)| Some(pg.pgid.pgid) > self.turn;
        let at = waiting.iter().position(is_next).unwrap_or(0);
        (!waiting.is_empty()).then(|| waiting.swap_remove(at))
    }

    /// The next job that ends, unless `other` comes first.
    async fn job_done_or(
        &mut self,
        other: impl Future<Output = ()>,
    ) -> Option<Result<Rc<Pg>, TargetError>> {
        let jobs = &mut self.jobs;
        let done = async {
            match jobs.next().await {
                Some(done) => done,
                None => pending().await,
            }
        };
        match select(std::pin::pin!(done), std::pin::pin!(other)).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }
}

async fn job(target: Target, pg: Rc<Pg>, snap: SnapId) -> Result<Rc<Pg>, TargetError> {
    pg.trimming.set(Trimming::Runs);
    if trim_snap(&target, &pg, snap).await? == Outcome::Failed {
        pg.trimming.set(Trimming::Failed);
        sleep(RETRY).await;
    }
    Ok(pg)
}

/// Whether the PG may trim, by the map.
fn may_trim(target: &Target, pg: &Pg) -> bool {
    pg.active.get() && target.map().flags & flags::NOSNAPTRIM == 0
}

/// Takes a snapshot out of all objects of a PG.
async fn trim_snap(target: &Target, pg: &Rc<Pg>, snap: SnapId) -> Result<Outcome, TargetError> {
    let mut last: Option<Bytes> = None;
    loop {
        let found = match indexed(target, pg, snap, last.as_ref()).await {
            Ok(found) => found,
            Err(e) => return given_up(pg, &e),
        };
        let Some(end) = found.last().cloned() else {
            break;
        };
        last = Some(end);
        let mut objects = found.into_iter();
        while objects.len() > 0 {
            if !may_trim(target, pg) {
                return Ok(Outcome::Stopped);
            }
            let (count, pause) = target.with_options(|o| (objects_at_a_time(o), pause(o)));
            let some = objects.by_ref().take(count);
            let done = join_all(some.map(|key| trim_object(target, pg, key, snap))).await;
            for outcome in done {
                match outcome? {
                    Outcome::Done => {}
                    other => return Ok(other),
                }
            }
            if pause.is_zero() { yield_now().await } else { sleep(pause).await }
        }
    }
    match last {
        Some(_) => purge(target, pg, snap).await,
        // Nothing to be kept: after a restart it is found out again.
        None => {
            pg.state.borrow_mut().purged.insert(snap.0, 1);
            Ok(Outcome::Done)
        }
    }
}

fn objects_at_a_time(options: &Options) -> usize {
    options.number("osd_pg_max_concurrent_snap_trims").max(1) as usize
}

/// Devices count as SSDs.
fn pause(options: &Options) -> Duration {
    let pause = options.seconds("osd_snap_trim_sleep");
    if pause.is_zero() { options.seconds("osd_snap_trim_sleep_ssd") } else { pause }
}

/// Keys of objects that have, or had, the snapshot.
async fn indexed(
    target: &Target,
    pg: &Pg,
    snap: SnapId,
    after: Option<&Bytes>,
) -> Result<Vec<Bytes>, StoreError> {
    let (meta, dkey) = (meta_object(pg.cid), dkey::snap(snap));
    let from = after.map_or(Bound::Unbounded, |key| Bound::Excluded(&key[..]));
    let page = target
        .store()
        .read(|vos| -> Result<_, ReadError> {
            match vos.container_exists(pg.cid) {
                true => vos.list_akeys(pg.cid, &meta, &dkey, from, BATCH),
                false => Ok(Vec::new()),
            }
        })
        .await?;
    Ok(page.into_iter().map(|(key, _)| key).collect())
}

fn given_up(pg: &Pg, why: &dyn std::fmt::Display) -> Result<Outcome, TargetError> {
    tracing::warn!(pgid = %pg.pgid, "trimming of snapshots goes on later: {why}");
    Ok(Outcome::Failed)
}

pub fn encode_purged(purged: &SnapIntervals) -> Vec<u8> {
    let mut out = vec![PURGED_VERSION];
    purged.encode(&mut out, Features::PACIFIC);
    out
}

/// What a PG has purged, of its record.
pub fn decode_purged(raw: &[u8]) -> Result<SnapIntervals, DecodeError> {
    let mut r = Reader::new(raw);
    super::check("purged snapshots version", r.u8()?, PURGED_VERSION)?;
    SnapIntervals::decode(&mut r)
}
