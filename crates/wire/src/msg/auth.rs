//! Authentication inside an open mon session: ticket renewal. (The handshake itself uses frames.)

use bytes::Bytes;

use crate::Message;
use crate::message::PRIO_HIGH;
use crate::msg::{Paxos, types};

/// `auth`: a cephx request. With protocol 0 the payload would list the supported protocols.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::AUTH, version = 1, compat = 1)]
pub struct Auth {
    pub paxos: Paxos,
    pub protocol: u32,
    pub payload: Bytes,
    pub monmap_epoch: u32,
}

/// `auth_reply`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::AUTH_REPLY, version = 1, compat = 1, priority = PRIO_HIGH)]
pub struct AuthReply {
    pub protocol: u32,
    pub result: i32,
    pub global_id: u64,
    pub payload: Bytes,
    pub message: String,
}

/// `global_id`: one mon asks its leader for more global ids.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MON_GLOBAL_ID, version = 1, compat = 1)]
pub struct MonGlobalId {
    pub paxos: Paxos,
    pub old_max_id: u64,
}
