//! Order of requests on one object: a fair lock with groups.
//!
//! Readers share it. Writers share it too, so that writes to one object pipeline, but only one of
//! them is between load and submission at a time, and a reader waits until they are published. A
//! request that reads data and writes takes it alone. Requests get it in the order they asked.
//!
//! Invariant: an object is in the table only while somebody holds or awaits its lock.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use foldhash::HashMap;

/// How an object is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Read,
    Write,
    /// Alone: reads of data on the device must not meet a write in flight.
    Exclusive,
}

/// The locks of one PG.
#[derive(Debug, Default)]
pub struct ObjectLocks {
    objects: RefCell<HashMap<Bytes, Object>>,
}

#[derive(Debug)]
struct Object {
    mode: Mode,
    holders: usize,
    /// A writer has not submitted yet.
    planning: bool,
    queue: VecDeque<Rc<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    mode: Mode,
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl ObjectLocks {
    /// Waits for its turn on `key`.
    pub async fn acquire(self: &Rc<Self>, key: Bytes, mode: Mode) -> Held {
        let waiter = self.enqueue(&key, mode);
        // Made before waiting: dropping the future gives the place back.
        let held = Held { locks: self.clone(), key, mode, waiter };
        if let Some(waiter) = &held.waiter {
            poll_fn(|cx| {
                if waiter.granted.get() {
                    return Poll::Ready(());
                }
                *waiter.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            })
            .await;
        }
        held
    }

    /// Objects that are locked or awaited.
    pub fn len(&self) -> usize {
        self.objects.borrow().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the lock at once, or returns the place in the queue.
    fn enqueue(&self, key: &Bytes, mode: Mode) -> Option<Rc<Waiter>> {
        let mut objects = self.objects.borrow_mut();
        let Some(object) = objects.get_mut(key) else {
            let planning = mode != Mode::Read;
            let object = Object { mode, holders: 1, planning, queue: VecDeque::new() };
            objects.insert(key.clone(), object);
            return None;
        };
        if object.queue.is_empty() && object.admits(mode) {
            object.grant(mode);
            return None;
        }
        let waiter = Rc::new(Waiter { mode, granted: Cell::new(false), waker: RefCell::new(None) });
        object.queue.push_back(waiter.clone());
        Some(waiter)
    }

    fn submitted(&self, key: &Bytes) {
        if let Some(object) = self.objects.borrow_mut().get_mut(key) {
            object.planning = false;
            object.advance();
        }
    }

    fn release(&self, key: &Bytes, waiter: Option<&Rc<Waiter>>) {
        let mut objects = self.objects.borrow_mut();
        let Some(object) = objects.get_mut(key) else {
            return;
        };
        match waiter {
            Some(w) if !w.granted.get() => object.queue.retain(|q| !Rc::ptr_eq(q, w)),
            _ => object.holders -= 1,
        }
        object.advance();
        if object.holders == 0 {
            objects.remove(key);
        }
    }
}

impl Object {
    fn admits(&self, mode: Mode) -> bool {
        match (self.holders, self.mode, mode) {
            (0, ..) | (_, Mode::Read, Mode::Read) => true,
            (_, Mode::Write, Mode::Write) => !self.planning,
            _ => false,
        }
    }

    fn grant(&mut self, mode: Mode) {
        self.mode = mode;
        self.holders += 1;
        self.planning = mode != Mode::Read;
    }

    /// Lets in whoever may enter now, from the front of the queue.
    fn advance(&mut self) {
        while let Some(next) = self.queue.front()
            && self.admits(next.mode)
        {
            let next = self.queue.pop_front();
            if let Some(next) = next {
                self.grant(next.mode);
                next.granted.set(true);
                if let Some(waker) = next.waker.borrow_mut().take() {
                    waker.wake();
                }
            }
        }
    }
}

/// A held lock, or a place in its queue; dropping it lets the next in.
#[derive(Debug)]
pub struct Held {
    locks: Rc<ObjectLocks>,
    key: Bytes,
    mode: Mode,
    waiter: Option<Rc<Waiter>>,
}

impl Held {
    /// The write is in the store's order now: the next writer may plan.
    pub fn submitted(&self) {
        if self.mode == Mode::Write {
            self.locks.submitted(&self.key);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let granted = self.waiter.as_ref().is_none_or(|w| w.granted.get());
        if granted {
            self.submitted();
        }
        self.locks.release(&self.key, self.waiter.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::Context;

    use super::*;

    type Pending = Pin<Box<dyn Future<Output = Held>>>;

    fn ask(locks: &Rc<ObjectLocks>, mode: Mode) -> Pending {
        let locks = locks.clone();
        Box::pin(async move { locks.acquire(Bytes::from_static(b"o"), mode).await })
    }

    fn poll(f: &mut Pending) -> Option<Held> {
        match f.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(held) => Some(held),
            Poll::Pending => None,
        }
    }

    #[test]
    fn readers_share_and_wait_for_writers() {
        let locks = Rc::new(ObjectLocks::default());
        let a = poll(&mut ask(&locks, Mode::Read)).unwrap();
        let b = poll(&mut ask(&locks, Mode::Read)).unwrap();
        let mut w = ask(&locks, Mode::Write);
        assert!(poll(&mut w).is_none());
        let mut late = ask(&locks, Mode::Read);
        assert!(poll(&mut late).is_none(), "no overtaking");
        drop((a, b));
        let w = poll(&mut w).unwrap();
        w.submitted();
        assert!(poll(&mut late).is_none(), "submitted is not published");
        drop(w);
        drop(poll(&mut late).unwrap());
        assert!(locks.is_empty());
    }

    #[test]
    fn writers_pipeline_after_submission() {
        let locks = Rc::new(ObjectLocks::default());
        let first = poll(&mut ask(&locks, Mode::Write)).unwrap();
        let mut second = ask(&locks, Mode::Write);
        assert!(poll(&mut second).is_none());
        first.submitted();
        let second = poll(&mut second).unwrap();
        let mut alone = ask(&locks, Mode::Exclusive);
        second.submitted();
        assert!(poll(&mut alone).is_none());
        drop(first);
        assert!(poll(&mut alone).is_none());
        drop(second);
        assert!(poll(&mut alone).is_some());
        assert!(locks.is_empty());
    }

    #[test]
    fn a_dropped_waiter_leaves_no_trace() {
        let locks = Rc::new(ObjectLocks::default());
        let held = poll(&mut ask(&locks, Mode::Write)).unwrap();
        let mut gone = ask(&locks, Mode::Exclusive);
        assert!(poll(&mut gone).is_none());
        let mut granted = ask(&locks, Mode::Write);
        assert!(poll(&mut granted).is_none());
        drop(gone);
        held.submitted();
        drop(granted);
        drop(held);
        assert!(locks.is_empty());
    }
}
