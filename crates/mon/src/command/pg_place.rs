//! `osd pg-temp|primary-temp|pg-upmap*`, `pg repeer`: places of single PGs.

use spirula_maps::{ITEM_NONE, OsdMap, PgPool, Release};
use spirula_wire::types::PgId;

use super::osd_edit::put;
use super::{Answer, Args, Context, Outcome, Refusal, errno, refuse};
use crate::state::{Change, Creating};

/// The PG that a command is about.
fn pg_of(map: &OsdMap, args: &Args) -> Result<(PgId, PgPool), Refusal> {
    let text = args.str("pgid")?;
    let Ok(pg) = text.parse::<PgId>() else {
        return refuse(errno::EINVAL, format!("invalid pgid '{text}'"));
    };
    match map.pool(pg.pool).filter(|pool| pg.seed < pool.pg_num) {
        Some(pool) => Ok((pg, pool.clone())),
        None => refuse(errno::ENOENT, format!("pg {pg} does not exist")),
    }
}

fn must_exist(map: &OsdMap, osd: i32) -> Result<(), Refusal> {
    if map.exists(osd) {
        Ok(())
    } else {
        refuse(errno::ENOENT, format!("osd.{osd} does not exist"))
    }
}

fn check_count(pool: &PgPool, count: usize, what: &str) -> Result<(), Refusal> {
    if count > usize::from(pool.size) {
        let text = format!("num of {what} ({count}) > pool size ({})", pool.size);
        return refuse(errno::EINVAL, text);
    }
    Ok(())
}

fn check_min_count(pool: &PgPool, count: usize) -> Result<(), Refusal> {
    if count < usize::from(pool.min_size) {
        let text = format!("num of osds ({count}) < pool min size ({})", pool.min_size);
        return refuse(errno::EINVAL, text);
    }
    check_count(pool, count, "osds")
}

fn list(osds: &[i32]) -> String {
    let osds: Vec<String> = osds.iter().map(i32::to_string).collect();
    format!("[{}]", osds.join(","))
}

pub(super) fn pg_temp(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    let (pg, pool) = pg_of(map, args)?;
    let osds = if args.has("id") { args.osds("id")? } else { Vec::new() };
    osds.iter().try_for_each(|osd| must_exist(map, *osd))?;
    let said = if osds.is_empty() {
        format!("done cleaning up pg_temp of {pg}")
    } else {
        check_min_count(&pool, osds.len())?;
        format!("set {pg} pg_temp mapping to {}", list(&osds))
    };
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.new_pg_temp.insert(pg, osds);
    put(ctx, inc)?;
    Ok(Answer::status(said))
}

pub(super) fn primary_temp(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    let (pg, _) = pg_of(map, args)?;
    let osd = match args.int_opt("id") {
        Ok(Some(-1)) => -1,
        _ => args.osd("id")?,
    };
    if osd != -1 {
        must_exist(map, osd)?;
    }
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.new_primary_temp.insert(pg, osd);
    put(ctx, inc)?;
    Ok(Answer::status(format!("set {pg} primary_temp mapping to {osd}")))
}

/// Clients older than Luminous do not know these exceptions.
fn check_clients(map: &OsdMap) -> Result<(), Refusal> {
    let oldest = map.require_min_compat_client;
    if oldest >= Release::LUMINOUS {
        return Ok(());
    }
    refuse(
        errno::EPERM,
        format!(
            "min_compat_client {oldest} < luminous, which is required for pg-upmap. Try 'ceph osd set-require-min-compat-client luminous' before using the new interface"
        ),
    )
}

pub(super) fn upmap(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    check_clients(map)?;
    let (pg, pool) = pg_of(map, args)?;
    let asked = args.osds("id")?;
    check_min_count(&pool, asked.len())?;
    let (mut osds, mut said) = (Vec::new(), String::new());
    for osd in asked {
        if osd != ITEM_NONE {
            must_exist(map, osd)?;
        }
        if osds.contains(&osd) {
            said += &format!("osd.{osd} already exists, ");
        } else {
            osds.push(osd);
        }
    }
    said += &format!("set {pg} pg_upmap mapping to {}", list(&osds));
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.new_pg_upmap.insert(pg, osds);
    put(ctx, inc)?;
    Ok(Answer::status(said))
}

pub(super) fn rm_upmap(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    check_clients(map)?;
    let (pg, _) = pg_of(map, args)?;
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.old_pg_upmap.insert(pg);
    put(ctx, inc)?;
    Ok(Answer::status(format!("clear {pg} pg_upmap mapping")))
}

pub(super) fn upmap_items(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    check_clients(map)?;
    let (pg, pool) = pg_of(map, args)?;
    let asked = args.osds("id")?;
    if asked.len() % 2 != 0 {
        return refuse(errno::EINVAL, "you must specify pairs of osd ids to be remapped");
    }
    check_count(&pool, asked.len() / 2, "osd pairs")?;
    let (mut pairs, mut said) = (Vec::new(), String::new());
    for pair in asked.chunks_exact(2) {
        let (from, to) = (pair[0], pair[1]);
        if from == to {
            said += &format!("from osd.{from} == to osd.{to}, ");
            continue;
        }
        must_exist(map, from)?;
        if to != ITEM_NONE {
            must_exist(map, to)?;
        }
        if pairs.contains(&(from, to)) {
            said += &format!("osd.{from} -> osd.{to} already exists, ");
        } else {
            pairs.push((from, to));
        }
    }
    if pairs.is_empty() {
        said += "no valid upmap items(pairs) is specified";
        return refuse(errno::EINVAL, said);
    }
    let shown: Vec<String> = pairs.iter().map(|(from, to)| format!("{from}->{to}")).collect();
    said += &format!("set {pg} pg_upmap_items mapping to [{}]", shown.join(","));
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.new_pg_upmap_items.insert(pg, pairs);
    put(ctx, inc)?;
    Ok(Answer::status(said))
}

pub(super) fn rm_upmap_items(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    check_clients(map)?;
    let (pg, _) = pg_of(map, args)?;
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.old_pg_upmap_items.insert(pg);
    put(ctx, inc)?;
    Ok(Answer::status(format!("clear {pg} pg_upmap_items mapping")))
}

/// Has a PG that nobody has any more made anew, empty.
pub(super) fn force_create(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let text = args.show("pgid");
    let map = ctx.state.osd.map();
    let (pg, _) = pg_of(map, args).map_err(|e| match e.errno {
        errno::ENOENT => Refusal { text: format!("pg {text} should not exist"), ..e },
        _ => e,
    })?;
    if !args.flag("yes_i_really_mean_it") {
        let text = "This command will recreate a lost (as in data lost) PG with data in it, such that the cluster will give up ever trying to recover the lost data.  Do this only if you are certain that all copies of the PG are in fact lost and you are willing to accept that the data is permanently destroyed.  Pass --yes-i-really-mean-it to proceed.";
        return refuse(errno::EPERM, text);
    }
    if ctx.state.creating.get(&pg) == Some(&Creating::Anyway) {
        return Ok(Answer::status(format!("pg {text} already creating")));
    }
    ctx.change(Change::CreatePg { pg, how: Some(Creating::Anyway) });
    Ok(Answer::status(format!("pg {text} now creating, ok")))
}

/// Gives a PG another acting set for a moment, so that it peers anew and asks for its own again.
pub(super) fn repeer(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    let (pg, _) = pg_of(map, args).map_err(|e| match e.errno {
        errno::ENOENT => {
            Refusal { text: format!("pg '{}' does not exist", args.show("pgid")), ..e }
        }
        _ => e,
    })?;
    let at = map.pg_to_up_acting(pg);
    if at.acting_primary < 0 {
        return refuse(errno::EAGAIN, "pg currently has no primary");
    }
    let mut inc = ctx.state.osd.next(ctx.now);
    if at.acting.len() > 1 {
        inc.new_pg_temp.insert(pg, vec![at.acting_primary]);
    } else {
        let mut up = map.existing_osds().filter(|(_, osd)| osd.is_up()).map(|(id, _)| id);
        let Some(other) = up.find(|osd| *osd != at.acting_primary) else {
            return refuse(errno::EAGAIN, "not enough up OSDs in the cluster to force repeer");
        };
        inc.new_primary_temp.insert(pg, other);
    }
    put(ctx, inc)?;
    Ok(Answer::default())
}
