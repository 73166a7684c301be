//! `osd crush *` on whole buckets, classes and tunables: link, swap, rename, sum up anew.

use spirula_crush::{CrushMap, Tunables};

use super::crush_edit::{edit, edit_error, is_at, location, shown};
use super::{Answer, Args, Context, Outcome, Refusal, errno, refuse};

/// Adds a bucket to one more place.
pub(super) fn link(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("name")?;
    let location = location(args)?;
    let crush = &ctx.state.osd.map().crush;
    let Some(id) = crush.item_by_name(name) else {
        return refuse(errno::ENOENT, format!("item {name} does not exist"));
    };
    let item = format!("item id {id} name '{name}' to location {}", shown(&location));
    if is_at(crush, id, &location) {
        return Ok(Answer::status(format!("no need to move {item} in crush map")));
    }
    edit(ctx, |crush| match crush.link_bucket(id, &location) {
        Ok(()) => Ok(()),
        Err(e) => refuse(e.errno(), format!("cannot link {item}")),
    })?;
    Ok(Answer::status(format!("linked {item} in crush map")))
}

/// Takes a node out of its buckets, or out of one; what is below it stays in it.
pub(super) fn unlink(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("name")?;
    let crush = &ctx.state.osd.map().crush;
    let Some(id) = crush.item_by_name(name) else {
        return Ok(Answer::status(format!("device '{name}' does not appear in the crush map")));
    };
    let done = format!("removed item id {id} name '{name}' from crush map");
    let Some(above) = args.str_opt("ancestor")? else {
        edit(ctx, |crush| crush.unlink(id).map_err(|e| edit_error(&e)))?;
        return Ok(Answer::status(done));
    };
    let Some(bucket) = crush.item_by_name(above) else {
        let text = format!("ancestor item '{above}' does not appear in the crush map");
        return refuse(errno::ENOENT, text);
    };
    if !crush.bucket(bucket).is_some_and(|b| b.items.contains(&id)) {
        return Ok(Answer::status(format!("item {id} does not appear in that position")));
    }
    edit(ctx, |crush| crush.remove_item_from(id, bucket).map_err(|e| edit_error(&e)))?;
    Ok(Answer::status(done))
}

/// Exchanges what is in two buckets: new hosts are made beside the tree and take the old ones' place.
pub(super) fn swap_bucket(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (source, dest) = (args.str("source")?, args.str("dest")?);
    let crush = &ctx.state.osd.map().crush;
    let Some(from) = crush.item_by_name(source) else {
        return refuse(errno::ENOENT, format!("source item {source} does not exist"));
    };
    let Some(to) = crush.item_by_name(dest) else {
        return refuse(errno::ENOENT, format!("dest item {dest} does not exist"));
    };
    if crush.parent(from).is_some() && !args.flag("yes_i_really_mean_it") {
        let text = format!(
            "source item {source} is not an orphan bucket; pass --yes-i-really-mean-it to proceed anyway"
        );
        return refuse(errno::EPERM, text);
    }
    edit(ctx, |crush| crush.swap_buckets(from, to).map_err(|e| edit_error(&e)))?;
    Ok(Answer::status(format!("swapped bucket of {source} to {dest}")))
}

pub(super) fn rename_bucket(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (from, to) = (args.str("srcname")?, args.str("dstname")?);
    let crush = &ctx.state.osd.map().crush;
    let taken = crush.item_by_name(to).is_some();
    match crush.item_by_name(from) {
        None if taken => {
            let text =
                format!("srcname = '{from}' does not exist and dstname = '{to}' already exists");
            return Ok(Answer::status(text));
        }
        None => return refuse(errno::ENOENT, format!("srcname = '{from}' does not exist")),
        Some(id) if id >= 0 => {
            let why = format!("is not a bucket because its id = {id} is >= 0");
            return refuse(errno::ENOTDIR, format!("srcname = '{from}' {why}"));
        }
        Some(_) if taken => {
            return refuse(errno::EEXIST, format!("dstname = '{to}' already exists"));
        }
        Some(_) => {}
    }
    edit(ctx, |crush| crush.rename_bucket(from, to).map_err(|e| edit_error(&e)))?;
    Ok(Answer::status(format!("renamed bucket {from} into {to}")))
}

pub(super) fn reweight_all(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    edit(ctx, |crush| crush.reweight_all().map_err(|e| edit_error(&e)))?;
    Ok(Answer::status("reweighted crush hierarchy"))
}

pub(super) fn straws_to_straw2(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    edit(ctx, |crush| {
        crush.straws_to_straw2();
        Ok(())
    })?;
    Ok(Answer::default())
}

pub(super) fn set_tunable(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (tunable, value) = (args.str("tunable")?, args.int("value")?);
    if tunable != "straw_calc_version" {
        return refuse(errno::EINVAL, format!("unrecognized tunable '{tunable}'"));
    }
    let Some(version) = u8::try_from(value).ok().filter(|version| *version <= 2) else {
        return refuse(errno::EINVAL, "value must be 0 or 1; got ".to_owned() + &value.to_string());
    };
    edit(ctx, |crush| {
        crush.tunables.straw_calc_version = version;
        Ok(())
    })?;
    Ok(Answer::status(format!("adjusted tunable {tunable} to {value}")))
}

pub(super) fn tunables(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let profile = args.str("profile")?;
    let tunables = match profile {
        "legacy" | "argonaut" => Tunables::LEGACY,
        "bobtail" => Tunables::BOBTAIL,
        "firefly" => Tunables::FIREFLY,
        "hammer" => Tunables::HAMMER,
        "jewel" | "optimal" | "default" => Tunables::JEWEL,
        _ => return refuse(errno::EINVAL, format!("unrecognized profile '{profile}'")),
    };
    // Ceph has the version of straws follow the two newest and the oldest profiles only.
    let keeps = matches!(profile, "bobtail" | "firefly" | "hammer");
    edit(ctx, |crush| {
        let version = crush.tunables.straw_calc_version;
        crush.tunables = tunables;
        if keeps {
            crush.tunables.straw_calc_version = version;
        }
        Ok(())
    })?;
    Ok(Answer::status(format!("adjusted tunables profile to {profile}")))
}

/// A class without devices: it lasts until the hierarchy changes next, as in Ceph.
pub(super) fn class_create(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let class = args.str("class")?;
    let crush = &ctx.state.osd.map().crush;
    if crush.class_by_name(class).is_some() {
        return Ok(Answer::status(format!("class '{class}' already exists")));
    }
    let id = crush.class_names.last_key_value().map_or(0, |(last, _)| last + 1);
    edit(ctx, |crush| {
        crush.class_names.insert(id, class.to_owned());
        Ok(())
    })?;
    Ok(Answer::status(format!("created class {class} with id {id} to crush map")))
}

pub(super) fn class_rename(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (from, to) = (args.str("srcname")?, args.str("dstname")?);
    let crush = &ctx.state.osd.map().crush;
    let failed = |errno, text| refuse(errno, format!("fail to rename '{from}' to '{to}' : {text}"));
    let id = match (crush.class_by_name(from), crush.class_by_name(to)) {
        (None, Some(_)) => return Ok(Answer::status(format!("already renamed to '{to}'"))),
        (None, None) => return failed(errno::ENOENT, "(2) No such file or directory"),
        (Some(_), Some(_)) => return failed(errno::EEXIST, "(17) File exists"),
        (Some(id), None) => id,
    };
    edit(ctx, |crush| {
        crush.class_names.insert(id, to.to_owned());
        rename_shadows(crush, id, to);
        Ok(())
    })?;
    Ok(Answer::status(format!("rename class '{from}' to '{to}'")))
}

/// `bucket~class` of every bucket.
fn rename_shadows(crush: &mut CrushMap, class: i32, to: &str) {
    for (bucket, shadows) in crush.class_buckets.clone() {
        let name = crush.name(bucket).unwrap_or_default().to_owned();
        if let Some(shadow) = shadows.get(&class) {
            crush.names.insert(*shadow, format!("{name}~{to}"));
        }
    }
}

/// Takes all devices out of a class, and with that the class out of the map.
pub(super) fn class_rm(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let class = args.str("class")?;
    let crush = &ctx.state.osd.map().crush;
    let Some(id) = crush.class_by_name(class) else {
        return Ok(Answer::default());
    };
    let users = rules_of_class(crush, id);
    if !users.is_empty() {
        let text =
            format!("class '{class}' still referenced by crush_rule(s): {}", users.join(","));
        return refuse(errno::EBUSY, text);
    }
    edit(ctx, |crush| -> Result<(), Refusal> {
        crush.classes.retain(|item, of| *item < 0 || *of != id);
        crush.rebuild_classes().map_err(|e| edit_error(&e))
    })?;
    Ok(Answer::status(format!("removed class {class} with id {id} from crush map")))
}

fn rules_of_class(crush: &CrushMap, class: i32) -> Vec<String> {
    let is_of = |taken: i32| crush.class_buckets.values().any(|s| s.get(&class) == Some(&taken));
    let rules = (0..).zip(&crush.rules).filter_map(|(id, rule)| rule.as_ref().map(|_| id));
    let users = rules.filter(|id| crush.takes_of(*id).any(is_of));
    let name = |id: u32| crush.rule_names.get(&(id as i32)).cloned().unwrap_or_default();
    users.map(|id| format!("'{}'", name(id))).collect()
}
