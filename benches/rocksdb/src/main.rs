//! `rocksdb-perf`: the work of `vos-perf` on RocksDB.
//!
//! Updates are grouped as the store's commits are, in the way that costs RocksDB least: one thread writes
//! batches of as many values as the depth says, each batch with one sync of the log. A phase that
//! writes ends when memtables are flushed and no compaction is due, and that CPU counts.
#![forbid(unsafe_code)]

mod engine;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use spirula_perf::{LoadArgs, print};

use crate::engine::Engine;

#[derive(Parser)]
#[command(about = "The work of vos-perf on RocksDB")]
struct Args {
    #[command(flatten)]
    load: LoadArgs,
    /// Phases, in order.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "fill,update,fetch")]
    phases: Vec<Phase>,
    /// Directory of the database; it is made, and removed at the end (default: a temporary one).
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Bound of the block cache.
    #[arg(long, default_value_t = 512 << 20)]
    cache_bytes: usize,
    /// Keep values of 1 KiB and more in blob files, apart from the keys.
    #[arg(long)]
    blob_files: bool,
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
    /// List all keys with their values.
    Iterate,
}

/// A directory that goes with the value.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        // Made here, so all in it is ours.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.load.check()?;
    let path = args.dir.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("rocksdb-perf-{}", std::process::id()))
    });
    if path.exists() {
        bail!("{}: exists; name a new directory", path.display());
    }
    std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    let dir = Dir(path);
    let mut engine = Engine::open(&dir.0, &args)?;
    for phase in &args.phases {
        print(&engine.run(*phase)?, args.load.json)?;
    }
    Ok(())
}

impl Phase {
    /// As on the command line.
    fn name(self) -> String {
        self.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default()
    }
}
