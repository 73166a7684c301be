//! The scenarios of `bench-vos` and what they must reach: tables, and how a bound is computed.

use anyhow::Result;
use serde_json::Value;
use spirula_perf::Report;

use super::Side;

/// One load on several sides.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// Runs only when it is named, or with `--long`.
    pub(super) big: bool,
    pub(super) objects: u64,
    pub(super) ops: u64,
    pub(super) sides: &'static [Side],
    /// Options of every side.
    pub(super) load: &'static [&'static str],
    /// Options of our store alone.
    pub(super) vos: &'static [&'static str],
    pub(super) phases: &'static str,
    /// Phases whose reports count; the others only prepare.
    pub(super) shown: &'static [&'static str],
    pub(super) checks: &'static [Check],
}

/// A number that the scenario is about.
pub(super) struct Check {
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    pub(super) bound: Bound,
    /// `None` when a side is missing.
    pub(super) measure: fn(&Rows) -> Option<f64>,
}

#[derive(Clone, Copy)]
pub(super) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Reported only.
    None,
}

/// What was measured in one scenario.
#[derive(Default)]
pub(super) struct Rows(Vec<(Side, Report)>);

impl Rows {
    pub(super) fn add(&mut self, side: Side, report: Report) {
        self.0.push((side, report));
    }

    pub(super) fn json(&self) -> Result<Vec<Value>> {
        let row = |(side, report): &(Side, Report)| {
            let mut value = serde_json::to_value(report)?;
            value["side"] = side.name().into();
            Ok(value)
        };
        self.0.iter().map(row).collect()
    }

    fn get(&self, side: Side, phase: &str) -> Option<&Report> {
        self.0.iter().find(|(s, r)| *s == side && r.phase == phase).map(|(_, r)| r)
    }

    fn vos(&self, phase: &str) -> Option<&Report> {
        self.get(Side::Vos, phase)
    }

    fn bare(&self) -> Option<&Report> {
        self.get(Side::Bare, "bare")
    }

    /// CPU of RocksDB, in whichever way it took less.
    fn rocksdb_cpu_us(&self, phase: &str) -> Option<f64> {
        let sides = [Side::RocksDb, Side::RocksDbBlob];
        sides.iter().filter_map(|s| self.get(*s, phase)).map(|r| r.cpu_us).reduce(f64::min)
    }
}

const CPU_PER_BARE: Check = Check {
    what: "CPU of an update / of a bare write and flush",
    unit: "x",
    bound: Bound::AtMost(2.2),
    measure: |rows| Some(rows.vos("update")?.cpu_us / rows.bare()?.cpu_us),
};

const UPDATES_PER_ROCKSDB: Check = Check {
    what: "updates per CPU second / RocksDB's",
    unit: "x",
    bound: Bound::AtLeast(3.0),
    measure: |rows| Some(rows.rocksdb_cpu_us("update")? / rows.vos("update")?.cpu_us),
};

const METADATA_PER_OBJECT: Check = Check {
    what: "metadata of an object",
    unit: "bytes",
    bound: Bound::AtMost(300.0),
    measure: |rows| rows.vos("update")?.metadata_per_object,
};

const fn update_cpu_at_most(us: f64) -> Check {
    Check {
        what: "CPU of an update",
        unit: "us",
        bound: Bound::AtMost(us),
        measure: |rows| Some(rows.vos("update")?.cpu_us),
    }
}

const ALL: &[Side] = &[Side::Bare, Side::Vos, Side::RocksDb, Side::RocksDbBlob];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "update-1m",
        about: "durable 4 KiB updates of 1,000,000 objects, uniform, metadata in memory, depth 16",
        big: false,
        objects: 1_000_000,
        ops: 1_000_000,
        sides: ALL,
        load: &["--size", "4096", "--depth", "16"],
        vos: &["--pool-bytes", "1073741824"],
        phases: "fill,update",
        shown: &["update", "bare"],
        checks: &[update_cpu_at_most(14.0), CPU_PER_BARE, UPDATES_PER_ROCKSDB, METADATA_PER_OBJECT],
    },
    Scenario {
        name: "update-10k",
        about: "durable 4 KiB updates of 10,000 objects, uniform, depth 16",
        big: false,
        objects: 10_000,
        ops: 1_000_000,
        sides: ALL,
        load: &["--size", "4096", "--depth", "16"],
        vos: &[],
        phases: "fill,update",
        shown: &["update", "bare"],
        checks: &[
            update_cpu_at_most(9.0),
            Check { bound: Bound::None, ..CPU_PER_BARE },
            UPDATES_PER_ROCKSDB,
        ],
    },
    Scenario {
        name: "fetch-cached",
        about: "4 KiB fetches of 10,000 objects whose data is in memory",
        big: false,
        objects: 10_000,
        ops: 1_000_000,
        sides: &[Side::Vos, Side::RocksDb],
        load: &["--size", "4096", "--depth", "16"],
        vos: &[],
        phases: "fill,warm,fetch",
        shown: &["fetch"],
        checks: &[
            Check {
                what: "CPU of a fetch",
                unit: "us",
                bound: Bound::AtMost(2.5),
                measure: |rows| Some(rows.vos("fetch")?.cpu_us),
            },
            Check {
                what: "fetches per CPU second / RocksDB's",
                unit: "x",
                bound: Bound::None,
                measure: |rows| Some(rows.rocksdb_cpu_us("fetch")? / rows.vos("fetch")?.cpu_us),
            },
        ],
    },
    Scenario {
        name: "update-64b",
        about: "durable updates of 64-byte single values, 100,000 objects, depth 64",
        big: false,
        objects: 100_000,
        ops: 2_000_000,
        sides: &[Side::Vos, Side::RocksDb],
        load: &["--size", "64", "--depth", "64"],
        vos: &["--single"],
        phases: "fill,update",
        shown: &["update"],
        checks: &[
            Check {
                what: "durable updates per CPU second",
                unit: "/s",
                bound: Bound::AtLeast(150_000.0),
                measure: |rows| Some(1e6 / rows.vos("update")?.cpu_us),
            },
            Check { bound: Bound::None, ..UPDATES_PER_ROCKSDB },
        ],
    },
    Scenario {
        name: "cold-10m",
        about: "10,000,000 objects of 128 bytes behind a buffer pool of 256 MiB, depth 16",
        big: true,
        objects: 10_000_000,
        ops: 200_000,
        sides: &[Side::Vos],
        load: &["--size", "128", "--depth", "16"],
        vos: &["--single", "--pool-bytes", "268435456", "--read-bytes", "8192"],
        phases: "fill,reopen,fetch,device-read,crash",
        shown: &["fill", "reopen", "fetch", "device-read", "crash"],
        checks: &[
            Check {
                what: "p99 of a random fetch / of the device's 8 KiB read",
                unit: "x",
                bound: Bound::AtMost(3.0),
                measure: |rows| Some(rows.vos("fetch")?.p99_us / rows.vos("device-read")?.p99_us),
            },
            Check {
                what: "most memory of the process, pool 256 and buffers 128",
                unit: "MiB",
                bound: Bound::AtMost(384.0),
                measure: |rows| Some(rows.vos("crash")?.rss_peak_mib),
            },
            Check {
                what: "reopen after close",
                unit: "s",
                bound: Bound::AtMost(1.0),
                measure: |rows| Some(rows.vos("reopen")?.max_us / 1e6),
            },
            Check {
                what: "reopen after a crash",
                unit: "s",
                bound: Bound::AtMost(3.0),
                measure: |rows| Some(rows.vos("crash")?.max_us / 1e6),
            },
        ],
    },
    Scenario {
        name: "sustained",
        about: "20 GiB of random 4 KiB overwrites of 1,000,000 objects, depth 16",
        big: true,
        objects: 1_000_000,
        ops: (20 << 30) / 4096,
        sides: &[Side::Bare, Side::Vos],
        load: &["--size", "4096", "--depth", "16"],
        vos: &["--pool-bytes", "1073741824"],
        phases: "fill,update",
        shown: &["update", "bare"],
        checks: &[
            Check {
                what: "longest stall beyond that of the bare loop",
                unit: "ms",
                bound: Bound::AtMost(50.0),
                measure: |rows| Some((rows.vos("update")?.max_us - rows.bare()?.max_us) / 1e3),
            },
            Check {
                what: "bytes to the device / bytes written",
                unit: "x",
                bound: Bound::None,
                measure: |rows| rows.vos("update")?.write_amplification(),
            },
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn report(phase: &str, cpu_us: f64) -> Report {
        let metadata_per_object = Some(100.0);
        Report { phase: phase.into(), cpu_us, metadata_per_object, ..Report::default() }
    }

    fn measured(check: &Check, rows: &[(Side, f64)]) -> Option<f64> {
        let mut all = Rows::default();
        for (side, cpu_us) in rows {
            let phase = if *side == Side::Bare { "bare" } else { "update" };
            all.add(*side, report(phase, *cpu_us));
        }
        (check.measure)(&all)
    }

    #[test]
    fn ratios_compare_with_the_bare_loop_and_with_the_cheaper_rocksdb() {
        let rows = [
            (Side::Bare, 4.0),
            (Side::Vos, 10.0),
            (Side::RocksDb, 40.0),
            (Side::RocksDbBlob, 35.0),
        ];
        assert_eq!(measured(&CPU_PER_BARE, &rows), Some(2.5));
        assert_eq!(measured(&UPDATES_PER_ROCKSDB, &rows), Some(3.5));
        assert_eq!(measured(&UPDATES_PER_ROCKSDB, &rows[..2]), None);
    }

    #[test]
    fn checks_look_only_at_phases_that_run_and_are_shown() {
        for scenario in SCENARIOS {
            let phases: Vec<&str> = scenario.phases.split(',').chain(["bare"]).collect();
            assert!(scenario.shown.iter().all(|s| phases.contains(s)), "{}", scenario.name);
            let mut rows = Rows::default();
            for side in scenario.sides {
                scenario.shown.iter().for_each(|phase| rows.add(*side, report(phase, 1.0)));
            }
            for check in scenario.checks.iter().filter(|c| !c.what.starts_with("bytes to")) {
                assert!((check.measure)(&rows).is_some(), "{}: {}", scenario.name, check.what);
            }
        }
    }
}
