//! `cargo xtask`: the gate (`verify`) and the chores around it.
//!
//! Invariant: everything a contributor or the CI runs is a subcommand here; no other script decides
//! whether the tree is good.
#![forbid(unsafe_code)]

mod bench;
mod bench_vos;
mod clients;
mod packages;
mod real_ceph;
mod run;
mod sim;
mod tidy;
mod trace;
mod verify;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Chores of the Spirula workspace")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole gate, or only the named suites, and print the minutes of each.
    Verify {
        /// Suites to run (default: all).
        #[arg(value_enum)]
        suites: Vec<verify::Suite>,
    },
    /// Check the rules of the tree that neither rustfmt nor clippy knows.
    Tidy,
    /// Install the Debian packages that the gate needs.
    Setup,
    /// Measure Spirula against a real Ceph with the same loads in the same run.
    BenchVsCeph(bench::Args),
    /// Measure the store alone against a bare write loop and RocksDB.
    BenchVos(bench_vos::Args),
    /// Compare what clients send and get on a real Ceph and on Spirula.
    TraceVsCeph,
    /// Random operations with snapshots against a model: `--ops 300000 --restarts 10`, as
    /// tests/stress/stress.py takes them.
    Stress {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Kill, stop and restart daemons of a replicated cluster under load: `--minutes 10 --seed 1`, as
    /// tests/torture/torture.py takes them.
    Torture {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Play seeds of the simulated cluster; a ledger remembers what was played.
    Sim(sim::Args),
    /// Run the scripts of tests/clients with real Ceph clients.
    Clients {
        /// Only scripts whose name contains this.
        filter: Option<String>,
        /// Copies of each object in new pools (default: as in the gate).
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=3))]
        size: Option<u32>,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Verify { suites } => verify::run(&suites),
        Command::Tidy => tidy::run(),
        Command::Setup => packages::ensure(packages::GATE),
        Command::BenchVsCeph(args) => bench::run(&args),
        Command::BenchVos(args) => bench_vos::run(&args),
        Command::Stress { args } => clients::stress(&args),
        Command::Torture { args } => clients::torture(&args),
        Command::TraceVsCeph => trace::run(),
        Command::Sim(args) => sim::run(&args),
        Command::Clients { filter, size } => clients::run(filter.as_deref(), size),
    }
}
