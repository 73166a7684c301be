//! `spirula rados bench`: writes objects, or reads back what an earlier run wrote.
//!
//! Invariant: names, contents and the record of the last run are those of Ceph's `rados bench`, so
//! that either tool reads, and cleans up, what the other wrote.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, anyhow, bail};
use bytes::Bytes;
use spirula_client::{Error, IoCtx, UTime, WriteOp, conf};
use tokio::task::LocalSet;

use super::report::{self, general};
use crate::print::{self, Unprinted, complain, output};

/// Where a run leaves its record unless told otherwise.
const RECORD: &str = "benchmark_last_metadata";
const PREFIX: &str = "benchmark_data";
/// Lines between two headings.
const HEADING_EVERY: u64 = 20;
const MIB: f64 = 1024.0 * 1024.0;

#[derive(clap::Args, Debug)]
pub(crate) struct BenchArgs {
    /// How long to go on.
    seconds: u64,
    mode: Mode,
    /// Bytes of each object, with an optional suffix K, M or G.
    #[arg(short = 'b', long = "block-size", default_value = "4M", value_parser = parse_size)]
    block_size: u64,
    /// Requests at the same time.
    #[arg(short = 't', long = "concurrent-ios", default_value_t = 16)]
    threads: usize,
    /// With write: leave the objects, to read them later.
    #[arg(long)]
    no_cleanup: bool,
    /// With seq and rand: do not compare what is read.
    #[arg(long)]
    no_verify: bool,
    /// Name of this run's record.
    #[arg(long, value_name = "NAME")]
    run_name: Option<String>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct CleanupArgs {
    /// Remove all objects whose names begin so.
    #[arg(long)]
    prefix: Option<String>,
    /// Which run.
    #[arg(long, value_name = "NAME")]
    run_name: Option<String>,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Write,
    /// Read in the order of writing, each object once.
    Seq,
    Rand,
}

pub(crate) async fn run(io: &IoCtx, args: &BenchArgs) -> Result<()> {
    if args.threads == 0 || args.block_size == 0 {
        bail!("-t and -b must be at least 1");
    }
    let record_name = args.run_name.as_deref().unwrap_or(RECORD);
    let (record, prefix) = match args.mode {
        Mode::Write => {
            let pid = std::process::id() as i32;
            let record = Record { object_size: args.block_size, objects: 0, pid };
            (record, prefix_of(pid))
        }
        _ => {
            let found = io.read(record_name, 0, 0).await;
            let bytes = found
                .map_err(|e| anyhow!("Must write data before running a read benchmark! ({e})"))?;
            let record = Record::decode(&bytes)?;
            (record, prefix_of(record.pid))
        }
    };
    // All writes carry allocation hints.
    output!("hints = 1")?;
    if args.mode == Mode::Write {
        output!(
            "Maintaining {} concurrent writes of {1} bytes to objects of size {1} for up to {2} \
             seconds or 0 objects",
            args.threads,
            args.block_size,
            args.seconds
        )?;
        output!("Object prefix: {prefix}")?;
    }
    let job = Job {
        io: io.clone(),
        mode: args.mode,
        verify: !args.no_verify,
        until: Instant::now() + Duration::from_secs(args.seconds),
        record,
        prefix,
    };
    let stats = saturate(job, args.threads).await?;
    print::text(format_args!("{}", summary(args.mode, record.object_size, &stats)))?;
    if args.mode != Mode::Write {
        return Ok(());
    }
    let record = Record { objects: stats.finished, ..record };
    io.write_full(record_name, record.encode()).await?;
    if !args.no_cleanup {
        output!("Cleaning up (deleting benchmark objects)")?;
        let begin = Instant::now();
        clean_run(io, record_name, args.threads).await?;
        let seconds = general(begin.elapsed().as_secs_f64());
        output!("Clean up completed and total clean up time :{seconds}")?;
    }
    Ok(())
}

pub(crate) async fn cleanup(io: &IoCtx, args: &CleanupArgs) -> Result<()> {
    let Some(prefix) = &args.prefix else {
        let record = args.run_name.as_deref().unwrap_or(RECORD);
        return clean_run(io, record, 16).await;
    };
    let mut names = Vec::new();
    let mut list = io.list();
    while let Some(object) = list.next().await? {
        match std::str::from_utf8(&object.oid) {
            Ok(name) if name.starts_with(prefix) => names.push(name.to_owned()),
            _ => {}
        }
    }
    output!("Removed {} objects", remove_all(io, names, 16).await?)?;
    Ok(())
}

async fn clean_run(io: &IoCtx, record_name: &str, threads: usize) -> Result<()> {
    let bytes = match io.read(record_name, 0, 0).await {
        Ok(bytes) => bytes,
        Err(e) => bail!("no record of an earlier run in {record_name}: {e}"),
    };
    let record = Record::decode(&bytes)?;
    let prefix = prefix_of(record.pid);
    let names = (0..record.objects).map(|i| format!("{prefix}_object{i}"));
    let removed = remove_all(io, names.collect(), threads).await?;
    io.remove(record_name).await?;
    output!("Removed {removed} objects")?;
    Ok(())
}

/// Absent ones are not counted.
async fn remove_all(io: &IoCtx, names: Vec<String>, threads: usize) -> Result<u64> {
    let queue = Rc::new(RefCell::new(names.into_iter()));
    let workers = (0..threads).map(|_| {
        let (io, queue) = (io.clone(), Rc::clone(&queue));
        async move {
            let mut removed = 0;
            loop {
                let Some(name) = queue.borrow_mut().next() else {
                    return Ok::<u64, Error>(removed);
                };
                match io.remove(&name).await {
                    Ok(()) => removed += 1,
                    Err(Error::Server(spirula_client::Errno::ENOENT)) => {}
                    Err(e) => return Err(e),
                }
            }
        }
    });
    Ok(run_all(workers).await?.into_iter().sum())
}

async fn run_all<T: 'static, F>(workers: impl Iterator<Item = F>) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<T, Error>> + 'static,
{
    let local = LocalSet::new();
    let handles: Vec<_> = workers.map(|w| local.spawn_local(w)).collect();
    local
        .run_until(async {
            let mut results = Vec::new();
            for handle in handles {
                results.push(handle.await.map_err(|_| Error::Closed)??);
            }
            Ok(results)
        })
        .await
}

/// What a run leaves for later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    object_size: u64,
    objects: u64,
    pid: i32,
}

impl Record {
    fn encode(self) -> Bytes {
        let mut out = Vec::new();
        out.extend_from_slice(&self.object_size.to_le_bytes());
        out.extend_from_slice(&(self.objects as i32).to_le_bytes());
        out.extend_from_slice(&self.pid.to_le_bytes());
        out.extend_from_slice(&self.object_size.to_le_bytes());
        out.into()
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let word = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
        let parse = || {
            let (low, high) = (u32::from_le_bytes(word(0)?), u32::from_le_bytes(word(4)?));
            Some(Self {
                object_size: u64::from(high) << 32 | u64::from(low),
                objects: i32::from_le_bytes(word(8)?).try_into().ok()?,
                pid: i32::from_le_bytes(word(12)?),
            })
        };
        parse().ok_or_else(|| anyhow!("the record of the last run cannot be read"))
    }
}

fn prefix_of(pid: i32) -> String {
    format!("{PREFIX}_{}_{pid}", conf::hostname())
}

/// What the object of this number holds.
fn contents(number: u64, size: u64) -> Bytes {
    let mut data = vec![b'z'; size as usize];
    let text = format!("I'm the {number:>16}th op!\0");
    let len = text.len().min(data.len());
    data[..len].copy_from_slice(&text.as_bytes()[..len]);
    data.into()
}

struct Job {
    io: IoCtx,
    mode: Mode,
    verify: bool,
    until: Instant,
    record: Record,
    prefix: String,
}

#[derive(Default)]
struct Stats {
    started: u64,
    finished: u64,
    latencies: Latencies,
    /// MiB/s and requests of each second.
    seconds: Vec<(f64, u64)>,
    elapsed: Duration,
}

impl Stats {
    /// 0 while nothing is finished.
    fn mean_latency(&self) -> f64 {
        self.latencies.sum / self.finished.max(1) as f64
    }
}

#[derive(Default)]
struct Latencies {
    last: f64,
    sum: f64,
    squares: f64,
    min: f64,
    max: f64,
}

impl Latencies {
    fn add(&mut self, seconds: f64, count_before: u64) {
        self.last = seconds;
        self.sum += seconds;
        self.squares += seconds * seconds;
        self.max = self.max.max(seconds);
        self.min = match count_before {
            0 => seconds,
            _ => self.min.min(seconds),
        };
    }
}

/// Keeps `threads` requests in flight until the time or the objects are over, with a line of
/// progress each second.
async fn saturate(job: Job, threads: usize) -> Result<Stats> {
    let begin = Instant::now();
    let object_size = job.record.object_size;
    let stats = Rc::new(RefCell::new(Stats::default()));
    let job = Rc::new(job);
    let workers = (0..threads).map(|_| worker(Rc::clone(&job), Rc::clone(&stats)));
    let progress = show_progress(Rc::clone(&stats), begin, object_size);
    tokio::select! {
        result = run_all(workers) => drop(result?),
        unprinted = progress => unprinted?,
    }
    let mut stats = std::mem::take(&mut *stats.borrow_mut());
    stats.elapsed = begin.elapsed();
    Ok(stats)
}

async fn worker(job: Rc<Job>, stats: Rc<RefCell<Stats>>) -> Result<(), Error> {
    let mut random = Xorshift(0x9e37_79b9_7f4a_7c15 ^ stats.borrow().started);
    loop {
        let number = {
            let mut stats = stats.borrow_mut();
            let number = stats.started;
            let over = job.mode == Mode::Seq && number >= job.record.objects;
            if over || job.record.objects == 0 && job.mode != Mode::Write {
                return Ok(());
            }
            if Instant::now() >= job.until {
                return Ok(());
            }
            stats.started += 1;
            number
        };
        let number = match job.mode {
            Mode::Rand => random.next() % job.record.objects,
            _ => number,
        };
        let begin = Instant::now();
        one_request(&job, number).await?;
        let mut stats = stats.borrow_mut();
        let count = stats.finished;
        stats.latencies.add(begin.elapsed().as_secs_f64(), count);
        stats.finished += 1;
    }
}

async fn one_request(job: &Job, number: u64) -> Result<(), Error> {
    let size = job.record.object_size;
    let object = format!("{}_object{number}", job.prefix);
    if job.mode == Mode::Write {
        let data = contents(number, size);
        let op = WriteOp::new().alloc_hint(size, size).write(0, data);
        return job.io.operate(&object, op).await.map(|_| ());
    }
    let data = job.io.read(&object, 0, size).await?;
    if job.verify && data != contents(number, size) {
        complain!("{object} is not what was written");
        return Err(Error::Server(spirula_client::Errno::EIO));
    }
    Ok(())
}

/// Ends only if nobody takes what it prints.
async fn show_progress(
    stats: Rc<RefCell<Stats>>,
    begin: Instant,
    object_size: u64,
) -> Result<(), Unprinted> {
    let mut before = 0;
    for second in 0.. {
        tokio::time::sleep_until((begin + Duration::from_secs(second)).into()).await;
        let mut stats = stats.borrow_mut();
        if second % HEADING_EVERY == 0 {
            output!("{}", heading(second, &stats))?;
        }
        let done = stats.finished - before;
        before = stats.finished;
        output!("{}", row(second, &stats, done, object_size, begin.elapsed()))?;
        if second > 0 {
            stats.seconds.push((mib(done, object_size), done));
        }
    }
    Ok(())
}

fn wall_now() -> UTime {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().into()
}

fn mib(requests: u64, object_size: u64) -> f64 {
    requests as f64 * object_size as f64 / MIB
}

/// The names of the columns; not the first time, the latencies so far come before.
fn heading(second: u64, stats: &Stats) -> String {
    let names = "  sec Cur ops   started  finished  avg MB/s  cur MB/s last lat(s)  avg lat(s)";
    if second == 0 {
        return names.to_owned();
    }
    let (now, l) = (report::stamp(wall_now()), &stats.latencies);
    let (min, max, mean) = (general(l.min), general(l.max), general(stats.mean_latency()));
    format!("{now} min lat: {min} max lat: {max} avg lat: {mean}\n{names}")
}

/// Of a second in which `done` requests were finished.
fn row(second: u64, stats: &Stats, done: u64, object_size: u64, elapsed: Duration) -> String {
    let Stats { started, finished, .. } = stats;
    let average = mib(*finished, object_size) / elapsed.as_secs_f64().max(1e-9);
    let (average, current, last) = match second {
        0 => (0.0, 0.0, None),
        _ => (average, mib(done, object_size), (done > 0).then_some(stats.latencies.last)),
    };
    format!(
        "{second:>5} {:>7} {started:>9} {finished:>9} {:>9} {:>9} {:>11} {:>11}",
        started - finished,
        general(average),
        general(current),
        last.map_or_else(|| "-".to_owned(), general),
        general(if second == 0 { 0.0 } else { stats.mean_latency() }),
    )
}

fn summary(mode: Mode, object_size: u64, stats: &Stats) -> String {
    let elapsed = stats.elapsed.as_secs_f64().max(1e-9);
    let count = stats.finished as f64;
    let (word, what) = match mode {
        Mode::Write => ("Write", "writes"),
        _ => ("Read", "reads"),
    };
    let (bandwidths, iops): (Vec<f64>, Vec<f64>) =
        stats.seconds.iter().map(|(mib, requests)| (*mib, *requests as f64)).unzip();
    let mut lines = vec![
        ("Total time run:".to_owned(), general(elapsed)),
        (format!("Total {what} made:"), stats.finished.to_string()),
        (format!("{word} size:"), object_size.to_string()),
        ("Object size:".to_owned(), object_size.to_string()),
        ("Bandwidth (MB/sec):".to_owned(), general(count * object_size as f64 / MIB / elapsed)),
    ];
    let mut add = |name: &str, value: f64| lines.push((name.to_owned(), general(value)));
    if mode == Mode::Write {
        add("Stddev Bandwidth:", deviation(&bandwidths));
        add("Max bandwidth (MB/sec):", largest(&bandwidths));
        add("Min bandwidth (MB/sec):", smallest(&bandwidths));
    }
    let l = &stats.latencies;
    let mean = stats.mean_latency();
    let variance = if count > 1.0 { (l.squares - l.sum * mean) / (count - 1.0) } else { 0.0 };
    add("Average IOPS:", (count / elapsed).floor());
    add("Stddev IOPS:", deviation(&iops));
    add("Max IOPS:", largest(&iops));
    add("Min IOPS:", smallest(&iops));
    add("Average Latency(s):", mean);
    if mode == Mode::Write {
        add("Stddev Latency(s):", variance.max(0.0).sqrt());
    }
    add("Max latency(s):", l.max);
    add("Min latency(s):", l.min);
    let width = if mode == Mode::Write { 24 } else { 22 };
    let line = |(name, value): (String, String)| format!("{name:<width$}{value}\n");
    lines.into_iter().map(line).collect()
}

fn deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

fn smallest(values: &[f64]) -> f64 {
    values.iter().copied().reduce(f64::min).unwrap_or(0.0)
}

pub(super) struct Xorshift(pub(super) u64);

impl Xorshift {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// `4096`, `64K`, `4M`.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let bare = text.trim_end_matches(['B', 'b', 'i']);
    let (digits, shift) = match bare.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (&bare[..at], 10),
        Some((at, 'M' | 'm')) => (&bare[..at], 20),
        Some((at, 'G' | 'g')) => (&bare[..at], 30),
        _ => (bare, 0),
    };
    let number: u64 =
        digits.parse().map_err(|_| format!("`{text}` is not a size like 4096, 64K or 4M"))?;
    let bytes = number.checked_shl(shift).filter(|b| *b >> shift == number);
    let most = 128 << 20;
    bytes
        .filter(|b| *b <= most)
        .ok_or_else(|| format!("`{text}` is more than the 128M an object may have"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_those_of_ceph() {
        let record = Record { object_size: 4096, objects: 3929, pid: 25206 };
        let bytes = record.encode();
        assert_eq!(bytes.len(), 24);
        assert_eq!(Record::decode(&bytes).unwrap(), record);
        assert!(Record::decode(&bytes[..15]).is_err());
    }

    #[test]
    fn contents_are_those_of_ceph() {
        let data = contents(7, 64);
        assert!(data.starts_with(b"I'm the                7th op!\0zz"));
        assert_eq!(contents(7, 3)[..], *b"I'm");
    }

    #[test]
    fn rows_and_headings_are_those_of_ceph() {
        let latencies = Latencies { last: 0.05, sum: 20.0, min: 0.001, max: 0.5, squares: 1.0 };
        let stats = Stats { started: 102, finished: 100, latencies, ..Stats::default() };
        let at = |second, done| row(second, &stats, done, 65536, Duration::from_secs(second));
        assert_eq!(
            at(0, 0),
            "    0       2       102       100         0         0           -           0"
        );
        assert_eq!(
            at(2, 16),
            "    2       2       102       100     3.125         1        0.05         0.2"
        );
        assert_eq!(
            at(2, 0),
            "    2       2       102       100     3.125         0           -         0.2"
        );
        assert_eq!(heading(0, &stats).lines().count(), 1);
        let later = heading(20, &stats);
        assert!(later.contains(" min lat: 0.001 max lat: 0.5 avg lat: 0.2\n  sec"), "{later}");
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64K"), Ok(65536));
        assert_eq!(parse_size("4MiB"), Ok(4 << 20));
        assert!(parse_size("x").is_err());
        assert!(parse_size("99999999999G").is_err());
    }
}
