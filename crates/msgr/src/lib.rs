//! Messenger v2 connections over a transport: one driver loop, for xstreams and for tokio.
//!
//! [`drive`] owns a [`Connection`](spirula_msgr_core::Connection) and a [`Transport`]; a [`Session`]
//! is the handle that everybody else holds. [`on_xstream`] and [`on_tokio`] put the two together
//! with their world's sockets and tasks. [`MonSessions`] joins them with a monitor client.
//!
//! Invariants: all that is queued in one turn leaves in one vectored send; a received message holds
//! its share of the dispatch throttle until its [`Incoming`] is dropped; every session ends with
//! exactly one [`Event::Closed`], also one whose socket never opened.
#![forbid(unsafe_code)]

mod driver;
mod mon_sessions;
pub mod on_tokio;
pub mod on_xstream;
mod session;
mod transport;

pub use driver::drive;
pub use mon_sessions::{MonAction, MonSessions};
pub use session::{CloseReason, Event, Incoming, Outbox, Session, Shared};
pub use spirula_msgr_core::{
    Action as LosslessAction, Answer, AuthFailure, Config, Limits, Lossless, Now,
    Options as LosslessOptions, Peer, Policy as LosslessPolicy, ProtocolError, SendError,
    SessionEvent, SessionId, SessionPeer, Target, Timeouts,
};
pub use transport::Transport;

/// What an accepting side decides about a new socket.
pub struct Accepted<D> {
    pub config: Config,
    pub auth: Box<dyn spirula_auth::AcceptAuth>,
    /// Called with every event of the session, on the task that drives it.
    pub dispatch: D,
}
