//! A condition to wait for, without a value.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Wakes tasks that wait. [`Notify::notify_one`] without a waiter is remembered, once.
#[derive(Default)]
pub struct Notify {
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
    stored: Cell<bool>,
}

#[derive(Default)]
struct Waiter {
    waker: RefCell<Option<Waker>>,
    notified: Cell<bool>,
}

impl Waiter {
    fn notify(&self) {
        self.notified.set(true);
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Notify {
    pub fn new() -> Notify {
        Notify::default()
    }

    /// Wakes the task that waits longest, or the next one to wait.
    pub fn notify_one(&self) {
        let waiter = self.waiters.borrow_mut().pop_front();
        match waiter {
            Some(waiter) => waiter.notify(),
            None => self.stored.set(true),
        }
    }

    /// Wakes all tasks that wait now.
    pub fn notify_all(&self) {
        let waiters = self.waiters.take();
        for waiter in waiters {
            waiter.notify();
        }
    }

    /// Waits to be notified. It counts as waiting from its first poll on.
    pub fn notified(&self) -> Notified<'_> {
        Notified { notify: self, waiter: None }
    }
}

/// Future of [`Notify::notified`].
pub struct Notified<'a> {
    notify: &'a Notify,
    waiter: Option<Rc<Waiter>>,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(waiter) = &self.waiter {
            if waiter.notified.get() {
                self.waiter = None;
                return Poll::Ready(());
            }
            waiter.waker.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        if self.notify.stored.replace(false) {
            return Poll::Ready(());
        }
        let waiter = Rc::new(Waiter::default());
        waiter.waker.replace(Some(cx.waker().clone()));
        self.notify.waiters.borrow_mut().push_back(waiter.clone());
        self.waiter = Some(waiter);
        Poll::Pending
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else {
            return;
        };
        if waiter.notified.get() {
            // Notified but never told: pass it on, or a wake-up is lost.
            self.notify.notify_one();
        } else {
            self.notify.waiters.borrow_mut().retain(|other| !Rc::ptr_eq(other, &waiter));
        }
    }
}
