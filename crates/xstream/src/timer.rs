//! Timers: a sorted map of deadlines on the xstream's own clock.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::runtime::{Runtime, current};

/// Waits for `duration`.
pub fn sleep(duration: Duration) -> Sleep {
    let runtime = current();
    let deadline = runtime.now().saturating_add(duration);
    Sleep { runtime, deadline, entry: None }
}

/// Waits until [`crate::now`] reaches `deadline`.
pub fn sleep_until(deadline: Duration) -> Sleep {
    Sleep { runtime: current(), deadline, entry: None }
}

/// The time allowed by [`timeout`] is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct Elapsed;

/// Runs `future` for at most `duration`, then drops it.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = sleep(duration);
    std::future::poll_fn(move |cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed))
    })
    .await
}

/// Future of [`sleep`] and [`sleep_until`].
pub struct Sleep {
    runtime: Rc<Runtime>,
    deadline: Duration,
    entry: Option<TimerKey>,
}

impl Sleep {
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Moves the deadline; also starts anew a sleep that has ended.
    pub fn reset(&mut self, deadline: Duration) {
        self.disarm();
        self.deadline = deadline;
    }

    fn disarm(&mut self) {
        if let Some(entry) = self.entry.take() {
            let waker = self.runtime.timers.borrow_mut().remove(entry);
            drop(waker);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if this.runtime.now() >= this.deadline {
            this.disarm();
            return Poll::Ready(());
        }
        let mut timers = this.runtime.timers.borrow_mut();
        match this.entry {
            Some(entry) if timers.renew(entry, cx.waker()) => {}
            _ => this.entry = Some(timers.insert(this.deadline, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

/// A deadline and a number that tells equal deadlines apart, in order of arming.
pub(crate) type TimerKey = (Duration, u64);

/// Armed timers of one xstream.
#[derive(Default)]
pub(crate) struct Timers {
    entries: BTreeMap<TimerKey, Waker>,
    armed: u64,
}

impl Timers {
    fn insert(&mut self, deadline: Duration, waker: Waker) -> TimerKey {
        self.armed += 1;
        let key = (deadline, self.armed);
        self.entries.insert(key, waker);
        key
    }

    /// Points an armed timer to `waker`; false if it has fired already.
    fn renew(&mut self, key: TimerKey, waker: &Waker) -> bool {
        match self.entries.get_mut(&key) {
            Some(armed) => {
                armed.clone_from(waker);
                true
            }
            None => false,
        }
    }

    fn remove(&mut self, key: TimerKey) -> Option<Waker> {
        self.entries.remove(&key)
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.entries.first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// Takes one timer that is due.
    pub(crate) fn pop_due(&mut self, now: Duration) -> Option<Waker> {
        let entry = self.entries.first_entry()?;
        if entry.key().0 > now { None } else { Some(entry.remove()) }
    }
}
