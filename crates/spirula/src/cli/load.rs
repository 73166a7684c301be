//! `spirula load`: as many requests as a cluster takes, from several clients at once.
//!
//! Each connection is a client of its own, with its own sessions, and keeps its own number of
//! requests in flight. Latencies count from the first request on.

use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use serde_json::json;
use spirula_client::{Cluster, ConnectConfig, Errno, Error, IoCtx};
use tokio::task::LocalSet;

use super::bench::{Xorshift, parse_size};
use super::connect::ConnectArgs;
use crate::print::output;

const MIB: f64 = 1024.0 * 1024.0;
/// Latencies are recorded up to this many microseconds, to three digits.
const LATENCY_US_MAX: u64 = 600_000_000;
const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 100.0];

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    connect: ConnectArgs,
    mode: Mode,
    /// Pool to work in.
    #[arg(short = 'p', long, default_value = "rbd")]
    pool: String,
    /// Clients.
    #[arg(long, default_value_t = 4)]
    connections: usize,
    /// Requests in flight of each client.
    #[arg(long, default_value_t = 32)]
    depth: usize,
    /// Bytes of each request, with an optional suffix K or M.
    #[arg(long, default_value = "4096", value_parser = parse_size)]
    size: u64,
    /// How long to go on.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Objects that each client works on; each is written whole.
    #[arg(long, default_value_t = 1000)]
    objects: u64,
    /// Threads that the clients share [default: one per core, at most one per client].
    #[arg(long)]
    threads: Option<usize>,
    /// Leave the objects.
    #[arg(long)]
    no_cleanup: bool,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Write,
    /// What is read is written first.
    Read,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

/// What some clients measured.
struct Measured {
    latency_us: Histogram<u64>,
    elapsed: Duration,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = args.threads.unwrap_or(cores).min(args.connections);
    if [threads, args.depth].contains(&0) || args.objects == 0 {
        bail!("--connections, --depth, --threads and --objects must be at least 1");
    }
    let config = args.connect.config()?;
    let start = std::sync::Arc::new(std::sync::Barrier::new(threads));
    let spawned = (0..threads).map(|thread| {
        let (args, config) = (args.clone(), config.clone());
        let start = std::sync::Arc::clone(&start);
        let clients: Vec<usize> = (thread..args.connections).step_by(threads).collect();
        std::thread::Builder::new()
            .name(format!("load-{thread}"))
            .spawn(move || run_thread(&args, &config, &clients, &start))
    });
    let handles: Vec<_> = spawned.collect::<Result<_, _>>().context("starting a thread")?;
    let mut latency_us = histogram()?;
    let mut elapsed = Duration::ZERO;
    for handle in handles {
        let measured = handle.join().map_err(|_| anyhow!("a thread of clients died"))??;
        latency_us.add(measured.latency_us)?;
        elapsed = elapsed.max(measured.elapsed);
    }
    report(&args, &Measured { latency_us, elapsed })?;
    Ok(ExitCode::SUCCESS)
}

fn run_thread(
    args: &Args,
    config: &ConnectConfig,
    clients: &[usize],
    start: &std::sync::Barrier,
) -> Result<Measured> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(async {
        let prepared = prepare(args, config, clients).await;
        // The others wait for this thread even if it has nothing to give.
        start.wait();
        let pools = prepared?;
        let begin = Instant::now();
        let until = begin + Duration::from_secs(args.seconds);
        let data = Bytes::from(vec![b'L'; args.size as usize]);
        let mut workers = Vec::new();
        for (client, io) in &pools {
            for lane in 0..args.depth {
                let names = Rc::new(object_names(*client, args.objects));
                let random = Xorshift(((client * args.depth + lane + 1) as u64) << 20 | 1);
                let one = lane_of(args.mode, io.clone(), names, random, data.clone(), until);
                workers.push(tokio::task::spawn_local(one));
            }
        }
        let mut latency_us = histogram()?;
        for worker in workers {
            latency_us.add(worker.await??)?;
        }
        let elapsed = begin.elapsed();
        if !args.no_cleanup {
            for (client, io) in &pools {
                for_all(io, *client, args, Step::Remove).await?;
            }
        }
        Ok(Measured { latency_us, elapsed })
    }))
}

async fn prepare(
    args: &Args,
    config: &ConnectConfig,
    clients: &[usize],
) -> Result<Vec<(usize, IoCtx)>> {
    let mut pools = Vec::new();
    for &client in clients {
        let cluster = Cluster::connect(config.clone()).await?;
        let io = cluster.pool(&args.pool).await?;
        if args.mode == Mode::Read {
            for_all(&io, client, args, Step::Write).await?;
        }
        pools.push((client, io));
    }
    Ok(pools)
}

/// One request after the other until the time is over.
async fn lane_of(
    mode: Mode,
    io: IoCtx,
    names: Rc<Vec<String>>,
    mut random: Xorshift,
    data: Bytes,
    until: Instant,
) -> Result<Histogram<u64>> {
    let mut latency_us = histogram()?;
    let mut now = Instant::now();
    while now < until {
        let name = &names[(random.next() % names.len() as u64) as usize];
        match mode {
            Mode::Write => io.write_full(name, data.clone()).await?,
            Mode::Read => {
                let got = io.read(name, 0, data.len() as u64).await?;
                if got.len() != data.len() {
                    bail!("{name} has {} bytes instead of {}", got.len(), data.len());
                }
            }
        }
        let end = Instant::now();
        let us = u64::try_from((end - now).as_micros()).unwrap_or(u64::MAX);
        latency_us.saturating_record(us.max(1));
        now = end;
    }
    Ok(latency_us)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Write,
    Remove,
}

/// Does something with every object of a client.
async fn for_all(io: &IoCtx, client: usize, args: &Args, step: Step) -> Result<()> {
    let names = std::cell::RefCell::new(object_names(client, args.objects).into_iter());
    let names = Rc::new(names);
    let data = Bytes::from(vec![b'L'; args.size as usize]);
    let lanes = (0..args.depth).map(|_| {
        let (io, names, data) = (io.clone(), Rc::clone(&names), data.clone());
        tokio::task::spawn_local(async move {
            loop {
                let Some(name) = names.borrow_mut().next() else {
                    return Ok::<(), Error>(());
                };
                match step {
                    Step::Write => io.write_full(&name, data.clone()).await?,
                    Step::Remove => match io.remove(&name).await {
                        Ok(()) | Err(Error::Server(Errno::ENOENT)) => {}
                        Err(e) => return Err(e),
                    },
                }
            }
        })
    });
    for lane in lanes.collect::<Vec<_>>() {
        lane.await??;
    }
    Ok(())
}

fn object_names(client: usize, count: u64) -> Vec<String> {
    let pid = std::process::id();
    (0..count).map(|i| format!("spirula_load_{pid}_{client}_{i}")).collect()
}

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3)?)
}

fn report(args: &Args, measured: &Measured) -> Result<()> {
    let seconds = measured.elapsed.as_secs_f64().max(1e-9);
    let count = measured.latency_us.len();
    let iops = count as f64 / seconds;
    let mib = iops * args.size as f64 / MIB;
    let latency = &measured.latency_us;
    let at = |p: f64| latency.value_at_percentile(p);
    if args.json {
        let percentiles = PERCENTILES.map(|p| (format!("p{p}"), json!(at(p))));
        let result = json!({
            "mode": args.mode.name(),
            "connections": args.connections,
            "depth": args.depth,
            "size": args.size,
            "seconds": seconds,
            "requests": count,
            "iops": iops,
            "mib_per_second": mib,
            "latency_us": {
                "mean": latency.mean(),
                "percentiles": serde_json::Map::from_iter(percentiles),
            },
        });
        return Ok(output!("{result}")?);
    }
    let Args { connections, depth, size, .. } = args;
    let mode = args.mode.name();
    output!("{mode}: {connections} connections x {depth} in flight, {size} bytes each")?;
    output!("requests    {count} in {seconds:.2} s")?;
    output!("IOPS        {iops:.0}")?;
    output!("MB/s        {mib:.2}")?;
    output!("latency us  mean {:.0}", latency.mean())?;
    for p in PERCENTILES {
        output!("            p{p:<5} {}", at(p))?;
    }
    Ok(())
}
