//! Counting the objects of a PG anew.

use std::ops::Bound;
use std::rc::Rc;

use bytes::Bytes;
use spirula_store::StoreError;
use spirula_vos::{ObjectKey, Tx, Vos};
use spirula_xstream::{Class, yield_now};

use super::{Base, commit};
use crate::apply::{meta_object, peering_object};
use crate::errno::EIO;
use crate::load::{LoadedData, StoreView};
use crate::object::ObjectInfo;
use crate::pg::Pg;
use crate::snap::{Clones, SnapSet};
use crate::stats::{StatDelta, StatSum};
use crate::target::{Target, TargetError};
use crate::view::{Fault, ObjectView};

/// Objects listed at a time.
const BATCH: usize = 64;

/// Counts the objects of a PG that is not active yet, and notes that it is done.
pub async fn recount(target: &Target, pg: &Rc<Pg>) -> Result<(), TargetError> {
    let (store, cid) = (target.store(), pg.cid);
    let own = [meta_object(cid), peering_object(cid)];
    let (mut sum, mut last) = (StatSum::default(), None::<Bytes>);
    loop {
        let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let keys = store.read(|vos: &Vos| vos.list_objects(cid, from, None, BATCH)).await?;
        let Some(end) = keys.last() else {
            break;
        };
        last = Some(end.0.clone());
        for key in keys.iter().filter(|key| !own.contains(key)) {
            sum.add(&count(target, pg, key).await?);
        }
        yield_now().await;
    }
    if !target.pgs().is_current(pg) {
        return Ok(());
    }
    let mut tx = Tx::new(0);
    {
        let mut state = pg.state.borrow_mut();
        let StatSum { num_rd, num_rd_kb, num_wr, num_wr_kb, .. } = state.stats;
        state.stats = StatSum { num_rd, num_rd_kb, num_wr, num_wr_kb, ..sum };
        state.last_epoch = state.next_epoch(target.wall_nanos());
        tx.epoch = state.last_epoch;
        state.counted = true;
        Base::of(pg.last_versions(), &state, true).store(&mut tx, cid);
    }
    commit(target, &mut tx, Some(pg)).await?;
    Ok(())
}

/// A count of objects while they are written: those below `next` are in the sum.
#[derive(Debug, Default)]
pub struct Counting {
    next: Bytes,
    sum: StatSum,
}

impl Counting {
    /// A request on `object` was submitted.
    pub fn changed(&mut self, object: &Bytes, by: &StatDelta) {
        if *object < self.next {
            self.sum.add(by);
        }
    }
}

/// Counts the objects of a PG that serves, unless its counters are right.
pub fn recount_meanwhile(target: &Target, pg: &Rc<Pg>) {
    if pg.state.borrow().counted || pg.counting.borrow().is_some() {
        return;
    }
    pg.counting.replace(Some(Counting::default()));
    let pg = pg.clone();
    target.spawn(Class::Background, move |target| async move {
        count_meanwhile(&target, &pg).await?;
        pg.counting.replace(None);
        Ok(())
    });
}

/// An object is counted, and the next one found, in the turn that says so.
async fn count_meanwhile(target: &Target, pg: &Rc<Pg>) -> Result<(), TargetError> {
    let (store, cid) = (target.store(), pg.cid);
    let own = [meta_object(cid), peering_object(cid)];
    let goes_on = || target.pgs().is_current(pg);
    let mut next = Bytes::new();
    loop {
        let found = store.read(|vos: &Vos| match vos.container_exists(cid) {
            true => vos.list_objects(cid, Bound::Included(&next), None, 1),
            false => Ok(Vec::new()),
        });
        let found = found.await?;
        let Some(key) = found.first().filter(|_| goes_on()) else {
            break;
        };
        set_next(pg, key.0.clone(), &StatDelta::default());
        let counted = match own.contains(key) {
            true => StatDelta::default(),
            false => count(target, pg, key).await?,
        };
        next = [&key.0[..], &[0]].concat().into();
        set_next(pg, next.clone(), &counted);
        yield_now().await;
    }
    let counted = pg.counting.take().filter(|_| goes_on());
    if let Some(Counting { sum, .. }) = counted {
        let mut state = pg.state.borrow_mut();
        let StatSum { num_rd, num_rd_kb, num_wr, num_wr_kb, .. } = state.stats;
        state.stats = StatSum { num_rd, num_rd_kb, num_wr, num_wr_kb, ..sum };
        state.counted = true;
    }
    Ok(())
}

fn set_next(pg: &Pg, next: Bytes, counted: &StatDelta) {
    if let Some(counting) = &mut *pg.counting.borrow_mut() {
        counting.next = next;
        counting.sum.add(counted);
    }
}

async fn count(target: &Target, pg: &Pg, oid: &ObjectKey) -> Result<StatDelta, TargetError> {
    use StoreError::{Damaged, PoolTooSmall, Read};
    let (store, mut data) = (target.store(), LoadedData::default());
    loop {
        let read = store.try_read(|vos| {
            let view = StoreView::new(store, vos, pg.cid, oid, &data);
            Ok((|| Ok((view.snapset(Clones::All)?, view.info()?)))())
        });
        match read.unwrap_or(Err(Fault::Errno(-EIO))) {
            Ok((set, info)) => return Ok(counters(&set, info.as_ref())),
            Err(Fault::Missing(need)) => match data.fill(store, need).await {
                Err(Damaged(_) | Read { .. } | PoolTooSmall) => return Ok(not_counted(pg)),
                filled => filled?,
            },
            Err(Fault::Errno(_)) => return Ok(not_counted(pg)),
        }
    }
}

fn not_counted(pg: &Pg) -> StatDelta {
    tracing::error!(pgid = %pg.pgid, "an object that cannot be read is not counted");
    StatDelta::default()
}

/// What an object and its clones count for.
fn counters(set: &SnapSet, info: Option<&ObjectInfo>) -> StatDelta {
    let clones = set.clones.len() as i64;
    let whiteouts = i64::from(info.is_none() && clones > 0);
    let omaps = set.clones.iter().filter(|clone| clone.omap).count() as i64;
    StatDelta {
        num_bytes: info.map_or(0, |i| i.size as i64)
            + set.clones.iter().map(|clone| clone.bytes()).sum::<i64>(),
        num_objects: i64::from(info.is_some()) + whiteouts + clones,
        num_objects_omap: i64::from(info.is_some_and(|i| i.omap)) + omaps,
        num_object_clones: clones,
        num_whiteouts: whiteouts,
        ..StatDelta::default()
    }
}
