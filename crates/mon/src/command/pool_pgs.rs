//! `osd pool set POOL pg_num|pgp_num`: how many PGs a pool shall have, and over how many places they are
//! spread. As in Ceph the commands set targets, which the map follows (`service/pool_pgs.rs`).

use spirula_maps::pool::stable_mod;
use spirula_maps::{OsdMap, PgPool, osd_state, pool_flags};
use spirula_wire::types::PgId;

use super::pool::check_pg_load;
use super::pool_opt::Done;
use super::{Context, Refusal, errno, refuse};

pub(super) fn set_pg_num(
    ctx: &Context<'_>,
    id: i64,
    pool: &mut PgPool,
    n: i64,
) -> Result<Done, Refusal> {
    check_changeable(pool, "pg_num")?;
    if n == i64::from(pool.pg_num_target) {
        return Ok(Done::Same);
    }
    check_not_merged(pool, n)?;
    let max = ctx.settings.int("mon_max_pool_pg_num");
    if n < 1 || n > max {
        return refuse(
            errno::ERANGE,
            format!(
                "'pg_num' must be greater than 0 and less than or equal to {max} (you may adjust 'mon max pool pg num' for higher values)"
            ),
        );
    }
    if n > i64::from(pool.pg_num_target) {
        check_pg_load(ctx, Some(id), n, pool.size.into())?;
    }
    let n = n as u32;
    let map = ctx.state.osd.map();
    let follows = pool.pgp_num_target == pool.pg_num_target;
    let wanted = if follows { n } else { n.min(pool.pgp_num_target) };
    let fits = [wanted, pool.pgp_num.min(n)]
        .into_iter()
        .find(|pgp| pool.size > 1 || stays(map, id, n, *pgp));
    let Some(pgp_num) = fits else {
        return refuse(
            errno::EOPNOTSUPP,
            format!(
                "with pg_num {n} PGs would have to move between OSDs, which is not supported yet; at least {} keep their places",
                pool.pgp_num
            ),
        );
    };
    pool.pg_num_target = n;
    pool.pgp_num_target = pgp_num;
    Ok(Done::Set)
}

pub(super) fn set_pgp_num(
    ctx: &Context<'_>,
    id: i64,
    pool: &mut PgPool,
    n: i64,
) -> Result<Done, Refusal> {
    check_changeable(pool, "pgp_num")?;
    if n < 1 {
        return refuse(errno::EINVAL, format!("specified pgp_num must > 0, but you set to {n}"));
    }
    if n > i64::from(pool.pg_num_target) {
        let text = format!("specified pgp_num {n} > pg_num {}", pool.pg_num_target);
        return refuse(errno::EINVAL, text);
    }
    if n == i64::from(pool.pgp_num_target) {
        return Ok(Done::Same);
    }
    let n = n as u32;
    if pool.size <= 1 && !stays(ctx.state.osd.map(), id, pool.pg_num_target, n) {
        return refuse(
            errno::EOPNOTSUPP,
            format!(
                "with pgp_num {n} PGs would have to move between OSDs, which is not supported yet"
            ),
        );
    }
    pool.pgp_num_target = n;
    Ok(Done::Set)
}

fn check_changeable(pool: &PgPool, what: &str) -> Result<(), Refusal> {
    if !pool.has_flag(pool_flags::NOPGCHANGE) {
        return Ok(());
    }
    refuse(
        errno::EPERM,
        format!(
            "pool {what} change is disabled; you must unset nopgchange flag for the pool first"
        ),
    )
}

/// Copies of several OSDs are split together, but not merged.
fn check_not_merged(pool: &PgPool, n: i64) -> Result<(), Refusal> {
    if pool.size <= 1 || n >= i64::from(pool.pg_num.max(pool.pg_num_target)) {
        return Ok(());
    }
    refuse(
        errno::EOPNOTSUPP,
        format!(
            "pg_num of a pool of size {} cannot be lowered yet: its PGs are split, but merged with size 1 only",
            pool.size
        ),
    )
}

/// Whether every object of a pool stays on its OSDs with other numbers: nothing moves data yet. Which OSDs
/// are down makes no difference, as they come back.
pub(crate) fn stays(map: &OsdMap, id: i64, pg_num: u32, pgp_num: u32) -> bool {
    let mut before = map.clone();
    let existing = before.osds.iter_mut().filter(|osd| osd.state & osd_state::EXISTS != 0);
    existing.for_each(|osd| osd.state |= osd_state::UP);
    let mut after = before.clone();
    let Some(pool) = after.pools.get_mut(&id) else {
        return true;
    };
    let old = pool.pg_num;
    (pool.pg_num, pool.pgp_num) = (pg_num, pgp_num);
    (0..old.max(pg_num)).all(|seed| {
        let at = |map: &OsdMap, pg_num| {
            map.pg_to_up_acting(PgId::new(id, stable_mod(seed, pg_num))).acting
        };
        at(&before, old) == at(&after, pg_num)
    })
}
