//! `config *`: options for daemons and clients, kept by the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use spirula_wire::types::{EntityNameStr, EntityType};

use super::{Answer, Args, Context, Outcome, Refusal, errno, refuse};
use crate::json::Json;
use crate::obj;
use crate::options::{self, Kind, Opt};
use crate::state::Change;
use crate::state::config::{ConfigEvent, Scope};
use crate::text::{Align, TextTable, stamp};

pub(super) fn set(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (who, name, value) = (args.str("who")?, args.str("name")?, args.str("value")?);
    let scope = scope(who)?;
    let force = args.flag("force");
    let (name, value) = match options::find(name) {
        Some(opt) => match opt.normalize(value) {
            Ok(_) if opt.is_special() && !force => return refuse(errno::EINVAL, special(opt)),
            Ok(value) => (opt.name.to_owned(), value),
            Err(e) => return refuse(e.errno, format!("error parsing value: {}", e.text)),
        },
        None if force => (name.to_owned(), value.to_owned()),
        None => {
            return refuse(errno::EINVAL, format!("unrecognized config option '{name}'"));
        }
    };
    if ctx.state.config.get(&scope, &name) != Some(value.as_str()) {
        ctx.change(Change::Config { scope, name, value: Some(value) });
    }
    Ok(Answer::default())
}

fn special(opt: &Opt) -> String {
    format!("{} is special and cannot be stored by the mon", opt.name)
}

pub(super) fn rm(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (who, name) = (args.str("who")?, args.str("name")?);
    let scope = scope(who)?;
    let name = options::find(name).map_or(name, |o| o.name).to_owned();
    if ctx.state.config.get(&scope, &name).is_some() {
        ctx.change(Change::Config { scope, name, value: None });
    }
    Ok(Answer::default())
}

/// One option's value, or all that are set for the entity.
pub(super) fn get(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let who = args.str("who")?;
    let Some(entity) = parse_entity(who) else {
        return refuse(errno::EINVAL, format!("unrecognized entity '{who}'"));
    };
    let class = ctx.state.device_class_of(&entity);
    let location = ctx.state.location_of(&entity);
    let location: Vec<(&str, &str)> =
        location.iter().map(|(t, n)| (t.as_str(), n.as_str())).collect();
    let found = ctx.state.config.effective_with_scope(&entity, class.as_deref(), &location);
    if let Some(key) = args.str_opt("key")? {
        let opt = options::find(key);
        if let Some((_, value)) = found.get(opt.map_or(key, |o| o.name)) {
            return Ok(Answer::text(format!("{value}\n")));
        }
        return match opt {
            Some(opt) if opt.name == "fsid" => Ok(Answer::text(format!("{}\n", ctx.state.fsid))),
            Some(opt) if opt.is_special() => refuse(errno::EINVAL, special(opt)),
            Some(opt) => Ok(Answer::text(format!("{}\n", default_for(opt, &entity)))),
            None => refuse(errno::ENOENT, format!("unrecognized key '{key}'")),
        };
    }
    Ok(ctx.either(|| get_table(&found), || get_json(&found)))
}

pub(super) fn dump(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let all = ctx.state.config.dump();
    Ok(ctx.either(
        || {
            let mut table = option_table();
            for (scope, name, value) in &all {
                let indent = match scope.section.as_str() {
                    "global" => "",
                    s if s.contains('.') => "    ",
                    _ => "  ",
                };
                table.row(option_row(format!("{indent}{}", scope.section), scope, name, value));
            }
            table.render()
        },
        || Json::arr(all.iter().map(|(scope, name, value)| dump_json(scope, name, value))),
    ))
}

/// As in Ceph without the debug levels.
pub(super) fn ls(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let names = || options::all().iter().filter(|o| o.kind != Kind::DebugLevel).map(|o| o.name);
    Ok(ctx.either(
        || names().fold(String::new(), |out, name| out + name + "\n"),
        || Json::arr(names()),
    ))
}

pub(super) fn help(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let Some(opt) = options::find(args.str("key")?) else {
        return refuse(errno::ENOENT, "");
    };
    Ok(ctx.either(|| help_text(opt), || help_json(opt)))
}

pub(super) fn log(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let num = args.int_opt("num")?.unwrap_or(10).max(0) as usize;
    let events: Vec<&ConfigEvent> = ctx.state.config.history().take(num).collect();
    let stamp_of = |e: &ConfigEvent| stamp(Duration::from_nanos(e.stamp_nanos));
    Ok(ctx.either(
        || {
            let mut out = String::new();
            for e in &events {
                _ = writeln!(out, "--- {} --- {} ---", e.version, stamp_of(e));
                let name = format!("{}/{}", e.scope.who(), e.name);
                if let Some(before) = &e.before {
                    _ = writeln!(out, "- {name} = {before}");
                }
                if let Some(after) = &e.after {
                    _ = writeln!(out, "+ {name} = {after}");
                }
            }
            out
        },
        || {
            Json::arr(events.iter().map(|e| {
                let mut change = obj! { "name" => format!("{}/{}", e.scope.who(), e.name) };
                if let Some(before) = &e.before {
                    change = change.with("previous_value", before);
                }
                if let Some(after) = &e.after {
                    change = change.with("new_value", after);
                }
                obj! { "version" => e.version, "timestamp" => stamp_of(e), "name" => "", "changes" => vec![change] }
            }))
        },
    ))
}

pub(super) fn reset(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let version = args.int("num")?;
    let undo = u64::try_from(version).ok().and_then(|v| ctx.state.config.undo_to(v));
    let Some(undo) = undo else {
        return refuse(errno::ENOENT, format!("config version {version} is not in the history"));
    };
    ctx.changes.extend(undo.into_iter().map(|(scope, name, value)| Change::Config {
        scope,
        name,
        value,
    }));
    Ok(Answer::default())
}

pub(super) fn minimal_conf(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let hosts: Vec<String> = ctx.state.monmap.map().by_rank().map(super::mon::bracketed).collect();
    let fsid = ctx.state.fsid;
    Ok(Answer::text(format!(
        "# minimal ceph.conf for {fsid}\n[global]\n\tfsid = {fsid}\n\tmon_host = {}\n",
        hosts.join(" ")
    )))
}

/// Takes over the options of a configuration file and returns what must stay in it.
pub(super) fn assimilate(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let Ok(text) = std::str::from_utf8(&ctx.input) else {
        return refuse(errno::EINVAL, "the configuration file is not UTF-8");
    };
    let mut section = "global".to_owned();
    let mut rest: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut changes = Vec::new();
    for line in text.lines().map(|l| l.split(['#', ';']).next().unwrap_or_default().trim()) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            section = name.trim().to_owned();
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let (name, value) = (name.trim(), value.trim());
        let scope = Scope::parse(&section);
        let known = options::find(name).filter(|o| !o.is_special()).zip(scope);
        match known.and_then(|(opt, scope)| Some((opt, scope, opt.normalize(value).ok()?))) {
            Some((opt, scope, value)) => {
                changes.push(Change::Config {
                    scope,
                    name: opt.name.to_owned(),
                    value: Some(value),
                });
            }
            None => {
                let kept = format!("\t{} = {value}\n", name.replace(' ', "_"));
                rest.entry(section.clone()).or_default().insert(kept);
            }
        }
    }
    ctx.changes.extend(changes);
    let lines = |lines: BTreeSet<String>| lines.into_iter().collect::<String>();
    let sections =
        rest.into_iter().map(|(section, kept)| format!("\n[{section}]\n{}", lines(kept)));
    Ok(Answer::text(sections.collect::<String>()))
}

fn scope(who: &str) -> Result<Scope, Refusal> {
    match Scope::parse(who) {
        Some(scope) => Ok(scope),
        None => refuse(errno::EINVAL, format!("unrecognized config target '{who}'")),
    }
}

fn parse_entity(who: &str) -> Option<EntityNameStr> {
    let type_alone = || EntityType::from_name(who).map(|t| EntityNameStr::new(t, ""));
    who.parse().ok().or_else(type_alone)
}

fn default_for(opt: &'static Opt, entity: &EntityNameStr) -> &'static str {
    let daemon = entity.type_ != EntityType::CLIENT;
    if daemon { opt.default_in_daemons() } else { &opt.default }
}

fn option_table() -> TextTable {
    let mut table = TextTable::default();
    for heading in ["WHO", "MASK", "LEVEL", "OPTION", "VALUE", "RO"] {
        table.column(heading, Align::Left, Align::Left);
    }
    table
}

fn option_row(who: String, scope: &Scope, name: &str, value: &str) -> Vec<String> {
    let opt = options::find(name);
    let level = opt.map_or("unknown", |o| o.level.name());
    let fixed = if opt.is_none_or(|o| !o.runtime()) { "*" } else { "" };
    [who, scope.mask.clone(), level.into(), name.into(), value.into(), fixed.into()].into()
}

fn get_table(found: &BTreeMap<&str, (&Scope, &str)>) -> String {
    let mut table = option_table();
    for (name, (scope, value)) in found {
        table.row(option_row(scope.section.clone(), scope, name, value));
    }
    table.render()
}

fn mask_members(scope: &Scope) -> Vec<(&'static str, Json)> {
    let class = scope.device_class().map(|c| ("device_class", Json::from(c)));
    let location = scope.location().map(|(t, n)| ("location", Json::from(format!("{t}:{n}"))));
    class.into_iter().chain(location).collect()
}

fn can_update(name: &str) -> bool {
    options::find(name).is_some_and(Opt::runtime)
}

fn get_json(found: &BTreeMap<&str, (&Scope, &str)>) -> Json {
    Json::obj(found.iter().map(|(name, (scope, value))| {
        let member = obj! {
            "value" => *value,
            "section" => &scope.section,
            "mask" => Json::obj(mask_members(scope)),
            "can_update_at_runtime" => can_update(name),
        };
        (*name, member)
    }))
}

fn dump_json(scope: &Scope, name: &str, value: &str) -> Json {
    let mut json = obj! {
        "section" => &scope.section,
        "name" => name,
        "value" => value,
        "level" => options::find(name).map_or("unknown", |o| o.level.name()),
        "can_update_at_runtime" => can_update(name),
        "mask" => &scope.mask,
    };
    for (key, member) in mask_members(scope) {
        json = json.with(key, member);
    }
    json
}

fn help_text(opt: &Opt) -> String {
    let mut out =
        format!("{} - {}\n  ({}, {})\n", opt.name, opt.desc, opt.kind.name(), opt.level.name());
    if opt.daemon_default.is_empty() {
        _ = writeln!(out, "  Default: {}", opt.default);
    } else {
        _ = writeln!(out, "  Default (non-daemon): {}", opt.default);
        _ = writeln!(out, "  Default (daemon): {}", opt.daemon_default);
    }
    if !opt.choices.is_empty() {
        _ = writeln!(out, "  Possible values:  {}", opt.choices.replace('|', " "));
    }
    if !opt.min.is_empty() {
        let (min, max) = (bound_text(opt, opt.min), bound_text(opt, opt.max));
        _ = writeln!(out, "  Minimum: {min}\n  Maximum: {max}");
    }
    _ = writeln!(out, "  Can update at runtime: {}", opt.runtime());
    let lists = [("Services", opt.services), ("Tags", opt.tags), ("See also", opt.see_also)];
    for (heading, list) in lists.iter().filter(|(_, list)| !list.is_empty()) {
        _ = writeln!(out, "  {heading}: [{list}]");
    }
    if !opt.note().is_empty() {
        _ = writeln!(out, "\n{}", opt.note());
    }
    out
}

fn bound_text(opt: &Opt, bound: &str) -> String {
    match (opt.kind, bound.parse::<f64>()) {
        (Kind::Float, Ok(value)) => format!("{value:.6}"),
        _ => bound.to_owned(),
    }
}

pub(super) fn help_json(opt: &Opt) -> Json {
    let list = |text: &'static str| Json::arr(text.split(',').filter(|s| !s.is_empty()));
    let mut json = obj! {
        "name" => opt.name,
        "type" => opt.kind.name(),
        "level" => opt.level.name(),
        "desc" => opt.desc,
        "long_desc" => opt.note(),
        "default" => typed(opt, &opt.default),
        "daemon_default" => typed(opt, &opt.daemon_default),
        "tags" => list(opt.tags),
        "services" => list(opt.services),
        "see_also" => list(opt.see_also),
    };
    if opt.kind.name() == "str" {
        let choices = (!opt.choices.is_empty()).then(|| opt.choices.split('|'));
        json = json.with("enum_values", Json::arr(choices.into_iter().flatten()));
    }
    json.with("min", typed(opt, opt.min))
        .with("max", typed(opt, opt.max))
        .with("can_update_at_runtime", opt.runtime())
        .with("flags", list(opt.flags))
}

/// A value as JSON of the option's type; text where it is none.
fn typed(opt: &Opt, text: &str) -> Json {
    let number = match opt.kind {
        Kind::Bool => options::parse_bool(text).map(Json::from),
        Kind::Int => text.parse::<i64>().ok().map(Json::from),
        Kind::Uint => text.parse::<u64>().ok().map(Json::from),
        Kind::Float => text.parse::<f64>().ok().map(Json::from),
        _ => None,
    };
    number.unwrap_or_else(|| text.into())
}
