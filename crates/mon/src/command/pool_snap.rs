//! Snapshots of pools: `osd pool mksnap|rmsnap`, and what the message `pool_op` asks for.
//!
//! A pool has snapshots of its own or such that clients manage, never both. Ids of both kinds come
//! from the pool's `snap_seq`, and a removal takes one too.

use spirula_maps::{PgPool, SnapIntervals};
use spirula_wire::types::UTime;

use super::osd_edit::put;
use super::pool::pool_named;
use super::{Answer, Args, Context, Outcome, Refusal, errno, refuse};
use crate::state::Change;

pub(super) fn mksnap(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (name, snap) = (args.str("pool")?, args.str("snap")?);
    let (id, _) = pool_named(ctx.state.osd.map(), name)?;
    let said = match create_snap(ctx, id, snap)? {
        true => format!("created pool {name} snap {snap}"),
        false => format!("pool {name} snap {snap} already exists"),
    };
    Ok(Answer::status(said))
}

pub(super) fn rmsnap(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (name, snap) = (args.str("pool")?, args.str("snap")?);
    let (id, _) = pool_named(ctx.state.osd.map(), name)?;
    let said = match remove_snap(ctx, id, snap)? {
        true => format!("removed pool {name} snap {snap}"),
        false => format!("pool {name} snap {snap} does not exist"),
    };
    Ok(Answer::status(said))
}

/// Makes a snapshot of the pool; `false` if it has one of this name.
pub(crate) fn create_snap(ctx: &mut Context<'_>, id: i64, snap: &str) -> Result<bool, Refusal> {
    let mut pool = with_own_snaps(ctx, id)?;
    if pool.snap_by_name(snap).is_some() {
        return Ok(false);
    }
    pool.add_snap(snap, UTime::from(ctx.now.wall));
    put_snaps(ctx, id, pool, None)?;
    Ok(true)
}

/// Removes a snapshot of the pool; `false` if it has none of this name.
pub(crate) fn remove_snap(ctx: &mut Context<'_>, id: i64, snap: &str) -> Result<bool, Refusal> {
    let mut pool = with_own_snaps(ctx, id)?;
    let Some(removed) = pool.remove_snap(snap) else {
        return Ok(false);
    };
    put_snaps(ctx, id, pool, Some(removed))?;
    Ok(true)
}

/// Hands out the id of a snapshot that the client manages.
pub(crate) fn create_selfmanaged(ctx: &mut Context<'_>, id: i64) -> Result<u64, Refusal> {
    let mut pool = with_clients_snaps(ctx, id)?;
    let snap = pool.add_selfmanaged_snap();
    put_snaps(ctx, id, pool, None)?;
    Ok(snap)
}

/// Removes a snapshot that a client manages, unless it was removed before.
pub(crate) fn remove_selfmanaged(ctx: &mut Context<'_>, id: i64, snap: u64) -> Result<(), Refusal> {
    let mut pool = with_clients_snaps(ctx, id)?;
    if is_removed(ctx, id, snap) {
        return Ok(());
    }
    if !pool.has_selfmanaged_snaps() {
        return refuse(errno::EOPNOTSUPP, "no client manages snapshots of this pool");
    }
    if snap > pool.snap_seq {
        return refuse(errno::ENOENT, format!("snapshot {snap} was never made"));
    }
    let taken = pool.remove_selfmanaged_snap();
    put_snaps(ctx, id, pool, Some(snap))?;
    // So that the purged ids stay one interval: this one no snapshot can have.
    ctx.change(Change::PurgedSnaps { pool: id, snaps: SnapIntervals::one(taken) });
    Ok(())
}

fn is_removed(ctx: &Context<'_>, id: i64, snap: u64) -> bool {
    let among = |sets: &std::collections::BTreeMap<i64, SnapIntervals>| {
        sets.get(&id).is_some_and(|set| set.contains(snap))
    };
    among(&ctx.state.osd.map().removed_snaps_queue) || among(&ctx.state.purged_snaps)
}

fn existing(ctx: &Context<'_>, id: i64) -> Result<PgPool, Refusal> {
    match ctx.state.osd.map().pool(id) {
        Some(pool) => Ok(pool.clone()),
        None => refuse(errno::ENOENT, format!("there is no pool {id}")),
    }
}

/// The pool as a copy to change, unless clients manage its snapshots.
fn with_own_snaps(ctx: &Context<'_>, id: i64) -> Result<PgPool, Refusal> {
    let pool = existing(ctx, id)?;
    if pool.has_selfmanaged_snaps() {
        let name = ctx.state.osd.map().pool_name(id).unwrap_or_default();
        return refuse(errno::EINVAL, format!("pool {name} is in unmanaged snaps mode"));
    }
    Ok(pool)
}

/// The pool as a copy to change, unless it has snapshots of its own.
fn with_clients_snaps(ctx: &Context<'_>, id: i64) -> Result<PgPool, Refusal> {
    let pool = existing(ctx, id)?;
    if pool.has_pool_snaps() {
        return refuse(errno::EINVAL, "the pool has snapshots of its own");
    }
    Ok(pool)
}

/// OSDs trim what `removed` names, and report it purged when nothing of it is left.
fn put_snaps(
    ctx: &mut Context<'_>,
    id: i64,
    mut pool: PgPool,
    removed: Option<u64>,
) -> Result<(), Refusal> {
    let mut inc = ctx.state.osd.next(ctx.now);
    pool.snap_epoch = inc.epoch;
    inc.new_pools.insert(id, pool);
    if let Some(snap) = removed {
        inc.new_removed_snaps.insert(id, SnapIntervals::one(snap));
    }
    put(ctx, inc)
}
