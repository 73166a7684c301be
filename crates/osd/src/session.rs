//! A client's session: who it is, what it may do, and how to answer it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;

use spirula_auth::caps::OsdCap;
use spirula_msgr::on_xstream;
use spirula_wire::Features;
use spirula_wire::types::{EntityAddrVec, EntityName, EntityNameStr};

use crate::front::OpRequest;

/// An authenticated peer on one connection.
pub struct Session {
    pub entity: EntityName,
    pub name: EntityNameStr,
    pub addrs: EntityAddrVec,
    pub features: Features,
    pub caps: OsdCap,
    /// Nothing to check per request.
    pub allow_all: bool,
    /// The newest map epoch the peer is known to have.
    pub known_epoch: Cell<u32>,
    /// Requests that wait for a map or a PG, and whether a task begins them.
    pub waiting: RefCell<VecDeque<OpRequest>>,
    pub draining: Cell<bool>,
    pub link: on_xstream::Session,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) at {}", self.entity, self.name, self.addrs)
    }
}
