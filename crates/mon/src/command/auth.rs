//! `auth *`: entities, keys and capabilities.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use spirula_auth::caps::check_caps;
use spirula_auth::{CryptoKey, EntityAuth, Keyring, format_entity};
use spirula_wire::types::{EntityNameStr, EntityType};

use super::{Answer, Args, Context, Format, Outcome, Refusal, errno, refuse};
use crate::json::Json;
use crate::obj;
use crate::state::Change;

/// The monitors' own entity. Ceph keeps it in their keyring file, beside the database: it can be
/// asked for by name, but is in no listing and cannot be removed.
fn is_mons_own(name: &EntityNameStr) -> bool {
    name.type_ == EntityType::MON && name.id.is_empty()
}

/// The keyring as listings show it.
fn listed(ctx: &Context<'_>) -> Keyring {
    let mut keyring = ctx.state.auth.keyring.clone();
    keyring.entities.retain(|name, _| !is_mons_own(name));
    keyring
}

pub(super) fn ls(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let entities = &listed(ctx).entities;
    let answer = ctx.either(
        || {
            let mut out = String::new();
            for (name, auth) in entities {
                _ = write!(out, "{name}\n\tkey: {}\n", auth.key.to_base64());
                for (service, caps) in &auth.caps {
                    _ = writeln!(out, "\tcaps: [{service}] {caps}");
                }
            }
            out
        },
        || obj! { "auth_dump" => entities.iter().map(|(n, a)| entity_json(n, a)).collect::<Vec<_>>() },
    );
    Ok(match ctx.format {
        Format::Plain => answer.with_status("installed auth entries:\n"),
        _ => answer,
    })
}

pub(super) fn get(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = entity(args)?;
    match ctx.state.auth.get(&name) {
        Some(auth) => {
            Ok(keyring_answer(ctx, &name, auth).with_status(format!("exported keyring for {name}")))
        }
        None => refuse(errno::ENOENT, format!("failed to find {name} in keyring")),
    }
}

pub(super) fn export(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    if !args.has("entity") {
        let keyring = listed(ctx);
        let each = || keyring.entities.iter().map(|(n, a)| entity_json(n, a)).collect();
        let answer = ctx.either(|| keyring.format(), || Json::Arr(each()));
        return Ok(answer.with_status("exported master keyring"));
    }
    let name = entity(args)?;
    match ctx.state.auth.get(&name).filter(|_| !is_mons_own(&name)) {
        Some(auth) => {
            let status = format!("export auth(key={})", auth.key.to_base64());
            Ok(keyring_answer(ctx, &name, auth).with_status(status))
        }
        None => {
            // Ceph names the key that it did not find: an empty one.
            let none = CryptoKey::default().to_base64();
            refuse(errno::ENOENT, format!("no key for auth(key={none})"))
        }
    }
}

pub(super) fn get_key(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = entity(args)?;
    match ctx.state.auth.get(&name) {
        Some(auth) => Ok(key_answer(ctx, &auth.key, "")),
        None => refuse(errno::ENOENT, format!("don't have {name}")),
    }
}

/// `auth add`: a given or random key; adding the same again is fine.
pub(super) fn add(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let caps = caps_of(args)?;
    let name = new_entity(args)?;
    let mut wanted = checked(caps)?;
    let mut key = None;
    if !ctx.input.is_empty() {
        let given = input_keyring(&ctx.input)?;
        let Some(auth) = given.get(&name) else {
            return refuse(errno::EINVAL, format!("key for {name} not found in provided keyring"));
        };
        if !auth.caps.is_empty() && !wanted.is_empty() {
            return refuse(
                errno::EINVAL,
                "caps cannot be specified both in keyring and in command",
            );
        }
        key = Some(auth.key.clone()).filter(|k| !k.is_empty());
        if wanted.is_empty() {
            wanted = auth.caps.clone();
        }
    }
    if let Some(existing) = ctx.state.auth.get(&name) {
        same(&name, existing, key.as_ref(), &wanted)?;
        return Ok(Answer::default());
    }
    let key = key.unwrap_or_else(|| CryptoKey::generate(ctx.now.wall, ctx.rng));
    ctx.change(Change::SetAuth { name: name.clone(), key, caps: wanted });
    Ok(Answer::status(format!("added key for {name}")))
}

/// Refuses to take `existing` for what is wanted unless it is that.
fn same(
    name: &EntityNameStr,
    existing: &EntityAuth,
    key: Option<&CryptoKey>,
    wanted: &BTreeMap<String, String>,
) -> Result<(), Refusal> {
    if key.is_some_and(|k| *k != existing.key) {
        return refuse(errno::EEXIST, format!("entity {name} exists but key does not match"));
    }
    if existing.caps.len() != wanted.len() {
        return refuse(errno::EINVAL, format!("entity {name} exists but caps do not match"));
    }
    match differing(existing, wanted) {
        Some(service) => {
            refuse(errno::EINVAL, format!("entity {name} exists but cap {service} does not match"))
        }
        None => Ok(()),
    }
}

/// The first service for which `existing` has not the wanted capability.
fn differing<'a>(
    existing: &EntityAuth,
    wanted: &'a BTreeMap<String, String>,
) -> Option<&'a String> {
    let differs = |(service, caps): &(&String, &String)| existing.caps.get(*service) != Some(*caps);
    wanted.iter().find(differs).map(|(service, _)| service)
}

pub(super) fn get_or_create(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (name, auth) = found_or_created(ctx, args)?;
    let shown = match ctx.format {
        // The text form shows the key alone: it goes into a keyring file of the client.
        Format::Plain => EntityAuth { caps: BTreeMap::new(), ..auth },
        _ => auth,
    };
    Ok(keyring_answer(ctx, &name, &shown))
}

pub(super) fn get_or_create_key(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (_, auth) = found_or_created(ctx, args)?;
    Ok(key_answer(ctx, &auth.key, "\n"))
}

pub(super) fn set_caps(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let caps = caps_of(args)?;
    let name = new_entity(args)?;
    let Some(auth) = ctx.state.auth.get(&name) else {
        return refuse(errno::ENOENT, format!("couldn't find entry {name}"));
    };
    let caps = checked(caps)?;
    let key = auth.key.clone();
    ctx.change(Change::SetAuth { name: name.clone(), key, caps });
    Ok(Answer::status(format!("updated caps for {name}")))
}

pub(super) fn rm(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = new_entity(args)?;
    if ctx.state.auth.get(&name).is_none() || is_mons_own(&name) {
        return Ok(Answer::status(format!("entity {name} does not exist")));
    }
    ctx.change(Change::RemoveAuth(name));
    Ok(Answer::status("updated"))
}

/// `auth import` takes capabilities as they are: those of other clusters' services too. What does
/// not parse grants nothing.
pub(super) fn import(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    if ctx.input.is_empty() {
        return refuse(errno::EINVAL, "auth import: no data supplied; give a keyring file with -i");
    }
    let keyring = input_keyring(&ctx.input)?;
    for (name, auth) in &keyring.entities {
        if auth.key.is_empty() {
            return refuse(errno::EINVAL, format!("auth import: entity {name} has no key"));
        }
    }
    let changes = keyring.entities.into_iter().map(Change::from);
    ctx.changes.extend(changes);
    Ok(Answer::status("imported keyring"))
}

fn found_or_created(
    ctx: &mut Context<'_>,
    args: &Args,
) -> Result<(EntityNameStr, EntityAuth), Refusal> {
    let caps = caps_of(args)?;
    let name = new_entity(args)?;
    let wanted = checked(caps)?;
    if let Some(existing) = ctx.state.auth.get(&name) {
        return match differing(existing, &wanted) {
            Some(service) => refuse(
                errno::EINVAL,
                format!("key for {name} exists but cap {service} does not match"),
            ),
            None => Ok((name, existing.clone())),
        };
    }
    let mut key = None;
    if !ctx.input.is_empty() {
        key = input_keyring(&ctx.input)?.get(&name).map(|a| a.key.clone());
    }
    let key =
        key.filter(|k| !k.is_empty()).unwrap_or_else(|| CryptoKey::generate(ctx.now.wall, ctx.rng));
    let auth = EntityAuth { key, caps: wanted };
    ctx.change(Change::from((name.clone(), auth.clone())));
    Ok((name, auth))
}

fn entity(args: &Args) -> Result<EntityNameStr, Refusal> {
    let text = args.str("entity")?;
    text.parse().or_else(|_| refuse(errno::EINVAL, format!("invalid entity_auth {text}")))
}

/// The entity of a command that changes it; such commands name the mistake differently.
fn new_entity(args: &Args) -> Result<EntityNameStr, Refusal> {
    args.str("entity")?.parse().or_else(|_| refuse(errno::EINVAL, "bad entity name"))
}

/// `caps`: service and capability in turn, in the order given.
fn caps_of(args: &Args) -> Result<Vec<(String, String)>, Refusal> {
    let words = args.strs("caps")?;
    if !words.len().is_multiple_of(2) {
        return refuse(errno::EINVAL, "bad capabilities request; odd number of arguments");
    }
    Ok(words.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect())
}

/// All are checked, although of those for one service the last counts.
fn checked(caps: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Refusal> {
    for (service, text) in &caps {
        check_caps(service, text).or_else(|problem| refuse(errno::EINVAL, problem))?;
    }
    Ok(caps.into_iter().collect())
}

fn input_keyring(input: &Bytes) -> Result<Keyring, Refusal> {
    Keyring::parse_bytes(input)
        .or_else(|e| refuse(errno::EINVAL, format!("error decoding keyring: {e}")))
}

fn entity_json(name: &EntityNameStr, auth: &EntityAuth) -> Json {
    let caps = auth.caps.iter().map(|(service, caps)| (service.clone(), Json::from(caps)));
    obj! { "entity" => name.to_string(), "key" => auth.key.to_base64(), "caps" => Json::obj(caps) }
}

fn keyring_answer(ctx: &Context<'_>, name: &EntityNameStr, auth: &EntityAuth) -> Answer {
    ctx.either(|| format_entity(name, auth), || Json::Arr(vec![entity_json(name, auth)]))
}

fn key_answer(ctx: &Context<'_>, key: &CryptoKey, end: &str) -> Answer {
    ctx.either(|| key.to_base64() + end, || obj! { "key" => key.to_base64() })
}
