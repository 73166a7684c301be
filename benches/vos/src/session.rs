//! Lives of the store: each begins with opening it and ends with closing it, or with a crash.
//!
//! A crash is the end of the xstream while the store is open: tasks are cancelled and nothing more is
//! written, so the next life must replay the WAL.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use spirula_bio::Device;
use spirula_perf::{Latencies, Meter, print};
use spirula_store::{Expect, FormatOptions, Options, Store};
use spirula_vos::{ContainerId, Tx};
use spirula_xstream::Config;

use crate::phases::Bench;
use crate::target::Target;
use crate::{Args, Phase};

/// The container of all objects.
pub(crate) const CONTAINER: ContainerId = ContainerId([1; 16]);

/// What a life begins with.
struct Begin {
    path: PathBuf,
    /// Bytes to reserve.
    bytes: Option<u64>,
    /// How the life before ended; `None` is the first one.
    after: Option<Phase>,
    /// The last epoch used.
    epoch: u64,
}

pub(crate) fn run(args: Args, target: &Target) -> Result<()> {
    let mut begin = Begin { path: target.path(), bytes: target.bytes(), after: None, epoch: 0 };
    let ends = |p: &Phase| matches!(p, Phase::Reopen | Phase::Crash);
    for phases in args.phases.split_inclusive(ends) {
        let after = phases.last().copied().filter(ends);
        let epoch = life(args.clone(), begin, phases.to_vec())?;
        begin = Begin { path: target.path(), bytes: None, after, epoch };
    }
    if begin.after.is_some() {
        life(args, begin, Vec::new())?;
    }
    Ok(())
}

fn life(args: Args, begin: Begin, phases: Vec<Phase>) -> Result<u64> {
    spirula_xstream::run(Config::new("bench").pin_nth(0), live(args, begin, phases))?
}

/// Opens the store, runs the phases, and gives the last epoch.
async fn live(args: Args, begin: Begin, phases: Vec<Phase>) -> Result<u64> {
    let options = Options {
        pool_bytes: args.pool_bytes,
        inline_threshold: args.inline_threshold.unwrap_or(Options::default().inline_threshold),
        ..Options::default()
    };
    let (device, store) = match begin.after {
        None => format(&begin, options).await?,
        Some(end) => reopen(&begin, options, end, args.load.json).await?,
    };
    let bench = Bench::new(args, device, store.clone(), begin.epoch);
    for phase in phases {
        bench.run(phase).await?;
        if phase == Phase::Crash {
            return Ok(bench.epoch());
        }
    }
    store.close().await?;
    Ok(bench.epoch())
}

async fn format(begin: &Begin, options: Options) -> Result<(Device, Store)> {
    let device = Device::create(&begin.path, begin.bytes)?;
    Store::format(&device, &FormatOptions::default()).await?;
    let store = Store::open(&device, Expect::default(), options).await?;
    let mut tx = Tx::new(0);
    tx.create_container(CONTAINER);
    store.submit(&tx)?.await?;
    Ok((device, store))
}

/// Opens the store again, as one operation of the phase that ended it.
async fn reopen(
    begin: &Begin,
    options: Options,
    end: Phase,
    json: bool,
) -> Result<(Device, Store)> {
    let (mut meter, start, mut latencies) = (Meter::start(), Instant::now(), Latencies::new());
    let device = Device::open(&begin.path)?;
    let store = Store::open(&device, Expect::default(), options).await?;
    latencies.add(start.elapsed());
    meter.operations_done();
    let mut report = meter.finish(&end.name(), 1, &latencies, 0);
    report.note = format!("replayed {} transactions", store.counters().replayed);
    print(&report, json)?;
    Ok((device, store))
}
