//! Watch and notify: who watches an object, which of them are connected, and notifies under way.
//!
//! A watch is a record in the object's info, so it outlives sessions and restarts; [`table`] holds what
//! does not: its connection, its time-out, and the notifies that it has not acknowledged. As in Ceph,
//! the table learns of an object's watches when a request first meets the object in an interval, and
//! their time-outs begin then. [`drive`] carries out what the table decides.

pub mod drive;
pub mod table;

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_wire::Denc;
use spirula_wire::types::{EntityAddr, EntityName};

/// Tells the watches of one object apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Denc)]
pub struct WatchKey {
    pub cookie: u64,
    pub entity: EntityName,
}

/// What the object's info keeps of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Denc)]
pub struct WatchInfo {
    pub timeout_seconds: u32,
    pub addr: EntityAddr,
}

/// The watches of one object.
pub type Watchers = BTreeMap<WatchKey, WatchInfo>;

/// What the interpreter has to know besides the object's info.
#[derive(Clone, Copy, Debug, Default)]
pub struct WatchState<'a> {
    /// Watches of the object that have a connection, in order; only for requests that ask.
    pub connected: &'a [WatchKey],
    /// Of the request's first notify; the next ones follow.
    pub notify_id: u64,
}

/// What a request does to watches and notifies once it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEffect {
    /// The watch is gone; its client is told if it did not ask for that.
    Remove {
        key: WatchKey,
        tell: bool,
    },
    /// The request's session is where the watch is served from now on. `pings`: the client shows by
    /// pings that it lives; otherwise by its session.
    Connect {
        key: WatchKey,
        info: WatchInfo,
        pings: bool,
    },
    Ping(WatchKey),
    Notify {
        id: u64,
        cookie: u64,
        timeout_seconds: u32,
        payload: Bytes,
    },
    /// The sender's watches have got a notify: the one with the cookie, or all of them.
    Acknowledge {
        id: u64,
        cookie: Option<u64>,
        reply: Bytes,
    },
}

impl WatchEffect {
    /// Effects of one request come in this order, whatever that of its operations is.
    pub fn rank(&self) -> u8 {
        match self {
            Self::Remove { .. } => 0,
            Self::Connect { .. } | Self::Ping(_) => 1,
            Self::Notify { .. } => 2,
            Self::Acknowledge { .. } => 3,
        }
    }
}
