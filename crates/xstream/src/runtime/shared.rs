//! The part of an xstream that other threads may touch: its inbox and how to wake it.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Class;
use crate::sched::TaskId;
use crate::sys::EventFd;

use super::{push_local, spawn};

/// Reaches an xstream from any thread.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    /// Asks the xstream to stop: [`crate::stopping`] resolves there. Its main decides what follows.
    pub fn stop(&self) {
        self.shared.post(|inbox| inbox.stop = true);
    }

    /// Starts a task over there, made by `make` on that thread. After the xstream has ended this
    /// does nothing.
    pub fn spawn<F>(&self, class: Class, make: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let start = Box::new(move || drop(spawn(class, make())));
        self.shared.post(|inbox| inbox.starts.push(start));
    }
}

/// The part of an xstream that other threads may touch.
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    /// There is something in the inbox, or in a place the driver looks at.
    pending: AtomicBool,
    /// The xstream is in the kernel or about to be, and needs the event to come back.
    parked: AtomicBool,
    event: Option<EventFd>,
}

#[derive(Default)]
pub(super) struct Inbox {
    pub(super) ready: Vec<(Class, TaskId)>,
    pub(super) starts: Vec<Box<dyn FnOnce() + Send>>,
    pub(super) stop: bool,
}

impl Shared {
    pub(crate) fn new(event: Option<EventFd>) -> Shared {
        Shared {
            inbox: Mutex::default(),
            pending: AtomicBool::new(false),
            parked: AtomicBool::new(false),
            event,
        }
    }

    pub(crate) fn event(&self) -> Option<&EventFd> {
        self.event.as_ref()
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst)
    }

    /// The xstream is about to wait in the kernel; false if it must not, see `notify`.
    pub(super) fn park(&self) -> bool {
        self.parked.store(true, Ordering::SeqCst);
        !self.is_pending()
    }

    pub(super) fn unpark(&self) {
        self.parked.store(false, Ordering::SeqCst);
    }

    /// Makes the xstream turn once more. `pending` is set before `parked` is read, and the
    /// xstream sets `parked` before it reads `pending`: one of the two sees the other.
    pub(crate) fn notify(&self) {
        self.pending.store(true, Ordering::SeqCst);
        if self.parked.swap(false, Ordering::SeqCst)
            && let Some(event) = &self.event
        {
            event.signal();
        }
    }

    pub(super) fn post(&self, change: impl FnOnce(&mut Inbox)) {
        change(&mut self.inbox.lock().unwrap_or_else(PoisonError::into_inner));
        self.notify();
    }

    pub(super) fn take_inbox(&self) -> Option<Inbox> {
        if !self.pending.swap(false, Ordering::SeqCst) {
            return None;
        }
        Some(std::mem::take(&mut *self.inbox.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Puts a task into the run queue of its xstream, from whichever thread.
pub(crate) fn push_ready(shared: &Arc<Shared>, class: Class, id: TaskId) {
    if !push_local(shared, class, id) {
        shared.post(|inbox| inbox.ready.push((class, id)));
    }
}
