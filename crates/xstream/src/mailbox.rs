//! Messages to an xstream from any thread, other xstreams included.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// A mailbox without a bound: for senders that are bounded themselves.
pub fn mailbox<T>() -> (Sender<T>, Receiver<T>) {
    mailbox_bounded(usize::MAX)
}

/// A mailbox that refuses the message that would be one more than `len_max`.
pub fn mailbox_bounded<T>(len_max: usize) -> (Sender<T>, Receiver<T>) {
    let state = State { messages: VecDeque::new(), waiter: None, senders: 1, closed: false };
    let shared = Arc::new(Shared { state: Mutex::new(state), len_max });
    (Sender { shared: shared.clone() }, Receiver { shared })
}

/// Why a message was not taken; it comes back.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError<T> {
    #[error("the mailbox is full")]
    Full(T),
    #[error("the mailbox's owner is gone")]
    Closed(T),
}

/// Puts messages into a mailbox, from any thread.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        let mut state = self.shared.lock();
        if state.closed {
            return Err(SendError::Closed(message));
        }
        if state.messages.len() >= self.shared.len_max {
            return Err(SendError::Full(message));
        }
        state.messages.push_back(message);
        let waiter = state.waiter.take();
        drop(state);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
        Ok(())
    }

    pub fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        self.shared.lock().senders += 1;
        Sender { shared: self.shared.clone() }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.senders -= 1;
        let waiter = if state.senders == 0 { state.waiter.take() } else { None };
        drop(state);
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

/// Takes messages out of a mailbox.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Receiver<T> {
    /// The next message; `None` when there is none and no sender is left.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            if let Some(message) = state.messages.pop_front() {
                return Poll::Ready(Some(message));
            }
            if state.senders == 0 {
                return Poll::Ready(None);
            }
            let before = state.waiter.replace(cx.waker().clone());
            drop(state);
            drop(before);
            Poll::Pending
        })
        .await
    }

    pub fn try_recv(&mut self) -> Option<T> {
        self.shared.lock().messages.pop_front()
    }

    /// All messages at once, in order.
    pub fn take_all(&mut self) -> VecDeque<T> {
        std::mem::take(&mut self.shared.lock().messages)
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let messages = std::mem::take(&mut state.messages);
        let waiter = state.waiter.take();
        drop(state);
        drop(messages);
        drop(waiter);
    }
}

struct Shared<T> {
    state: Mutex<State<T>>,
    len_max: usize,
}

struct State<T> {
    messages: VecDeque<T>,
    waiter: Option<Waker>,
    senders: usize,
    closed: bool,
}

impl<T> Shared<T> {
    /// A panic elsewhere leaves the state whole: no code of a message's type runs under the lock.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
