//! `osd *` that change the map: flags, in and out, weights, ratios.

use std::collections::BTreeMap;

use spirula_maps::{Incremental, OsdMap, WEIGHT_IN, flags, osd_state};
use spirula_wire::types::{EntityNameStr, EntityType};

use super::args::parse_osd;
use super::{Answer, Args, Context, Outcome, Refusal, errno, refuse};
use crate::json::float;
use crate::obj;
use crate::state::Change;

/// Adds the finished incremental to the changes.
pub(super) fn put(ctx: &mut Context<'_>, mut inc: Incremental) -> Result<(), Refusal> {
    if let Some(mix) = crate::kinds::mixed_by(ctx.state, &inc) {
        return refuse(errno::EINVAL, mix);
    }
    crate::prime::prime(ctx.state.osd.map(), ctx.settings, &mut inc);
    match ctx.state.osd.seal(inc) {
        Ok(change) => {
            ctx.change(change);
            Ok(())
        }
        Err(e) => refuse(errno::EINVAL, format!("the change does not apply: {e}")),
    }
}

/// Flags of `osd set|unset` and their bits.
fn flag(key: &str) -> Option<u32> {
    match key {
        "pause" => Some(flags::PAUSERD | flags::PAUSEWR),
        "noup" | "nodown" | "noout" | "noin" | "nobackfill" | "norebalance" | "norecover"
        | "noscrub" | "nodeep-scrub" | "notieragent" | "nosnaptrim" | "pglog_hardlimit" => {
            flags::by_name(key)
        }
        _ => None,
    }
}

pub(super) fn set(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let key = args.str("key")?.to_owned();
    change_flag(ctx, &key, true)
}

pub(super) fn unset(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let key = args.str("key")?.to_owned();
    change_flag(ctx, &key, false)
}

pub(super) fn pause(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    change_flag(ctx, "pause", true)
}

pub(super) fn unpause(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    change_flag(ctx, "pause", false)
}

fn change_flag(ctx: &mut Context<'_>, key: &str, on: bool) -> Outcome {
    let Some(bits) = flag(key) else {
        return refuse(errno::EINVAL, format!("unrecognized flag '{key}'"));
    };
    let mut inc = ctx.state.osd.next(ctx.now);
    let old = ctx.state.osd.map().flags;
    inc.new_flags = Some(if on { old | bits } else { old & !bits });
    put(ctx, inc)?;
    Ok(Answer::status(format!("{} is {}", flags::names(bits), if on { "set" } else { "unset" })))
}

/// The OSDs that `ids` names; `any` and `all` name every one for which `eligible` holds.
pub(super) fn osds_named(
    ctx: &Context<'_>,
    args: &Args,
    eligible: impl Fn(i32) -> bool,
) -> Result<Vec<i32>, Refusal> {
    let mut osds = Vec::new();
    for word in args.strs("ids")? {
        if matches!(word, "any" | "all" | "*") {
            let all = ctx.state.osd.map().existing_osds().map(|(id, _)| id);
            return Ok(all.filter(|id| eligible(*id)).collect());
        }
        match parse_osd(word) {
            Some(id) if id >= 0 => osds.push(id),
            _ => {
                let text =
                    format!("Expected option value to be integer, got '{word}'invalid osd id-1");
                return refuse(errno::EINVAL, text);
            }
        }
    }
    Ok(osds)
}

pub(super) fn osd_out(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    in_or_out(ctx, args, false)
}

pub(super) fn osd_in(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    in_or_out(ctx, args, true)
}

fn in_or_out(ctx: &mut Context<'_>, args: &Args, wanted: bool) -> Outcome {
    let map = ctx.state.osd.map();
    let word = if wanted { "in" } else { "out" };
    let mut inc = ctx.state.osd.next(ctx.now);
    let mut said = String::new();
    for osd in osds_named(ctx, args, |id| map.is_in(id) != wanted)? {
        if !map.exists(osd) {
            said += &format!("osd.{osd} does not exist. ");
        } else if map.is_in(osd) == wanted {
            said += &format!("osd.{osd} is already {word}. ");
        } else {
            let old = map.osd(osd).map_or(0, |o| o.xinfo.old_weight);
            let weight = if old > 0 { old } else { WEIGHT_IN };
            inc.new_weight.insert(osd, if wanted { weight } else { 0 });
            said += &format!("marked {word} osd.{osd}. ");
        }
    }
    if !inc.is_empty() {
        put(ctx, inc)?;
    }
    Ok(Answer::status(said))
}

pub(super) fn down(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    let is_dead = args.flag("definitely_dead");
    let mut inc = ctx.state.osd.next(ctx.now);
    let mut said = String::new();
    for osd in osds_named(ctx, args, |id| map.is_up(id))? {
        if !map.exists(osd) {
            said += &format!("osd.{osd} does not exist. ");
        } else if !map.is_up(osd) {
            said += &format!("osd.{osd} is already down. ");
        } else {
            inc.new_state.insert(osd, osd_state::UP);
            said += &format!("marked down osd.{osd}. ");
        }
        if let Some(known) = map.osd(osd).filter(|known| is_dead && known.exists()) {
            // Nobody waits for the end of its leases.
            inc.new_xinfo.entry(osd).or_insert(known.xinfo).dead_epoch = inc.epoch;
        }
    }
    if !inc.is_empty() {
        put(ctx, inc)?;
    }
    Ok(Answer::status(said))
}

pub(super) fn reweight(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (osd, weight) = (args.osd("id")?, args.float("weight")?);
    if !(0.0..=1.0).contains(&weight) {
        return refuse(errno::EINVAL, "weight must be in the range [0..1]");
    }
    existing(ctx.state.osd.map(), osd)?;
    let fixed = (weight * f64::from(WEIGHT_IN)) as u32;
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.new_weight.insert(osd, fixed);
    put(ctx, inc)?;
    Ok(Answer::status(format!("reweighted osd.{osd} to {} ({fixed:x})", float(weight, 6))))
}

pub(super) fn primary_affinity(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (osd, weight) = (args.osd("id")?, args.float("weight")?);
    if !(0.0..=1.0).contains(&weight) {
        return refuse(errno::EINVAL, "weight must be >= 0 and <= 1");
    }
    existing(ctx.state.osd.map(), osd)?;
    let fixed = (weight * f64::from(WEIGHT_IN)) as u32;
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.new_primary_affinity.insert(osd, fixed);
    put(ctx, inc)?;
    // The digits around the 16.16 value are Ceph's: it prints its format flags as numbers.
    Ok(Answer::status(format!(
        "set osd.{osd} primary-affinity to {} (8{fixed}2)",
        float(weight, 6)
    )))
}

fn existing(map: &OsdMap, osd: i32) -> Result<(), Refusal> {
    if map.exists(osd) {
        Ok(())
    } else {
        refuse(errno::ENOENT, format!("osd.{osd} does not exist"))
    }
}

pub(super) fn set_full_ratio(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    set_ratio(ctx, args, "full", |inc, r| inc.new_full_ratio = r)
}

pub(super) fn set_backfillfull_ratio(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    set_ratio(ctx, args, "backfillfull", |inc, r| inc.new_backfillfull_ratio = r)
}

pub(super) fn set_nearfull_ratio(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    set_ratio(ctx, args, "nearfull", |inc, r| inc.new_nearfull_ratio = r)
}

fn set_ratio(
    ctx: &mut Context<'_>,
    args: &Args,
    what: &str,
    put_ratio: impl FnOnce(&mut Incremental, f32),
) -> Outcome {
    let ratio = args.float("ratio")?;
    if !(0.0..=1.0).contains(&ratio) {
        return refuse(errno::EINVAL, format!("{ratio} not in range [0.0, 1.0]"));
    }
    let mut inc = ctx.state.osd.next(ctx.now);
    put_ratio(&mut inc, ratio as f32);
    put(ctx, inc)?;
    Ok(Answer::status(format!("osd set-{what}-ratio {}", float(ratio, 6))))
}

pub(super) fn setmaxosd(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let wanted = args.int("newmax")?;
    let limit = ctx.settings.int("mon_max_osd");
    if wanted < 0 || wanted > limit {
        return refuse(
            errno::ERANGE,
            format!("cannot set max_osd to {wanted} which is > conf.mon_max_osd ({limit})"),
        );
    }
    let map = ctx.state.osd.map();
    let used = map.existing_osds().map(|(id, _)| i64::from(id)).max();
    if let Some(id) = used.filter(|id| *id >= wanted) {
        let text = format!(
            "cannot shrink max_osd to {wanted} because osd.{id} (and possibly others) still in use"
        );
        return refuse(errno::EBUSY, text);
    }
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.new_max_osd = u32::try_from(wanted).ok();
    put(ctx, inc)?;
    Ok(Answer::status(format!("set new max_osd = {wanted}")))
}

/// Removes every trace of an OSD that is down: map, CRUSH, keys.
pub(super) fn purge(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let osd = args.osd("id")?;
    if !args.flag("yes_i_really_mean_it") {
        let text = "Are you SURE?  Did you verify with 'ceph osd safe-to-destroy'?  This will PERMANENTLY DESTROY the osd; pass --yes-i-really-mean-it to proceed anyway";
        return refuse(errno::EPERM, text);
    }
    let map = ctx.state.osd.map();
    if !map.exists(osd) {
        return Ok(Answer::status(format!("osd.{osd} does not exist")));
    }
    if map.is_up(osd) {
        return refuse(errno::EBUSY, format!("osd.{osd} is not `down`."));
    }
    remove_all_of(ctx, osd)
}

/// Takes an OSD out of the map and out of CRUSH, and forgets its key.
pub(super) fn remove_all_of(ctx: &mut Context<'_>, osd: i32) -> Outcome {
    let map = ctx.state.osd.map();
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.new_state.insert(osd, map.osd(osd).map_or(osd_state::EXISTS, |o| o.state));
    inc.new_uuid.insert(osd, spirula_wire::types::Uuid::default());
    if map.crush.name(osd).is_some() {
        let mut crush = (*map.crush).clone();
        if let Err(e) = crush.remove_item(osd) {
            return refuse(e.errno(), e);
        }
        inc.crush = super::crush_edit::encoded(&crush);
    }
    put(ctx, inc)?;
    ctx.change(Change::RemoveAuth(EntityNameStr::new(EntityType::OSD, osd.to_string())));
    Ok(Answer::status(format!("purged osd.{osd}")))
}

/// A new OSD id for a uuid, or the id it has; with a key from the input (`{"cephx_secret": ..}`).
pub(super) fn new_osd(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let text = args.str("uuid")?;
    let Ok(uuid) = text.parse::<spirula_wire::types::Uuid>() else {
        return refuse(errno::EINVAL, format!("invalid uuid '{text}'"));
    };
    let map = ctx.state.osd.map();
    if let Some(id) = map.osd_by_uuid(&uuid) {
        return Ok(new_osd_answer(ctx, id));
    }
    let free = || (0..map.max_osd()).find(|id| !map.exists(*id)).unwrap_or(map.max_osd());
    let id = if args.has("id") { args.osd("id")? } else { free() };
    let destroyed = map.osd(id).is_some_and(|known| known.is_destroyed());
    if map.exists(id) && !destroyed {
        return refuse(errno::EEXIST, format!("osd.{id} already exists with another uuid"));
    }
    let mut inc = ctx.state.osd.next(ctx.now);
    if id >= map.max_osd() {
        inc.new_max_osd = u32::try_from(id).ok().and_then(|id| id.checked_add(1));
    }
    // Of one that was destroyed the id is taken over.
    let state = map.osd(id).map_or(0, |known| known.state);
    let wanted = (state | osd_state::EXISTS | osd_state::NEW) & !osd_state::DESTROYED;
    inc.new_state.insert(id, state ^ wanted);
    inc.new_uuid.insert(id, uuid);
    put(ctx, inc)?;
    if let Some(key) = secret_of(&ctx.input)? {
        let caps = [("mgr", "allow profile osd"), ("mon", "allow profile osd"), ("osd", "allow *")];
        let caps: BTreeMap<String, String> = caps.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let name = EntityNameStr::new(EntityType::OSD, id.to_string());
        ctx.change(Change::SetAuth { name, key, caps });
    }
    Ok(new_osd_answer(ctx, id))
}

pub(super) fn new_osd_answer(ctx: &Context<'_>, id: i32) -> Answer {
    ctx.either(|| format!("{id}\n"), || obj! { "osdid" => id })
}

fn secret_of(input: &[u8]) -> Result<Option<spirula_auth::CryptoKey>, Refusal> {
    if input.is_empty() {
        return Ok(None);
    }
    let secrets: Result<BTreeMap<String, String>, _> = serde_json::from_slice(input);
    let text = secrets.ok().and_then(|s| s.get("cephx_secret").cloned());
    match text.map(|t| spirula_auth::CryptoKey::from_base64(&t)) {
        Some(Ok(key)) => Ok(Some(key)),
        _ => refuse(errno::EINVAL, "the input is not JSON with a cephx_secret"),
    }
}
