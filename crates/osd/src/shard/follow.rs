//! Shards follow the map: they appear, are shown every epoch, and go.

use std::rc::Rc;
use std::sync::Arc;

use spirula_maps::{OsdMap, pool_flags};
use spirula_pg::{Peering, State, Stored};
use spirula_store::Store;
use spirula_vos::{ContainerId, ReadError, StageError, Tx};
use spirula_wire::msg::osd::OsdPgCreate2;
use spirula_wire::types::{PastIntervals, PgId, SpgId};
use spirula_wire::{Decode as _, Encode as _, Features, Message as _, RawMessage};
use spirula_xstream::{Class, now};

use super::{Shard, drive, recover, slots, split, stored};
use crate::apply::{Layout, container_id, container_of, container_pg, pg_num_of};
use crate::boot::pg_created_message;
use crate::pg::{Pg, PgState};
use crate::reshape;
use crate::target::{Target, TargetError};

const F: Features = Features::PACIFIC;
/// Maps kept for messages about PGs that are not here.
const RECENT_MAX: usize = 100;
/// Maps kept while pools are being made.
const MAKING_MAX: usize = 500;

/// The container of a PG, there or not.
pub fn cid_of(store: &Store, pgid: SpgId) -> spirula_vos::ContainerId {
    match store.try_read(|vos| Ok(container_of(vos, pgid))) {
        Ok(cid) => cid,
        Err(_) => container_id(pgid, Layout::Splittable),
    }
}

/// A shard with this machine.
pub fn add(target: &Target, pgid: SpgId, machine: Peering) -> Rc<Shard> {
    let shard = Rc::new(Shard::new(cid_of(target.store(), pgid), machine));
    shard.state.borrow_mut().counted = true;
    target.shards().insert(shard.clone());
    let is_stored = |vos: &spirula_vos::Vos| Ok(vos.container_exists(shard.cid));
    if target.store().try_read(is_stored).unwrap_or(false) {
        // A split made it while the PG was not ours.
        shard.hold();
        let found = shard.clone();
        target.spawn(Class::Client, |target| async move {
            if target.reshaping().is_running() {
                reshape::hold(&target, found);
                return Ok(());
            }
            reload(&target, &found).await
        });
    }
    shard
}

/// The shard of a PG whose primary this target is by `map`.
pub fn of_primary(target: &Target, pgid: SpgId, map: &Arc<OsdMap>) -> Rc<Shard> {
    target.shards().get(pgid.pgid).unwrap_or_else(|| {
        let me = target.config().osd_id;
        add(target, pgid, Peering::unknown(me, pgid, map.clone(), target.peering_config()))
    })
}

/// Finds the shards that are stored. They wake with the map that follows the one they were stored by.
pub async fn find(target: &Target) -> Result<(), TargetError> {
    let store = target.store();
    for cid in store.read(|vos| -> Result<_, ReadError> { Ok(vos.containers()) }).await? {
        let pgid = container_pg(cid);
        let limits = target.peering_config().log;
        if let Some(found) = stored::load(store, pgid, cid, limits).await? {
            target.shards().dormant.borrow_mut().insert(pgid.pgid, (cid, found));
        }
    }
    Ok(())
}

/// Shards that were stored by this map or an earlier one are shown what follows.
pub fn awaken(target: &Target, map: &Arc<OsdMap>) {
    let dormant = std::mem::take(&mut *target.shards().dormant.borrow_mut());
    let (ready, later): (std::collections::BTreeMap<_, _>, _) =
        dormant.into_iter().partition(|(_, (_, f))| f.map_epoch <= map.epoch);
    *target.shards().dormant.borrow_mut() = later;
    for (pgid, (cid, found)) in ready {
        let map = before_split(target, pgid, cid, map);
        let shard = Shard::new(cid, loaded(target, found.stored, map));
        shard.state.replace(found.state);
        target.shards().insert(Rc::new(shard));
    }
}

/// A copy that was away while maps split it, none of which is kept any more, is split by the next one: until
/// then it is shown the PGs as it knows them.
fn before_split(target: &Target, pgid: PgId, cid: ContainerId, map: &Arc<OsdMap>) -> Arc<OsdMap> {
    let stored = target.store().try_read(|vos| Ok(pg_num_of(vos, cid))).ok().flatten();
    let Some(pool) = map.pool(pgid.pool).filter(|pool| pool.size > 1) else {
        return map.clone();
    };
    let Some(pg_num) = stored.filter(|&pg_num| pgid.seed < pg_num && pg_num < pool.pg_num) else {
        return map.clone();
    };
    let mut before = OsdMap::clone(map);
    if let Some(pool) = before.pools.get_mut(&pgid.pool) {
        (pool.pg_num, pool.pgp_num) = (pg_num, pool.pgp_num.min(pg_num));
    }
    Arc::new(before)
}

fn loaded(target: &Target, stored: Stored, map: Arc<OsdMap>) -> Peering {
    Peering::load(target.config().osd_id, stored, map, target.peering_config(), now())
}

/// Reads a held shard anew, after a split or merge, and lets it go on.
pub async fn reload(target: &Target, shard: &Rc<Shard>) -> Result<(), TargetError> {
    if !shard.is_held() || shard.is_splitting() {
        return Ok(());
    }
    let config = target.peering_config();
    let found = stored::load(target.store(), shard.pgid, shard.cid, config.log).await?;
    if !shard.is_held() {
        return Ok(());
    }
    let_go(target, shard);
    let unseen = shard.unseen.take();
    let knows = shard.machine.borrow().state() != State::Unknown;
    match found {
        // Nothing was done with it after all: what is in memory is the newest.
        found if knows && found.as_ref().is_none_or(|found| found.known) => {
            unseen.into_iter().for_each(|map| shard.machine.borrow_mut().advance(map, now()));
        }
        Some(found) => {
            shard.state.replace(found.state);
            // The only copy, and whole, if peering is to begin anew.
            let since = if found.known { found.map_epoch } else { target.epoch() };
            let recent = target.shards().recent.borrow();
            let mut maps = recent.range(since..).map(|(_, map)| map.clone());
            let first = maps.next().unwrap_or_else(|| target.map());
            let mut machine = loaded(target, found.stored, first);
            maps.for_each(|map| machine.advance(map, now()));
            shard.machine.replace(machine);
        }
        // Half of what was empty.
        None => {
            shard.state.replace(PgState { counted: true, ..PgState::default() });
            let (me, map) = (target.config().osd_id, target.map());
            shard.machine.replace(Peering::create(me, shard.pgid, map, config));
        }
    }
    drive::release(target, shard);
    Ok(())
}

/// Nothing that the machine began goes on, and nobody waits for it.
pub(super) fn let_go(target: &Target, shard: &Rc<Shard>) {
    shard.copying.cancel();
    shard.rewinds.borrow_mut().clear();
    shard.progress.notify_all();
    slots::forget(target, shard.pgid.pgid);
}

/// Shows `map` to all machines; those of PGs that are being made are made. Gives back who serves a PG no
/// more.
pub fn advance(target: &Target, map: &Arc<OsdMap>) -> Vec<Rc<Pg>> {
    remember(target, map);
    let mut left = Vec::new();
    for shard in target.shards().all() {
        let pgid = shard.pgid.pgid;
        if map.pool(pgid.pool).is_none_or(|p| pgid.seed >= p.pg_num) {
            if !target.is_catching_up()
                && let Some(gone) = target.shards().remove(pgid)
            {
                gone.hold();
                let_go(target, &gone);
            }
            continue;
        }
        if shard.held.get() && !shard.is_splitting() {
            shard.unseen.borrow_mut().push(map.clone());
            continue;
        }
        if shard.machine.borrow().map().epoch < map.epoch {
            shard.machine.borrow_mut().advance(map.clone(), now());
        }
        if !shard.machine.borrow().is_current(map.epoch.saturating_sub(1)) {
            // What was begun before is void from this turn on.
            shard.copying.cancel();
            shard.progress.notify_all();
        }
        if is_to_be_made(&shard, map) {
            make(target, &shard, map);
        }
        let served = target.pgs().get(pgid).is_some_and(|pg| pg.active.get());
        if served && !shard.machine.borrow().is_peered() {
            left.extend(target.pgs().renew(pgid));
        }
    }
    left
}

/// After the last of several maps.
pub fn activate(target: &Target) {
    split::store_all(target);
    for shard in target.shards().all() {
        recover::map_changed(&shard);
        shard.scrub.map_changed();
        if !shard.held.get() {
            drive::input(target, &shard, |machine| machine.activate_map(now()));
        }
    }
    drive::look_again(target);
}

fn remember(target: &Target, map: &Arc<OsdMap>) {
    let mut recent = target.shards().recent.borrow_mut();
    let makes = map.pools.values().any(|pool| pool.has_flag(pool_flags::CREATING));
    recent.insert(map.epoch, map.clone());
    while recent.len() > if makes { MAKING_MAX } else { RECENT_MAX } {
        recent.pop_first();
    }
}

/// A machine that knows nothing but the map of `epoch`, where that is kept, and what followed: so a message
/// of that epoch counts, unless an interval ended since.
pub fn unknown_since(target: &Target, pgid: SpgId, epoch: u32) -> Peering {
    let (me, config) = (target.config().osd_id, target.peering_config());
    let recent = target.shards().recent.borrow();
    let mut since = recent.range(epoch..).map(|(_, map)| map.clone());
    let first = since.next().unwrap_or_else(|| target.map());
    let mut machine = Peering::unknown(me, pgid, first, config);
    since.for_each(|map| machine.advance(map, now()));
    machine
}

/// Nobody has the PG, as far as this OSD knows, and the monitor waits for its primary to make it. The only
/// OSD of a cluster needs no monitor to know that nobody else has it.
fn is_to_be_made(shard: &Shard, map: &OsdMap) -> bool {
    let machine = shard.machine.borrow();
    let pool = map.pool(shard.pgid.pgid.pool);
    let alone = || map.osds.iter().filter(|osd| osd.exists()).count() == 1;
    machine.state() == State::Unknown
        && machine.is_primary()
        && pool.is_some_and(|p| p.has_flag(pool_flags::CREATING) || alone())
}

/// Makes it as of the first map with its pool, and shows it what happened since: so it knows who else may
/// have made it.
fn make(target: &Target, shard: &Rc<Shard>, map: &Arc<OsdMap>) {
    let pool = shard.pgid.pgid.pool;
    let recent = target.shards().recent.borrow();
    let mut since = recent.values().skip_while(|m| m.pool(pool).is_none());
    let first = since.next().unwrap_or(map).clone();
    let me = target.config().osd_id;
    let mut machine = Peering::create(me, shard.pgid, first, target.peering_config());
    since.for_each(|map| machine.advance(map.clone(), now()));
    shard.machine.replace(machine);
    shard.state.borrow_mut().counted = true;
}

/// The monitor wants these PGs made, if they are not there. It says so again until it hears that they are.
pub fn create(target: &Target, raw: &RawMessage) {
    let Ok(wanted) = OsdPgCreate2::from_raw(raw) else {
        return tracing::error!("a pg_create2 does not decode");
    };
    let map = target.map();
    if wanted.epoch > map.epoch || target.is_catching_up() {
        return;
    }
    for pgid in wanted.pgs.into_keys() {
        if target.pgs().get(pgid.pgid).is_some_and(|pg| pg.active.get()) {
            target.mon().send(target, pg_created_message(pgid.pgid));
            continue;
        }
        let past = wanted.pg_extra.get(&pgid).map(|(_, past)| past.to_bytes(F));
        let past = past.map(|bytes| PastIntervals::from_bytes(&bytes)).transpose();
        let (Some(shard), Ok(past)) = (target.shards().get(pgid.pgid), past) else {
            continue;
        };
        let unknown = {
            let machine = shard.machine.borrow();
            // What happened in intervals that followed the message is not in it.
            let is_of_now = machine.is_current(wanted.epoch);
            machine.state() == State::Unknown && machine.is_primary() && is_of_now
        };
        if !unknown || shard.is_held() || shard.pgid != pgid {
            continue;
        }
        let (me, config) = (target.config().osd_id, target.peering_config());
        let past = past.unwrap_or_default();
        tracing::info!(%pgid, others = past.all_participants.len(), "made as the monitor wants");
        let machine = Peering::create_unless(me, pgid, map.clone(), past, config);
        shard.machine.replace(machine);
        shard.state.borrow_mut().counted = true;
        drive::input(target, &shard, |machine| machine.activate_map(now()));
    }
}

/// Removes a held shard with what is stored of it. If it is wanted again by then, it begins as new.
pub fn remove(target: &Target, shard: Rc<Shard>) {
    target.spawn(Class::Background, |target| async move {
        // Nothing may follow that stands on it.
        let_go(&target, &shard);
        shard.local.published(shard.local.last()).await?;
        destroy(&target, &shard).await?;
        let pgid = shard.pgid.pgid;
        if !target.shards().get(pgid).is_some_and(|there| Rc::ptr_eq(&there, &shard)) {
            return Ok(());
        }
        if target.pgs().get(pgid).is_some() {
            begin_anew(&target, &shard);
            return Ok(());
        }
        let backlog = shard.backlog.take();
        target.shards().remove(pgid);
        backlog.into_iter().for_each(|(osd, message)| drive::receive(&target, osd, message));
        Ok(())
    });
}

/// Nothing is known of the PG any more but what the maps say since it was removed.
fn begin_anew(target: &Target, shard: &Rc<Shard>) {
    let since = shard.machine.borrow().map().epoch;
    shard.machine.replace(unknown_since(target, shard.pgid, since));
    shard.state.replace(PgState { counted: true, ..PgState::default() });
    shard.unseen.take();
    shard.outbox.take();
    drive::release(target, shard);
}

async fn destroy(target: &Target, shard: &Shard) -> Result<(), TargetError> {
    let (store, cid) = (target.store(), shard.cid);
    if !store.read(|vos| -> Result<_, ReadError> { Ok(vos.container_exists(cid)) }).await? {
        return Ok(());
    }
    let mut tx = Tx::new(target.wall_nanos());
    tx.use_reserve();
    tx.destroy_container(cid);
    store.admit().await;
    loop {
        match store.submit(&tx) {
            Ok(commit) => return Ok(commit.await?),
            Err(StageError::Missing(pages)) => store.load(pages).await?,
            Err(StageError::NoContainer(_)) => return Ok(()),
            Err(e) => return Err(TargetError::Peering { pgid: shard.pgid, source: e }),
        }
    }
}
