//! `osd blocklist`, of clients, hosts and networks; `osd blacklist` is the older spelling.

use std::time::Duration;

use spirula_maps::OsdMap;
use spirula_wire::types::{AddrType, EntityAddr, UTime};

use super::osd_edit::put;
use super::{Answer, Args, Context, Format, Outcome, Refusal, errno, refuse};
use crate::json::{Json, float};
use crate::obj;
use crate::service::plain_addr;
use crate::text::stamp;

/// The longest ban; times on the wire end in 2106.
const BAN_MAX: Duration = Duration::from_secs(1 << 30);

/// A banned network, as texts show it.
pub(super) fn shown_range(range: &EntityAddr) -> String {
    format!("cidr:{}", plain_addr(range))
}

pub(super) fn ls(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let map: &OsdMap = ctx.state.osd.map();
    let (clients, ranges) = (&map.blocklist, &map.range_blocklist);
    let until = |t: &UTime| stamp((*t).into());
    let answer = match ctx.format {
        Format::Plain => {
            let clients = clients.iter().map(|(a, t)| (plain_addr(a), t));
            let all = clients.chain(ranges.iter().map(|(r, t)| (shown_range(r), t)));
            Answer::text(all.map(|(who, t)| format!("{who} {}\n", until(t))).collect::<String>())
        }
        // Two documents in a row, as in Ceph.
        _ => {
            let clients =
                clients.iter().map(|(a, t)| obj! { "addr" => plain_addr(a), "until" => until(t) });
            let ranges =
                ranges.iter().map(|(r, t)| obj! { "range" => plain_addr(r), "until" => until(t) });
            let both = [ctx.json(&Json::arr(clients)), ctx.json(&Json::arr(ranges))];
            Answer::raw(both.map(|answer| answer.out).concat().into())
        }
    };
    Ok(answer.with_status(format!("listed {} entries", clients.len() + ranges.len())))
}

pub(super) fn change(ctx: &mut Context<'_>, args: &Args) -> Outcome {
    let op = args.str_opt("blocklistop")?.or(args.str_opt("blacklistop")?).unwrap_or_default();
    let (addr, shown) = target(args)?;
    let is_range = addr.type_ == AddrType::CIDR;
    let map = ctx.state.osd.map();
    let listed = map.blocklist.contains_key(&addr) || map.range_blocklist.contains_key(&addr);
    let mut inc = ctx.state.osd.next(ctx.now);
    match op {
        "add" => {
            let span = span(ctx, args)?;
            let until = ctx.now.wall + span;
            let bans = if is_range { &mut inc.new_range_blocklist } else { &mut inc.new_blocklist };
            bans.insert(addr, UTime::from(until));
            put(ctx, inc)?;
            let secs = float(span.as_secs_f64(), 6);
            Ok(Answer::status(format!("blocklisting {shown} until {} ({secs} sec)", stamp(until))))
        }
        "rm" if !listed => Ok(Answer::status(format!("{shown} isn't blocklisted"))),
        "rm" => {
            let lifted =
                if is_range { &mut inc.old_range_blocklist } else { &mut inc.old_blocklist };
            lifted.push(addr);
            put(ctx, inc)?;
            Ok(Answer::status(format!("un-blocklisting {shown}")))
        }
        other => refuse(errno::EINVAL, format!("unknown operation '{other}': use add or rm")),
    }
}

/// Who is meant, and how that is shown.
fn target(args: &Args) -> Result<(EntityAddr, String), Refusal> {
    let text = args.str("addr")?;
    let Ok(addr) = text.parse::<EntityAddr>() else {
        return refuse(errno::EINVAL, format!("unable to parse address {text}"));
    };
    if args.str_opt("range")?.is_none() {
        let addr = addr.with_type(AddrType::ANY);
        return Ok((addr, plain_addr(&addr)));
    }
    if !text.contains('/') {
        let shown = plain_addr(&addr);
        let text =
            format!("You specified a range command, but v2:{shown} does not parse as a CIDR range");
        return refuse(errno::EINVAL, text);
    }
    let width = if addr.addr.is_some_and(|socket| socket.is_ipv4()) { 32 } else { 128 };
    if addr.nonce > width {
        return refuse(errno::EINVAL, "Too many bits in range for that protocol!");
    }
    let range = addr.with_type(AddrType::CIDR);
    Ok((range, shown_range(&range)))
}

fn span(ctx: &Context<'_>, args: &Args) -> Result<Duration, Refusal> {
    let Some(secs) = args.float_opt("expire")? else {
        return Ok(ctx.settings.secs("mon_osd_blocklist_default_expire"));
    };
    match Duration::try_from_secs_f64(secs) {
        Ok(span) if span <= BAN_MAX => Ok(span),
        _ => refuse(errno::EINVAL, "bad or missing field 'expire'"),
    }
}

pub(super) fn clear(ctx: &mut Context<'_>, _: &Args) -> Outcome {
    let map = ctx.state.osd.map();
    let mut inc = ctx.state.osd.next(ctx.now);
    inc.old_blocklist = map.blocklist.keys().copied().collect();
    inc.old_range_blocklist = map.range_blocklist.keys().copied().collect();
    if !inc.is_empty() {
        put(ctx, inc)?;
    }
    Ok(Answer::status(" removed all blocklist entries"))
}
