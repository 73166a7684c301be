//! `cargo xtask bench-vos`: the store alone beside a bare write loop and beside RocksDB, with the
//! ratios that the design asks for. `docs/performance.md` says what each row means.
//!
//! It runs the programs of `benches/`; what a scenario is and what it must reach is a table.

mod scenario;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use spirula_perf::Report;

use crate::{packages, run};
use scenario::{Bound, Rows, SCENARIOS, Scenario};

/// Length of a measured phase, unless `--long` or `--seconds` says otherwise.
const SECONDS: u64 = 10;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only scenarios whose name contains this; the big ones run only so, or with --long.
    #[arg(long)]
    only: Option<String>,
    /// Every scenario, each with all its operations however long they take.
    #[arg(long)]
    long: bool,
    /// Bound of each measured phase (default: 10, none with --long).
    #[arg(long)]
    seconds: Option<u64>,
    /// Operations of each measured phase instead of the scenario's own.
    #[arg(long)]
    ops: Option<u64>,
    /// Objects instead of the scenario's own: to try it out, the bounds mean nothing then.
    #[arg(long)]
    objects: Option<u64>,
    /// Do not compare with RocksDB.
    #[arg(long)]
    no_rocksdb: bool,
    /// Measure what `cargo build` makes without --release: to try it out.
    #[arg(long)]
    debug: bool,
    /// Write the results as JSON here too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Directory on the file system to measure on (default: the temporary directory).
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    /// O_DIRECT writes and shared flushes on our runtime.
    Bare,
    /// Our store.
    Vos,
    RocksDb,
    /// RocksDB with values in blob files.
    RocksDbBlob,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Bare => "bare",
            Side::Vos => "vos",
            Side::RocksDb => "rocksdb",
            Side::RocksDbBlob => "rocksdb-blob",
        }
    }

    fn is_rocksdb(self) -> bool {
        matches!(self, Side::RocksDb | Side::RocksDbBlob)
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let chosen: Vec<&Scenario> = SCENARIOS.iter().filter(|s| is_chosen(args, s)).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = SCENARIOS.iter().map(|s| s.name).collect();
        bail!("no such scenario; there are {}", names.join(", "));
    }
    let rocksdb = |s: &&Scenario| s.sides.iter().any(|side| side.is_rocksdb());
    build(args, !args.no_rocksdb && chosen.iter().any(rocksdb))?;
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = dir.join(format!("spirula-bench-vos-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    let result = chosen.iter().map(|s| measure(args, s, &dir)).collect::<Result<Vec<Value>>>();
    let _ = std::fs::remove_dir_all(&dir);
    let results = result?;
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&results)?)?;
    }
    Ok(())
}

fn is_chosen(args: &Args, scenario: &Scenario) -> bool {
    match &args.only {
        Some(only) => scenario.name.contains(only.as_str()),
        None => args.long || !scenario.big,
    }
}

fn build(args: &Args, with_rocksdb: bool) -> Result<()> {
    let mut cargo = vec!["build", "--quiet"];
    if !args.debug {
        cargo.push("--release");
    }
    run::run("cargo", &[&cargo[..], &["-p", "spirula-vos-perf"]].concat())?;
    if !with_rocksdb {
        return Ok(());
    }
    cargo_rocksdb(&cargo, &[])
}

/// A cargo command on the package that links RocksDB, which is outside the workspace; `last` are its
/// last arguments.
pub(crate) fn cargo_rocksdb(command: &[&str], last: &[&str]) -> Result<()> {
    packages::ensure(packages::ROCKSDB)?;
    run::status(
        Command::new("cargo")
            .args(command)
            .args(["--locked", "--manifest-path", "benches/rocksdb/Cargo.toml", "--target-dir"])
            .arg(run::target_dir())
            .args(last)
            // Debian's library and header: the crate would compile its own for many minutes.
            .env("ROCKSDB_LIB_DIR", format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH))
            .env("ROCKSDB_INCLUDE_DIR", "/usr/include")
            .current_dir(run::root()),
    )
}

/// Runs a scenario on each of its sides, prints its rows and what it reached.
fn measure(args: &Args, scenario: &Scenario, dir: &Path) -> Result<Value> {
    println!("\n{}: {}", scenario.name, scenario.about);
    println!(
        "  {:<13} {:<11} {:>9} {:>9} {:>9} {:>9} {:>10} {:>7} {:>8}",
        "side", "phase", "ops/s", "us CPU/op", "p50 us", "p99 us", "max us", "written", "peak MiB"
    );
    let mut rows = Rows::default();
    for side in scenario.sides.iter().filter(|s| !(args.no_rocksdb && s.is_rocksdb())) {
        for report in run_side(args, scenario, *side, dir)? {
            if scenario.shown.contains(&report.phase.as_str()) {
                print_row(*side, &report);
                rows.add(*side, report);
            }
        }
    }
    let checks: Vec<Value> = scenario.checks.iter().filter_map(|c| print_check(c, &rows)).collect();
    Ok(json!({ "scenario": scenario.name, "rows": rows.json()?, "checks": checks }))
}

fn run_side(args: &Args, scenario: &Scenario, side: Side, dir: &Path) -> Result<Vec<Report>> {
    let program = if side.is_rocksdb() { "rocksdb-perf" } else { "vos-perf" };
    let profile = if args.debug { "debug" } else { "release" };
    let mut command = Command::new(run::binary(profile, program));
    command.arg("--json").args(scenario.load).stderr(Stdio::inherit());
    let objects = args.objects.unwrap_or(scenario.objects);
    command.args(["--objects", &objects.to_string()]);
    command.args(["--ops", &args.ops.unwrap_or(scenario.ops).to_string()]);
    if let Some(seconds) = args.seconds.or((!args.long).then_some(SECONDS)) {
        command.args(["--seconds", &seconds.to_string()]);
    }
    let place = dir.join(side.name());
    match side {
        Side::Bare => command.args(["--phases", "bare", "--file"]).arg(place),
        Side::Vos => {
            command.args(scenario.vos).args(["--phases", scenario.phases, "--file"]).arg(place)
        }
        Side::RocksDb => command.args(["--phases", scenario.phases, "--dir"]).arg(place),
        Side::RocksDbBlob => {
            command.args(["--blob-files", "--phases", scenario.phases, "--dir"]).arg(place)
        }
    };
    let out = command.output().with_context(|| format!("could not start {program}"))?;
    if !out.status.success() {
        bail!("{}: {program} failed: {}", scenario.name, out.status);
    }
    let text = String::from_utf8(out.stdout).with_context(|| format!("output of {program}"))?;
    let parse = |line| serde_json::from_str(line).with_context(|| format!("output of {program}"));
    text.lines().map(parse).collect()
}

fn print_row(side: Side, report: &Report) {
    let written = report.write_amplification().map_or("-".into(), |a| format!("{a:.2}x"));
    println!(
        "  {:<13} {:<11} {:>9.0} {:>9.2} {:>9.0} {:>9.0} {:>10.0} {:>7} {:>8.0}  {}",
        side.name(),
        report.phase,
        report.ops_per_second(),
        report.cpu_us,
        report.p50_us,
        report.p99_us,
        report.max_us,
        written,
        report.rss_peak_mib,
        report.note,
    );
}

/// `None` when a side that it needs was not measured.
fn print_check(check: &scenario::Check, rows: &Rows) -> Option<Value> {
    let value = (check.measure)(rows)?;
    let (wanted, met) = match check.bound {
        Bound::AtMost(max) => (format!("at most {max}"), Some(value <= max)),
        Bound::AtLeast(min) => (format!("at least {min}"), Some(value >= min)),
        Bound::None => (String::new(), None),
    };
    let verdict = match met {
        Some(true) => "met",
        Some(false) => "NOT MET",
        None => "",
    };
    println!("  {:<52} {value:>10.2} {:<5} {wanted:<16} {verdict}", check.what, check.unit);
    Some(json!({ "what": check.what, "value": value, "unit": check.unit, "met": met }))
}
