//! Measures the store on a file: CPU per operation and operations per second, for writes and reads.
//!
//! `cargo run --release -p spirula-store --example store_bench -- [FILE] [OBJECTS] [DEPTH] [OPS]`
//! CPU is that of the whole process, the kernel's work for it included, with the last checkpoint.

use std::cell::Cell;
use std::error::Error;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use spirula_bio::Device;
use spirula_store::{Expect, FormatOptions, Options, Store};
use spirula_vos::{ContainerId, ObjectKey, StageError, Tx};
use spirula_xstream::{AlignedBuf, Class, Config, spawn};

const CID: ContainerId = ContainerId([1; 16]);

#[derive(Clone, Copy)]
struct Load {
    objects: u64,
    depth: u64,
    ops: u64,
    bytes: usize,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |i: usize, default: u64| args.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let path = args.first().cloned().unwrap_or_else(|| "/tmp/store_bench.dev".into());
    let load = Load {
        objects: number(1, 10_000),
        depth: number(2, 16),
        ops: number(3, 200_000),
        bytes: number(4, 4096) as usize,
    };
    let bench = async move { run(&path, load).await.map_err(|e| e.to_string()) };
    spirula_xstream::run(Config::new("bench"), bench)?.map_err(Into::into)
}

async fn run(path: &str, load: Load) -> Result<(), Box<dyn Error>> {
    let need = load.objects * (load.bytes as u64).next_multiple_of(4096) * 2 + (1 << 30);
    let device = Device::create(path, Some(need))?;
    let start = Instant::now();
    Store::format(&device, &FormatOptions::default()).await?;
    let options = Options { pool_bytes: 512 << 20, ..Options::default() };
    let store = Store::open(&device, Expect::default(), options).await?;
    println!("format and open: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let mut tx = Tx::new(1);
    tx.create_container(CID);
    store.submit(&tx)?.await?;
    measure(&store, "write (new and again)", load, Kind::Write).await?;
    measure(&store, "overwrite", load, Kind::Write).await?;
    measure(&store, "read", load, Kind::Read).await?;
    store.close().await?;
    drop(store);
    let start = Instant::now();
    let store = Store::open(&device, Expect::default(), options).await?;
    println!("reopen: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    store.close().await?;
    std::fs::remove_file(path)?;
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Write,
    Read,
}

async fn measure(store: &Store, name: &str, load: Load, kind: Kind) -> Result<(), Box<dyn Error>> {
    let (cpu, start, before) = (cpu_time()?, Instant::now(), store.counters());
    let left = Rc::new(Cell::new(load.ops));
    let mut data = AlignedBuf::zeroed(load.bytes);
    data.fill(0x5a);
    let data = data.freeze();
    let tasks: Vec<_> = (0..load.depth)
        .map(|i| {
            let (store, left, data) = (store.clone(), left.clone(), data.clone());
            spawn(Class::Client, async move {
                let mut seed = i * 7919 + 1;
                while left.get() > 0 {
                    left.set(left.get() - 1);
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let oid = ObjectKey(Bytes::from(format!(
                        "object-{:010}",
                        (seed >> 33) % load.objects
                    )));
                    let done = match kind {
                        Kind::Write => write(&store, &oid, &data, left.get()).await,
                        Kind::Read => read(&store, &oid).await,
                    };
                    done.map_err(|e| e.to_string())?;
                }
                Ok::<(), String>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(|e| e.to_string())??;
    }
    let elapsed = start.elapsed();
    if kind == Kind::Write {
        store.checkpoint().await?;
    }
    let per_op = (cpu_time()? - cpu).as_secs_f64() * 1e6 / load.ops as f64;
    let after = store.counters();
    let batches = (after.batches - before.batches).max(1);
    println!(
        "{name}: {:.2} us CPU/op, {:.0} ops/s, {:.1} commits/batch, {} checkpoints, {} pages, WAL {} B/op",
        per_op,
        load.ops as f64 / elapsed.as_secs_f64(),
        (after.commits - before.commits) as f64 / batches as f64,
        after.checkpoints - before.checkpoints,
        after.pages_written - before.pages_written,
        (after.wal_bytes - before.wal_bytes) / load.ops,
    );
    Ok(())
}

/// What an OSD does for one write: data, an attribute, a log entry.
async fn write(store: &Store, oid: &ObjectKey, data: &Bytes, n: u64) -> Result<(), Box<dyn Error>> {
    store.admit().await;
    let mut tx = Tx::new(n);
    tx.write(CID, oid, b"d", b"", 0, data.clone(), None);
    tx.update(CID, oid, b"a", b"_", data.slice(..data.len().min(200)));
    let commit = loop {
        match store.submit(&tx) {
            Ok(commit) => break commit,
            Err(StageError::Missing(pages)) => store.load(pages).await?,
            Err(e) => return Err(e.into()),
        }
    };
    Ok(commit.await?)
}

async fn read(store: &Store, oid: &ObjectKey) -> Result<(), Box<dyn Error>> {
    let extents = store.read(|vos| vos.extents(CID, oid, b"d", b"", 0, u64::MAX)).await?;
    store.read_data(&extents).await?;
    Ok(())
}

/// User and system time of this process.
fn cpu_time() -> Result<Duration, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/schedstat")?;
    let mut total: u64 = stat.split_whitespace().next().unwrap_or("0").parse()?;
    // Threads beside the main one (the kernel's workers for this process among them).
    total = std::fs::read_dir("/proc/self/task")?
        .filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("schedstat")).ok())
        .filter_map(|s| s.split_whitespace().next()?.parse::<u64>().ok())
        .sum::<u64>()
        .max(total);
    Ok(Duration::from_nanos(total))
}
