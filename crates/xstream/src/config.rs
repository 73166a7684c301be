//! What an xstream is told at its start, and why it may refuse to start.

use std::io;

use crate::sim::SimHost;
use crate::sys;

/// Which machine carries the I/O.
#[derive(Clone, Default)]
pub enum Backend {
    /// io_uring, or epoll with one warning where the kernel refuses; `SPIRULA_IO=epoll|uring` decides.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// epoll, with a thread pool for files.
    Epoll,
    /// One host of a simulated world.
    Sim(SimHost),
}

/// Priority class of a task. The order is the order in ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Requests of clients, and what they wait for.
    Client,
    /// Operations other daemons replicate to this one.
    Replication,
    /// Bringing copies back.
    Recovery,
    /// Checkpoints, aggregation, scrubbing, statistics.
    Background,
}

impl Class {
    pub const COUNT: usize = 4;
    pub const ALL: [Class; Class::COUNT] =
        [Class::Client, Class::Replication, Class::Recovery, Class::Background];

    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

/// How the thread is divided between classes that all have work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    pub client: u32,
    pub replication: u32,
    pub recovery: u32,
    pub background: u32,
}

impl Default for Shares {
    fn default() -> Shares {
        Shares { client: 1000, replication: 1000, recovery: 200, background: 100 }
    }
}

impl Shares {
    pub(crate) fn of(&self, class: Class) -> u32 {
        let share = match class {
            Class::Client => self.client,
            Class::Replication => self.replication,
            Class::Recovery => self.recovery,
            Class::Background => self.background,
        };
        share.max(1)
    }
}

/// Configuration of one xstream.
#[derive(Clone, Default)]
pub struct Config {
    pub backend: Backend,
    /// Appears in log lines.
    pub name: String,
    /// CPU to stay on, with the kernel's workers of this xstream's I/O; a CPU that does not exist is an
    /// error.
    pub pin: Option<usize>,
    pub shares: Shares,
}

impl Config {
    pub fn new(name: impl Into<String>) -> Config {
        Config { name: name.into(), ..Config::default() }
    }

    pub fn backend(mut self, backend: Backend) -> Config {
        self.backend = backend;
        self
    }

    pub fn pin(mut self, cpu: Option<usize>) -> Config {
        self.pin = cpu;
        self
    }

    /// Stays on the `n`th of the CPUs that the caller may use, counted round from the last one, since
    /// the first often serves interrupts. Where there is no choice, nothing is pinned.
    pub fn pin_nth(self, n: usize) -> Config {
        let cpus = sys::allowed_cpus().unwrap_or_default();
        let cpu = (cpus.len() > 1).then(|| cpus[cpus.len() - 1 - n % cpus.len()]);
        self.pin(cpu)
    }

    pub fn shares(mut self, shares: Shares) -> Config {
        self.shares = shares;
        self
    }
}

/// Why an xstream did not start (or, simulated, could not finish). The text says what to change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "io_uring is refused by this system ({source}): allow it with `sysctl \
         kernel.io_uring_disabled=0` and, in a container, a seccomp profile that permits \
         io_uring_setup, io_uring_enter and io_uring_register; or run with SPIRULA_IO=epoll"
    )]
    UringForbidden { source: io::Error },
    #[error(
        "io_uring could not lock memory for its rings ({source}): raise the limit with `ulimit -l \
         unlimited` (LimitMEMLOCK=infinity in a systemd unit), or run with SPIRULA_IO=epoll"
    )]
    UringMemlock { source: io::Error },
    #[error(
        "this kernel's io_uring is too old ({missing} is missing): Linux 5.11 or later is needed, \
         or run with SPIRULA_IO=epoll"
    )]
    UringTooOld { missing: &'static str },
    #[error("io_uring did not start: {source}; run with SPIRULA_IO=epoll to do without it")]
    Uring { source: io::Error },
    #[error("epoll did not start: {source}; raise the number of open files with `ulimit -n`")]
    Epoll { source: io::Error },
    #[error(
        "eventfd could not be created: {source}; raise the number of open files with `ulimit -n`"
    )]
    EventFd { source: io::Error },
    #[error("SPIRULA_IO={value:?} is not known: use `uring` or `epoll`, or leave it unset")]
    UnknownIo { value: String },
    #[error("cannot stay on CPU {cpu}: {source}; choose a CPU this process may use")]
    Pin { cpu: usize, source: io::Error },
    #[error("an xstream already runs on this thread; start one thread per xstream")]
    Nested,
    #[error(
        "the simulated world (seed {seed}) came to a standstill: main waits and no event is left"
    )]
    SimStalled { seed: u64 },
    #[error("the simulated host {host} was killed while main ran on it (seed {seed})")]
    SimKilled { host: String, seed: u64 },
}
