//! PGs with a single copy that are split, or merged, where they are, because the `pg_num` of their pool
//! changed. Those with several are split by `shard::split`.
//!
//! What is to be done follows from the map and from what is stored, not from the maps in between: each
//! container tells for how many PGs it was cut, and is brought to what the map says by steps of one
//! transaction each, which split off one child or take in one neighbour. So it goes on after a crash, and
//! by a map that is newer again. Meanwhile the PGs concerned are not active, and clients back off; they
//! send again what has no answer, as a split or merge is a new interval.
//!
//! No object is moved. Log entries and index entries of snapshots go with their objects, duplicates to
//! both halves of a split. A merge ends the log: its entries become duplicates. The counters of halves are
//! counted anew before they serve.

mod count;
mod record;
mod steps;
mod tx;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use spirula_store::StoreError;
use spirula_vos::{StageError, Tx, Vos};
use spirula_xstream::{Class, sleep};

use crate::apply::{container_pg, pg_num_of, set_pg_num};
use crate::object::pg_bounds;
use crate::pg::Pg;
use crate::shard::{self, Shard};
use crate::target::{Target, TargetError};
pub use count::{Counting, recount, recount_meanwhile};
pub use record::{Base, snap_index};
use steps::{Stored, next_step};
pub use tx::halves;

/// Until a step that the store refused is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// The splits and merges of a target: one at a time.
#[derive(Debug, Default)]
pub struct Reshaping {
    running: Cell<bool>,
    /// PGs that are loaded when all is done.
    waiting: RefCell<Vec<Rc<Shard>>>,
    /// Pools of one copy with steps: these are ended though the pool has more copies meanwhile.
    pools: RefCell<BTreeSet<i64>>,
}

impl Reshaping {
    pub fn is_running(&self) -> bool {
        self.running.get()
    }

    /// Whether steps of that pool are being done.
    pub fn is_about(&self, pool: i64) -> bool {
        self.pools.borrow().contains(&pool)
    }
}

/// Whether new PGs have to wait: for steps that are being done, or that a map with another `pg_num`
/// (`changed`) asks for; these are begun.
pub fn holds(target: &Target, changed: bool) -> bool {
    let running = &target.reshaping().running;
    if !running.get() && changed && next(target).is_some() {
        running.set(true);
        target.spawn(Class::Client, run);
    }
    running.get()
}

/// What is held already waits until all is done.
pub fn hold(target: &Target, shard: Rc<Shard>) {
    if shard.is_splitting() {
        return;
    }
    let mut waiting = target.reshaping().waiting.borrow_mut();
    if !waiting.iter().any(|waits| Rc::ptr_eq(waits, &shard)) {
        waiting.push(shard);
    }
}

async fn run(target: Target) -> Result<(), TargetError> {
    while let Some(step) = next(&target) {
        step.run(&target).await?;
        if target.is_stopping() {
            return Ok(());
        }
    }
    // No await since the last look: nothing is due by any map that the target has.
    target.reshaping().running.set(false);
    target.reshaping().pools.borrow_mut().clear();
    for shard in target.reshaping().waiting.take() {
        if target.reshaping().is_running() {
            // A newer map has begun another run meanwhile.
            hold(&target, shard);
            continue;
        }
        let now_there = target.shards().get(shard.pgid.pgid);
        if now_there.is_some_and(|there| Rc::ptr_eq(&there, &shard)) {
            shard::reload(&target, &shard).await?;
        }
    }
    Ok(())
}

/// The next step that the map asks for.
fn next(target: &Target) -> Option<steps::Step> {
    let map = target.map();
    let all = target.shards().all();
    let splitting: BTreeSet<i64> =
        all.iter().filter(|shard| shard.is_splitting()).map(|shard| shard.pgid.pgid.pool).collect();
    let stored = target.store().try_read(|vos| {
        let mut pools = std::collections::BTreeMap::<i64, Vec<Stored>>::new();
        for cid in vos.containers() {
            let pgid = container_pg(cid).pgid;
            let (Some(pool), Some((_, to))) = (map.pool(pgid.pool), vos.container_range(cid))
            else {
                continue;
            };
            if splitting.contains(&pgid.pool) {
                continue;
            }
            let pg_num = pg_num_of(vos, cid).unwrap_or(pool.pg_num);
            pools.entry(pgid.pool).or_default().push(Stored { cid, seed: pgid.seed, pg_num, to });
        }
        Ok(pools)
    });
    let stored = stored.unwrap_or_default();
    let due = stored.iter().filter_map(|(id, stored)| {
        let pool = map.pool(*id)?;
        Some((*id, pool.size, next_step(*id, stored, pool.pg_num)?))
    });
    let due: Vec<(i64, u8, steps::Step)> = due.collect();
    let mut alone = target.reshaping().pools.borrow_mut();
    alone.extend(due.iter().filter(|(_, size, _)| *size <= 1).map(|(id, ..)| *id));
    // Copies of several OSDs see to splits themselves (`shard::split`).
    let is_ours = |id: &i64, step: &steps::Step| {
        alone.contains(id) || matches!(step, steps::Step::Merge { .. })
    };
    due.into_iter().find_map(|(id, _, step)| is_ours(&id, &step).then_some(step))
}

/// Commits. `false`: what it is about has gone, or the PG is no longer that of the map.
async fn commit(target: &Target, tx: &mut Tx, pg: Option<&Rc<Pg>>) -> Result<bool, TargetError> {
    tx.use_reserve();
    let store = target.store();
    loop {
        store.admit().await;
        if pg.is_some_and(|pg| !target.pgs().is_current(pg)) {
            return Ok(false);
        }
        match store.submit(tx) {
            Ok(commit) => {
                commit.await?;
                return Ok(true);
            }
            Err(StageError::Missing(pages)) => store.load(pages).await?,
            Err(StageError::NoContainer(_)) => return Ok(false),
            Err(e @ StageError::NoSpace) => {
                tracing::warn!("a PG is split or merged later: {e}");
                sleep(RETRY).await;
            }
            Err(e) => return Err(TargetError::Reshape(e)),
        }
        if target.is_stopping() {
            return Err(TargetError::Store(StoreError::Closed));
        }
    }
}

/// A container that has other objects now without a step, as where a neighbour was merged that has none, tells
/// so before they come; one of old tells it from now on.
pub async fn note_pg_num(target: &Target, pg: &Rc<Pg>) -> Result<(), TargetError> {
    let (cid, pgid, now) = (pg.cid, pg.pgid.pgid, pg.mapping.borrow().pg_num);
    let is_right = |vos: &Vos| {
        let noted = pg_num_of(vos, cid);
        Ok(!vos.container_exists(cid)
            || noted.is_some_and(|noted| pg_bounds(pgid, noted) == pg_bounds(pgid, now)))
    };
    if !target.store().read(is_right).await? {
        let mut tx = Tx::new(target.wall_nanos());
        set_pg_num(&mut tx, cid, now);
        commit(target, &mut tx, Some(pg)).await?;
    }
    Ok(())
}
