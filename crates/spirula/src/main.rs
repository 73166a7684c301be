//! `spirula`: one binary; roles and tools are subcommands.
//!
//! Invariant: only this crate parses command lines, wires daemons together and prints to the user.
#![forbid(unsafe_code)]

mod admin_socket;
mod cli;
mod cluster_dir;
mod daemons;
mod logging;
mod mkfs;
mod print;
mod procs;
mod vos;
mod vstart;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Under load the C library's allocator was 8 % of a target's time, this one is 3 %.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(version, about = "Spirula: a distributed object store for Ceph clients")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a whole cluster on this host for development and tests.
    Vstart(vstart::Args),
    /// Run the monitor of a cluster directory (what `vstart --procs` starts).
    Mon(MonArgs),
    /// Run the manager of a cluster directory.
    Mgr(DaemonArgs),
    /// Run one OSD of a cluster directory.
    Engine {
        #[command(flatten)]
        daemon: DaemonArgs,
        /// Which OSD.
        #[arg(long)]
        osd: u32,
    },
    /// Objects, as Ceph's `rados` does it.
    #[command(args_override_self = true)]
    Rados(cli::RadosArgs),
    /// Commands to the cluster, as Ceph's `ceph` takes them.
    Ceph(cli::CephArgs),
    /// Send as many requests as the cluster takes, and measure.
    #[command(args_override_self = true)]
    Load(cli::LoadArgs),
    /// Check or print the store of a stopped OSD.
    Vos(vos::Args),
}

#[derive(clap::Args)]
struct MonArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Which monitor.
    #[arg(long, default_value = "a")]
    id: String,
    /// Make a new store and join the monitors of this map (`ceph mon getmap -o FILE`), which names
    /// this monitor too (`ceph mon add`).
    #[arg(long, value_name = "FILE", requires = "keyring")]
    monmap: Option<PathBuf>,
    /// Holds the key of `mon.` for that (`ceph auth get mon. -o FILE`).
    #[arg(long, value_name = "FILE", requires = "monmap")]
    keyring: Option<PathBuf>,
}

#[derive(clap::Args)]
struct DaemonArgs {
    /// Cluster directory that `spirula vstart` made.
    #[arg(long)]
    dir: PathBuf,
    /// End when this process, which is the parent, ends.
    #[arg(long, hide = true, value_name = "PID")]
    parent: Option<u32>,
}

fn main() -> ExitCode {
    let ceph_args = std::env::var("CEPH_ARGS").unwrap_or_default();
    let args = cli::with_ceph_args(std::env::args_os().collect(), &ceph_args);
    let result = match Cli::parse_from(args).command {
        Command::Rados(args) => cli::rados(args),
        Command::Ceph(args) => cli::ceph(args),
        Command::Load(args) => cli::load(args),
        Command::Vos(args) => vos::run(args),
        Command::Vstart(args) => vstart::run(args),
        Command::Mon(args) => procs::mon(&args),
        Command::Mgr(args) => procs::daemon(&args, procs::Role::Mgr),
        Command::Engine { daemon, osd } => procs::daemon(&daemon, procs::Role::Osd(osd)),
    };
    match result {
        Ok(code) => code,
        Err(error) => print::failure(&error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the command line says wins over `CEPH_ARGS`, and options of both are taken.
    #[test]
    fn options_may_be_given_again() {
        let args = ["spirula", "rados", "--id", "a", "-p", "x", "ls", "-p", "y"];
        let args = cli::with_ceph_args(args.map(Into::into).into(), "--id b -p z --debug_ms 1");
        let cli = Cli::try_parse_from(args).unwrap();
        let Command::Rados(args) = cli.command else { panic!() };
        let (overrides, pool) = args.asked_for();
        assert_eq!(overrides.name, Some("client.a".parse().unwrap()));
        assert_eq!(overrides.options, [("debug_ms".to_owned(), "1".to_owned())]);
        assert_eq!(pool, Some("y"));
        let args = ["spirula", "rados", "--id", "a", "ls"];
        let args =
            cli::with_ceph_args(args.map(Into::into).into(), "-n client.b --set x=1 --set y=2");
        let Command::Rados(args) = Cli::try_parse_from(args).unwrap().command else { panic!() };
        let (overrides, _) = args.asked_for();
        assert_eq!(overrides.name, Some("client.a".parse().unwrap()));
        assert_eq!(overrides.options.len(), 2);
    }
}
