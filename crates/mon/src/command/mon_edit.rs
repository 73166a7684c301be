//! Which monitors there are: `mon add|rm`, and whether stopping, adding or removing one does harm.
//!
//! A monitor that was added votes once it runs and was let in; until then the others' majority is
//! what it was. The `ok-to` commands count by the monitor map all the same, as Ceph does.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use spirula_maps::MonMap;
use spirula_maps::monmap::MonInfo;
use spirula_wire::types::{AddrType, EntityAddr, EntityAddrVec, UTime};
use spirula_wire::{Encode as _, Features};

use super::status::busy;
use super::{Answer, Args, Context, Outcome, Refusal, errno, refuse};
use crate::state::Change;

/// Where monitors listen when nobody says otherwise.
const PORT: u16 = 3300;
/// Where those listen that speak messenger v1 only.
const LEGACY_PORT: u16 = 6789;

pub(super) fn add(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let (name, text) = (args.str("name")?, args.str("addr")?);
    let addrs = address(text)?;
    let location = location(args)?;
    let map = ctx.state.monmap.map();
    if let Some(known) = map.mons.get(name) {
        let there = &known.public_addrs;
        if *there == addrs {
            return Ok(Answer::status(format!("mon.{name} at {addrs} already exists")));
        }
        return refuse(errno::EEXIST, format!("mon.{name} already exists at address {there}"));
    }
    let taken = |mon: &&MonInfo| mon.public_addrs.iter().any(|a| addrs.iter().any(|b| a == b));
    if let Some(other) = map.by_rank().find(taken) {
        let text = format!("mon.{} already exists at address {addrs}", other.name);
        return refuse(errno::EEXIST, text);
    }
    let status = format!("adding mon.{name} at {addrs}");
    let mut next = next_map(ctx);
    next.add(name, addrs);
    if let Some(added) = next.mons.get_mut(name) {
        added.crush_loc = location;
    }
    put(ctx, &next);
    Ok(Answer::status(status))
}

/// A port of its own means messenger v2, which is all that our monitors speak.
fn address(text: &str) -> Result<EntityAddrVec, Refusal> {
    let bad = || Refusal {
        errno: errno::EINVAL,
        text: format!("addr {text} does not parse"),
        out: Bytes::new(),
    };
    let addr: EntityAddr = text.parse().map_err(|_| bad())?;
    let mut socket = addr.addr.ok_or_else(bad)?;
    if addr.type_ == AddrType::LEGACY || socket.port() == LEGACY_PORT {
        let text = format!("addr {text} is of messenger v1; monitors speak v2 only");
        return refuse(errno::EINVAL, text);
    }
    if socket.port() == 0 {
        socket.set_port(PORT);
    }
    Ok(EntityAddr::msgr2(socket, 0).into())
}

/// `type=name` words.
fn location(args: &Args) -> Result<BTreeMap<String, String>, Refusal> {
    let words = if args.has("location") { args.strs("location")? } else { Vec::new() };
    let pair = |word: &&str| word.split_once('=').map(|(t, n)| (t.to_owned(), n.to_owned()));
    match words.iter().map(pair).collect::<Option<_>>() {
        Some(pairs) => Ok(pairs),
        None => refuse(errno::EINVAL, format!("invalid location '{}'", words.join(" "))),
    }
}

pub(super) fn rm(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let name = args.str("name")?;
    let mut next = next_map(ctx);
    let Some(rank) = next.rank_of(name) else {
        let text = format!("mon.{name} does not exist or has already been removed");
        return Ok(Answer::status(text));
    };
    if next.ranks.len() == 1 {
        return refuse(errno::EINVAL, format!("error: refusing removal of last monitor {name}"));
    }
    next.ranks.remove(rank);
    next.mons.remove(name);
    next.disallowed_leaders.remove(name);
    next.removed_ranks = [rank as u32].into();
    put(ctx, &next);
    Ok(Answer::default())
}

/// The map that would follow.
fn next_map(ctx: &Context<'_>) -> MonMap {
    let map = ctx.state.monmap.map().clone();
    MonMap {
        epoch: map.epoch + 1,
        last_changed: UTime::from(ctx.now.wall),
        removed_ranks: BTreeSet::new(),
        ..map
    }
}

fn put(ctx: &mut Context<'_>, map: &MonMap) {
    ctx.change(Change::MonMap(map.to_bytes(Features::PACIFIC).into()));
}

/// How many of so many monitors are a quorum.
fn majority(monitors: usize) -> usize {
    monitors / 2 + 1
}

pub(super) fn ok_to_stop(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let ids = args.strs("ids")?;
    let stays = |name: &&String| !ids.contains(&name.as_str());
    let left: BTreeSet<&str> =
        ctx.live.quorum.names.iter().filter(stays).map(String::as_str).collect();
    let names = left.iter().copied().collect::<Vec<_>>().join(",");
    let ids = ids.join(",");
    if left.len() < majority(ctx.state.monmap.map().ranks.len()) {
        return busy(&format!(
            "not enough monitors would be available ({names}) after stopping mons [{ids}]"
        ));
    }
    Ok(Answer::status(format!("quorum should be preserved ({names}) after stopping [{ids}]")))
}

pub(super) fn ok_to_add_offline(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    if ctx.live.quorum.names.len() < majority(ctx.state.monmap.map().ranks.len() + 1) {
        return busy("adding a monitor may break quorum (until that monitor starts)");
    }
    Ok(Answer::status("adding another mon that is not yet online will not break quorum"))
}

pub(super) fn ok_to_rm(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let id = args.str("id")?;
    let map = ctx.state.monmap.map();
    if map.rank_of(id).is_none() {
        return Ok(Answer::status(format!("mon.{id} does not exist")));
    }
    let left = ctx.live.quorum.names.iter().filter(|name| *name != id).count();
    // Of none there is no quorum.
    if left == 0 || left < majority(map.ranks.len() - 1) {
        return busy(&format!("removing mon.{id} would break quorum"));
    }
    Ok(Answer::status(format!("safe to remove mon.{id}")))
}
