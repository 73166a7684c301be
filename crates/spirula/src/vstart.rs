//! `spirula vstart`: a whole cluster on this host, in this process or as one process per daemon.
//!
//! Invariants: a temporary cluster leaves nothing; the exit status is the command's when there is
//! one; SIGINT and SIGTERM stop the daemons in order (OSDs, mgr, mon) before the process ends.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster_dir::{ClusterDir, DeviceClass, DirError, Identity};
use crate::daemons::{self, Daemons};
use crate::logging::{self, LogConfig};
use crate::mkfs::{self, Shape};
use crate::print::say;
use crate::procs::Procs;

const DEVICE_BYTES_DEFAULT: u64 = 10 << 30;
/// As many as copies that outlive any one of them need.
const OSDS_DEFAULT: u32 = 3;
const OSDS_MAX: u32 = 1000;
/// Ceph's bound.
const COPIES_MAX: u8 = 10;
/// Exit status when a signal came before the end: 128 and its number.
const INTERRUPTED: u8 = 128 + 2;
const TERMINATED: u8 = 128 + 15;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Keep the cluster here and start it again from here (default: temporary).
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Number of OSDs of a new cluster [default: 3].
    #[arg(long)]
    osds: Option<u32>,
    /// Number of monitors of a new cluster: 1, 3 or 5 [default: 1].
    #[arg(long)]
    mons: Option<u8>,
    /// Copies of each object in new pools of a new cluster, at most as many as OSDs [default: 1].
    #[arg(long)]
    size: Option<u8>,
    /// First port: the monitor takes it, mgr, OSDs and other monitors the next ones (default: free
    /// ports).
    #[arg(long)]
    port: Option<u16>,
    /// Bytes of each OSD's device, with an optional suffix K, M, G or T [default: 10G].
    #[arg(long, value_parser = parse_bytes)]
    device_size: Option<u64>,
    /// Bytes of a device of its own for each OSD's WAL [default: none].
    #[arg(long, value_parser = parse_bytes)]
    wal_device_size: Option<u64>,
    /// Bytes of a device of its own for each OSD's metadata [default: none].
    #[arg(long, value_parser = parse_bytes)]
    meta_device_size: Option<u64>,
    /// What OSDs store on [default: file].
    #[arg(long, value_enum)]
    class: Option<DeviceClass>,
    /// Erase what --dir holds and make a new cluster.
    #[arg(long)]
    fresh: bool,
    /// One process per daemon, with pid files in DIR/run.
    #[arg(long)]
    procs: bool,
    /// Run this with CEPH_CONF set, then stop the cluster and exit with its status.
    #[arg(last = true)]
    command: Vec<String>,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if let Some(mons) = args.mons.filter(|n| ![1, 3, 5].contains(n)) {
        bail!("--mons {mons}: a quorum has 1, 3 or 5 monitors");
    }
    if let Some(size) = args.size
        && (size == 0 || size > COPIES_MAX || u32::from(size) > osds(&args))
    {
        bail!("--size {size}: pools have 1 to {COPIES_MAX} copies, at most as many as --osds");
    }
    if args.osds.is_some_and(|n| n == 0 || n > OSDS_MAX) {
        bail!("--osds must be 1 to {OSDS_MAX}");
    }
    if let Some(port) = args.port {
        // Each monitor, the manager and each OSD take one.
        let ports = u32::from(args.mons.unwrap_or(1)) + 1 + osds(&args);
        if port == 0 || u32::from(port) + ports > u32::from(u16::MAX) + 1 {
            bail!("--port {port}: the cluster needs {ports} ports from there on, up to 65535");
        }
    }
    let temporary = match args.dir {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new().prefix("spirula.").tempdir().context("temporary directory")?,
        ),
    };
    let path = args
        .dir
        .clone()
        .unwrap_or_else(|| temporary.as_ref().map(|t| t.path().into()).unwrap_or_default());
    let dir = ClusterDir::open(&path, args.fresh)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .context("control-plane runtime")?;
    let log = logging::init(LogConfig {
        dir: dir.path().join("log"),
        fallback: "vstart".into(),
        errors_to_stderr: true,
    })?;
    let code = runtime.block_on(async {
        let _reopening = log.reopen_on_sighup()?;
        serve(&args, &dir).await
    });
    log.flush();
    code
}

async fn serve(args: &Args, dir: &ClusterDir) -> Result<ExitCode> {
    // From here on a signal leads to an orderly stop.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (identity, is_new) = match dir.identity()? {
        Some(identity) => (check_shape(args, dir, identity)?, false),
        None => {
            dir.clear_unfinished()?;
            (mkfs::new_identity(&shape(args))?, true)
        }
    };
    let mut cluster = Cluster::new(args.procs);
    let mut ready = false;
    let outcome = {
        let life = live(args, dir, &identity, is_new, &mut cluster, &mut ready);
        tokio::select! {
            outcome = life => outcome.map(Ok),
            _ = interrupt.recv() => Ok(Err(INTERRUPTED)),
            _ = terminate.recv() => Ok(Err(TERMINATED)),
        }
    };
    if matches!(outcome, Ok(Err(_))) {
        say!("stopping");
    }
    let stopped = cluster.stop().await;
    daemons::forget_ram(&identity);
    if is_new && !ready {
        dir.unpublish();
    }
    let code = outcome?;
    stopped?;
    Ok(match code {
        Ok(code) => code,
        Err(_) if ready && args.command.is_empty() => ExitCode::SUCCESS,
        Err(code) => ExitCode::from(code),
    })
}

/// Starts the cluster and keeps it until the command ends or a daemon fails.
async fn live(
    args: &Args,
    dir: &ClusterDir,
    identity: &Identity,
    is_new: bool,
    cluster: &mut Cluster,
    ready: &mut bool,
) -> Result<ExitCode> {
    let begin = Instant::now();
    match cluster {
        Cluster::InProcess(d) => d.start(dir.path(), identity, is_new).await?,
        Cluster::Procs(p) => p.start(dir, identity, is_new).await?,
    }
    if is_new {
        dir.publish(identity)?;
    }
    *ready = true;
    let conf = dir.path().join("ceph.conf");
    say!("cluster {} ready in {:.2} s", identity.fsid, begin.elapsed().as_secs_f64());
    for (name, port) in identity.mons() {
        say!("mon.{name} listens on [v2:127.0.0.1:{port}]");
    }
    if args.command.is_empty() {
        say!("export CEPH_CONF={}", conf.display());
        return Err(cluster.failed().await);
    }
    run_command(&args.command, &conf).await
}

enum Cluster {
    InProcess(Daemons),
    Procs(Procs),
}

impl Cluster {
    fn new(procs: bool) -> Self {
        if procs { Self::Procs(Procs::default()) } else { Self::InProcess(Daemons::new()) }
    }

    /// Returns when a daemon ends by itself.
    async fn failed(&mut self) -> anyhow::Error {
        match self {
            Self::InProcess(d) => d.failed().await,
            Self::Procs(p) => p.failed().await,
        }
    }

    async fn stop(self) -> Result<()> {
        match self {
            Self::InProcess(d) => d.stop().await,
            Self::Procs(p) => p.stop().await,
        }
    }
}

fn osds(args: &Args) -> u32 {
    args.osds.unwrap_or(OSDS_DEFAULT)
}

fn shape(args: &Args) -> Shape {
    Shape {
        osds: osds(args),
        mons: args.mons.unwrap_or(1),
        size: args.size.unwrap_or(1),
        port_base: args.port,
        device_bytes: args.device_size.unwrap_or(DEVICE_BYTES_DEFAULT),
        wal_device_bytes: args.wal_device_size.unwrap_or(0),
        meta_device_bytes: args.meta_device_size.unwrap_or(0),
        class: args.class.unwrap_or(DeviceClass::File),
    }
}

/// An existing cluster keeps its shape; options that contradict it are an error, not a surprise.
fn check_shape(args: &Args, dir: &ClusterDir, found: Identity) -> Result<Identity> {
    let differs = |what, found: String, asked: Option<String>| match asked {
        Some(asked) if asked != found => {
            Err(DirError::OtherShape { path: dir.path().into(), what, found, asked })
        }
        _ => Ok(()),
    };
    let mons = found.mons().len().to_string();
    differs("monitor count", mons, args.mons.map(|n| n.to_string()))?;
    differs("OSD count", found.osds.len().to_string(), args.osds.map(|n| n.to_string()))?;
    differs("pool size", found.size.to_string(), args.size.map(|n| n.to_string()))?;
    differs(
        "device size",
        found.device_bytes.to_string(),
        args.device_size.map(|n| n.to_string()),
    )?;
    let text = |n: Option<u64>| n.map(|n| n.to_string());
    differs("WAL device size", found.wal_device_bytes.to_string(), text(args.wal_device_size))?;
    differs(
        "metadata device size",
        found.meta_device_bytes.to_string(),
        text(args.meta_device_size),
    )?;
    differs("mon port", found.mon_port.to_string(), args.port.map(|n| n.to_string()))?;
    differs("class", format!("{:?}", found.class), args.class.map(|c| format!("{c:?}")))?;
    Ok(found)
}

async fn run_command(command: &[String], conf: &std::path::Path) -> Result<ExitCode> {
    let (program, args) = command.split_first().context("empty command")?;
    let status = tokio::process::Command::new(program)
        .args(args)
        .env("CEPH_CONF", conf)
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| format!("could not start {program}"))?;
    // A command ended by signal N exits like a shell's: 128 + N.
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or(status.signal().map(|s| 128 + s)).unwrap_or(1);
    Ok(ExitCode::from(code as u8))
}

/// `512`, `64K`, `10G`...
fn parse_bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.trim_end_matches(['B', 'i', 'b']).char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        Some((at, 'T' | 't')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let n: u64 = digits.parse().map_err(|_| format!("`{text}` is not a size like 512M or 10G"))?;
    n.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn shapes() {
        use clap::Parser as _;
        for (line, want) in [("x", (1, 3, 1)), ("x --size 3", (1, 3, 3)), ("x --osds 1", (1, 1, 1))]
        {
            let shape = shape(&Line::parse_from(line.split(' ')).args);
            assert_eq!((shape.mons, shape.osds, shape.size), want, "{line}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("64K"), Ok(64 << 10));
        assert_eq!(parse_bytes("10GiB"), Ok(10 << 30));
        assert!(parse_bytes("ten").is_err());
        assert!(parse_bytes("99999999999T").is_err());
    }
}
