//! The two sides of the comparison: how each is started, and what its processes use.
//!
//! Invariant: daemons are ended through their own handles, or by the pid that their cluster wrote for
//! them; nothing is found or ended by name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::real_ceph::RealCeph;
use crate::run;

const START_TIME_MAX: Duration = Duration::from_secs(30);
const STOP_TIME_MAX: Duration = Duration::from_secs(20);
/// Length of the idle measurement.
const IDLE_SECONDS: u64 = 5;
/// CPU is read again until it grows by less than this in a second: the store is quiescent.
const QUIESCENT_CPU_SECONDS: f64 = 0.03;
const QUIESCENT_WAIT_SECONDS_MAX: u32 = 15;

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One OSD: for Spirula in one process with all the rest.
    Single,
    /// Three OSDs, each daemon as a process of its own.
    Replicated,
}

impl Shape {
    pub(super) fn osds(self) -> u32 {
        match self {
            Self::Single => 1,
            Self::Replicated => 3,
        }
    }
}

/// One side of the comparison.
pub(super) struct Side {
    pub(super) name: &'static str,
    conf: PathBuf,
    pub(super) start_up: Duration,
    daemons: Daemons,
}

enum Daemons {
    Ceph(RealCeph),
    Spirula(OwnCluster),
}

/// `spirula vstart`, and OSDs that were started again besides.
struct OwnCluster {
    binary: PathBuf,
    dir: PathBuf,
    shape: Shape,
    vstart: Child,
    restarted: BTreeMap<u32, Child>,
}

impl OwnCluster {
    fn start(binary: PathBuf, dir: &Path, shape: Shape) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let log = std::fs::File::create(dir.with_extension("log"))?;
        let mut command = Command::new(&binary);
        command.args(["vstart", "--osds", &shape.osds().to_string(), "--dir"]).arg(dir);
        if shape == Shape::Replicated {
            command.arg("--procs");
        }
        let vstart = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        Ok(Self { binary, dir: dir.into(), shape, vstart, restarted: BTreeMap::new() })
    }

    /// The daemons by the pids that they are known by.
    fn pids(&self) -> Vec<u32> {
        if self.shape == Shape::Single {
            return vec![self.vstart.id()];
        }
        let osds = (0..self.shape.osds()).map(|id| format!("osd.{id}"));
        let names = ["mon.a".to_owned(), "mgr.x".to_owned()].into_iter().chain(osds);
        names.filter_map(|name| self.pid_of(&name).ok()).collect()
    }

    fn pid_of(&self, name: &str) -> Result<u32> {
        let path = self.dir.join("run").join(format!("{name}.pid"));
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        text.trim().parse().with_context(|| path.display().to_string())
    }
}

impl OwnCluster {
    fn kill_osd(&mut self, id: u32) -> Result<()> {
        match self.restarted.remove(&id) {
            Some(mut osd) => {
                osd.kill()?;
                osd.wait()?;
                Ok(())
            }
            // A child of vstart, which is not waited for before vstart looks: the pid is still its own.
            None => signal("-KILL", self.pid_of(&format!("osd.{id}"))?),
        }
    }

    fn restart_osd(&mut self, id: u32) -> Result<()> {
        let name = format!("osd.{id}");
        let log = std::fs::File::create(self.dir.join("log").join(format!("{name}.out")))?;
        let osd = Command::new(&self.binary)
            .args(["engine", "--osd", &id.to_string(), "--dir"])
            .arg(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        std::fs::write(self.dir.join("run").join(format!("{name}.pid")), osd.id().to_string())?;
        self.restarted.insert(id, osd);
        Ok(())
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        // SIGKILL is enough for what is thrown away, but vstart is to end its daemons.
        for osd in self.restarted.values_mut() {
            let _ = osd.kill();
            let _ = osd.wait();
        }
        let _ = signal("-TERM", self.vstart.id());
        let begin = Instant::now();
        while matches!(self.vstart.try_wait(), Ok(None)) && begin.elapsed() < STOP_TIME_MAX {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.vstart.kill();
        let _ = self.vstart.wait();
    }
}

fn signal(signal: &str, pid: u32) -> Result<()> {
    run::output("kill", &[signal, &pid.to_string()]).map(drop)
}

impl Side {
    pub(super) fn start_ceph(dir: &Path, shape: Shape) -> Result<Self> {
        let ceph = RealCeph::start(dir, shape.osds(), free_port()?)?;
        Ok(Self {
            name: "ceph",
            conf: ceph.conf(),
            start_up: ceph.start_up,
            daemons: Daemons::Ceph(ceph),
        })
    }

    /// On a new directory; timed to its first stored object.
    pub(super) fn start_spirula(binary: PathBuf, dir: &Path, shape: Shape) -> Result<Self> {
        let begin = Instant::now();
        let cluster = OwnCluster::start(binary, dir, shape)?;
        let conf = dir.join("ceph.conf");
        while !conf.exists() {
            if begin.elapsed() > START_TIME_MAX {
                bail!("spirula vstart wrote no ceph.conf in {START_TIME_MAX:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let daemons = Daemons::Spirula(cluster);
        let side = Self { name: "spirula", conf, start_up: Duration::ZERO, daemons };
        side.tool("rados", &["-p", super::POOL, "put", "first", "/etc/hostname"])?;
        Ok(Self { start_up: begin.elapsed(), ..side })
    }

    pub(super) fn is_ceph(&self) -> bool {
        matches!(self.daemons, Daemons::Ceph(_))
    }

    /// A program that takes this side for its cluster.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("CEPH_CONF", &self.conf);
        command
    }

    /// What a client's tool prints; it must succeed.
    pub(super) fn tool(&self, program: &str, args: &[&str]) -> Result<String> {
        let out = self.command(program).args(args).output()?;
        if !out.status.success() {
            bail!("{}: {program} {args:?}: {}", self.name, String::from_utf8_lossy(&out.stderr));
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// The processes whose CPU counts for an operation: for real Ceph the OSDs alone, as the design's table
    /// has it.
    pub(super) fn data_pids(&self) -> Vec<u32> {
        match &self.daemons {
            Daemons::Ceph(ceph) => {
                let pids = ceph.pids().into_iter();
                pids.filter(|(name, _)| name.starts_with("osd.")).map(|(_, pid)| pid).collect()
            }
            Daemons::Spirula(cluster) => cluster.pids(),
        }
    }

    /// Ends an OSD without a warning.
    pub(super) fn kill_osd(&mut self, id: u32) -> Result<()> {
        match &mut self.daemons {
            Daemons::Ceph(ceph) => ceph.kill_osd(id),
            Daemons::Spirula(cluster) => cluster.kill_osd(id),
        }
    }

    /// Starts an OSD that was killed.
    pub(super) fn restart_osd(&mut self, id: u32) -> Result<()> {
        match &mut self.daemons {
            Daemons::Ceph(ceph) => ceph.restart_osd(id),
            Daemons::Spirula(cluster) => cluster.restart_osd(id),
        }
    }

    /// All daemons, for memory and idle CPU.
    fn all_pids(&self) -> Vec<u32> {
        match &self.daemons {
            Daemons::Ceph(ceph) => ceph.pids().into_iter().map(|(_, pid)| pid).collect(),
            Daemons::Spirula(cluster) => cluster.pids(),
        }
    }
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// User and system time of a side so far, from /proc.
pub(super) fn cpu_seconds(side: &Side) -> f64 {
    seconds_of(&side.data_pids())
}

fn seconds_of(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| cpu_ticks(*pid).unwrap_or(0) as f64 / 100.0).sum()
}

fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold spaces; fields count from behind its closing parenthesis.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

pub(super) fn wait_quiescent(side: &Side) {
    let mut last = cpu_seconds(side);
    for _ in 0..QUIESCENT_WAIT_SECONDS_MAX {
        std::thread::sleep(Duration::from_secs(1));
        let now = cpu_seconds(side);
        if now - last < QUIESCENT_CPU_SECONDS {
            return;
        }
        last = now;
    }
}

pub(super) fn idle_cpu_percent(side: &Side) -> Result<f64> {
    wait_quiescent(side);
    let pids = side.all_pids();
    let before = seconds_of(&pids);
    std::thread::sleep(Duration::from_secs(IDLE_SECONDS));
    Ok((seconds_of(&pids) - before) * 100.0 / IDLE_SECONDS as f64)
}

pub(super) fn rss_mib(side: &Side) -> f64 {
    let pages = |pid: &u32| -> Option<f64> {
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        statm.split_whitespace().nth(1)?.parse().ok()
    };
    side.all_pids().iter().filter_map(pages).sum::<f64>() * 4096.0 / (1 << 20) as f64
}
