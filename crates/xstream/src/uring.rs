//! The io_uring back end.
//!
//! Submissions gather in the ring and enter the kernel once per turn, with the wait. The ring is
//! set up for one issuer with deferred task work where the kernel has that, so completions are
//! produced only while we are in `enter`. Memory the kernel may touch lives in `Flight`s, which
//! stay in the table until the final completion, whatever happens to the future that waits; if the
//! ring must be given up with operations in flight, their memory is leaked.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};

use crate::config::StartError;
use crate::driver::{Driver, Key, Op, Opened, Output, Raw, Shutdown, Wait};
use crate::file::OpenOptions;
use crate::limits::{URING_COMPLETIONS_MAX, URING_SUBMISSIONS_MAX};
use crate::runtime::Shared;
use crate::sys;

mod flight;

use flight::{Flight, Step};

/// Marks completions that belong to no operation.
const WAKE: u64 = u64::MAX;
const CANCEL: u64 = u64::MAX - 1;

/// Where the kernel puts the counters of events. Nobody looks at it, and it outlives every ring.
static WAKE_COUNT: AtomicU64 = AtomicU64::new(0);

/// An xstream's ring and what is in flight on it.
pub(crate) struct Uring {
    ring: IoUring,
    shared: Arc<Shared>,
    flights: Flights,
    wake_armed: bool,
    /// Completions taken from the ring in this poll.
    completions: Vec<(u64, i32)>,
}

/// In-flight operations by key.
struct Flights {
    slots: Vec<Option<Flight>>,
    count: usize,
}

impl Uring {
    /// A ring whose kernel workers stay on CPU `pin`, if any.
    pub(crate) fn new(shared: Arc<Shared>, pin: Option<usize>) -> Result<Uring, StartError> {
        let ring = build_ring()?;
        if let Some(cpu) = pin {
            keep_workers(&ring, cpu);
        }
        if !ring.params().is_feature_nodrop() {
            return Err(StartError::UringTooOld { missing: "IORING_FEAT_NODROP" });
        }
        if !ring.params().is_feature_ext_arg() {
            return Err(StartError::UringTooOld { missing: "IORING_FEAT_EXT_ARG" });
        }
        Ok(Uring {
            ring,
            shared,
            flights: Flights { slots: Vec::new(), count: 0 },
            wake_armed: false,
            completions: Vec::new(),
        })
    }

    /// Queues an entry, entering the kernel first if the ring is full.
    ///
    /// The caller sees to it that everything the entry points to stays in place until its
    /// completion.
    fn push(&mut self, entry: &squeue::Entry) {
        loop {
            // SAFETY: entries come from `Flight::entry` (whose memory the flight table keeps until
            // the completion), from `arm_wake` (a static) or point to nothing.
            if unsafe { self.ring.submission().push(entry) }.is_ok() {
                return;
            }
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if is_transient(&error) => self.take_completions(),
                Err(error) => panic!("io_uring refuses submissions: {error}"),
            }
        }
    }

    /// Keeps a read of the event in flight, so that other threads can wake this one.
    fn arm_wake(&mut self) {
        if self.wake_armed {
            return;
        }
        let Some(event) = self.shared.event() else {
            return;
        };
        let target: *mut u8 = WAKE_COUNT.as_ptr().cast();
        let entry = opcode::Read::new(Fd(event.raw()), target, 8).build().user_data(WAKE);
        self.wake_armed = true;
        self.push(&entry);
    }

    /// Enters the kernel as `wait` says. Errors that matter end the xstream.
    fn enter(&mut self, wait: Wait) {
        let mut queue = self.ring.submission();
        queue.sync();
        let queued = queue.len();
        if wait == Wait::No && queued == 0 && !queue.taskrun() && !queue.cq_overflow() {
            return;
        }
        drop(queue);
        let timespec = match wait {
            Wait::AtMost(duration) => Some(Timespec::from(duration)),
            Wait::No | Wait::Forever => None,
        };
        let args = timespec.as_ref().map(|timespec| SubmitArgs::new().timespec(timespec));
        let mut flags = EnterFlags::GETEVENTS;
        if args.is_some() {
            flags |= EnterFlags::EXT_ARG;
        }
        if self.ring.params().is_feature_no_iowait() {
            // Waiting for a peer is idleness, not a slow disk.
            flags |= EnterFlags::NO_IOWAIT;
        }
        let least = u32::from(wait != Wait::No);
        // SAFETY: the queued entries are valid as `push` says; `args`, whose layout is the kernel's
        // (`SubmitArgs` is transparent), and the time it points to are alive during the call.
        let result = unsafe {
            self.ring.submitter().enter(queued as u32, least, flags.bits(), args.as_ref())
        };
        match result {
            Ok(_) => {}
            Err(error) if is_transient(&error) => {}
            Err(error) => panic!("io_uring cannot be entered: {error}"),
        }
    }

    /// Copies the ring's completions out, so that handling them may submit again.
    fn take_completions(&mut self) {
        let completions = &mut self.completions;
        completions.extend(self.ring.completion().map(|entry| (entry.user_data(), entry.result())));
    }

    fn handle(&mut self, key: u64, result: i32, done: &mut Vec<(Key, Output)>) {
        match key {
            WAKE => self.wake_armed = false,
            CANCEL => {}
            key => {
                let key = key as Key;
                match self.flights.get_mut(key).on_completion(result) {
                    Step::Again => self.start(key),
                    Step::Done => done.push((key, self.flights.remove(key).into_output())),
                }
            }
        }
    }

    /// Queues the next (or only) part of an operation.
    fn start(&mut self, key: Key) {
        let entry = self.flights.get_mut(key).entry().user_data(key as u64);
        self.push(&entry);
    }
}

impl Driver for Uring {
    fn submit(&mut self, key: Key, op: Op) {
        self.flights.insert(key, Flight::new(op));
        self.start(key);
    }

    fn cancel(&mut self, key: Key) {
        if !self.flights.get_mut(key).abandon() {
            return;
        }
        let entry = opcode::AsyncCancel::new(key as u64).build().user_data(CANCEL);
        self.push(&entry);
    }

    fn poll(&mut self, wait: Wait, done: &mut Vec<(Key, Output)>) {
        self.arm_wake();
        let wait = if self.completions.is_empty() { wait } else { Wait::No };
        self.enter(wait);
        self.take_completions();
        let mut completions = mem::take(&mut self.completions);
        for (key, result) in completions.drain(..) {
            self.handle(key, result, done);
        }
        // Handling may have filled the ring and taken more; those stay for the next poll.
        completions.append(&mut self.completions);
        self.completions = completions;
    }

    fn now(&self) -> Duration {
        sys::monotonic()
    }

    fn wall_now(&self) -> Duration {
        sys::wall()
    }

    fn fill_random(&mut self, out: &mut [u8]) {
        sys::fill_random(out);
    }

    fn listen(&mut self, addr: SocketAddr) -> io::Result<Raw> {
        sys::listen(addr, false)
    }

    fn socket(&mut self, peer: &SocketAddr) -> io::Result<Raw> {
        sys::socket(peer, false)
    }

    fn local_addr(&self, sock: Raw) -> io::Result<SocketAddr> {
        sys::local_addr(sock)
    }

    fn peer_addr(&self, sock: Raw) -> io::Result<SocketAddr> {
        sys::peer_addr(sock)
    }

    fn shutdown(&mut self, sock: Raw, how: Shutdown) -> io::Result<()> {
        sys::shutdown(sock, how)
    }

    fn close_socket(&mut self, sock: Raw) {
        sys::close(sock);
    }

    fn open(&mut self, path: &Path, options: &OpenOptions) -> io::Result<Opened> {
        sys::open(path, options)
    }

    fn file_len(&self, file: Raw) -> io::Result<u64> {
        sys::file_len(file)
    }

    fn close_file(&mut self, file: Raw) {
        sys::close(file);
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        if self.flights.count > 0 {
            // The kernel may still write to this memory: it must never be used again.
            mem::forget(mem::take(&mut self.flights.slots));
        }
    }
}

impl Flights {
    fn insert(&mut self, key: Key, flight: Flight) {
        if key >= self.slots.len() {
            self.slots.resize_with(key + 1, || None);
        }
        assert!(self.slots[key].is_none(), "a key was reused in flight");
        self.slots[key] = Some(flight);
        self.count += 1;
    }

    fn get_mut(&mut self, key: Key) -> &mut Flight {
        match &mut self.slots[key] {
            Some(flight) => flight,
            None => unreachable!("operation {key} is not in flight"),
        }
    }

    fn remove(&mut self, key: Key) -> Flight {
        self.count -= 1;
        match self.slots[key].take() {
            Some(flight) => flight,
            None => unreachable!("operation {key} is not in flight"),
        }
    }
}

/// Sets up a ring with the best flags the kernel takes.
fn build_ring() -> Result<IoUring, StartError> {
    let mut last = None;
    for level in [Level::Deferred, Level::Cooperative, Level::Plain] {
        match level.build() {
            Ok(ring) => return Ok(ring),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => last = Some(error),
            Err(error) => return Err(classify(error)),
        }
    }
    Err(classify(last.unwrap_or_else(|| io::ErrorKind::Unsupported.into())))
}

/// Kernels since 6.1, since 5.19, and before.
#[derive(Clone, Copy)]
enum Level {
    Deferred,
    Cooperative,
    Plain,
}

impl Level {
    fn build(self) -> io::Result<IoUring> {
        let mut builder = IoUring::builder();
        builder.setup_clamp().setup_cqsize(URING_COMPLETIONS_MAX).dontfork();
        match self {
            Level::Deferred => {
                builder.setup_single_issuer().setup_defer_taskrun();
                builder.setup_taskrun_flag().setup_submit_all();
            }
            Level::Cooperative => {
                builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
            }
            Level::Plain => {}
        }
        builder.build(URING_SUBMISSIONS_MAX)
    }
}

/// Keeps the ring's workers (they carry what would block, like flushes) on the xstream's own CPU: it
/// mostly sleeps while they run, and waking a thread on another CPU costs more than their work.
fn keep_workers(ring: &IoUring, cpu: usize) {
    let kept = sys::cpu_set(cpu).and_then(|set| ring.submitter().register_iowq_aff(&set));
    if let Err(error) = kept {
        // Kernels before 5.14 cannot; it works as well, only dearer.
        tracing::debug!("io_uring's workers are not kept on CPU {cpu}: {error}");
    }
}

fn classify(source: io::Error) -> StartError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => StartError::UringForbidden { source },
        Some(libc::ENOMEM) => StartError::UringMemlock { source },
        _ => StartError::Uring { source },
    }
}

/// Time-outs, signals, and a completion queue that wants to be emptied first.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN))
}
