//! Log files as Ceph's daemons keep them: one per daemon, levels per subsystem that change at run
//! time, opened anew on SIGHUP.
//!
//! Several daemons may share this process. Each event goes to the file of the daemon whose thread
//! ([`daemon`]), task ([`scope`]) or span (a field `daemon`) it comes from; what belongs to none
//! goes to the fallback's file.
//!
//! Invariants: whoever logs never waits for a disk; a level that is off costs nothing on the data
//! path.

mod layer;
mod levels;
mod line;
mod writer;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use time::UtcOffset;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing::Instrument as _;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;

use spirula_mon::LOG_LEVELS;

use layer::LogLayer;
use levels::{Levels, parse_level, subsystem_of_option};
use writer::{Act, Done, FileName, Job, Queue};

/// How long [`LogHandle::flush`] waits for the disk.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);
/// A daemon's name longer than this, or with other characters than Ceph's, gets no file of its own.
const NAME_LEN_MAX: usize = 128;

static GLOBAL: OnceLock<LogHandle> = OnceLock::new();

thread_local! {
    static CURRENT: RefCell<Option<Arc<Daemon>>> = const { RefCell::new(None) };
}

#[derive(Clone, Debug)]
pub(crate) struct LogConfig {
    /// Where the files are; it is made if need be.
    pub(crate) dir: PathBuf,
    /// Whose file takes what belongs to no daemon: `vstart`, or the name of the only daemon.
    pub(crate) fallback: String,
    /// Errors go to standard error too.
    pub(crate) errors_to_stderr: bool,
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("log directory {}: {source}", path.display())]
    Dir { path: PathBuf, source: io::Error },
    #[error("no thread for log files: {0}")]
    Thread(io::Error),
    #[error("logging was started before")]
    Twice,
}

/// Starts logging for this process. Later calls of [`daemon`] and [`scope`] refer to it.
pub(crate) fn init(config: LogConfig) -> Result<LogHandle, LogError> {
    let handle = LogHandle::new(config)?;
    let subscriber = handle.subscriber();
    GLOBAL.set(handle.clone()).map_err(|_| LogError::Twice)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
    log_panics(handle.clone());
    Ok(handle)
}

/// What this thread logs from now on is this daemon's, until the guard goes.
#[must_use = "the thread is the daemon's only while the guard lives"]
pub(crate) fn daemon(name: &str) -> DaemonGuard {
    enter(GLOBAL.get().map(|log| log.shared.daemon(name)))
}

/// Runs a task of this daemon: what it and the tasks that it spawns in its span log goes
/// to the daemon's file, wherever they are polled.
pub(crate) async fn scope<F: Future>(name: &str, task: F) -> F::Output {
    task.instrument(tracing::info_span!("daemon", daemon = name)).await
}

/// The logging that [`init`] started.
pub(crate) fn handle() -> Option<&'static LogHandle> {
    GLOBAL.get()
}

/// The daemon that this thread or task works for.
pub(crate) struct DaemonGuard {
    before: Option<Arc<Daemon>>,
    /// Belongs to its thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Drop for DaemonGuard {
    fn drop(&mut self) {
        let before = self.before.take();
        // At the end of a thread there may be nothing to put back.
        let _ = CURRENT.try_with(|current| current.replace(before));
    }
}

fn enter(daemon: Option<Arc<Daemon>>) -> DaemonGuard {
    let before = CURRENT.with(|current| current.replace(daemon));
    DaemonGuard { before, _not_send: std::marker::PhantomData }
}

fn current() -> Option<Arc<Daemon>> {
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// Logging that runs; clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct LogHandle {
    shared: Arc<Shared>,
}

/// A daemon as the log knows it.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: FileName,
    levels: Levels,
    /// Somebody says that its options are others now.
    options_changed: Notify,
}

impl Daemon {
    fn new(name: FileName) -> Self {
        Self { name, levels: Levels::default(), options_changed: Notify::new() }
    }
}

#[derive(Debug)]
pub(crate) struct Shared {
    daemons: RwLock<Vec<Arc<Daemon>>>,
    fallback: Arc<Daemon>,
    queue: Queue,
    thread: Mutex<Option<JoinHandle<()>>>,
    offset: UtcOffset,
    errors_to_stderr: bool,
}

impl LogHandle {
    fn new(config: LogConfig) -> Result<Self, LogError> {
        let failed = |source| LogError::Dir { path: config.dir.clone(), source };
        std::fs::create_dir_all(&config.dir).map_err(failed)?;
        let fallback = Arc::new(Daemon::new(file_name(&config.fallback)));
        // Not known once there are threads; Ceph's files are in UTC on most machines anyway.
        let offset = UtcOffset::current_local_offset().unwrap_or(UtcOffset::UTC);
        let (queue, thread) =
            writer::start(config.dir, offset, fallback.name.clone()).map_err(LogError::Thread)?;
        Ok(Self {
            shared: Arc::new(Shared {
                daemons: RwLock::new(vec![fallback.clone()]),
                fallback,
                queue,
                thread: Mutex::new(Some(thread)),
                offset,
                errors_to_stderr: config.errors_to_stderr,
            }),
        })
    }

    fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + use<> {
        tracing_subscriber::registry().with(LogLayer::new(self.shared.clone()))
    }

    /// Takes the debug levels out of a daemon's options; others, and those of subsystems that only
    /// Ceph has, are passed over.
    pub(crate) fn apply_options<'a>(
        &self,
        daemon: &str,
        options: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        let levels = &self.shared.daemon(daemon).levels;
        let mut wanted = BTreeMap::new();
        for (option, value) in options {
            let Some(subsystem) = subsystem_of_option(option) else { continue };
            let Some(level) = parse_level(value) else { continue };
            // Several of Ceph's subsystems may be one of ours: the most talkative decides.
            let most: &mut u8 = wanted.entry(subsystem).or_default();
            *most = level.max(*most);
        }
        let changed =
            wanted.into_iter().filter(|(subsystem, level)| levels.set(*subsystem, *level));
        if changed.count() > 0 {
            rebuild_call_sites();
        }
    }

    /// Later lines go to files opened by their names, as after `logrotate` moved the old ones.
    pub(crate) fn reopen(&self) {
        let fallback = self.shared.fallback.name.clone();
        self.shared.queue.send_soon(Job::Act(Act::Reopen, fallback, Box::new(|| ())));
    }

    /// Waits, for a bounded time, until all lines so far are in their files.
    pub(crate) fn flush(&self) {
        let (done, wait) = mpsc::channel();
        let fallback = self.shared.fallback.name.clone();
        self.shared.queue.send(Job::Act(Act::Flush, fallback, Box::new(move || _ = done.send(()))));
        let _ = wait.recv_timeout(FLUSH_TIME_MAX);
    }

    /// Carries out a daemon's `log flush`, `log reopen` or `log dump`, without waiting, and calls
    /// back when all lines so far are in their files. `log levels` only wakes
    /// [`options_changed`](Self::options_changed).
    pub(crate) fn command(&self, daemon: &str, prefix: &str, done: Done) {
        let act = match prefix {
            LOG_LEVELS => {
                self.shared.daemon(daemon).options_changed.notify_one();
                return done();
            }
            "log reopen" => Act::Reopen,
            // The recent lines go into the daemon's file once more.
            "log dump" => Act::Dump,
            _ => Act::Flush,
        };
        self.shared.queue.send_soon(Job::Act(act, self.shared.daemon(daemon).name.clone(), done));
    }

    /// Returns when a daemon's options have changed since the last call.
    pub(crate) async fn options_changed(&self, daemon: &str) {
        self.shared.daemon(daemon).options_changed.notified().await;
    }

    /// Reopens the files on every SIGHUP, as long as the returned task runs. Call it in a runtime.
    pub(crate) fn reopen_on_sighup(&self) -> io::Result<tokio::task::JoinHandle<()>> {
        let mut hangup = signal(SignalKind::hangup())?;
        let log = self.clone();
        Ok(tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                tracing::info!("received SIGHUP: reopening the log files");
                let log = log.clone();
                let _ = tokio::task::spawn_blocking(move || log.reopen()).await;
            }
        }))
    }
}

impl Shared {
    fn daemons(&self) -> RwLockReadGuard<'_, Vec<Arc<Daemon>>> {
        self.daemons.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The daemon of this name, which is noted at first sight.
    fn daemon(&self, name: &str) -> Arc<Daemon> {
        let name = file_name(name);
        if let Some(known) = self.daemons().iter().find(|d| d.name == name) {
            return known.clone();
        }
        let mut daemons = self.daemons.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = daemons.iter().find(|d| d.name == name) {
            return known.clone();
        }
        let daemon = Arc::new(Daemon::new(name));
        daemons.push(daemon.clone());
        drop(daemons);
        // What was on for every daemon may be off for this one.
        rebuild_call_sites();
        daemon
    }

    /// What every daemon, and what any daemon lets through of a subsystem.
    fn filters(&self, subsystem: usize) -> (LevelFilter, LevelFilter) {
        let daemons = self.daemons();
        let filters = || daemons.iter().map(|d| d.levels.filter(subsystem));
        let off = LevelFilter::OFF;
        (filters().min().unwrap_or(off), filters().max().unwrap_or(off))
    }

    fn filter_max(&self) -> LevelFilter {
        self.daemons().iter().map(|d| d.levels.filter_max()).max().unwrap_or(LevelFilter::OFF)
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.send(Job::Stop);
        if let Some(thread) = self.thread().take() {
            let _ = thread.join();
        }
    }
}

/// Lets every call site ask again whether it is on. One at a time: the slower of two would put back
/// what it found before the other began.
fn rebuild_call_sites() {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    tracing::callsite::rebuild_interest_cache();
}

/// A name that is safe as a part of a path.
fn file_name(name: &str) -> FileName {
    let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let safe = !name.is_empty() && !name.starts_with('.') && name.chars().all(ok);
    if safe && name.len() <= NAME_LEN_MAX { name.into() } else { "other".into() }
}

/// A panic's text goes to the log before the process ends or the thread unwinds.
fn log_panics(log: LogHandle) {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // The writer itself cannot be asked to write.
        if std::thread::current().name() != Some(writer::THREAD_NAME) {
            tracing::error!("{info}");
            log.flush();
        }
        before(info);
    }));
}

#[cfg(test)]
mod tests;
