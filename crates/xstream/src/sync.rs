//! Synchronisation between tasks of one xstream: no locks, no atomics, `!Send`.

mod notify;
mod oneshot;
mod queue;
mod semaphore;

pub use notify::Notify;
pub use oneshot::{Closed, OneshotReceiver, OneshotSender, oneshot};
pub use queue::{QueueReceiver, QueueSender, queue};
pub use semaphore::{Permit, Semaphore};
