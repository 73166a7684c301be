//! `ceph tell`: commands to one daemon; and the ping that is also a health query.

use bytes::Bytes;

use crate::msg::types;
use crate::types::Uuid;
use crate::{Encode, Features, Message};

/// `command`: `cmd` is one JSON object (several strings are joined).
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::COMMAND, version = 1, compat = 1)]
pub struct Command {
    pub fsid: Uuid,
    pub cmd: Vec<String>,
    #[message(data)]
    pub inbl: Bytes,
}

/// `command_reply`: the status text, and the output as data.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::COMMAND_REPLY, version = 1, compat = 1)]
pub struct CommandReply {
    pub r: i32,
    pub rs: String,
    #[message(data)]
    pub outbl: Bytes,
}

/// `ping`: empty, or in a mon's answer an encoded string of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::PING, version = 1, compat = 1)]
pub struct Ping {
    #[message(rest)]
    pub payload: Bytes,
}

impl Ping {
    /// The answer of a mon.
    pub fn with_text(json: &str) -> Self {
        Self { payload: json.to_bytes(Features::default()).into() }
    }
}
