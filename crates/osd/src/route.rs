//! Which PG a request is for, and the table of PGs that this target serves.
//!
//! The map says of which PGs we are the primary; their shards say when they are active. A pool that is
//! gone takes its PGs with it, in the background.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;
use std::sync::Arc;

use spirula_maps::{Osd, OsdMap, PgPool};
use spirula_store::Store;
use spirula_vos::{ContainerId, ReadError, Tx};
use spirula_wire::Features;
use spirula_wire::features::SERVER_NAUTILUS;
use spirula_wire::types::{PgId, SpgId};
use spirula_xstream::Class;

use crate::apply::{container_pg, meta_object};
use crate::backoff;
use crate::front::OpRequest;
use crate::object::pg_bounds;
use crate::pg::{Mapping, Pg};
use crate::reshape;
use crate::shard::Shard;
use crate::snap::PoolSnaps;
use crate::target::{Target, TargetError};

/// Log records loaded at a time.
const LOAD_BATCH: usize = 256;

/// The PGs of which this target is the primary, in an order that is the same in every run.
#[derive(Debug, Default)]
pub struct PgTable {
    pgs: RefCell<BTreeMap<PgId, Rc<Pg>>>,
}

impl PgTable {
    pub fn get(&self, pgid: PgId) -> Option<Rc<Pg>> {
        self.pgs.borrow().get(&pgid).cloned()
    }

    /// Whether this is the PG of its id in the current map.
    pub fn is_current(&self, pg: &Rc<Pg>) -> bool {
        self.pgs.borrow().get(&pg.pgid.pgid).is_some_and(|now| Rc::ptr_eq(now, pg))
    }

    pub fn all(&self) -> Vec<Rc<Pg>> {
        self.pgs.borrow().values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.pgs.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A new interval begins: whoever served the PG before serves it no more, and is given back.
    pub fn renew(&self, pgid: PgId) -> Option<Rc<Pg>> {
        let mut pgs = self.pgs.borrow_mut();
        let next = pgs.get(&pgid)?.next();
        pgs.insert(pgid, Rc::new(next))
    }

    /// Follows the map from `old` to `new`: the PGs that are new here, and those that left.
    pub fn update(
        &self,
        me: i32,
        old: &OsdMap,
        new: &OsdMap,
        wall: std::time::Duration,
        shard: &dyn Fn(SpgId) -> Rc<Shard>,
    ) -> Changes {
        let mut pgs = self.pgs.borrow_mut();
        let mut changes = Changes { reshaped: old.epoch == 0, ..Changes::default() };
        let same_placement = places_alike(old, new);
        for (&id, pool) in &new.pools {
            if same_placement && old.pools.get(&id) == Some(pool) {
                continue;
            }
            let pg_num = old.pools.get(&id).map_or(pool.pg_num, |old| old.pg_num);
            changes.reshaped |= pg_num != pool.pg_num;
            for pgid in (0..pool.pg_num).map(|seed| PgId::new(id, seed)) {
                match mapping(me, new, pool, pgid) {
                    Some(mut found) => {
                        // Not ours by the older map; the first map says nothing of that.
                        if old.epoch != 0 && !pgs.contains_key(&pgid) {
                            found.primary_since = found.primary_since.max(old.epoch + 1);
                        }
                        if reshapes(&pgs, pgid, pool) {
                            found.primary_since = found.primary_since.max(old.epoch + 1);
                            changes.left.extend(pgs.remove(&pgid));
                        }
                        let spgid = SpgId::whole(pgid);
                        let pg = pgs.entry(pgid).or_insert_with(|| {
                            let pg = Rc::new(Pg::new(shard(spgid)));
                            changes.added.push(pg.clone());
                            pg
                        });
                        pg.remap(found, new.epoch, wall);
                    }
                    None => changes.left.extend(pgs.remove(&pgid)),
                }
            }
        }
        let exists =
            |pgid: &PgId| new.pools.get(&pgid.pool).is_some_and(|pool| pgid.seed < pool.pg_num);
        pgs.retain(|pgid, pg| {
            let stays = exists(pgid);
            if !stays {
                pg.removed.set(true);
                changes.left.push(pg.clone());
            }
            stays
        });
        share_snaps(&pgs, new);
        changes
    }
}

/// Whether the PG has other objects with the new number of PGs: then its interval ends.
fn reshapes(pgs: &BTreeMap<PgId, Rc<Pg>>, pgid: PgId, pool: &PgPool) -> bool {
    let Some(pg) = pgs.get(&pgid) else {
        return false;
    };
    let before = pg.mapping.borrow().pg_num;
    before != pool.pg_num && pg_bounds(pgid, before) != pg_bounds(pgid, pool.pg_num)
}

/// Gives the PGs of each pool its snapshots.
fn share_snaps(pgs: &BTreeMap<PgId, Rc<Pg>>, map: &OsdMap) {
    let mut last = None;
    for (pgid, pg) in pgs {
        let (_, snaps) = match last.take() {
            Some((pool, snaps)) if pool == pgid.pool => last.insert((pool, snaps)),
            _ => last.insert((pgid.pool, Rc::new(PoolSnaps::of(map, pgid.pool)))),
        };
        pg.set_snaps(snaps.clone());
    }
}

/// What a new map did to the table.
#[derive(Debug, Default)]
pub struct Changes {
    pub added: Vec<Rc<Pg>>,
    /// No longer ours, or gone altogether ([`Pg::removed`]).
    pub left: Vec<Rc<Pg>>,
    /// Stored PGs may have to be split or merged.
    pub reshaped: bool,
}

impl Changes {
    /// What the next map did.
    pub fn add(&mut self, next: Self) {
        self.added.extend(next.added);
        self.left.extend(next.left);
        self.reshaped |= next.reshaped;
    }
}

/// Whether CRUSH gives the same OSDs by both maps, for a pool that is the same in both, and none of them
/// was down in between.
fn places_alike(old: &OsdMap, new: &OsdMap) -> bool {
    let alike = |a: &Osd, b: &Osd| {
        (a.state, a.weight, a.info.up_from) == (b.state, b.weight, b.info.up_from)
    };
    let osds_alike = old.osds.len() == new.osds.len()
        && old.osds.iter().zip(&new.osds).all(|(a, b)| alike(a, b));
    old.epoch != 0
        && osds_alike
        && (Arc::ptr_eq(&old.crush, &new.crush) || old.crush == new.crush)
        && old.primary_affinity == new.primary_affinity
        && old.pg_temp == new.pg_temp
        && old.primary_temp == new.primary_temp
        && old.pg_upmap == new.pg_upmap
        && old.pg_upmap_items == new.pg_upmap_items
}

fn mapping(me: i32, map: &OsdMap, pool: &PgPool, pgid: PgId) -> Option<Mapping> {
    let found = map.pg_to_up_acting(pgid);
    (found.acting_primary == me).then(|| Mapping {
        pg_num: pool.pg_num,
        up: found.up,
        acting: found.acting,
        up_primary: found.up_primary,
        acting_primary: found.acting_primary,
        created: pool.last_change.min(map.epoch),
        primary_since: map.osd(me).map_or(0, |osd| osd.info.up_from),
        ..Mapping::default()
    })
}

/// Where a request goes now.
#[derive(Debug)]
pub enum Routed {
    /// To this PG of ours.
    Pg(Rc<Pg>),
    /// It waits for a newer map.
    Later,
    /// Not to us: dropped without an answer, as Ceph does; the client asks again by a newer map.
    Nowhere,
    /// Sent before an event upon which clients send again, by a newer map, what has no answer.
    Stale,
}

/// Looks up the PG of `request`.
pub fn route(target: &Target, request: &OpRequest) -> Routed {
    let map = target.map();
    if map.epoch < request.msg.map_epoch {
        return Routed::Later;
    }
    let asked = request.msg.spgid.pgid;
    let found = map.pool(asked.pool).and_then(|pool| {
        let pgid = if asked.seed < pool.pg_num { asked } else { map.raw_pg_to_pg(asked)? };
        target.pgs().get(pgid).map(|pg| (pg, pool))
    });
    match found {
        None => Routed::Nowhere,
        Some((pg, pool)) => {
            let since = resent_since(&pg.mapping.borrow(), pool, request.session.features);
            if request.msg.map_epoch < since { Routed::Stale } else { Routed::Pg(pg) }
        }
    }
}

/// What a client sent to the PG by a map older than this it sends again (`can_discard_op`): served all
/// the same, it might come after later requests of its client.
fn resent_since(mapping: &Mapping, pool: &PgPool, features: Features) -> u32 {
    let forced = match features.has(SERVER_NAUTILUS) {
        true => pool.last_force_op_resend,
        false => pool.last_force_op_resend_prenautilus,
    };
    mapping.primary_since.max(forced)
}

/// All akeys of a part of the PG's own records, or those after `after`, with their values.
pub async fn all_values(
    store: &Store,
    cid: ContainerId,
    dkey: &[u8],
    after: Option<bytes::Bytes>,
) -> Result<Vec<(bytes::Bytes, bytes::Bytes)>, TargetError> {
    let (oid, mut values, mut last) = (meta_object(cid), Vec::new(), after);
    loop {
        let page = store
            .read(|vos| -> Result<_, ReadError> {
                let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                vos.list_akeys(cid, &oid, dkey, from, LOAD_BATCH)
            })
            .await?;
        let Some((key, _)) = page.last() else {
            return Ok(values);
        };
        last = Some(key.clone());
        values.extend(page);
    }
}

/// Removes the containers of pools that the map no longer has.
pub async fn remove_stale_containers(target: &Target) -> Result<(), TargetError> {
    let store = target.store();
    for cid in store.read(|vos| -> Result<_, ReadError> { Ok(vos.containers()) }).await? {
        let pgid = container_pg(cid).pgid;
        let map = target.map();
        let stale =
            map.epoch > 0 && map.pool(pgid.pool).is_none() && pgid.pool <= map.pool_max.into();
        if !stale {
            continue;
        }
        let mut tx = Tx::new(target.wall_nanos());
        tx.destroy_container(cid);
        store.admit().await;
        loop {
            match store.submit(&tx) {
                Ok(commit) => break commit.await?,
                Err(spirula_vos::StageError::Missing(pages)) => store.load(pages).await?,
                Err(spirula_vos::StageError::NoContainer(_)) => break,
                Err(e) => {
                    tracing::warn!(%pgid, "the PG of a removed pool stays: {e}");
                    break;
                }
            }
        }
        spirula_xstream::yield_now().await;
    }
    Ok(())
}

/// Starts what a new map asks for: new PGs wait for splits and merges, old ones are removed. With the
/// `first` map also those that were removed while we were away.
pub fn follow(target: &Target, changes: Changes, first: bool) {
    changes.left.iter().for_each(|pg| leave(target, pg));
    if first || changes.left.iter().any(|pg| pg.removed.get()) {
        target.spawn(
            Class::Background,
            |target| async move { remove_stale_containers(&target).await },
        );
    }
    if reshape::holds(target, changes.reshaped) {
        let map = target.map();
        for pg in changes.added {
            // Those with other copies follow the maps, whatever is done to single ones.
            let id = pg.pgid.pgid.pool;
            let copied = map.pool(id).is_some_and(|pool| pool.size > 1);
            if pg.shard.is_splitting() || copied && !target.reshaping().is_about(id) {
                continue;
            }
            pg.shard.hold();
            reshape::hold(target, pg.shard.clone());
        }
    }
}

/// The PG is no longer served here, or its interval is over.
pub fn leave(target: &Target, pg: &Rc<Pg>) {
    pg.retire();
    target.watching().left(target, pg.pgid.pgid);
    backoff::release(pg, target.epoch());
    let next = target.pgs().get(pg.pgid.pgid).filter(|next| !next.active.get());
    if let Some(next) = next {
        backoff::hold(&target.tracker().sessions_on(pg.pgid.pgid), &next, target.epoch());
    }
}

/// The PG is active: those who were told to wait are told to go on.
pub fn serves(target: &Target, pg: &Rc<Pg>) {
    backoff::release(pg, target.epoch());
    target.pg_became_active();
}

#[cfg(test)]
mod tests {
    use super::*;
    use spirula_maps::{NewCluster, osd_state};
    use spirula_wire::types::{UTime, Uuid};

    fn map(epoch: u32, up: bool, up_from: u32, pools: i64) -> OsdMap {
        let mut cluster = NewCluster::new(Uuid([7; 16]), UTime::default());
        cluster.osds = vec![(Uuid([1; 16]), 0x1_0000)];
        cluster.failure_domain = "osd".into();
        let mut map = cluster.osdmap().unwrap();
        map.epoch = epoch;
        map.osds[0].state = if up { osd_state::EXISTS | osd_state::UP } else { osd_state::EXISTS };
        map.osds[0].info.up_from = up_from;
        map.pools = (1..=pools).map(|id| (id, PgPool::replicated(1, 1, 1, 0))).collect();
        map
    }

    /// Of each pool's PG, by the last of `maps`.
    fn primary_since(maps: &[OsdMap]) -> Vec<u32> {
        let table = PgTable::default();
        let mut old = &OsdMap { epoch: 0, pools: Default::default(), ..maps[0].clone() };
        for new in maps {
            let shard = |pgid| Shard::bare(pgid, new.clone());
            table.update(0, old, new, Default::default(), &shard);
            old = new;
        }
        table.all().iter().map(|pg| pg.mapping.borrow().primary_since).collect()
    }

    #[test]
    fn a_target_is_the_primary_since_what_the_maps_say() {
        let table: [(&str, &[OsdMap], &[u32]); 6] = [
            ("the first map", &[map(9, true, 5, 1)], &[5]),
            ("nothing changed", &[map(9, true, 5, 1), map(10, true, 5, 1)], &[5]),
            ("a new pool", &[map(9, true, 5, 1), map(10, true, 5, 2)], &[5, 10]),
            ("a new pool, in maps not seen", &[map(9, true, 5, 1), map(12, true, 5, 2)], &[5, 10]),
            (
                "away and back",
                &[map(9, true, 5, 1), map(10, false, 5, 1), map(11, true, 11, 1)],
                &[11],
            ),
            ("away and back, not seen", &[map(9, true, 5, 1), map(11, true, 11, 1)], &[11]),
        ];
        for (what, maps, want) in table {
            assert_eq!(primary_since(maps), want, "{what}");
        }
    }

    #[test]
    fn clients_send_again_what_they_are_forced_to() {
        let mut pool = PgPool::replicated(1, 1, 1, 0);
        pool.last_force_op_resend = 8;
        pool.last_force_op_resend_prenautilus = 6;
        for (primary_since, features, want) in [
            (9, Features::PACIFIC, 9),
            (5, Features::PACIFIC, 8),
            (5, Features(Features::PACIFIC.0 & !SERVER_NAUTILUS), 6),
        ] {
            let mapping = Mapping { primary_since, ..Mapping::default() };
            assert_eq!(resent_since(&mapping, &pool, features), want);
        }
    }
}
