//! Shards of PGs that a map splits.
//!
//! Every copy is split when it is shown the epoch with more PGs, whatever else it does then: in memory at
//! once, log, missing set and past included, so that both halves are shown what follows, and then in the
//! store by one transaction, with which all of them begin to do what their machines want. A crash before
//! that transaction finds the whole copy, as of an older map, and splits it again.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spirula_maps::OsdMap;
use spirula_pg::State;
use spirula_pg::interval::split_children;
use spirula_store::Commit;
use spirula_vos::{ObjectKey, StageError, Tx};
use spirula_wire::types::{PgId, SpgId};
use spirula_xstream::{now, sleep};

use super::{Shard, drive, follow, stored};
use crate::apply::{Layout, container_id, meta_object, set_pg_num};
use crate::object::{AKEY, dkey, lowest_key};
use crate::pg::PgState;
use crate::reshape;
use crate::snap::trim::encode_purged;
use crate::target::{Target, TargetError};

/// Until a split for which there is no space is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// What a shard that is split waits for.
pub enum Splitting {
    /// It has what is stored of all of them.
    Whole { parts: Vec<Rc<Shard>>, begun: bool },
    /// What is stored of it is that of the whole.
    Part(Rc<Shard>),
}

/// Splits the copies that `map` splits, and shows it to them.
pub fn split_all(target: &Target, map: &Arc<OsdMap>) {
    for shard in target.shards().all() {
        let children = children(&shard, map);
        if !children.is_empty() {
            split(target, &shard, &children, map);
        }
    }
}

/// A single copy is split by what is stored of it ([`reshape`]).
fn children(shard: &Shard, map: &OsdMap) -> Vec<PgId> {
    let (machine, pgid) = (shard.machine.borrow(), shard.pgid.pgid);
    let is_held = shard.held.get() && !shard.is_splitting();
    let is_next = machine.map().epoch < map.epoch && machine.state() != State::Unknown;
    let pool = map.pool(pgid.pool).filter(|pool| pool.size > 1 && is_next && !is_held);
    let seeds = |pg_num| split_children(pgid.seed, machine.mapping().pg_num, pg_num);
    let seeds = pool.map_or(Vec::new(), |pool| seeds(pool.pg_num));
    seeds.into_iter().map(|seed| PgId { seed, ..pgid }).collect()
}

fn split(target: &Target, shard: &Rc<Shard>, children: &[PgId], map: &Arc<OsdMap>) {
    let whole = match &*shard.splitting.borrow() {
        Some(Splitting::Part(whole)) => whole.clone(),
        _ => shard.clone(),
    };
    shard.machine.borrow_mut().advance(map.clone(), now());
    let mut rewinds = shard.rewinds.take();
    rewinds.extend(shard.machine.borrow_mut().drain_rewinds());
    follow::let_go(target, shard);
    whole.rewinds.borrow_mut().extend(rewinds);
    whole.hold();
    let mut parts = Vec::new();
    for &child in children {
        if target.shards().get(child).is_some() {
            tracing::error!(pgid = %shard.pgid, %child, "it is split off already");
            continue;
        }
        let part = split_off(shard, child);
        tracing::info!(parent = %shard.pgid, %child, "a PG is split");
        part.hold();
        part.splitting.replace(Some(Splitting::Part(whole.clone())));
        target.shards().insert(part.clone());
        parts.push(part);
    }
    match &mut *whole.splitting.borrow_mut() {
        Some(Splitting::Whole { parts: all, .. }) => all.extend(parts),
        waits => *waits = Some(Splitting::Whole { parts, begun: false }),
    }
}

fn split_off(shard: &Shard, child: PgId) -> Rc<Shard> {
    let machine = shard.machine.borrow_mut().split_off(child);
    let pgid = SpgId { pgid: child, ..shard.pgid };
    let part = Shard::new(container_id(pgid, Layout::Splittable), machine);
    let mut state = shard.state.borrow_mut();
    let (stays, goes) = reshape::halves(&state.stats);
    (state.stats, state.counted) = (stays, false);
    part.state.replace(PgState {
        stats: goes,
        last_epoch: state.last_epoch,
        record_epoch: state.record_epoch,
        missing_stored: true,
        purged: state.purged.clone(),
        ..PgState::default()
    });
    Rc::new(part)
}

/// After the last of several maps: stores what was split by them.
pub fn store_all(target: &Target) {
    for shard in target.shards().all() {
        let begins = match &mut *shard.splitting.borrow_mut() {
            Some(Splitting::Whole { begun, .. }) => !std::mem::replace(begun, true),
            _ => false,
        };
        if begins {
            let (me, of) = (target.clone(), shard.clone());
            drive::begin(target, async move { finish(&me, &of).await });
        }
    }
}

async fn finish(target: &Target, whole: &Rc<Shard>) -> Result<(), TargetError> {
    let is_stored = whole.state.borrow().stored;
    let commit = match is_stored {
        true => store(target, whole).await?,
        false => None,
    };
    if is_stored && commit.is_none() {
        return Ok(());
    }
    let Some(Splitting::Whole { parts, .. }) = whole.splitting.take() else {
        return Ok(());
    };
    if let Some(commit) = commit {
        await_commit(target, whole, &parts, commit);
    }
    parts.iter().for_each(|part| drop(part.splitting.take()));
    for shard in std::iter::once(whole).chain(&parts) {
        drive::release(target, shard);
    }
    Ok(())
}

/// Submits the split; `None`: the pool has gone.
async fn store(target: &Target, whole: &Rc<Shard>) -> Result<Option<Commit>, TargetError> {
    let store = target.store();
    let index = reshape::snap_index(store, whole.cid).await?;
    loop {
        store.admit().await;
        let there = target.shards().get(whole.pgid.pgid);
        if !there.is_some_and(|there| Rc::ptr_eq(&there, whole)) || target.is_stopping() {
            return Ok(None);
        }
        let parts = match &*whole.splitting.borrow() {
            Some(Splitting::Whole { parts, .. }) => parts.clone(),
            _ => return Ok(None),
        };
        let all = || std::iter::once(whole).chain(&parts);
        let before: Vec<_> = all().map(|shard| shard.state.borrow().saved()).collect();
        let refused = match store.submit(&transaction(whole, &parts, &index)) {
            Ok(commit) => return Ok(Some(commit)),
            Err(refused) => refused,
        };
        all().zip(before).for_each(|(shard, before)| shard.state.borrow_mut().restore(before));
        match refused {
            StageError::Missing(pages) => store.load(pages).await?,
            StageError::NoContainer(_) => return Ok(None),
            e @ StageError::NoSpace => {
                tracing::warn!(pgid = %whole.pgid, "a PG is split later: {e}");
                sleep(RETRY).await;
            }
            source => return Err(TargetError::Peering { pgid: whole.pgid, source }),
        }
    }
}

/// Gives each part what is at and above its lowest key, and stores what all of them know.
fn transaction(whole: &Shard, parts: &[Rc<Shard>], index: &[(Bytes, Bytes)]) -> Tx {
    let own = |shard: &Shard| shard.state.borrow().own_epoch();
    let epoch = parts.iter().map(|part| own(part)).fold(own(whole), u64::max);
    let mut tx = Tx::new(epoch);
    tx.use_reserve();
    let pg_num = whole.machine.borrow().mapping().pg_num;
    stored::record(&mut tx, whole, true);
    set_pg_num(&mut tx, whole.cid, pg_num);
    let mut upwards: Vec<_> =
        parts.iter().map(|part| (lowest_key(part.pgid.pgid.seed), part)).collect();
    upwards.sort_by(|a, b| a.0.cmp(&b.0));
    let meta = meta_object(whole.cid);
    if let Some((first, _)) = upwards.first() {
        let mut emptied = None;
        for (snap, _) in index.iter().filter(|(_, object)| object >= first) {
            if emptied.replace(snap) != Some(snap) {
                tx.punch_akeys(whole.cid, &meta, snap, first, None);
            }
        }
    }
    let mut end = None;
    for (at, part) in upwards.iter().rev() {
        tx.split_container(whole.cid, &ObjectKey(at.clone()), part.cid);
        set_pg_num(&mut tx, part.cid, pg_num);
        stored::record(&mut tx, part, true);
        let new = meta_object(part.cid);
        let purged = part.state.borrow().purged.clone();
        if !purged.is_empty() {
            tx.update(part.cid, &new, dkey::PURGED, AKEY, encode_purged(&purged).into());
        }
        let inside = |object: &Bytes| object >= at && end.is_none_or(|end| object < end);
        for (snap, object) in index.iter().filter(|(_, object)| inside(object)) {
            tx.update(part.cid, &new, snap, object, Bytes::new());
        }
        end = Some(at);
    }
    tx
}

/// What any of them says from now on leaves when the split is durable.
fn await_commit(target: &Target, whole: &Rc<Shard>, parts: &[Rc<Shard>], commit: Commit) {
    whole.rewinds.borrow_mut().clear();
    let all: Vec<_> = std::iter::once(whole).chain(parts).cloned().collect();
    let submitted = |shard: Rc<Shard>| {
        shard.state.borrow_mut().stored = true;
        let ticket = shard.local.submitted();
        (shard, ticket)
    };
    let all: Vec<_> = all.into_iter().map(submitted).collect();
    let (me, whole) = (target.clone(), whole.clone());
    let last = whole.local.last();
    drive::begin(target, async move {
        if let Err(e) = commit.await {
            all.iter().for_each(|(shard, _)| shard.local.fail());
            return Err(e.into());
        }
        // What was written before it, to the objects of all, is durable with it.
        let (first, parts) = all.split_first().expect("the whole");
        first.0.local.durable(first.1);
        whole.local.published(last).await?;
        parts.iter().for_each(|(part, ticket)| part.local.durable(*ticket));
        all.iter().for_each(|(shard, _)| drive::flush(&me, shard));
        Ok(())
    });
}
