//! `xstream`: the runtime of the data plane, one thread that runs tasks to completion and owns its I/O.
//!
//! A task never leaves its xstream, so tasks are `!Send` and share state by `Rc`. Tasks belong to a
//! priority [`Class`]; a class with nothing to do costs nothing, and one with much to do gets its
//! share of the thread, no more. An idle xstream blocks in the kernel and uses no CPU.
//!
//! The same code runs on three back ends behind one narrow trait (`driver.rs`):
//! io_uring; epoll with a small thread pool for files, where io_uring is refused; and a
//! deterministic simulation ([`sim`]) with virtual time, a network and disks that lose power.
//!
//! Invariants:
//! - **An I/O owns its buffer** until its final completion. Dropping a future cancels interest,
//!   never frees memory the kernel may still write to.
//! - **Submission is eager**: calling `recv`, `send`, `read_at`, `write_at`, ... queues the operation
//!   at once; the returned future only waits. Everything queued in one turn of the loop enters the
//!   kernel together.
//! - Other threads reach an xstream only through wakers, [`mailbox()`]es and [`Handle`].
//! - Nothing here depends on the order of a hash map or on the clock of the machine when simulated.

#![deny(clippy::undocumented_unsafe_blocks)]

mod buf;
mod config;
mod driver;
mod epoll;
mod file;
pub mod limits;
mod mailbox;
mod net;
mod runtime;
mod sched;
pub mod sim;
pub mod sync;
mod sys;
mod task;
mod timer;
mod uring;

pub use buf::{AlignedBuf, BLOCK, is_aligned};
pub use config::{Backend, Class, Config, Shares, StartError};
pub use driver::Shutdown;
pub use file::{File, OpenOptions};
pub use mailbox::{Receiver, SendError, Sender, mailbox, mailbox_bounded};
pub use net::{TcpListener, TcpStream};
pub use runtime::{
    Handle, fill_random, handle, now, random_u64, run, settle, spawn, stopping, wall_now, yield_now,
};
pub use task::{Cancelled, JoinHandle};
pub use timer::{Elapsed, Sleep, sleep, sleep_until, timeout};
