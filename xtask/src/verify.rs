//! `cargo xtask verify`: the only gate. Suites run in order and stop at the first failure; the
//! minutes of each are printed beside its budget.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::{bench_vos, clients, packages, run, sim, tidy};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Suite {
    /// rustfmt, tidy, clippy with warnings denied, and the release build.
    Build,
    /// Unit, property and tool-comparison tests of every crate.
    Unit,
    /// Simulated power loss, simulated clusters, the `kill -9` ledger and a short stress against a model.
    Crash,
    /// A short run of every fuzz target over its kept corpus.
    Fuzz,
    /// Real Ceph clients against a cluster.
    Clients,
}

struct Row {
    suite: Suite,
    budget_minutes: u64,
    run: fn() -> Result<()>,
}

const SUITES: &[Row] = &[
    Row { suite: Suite::Build, budget_minutes: 15, run: build },
    Row { suite: Suite::Unit, budget_minutes: 5, run: unit },
    Row { suite: Suite::Crash, budget_minutes: 6, run: crash },
    Row { suite: Suite::Fuzz, budget_minutes: 3, run: fuzz },
    Row { suite: Suite::Clients, budget_minutes: 15, run: all_clients },
];

/// About a minute on two cores.
const SIM_SEEDS: u64 = 60;
const SIM_SEEDS_OF_COPIES: u64 = 40;

pub(crate) fn run(only: &[Suite]) -> Result<()> {
    packages::ensure(packages::GATE)?;
    let mut times = Vec::new();
    for row in SUITES.iter().filter(|r| only.is_empty() || only.contains(&r.suite)) {
        let start = Instant::now();
        let result = (row.run)().with_context(|| format!("suite {:?} failed", row.suite));
        times.push((row, start.elapsed()));
        if result.is_err() {
            report(&times);
            return result;
        }
    }
    report(&times);
    Ok(())
}

fn report(times: &[(&Row, Duration)]) {
    println!("\n{:<10} {:>8} {:>8}", "suite", "minutes", "budget");
    for (row, took) in times {
        let minutes = took.as_secs_f64() / 60.0;
        println!("{:<10} {minutes:>8.1} {:>8}", format!("{:?}", row.suite), row.budget_minutes);
    }
}

fn build() -> Result<()> {
    run::run("cargo", &["fmt", "--all", "--check"])?;
    tidy::run()?;
    run::run(
        "cargo",
        &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"],
    )?;
    // It is in no workspace, so that nothing else would notice when it no longer fits its crates.
    bench_vos::cargo_rocksdb(&["clippy", "--quiet", "--all-targets"], &["--", "-D", "warnings"])?;
    run::run("cargo", &["build", "--quiet", "--release", "--bin", "spirula"])
}

/// The crash suite runs the power-loss test with all its seeds; here a few show that it works.
fn unit() -> Result<()> {
    run::status(
        Command::new("cargo")
            .args(["test", "--quiet", "--workspace"])
            .env("SPIRULA_SEEDS", "20")
            // A commit passes or does not, whoever looks; `PROPTEST_CASES` and another seed search further.
            .env("PROPTEST_RNG_SEED", "20261122")
            .current_dir(run::root()),
    )
}

/// 500 seeds of power loss through the store, some of whole simulated clusters, then 50 rounds of
/// `kill -9` under load, then random operations against a model with two such kills.
fn crash() -> Result<()> {
    run::run("cargo", &["test", "--quiet", "-p", "spirula-store", "--test", "sim"])?;
    sim::run(&sim::Args { seeds: SIM_SEEDS, ..sim::Args::default() })?;
    let copies = sim::Args { size: 3, osds: 5, ..sim::Args::default() };
    sim::run(&sim::Args { seeds: SIM_SEEDS_OF_COPIES, ..copies })?;
    clients::ledger(50)?;
    clients::stress(&["--seconds", "40", "--restarts", "2"].map(String::from))
}

fn fuzz() -> Result<()> {
    run::run(
        "cargo",
        &["run", "--quiet", "--release", "-p", "spirula-fuzz", "--", "--seconds", "2"],
    )
}

fn all_clients() -> Result<()> {
    clients::run(None, None)
}
