//! Operations in flight: the table that keeps their handles, and the futures that wait for them.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::driver::{Key, Op, Output};
use crate::file::FileInner;
use crate::net::Socket;

use super::Runtime;

/// Keeps a socket or file open while an operation on it is in flight.
#[expect(dead_code, reason = "held, not read")]
pub(crate) enum Keep {
    Socket(Rc<Socket>),
    File(Rc<FileInner>),
}

pub(super) struct OpSlot {
    pub(super) output: Option<Output>,
    waker: Option<Waker>,
    abandoned: bool,
    #[expect(dead_code, reason = "held, not read")]
    keep: Keep,
}

impl Runtime {
    pub(super) fn complete(&self, key: Key, output: Output) {
        self.in_flight.set(self.in_flight.get() - 1);
        let mut ops = self.ops.borrow_mut();
        let slot = &mut ops[key];
        if slot.abandoned {
            let slot = ops.remove(key);
            drop(ops);
            self.dispose(output);
            drop(slot);
            return;
        }
        slot.output = Some(output);
        let waker = slot.waker.take();
        drop(ops);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Drops an outcome nobody takes.
    fn dispose(&self, output: Output) {
        if let Output::Accepted(Ok(raw)) = output {
            self.driver.borrow_mut().close_socket(raw);
        }
    }

    /// Starts an operation at once; the future only waits for it.
    pub(crate) fn submit(self: &Rc<Self>, op: Op, keep: Keep) -> OpFuture {
        let slot = OpSlot { output: None, waker: None, abandoned: false, keep };
        let key = self.ops.borrow_mut().insert(slot);
        self.in_flight.set(self.in_flight.get() + 1);
        self.driver.borrow_mut().submit(key, op);
        OpFuture { runtime: self.clone(), key, taken: false }
    }

    /// Forgets operations whose outcome will never come: the simulated host is gone.
    pub(crate) fn forget_operations(&self) {
        drop(self.ops.take());
        self.in_flight.set(0);
    }
}

/// An operation in flight. Dropped early, it is cancelled; its buffers live until it has ended.
pub(crate) struct OpFuture {
    runtime: Rc<Runtime>,
    key: Key,
    taken: bool,
}

impl Future for OpFuture {
    type Output = Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Output> {
        assert!(!self.taken, "an operation was polled after its end");
        let mut ops = self.runtime.ops.borrow_mut();
        // Gone with its simulated host: the outcome never comes.
        let Some(slot) = ops.get_mut(self.key) else {
            return Poll::Pending;
        };
        if let Some(output) = slot.output.take() {
            let slot = ops.remove(self.key);
            drop(ops);
            drop(slot);
            self.taken = true;
            return Poll::Ready(output);
        }
        match &mut slot.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => slot.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for OpFuture {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut ops = self.runtime.ops.borrow_mut();
        let Some(slot) = ops.get_mut(self.key) else {
            return;
        };
        let waker = slot.waker.take();
        match slot.output.take() {
            Some(output) => {
                let slot = ops.remove(self.key);
                drop(ops);
                self.runtime.dispose(output);
                drop(slot);
            }
            None => {
                slot.abandoned = true;
                drop(ops);
                self.runtime.driver.borrow_mut().cancel(self.key);
            }
        }
        drop(waker);
    }
}
