//! A number of permits, handed out in the order of asking.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Hands out permits; a large request is not overtaken by small ones behind it.
#[derive(Clone)]
pub struct Semaphore {
    state: Rc<State>,
}

struct State {
    available: Cell<usize>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
}

struct Waiter {
    wanted: usize,
    granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Semaphore {
    pub fn new(permits: usize) -> Semaphore {
        let state = State { available: Cell::new(permits), waiters: RefCell::default() };
        Semaphore { state: Rc::new(state) }
    }

    pub fn available(&self) -> usize {
        self.state.available.get()
    }

    /// Waits for `count` permits. Asking for more than there will ever be waits forever.
    pub fn acquire(&self, count: usize) -> Acquire {
        Acquire { state: self.state.clone(), wanted: count, waiter: None }
    }

    /// Takes `count` permits if they are there and nobody waits before.
    pub fn try_acquire(&self, count: usize) -> Option<Permit> {
        self.state.try_take(count).then(|| Permit { state: self.state.clone(), count })
    }

    /// Adds permits, for good.
    pub fn add(&self, count: usize) {
        self.state.release(count);
    }
}

impl State {
    fn try_take(&self, count: usize) -> bool {
        if !self.waiters.borrow().is_empty() || self.available.get() < count {
            return false;
        }
        self.available.set(self.available.get() - count);
        true
    }

    fn release(&self, count: usize) {
        self.available.set(self.available.get() + count);
        self.grant();
    }

    fn grant(&self) {
        loop {
            let mut waiters = self.waiters.borrow_mut();
            let Some(first) = waiters.front() else { return };
            if first.wanted > self.available.get() {
                return;
            }
            self.available.set(self.available.get() - first.wanted);
            first.granted.set(true);
            let waker = first.waker.borrow_mut().take();
            waiters.pop_front();
            drop(waiters);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Future of [`Semaphore::acquire`].
pub struct Acquire {
    state: Rc<State>,
    wanted: usize,
    waiter: Option<Rc<Waiter>>,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        if let Some(waiter) = &self.waiter {
            if !waiter.granted.get() {
                waiter.waker.replace(Some(cx.waker().clone()));
                return Poll::Pending;
            }
            self.waiter = None;
            return Poll::Ready(Permit { state: self.state.clone(), count: self.wanted });
        }
        if self.state.try_take(self.wanted) {
            return Poll::Ready(Permit { state: self.state.clone(), count: self.wanted });
        }
        let waiter = Rc::new(Waiter {
            wanted: self.wanted,
            granted: Cell::new(false),
            waker: RefCell::new(Some(cx.waker().clone())),
        });
        self.state.waiters.borrow_mut().push_back(waiter.clone());
        self.waiter = Some(waiter);
        Poll::Pending
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else {
            return;
        };
        if waiter.granted.get() {
            self.state.release(waiter.wanted);
        } else {
            self.state.waiters.borrow_mut().retain(|other| !Rc::ptr_eq(other, &waiter));
            self.state.grant();
        }
    }
}

/// Permits held; they return on drop.
pub struct Permit {
    state: Rc<State>,
    count: usize,
}

impl Permit {
    pub fn count(&self) -> usize {
        self.count
    }

    /// Takes the permits out of circulation.
    pub fn forget(mut self) {
        self.count = 0;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.count > 0 {
            self.state.release(self.count);
        }
    }
}
