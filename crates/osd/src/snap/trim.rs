//! Trimming: removed snapshots leave the objects that still have them, in the background.
//!
//! Each object is one logged transaction, under the object's lock, after which aggregation returns the
//! space of what nobody sees any more. The index entries of a snapshot go last, with the note that the
//! PG has purged it: so a restart takes up again what was not finished.

use std::ops::Bound;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use spirula_maps::{SnapIntervals, flags};
use spirula_store::{Commit, StoreError};
use spirula_vos::{ObjectKey, ReadError, StageError, Tx};
use spirula_wire::types::{EVersion, SnapId, UTime};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};
use spirula_xstream::{sleep, wall_now, yield_now};

use crate::apply::{DataCrcs, apply_log, meta_object};
use crate::load::{LoadedData, Need, StoreView};
use crate::object::{AKEY, dkey};
use crate::pg::Pg;
use crate::pg::locks::Mode;
use crate::pg::log::{DupRecord, EntryKind, LogEntry};
use crate::plan::Effect;
use crate::snap::{Clones, ObjectChange, apply_object, trimmed};
use crate::stats::StatSum;
use crate::target::{Target, TargetError};
use crate::view::{Fault, ObjectView};

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
}

/// Trims for ever.
pub async fn run(target: Target) -> Result<(), TargetError> {
    while !target.is_stopping() {
        let Some((pg, snap)) = next_due(&target) else {
            target.map_changed().await;
            continue;
        };
        pg.trimming.set(Trimming::Runs);
        let done = trim_snap(&target, &pg, snap).await;
        pg.trimming.set(Trimming::Waits);
        if !done? {
            sleep(RETRY).await;
        }
        if next_due(&target).is_none() {
            target.report_now();
        }
    }
    Ok(())
}

/// The next removed snapshot of a PG; notes which ones each PG still has. What the monitor has
/// forgotten needs no note.
fn next_due(target: &Target) -> Option<(Rc<Pg>, SnapId)> {
    let map = target.map();
    let allowed = map.flags & flags::NOSNAPTRIM == 0;
    let mut next = None;
    for pg in target.pgs().all() {
        let mut due = pg.snaps().removed.clone();
        {
            let purged = &mut pg.state.borrow_mut().purged;
            if map.epoch > 0 && !purged.is_empty() {
                *purged = purged.intersection(&due);
            }
            due.subtract(purged);
        }
        let waits = allowed && !due.is_empty();
        pg.trimming.set(if waits { Trimming::Waits } else { Trimming::No });
        if let (None, true, Some((snap, _))) = (&next, pg.active.get(), due.iter().next()) {
            next = Some((pg.clone(), SnapId(snap)));
        }
        *pg.snap_trimq.borrow_mut() = due;
    }
    next.filter(|_| allowed)
}

/// Takes a snapshot out of all objects of a PG; whether that could be finished.
async fn trim_snap(target: &Target, pg: &Rc<Pg>, snap: SnapId) -> Result<bool, TargetError> {
    let mut last: Option<Bytes> = None;
    loop {
        let objects = match indexed(target, pg, snap, last.as_ref()).await {
            Ok(objects) => objects,
            Err(e) => return given_up(pg, &e),
        };
        let Some(end) = objects.last().cloned() else {
            break;
        };
        last = Some(end);
        for key in objects {
            if !trim_object(target, pg, ObjectKey(key), snap).await? {
                return Ok(false);
            }
            yield_now().await;
        }
    }
    match last {
        Some(_) => purge(target, pg, snap).await,
        // Nothing to be kept: after a restart it is found out again.
        None => {
            pg.state.borrow_mut().purged.insert(snap.0, 1);
            Ok(true)
        }
    }
}

/// Keys of objects that have, or had, the snapshot.
async fn indexed(
    target: &Target,
    pg: &Pg,
    snap: SnapId,
    after: Option<&Bytes>,
) -> Result<Vec<Bytes>, StoreError> {
    let (meta, dkey) = (meta_object(), dkey::snap(snap));
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

/// Takes a snapshot out of an object, and returns the space.
async fn trim_object(
    target: &Target,
    pg: &Rc<Pg>,
    oid: ObjectKey,
    snap: SnapId,
) -> Result<bool, TargetError> {
    let held = pg.locks.acquire(oid.0.clone(), Mode::Write).await;
    target.store().admit().await;
    let submitted = loop {
        if !pg.active.get() {
            return Ok(false);
        }
        let pages = match plan_object(target, pg, &oid, snap) {
            Ok(None) => break None,
            Ok(Some(step)) => match step.submit(target, pg) {
                Ok(submitted) => break Some(submitted),
                Err(StageError::Missing(pages)) => pages,
                Err(e) => return given_up(pg, &e),
            },
            Err(Fault::Missing(Need::Pages(pages))) => pages,
            Err(_) => return given_up(pg, &"an object cannot be read"),
        };
        if let Err(e) = target.store().load(pages).await {
            return given_up(pg, &e);
        }
    };
    held.submitted();
    if let Some(submitted) = submitted {
        submitted.published(pg).await?;
    }
    drop(held);
    let horizon = pg.state.borrow().last_epoch;
    match target.store().aggregate_object(pg.cid, &oid, horizon).await {
        Ok(()) => Ok(true),
        Err(e) => given_up(pg, &e),
    }
}

/// The transaction that trims an object; `None` if it does not have the snapshot any more.
fn plan_object(
    target: &Target,
    pg: &Pg,
    oid: &ObjectKey,
    snap: SnapId,
) -> Result<Option<Step>, Fault<Need>> {
    let store = target.store();
    let read = store.try_read(|vos| {
        let data = LoadedData::default();
        let view = StoreView::new(store, vos, pg.cid, oid, &data);
        Ok((|| Ok((view.snapset(Clones::All)?, view.info()?)))())
    });
    let (set, mut info) = read.unwrap_or(Err(Fault::Errno(-crate::errno::EIO)))?;
    let removed = &pg.snaps().removed;
    let mut step = Step::new(target, pg, &oid.0, EntryKind::Modify);
    let Some(change) = trimmed(set, snap, removed, info.is_some(), &mut step.entry.stats) else {
        return Ok(None);
    };
    if let Some(info) = &mut info {
        step.entry.prior = info.version;
        info.version = step.entry.version;
    }
    let gone = change.set.clones.is_empty() && info.is_none();
    let effects = if gone { vec![Effect::Remove] } else { Vec::new() };
    if gone {
        step.entry.kind = EntryKind::Delete;
    }
    let (info, snaps) = (info.as_ref(), Some(&change));
    let change = ObjectChange { effects, info, snaps, crcs: DataCrcs::default() };
    apply_object(&mut step.tx, pg.cid, oid, change);
    Ok(Some(step))
}

/// The snapshot is gone from all objects of the PG.
async fn purge(target: &Target, pg: &Rc<Pg>, snap: SnapId) -> Result<bool, TargetError> {
    let mut purged = pg.state.borrow().purged.clone();
    purged.insert(snap.0, 1);
    target.store().admit().await;
    loop {
        if !pg.active.get() {
            return Ok(false);
        }
        let meta = meta_object();
        // Nothing happens to an object.
        let mut step = Step::new(target, pg, &meta.0, EntryKind::Error);
        step.tx.punch_dkey(pg.cid, &meta, &dkey::snap(snap));
        step.tx.update(pg.cid, &meta, dkey::PURGED, AKEY, encode_purged(&purged).into());
        match step.submit(target, pg) {
            Ok(submitted) => {
                pg.state.borrow_mut().purged = purged;
                submitted.published(pg).await?;
                return Ok(true);
            }
            Err(StageError::Missing(pages)) => {
                if let Err(e) = target.store().load(pages).await {
                    return given_up(pg, &e);
                }
            }
            Err(e) => return given_up(pg, &e),
        }
    }
}

fn given_up(pg: &Pg, why: &dyn std::fmt::Display) -> Result<bool, TargetError> {
    tracing::warn!(pgid = %pg.pgid, "trimming of snapshots goes on later: {why}");
    Ok(false)
}

/// A transaction of the trimmer, with its log entry.
struct Step {
    tx: Tx,
    entry: LogEntry,
}

/// A step that was submitted.
struct Submitted {
    commit: Commit,
    ticket: u64,
}

impl Step {
    fn new(target: &Target, pg: &Pg, object: &Bytes, kind: EntryKind) -> Self {
        let state = pg.state.borrow();
        let version = state.next_version(target.epoch());
        let epoch = state.next_epoch(target.wall_nanos());
        let mut tx = Tx::new(epoch);
        // It leads to less being stored.
        tx.use_reserve();
        let stats: StatSum = state.stats;
        let entry = LogEntry {
            kind,
            version,
            prior: EVersion::default(),
            mtime: UTime::from(wall_now()),
            epoch,
            object: object.clone(),
            dup: DupRecord { version, ..DupRecord::default() },
            stats,
            last_user_version: state.last_user_version,
        };
        Self { tx, entry }
    }

    fn submit(mut self, target: &Target, pg: &Pg) -> Result<Submitted, StageError> {
        let due = pg.state.borrow().log.due_trim();
        apply_log(&mut self.tx, pg.cid, &self.entry, due.as_ref());
        let commit = target.store().submit(&self.tx)?;
        let ticket = pg.publisher.submitted();
        pg.state.borrow_mut().advance(self.entry, due.is_some(), ticket);
        Ok(Submitted { commit, ticket })
    }
}

impl Submitted {
    async fn published(self, pg: &Pg) -> Result<(), TargetError> {
        if let Err(e) = self.commit.await {
            pg.publisher.fail();
            return Err(e.into());
        }
        pg.publisher.durable(self.ticket);
        Ok(pg.publisher.published(self.ticket).await?)
    }
}

fn encode_purged(purged: &SnapIntervals) -> Vec<u8> {
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
