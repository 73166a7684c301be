//! The transactions of the trimmer.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::join;
use spirula_vos::{ObjectKey, StageError, Tx};
use spirula_wire::types::{EVersion, HObject, SnapId, UTime};
use spirula_xstream::wall_now;

use super::{Outcome, encode_purged, given_up};
use crate::apply::{DataCrcs, meta_object};
use crate::load::{LoadedData, Need, StoreView};
use crate::manifest::release;
use crate::object::{AKEY, Chunks, ObjectInfo, dkey, object_of_key};
use crate::pg::Pg;
use crate::pg::locks::Mode;
use crate::pg::log::wire::entry_object;
use crate::pg::log::{DupRecord, EntryKind, LogEntry};
use crate::plan::{Effect, lost_with};
use crate::scrub::wait_for;
use crate::shard::recover;
use crate::shard::submit::{NotSubmitted, Submitted, submit};
use crate::snap::{Clones, ObjectChange, SnapClone, SnapSet, apply_object, trimmed};
use crate::stats::StatSum;
use crate::target::{Target, TargetError};
use crate::view::{Fault, ObjectView, Viewed};

/// Takes a snapshot out of an object, and returns the space.
pub(super) async fn trim_object(
    target: &Target,
    pg: &Rc<Pg>,
    key: Bytes,
    snap: SnapId,
) -> Result<Outcome, TargetError> {
    let held = pg.locks.acquire(key.clone(), Mode::Write).await;
    let oid = ObjectKey(key);
    target.store().admit().await;
    let submitted = loop {
        if !pg.active.get() {
            return Ok(Outcome::Stopped);
        }
        let object = entry_object(pg.pgid.pgid, &oid.0);
        if pg.shard.machine.borrow().holds_up_write(&object).is_some() {
            recover::wait(target, pg, &object).await;
            continue;
        }
        if pg.shard.scrub.holds_up(&oid.0) {
            wait_for(pg, &oid.0).await;
            continue;
        }
        let pages = match plan_object(target, pg, &oid, snap) {
            Ok(None) => break None,
            Ok(Some((step, released))) => match step.submit(target, pg) {
                Ok(submitted) => break Some((submitted, released)),
                Err(NotSubmitted::Refused(StageError::Missing(pages))) => pages,
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
    let released = submitted.as_ref().map(|(_, released)| released.clone()).unwrap_or_default();
    let horizon = pg.state.borrow().last_epoch;
    // At once, so that it is in the same batch of the WAL, behind the transaction that it follows.
    let aggregated = target.store().aggregate_object(pg.cid, &oid, horizon);
    let published = async {
        let done = match submitted {
            Some((submitted, _)) => submitted.published().await,
            None => Ok(()),
        };
        drop(held);
        done
    };
    let (published, aggregated) = join(published, aggregated).await;
    published?;
    if let Some(own) = object_of_key(pg.pgid.pgid.pool, &oid.0) {
        release(target, pg, &own, released);
    }
    match aggregated {
        Ok(()) => Ok(Outcome::Done),
        Err(e) => given_up(pg, &e),
    }
}

/// The transaction that trims an object, with the targets that lose a reference of it by that; `None` if
/// it does not have the snapshot any more.
fn plan_object(
    target: &Target,
    pg: &Pg,
    oid: &ObjectKey,
    snap: SnapId,
) -> Result<Option<(Step, Vec<HObject>)>, Fault<Need>> {
    let store = target.store();
    let read = store.try_read(|vos| {
        let data = LoadedData::default();
        let view = || StoreView::new(store, vos, pg.cid, oid, &data);
        Ok((|| {
            let (set, info) = (view().snapset(Clones::All)?, view().info()?);
            let released = lost_references(&set, snap, info.as_ref(), |clone| {
                let data = LoadedData::default();
                StoreView::new(store, vos, pg.cid, oid, &data).at(clone.epoch).info()
            })?;
            Ok((set, info, released))
        })())
    });
    let (set, mut info, released) = read.unwrap_or(Err(Fault::Errno(-crate::errno::EIO)))?;
    let removed = &pg.snaps().removed;
    let mut step = Step::new(target, pg, &oid.0, EntryKind::Modify);
    let Some(change) = trimmed(set, snap, removed, info.is_some(), &mut step.entry.stats) else {
        return Ok(None);
    };
    let clone_goes = !change.gone.is_empty();
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
    let (version, crcs) = (step.entry.version, DataCrcs::default());
    let change = ObjectChange { effects, info, snaps, crcs, version };
    apply_object(&mut step.tx, pg.cid, oid, change);
    // Another snapshot may show the clone.
    let released = if clone_goes { released } else { Vec::new() };
    Ok(Some((step, released)))
}

/// The targets that lose a reference if the clone that shows `snap` goes.
fn lost_references(
    set: &SnapSet,
    snap: SnapId,
    head: Option<&ObjectInfo>,
    at: impl Fn(&SnapClone) -> Viewed<Option<ObjectInfo>, Need>,
) -> Viewed<Vec<HObject>, Need> {
    let Some(i) = set.clones.iter().position(|clone| clone.snaps.contains(&snap)) else {
        return Ok(Vec::new());
    };
    let chunks = |clone: Option<&SnapClone>| match clone {
        Some(clone) => Ok(at(clone)?.map(|info| info.chunks).unwrap_or_default()),
        None => Ok(Chunks::new()),
    };
    let gone = chunks(set.clones.get(i))?;
    let older = chunks(i.checked_sub(1).and_then(|i| set.clones.get(i)))?;
    let newer = match set.clones.get(i + 1) {
        None => head.map(|head| head.chunks.clone()).unwrap_or_default(),
        newer => chunks(newer)?,
    };
    Ok(lost_with(&gone, &older, &newer))
}

/// The snapshot is gone from all objects of the PG.
pub(super) async fn purge(
    target: &Target,
    pg: &Rc<Pg>,
    snap: SnapId,
) -> Result<Outcome, TargetError> {
    target.store().admit().await;
    loop {
        if !pg.active.get() {
            return Ok(Outcome::Stopped);
        }
        let mut purged = pg.state.borrow().purged.clone();
        purged.insert(snap.0, 1);
        let meta = meta_object(pg.cid);
        // Nothing happens to an object.
        let mut step = Step::new(target, pg, &meta.0, EntryKind::Error);
        step.tx.punch_dkey(pg.cid, &meta, &dkey::snap(snap));
        step.tx.update(pg.cid, &meta, dkey::PURGED, AKEY, encode_purged(&purged).into());
        match step.submit(target, pg) {
            Ok(submitted) => {
                pg.state.borrow_mut().purged = purged;
                submitted.published().await?;
                return Ok(Outcome::Done);
            }
            Err(NotSubmitted::Refused(StageError::Missing(pages))) => {
                if let Err(e) = target.store().load(pages).await {
                    return given_up(pg, &e);
                }
            }
            Err(e) => return given_up(pg, &e),
        }
    }
}

/// A transaction of the trimmer, with its log entry.
struct Step {
    tx: Tx,
    entry: LogEntry,
}

impl Step {
    fn new(target: &Target, pg: &Pg, object: &Bytes, kind: EntryKind) -> Self {
        let state = pg.state.borrow();
        let version = pg.shard.machine.borrow().next_version();
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
            last_user_version: pg.last_versions().1,
        };
        Self { tx, entry }
    }

    fn submit(mut self, target: &Target, pg: &Rc<Pg>) -> Result<Submitted, NotSubmitted> {
        let object = entry_object(pg.pgid.pgid, &self.entry.object);
        submit(target, pg, &mut self.tx, self.entry, object)
    }
}
