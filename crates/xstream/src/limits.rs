//! Every bound of this crate, by name.

use std::time::Duration;

/// Task polls in one turn of the loop before I/O is looked at again.
pub const TURN_POLLS_MAX: usize = 256;

/// The most a class is charged for one poll: what took longer was probably not its own doing, but
/// another thread on this CPU.
pub const POLL_COST_MAX: Duration = Duration::from_millis(1);

/// Entries of the io_uring submission queue; more wait in memory for the next turn.
pub const URING_SUBMISSIONS_MAX: u32 = 512;

/// Entries of the io_uring completion queue; the kernel keeps what does not fit.
pub const URING_COMPLETIONS_MAX: u32 = 4096;

/// Pieces handed to one vectored system call (the kernel's `IOV_MAX`).
pub const IOVECS_MAX: usize = 1024;

/// Bytes handed to one read or write system call (the kernel's bound is 2 GiB less a page).
pub const IO_BYTES_MAX: usize = 1 << 30;

/// Room that `recv` makes in a buffer that has none.
pub const RECV_RESERVE_BYTES: usize = 16 * 1024;

/// Connections waiting to be accepted on a listener.
pub const LISTEN_BACKLOG: i32 = 1024;

/// Threads doing file I/O for the epoll back end.
pub const FILE_THREADS_MAX: usize = 4;

/// Events taken from epoll in one turn.
pub const EPOLL_EVENTS_MAX: usize = 256;

/// Bytes of free aligned buffers that one thread keeps for itself.
pub const POOL_LOCAL_BYTES_MAX: usize = 64 << 20;

/// Bytes of free aligned buffers that other threads may return to a pool before it looks.
pub const POOL_REMOTE_BYTES_MAX: usize = 16 << 20;

/// Bytes of small buffers allocated at a time.
pub const POOL_SLAB_BYTES: usize = 256 << 10;

/// Largest buffer that is pooled; larger ones are allocated and freed.
pub const POOL_BUFFER_BYTES_MAX: usize = 8 << 20;

/// How long a stopping xstream waits for I/O in flight before it gives up its buffers for lost.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes of one direction of a simulated connection that are sent and not yet received.
pub const SIM_WINDOW_BYTES_MAX: usize = 1 << 20;
