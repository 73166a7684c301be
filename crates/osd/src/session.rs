//! A client's session: who it is, what it may do, and how to answer it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;

use spirula_auth::caps::OsdCap;
use spirula_msgr::on_xstream::{self, Incoming};
use spirula_wire::msg::osd::OsdBackoff;
use spirula_wire::types::{EntityAddr, EntityAddrVec, EntityName, EntityNameStr};
use spirula_wire::{Features, RawMessage};

use crate::backoff::Backoffs;
use crate::front::OpRequest;

/// An authenticated peer on one connection.
pub struct Session {
    pub entity: EntityName,
    pub name: EntityNameStr,
    /// What it calls its addresses.
    pub addrs: EntityAddrVec,
    /// Where its socket is.
    pub socket_addr: EntityAddr,
    pub features: Features,
    pub caps: OsdCap,
    /// Nothing to check per request.
    pub allow_all: bool,
    /// The newest map epoch the peer is known to have.
    pub known_epoch: Cell<u32>,
    pub backoffs: RefCell<Backoffs>,
    /// What waits for a map or a PG, and whether a task begins it.
    pub waiting: RefCell<VecDeque<Waiting>>,
    pub draining: Cell<bool>,
    /// What follows the next reply.
    pub after_reply: RefCell<Vec<RawMessage>>,
    pub link: on_xstream::Session,
}

/// What comes after a request that waits has to wait, too: order matters.
#[derive(Debug)]
pub enum Waiting {
    Request(OpRequest),
    /// An answer to a BLOCK, and what holds its share of the dispatch throttle.
    Acknowledgement(OsdBackoff, Incoming),
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) at {}", self.entity, self.name, self.addrs)
    }
}
