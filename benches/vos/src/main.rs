//! `vos-perf`: measures one store on one xstream, phase by phase, as DAOS's `vos_perf` does.
//!
//! `cargo xtask bench-vos` runs it with the loads that the design names; by hand it runs any other.
#![forbid(unsafe_code)]

mod bare;
mod drive;
mod phases;
mod session;
mod target;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use spirula_perf::LoadArgs;
use spirula_xstream::Config;

/// What the binary of the cluster uses, so that CPU compares.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser, Clone)]
#[command(about = "Measures one store on one xstream, phase by phase")]
struct Args {
    #[command(flatten)]
    load: LoadArgs,
    /// Phases, in order.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "fill,update,fetch")]
    phases: Vec<Phase>,
    /// Single values instead of arrays of bytes.
    #[arg(long)]
    single: bool,
    /// File or block device for the store (default: a new file, removed at the end).
    #[arg(long)]
    file: Option<PathBuf>,
    /// Use a file that exists, or a block device; what is on it is lost.
    #[arg(long)]
    overwrite: bool,
    /// Bytes of the file (default: twice what the values need, and a GiB).
    #[arg(long)]
    device_bytes: Option<u64>,
    /// Bound of the buffer pool.
    #[arg(long, default_value_t = 512 << 20)]
    pool_bytes: usize,
    /// Arrays shorter than this lie in the metadata (default: the store's own choice).
    #[arg(long)]
    inline_threshold: Option<u32>,
    /// Length of each read of `device-read`.
    #[arg(long, default_value_t = 8192)]
    read_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Phase {
    /// Write every key once, in order.
    Fill,
    /// Write keys by chance.
    Update,
    /// Read every key 64 times, by chance: caches have then what they will have.
    Warm,
    /// Read keys by chance.
    Fetch,
    /// Remove keys, in order.
    Punch,
    /// List all objects with their akeys.
    Iterate,
    /// Merge versions that nobody can see any more.
    Aggregate,
    /// Close and open again.
    Reopen,
    /// As update, and then open again without having closed or made a checkpoint.
    Crash,
    /// Random reads of the device itself, where the store has written.
    DeviceRead,
    /// Only by itself: random O_DIRECT writes and shared fdatasync, without a store.
    Bare,
}

impl Phase {
    /// As on the command line.
    fn name(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    check(&args)?;
    let target = target::Target::new(&args)?;
    if args.phases == [Phase::Bare] {
        return spirula_xstream::run(
            Config::new("bench").pin_nth(0),
            bare::run(args, target.path()),
        )?;
    }
    session::run(args, &target)
}

fn check(args: &Args) -> Result<()> {
    args.load.check()?;
    if args.phases.contains(&Phase::Aggregate) {
        bail!("aggregate: the store keeps no versions yet, there is nothing to merge");
    }
    if args.phases.contains(&Phase::Bare) && args.phases.len() > 1 {
        bail!("bare runs without a store: give it alone");
    }
    if args.read_bytes == 0 || !args.read_bytes.is_multiple_of(4096) {
        bail!("--read-bytes must be a multiple of 4096");
    }
    Ok(())
}
