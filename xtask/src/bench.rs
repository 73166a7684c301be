//! `cargo xtask bench-vs-ceph`: the same loads on a real Ceph and on Spirula, alternately, with
//! medians, ratios, server CPU per operation, start-up, resident memory and idle CPU.
//!
//! CPU per operation is all CPU of the server processes from the first operation until the store
//! is quiescent, divided by the operations, as the design defines it.

mod rbd;
mod replicated;
mod side;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use self::side::{Shape, Side, cpu_seconds, idle_cpu_percent, rss_mib, wait_quiescent};
use crate::{packages, run};

/// One load; `mode` is in the words of its client.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    size: u32,
    mode: &'static str,
    client: Client,
    pool: &'static str,
    /// How many times faster, and how many times cheaper in CPU, it is to be than on Ceph.
    bound: Option<(f64, f64)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Client {
    /// Ceph's `rados bench`, 16 in flight.
    RadosBench,
    /// `spirula load`, 4 connections with 32 in flight each. Its CPU counts the writing of the
    /// objects that it reads.
    Saturating,
    /// `fio` on an image of rbd, 32 in flight (4 of 4 MiB).
    Fio,
}

/// The pool that both sides have from the start; the tools for images take it by themselves.
const POOL: &str = "rbd";

const LOADS: &[Load] = &[
    paced("4 KiB write", 4096, "write"),
    paced("4 KiB seq", 4096, "seq"),
    paced("4 KiB rand", 4096, "rand"),
    paced("64 KiB write", 65536, "write"),
    paced("64 KiB seq", 65536, "seq"),
    paced("64 KiB rand", 65536, "rand"),
    paced("4 MiB write", 4 << 20, "write"),
    paced("4 MiB seq", 4 << 20, "seq"),
    paced("4 MiB rand", 4 << 20, "rand"),
    saturating("4 KiB write x128", "write"),
    saturating("4 KiB read x128", "read"),
    Load { bound: Some((2.0, 5.0)), ..fio("rbd 4K randwrite", 4096, "randwrite") },
    fio("rbd 4K randread", 4096, "randread"),
    fio("rbd 64K randwrite", 65536, "randwrite"),
    fio("rbd 64K randread", 65536, "randread"),
    fio("rbd 4M write", 4 << 20, "write"),
    fio("rbd 4M read", 4 << 20, "read"),
];

const fn paced(name: &'static str, size: u32, mode: &'static str) -> Load {
    Load { name, size, mode, client: Client::RadosBench, pool: POOL, bound: None }
}

const fn saturating(name: &'static str, mode: &'static str) -> Load {
    Load { name, size: 4096, mode, client: Client::Saturating, pool: POOL, bound: None }
}

const fn fio(name: &'static str, size: u32, mode: &'static str) -> Load {
    Load { name, size, mode, client: Client::Fio, pool: POOL, bound: None }
}

/// What runs besides the loads: operations on a whole image.
const WHOLE_IMAGES: &str = "rbd image";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds of each run.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Runs of each load per side; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only loads whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Measure only Spirula (for work on it; no ratios).
    #[arg(long)]
    no_ceph: bool,
    /// Measure this `spirula` instead of building one (for comparing two).
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Write the results as JSON here too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Directory for both clusters (default: a temporary one).
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Args {
    fn binary(&self) -> PathBuf {
        self.binary.clone().unwrap_or_else(|| run::binary("release", "spirula"))
    }

    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }
}

#[derive(Clone, Copy, Default)]
struct Sample {
    iops: f64,
    mb_s: f64,
    cpu_us: f64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    packages::ensure(packages::GATE)?;
    packages::ensure(packages::BENCH)?;
    if args.binary.is_none() {
        run::run("cargo", &["build", "--quiet", "--release", "--bin", "spirula"])?;
    }
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => std::env::temp_dir().join(format!("spirula-bench-{}", std::process::id())),
    };
    let result = measure(args, &dir);
    if args.dir.is_none() {
        let _ = std::fs::remove_dir_all(&dir);
    }
    let report = result?;
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    Ok(())
}

fn measure(args: &Args, dir: &Path) -> Result<Value> {
    let mut report = json!({});
    if LOADS.iter().any(|load| args.wants(load.name)) || args.wants(WHOLE_IMAGES) {
        report = measure_single(args, &dir.join("single"))?;
    }
    if replicated::is_wanted(args) {
        report["replicated"] = replicated::measure(args, &dir.join("replicated"))?;
    }
    Ok(report)
}

/// Spirula, and the real Ceph unless only Spirula is asked for.
fn start_sides(args: &Args, dir: &Path, shape: Shape) -> Result<Vec<Side>> {
    let mut sides = vec![Side::start_spirula(args.binary(), &dir.join("spirula"), shape)?];
    if !args.no_ceph {
        sides.push(Side::start_ceph(&dir.join("ceph"), shape)?);
    }
    Ok(sides)
}

fn print_header() {
    println!("{:<17} {:>9} {:>10} {:>9} {:>9}", "load", "side", "IOPS", "MB/s", "CPU us/op");
}

/// Everything with one OSD on each side.
fn measure_single(args: &Args, dir: &Path) -> Result<Value> {
    let sides = start_sides(args, dir, Shape::Single)?;
    let idle: Vec<f64> = sides.iter().map(idle_cpu_percent).collect::<Result<_>>()?;
    let rss_start: Vec<f64> = sides.iter().map(rss_mib).collect();
    let mut rows = Vec::new();
    print_header();
    for load in LOADS {
        if args.wants(load.name) {
            rows.push(compare(load, &sides, args)?);
        }
    }
    let images = if args.wants(WHOLE_IMAGES) { rbd::whole_images(&sides)? } else { json!([]) };
    for (i, side) in sides.iter().enumerate() {
        println!(
            "{:<9} start-up {:.2} s, resident {:.0} MiB idle, {:.0} MiB after load, idle CPU {:.2} %",
            side.name,
            side.start_up.as_secs_f64(),
            rss_start[i],
            rss_mib(side),
            idle[i],
        );
    }
    Ok(json!({
        "loads": rows,
        "images": images,
        "sides": sides.iter().enumerate().map(|(i, s)| json!({
            "name": s.name, "start_up_seconds": s.start_up.as_secs_f64(),
            "rss_idle_mib": rss_start[i], "rss_loaded_mib": rss_mib(s), "idle_cpu_percent": idle[i],
        })).collect::<Vec<_>>(),
    }))
}

/// Runs `load` on the sides alternately; prints and returns medians and ratios.
fn compare(load: &Load, sides: &[Side], args: &Args) -> Result<Value> {
    let mut samples = vec![Vec::new(); sides.len()];
    for _ in 0..args.rounds {
        for (side, samples) in sides.iter().zip(&mut samples) {
            samples.push(one_run(load, side, args)?);
        }
    }
    let medians: Vec<Sample> = samples.iter().map(|s| median(s)).collect();
    for (side, m) in sides.iter().zip(&medians) {
        println!(
            "{:<17} {:>9} {:>10.0} {:>9.1} {:>9.1}",
            load.name, side.name, m.iops, m.mb_s, m.cpu_us
        );
    }
    let mut row = json!({ "load": load.name });
    for (side, m) in sides.iter().zip(&medians) {
        row[side.name] = json!({ "iops": m.iops, "mb_s": m.mb_s, "cpu_us": m.cpu_us });
    }
    if let [ours, ceph] = medians.as_slice() {
        let (speed, cpu) = (ours.iops / ceph.iops, ceph.cpu_us / ours.cpu_us);
        println!("{:<17} {:>9} {speed:>9.2}x {speed:>8.2}x {cpu:>8.2}x", load.name, "ratio");
        row["iops_ratio"] = json!(speed);
        row["cpu_ratio"] = json!(cpu);
        if let Some((faster, cheaper)) = load.bound {
            let met = verdict(speed >= faster && cpu >= cheaper);
            println!(
                "{:<17} {:>9} {faster:>9.2}x {:>9} {cheaper:>8.2}x: {met}",
                load.name, "bound", ""
            );
        }
    }
    Ok(row)
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

fn one_run(load: &Load, side: &Side, args: &Args) -> Result<Sample> {
    match load.client {
        Client::RadosBench => one_bench(load, side, args.seconds),
        Client::Fio => rbd::one_fio(load, side, args.seconds),
        Client::Saturating => one_saturating(load, side, args),
    }
}

/// One `spirula load` run.
fn one_saturating(load: &Load, side: &Side, args: &Args) -> Result<Sample> {
    let before = cpu_seconds(side);
    let out = side
        .command(args.binary())
        .args(["load", load.mode, "--json", "--no-cleanup", "--connections", "4", "--depth", "32"])
        .args(["--size", &load.size.to_string(), "--seconds", &args.seconds.to_string()])
        .args(["--pool", load.pool])
        .output()?;
    if !out.status.success() {
        bail!("{}: spirula load: {}", side.name, String::from_utf8_lossy(&out.stderr));
    }
    wait_quiescent(side);
    let cpu = cpu_seconds(side) - before;
    let out: Value = serde_json::from_slice(&out.stdout).context("spirula load --json")?;
    let number = |key: &str| out[key].as_f64().with_context(|| format!("spirula load: no {key}"));
    let ops = number("requests")?;
    Ok(Sample {
        iops: number("iops")?,
        mb_s: number("mib_per_second")?,
        cpu_us: cpu * 1e6 / ops.max(1.0),
    })
}

/// One `rados bench` run; reads follow a write that leaves their objects.
fn one_bench(load: &Load, side: &Side, seconds: u32) -> Result<Sample> {
    let read = load.mode != "write";
    if read {
        rados_bench(side, load, "write", seconds)?;
        wait_quiescent(side);
    }
    let before = cpu_seconds(side);
    let out = rados_bench(side, load, load.mode, seconds)?;
    wait_quiescent(side);
    let cpu = cpu_seconds(side) - before;
    rados(side, &["-p", load.pool, "cleanup"])?;
    wait_quiescent(side);
    let total = field(&out, &["Total writes made:", "Total reads made:"])?;
    Ok(Sample {
        iops: field(&out, &["Average IOPS:"])?,
        mb_s: field(&out, &["Bandwidth (MB/sec):"])?,
        cpu_us: cpu * 1e6 / total.max(1.0),
    })
}

/// Writes leave their objects.
fn rados_bench(side: &Side, load: &Load, mode: &str, seconds: u32) -> Result<String> {
    let (seconds, size) = (seconds.to_string(), load.size.to_string());
    let mut args = vec!["-p", load.pool, "bench", &seconds, mode, "-t", "16"];
    if mode == "write" {
        args.extend(["-b", &size, "--no-cleanup"]);
    }
    rados(side, &args)
}

fn rados(side: &Side, args: &[&str]) -> Result<String> {
    side.tool("rados", args)
}

/// The number behind one of `names` in `rados bench` output.
fn field(out: &str, names: &[&str]) -> Result<f64> {
    out.lines()
        .find_map(|l| names.iter().find_map(|n| l.trim().strip_prefix(n)))
        .and_then(|v| v.trim().parse().ok())
        .with_context(|| format!("rados bench printed no {names:?}:\n{out}"))
}

fn median(samples: &[Sample]) -> Sample {
    let pick = |f: fn(&Sample) -> f64| {
        let mut v: Vec<f64> = samples.iter().map(f).collect();
        v.sort_by(f64::total_cmp);
        v[v.len() / 2]
    };
    Sample { iops: pick(|s| s.iops), mb_s: pick(|s| s.mb_s), cpu_us: pick(|s| s.cpu_us) }
}
