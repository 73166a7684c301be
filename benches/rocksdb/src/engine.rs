//! RocksDB, and what one operation of each phase does.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, IteratorMode, Options, WriteBatch,
    WriteOptions,
};
use spirula_perf::{Keys, Latencies, LoadArgs, Meter, Progress, Report};

use crate::{Args, Phase};

/// As `vos-perf` fills.
const FILL_DEPTH: u64 = 64;
const BLOB_BYTES_MIN: u64 = 1024;
/// What is not zero while memtables are written or tables merged.
const BUSY: &[&str] = &[
    "rocksdb.mem-table-flush-pending",
    "rocksdb.num-running-flushes",
    "rocksdb.compaction-pending",
    "rocksdb.num-running-compactions",
];

pub(crate) struct Engine {
    db: DB,
    load: LoadArgs,
    keys: Keys,
    payload: Vec<u8>,
    synced: WriteOptions,
}

/// What is done with a key.
#[derive(Clone, Copy, PartialEq)]
enum Change {
    Put,
    Delete,
}

/// Reads of each key on average by `warm`.
const WARM_ROUNDS: u64 = 64;

impl Engine {
    pub(crate) fn open(dir: &Path, args: &Args) -> Result<Engine> {
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let load = args.load.clone();
        Ok(Engine {
            db: DB::open(&options(args)?, dir)?,
            keys: load.chooser(1),
            payload: load.payload(),
            load,
            synced,
        })
    }

    pub(crate) fn run(&mut self, phase: Phase) -> Result<Report> {
        let mut meter = Meter::start();
        let mut latencies = Latencies::new();
        let load = self.load.clone();
        let mut random = Progress::new(load.ops, load.time());
        let (ops, written) = match phase {
            Phase::Fill => {
                let progress = Progress::new(load.keys(), None);
                self.change(progress, load.depth.max(FILL_DEPTH), phase, &mut latencies)?
            }
            Phase::Update => self.change(random, load.depth, phase, &mut latencies)?,
            Phase::Punch => {
                let progress = Progress::new(load.keys(), load.time());
                self.change(progress, load.depth, phase, &mut latencies)?
            }
            Phase::Warm => {
                let mut progress = Progress::new(WARM_ROUNDS * load.keys(), None);
                (self.fetch(&mut progress, &mut latencies)?, 0)
            }
            Phase::Fetch => (self.fetch(&mut random, &mut latencies)?, 0),
            Phase::Iterate => (self.iterate(&mut latencies)?, 0),
        };
        meter.operations_done();
        if matches!(phase, Phase::Fill | Phase::Update | Phase::Punch) {
            self.drain()?;
        }
        Ok(meter.finish(&phase.name(), ops, &latencies, written))
    }

    /// Changes keys in batches of `depth`; gives the operations, and the bytes of values written.
    fn change(
        &mut self,
        mut progress: Progress,
        depth: u64,
        phase: Phase,
        latencies: &mut Latencies,
    ) -> Result<(u64, u64)> {
        let change = if phase == Phase::Punch { Change::Delete } else { Change::Put };
        loop {
            let begin = Instant::now();
            let mut batch = WriteBatch::default();
            while (batch.len() as u64) < depth {
                let Some(number) = progress.take() else {
                    break;
                };
                let index = if phase == Phase::Update { self.keys.next_key() } else { number };
                match change {
                    Change::Put => batch.put(self.key(index), &self.payload),
                    Change::Delete => batch.delete(self.key(index)),
                }
            }
            let len = batch.len();
            if len == 0 {
                break;
            }
            self.db.write_opt(batch, &self.synced)?;
            let took = begin.elapsed();
            (0..len).for_each(|_| latencies.add(took));
        }
        let ops = progress.taken();
        Ok((ops, if change == Change::Put { ops * self.load.size as u64 } else { 0 }))
    }

    fn fetch(&mut self, progress: &mut Progress, latencies: &mut Latencies) -> Result<u64> {
        while progress.take().is_some() {
            let begin = Instant::now();
            let key = self.keys.next_key();
            let len = self.db.get_pinned(self.key(key))?.map_or(0, |v| v.len());
            let size = self.load.size;
            ensure!(len == size, "key {key} has {len} bytes instead of {size}: fill first");
            latencies.add(begin.elapsed());
        }
        Ok(progress.taken())
    }

    fn iterate(&self, latencies: &mut Latencies) -> Result<u64> {
        let mut listed = 0;
        let mut entries = self.db.iterator(IteratorMode::Start);
        loop {
            let begin = Instant::now();
            let Some(entry) = entries.next() else {
                break;
            };
            entry?;
            listed += 1;
            latencies.add(begin.elapsed());
        }
        let keys = self.load.keys();
        ensure!(listed == keys, "{listed} keys instead of {keys}: fill first");
        Ok(listed)
    }

    fn key(&self, index: u64) -> Vec<u8> {
        let name = self.load.name(index);
        [name.object.as_bytes(), b"\0", name.dkey.as_bytes(), b"\0", name.akey.as_bytes()].concat()
    }

    /// Waits until the database is as a store after its checkpoint: nothing is left to be written.
    fn drain(&self) -> Result<()> {
        self.db.flush()?;
        // Work that was finished may make more work due.
        let mut quiet = 0;
        while quiet < 5 {
            sleep(Duration::from_millis(10));
            quiet = if self.is_busy()? { 0 } else { quiet + 1 };
        }
        Ok(())
    }

    fn is_busy(&self) -> Result<bool> {
        for name in BUSY {
            if self.db.property_int_value(*name)?.unwrap_or(0) > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// As BlueStore of Ceph 16.2 sets them, with a bloom filter, and if asked for with blob files.
fn options(args: &Args) -> Result<Options> {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(args.cache_bytes)?);
    table.set_bloom_filter(10.0, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    // The values do not compress.
    options.set_compression_type(DBCompressionType::None);
    options.set_max_write_buffer_number(4);
    options.set_min_write_buffer_number_to_merge(1);
    options.set_recycle_log_file_num(4);
    options.set_write_buffer_size(256 << 20);
    options.set_compaction_readahead_size(2 << 20);
    options.set_max_background_jobs(2);
    options.set_max_total_wal_size(1 << 30);
    options.set_enable_blob_files(args.blob_files);
    options.set_min_blob_size(BLOB_BYTES_MIN);
    options.set_enable_blob_gc(args.blob_files);
    Ok(options)
}
