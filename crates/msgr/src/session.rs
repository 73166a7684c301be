//! The handle of a session, and what passes between it and the driver.
//!
//! Invariant: the outbox is the only thing that driver and handles share, and nothing is called
//! while it is held.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use spirula_auth::AuthError;
use spirula_msgr_core::{Answer, AuthFailure, InMessage, Peer, ProtocolError, SessionEvent};
use spirula_wire::RawMessage;

/// Commands on their way to the driver.
#[derive(Debug, Default)]
pub struct Outbox {
    pub(crate) messages: VecDeque<RawMessage>,
    /// How a lossless session goes on; comes before the messages.
    pub(crate) answers: VecDeque<Answer>,
    pub(crate) keepalive: bool,
    pub(crate) close: bool,
    /// Messages and bytes given back to the dispatch throttle.
    pub(crate) released: (u64, u64),
    /// Set by the driver while the throttle keeps it from receiving.
    pub(crate) throttled: bool,
    /// The driver is gone.
    pub(crate) ended: bool,
    waker: Option<Waker>,
}

impl Outbox {
    fn has_work(&self) -> bool {
        let released = self.throttled && self.released.0 > 0;
        let queued = !self.messages.is_empty() || !self.answers.is_empty();
        queued || self.keepalive || self.close || released
    }
}

/// Where the outbox lives: `Rc<RefCell<_>>` on an xstream, `Arc<Mutex<_>>` where threads meet.
pub trait Shared: Clone {
    fn new(outbox: Outbox) -> Self;
    fn with<R>(&self, f: impl FnOnce(&mut Outbox) -> R) -> R;
}

impl Shared for Rc<RefCell<Outbox>> {
    fn new(outbox: Outbox) -> Self {
        Rc::new(RefCell::new(outbox))
    }

    fn with<R>(&self, f: impl FnOnce(&mut Outbox) -> R) -> R {
        f(&mut self.borrow_mut())
    }
}

impl Shared for Arc<Mutex<Outbox>> {
    fn new(outbox: Outbox) -> Self {
        Arc::new(Mutex::new(outbox))
    }

    fn with<R>(&self, f: impl FnOnce(&mut Outbox) -> R) -> R {
        // Nothing panics while it is held, and its contents have no invariant to break.
        f(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A handle on a session; clones reach the same one. Dropping the last does not close it.
#[derive(Clone)]
pub struct Session<S> {
    id: u64,
    shared: S,
}

impl<S: Shared> Session<S> {
    pub(crate) fn new() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        Self { id, shared: S::new(Outbox::default()) }
    }

    /// Unique in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Queues a message. Before the handshake is complete it waits; after the end it is dropped.
    pub fn send(&self, message: RawMessage) {
        self.command(|outbox| outbox.messages.push_back(message));
    }

    /// Answers an [`Event::Session`].
    pub fn answer(&self, answer: Answer) {
        self.command(|outbox| outbox.answers.push_back(answer));
    }

    /// Queues a KEEPALIVE2; its answer is [`Event::KeepaliveAck`].
    pub fn keepalive(&self) {
        self.command(|outbox| outbox.keepalive = true);
    }

    /// Sends what is queued, then closes the socket.
    pub fn close(&self) {
        self.command(|outbox| outbox.close = true);
    }

    /// The driver has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.with(|outbox| outbox.ended)
    }

    fn command(&self, f: impl FnOnce(&mut Outbox)) {
        let waker = self.shared.with(|outbox| {
            if outbox.ended {
                return None;
            }
            f(outbox);
            if outbox.has_work() { outbox.waker.take() } else { None }
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// For the driver: takes from the outbox, or waits until there is something.
    pub(crate) fn poll_work(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.shared.with(|outbox| {
            if outbox.has_work() {
                return Poll::Ready(());
            }
            match &outbox.waker {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                _ => outbox.waker = Some(cx.waker().clone()),
            }
            Poll::Pending
        })
    }

    pub(crate) fn outbox<R>(&self, f: impl FnOnce(&mut Outbox) -> R) -> R {
        self.shared.with(f)
    }
}

impl<S> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.id)
    }
}

/// A received message, which counts against the session's dispatch throttle until it is dropped.
pub struct Incoming<S: Shared> {
    pub raw: RawMessage,
    /// Standard CRC-32C of each 4 KiB of the data segment, verified.
    pub data_crcs: Vec<u32>,
    cost: u64,
    session: Session<S>,
}

impl<S: Shared> Incoming<S> {
    pub(crate) fn new(message: InMessage, session: Session<S>) -> Self {
        let InMessage { raw, data_crcs, cost } = message;
        Self { raw, data_crcs, cost, session }
    }

    /// The session it came on.
    pub fn session(&self) -> &Session<S> {
        &self.session
    }
}

impl<S: Shared> Drop for Incoming<S> {
    fn drop(&mut self) {
        let cost = self.cost;
        self.session.command(|outbox| {
            outbox.released.0 += 1;
            outbox.released.1 += cost;
        });
    }
}

impl<S: Shared> fmt::Debug for Incoming<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("header", &self.raw.header)
            .field("cost", &self.cost)
            .field("session", &self.session)
            .finish()
    }
}

/// What happens on a session.
#[derive(Debug)]
pub enum Event<S: Shared> {
    /// The handshake is complete.
    Ready(Box<Peer>),
    Message(Incoming<S>),
    /// The peer acknowledged a keepalive.
    KeepaliveAck,
    /// Of a lossless session; waits for [`Session::answer`].
    Session(SessionEvent),
    /// Always the last.
    Closed(CloseReason),
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum CloseReason {
    #[error("closed by this side")]
    Local,
    #[error("closed by the peer")]
    Peer,
    #[error(transparent)]
    Protocol(ProtocolError),
    #[error("connection lost: {0}")]
    Io(io::Error),
}

impl CloseReason {
    /// What our credentials were refused with, if that is why the session ended.
    pub fn refusal(self) -> Option<AuthError> {
        match self {
            Self::Protocol(ProtocolError::Auth(AuthFailure::Connector(error))) => Some(error),
            _ => None,
        }
    }
}
