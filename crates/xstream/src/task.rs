//! Tasks, their wakers, and the handle that waits for one.
//!
//! A waker may be used from any thread: on its own xstream it appends to the run queue, elsewhere
//! to a locked list that the xstream looks at, after waking it if it sleeps.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::config::Class;
use crate::runtime::{Runtime, Shared, push_ready};
use crate::sched::TaskId;

/// A spawned future with its waker.
pub(crate) struct Task {
    pub(crate) future: Pin<Box<dyn Future<Output = ()>>>,
    pub(crate) waker: Waker,
    pub(crate) wake: Arc<TaskWake>,
}

/// What a waker points to.
pub(crate) struct TaskWake {
    pub(crate) id: TaskId,
    pub(crate) class: Class,
    pub(crate) shared: Arc<Shared>,
    /// Already in the run queue; reset just before the task is polled.
    pub(crate) queued: AtomicBool,
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            push_ready(&self.shared, self.class, self.id);
        }
    }
}

/// The task was aborted, or its xstream ended first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task was cancelled")]
pub struct Cancelled;

/// Waits for a task's result. Dropping it lets the task run on.
pub struct JoinHandle<T> {
    state: Rc<JoinState<T>>,
    runtime: Weak<Runtime>,
    id: TaskId,
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(state: Rc<JoinState<T>>, runtime: Weak<Runtime>, id: TaskId) -> Self {
        JoinHandle { state, runtime, id }
    }

    /// Ends the task where it waits; a task that aborts itself ends at its next wait.
    pub fn abort(&self) {
        if let Some(runtime) = self.runtime.upgrade() {
            runtime.abort(self.id);
        }
    }

    pub fn is_finished(&self) -> bool {
        self.state.finished.get()
    }

    /// The result, if the task has ended and nobody took it yet.
    pub fn try_take(&self) -> Option<Result<T, Cancelled>> {
        if !self.state.finished.get() {
            return None;
        }
        Some(self.state.value.borrow_mut().take().ok_or(Cancelled))
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.try_take() {
            return Poll::Ready(result);
        }
        self.state.waiter.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}

/// Shared by a task and its handle.
pub(crate) struct JoinState<T> {
    value: RefCell<Option<T>>,
    waiter: RefCell<Option<Waker>>,
    finished: Cell<bool>,
}

impl<T> JoinState<T> {
    pub(crate) fn new() -> Rc<JoinState<T>> {
        Rc::new(JoinState {
            value: RefCell::new(None),
            waiter: RefCell::new(None),
            finished: Cell::new(false),
        })
    }
}

/// Runs `future` and leaves its result. `finish` tells the waiter even if all this is dropped
/// before its end or its beginning.
pub(crate) async fn joined<T>(finish: Finish<T>, future: impl Future<Output = T>) {
    let value = future.await;
    finish.0.value.replace(Some(value));
}

pub(crate) struct Finish<T>(pub(crate) Rc<JoinState<T>>);

impl<T> Drop for Finish<T> {
    fn drop(&mut self) {
        self.0.finished.set(true);
        let waiter = self.0.waiter.borrow_mut().take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}
