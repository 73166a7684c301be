//! `vstart --procs`: each daemon as its own process, so that one can be killed.
//!
//! Invariants: `DIR/run/NAME.pid` names a running daemon; children are ended through their handles,
//! never by name, and end when their parent does, even by SIGKILL.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{self, Pid, Signal};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster_dir::{ClusterDir, Identity, mon_name, read_identity};
use crate::daemons::{self, Daemons, Removed};
use crate::logging::{self, LogConfig};
use crate::print::say;
use crate::{DaemonArgs, MonArgs};

const START_TIME_MAX: Duration = Duration::from_secs(30);
const STOP_TIME_MAX: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The first is `mon.a`.
    Mon(u8),
    Mgr,
    Osd(u32),
}

impl Role {
    /// The daemon's name as in `ceph daemon NAME`.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Mon(n) => format!("mon.{}", mon_name(n)),
            Self::Mgr => "mgr.x".into(),
            Self::Osd(id) => format!("osd.{id}"),
        }
    }

    fn args(self) -> Vec<String> {
        match self {
            Self::Mon(n) => vec!["mon".into(), "--id".into(), mon_name(n)],
            Self::Mgr => vec!["mgr".into()],
            Self::Osd(id) => vec!["engine".into(), "--osd".into(), id.to_string()],
        }
    }
}

/// The running daemons, in start order.
#[derive(Default)]
pub(crate) struct Procs {
    dir: PathBuf,
    children: Vec<(Role, Child)>,
}

impl Procs {
    /// Starts all daemons and waits until every PG is active and clean. After an error, or given up
    /// early, there may be some to stop.
    pub(crate) async fn start(
        &mut self,
        dir: &ClusterDir,
        identity: &Identity,
        is_new: bool,
    ) -> Result<()> {
        if is_new {
            daemons::mkfs(dir.path(), identity).await?;
            // The daemons read the identity themselves.
            dir.publish(identity)?;
        }
        self.dir = dir.path().into();
        let osds = identity.osds.iter().map(|o| Role::Osd(o.id));
        let mons = (0..identity.mons().len() as u8).map(Role::Mon);
        for role in mons.chain([Role::Mgr]).chain(osds) {
            self.spawn(role)?;
        }
        self.wait_ready().await
    }

    fn spawn(&mut self, role: Role) -> Result<()> {
        let name = role.name();
        let log = self.dir.join("log").join(format!("{name}.out"));
        let log = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
        // A ready file of an earlier run must not speak for this one.
        let _ = std::fs::remove_file(ready_file(&self.dir, role));
        let child = Command::new(std::env::current_exe().context("path of this program")?)
            .args(role.args())
            .arg("--dir")
            .arg(&self.dir)
            .args(["--parent", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("could not start {name}"))?;
        let pid = child.id().context("the daemon ended at once")?;
        std::fs::write(self.dir.join("run").join(format!("{name}.pid")), format!("{pid}\n"))?;
        self.children.push((role, child));
        Ok(())
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIME_MAX;
        loop {
            let mut removed = Vec::new();
            for (role, child) in &mut self.children {
                match child.try_wait()? {
                    // It was taken out of the cluster before this start.
                    Some(status) if status.success() && matches!(role, Role::Mon(_)) => {
                        removed.push(*role);
                    }
                    Some(status) => bail!(ended_at_start(&self.dir, *role, status)),
                    None => {}
                }
            }
            self.children.retain(|(role, _)| !removed.contains(role));
            let mut roles = self.children.iter().map(|(role, _)| *role);
            let Some(unready) = roles.rfind(|role| !ready_file(&self.dir, *role).exists()) else {
                return Ok(());
            };
            if Instant::now() > deadline {
                let what = match unready {
                    // It is ready once the placement groups are active and clean.
                    Role::Mon(_) => "not all placement groups were active+clean".to_owned(),
                    role => format!("{} was not ready", role.name()),
                };
                bail!("{what} after {START_TIME_MAX:?}; see {}", self.dir.join("log").display());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns when the last monitor ends by itself; one of several, a killed OSD or mgr is what
    /// --procs is for.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        let mut gone = vec![false; self.children.len()];
        loop {
            for (i, (role, child)) in self.children.iter_mut().enumerate() {
                let Ok(Some(status)) = child.try_wait() else { continue };
                if !std::mem::replace(&mut gone[i], true) {
                    say!("{} ended: {status}", role.name());
                }
            }
            let mut mons =
                self.children.iter().zip(&gone).filter(|((r, _), _)| matches!(r, Role::Mon(_)));
            if mons.all(|(_, gone)| *gone) {
                return anyhow::anyhow!("no monitor is left");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        // OSDs first, so that they can still say goodbye to the monitor.
        for (role, child) in self.children.iter_mut().rev() {
            terminate(child);
            if tokio::time::timeout(STOP_TIME_MAX, child.wait()).await.is_err() {
                say!("{} did not stop in {STOP_TIME_MAX:?}; killing it", role.name());
                child.kill().await?;
            }
            let _ = std::fs::remove_file(self.dir.join("run").join(format!("{}.pid", role.name())));
        }
        Ok(())
    }
}

/// SIGTERM, if it still runs: it is not waited for yet, so the pid is its own.
fn terminate(child: &Child) {
    if let Some(pid) = child.id().and_then(pid_of) {
        let _ = process::kill_process(pid, Signal::TERM);
    }
}

fn pid_of(number: u32) -> Option<Pid> {
    Pid::from_raw(number.try_into().ok()?)
}

/// Asks for SIGTERM when the parent, which is `parent`, ends in whatever way.
fn follow_parent(parent: u32) -> Result<()> {
    process::set_parent_process_death_signal(Some(Signal::TERM)).context("signal of the parent")?;
    // The parent may have ended before the request; then nothing would come.
    if process::getppid() != pid_of(parent) {
        bail!("process {parent}, which started this one, has ended");
    }
    Ok(())
}

/// What to tell about a daemon that did not come up: its own last words, if there are any.
fn ended_at_start(dir: &Path, role: Role, status: ExitStatus) -> String {
    let log = dir.join("log");
    let out = std::fs::read_to_string(log.join(format!("{}.out", role.name()))).unwrap_or_default();
    let said = out.lines().rev().find_map(|line| line.strip_prefix("spirula: "));
    match said {
        Some(said) if said.starts_with(&role.name()) => said.to_owned(),
        Some(said) => format!("{}: {said}", role.name()),
        None => format!("{} ended at start ({status}); see {}", role.name(), log.display()),
    }
}

fn ready_file(dir: &Path, role: Role) -> PathBuf {
    dir.join("run").join(format!("{}.ready", role.name()))
}

/// Runs the monitor `id` of a cluster directory.
pub(crate) fn mon(args: &MonArgs) -> Result<ExitCode> {
    let id = &args.id;
    let known = (0..26).find(|n| mon_name(*n) == *id);
    let n = known.with_context(|| format!("--id {id}: monitors are a, b, c, ..."))?;
    if let (Some(monmap), Some(keyring)) = (&args.monmap, &args.keyring) {
        daemons::mkfs_mon(&args.daemon.dir, id, monmap, keyring)?;
    }
    daemon(&args.daemon, Role::Mon(n))
}

/// Runs one daemon of a cluster directory in the foreground until SIGINT or SIGTERM.
pub(crate) fn daemon(args: &DaemonArgs, role: Role) -> Result<ExitCode> {
    let dir = args.dir.as_path();
    if let Some(parent) = args.parent {
        follow_parent(parent)?;
    }
    let identity = read_identity(dir)?.with_context(|| {
        format!("{}: no cluster here; make one with spirula vstart --dir", dir.display())
    })?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let log = logging::init(LogConfig {
        dir: dir.join("log"),
        fallback: role.name(),
        errors_to_stderr: true,
    })?;
    let code = runtime.block_on(async {
        let _reopening = log.reopen_on_sighup()?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let ready = ready_file(dir, role);
        let mut running = daemons::start_one(dir, &identity, role).await?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            error = serve(&mut running, &ready) => {
                if !error.is::<Removed>() {
                    return Err(error);
                }
                say!("{}: {error}", role.name());
            }
        }
        running.stop().await?;
        let _ = std::fs::remove_file(&ready);
        Ok(ExitCode::SUCCESS)
    });
    log.flush();
    code
}

/// Says when the daemon is ready (the monitor: when every PG is active and clean), and returns when
/// it ends by itself.
async fn serve(running: &mut Daemons, ready: &Path) -> anyhow::Error {
    if let Err(error) = running.wait_clean().await {
        return error;
    }
    if let Err(error) = std::fs::write(ready, "") {
        return anyhow::Error::new(error).context(ready.display().to_string());
    }
    running.failed().await
}
