//! `mgr *`: the managers.

use std::collections::BTreeMap;

use spirula_maps::MgrMap;
use spirula_maps::mgrmap::{ModuleInfo, ModuleOption};
use spirula_wire::Encode;

use super::status::{count_property, counts_json, daemons, metadata_json};
use super::{Answer, Args, Context, Outcome, errno, refuse};
use crate::json::Json;
use crate::obj;
use crate::service::{addrs_json, drop_active, legacy_text, promote_standby};
use crate::state::Change;
use crate::text::stamp;

pub(super) fn dump(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let map = ctx.state.mgr.map();
    if args.int_opt("epoch")?.is_some_and(|e| e != 0 && e != i64::from(map.epoch)) {
        return refuse(errno::ENOENT, format!("there is no map for epoch {}", args.show("epoch")));
    }
    Ok(ctx.json(&map_json(map)))
}

pub(super) fn stat(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let map = ctx.state.mgr.map();
    Ok(ctx.json(&obj! {
        "epoch" => map.epoch,
        "available" => map.available,
        "active_name" => &map.active_name,
        "num_standby" => map.standbys.len(),
    }))
}

pub(super) fn services(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    Ok(ctx.json(&texts(&ctx.state.mgr.map().services)))
}

pub(super) fn module_ls(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let map = ctx.state.mgr.map();
    let always = always_on(map);
    let disabled = map
        .available_modules
        .iter()
        .filter(|m| !map.modules.contains(&m.name) && !always.contains(&m.name));
    Ok(ctx.json(&obj! {
        "always_on_modules" => Json::arr(always.iter()),
        "enabled_modules" => Json::arr(map.modules.iter().filter(|m| !always.contains(*m))),
        "disabled_modules" => disabled.map(module_json).collect::<Vec<_>>(),
    }))
}

pub(super) fn module_enable(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("module")?;
    let map = ctx.state.mgr.map();
    if always_on(map).iter().any(|m| m == name) || map.modules.contains(name) {
        return Ok(Answer::status(format!("module '{name}' is already enabled")));
    }
    if !map.available_modules.iter().any(|m| m.name == name) {
        return refuse(
            errno::ENOENT,
            format!(
                "all mgr daemons do not support module '{name}', pass --force to force enablement"
            ),
        );
    }
    let mut next = map.clone();
    next.modules.insert(name.to_owned());
    change(ctx, next);
    Ok(Answer::default())
}

pub(super) fn module_disable(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("module")?;
    let map = ctx.state.mgr.map();
    if always_on(map).iter().any(|m| m == name) {
        return refuse(errno::EINVAL, format!("module '{name}' cannot be disabled (always-on)"));
    }
    if !map.modules.contains(name) {
        return Ok(Answer::status(format!("module '{name}' is already disabled")));
    }
    let mut next = map.clone();
    next.modules.remove(name);
    change(ctx, next);
    Ok(Answer::default())
}

/// Takes the active manager out, so that a standby (or the same one, restarted) takes over.
pub(super) fn fail(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let mut map = ctx.state.mgr.map().clone();
    let who = args.str_opt("who")?.unwrap_or(&map.active_name).to_owned();
    if who.is_empty() {
        return refuse(errno::EINVAL, "Currently no active mgr");
    }
    let gid = who.parse::<u64>().ok();
    if map.active_name == who || gid == Some(map.active_gid) {
        drop_active(&mut map, ctx.now);
        promote_standby(&mut map, ctx.now);
    } else if let Some(standby) =
        map.standbys.iter().find(|(id, s)| s.name == who || gid == Some(**id)).map(|(id, _)| *id)
    {
        map.standbys.remove(&standby);
    } else {
        return Ok(Answer::status(format!("Daemon not found '{who}', already failed?")));
    }
    change(ctx, map);
    Ok(Answer::default())
}

pub(super) fn metadata(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let all = daemons(ctx, "mgr");
    let json = |(name, values): &(String, &BTreeMap<String, String>)| {
        metadata_json(values, "name", Json::from(name))
    };
    match args.str_opt("who")? {
        None => Ok(ctx.json(&Json::arr(all.iter().map(json)))),
        Some(who) => match all.iter().find(|(name, _)| name == who) {
            Some(found) => Ok(ctx.json(&json(found))),
            None => refuse(errno::ENOENT, format!("mgr.{who} does not exist")),
        },
    }
}

pub(super) fn count_metadata(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let counts = count_property(ctx, "mgr", args.str("property")?);
    Ok(ctx.json(&counts_json(&counts)))
}

fn change(ctx: &mut Context<'_>, mut map: MgrMap) {
    map.epoch += 1;
    ctx.change(Change::MgrMap(map.to_bytes(spirula_wire::Features::PACIFIC).into()));
}

/// The modules that cannot be turned off in this release.
fn always_on(map: &MgrMap) -> Vec<String> {
    map.always_on_modules.values().next_back().into_iter().flatten().cloned().collect()
}

fn texts(map: &BTreeMap<String, String>) -> Json {
    Json::obj(map.iter().map(|(k, v)| (k.clone(), Json::from(v))))
}

fn map_json(map: &MgrMap) -> Json {
    let standbys = map.standbys.values().map(|s| {
        obj! {
            "gid" => s.gid,
            "name" => &s.name,
            "mgr_features" => s.mgr_features,
            "available_modules" => s.available_modules.iter().map(module_json).collect::<Vec<_>>(),
        }
    });
    let releases = map.always_on_modules.iter().map(|(release, modules)| {
        let name = u8::try_from(*release).map_or("unknown", |r| spirula_maps::Release(r).name());
        (name, Json::arr(modules.iter()))
    });
    let clients = map.clients.iter().map(|(addrs, name)| {
        let Json::Obj(members) = addrs_json(addrs) else {
            return Json::Obj(vec![]);
        };
        Json::obj(std::iter::once(("name".to_owned(), Json::from(name))).chain(members))
    });
    obj! {
        "epoch" => map.epoch,
        "active_gid" => map.active_gid,
        "active_name" => &map.active_name,
        "active_addrs" => addrs_json(&map.active_addrs),
        "active_addr" => legacy_text(&map.active_addrs),
        "active_change" => stamp(map.active_change.into()),
        "active_mgr_features" => map.active_mgr_features,
        "available" => map.available,
        "standbys" => standbys.collect::<Vec<_>>(),
        "modules" => Json::arr(map.modules.iter()),
        "available_modules" => map.available_modules.iter().map(module_json).collect::<Vec<_>>(),
        "services" => texts(&map.services),
        "always_on_modules" => Json::obj(releases),
        "last_failure_osd_epoch" => map.last_failure_osd_epoch,
        "active_clients" => clients.collect::<Vec<_>>(),
    }
}

fn module_json(module: &ModuleInfo) -> Json {
    let options = module.module_options.iter().map(|(name, o)| (name.clone(), option_json(o)));
    obj! {
        "name" => &module.name,
        "can_run" => module.can_run,
        "error_string" => &module.error_string,
        "module_options" => Json::obj(options),
    }
}

fn option_json(o: &ModuleOption) -> Json {
    /// Numbers of Ceph's option types and levels.
    const TYPES: [&str; 9] =
        ["uint", "int", "str", "float", "bool", "addr", "addrvec", "uuid", "size"];
    const LEVELS: [&str; 4] = ["basic", "advanced", "dev", "unknown"];
    let named =
        |names: &[&'static str], n: u8| names.get(usize::from(n)).copied().unwrap_or("unknown");
    obj! {
        "name" => &o.name,
        "type" => named(&TYPES, o.type_),
        "level" => named(&LEVELS, o.level),
        "flags" => o.flags,
        "default_value" => &o.default_value,
        "min" => &o.min,
        "max" => &o.max,
        "enum_allowed" => Json::arr(o.enum_allowed.iter()),
        "desc" => &o.desc,
        "long_desc" => &o.long_desc,
        "tags" => Json::arr(o.tags.iter()),
        "see_also" => Json::arr(o.see_also.iter()),
    }
}
