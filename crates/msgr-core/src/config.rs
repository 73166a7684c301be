//! What the owner of a connection decides, and every bound on what the peer may make us hold.

use std::time::Duration;

use spirula_wire::Features;
use spirula_wire::features::MSG_ADDR2;
use spirula_wire::types::{EntityAddr, EntityAddrVec, EntityName, EntityType};

use crate::banner::Banner;

/// Time as the driver's clocks tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Monotonic; measures time-outs.
    pub mono: Duration,
    /// Since the Unix epoch; dates tickets and keepalives.
    pub wall: Duration,
}

/// Our side of a connection.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our type, and the number we identify with: a daemon's id, a client's global id, or -1 in a
    /// client's new session with a monitor.
    pub name: EntityName,
    /// Our addresses. Empty: a connecting side then uses the address the peer sees, with port 0;
    /// an accepting side takes every peer, whomever it wanted to reach.
    pub addrs: EntityAddrVec,
    /// Nonce of the address taken from the peer.
    pub nonce: u32,
    pub supported: Features,
    /// What the peer must support.
    pub required: Features,
    /// Grows with every connection of this process.
    pub global_seq: u64,
    /// Peers of this type keep their session when a socket dies: the owner holds it
    /// ([`Lossless`](crate::Lossless)) and answers each [`Event::Session`](crate::Event::Session).
    pub lossless: Option<EntityType>,
    /// The messenger's own features.
    pub banner: Banner,
    /// `ms_crc_data`: whether payload is checksummed in CRC mode. Both sides must agree.
    pub data_crc: bool,
    pub limits: Limits,
    pub timeouts: Timeouts,
}

impl Config {
    pub fn new(name: EntityName, addrs: EntityAddrVec) -> Self {
        Self {
            name,
            addrs,
            nonce: 0,
            supported: Features::PACIFIC,
            required: Features(MSG_ADDR2),
            global_seq: 1,
            lossless: None,
            banner: Banner::default(),
            data_crc: true,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// Whom a connecting side wants to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub type_: EntityType,
    pub addr: EntityAddr,
}

/// Bounds on lengths and on messages handed up but not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Segment 0 of any frame.
    pub control_max: u32,
    pub front_max: u32,
    pub middle_max: u32,
    pub data_max: u32,
    /// All bytes received before authentication.
    pub handshake_max: usize,
    /// A data segment from this length on may be received into place.
    pub direct_body_min: u32,
    /// Payload bytes dispatched and not released; one message is always let through.
    pub dispatch_bytes_max: u64,
    pub dispatch_messages_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            control_max: 64 << 10,
            front_max: 16 << 20,
            middle_max: 16 << 20,
            data_max: 128 << 20,
            handshake_max: 256 << 10,
            direct_body_min: 64 << 10,
            dispatch_bytes_max: 100 << 20,
            dispatch_messages_max: 1024,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte to the end of the handshake (`ms_connection_ready_timeout`).
    pub handshake: Duration,
    /// Without a byte from the peer (`ms_connection_idle_timeout`).
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(10), idle: Duration::from_secs(900) }
    }
}
