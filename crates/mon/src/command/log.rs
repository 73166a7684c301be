//! `log`, `log last`: the cluster log.

use spirula_wire::msg::mon::{LogEntry, log_priority};
use spirula_wire::types::{EntityName, UTime};

use super::{Answer, Args, Context, Outcome};
use crate::json::Json;
use crate::obj;
use crate::service::addrs_json;
use crate::state::Change;
use crate::text::stamp;

pub(super) fn log(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let entry = LogEntry {
        name: ctx.caller.clone(),
        rank: EntityName::new(ctx.caller.type_, -1),
        addrs: ctx.caller_addrs.clone(),
        stamp: UTime::from(ctx.now.wall),
        seq: 0,
        prio: log_priority::INFO,
        msg: args.strs("logtext")?.join(" "),
        channel: "cluster".into(),
    };
    ctx.change(Change::Log(vec![entry]));
    Ok(Answer::default())
}

/// The newest `num` entries of at least `level`, oldest first.
pub(super) fn last(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let num = args.int_opt("num")?.unwrap_or(20).max(0) as usize;
    let level = level_of(args.str_opt("level")?.unwrap_or("info")).unwrap_or(log_priority::INFO);
    let channel = args.str_opt("channel")?.unwrap_or("cluster");
    let wanted = |e: &&LogEntry| e.prio >= level && (channel == "*" || e.channel == channel);
    let mut found: Vec<&LogEntry> =
        ctx.state.log.entries().rev().filter(wanted).take(num).collect();
    found.reverse();
    Ok(ctx.either(
        || found.iter().map(|e| line(e) + "\n").collect(),
        || Json::arr(found.iter().map(|e| entry_json(e))),
    ))
}

/// An entry as `ceph -w` and `log last` show it.
pub(crate) fn line(e: &LogEntry) -> String {
    let (at, level) = (stamp(e.stamp.into()), level_name(e.prio));
    format!("{at} {} ({}) {} : {} {level} {}", e.name, e.rank, e.seq, e.channel, e.msg)
}

fn entry_json(e: &LogEntry) -> Json {
    obj! {
        "name" => e.name.to_string(),
        "rank" => e.rank.to_string(),
        "addrs" => addrs_json(&e.addrs),
        "stamp" => stamp(e.stamp.into()),
        "seq" => e.seq,
        "channel" => &e.channel,
        "priority" => level_name(e.prio),
        "message" => &e.msg,
    }
}

fn level_name(prio: u16) -> &'static str {
    match prio {
        log_priority::DEBUG => "[DBG]",
        log_priority::INFO => "[INF]",
        log_priority::SEC => "[SEC]",
        log_priority::WARN => "[WRN]",
        log_priority::ERROR => "[ERR]",
        _ => "[???]",
    }
}

/// The priority of a level's name, as in `log-warn` and `log last 5 warn`.
pub(crate) fn level_of(name: &str) -> Option<u16> {
    match name {
        "debug" => Some(log_priority::DEBUG),
        "info" => Some(log_priority::INFO),
        "sec" => Some(log_priority::SEC),
        "warn" => Some(log_priority::WARN),
        "error" => Some(log_priority::ERROR),
        _ => None,
    }
}
