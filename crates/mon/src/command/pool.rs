//! `osd pool create|rm|rename|set-quota|get-quota`: pools come and go.

use spirula_crush::RULE_TYPE_REPLICATED;
use spirula_maps::pool::{AUTOSCALE_OFF, AUTOSCALE_ON, AUTOSCALE_WARN};
use spirula_maps::{OsdMap, PgPool, pool_flags};
use spirula_wire::types::UTime;

use super::osd_edit::put;
use super::{Answer, Args, Context, Outcome, Refusal, errno, refuse};
use crate::limits::COPIES_MAX;
use crate::obj;
use crate::options::{iec_bytes, si_count};
use crate::text::{bytes_iec, count_si};

/// What a new pool shall be; what is absent comes from the options.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewPool {
    pub(crate) name: String,
    pub(crate) pg_num: Option<i64>,
    pub(crate) pgp_num: Option<i64>,
    pub(crate) rule: Option<String>,
    pub(crate) size: Option<i64>,
    pub(crate) autoscale: Option<String>,
    pub(crate) expected_objects: Option<i64>,
}

impl NewPool {
    pub(crate) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

pub(super) fn create(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("pool")?;
    if args.str_opt("pool_type")? == Some("erasure") {
        return refuse(
            errno::EOPNOTSUPP,
            "erasure-coded pools are not supported yet; create a replicated one",
        );
    }
    // `osd pool create NAME PG PGP RULE`: the word at the place of the profile is the rule.
    let rule = args.str_opt("rule")?.or(args.str_opt("erasure_code_profile")?);
    let wanted = NewPool {
        name: name.to_owned(),
        pg_num: args.int_opt("pg_num")?.filter(|n| *n != 0),
        pgp_num: args.int_opt("pgp_num")?.filter(|n| *n != 0),
        rule: rule.map(str::to_owned),
        size: args.int_opt("size")?.filter(|n| *n != 0),
        autoscale: args.str_opt("autoscale_mode")?.map(str::to_owned),
        expected_objects: args.int_opt("expected_num_objects")?,
    };
    let said = if create_pool(ctx, &wanted)? { "created" } else { "already exists" };
    Ok(Answer::status(format!("pool '{name}' {said}")))
}

/// Adds a pool; `false` if one of this name is there.
pub(crate) fn create_pool(ctx: &mut Context<'_>, wanted: &NewPool) -> Result<bool, Refusal> {
    let map = ctx.state.osd.map();
    if wanted.name.is_empty() {
        return refuse(errno::EINVAL, "a pool needs a name");
    }
    if map.pool_by_name(&wanted.name).is_some() {
        return Ok(false);
    }
    let pool = new_pool(ctx, wanted)?;
    let id = i64::from(map.pool_max) + 1;
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.new_pool_max = Some(id);
    inc.new_pools.insert(id, pool);
    inc.new_pool_names.insert(id, wanted.name.clone());
    put(ctx, inc)?;
    Ok(true)
}

fn new_pool(ctx: &Context<'_>, wanted: &NewPool) -> Result<PgPool, Refusal> {
    let settings = ctx.settings;
    let pg_num = wanted.pg_num.unwrap_or_else(|| settings.int("osd_pool_default_pg_num"));
    let max = settings.int("mon_max_pool_pg_num");
    if pg_num < 1 || pg_num > max {
        let text = format!(
            "'pg_num' must be greater than 0 and less than or equal to {max} (you may adjust 'mon max pool pg num' for higher values)"
        );
        return refuse(errno::ERANGE, text);
    }
    let default = settings.int("osd_pool_default_pgp_num");
    let pgp_num = wanted.pgp_num.unwrap_or(if wanted.pg_num.is_none() && default > 0 {
        default
    } else {
        pg_num
    });
    if pgp_num < 1 || pgp_num > pg_num {
        return refuse(
            errno::ERANGE,
            format!(
                "'pgp_num' must be greater than 0 and lower or equal than 'pg_num', which in this \
                 case is {pg_num}"
            ),
        );
    }
    let size = wanted.size.unwrap_or_else(|| settings.int("osd_pool_default_size"));
    let rule = rule_for(ctx, wanted.rule.as_deref())?;
    let size = check_rule_takes(ctx, rule, size)?;
    let min_size = default_min_size(ctx, size);
    check_pg_load(ctx, None, pg_num, i64::from(size))?;
    let mode =
        wanted.autoscale.as_deref().unwrap_or(settings.str("osd_pool_default_pg_autoscale_mode"));
    let mut pool = PgPool::replicated(size, min_size, pg_num as u32, rule);
    pool.flags |= pool_flags::CREATING;
    pool.pgp_num = pgp_num as u32;
    pool.pgp_num_target = pool.pgp_num;
    pool.create_time = UTime::from(ctx.now.wall);
    pool.expected_num_objects = wanted.expected_objects.unwrap_or(0).max(0) as u64;
    pool.pg_autoscale_mode = match autoscale_number(mode) {
        Some(mode) => mode,
        None => return refuse(errno::EINVAL, format!("specified invalid mode {mode}")),
    };
    let defaults = [
        ("osd_pool_default_flag_nodelete", pool_flags::NODELETE),
        ("osd_pool_default_flag_nopgchange", pool_flags::NOPGCHANGE),
        ("osd_pool_default_flag_nosizechange", pool_flags::NOSIZECHANGE),
    ];
    for (option, flag) in defaults {
        if settings.bool(option) {
            pool.flags |= flag;
        }
    }
    Ok(pool)
}

pub(super) fn autoscale_number(mode: &str) -> Option<u8> {
    match mode {
        "off" => Some(AUTOSCALE_OFF),
        "warn" => Some(AUTOSCALE_WARN),
        "on" => Some(AUTOSCALE_ON),
        _ => None,
    }
}

/// The size of a new pool, which its rule bounds. As in Ceph, a pool may begin with one copy whatever
/// `mon_allow_pool_size_one` says.
fn check_rule_takes(ctx: &Context<'_>, rule: u8, size: i64) -> Result<u8, Refusal> {
    let crush = &ctx.state.osd.map().crush;
    let (min, max) = crush
        .rule(rule.into())
        .map_or((1, COPIES_MAX), |rule| (rule.mask.min_size.into(), rule.mask.max_size.into()));
    if size < min.max(1) {
        return refuse(errno::EINVAL, "pool size is smaller than the crush rule min size");
    }
    if size > max.min(COPIES_MAX) {
        return refuse(errno::EINVAL, "pool size is bigger than the crush rule max size");
    }
    Ok(size as u8)
}

/// What `osd_pool_default_min_size` comes to for pools of that size; 0 stands for more than half.
pub(super) fn default_min_size(ctx: &Context<'_>, size: u8) -> u8 {
    match ctx.settings.int("osd_pool_default_min_size") {
        0 => size - size / 2,
        n => n.clamp(1, i64::from(size)) as u8,
    }
}

/// Refuses PG counts that would overload the OSDs.
pub(super) fn check_pg_load(
    ctx: &Context<'_>,
    changed: Option<i64>,
    pg_num: i64,
    size: i64,
) -> Result<(), Refusal> {
    let map = ctx.state.osd.map();
    let max = ctx.settings.int("mon_max_pg_per_osd");
    let others = map.pools.iter().filter(|(id, _)| changed != Some(**id));
    let copies: i64 = others.map(|(_, p)| i64::from(p.pg_num_target) * i64::from(p.size)).sum();
    let total = copies + pg_num * size;
    let osds = map.existing_osds().filter(|(_, o)| o.is_in()).count().max(3) as i64;
    if max > 0 && total / osds > max {
        let of = changed.map_or(String::new(), |id| format!("pool id {id}"));
        let text = format!(
            "{of} pg_num {pg_num} size {size} would mean {total} total pgs, which exceeds max {} (mon_max_pg_per_osd {max} * num_in_osds {osds})",
            max * osds
        );
        return refuse(errno::ERANGE, text);
    }
    Ok(())
}

/// The id of the named rule, or of the default one.
pub(super) fn rule_for(ctx: &Context<'_>, name: Option<&str>) -> Result<u8, Refusal> {
    let crush = &ctx.state.osd.map().crush;
    let id = match name.filter(|n| !n.is_empty()) {
        Some(name) => match crush.rule_by_name(name) {
            Some(id) => id,
            None => {
                return refuse(errno::ENOENT, format!("specified rule {name} doesn't exist"));
            }
        },
        None => {
            let configured = u32::try_from(ctx.settings.int("osd_pool_default_crush_rule")).ok();
            let replicated = |id: &u32| {
                crush
                    .rule(*id)
                    .is_some_and(|r| u32::from(r.mask.type_) == u32::from(RULE_TYPE_REPLICATED))
            };
            let first = || (0..crush.rules.len() as u32).find(replicated);
            match configured.filter(|id| crush.rule(*id).is_some()).or_else(first) {
                Some(id) => id,
                None => {
                    return refuse(
                        errno::ENOENT,
                        "No suitable CRUSH rule exists, check 'osd pool default crush *' config options",
                    );
                }
            }
        }
    };
    u8::try_from(id).or_else(|_| refuse(errno::EINVAL, format!("rule id {id} is above 255")))
}

pub(super) fn rm(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("pool")?;
    let Some(id) = ctx.state.osd.map().pool_by_name(name) else {
        return Ok(Answer::status(format!("pool '{name}' does not exist")));
    };
    let faking = args.flag("yes_i_really_really_mean_it_not_faking");
    let sure = args.flag("yes_i_really_really_mean_it") && args.str_opt("pool2")? == Some(name);
    if !faking && !sure {
        let text = format!(
            "WARNING: this will *PERMANENTLY DESTROY* all data stored in pool {name}.  If you are *ABSOLUTELY CERTAIN* that is what you want, pass the pool name *twice*, followed by --yes-i-really-really-mean-it."
        );
        return refuse(errno::EPERM, text);
    }
    remove_pool(ctx, id)?;
    Ok(Answer::status(format!("pool '{name}' removed")))
}

/// Removes a pool that is there, if options and flags allow it.
pub(crate) fn remove_pool(ctx: &mut Context<'_>, id: i64) -> Result<(), Refusal> {
    if !ctx.settings.bool("mon_allow_pool_delete") {
        return refuse(
            errno::EPERM,
            "pool deletion is disabled; you must first set the mon_allow_pool_delete config option to true before you can destroy a pool",
        );
    }
    let map = ctx.state.osd.map();
    if map.pool(id).is_some_and(|p| p.has_flag(pool_flags::NODELETE)) {
        return refuse(
            errno::EPERM,
            "pool deletion is disabled; you must unset nodelete flag for the pool first",
        );
    }
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.old_pools.insert(id);
    put(ctx, inc)
}

pub(super) fn rename(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (from, to) = (args.str("srcpool")?, args.str("destpool")?);
    let map = ctx.state.osd.map();
    let Some(id) = map.pool_by_name(from) else {
        if map.pool_by_name(to).is_some() {
            let text = format!(
                "pool '{from}' does not exist; pool '{to}' does -- assuming successful rename"
            );
            return Ok(Answer::status(text));
        }
        return refuse(errno::ENOENT, format!("unrecognized pool '{from}'"));
    };
    if map.pool_by_name(to).is_some() {
        return refuse(errno::EEXIST, format!("pool '{to}' already exists"));
    }
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.new_pool_names.insert(id, to.to_owned());
    put(ctx, inc)?;
    Ok(Answer::status(format!("pool '{from}' renamed to '{to}'")))
}

pub(super) fn set_quota(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (name, field, text) = (args.str("pool")?, args.str("field")?, args.str("val")?);
    let (id, mut pool) = pool_named(ctx.state.osd.map(), name)?;
    let (parsed, quota) = match field {
        "max_bytes" => (iec_bytes(text), &mut pool.quota_max_bytes),
        "max_objects" => (si_count(text), &mut pool.quota_max_objects),
        other => {
            let text =
                format!("unrecognized field '{other}'; should be 'max_bytes' or 'max_objects'");
            return refuse(errno::EINVAL, text);
        }
    };
    let value = parsed
        .or_else(|why| refuse(errno::EINVAL, format!("error parsing value '{text}': {why}")))?;
    *quota = value;
    put_pool(ctx, id, pool)?;
    Ok(Answer::status(format!("set-quota {field} = {value} for pool {name}")))
}

pub(super) fn get_quota(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("pool")?;
    let (id, pool) = pool_named(ctx.state.osd.map(), name)?;
    let stat = i32::try_from(id).ok().and_then(|id| ctx.live.digest.pg_pool_sum.get(&id));
    let sum = stat.map(|s| s.stats.sum).unwrap_or_default();
    let (objects, bytes) = (sum.num_objects, sum.num_bytes);
    let answer = ctx.either(
        || {
            let quota = |n: u64, text: String, unit: &str, now: i64| match n {
                0 => "N/A".to_owned(),
                _ => format!("{text}  (current num {unit}: {now} {unit})"),
            };
            let max_objects = format!("{} objects", count_si(pool.quota_max_objects));
            format!(
                "quotas for pool '{name}':\n  max objects: {}\n  max bytes  : {}",
                quota(pool.quota_max_objects, max_objects, "objects", objects),
                quota(pool.quota_max_bytes, bytes_iec(pool.quota_max_bytes), "bytes", bytes),
            )
        },
        || {
            obj! {
                "pool_name" => name,
                "pool_id" => id,
                "quota_max_objects" => pool.quota_max_objects,
                "current_num_objects" => objects,
                "quota_max_bytes" => pool.quota_max_bytes,
                "current_num_bytes" => bytes,
            }
        },
    );
    Ok(Answer::raw([answer.out.as_ref(), b"\n"].concat().into()))
}

/// The pool of that name, as a copy to change.
pub(super) fn pool_named(map: &OsdMap, name: &str) -> Result<(i64, PgPool), Refusal> {
    let found = map.pool_by_name(name).and_then(|id| Some((id, map.pool(id)?.clone())));
    match found {
        Some(found) => Ok(found),
        None => refuse(errno::ENOENT, format!("unrecognized pool '{name}'")),
    }
}

pub(super) fn put_pool(ctx: &mut Context<'_>, id: i64, pool: PgPool) -> Result<(), Refusal> {
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.new_pools.insert(id, pool);
    put(ctx, inc)
}
