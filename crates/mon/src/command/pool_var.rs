//! `osd pool get|set`: the variables of a pool.

use spirula_maps::pool::opts;
use spirula_maps::{PgPool, pool_flags};

use super::osd_dump::{autoscale_mode, opt_json, opt_text};
use super::pool::{autoscale_number, check_pg_load, default_min_size, pool_named, put_pool};
use super::pool_opt::{Done, csum_name, set_option};
use super::pool_pgs::{set_pg_num, set_pgp_num};
use super::{Answer, Args, Context, Format, Outcome, Refusal, errno, refuse};
use crate::json::Json;
use crate::limits::COPIES_MAX;

/// Variables that are one flag bit.
const FLAGS: [(&str, u64); 8] = [
    ("hashpspool", pool_flags::HASHPSPOOL),
    ("nodelete", pool_flags::NODELETE),
    ("nopgchange", pool_flags::NOPGCHANGE),
    ("nosizechange", pool_flags::NOSIZECHANGE),
    ("write_fadvise_dontneed", pool_flags::WRITE_FADVISE_DONTNEED),
    ("noscrub", pool_flags::NOSCRUB),
    ("nodeep-scrub", pool_flags::NODEEP_SCRUB),
    ("bulk", pool_flags::BULK),
];

/// What `all` shows before the options, in Ceph's order.
const ALWAYS: [&str; 14] = [
    "size",
    "min_size",
    "pg_num",
    "pgp_num",
    "crush_rule",
    "hashpspool",
    "nodelete",
    "nopgchange",
    "nosizechange",
    "write_fadvise_dontneed",
    "noscrub",
    "nodeep-scrub",
    "use_gmt_hitset",
    "fast_read",
];

/// Options that `all` shows when they are set, in Ceph's order.
const OPTIONAL: [&str; 23] = [
    "scrub_min_interval",
    "scrub_max_interval",
    "deep_scrub_interval",
    "recovery_priority",
    "recovery_op_priority",
    "scrub_priority",
    "compression_mode",
    "compression_algorithm",
    "compression_required_ratio",
    "compression_max_blob_size",
    "compression_min_blob_size",
    "csum_type",
    "csum_max_block",
    "csum_min_block",
    "fingerprint_algorithm",
    "pg_autoscale_mode",
    "pg_num_min",
    "target_size_bytes",
    "target_size_ratio",
    "pg_autoscale_bias",
    "dedup_tier",
    "dedup_chunk_algorithm",
    "dedup_cdc_chunk_size",
];

/// Variables of cache tiers and erasure coding, which no pool here has.
const TIER_ONLY: [&str; 16] = [
    "hit_set_type",
    "hit_set_period",
    "hit_set_count",
    "hit_set_fpp",
    "target_max_objects",
    "target_max_bytes",
    "cache_target_dirty_ratio",
    "cache_target_dirty_high_ratio",
    "cache_target_full_ratio",
    "cache_min_flush_age",
    "cache_min_evict_age",
    "min_read_recency_for_promote",
    "min_write_recency_for_promote",
    "hit_set_grade_decay_rate",
    "hit_set_search_last_n",
    "cache_mode",
];

pub(super) fn get(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (name, var) = (args.str("pool")?, args.str("var")?);
    let (id, pool) = pool_named(ctx.state.osd.map(), name)?;
    let rule = rule_name(ctx, &pool);
    let names: Vec<&str> = if var == "all" {
        let shown = |name: &&str| *name == "pg_autoscale_mode" || pool.opts.get(name).is_some();
        let rest = OPTIONAL.into_iter().chain(["pg_num_max"]).filter(shown);
        ALWAYS.into_iter().chain(rest).chain(["bulk"]).collect()
    } else {
        vec![var]
    };
    let mut values = Vec::new();
    for name_of in names {
        match value_of(&pool, &rule, name_of) {
            Some((text, json)) => values.push((name_of, text, json)),
            None => return Err(no_value(name, var)),
        }
    }
    if ctx.format == Format::Plain {
        return Ok(Answer::text(
            values.iter().map(|(n, text, _)| format!("{n}: {text}\n")).collect::<String>(),
        ));
    }
    let mut json = crate::obj! { "pool" => name, "pool_id" => id };
    for (name_of, _, value) in values {
        json = json.with(name_of, value);
    }
    Ok(ctx.json(&json))
}

fn no_value(pool: &str, var: &str) -> Refusal {
    let (errno, text) = if TIER_ONLY.contains(&var) {
        (errno::EACCES, format!("pool '{pool}' is not a tier pool: variable not applicable"))
    } else if matches!(var, "erasure_code_profile" | "allow_ec_overwrites") {
        (errno::EACCES, format!("pool '{pool}' is not a erasure pool: variable not applicable"))
    } else if OPTIONAL.contains(&var) || var == "pg_num_max" {
        (errno::ENOENT, format!("option '{var}' is not set on pool '{pool}'"))
    } else {
        (errno::EINVAL, format!("pool '{pool}': invalid variable: '{var}'"))
    };
    Refusal { errno, text, out: Default::default() }
}

fn rule_name(ctx: &Context<'_>, pool: &PgPool) -> String {
    let names = &ctx.state.osd.map().crush.rule_names;
    names.get(&i32::from(pool.crush_rule)).cloned().unwrap_or_else(|| pool.crush_rule.to_string())
}

/// A variable as text and JSON.
fn value_of(pool: &PgPool, rule: &str, var: &str) -> Option<(String, Json)> {
    let number = |n: u64| Some((n.to_string(), Json::from(n)));
    if let Some((_, bit)) = FLAGS.iter().find(|(name, _)| *name == var) {
        let on = pool.has_flag(*bit);
        return Some((on.to_string(), on.into()));
    }
    match var {
        "size" => number(pool.size.into()),
        "min_size" => number(pool.min_size.into()),
        "pg_num" => number(pool.pg_num.into()),
        "pgp_num" => number(pool.pgp_num.into()),
        "crush_rule" => Some((rule.to_owned(), rule.into())),
        "use_gmt_hitset" => {
            Some((u32::from(pool.use_gmt_hitset).to_string(), pool.use_gmt_hitset.into()))
        }
        "fast_read" => number(pool.fast_read.into()),
        "pg_autoscale_mode" => Some((autoscale_mode(pool).to_owned(), autoscale_mode(pool).into())),
        "csum_type" => {
            let name = csum_name(pool.opts.get(var)?)?;
            Some((name.to_owned(), name.into()))
        }
        // Set but never shown.
        "read_lease_interval" => None,
        _ => pool.opts.get(var).map(|v| (opt_text(v), opt_json(v))),
    }
}

pub(super) fn set(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (name, var) = (args.str("pool")?, args.str("var")?);
    let val = args.show("val");
    let (id, mut pool) = pool_named(ctx.state.osd.map(), name)?;
    let sure = args.flag("yes_i_really_mean_it");
    let done = apply(ctx, &Asked { id, sure }, &mut pool, var, &val)?;
    if let Done::Same = done {
        return Ok(Answer::status(String::new()));
    }
    put_pool(ctx, id, pool)?;
    Ok(Answer::status(match done {
        Done::Set => format!("set pool {id} {var} to {val}"),
        Done::Unset => format!("unset pool {id} {var}"),
        Done::Same => String::new(),
    }))
}

/// The pool that a variable is to be set for.
struct Asked {
    id: i64,
    sure: bool,
}

fn apply(
    ctx: &Context<'_>,
    asked: &Asked,
    pool: &mut PgPool,
    var: &str,
    val: &str,
) -> Result<Done, Refusal> {
    if TIER_ONLY.contains(&var) || var == "use_gmt_hitset" {
        return refuse(errno::EACCES, "(13) Permission denied");
    }
    if let Some((_, bit)) = FLAGS.iter().find(|(flag, _)| *flag == var) {
        return set_flag(asked, pool, *bit, val);
    }
    if opts::kind(var).is_some() {
        return set_option(ctx.state.osd.map(), pool, var, val);
    }
    match var {
        "pg_num" => set_pg_num(ctx, asked.id, pool, integer(val)?),
        "pgp_num" | "pgp_num_actual" => set_pgp_num(ctx, asked.id, pool, integer(val)?),
        _ => set_own(ctx, asked, pool, var, val).map(|()| Done::Set),
    }
}

fn set_flag(asked: &Asked, pool: &mut PgPool, bit: u64, val: &str) -> Result<Done, Refusal> {
    if bit == pool_flags::HASHPSPOOL && !asked.sure {
        let text = "are you SURE?  this will remap all placement groups in this pool, this triggers large data movement, pass --yes-i-really-mean-it if you really do.";
        return refuse(errno::EPERM, text);
    }
    match val {
        "true" | "1" => pool.flags |= bit,
        "false" | "0" => pool.flags &= !bit,
        _ => return refuse(errno::EINVAL, "expecting value 'true', 'false', '0', or '1'"),
    }
    Ok(Done::Set)
}

/// What is a member of the pool, not one of its options.
fn set_own(
    ctx: &Context<'_>,
    asked: &Asked,
    pool: &mut PgPool,
    var: &str,
    val: &str,
) -> Result<(), Refusal> {
    match var {
        "size" => set_size(ctx, asked, pool, integer(val)?),
        "min_size" => match integer(val)? {
            n if (1..=i64::from(pool.size)).contains(&n) => {
                pool.min_size = n as u8;
                Ok(())
            }
            _ => refuse(
                errno::EINVAL,
                format!("pool min_size must be between 1 and size, which is set to {}", pool.size),
            ),
        },
        "crush_rule" => {
            match ctx.state.osd.map().crush.rule_by_name(val).and_then(|r| u8::try_from(r).ok()) {
                Some(rule) => {
                    pool.crush_rule = rule;
                    Ok(())
                }
                None => refuse(errno::ENOENT, format!("crush rule {val} does not exist")),
            }
        }
        "pg_autoscale_mode" => match autoscale_number(val) {
            Some(mode) => {
                pool.pg_autoscale_mode = mode;
                Ok(())
            }
            None => refuse(errno::EINVAL, format!("specified invalid mode {val}")),
        },
        "fast_read" => refuse(errno::EINVAL, "fast read is not supported in replication pool"),
        "allow_ec_overwrites" => {
            refuse(errno::EINVAL, "ec overwrites can only be enabled for an erasure coded pool")
        }
        _ => refuse(errno::EINVAL, format!("unrecognized variable '{var}'")),
    }
}

pub(super) fn integer(val: &str) -> Result<i64, Refusal> {
    val.parse().or_else(|_| {
        let text = format!(
            "error parsing integer value '{val}': Expected option value to be integer, got '{val}'"
        );
        refuse(errno::EINVAL, text)
    })
}

fn set_size(ctx: &Context<'_>, asked: &Asked, pool: &mut PgPool, size: i64) -> Result<(), Refusal> {
    if pool.has_flag(pool_flags::NOSIZECHANGE) {
        return refuse(
            errno::EPERM,
            "pool size change is disabled; you must unset nosizechange flag for the pool first",
        );
    }
    if !(1..=COPIES_MAX).contains(&size) {
        return refuse(errno::EINVAL, format!("pool size must be between 1 and {COPIES_MAX}"));
    }
    if size == 1 && !ctx.settings.bool("mon_allow_pool_size_one") {
        return refuse(errno::EPERM, "configuring pool size as 1 is disabled by default.");
    }
    if size == 1 && !asked.sure {
        let text = "WARNING: setting pool size 1 could lead to data loss without recovery. If you are *ABSOLUTELY CERTAIN* that is what you want, pass the flag --yes-i-really-mean-it.";
        return refuse(errno::EPERM, text);
    }
    check_pg_load(ctx, Some(asked.id), pool.pg_num_target.into(), size)?;
    pool.size = size as u8;
    // Ceph forgets a min_size that was set.
    pool.min_size = default_min_size(ctx, pool.size);
    Ok(())
}
