//! Commands that show what the target is doing.

use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use spirula_wire::types::UTime;
use spirula_xstream::{now, wall_now};

use super::{Args, Failure, text_arg};
use crate::object::object_of_key;
use crate::target::Target;
use crate::track::Tracked;
use crate::watch::table::Place;
use crate::watch::{WatchInfo, WatchKey};

type Shown = Result<Value, Failure>;

/// `osd_op_complaint_time`: from then on an operation counts as blocked.
const COMPLAINT_TIME: Duration = Duration::from_secs(30);
/// `osd_op_history_slow_op_threshold`.
const SLOW: Duration = Duration::from_secs(10);

pub(super) fn status(target: &Target, _: &Args) -> Shown {
    let config = target.config();
    Ok(json!({
        "cluster_fsid": config.fsid.to_string(),
        "osd_fsid": config.osd_uuid.to_string(),
        "whoami": config.osd_id,
        "state": if target.is_up() { "active" } else { "booting" },
        "oldest_map": 1,
        "cluster_osdmap_trim_lower_bound": 1,
        "newest_map": target.epoch(),
        "num_pgs": target.pgs().len(),
    }))
}

pub(super) fn mapped_pools(target: &Target, _: &Args) -> Shown {
    let mut pools: Vec<i64> = target.pgs().all().iter().map(|pg| pg.pgid.pgid.pool).collect();
    pools.sort_unstable();
    pools.dedup();
    Ok(json!(pools))
}

pub(super) fn blocklist(target: &Target, _: &Args) -> Shown {
    let map = target.map();
    let row = |(addr, until): (&spirula_wire::types::EntityAddr, &UTime)| json!({ "addr": addr.to_string(), "expire_time": stamp(*until) });
    Ok(map.blocklist.iter().map(row).collect())
}

pub(super) fn watchers(target: &Target, _: &Args) -> Shown {
    let row = |(place, key, info): (&Place, &WatchKey, &WatchInfo)| {
        let object = object_of_key(place.pgid.pool, &place.object).unwrap_or_default();
        let addr = info.addr;
        json!({
            "namespace": String::from_utf8_lossy(&object.nspace),
            "object": String::from_utf8_lossy(&object.oid),
            "entity_name": { "type": key.entity.type_.to_string(), "num": key.entity.num },
            "cookie": key.cookie,
            "timeout": info.timeout_seconds,
            "entity_addr_t": {
                "type": addr.type_.name(),
                "addr": addr.addr.map_or_else(|| ":/0".to_owned(), |socket| socket.to_string()),
                "nonce": addr.nonce,
            },
        })
    };
    Ok(target.watching().with(|table| table.all().map(row).collect()))
}

pub(super) fn ops_in_flight(target: &Target, _: &Args) -> Shown {
    let ops: Vec<Value> = target.tracker().in_flight().iter().map(|op| op_json(op)).collect();
    Ok(json!({ "ops": ops, "num_ops": ops.len() }))
}

pub(super) fn ops_blocked(target: &Target, _: &Args) -> Shown {
    let blocked = |op: &&Rc<Tracked>| now().saturating_sub(op.received) >= COMPLAINT_TIME;
    let in_flight = target.tracker().in_flight();
    let ops: Vec<Value> = in_flight.iter().filter(blocked).map(|op| op_json(op)).collect();
    let complaint_time = COMPLAINT_TIME.as_secs();
    Ok(json!({ "ops": ops, "complaint_time": complaint_time, "num_blocked_ops": ops.len() }))
}

pub(super) fn ops_historic(target: &Target, _: &Args) -> Shown {
    historic(target, |_| {})
}

pub(super) fn ops_by_duration(target: &Target, _: &Args) -> Shown {
    historic(target, |ops| ops.sort_by_key(|op| std::cmp::Reverse(op.duration())))
}

pub(super) fn ops_slow(target: &Target, _: &Args) -> Shown {
    let ops = target.tracker().history();
    let slow = ops.iter().filter(|op| op.duration() >= SLOW);
    Ok(json!({
        "num to keep": target.option_number("osd_op_history_size"),
        "threshold to keep": SLOW.as_secs(),
        "Ops": slow.map(|op| op_json(op)).collect::<Vec<_>>(),
    }))
}

fn historic(target: &Target, arrange: impl FnOnce(&mut Vec<Rc<Tracked>>)) -> Shown {
    let mut ops = target.tracker().history();
    arrange(&mut ops);
    let ops: Vec<Value> = ops.iter().map(|op| op_json(op)).collect();
    Ok(json!({
        "size": target.option_number("osd_op_history_size"),
        "duration": target.option_number("osd_op_history_duration"),
        "ops": ops,
    }))
}

fn op_json(op: &Tracked) -> Value {
    let age = now().saturating_sub(op.received);
    let wall = |time| stamp(wall_now().saturating_sub(now().saturating_sub(time)).into());
    let events = op.events().into_iter().map(
        |(name, time, lasted)| json!({ "event": name, "time": wall(time), "duration": lasted.as_secs_f64() }),
    );
    json!({
        "description": op.description(),
        "initiated_at": wall(op.received),
        "age": age.as_secs_f64(),
        "duration": op.duration().as_secs_f64(),
        "type_data": {
            "flag_point": op.flag_point(),
            "client_info": {
                "client": op.client.to_string(),
                "client_addr": op.client_addr.to_string().trim_start_matches("any:"),
                "tid": op.tid,
            },
            "events": events.collect::<Vec<_>>(),
        },
    })
}

pub(super) fn perf(target: &Target, args: &Args) -> Shown {
    let perf = target.tracker().perf();
    let time = |t: &crate::track::Timing| {
        let sum = t.sum.as_secs_f64();
        let avg = if t.count == 0 { 0.0 } else { sum / t.count as f64 };
        json!({ "avgcount": t.count, "sum": sum, "avgtime": avg })
    };
    let space = target.store().statfs();
    let all = json!({
        "osd": {
            "op_wip": target.tracker().in_flight().len(),
            "op": perf.all.count,
            "op_in_bytes": perf.bytes_in,
            "op_out_bytes": perf.bytes_out,
            "op_latency": time(&perf.all),
            "op_r": perf.reads.count,
            "op_r_latency": time(&perf.reads),
            "op_w": perf.writes.count,
            "op_w_latency": time(&perf.writes),
            "numpg": target.pgs().len(),
            "numpg_primary": target.pgs().len(),
            "map_message_epochs": target.epoch(),
            "stat_bytes": space.total,
            "stat_bytes_used": space.used,
            "stat_bytes_avail": space.available,
        },
        "vos": super::vos::perf(target),
    });
    Ok(only_asked(all, args))
}

/// Ceph's numbers for kinds of counters.
pub(super) const GAUGE: u32 = 2;
const TIME_AVERAGE: u32 = 5;
pub(super) const COUNTER: u32 = 10;
/// Shown by `ceph daemonperf` unless it is asked for more important ones only.
const PRIORITY_INTERESTING: u32 = 8;
/// Shown only to those who ask for all.
pub(super) const PRIORITY_USEFUL: u32 = 5;

/// Counter, kind, short name, unit, meaning.
const SCHEMA: &[(&str, u32, &str, &str, &str)] = &[
    ("op_wip", GAUGE, "wip", "none", "Client operations currently being processed"),
    ("op", COUNTER, "ops", "none", "Client operations"),
    ("op_in_bytes", COUNTER, "wr", "bytes", "Client operations total write size"),
    ("op_out_bytes", COUNTER, "rd", "bytes", "Client operations total read size"),
    (
        "op_latency",
        TIME_AVERAGE,
        "lat",
        "none",
        "Latency of client operations (including queue time)",
    ),
    ("op_r", COUNTER, "rops", "none", "Client read operations"),
    (
        "op_r_latency",
        TIME_AVERAGE,
        "rlat",
        "none",
        "Latency of read operation (including queue time)",
    ),
    ("op_w", COUNTER, "wops", "none", "Client write operations"),
    (
        "op_w_latency",
        TIME_AVERAGE,
        "wlat",
        "none",
        "Latency of write operation (including queue time)",
    ),
    ("numpg", GAUGE, "pgs", "none", "Placement groups"),
    ("numpg_primary", GAUGE, "ppgs", "none", "Placement groups for which this osd is primary"),
    ("map_message_epochs", GAUGE, "mape", "none", "OSD map epochs"),
    ("stat_bytes", GAUGE, "size", "bytes", "OSD size"),
    ("stat_bytes_used", GAUGE, "used", "bytes", "Used space"),
    ("stat_bytes_avail", GAUGE, "free", "bytes", "Available space"),
];

pub(super) fn perf_schema(_: &Target, args: &Args) -> Shown {
    let describe = |&(name, kind, nick, unit, what): &(&str, u32, &str, &str, &str)| {
        let counter = json!({
            "type": kind,
            "metric_type": if kind == COUNTER { "counter" } else { "gauge" },
            "value_type": if kind == TIME_AVERAGE { "real-integer-pair" } else { "integer" },
            "description": what,
            "nick": nick,
            "priority": PRIORITY_INTERESTING,
            "units": unit,
        });
        (name.to_owned(), counter)
    };
    let counters: serde_json::Map<String, Value> = SCHEMA.iter().map(describe).collect();
    Ok(only_asked(json!({ "osd": counters, "vos": super::vos::schema() }), args))
}

/// Of `{ logger: { counter: ... } }` what the arguments `logger` and `counter` name.
fn only_asked(mut all: Value, args: &Args) -> Value {
    let (logger, counter) = (text_arg(args, "logger"), text_arg(args, "counter"));
    if let Value::Object(loggers) = &mut all {
        loggers.retain(|name, _| logger.is_empty() || *name == logger);
        let counters = loggers.values_mut().filter_map(Value::as_object_mut);
        counters.for_each(|c| c.retain(|name, _| counter.is_empty() || *name == counter));
    }
    all
}

/// A time as Ceph's JSON has it, in UTC.
pub(super) fn stamp(t: UTime) -> String {
    let (days, secs) = (i64::from(t.sec / 86400), t.sec % 86400);
    // Civil date from days since 1970, by the era method (400-year cycles from 0000-03-01).
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}+0000",
        secs / 3600,
        secs / 60 % 60,
        secs % 60,
        t.nsec / 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_utc_dates() {
        assert_eq!(stamp(UTime::default()), "1970-01-01T00:00:00.000000+0000");
        let t = UTime { sec: 1_709_210_096, nsec: 789_000 };
        assert_eq!(stamp(t), "2024-02-29T12:34:56.000789+0000");
    }
}
