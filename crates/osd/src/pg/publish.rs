//! Puts completions back into submission order: a write is published when it and everything
//! submitted before it in its PG is durable, here and at every other copy.
//!
//! Every reply that observed staged state waits for the publish of that state.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// The store stopped: nothing will be published any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the store stopped before the write was durable")]
pub struct Unpublished;

/// The publish order of one PG. Tickets ascend by one; what is below the first means "long ago".
#[derive(Debug)]
pub struct Publisher {
    /// Lowest ticket that is not published.
    base: Cell<u64>,
    /// What the other copies hold: no ticket above it is published.
    limit: Cell<u64>,
    pending: RefCell<VecDeque<Slot>>,
    failed: Cell<bool>,
}

#[derive(Debug, Default)]
struct Slot {
    durable: bool,
    wakers: Vec<Waker>,
}

impl Default for Publisher {
    fn default() -> Self {
        Self::from(1)
    }
}

impl Publisher {
    /// The first ticket will be this one.
    pub fn from(first: u64) -> Self {
        Self {
            base: Cell::new(first),
            limit: Cell::new(u64::MAX),
            pending: RefCell::default(),
            failed: Cell::new(false),
        }
    }

    /// Everything before this ticket is long ago. Nothing was submitted yet.
    pub fn begin(&self, first: u64, limit: u64) {
        self.base.set(first);
        self.limit.set(limit);
    }

    /// The other copies hold everything up to this ticket.
    pub fn raise_limit(&self, limit: u64) {
        self.limit.set(limit);
        self.release();
    }

    /// The ticket of a write that is being submitted now.
    pub fn submitted(&self) -> u64 {
        let mut pending = self.pending.borrow_mut();
        pending.push_back(Slot::default());
        self.base.get() + pending.len() as u64 - 1
    }

    /// The newest ticket given out.
    pub fn last(&self) -> u64 {
        self.base.get() + self.pending.borrow().len() as u64 - 1
    }

    pub fn is_published(&self, ticket: u64) -> bool {
        ticket < self.base.get()
    }

    /// The write of `ticket` is durable.
    pub fn durable(&self, ticket: u64) {
        let Some(at) = ticket.checked_sub(self.base.get()) else {
            return;
        };
        if let Some(slot) = self.pending.borrow_mut().get_mut(at as usize) {
            slot.durable = true;
        }
        self.release();
    }

    fn release(&self) {
        let mut pending = self.pending.borrow_mut();
        while pending.front().is_some_and(|s| s.durable) && self.base.get() <= self.limit.get() {
            self.base.set(self.base.get() + 1);
            if let Some(slot) = pending.pop_front() {
                slot.wakers.into_iter().for_each(Waker::wake);
            }
        }
    }

    /// A commit failed: nobody who waits, or will wait, gets an answer.
    pub fn fail(&self) {
        self.failed.set(true);
        for slot in self.pending.borrow_mut().iter_mut() {
            slot.wakers.drain(..).for_each(Waker::wake);
        }
    }

    /// An error once a commit failed: what is staged then is not durable, whoever may look at it.
    pub fn check(&self) -> Result<(), Unpublished> {
        if self.failed.get() { Err(Unpublished) } else { Ok(()) }
    }

    /// Waits until `ticket` is published.
    pub async fn published(&self, ticket: u64) -> Result<(), Unpublished> {
        poll_fn(|cx| {
            if self.is_published(ticket) {
                return Poll::Ready(Ok(()));
            }
            if self.check().is_err() {
                return Poll::Ready(Err(Unpublished));
            }
            let at = (ticket - self.base.get()) as usize;
            if let Some(slot) = self.pending.borrow_mut().get_mut(at)
                && !slot.wakers.iter().any(|w| w.will_wake(cx.waker()))
            {
                slot.wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    #[test]
    fn publishing_follows_submission_order() {
        let p = Publisher::default();
        assert!(p.is_published(0) && p.is_published(p.last()));
        let (a, b) = (p.submitted(), p.submitted());
        assert_eq!(p.last(), b);
        let mut wait = pin!(p.published(b));
        let mut cx = Context::from_waker(Waker::noop());
        p.durable(b);
        assert!(wait.as_mut().poll(&mut cx).is_pending());
        p.durable(a);
        assert_eq!(wait.as_mut().poll(&mut cx), Poll::Ready(Ok(())));
    }

    #[test]
    fn nothing_is_published_before_the_other_copies_hold_it() {
        let p = Publisher::default();
        p.begin(8, 7);
        let (a, b) = (p.submitted(), p.submitted());
        assert_eq!((a, b, p.is_published(7)), (8, 9, true));
        p.durable(a);
        p.durable(b);
        assert!(!p.is_published(a));
        p.raise_limit(8);
        assert!(p.is_published(a) && !p.is_published(b));
        p.raise_limit(9);
        assert!(p.is_published(b));
    }

    #[test]
    fn a_failure_reaches_every_waiter() {
        let p = Publisher::default();
        let a = p.submitted();
        let mut wait = pin!(p.published(a));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(wait.as_mut().poll(&mut cx).is_pending());
        assert_eq!(p.check(), Ok(()));
        p.fail();
        assert_eq!(p.check(), Err(Unpublished));
        assert_eq!(wait.as_mut().poll(&mut cx), Poll::Ready(Err(Unpublished)));
    }
}
