//! The store's counters, as `perf dump` and `perf schema` show them under `vos`.

use serde_json::{Map, Value, json};
use spirula_store::Counters;
use spirula_vos::BLOCK_SIZE;

use super::dump::{COUNTER, GAUGE, PRIORITY_USEFUL};
use super::{Args, Failure};
use crate::target::Target;

/// Counter, short name, unit, meaning, value.
type Row = (&'static str, &'static str, &'static str, &'static str, fn(&Counters) -> u64);

type Words = (&'static str, &'static str, &'static str, &'static str);

const GAUGES: [Words; 3] = [
    (
        "fragmentation_micros",
        "fbfr",
        "none",
        "How fragmented free space is (free runs / most possible free runs) * 1000",
    ),
    ("free_runs", "frun", "none", "Runs of free blocks"),
    ("free_longest", "flen", "bytes", "Longest run of free blocks"),
];

const ROWS: &[Row] = &[
    ("commits", "cmt", "none", "Transactions that became durable", |c| c.commits),
    ("batches", "bat", "none", "WAL batches, each with one flush", |c| c.batches),
    ("wal_bytes", "wal", "bytes", "Bytes written to the WAL", |c| c.wal_bytes),
    ("data_bytes", "data", "bytes", "Bytes written to data blocks", |c| c.data_bytes),
    ("checkpoints", "ckpt", "none", "Checkpoints", |c| c.checkpoints),
    ("pages_written", "pgw", "none", "Metadata pages written by checkpoints", |c| c.pages_written),
    ("pages_read", "pgr", "none", "Metadata pages read", |c| c.pages_read),
    ("trimmed_bytes", "trim", "bytes", "Bytes that the device was told to be free", |c| {
        c.trimmed_bytes
    }),
    ("scrubs", "scr", "none", "Scrubs of the store that ended", |c| c.scrubs),
    ("scrub_bytes", "scrb", "bytes", "Bytes read and verified by scrubs", |c| c.scrub_bytes),
    ("scrub_errors", "scre", "none", "Damaged pages and extents that scrubs found", |c| {
        c.scrub_errors
    }),
];

pub(super) fn perf(target: &Target) -> Value {
    let counters = target.store().counters();
    let mut all: Map<String, Value> =
        ROWS.iter().map(|row| (row.0.to_owned(), json!(row.4(&counters)))).collect();
    let free = target.store().fragmentation();
    let gauges = [(free.score() * 1000.0) as u64, free.runs, free.longest * BLOCK_SIZE];
    all.extend(GAUGES.iter().map(|g| g.0.to_owned()).zip(gauges.map(Value::from)));
    Value::Object(all)
}

/// `bluestore allocator score`: 0 for one free run, 1 for nothing but single free blocks.
pub(super) fn allocator_score(target: &Target, _: &Args) -> Result<Value, Failure> {
    Ok(json!({ "fragmentation_rating": target.store().fragmentation().score() }))
}

/// `bluestore allocator dump`: the free runs by their length.
pub(super) fn allocator_dump(target: &Target, _: &Args) -> Result<Value, Failure> {
    let free = target.store().fragmentation();
    let class = |(i, (runs, blocks)): (usize, &(u64, u64))| {
        let (runs, bytes) = (*runs, *blocks * BLOCK_SIZE);
        json!({ "from": BLOCK_SIZE << i, "runs": runs, "bytes": bytes })
    };
    Ok(json!({
        "alloc_unit": BLOCK_SIZE,
        "free": free.blocks * BLOCK_SIZE,
        "runs": free.runs,
        "longest": free.longest * BLOCK_SIZE,
        "classes": free.classes.iter().enumerate().map(class).collect::<Vec<_>>(),
    }))
}

pub(super) fn schema() -> Value {
    let describe = |(kind, metric, (name, nick, unit, what)): (u32, &str, Words)| {
        let counter = json!({
            "type": kind,
            "metric_type": metric,
            "value_type": "integer",
            "description": what,
            "nick": nick,
            "priority": PRIORITY_USEFUL,
            "units": unit,
        });
        (name.to_owned(), counter)
    };
    let counters = ROWS.iter().map(|r| (COUNTER, "counter", (r.0, r.1, r.2, r.3)));
    let gauges = GAUGES.iter().map(|words| (GAUGE, "gauge", *words));
    Value::Object(counters.chain(gauges).map(describe).collect())
}
