//! A queue from many tasks of an xstream to one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// An unbounded queue; bound what goes in with a [`super::Semaphore`].
pub fn queue<T>() -> (QueueSender<T>, QueueReceiver<T>) {
    let state = State { items: VecDeque::new(), waker: None, senders: 1, closed: false };
    let state = Rc::new(RefCell::new(state));
    (QueueSender { state: state.clone() }, QueueReceiver { state })
}

struct State<T> {
    items: VecDeque<T>,
    waker: Option<Waker>,
    senders: usize,
    closed: bool,
}

/// Puts items into the queue.
pub struct QueueSender<T> {
    state: Rc<RefCell<State<T>>>,
}

impl<T> QueueSender<T> {
    /// The item comes back if the receiver is gone.
    pub fn send(&self, item: T) -> Result<(), T> {
        let mut state = self.state.borrow_mut();
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    pub fn is_closed(&self) -> bool {
        self.state.borrow().closed
    }
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> QueueSender<T> {
        self.state.borrow_mut().senders += 1;
        QueueSender { state: self.state.clone() }
    }
}

impl<T> Drop for QueueSender<T> {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.state.borrow_mut();
            state.senders -= 1;
            if state.senders == 0 { state.waker.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Takes items out of the queue.
pub struct QueueReceiver<T> {
    state: Rc<RefCell<State<T>>>,
}

impl<T> QueueReceiver<T> {
    /// The next item; `None` when there is none and no sender is left.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if let Some(item) = state.items.pop_front() {
                return Poll::Ready(Some(item));
            }
            if state.senders == 0 {
                return Poll::Ready(None);
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    pub fn try_recv(&mut self) -> Option<T> {
        self.state.borrow_mut().items.pop_front()
    }

    pub fn len(&self) -> usize {
        self.state.borrow().items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Drop for QueueReceiver<T> {
    fn drop(&mut self) {
        let items = {
            let mut state = self.state.borrow_mut();
            state.closed = true;
            state.waker = None;
            std::mem::take(&mut state.items)
        };
        drop(items);
    }
}
