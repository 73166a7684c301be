//! `osd crush *` that change the map: rules, buckets, weights, classes.

use bytes::Bytes;
use spirula_crush::{CrushMap, EditError, Location, RuleMode};
use spirula_wire::{Decode, Encode, Features};

use super::args::parse_osd;
use super::osd_edit::put;
use super::{Answer, Args, Context, Outcome, Refusal, errno, refuse};
use crate::json::float;

pub(super) fn encoded(crush: &CrushMap) -> Bytes {
    crush.to_bytes(Features::PACIFIC).into()
}

pub(super) fn edit_error(e: &EditError) -> Refusal {
    Refusal { errno: e.errno(), text: e.to_string(), out: Bytes::new() }
}

/// Changes a copy of the CRUSH map and proposes it, if it has become another.
pub(super) fn edit<T>(
    ctx: &mut Context<'_>,
    body: impl FnOnce(&mut CrushMap) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let mut crush = (*ctx.state.osd.map().crush).clone();
    let value = body(&mut crush)?;
    if crush != *ctx.state.osd.map().crush {
        let mut inc = ctx.state.osd.next(ctx.now);
        inc.crush = encoded(&crush);
        put(ctx, inc)?;
    }
    Ok(value)
}

pub(super) fn rule_create_replicated(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let class = args.str_opt("class")?.filter(|c| !c.is_empty());
    rule_create(ctx, args, class, RuleMode::Firstn)
}

pub(super) fn rule_create_simple(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let indep = args.str_opt("mode")? == Some("indep");
    rule_create(ctx, args, None, if indep { RuleMode::Indep } else { RuleMode::Firstn })
}

fn rule_create(ctx: &mut Context<'_>, args: &Args, class: Option<&str>, mode: RuleMode) -> Outcome {
    let (name, root, type_) = (args.str("name")?, args.str("root")?, args.str("type")?);
    let crush = &ctx.state.osd.map().crush;
    if crush.rule_by_name(name).is_some() {
        return Ok(Answer::status(format!("rule {name} already exists")));
    }
    if crush.item_by_name(root).is_none() {
        return refuse(errno::ENOENT, format!("root item {root} does not exist"));
    }
    if crush.type_by_name(type_).is_none() {
        return refuse(errno::EINVAL, format!("unknown type {type_}"));
    }
    if let Some(class) = class.filter(|c| crush.class_by_name(c).is_none()) {
        return refuse(errno::EINVAL, format!("device class {class} does not exist"));
    }
    edit(ctx, |crush| {
        crush.add_simple_rule(name, root, type_, class, mode).map_err(|e| edit_error(&e))
    })?;
    Ok(Answer::default())
}

pub(super) fn rule_rm(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("name")?;
    let map = ctx.state.osd.map();
    let Some(id) = map.crush.rule_by_name(name) else {
        return Ok(Answer::status(format!("rule {name} does not exist")));
    };
    if map.pools.values().any(|p| u32::from(p.crush_rule) == id) {
        return refuse(errno::EBUSY, format!("crush rule {name} ({id}) is in use"));
    }
    edit(ctx, |crush| crush.remove_rule(name).map_err(|e| edit_error(&e)))?;
    Ok(Answer::default())
}

pub(super) fn rule_rename(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (from, to) = (args.str("srcname")?.to_owned(), args.str("dstname")?.to_owned());
    let crush = &ctx.state.osd.map().crush;
    let Some(id) = crush.rule_by_name(&from) else {
        if crush.rule_by_name(&to).is_some() {
            return Ok(Answer::status(format!("already renamed to '{to}'")));
        }
        return refuse(errno::ENOENT, format!("source rule name '{from}' does not exist"));
    };
    if crush.rule_by_name(&to).is_some() {
        return refuse(errno::EEXIST, format!("dst rule name '{to}' already exists"));
    }
    edit(ctx, |crush| {
        crush.rule_names.insert(id as i32, to);
        Ok(())
    })?;
    Ok(Answer::default())
}

pub(super) fn add_bucket(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (name, type_) = (args.str("name")?, args.str("type")?);
    let location = location(args)?;
    let crush = &ctx.state.osd.map().crush;
    if crush.item_by_name(name).is_some() {
        return Ok(Answer::status(format!("bucket '{name}' already exists")));
    }
    match crush.type_by_name(type_) {
        None => return refuse(errno::EINVAL, format!("type '{type_}' does not exist")),
        Some(0) => {
            let text = format!("type '{type_}' is for devices, not buckets");
            return refuse(errno::EINVAL, text);
        }
        Some(_) => {}
    }
    edit(ctx, |crush| {
        let id = crush.add_bucket(name, type_).map_err(|e| edit_error(&e))?;
        if !location.is_empty() {
            crush.move_bucket(id, &location).map_err(|e| edit_error(&e))?;
        }
        Ok(())
    })?;
    let place = match location.is_empty() {
        true => "crush map".to_owned(),
        false => format!("location {}", shown(&location)),
    };
    Ok(Answer::status(format!("added bucket {name} type {type_} to {place}")))
}

/// `osd crush add|set ID WEIGHT LOCATION`: puts an OSD where it is told.
pub(super) fn add(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (osd, weight) = (args.osd("id")?, weight(args)?);
    let location = location(args)?;
    let name = format!("osd.{osd}");
    must_exist(ctx, osd)?;
    let adds = args.str("prefix")?.ends_with("add");
    let is_there = is_at(&ctx.state.osd.map().crush, osd, &location);
    let verb = if adds && !is_there { "add" } else { "set" };
    edit(ctx, |crush| {
        crush.update_item(osd, weight, &name, &location).map_err(|e| edit_error(&e))
    })?;
    Ok(Answer::status(format!(
        "{verb} item id {osd} name '{name}' weight {} at location {} to crush map",
        float(f64::from(weight) / 65_536.0, 6),
        shown(&location)
    )))
}

/// What an OSD sends when it boots.
pub(super) fn create_or_move(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (osd, weight) = (args.osd("id")?, weight(args)?);
    let location = location(args)?;
    let name = format!("osd.{osd}");
    must_exist(ctx, osd)?;
    edit(ctx, |crush| {
        crush.create_or_move_item(osd, weight, &name, &location).map_err(|e| edit_error(&e))
    })?;
    Ok(Answer::status(format!(
        "create-or-move updating item name '{name}' weight {} at location {} to crush map",
        float(f64::from(weight) / 65_536.0, 6),
        shown(&location)
    )))
}

pub(super) fn move_item(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("name")?;
    let location = location(args)?;
    let Some(id) = ctx.state.osd.map().crush.item_by_name(name) else {
        return refuse(errno::ENOENT, format!("item {name} does not exist"));
    };
    let crush = &ctx.state.osd.map().crush;
    if is_at(crush, id, &location) {
        let place = shown(&location);
        let text = format!("no need to move item id {id} name '{name}' to location {place}");
        return Ok(Answer::status(format!("{text} in crush map")));
    }
    edit(ctx, |crush| {
        let done = if id >= 0 {
            let weight = crush.item_weight(id).unwrap_or(0);
            crush.create_or_move_item(id, weight, name, &location).map(drop)
        } else {
            crush.move_bucket(id, &location)
        };
        done.map_err(|e| edit_error(&e))
    })?;
    Ok(Answer::status(format!(
        "moved item id {id} name '{name}' to location {} in crush map",
        shown(&location)
    )))
}

pub(super) fn rm(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("name")?;
    let crush = &ctx.state.osd.map().crush;
    let Some(id) = crush.item_by_name(name) else {
        return Ok(Answer::status(format!("device '{name}' does not appear in the crush map")));
    };
    let ancestor = match args.str_opt("ancestor")? {
        None => None,
        Some(above) => match crush.item_by_name(above) {
            Some(id) => Some(id),
            None => {
                return refuse(
                    errno::ENOENT,
                    format!("ancestor item '{above}' does not appear in the crush map"),
                );
            }
        },
    };
    edit(ctx, |crush| {
        let done = match ancestor {
            Some(bucket) => crush.remove_item_from(id, bucket),
            None => crush.remove_item(id),
        };
        done.map_err(|e| edit_error(&e))
    })?;
    Ok(Answer::status(format!("removed item id {id} name '{name}' from crush map")))
}

pub(super) fn reweight(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (name, weight) = (args.str("name")?, weight(args)?);
    let Some(id) = ctx.state.osd.map().crush.item_by_name(name) else {
        return refuse(errno::ENOENT, format!("device '{name}' does not appear in the crush map"));
    };
    if id < 0 {
        return refuse(errno::EINVAL, format!("device '{name}' is not a leaf in the crush map"));
    }
    edit(ctx, |crush| Ok(crush.set_item_weight(id, weight)))?;
    let shown = float(f64::from(weight) / 65_536.0, 6);
    Ok(Answer::status(format!("reweighted item id {id} name '{name}' to {shown} in crush map")))
}

/// Sets the weight of every OSD below a bucket.
pub(super) fn reweight_subtree(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (name, weight) = (args.str("name")?, weight(args)?);
    let Some(id) = ctx.state.osd.map().crush.item_by_name(name) else {
        return refuse(errno::ENOENT, format!("device '{name}' does not appear in the crush map"));
    };
    if id >= 0 {
        let text = format!("device '{name}' is not a subtree in the crush map");
        return refuse(errno::EINVAL, text);
    }
    edit(ctx, |crush| Ok(crush.set_subtree_weight(id, weight)))?;
    let shown = float(f64::from(weight) / 65_536.0, 6);
    Ok(Answer::status(format!("reweighted subtree id {id} name '{name}' to {shown} in crush map")))
}

pub(super) fn set_device_class(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let class = args.str("class")?;
    let osds = osds(ctx, args)?;
    edit(ctx, |crush| {
        for osd in &osds {
            if let Some(old) = crush.item_class(*osd).filter(|old| *old != class) {
                let text = format!(
                    "osd.{osd} has already bound to class '{old}', can not reset class to '{class}'; use 'ceph osd crush rm-device-class <id>' to remove old class first"
                );
                return refuse(errno::EBUSY, text);
            }
            // An OSD tells its class before it says where it is.
            crush.names.entry(*osd).or_insert_with(|| format!("osd.{osd}"));
            crush.set_device_class(*osd, class).map_err(|e| edit_error(&e))?;
        }
        Ok(())
    })?;
    let ids: Vec<String> = osds.iter().map(ToString::to_string).collect();
    Ok(Answer::status(format!("set osd(s) {} to class '{class}'", ids.join(","))))
}

pub(super) fn rm_device_class(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let osds = osds(ctx, args)?;
    edit(ctx, |crush| {
        for osd in &osds {
            crush.remove_device_class(*osd).map_err(|e| edit_error(&e))?;
        }
        Ok(())
    })?;
    let ids: Vec<String> = osds.iter().map(ToString::to_string).collect();
    Ok(Answer::status(format!("done removing class of osd(s): {}", ids.join(","))))
}

/// Replaces the whole CRUSH map by an encoded one (`osd setcrushmap -i`).
pub(super) fn setcrushmap(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let version = i64::from(ctx.state.osd.map().crush_version);
    if let Some(prior) = args.int_opt("prior_version")?.filter(|p| *p != version) {
        return refuse(errno::EPERM, format!("prior_version {prior} != crush version {version}"));
    }
    let Ok(crush) = CrushMap::from_bytes(&ctx.input) else {
        return refuse(errno::EINVAL, "Failed to parse crushmap: give an encoded one with -i");
    };
    let map = ctx.state.osd.map();
    if let Some(pool) = map.pools.values().find(|p| crush.rule(p.crush_rule.into()).is_none()) {
        return refuse(errno::EINVAL, format!("the crush rule no. {} is in use", pool.crush_rule));
    }
    if let Some((osd, _)) = map.existing_osds().find(|(id, _)| *id >= crush.max_devices) {
        return refuse(
            errno::EINVAL,
            format!("osd.{osd} is not below the map's max_devices {}", crush.max_devices),
        );
    }
    edit(ctx, |old| {
        *old = crush;
        Ok(())
    })?;
    Ok(Answer::status(version + 1))
}

fn osds(ctx: &Context<'_>, args: &Args) -> Result<Vec<i32>, Refusal> {
    let mut found = Vec::new();
    for word in args.strs("ids")? {
        if matches!(word, "any" | "all" | "*") {
            return Ok(ctx.state.osd.map().existing_osds().map(|(id, _)| id).collect());
        }
        match parse_osd(word) {
            Some(id) => {
                must_exist(ctx, id)?;
                found.push(id);
            }
            None => return refuse(errno::EINVAL, format!("unable to parse osd id:\"{word}\"")),
        }
    }
    Ok(found)
}

fn must_exist(ctx: &Context<'_>, osd: i32) -> Result<(), Refusal> {
    if ctx.state.osd.map().exists(osd) {
        return Ok(());
    }
    refuse(
        errno::ENOENT,
        format!("osd.{osd} does not exist. Create it before updating the crush map"),
    )
}

fn weight(args: &Args) -> Result<u32, Refusal> {
    let weight = args.float("weight")?;
    if !(0.0..=f64::from(u16::MAX)).contains(&weight) {
        return refuse(errno::EINVAL, format!("weight {weight} is not between 0 and {}", u16::MAX));
    }
    Ok((weight * 65_536.0) as u32)
}

/// `host=a root=default`.
pub(super) fn location(args: &Args) -> Result<Location, Refusal> {
    let mut location = Location::new();
    for pair in args.strs("args")? {
        match pair.split_once('=') {
            Some((type_, name)) if !type_.is_empty() && !name.is_empty() => {
                location.insert(type_.to_owned(), name.to_owned());
            }
            _ => {
                return refuse(errno::EINVAL, format!("bad location '{pair}': use TYPE=NAME"));
            }
        }
    }
    Ok(location)
}

/// Whether an item lies directly in the lowest bucket of a location.
pub(super) fn is_at(crush: &CrushMap, item: i32, location: &Location) -> bool {
    let buckets = location.iter().filter_map(|(type_, name)| {
        Some((crush.type_by_name(type_)?, crush.bucket(crush.item_by_name(name)?)?))
    });
    let lowest = buckets.min_by_key(|(type_, _)| *type_);
    lowest.is_some_and(|(type_, bucket)| {
        i32::from(bucket.type_) == type_ && bucket.items.contains(&item)
    })
}

pub(super) fn shown(location: &Location) -> String {
    let pairs: Vec<String> = location.iter().map(|(t, n)| format!("{t}={n}")).collect();
    format!("{{{}}}", pairs.join(","))
}
