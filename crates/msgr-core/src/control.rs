//! The contents of control frames.
//!
//! Addresses in frames are always in their typed form, whatever the peer's features.

use std::time::Duration;

use bytes::Bytes;
use spirula_wire::types::{EntityAddr, EntityAddrVec, EntityType};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::frame::Tag;

const F: Features = Features::PACIFIC;

/// Length of a handshake signature (HMAC-SHA256).
pub(crate) const SIGNATURE_LEN: usize = 32;

/// A control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Hello {
        type_: EntityType,
        /// The receiver's address as the sender sees it.
        addr: EntityAddr,
    },
    AuthRequest {
        method: u32,
        modes: Vec<u32>,
        payload: Bytes,
    },
    AuthBadMethod {
        method: u32,
        result: i32,
        allowed_methods: Vec<u32>,
        allowed_modes: Vec<u32>,
    },
    AuthReplyMore(Bytes),
    AuthRequestMore(Bytes),
    AuthDone {
        global_id: u64,
        mode: u32,
        payload: Bytes,
    },
    AuthSignature([u8; SIGNATURE_LEN]),
    ClientIdent {
        ident: Ident,
        target: EntityAddr,
    },
    ServerIdent(Ident),
    IdentMissingFeatures(u64),
    SessionReconnect(Reconnect),
    SessionReset {
        full: bool,
    },
    SessionRetry {
        connect_seq: u64,
    },
    SessionRetryGlobal {
        global_seq: u64,
    },
    SessionReconnectOk {
        msg_seq: u64,
    },
    Wait,
    Keepalive2(Timestamp),
    Keepalive2Ack(Timestamp),
    Ack {
        seq: u64,
    },
}

/// How a side introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ident {
    pub(crate) addrs: EntityAddrVec,
    pub(crate) gid: i64,
    pub(crate) global_seq: u64,
    pub(crate) supported: u64,
    pub(crate) required: u64,
    pub(crate) flags: u64,
    pub(crate) cookie: u64,
}

impl Ident {
    /// `CEPH_MSG_CONNECT_LOSSY`.
    pub(crate) const LOSSY: u64 = 1;
}

/// A lossless client asks for its old session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reconnect {
    pub(crate) addrs: EntityAddrVec,
    pub(crate) client_cookie: u64,
    pub(crate) server_cookie: u64,
    pub(crate) global_seq: u64,
    pub(crate) connect_seq: u64,
    pub(crate) msg_seq: u64,
}

/// Seconds and nanoseconds of the sender's wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timestamp {
    sec: u32,
    nsec: u32,
}

impl From<Duration> for Timestamp {
    fn from(wall: Duration) -> Self {
        Self { sec: wall.as_secs() as u32, nsec: wall.subsec_nanos() }
    }
}

impl Control {
    pub(crate) fn tag(&self) -> Tag {
        match self {
            Self::Hello { .. } => Tag::Hello,
            Self::AuthRequest { .. } => Tag::AuthRequest,
            Self::AuthBadMethod { .. } => Tag::AuthBadMethod,
            Self::AuthReplyMore(_) => Tag::AuthReplyMore,
            Self::AuthRequestMore(_) => Tag::AuthRequestMore,
            Self::AuthDone { .. } => Tag::AuthDone,
            Self::AuthSignature(_) => Tag::AuthSignature,
            Self::ClientIdent { .. } => Tag::ClientIdent,
            Self::ServerIdent(_) => Tag::ServerIdent,
            Self::IdentMissingFeatures(_) => Tag::IdentMissingFeatures,
            Self::SessionReconnect(_) => Tag::SessionReconnect,
            Self::SessionReset { .. } => Tag::SessionReset,
            Self::SessionRetry { .. } => Tag::SessionRetry,
            Self::SessionRetryGlobal { .. } => Tag::SessionRetryGlobal,
            Self::SessionReconnectOk { .. } => Tag::SessionReconnectOk,
            Self::Wait => Tag::Wait,
            Self::Keepalive2(_) => Tag::Keepalive2,
            Self::Keepalive2Ack(_) => Tag::Keepalive2Ack,
            Self::Ack { .. } => Tag::Ack,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        let o = &mut out;
        match self {
            Self::Hello { type_, addr } => put(o, &[type_, addr]),
            Self::AuthRequest { method, modes, payload } => put(o, &[method, modes, payload]),
            Self::AuthBadMethod { method, result, allowed_methods, allowed_modes } => {
                put(o, &[method, result, allowed_methods, allowed_modes]);
            }
            Self::AuthReplyMore(payload) | Self::AuthRequestMore(payload) => put(o, &[payload]),
            Self::AuthDone { global_id, mode, payload } => put(o, &[global_id, mode, payload]),
            Self::AuthSignature(signature) => put(o, &[signature]),
            Self::ClientIdent { ident, target } => {
                put(o, &[&ident.addrs, target]);
                ident.encode_tail(o);
            }
            Self::ServerIdent(ident) => {
                put(o, &[&ident.addrs]);
                ident.encode_tail(o);
            }
            Self::IdentMissingFeatures(n)
            | Self::SessionRetry { connect_seq: n }
            | Self::SessionRetryGlobal { global_seq: n }
            | Self::SessionReconnectOk { msg_seq: n }
            | Self::Ack { seq: n } => put(o, &[n]),
            Self::SessionReconnect(r) => {
                put(o, &[&r.addrs, &r.client_cookie, &r.server_cookie]);
                put(o, &[&r.global_seq, &r.connect_seq, &r.msg_seq]);
            }
            Self::SessionReset { full } => put(o, &[full]),
            Self::Wait => {}
            Self::Keepalive2(t) | Self::Keepalive2Ack(t) => put(o, &[&t.sec, &t.nsec]),
        }
        out
    }

    /// `None`: the tag is not a control frame of ours (a message or compression).
    pub(crate) fn decode(tag: Tag, payload: &Bytes) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(payload);
        let r = &mut reader;
        Ok(Some(match tag {
            Tag::Hello => {
                Self::Hello { type_: EntityType::decode(r)?, addr: EntityAddr::decode(r)? }
            }
            Tag::AuthRequest => Self::AuthRequest {
                method: r.u32()?,
                modes: Vec::decode(r)?,
                payload: Bytes::decode(r)?,
            },
            Tag::AuthBadMethod => Self::AuthBadMethod {
                method: r.u32()?,
                result: r.i32()?,
                allowed_methods: Vec::decode(r)?,
                allowed_modes: Vec::decode(r)?,
            },
            Tag::AuthReplyMore => Self::AuthReplyMore(Bytes::decode(r)?),
            Tag::AuthRequestMore => Self::AuthRequestMore(Bytes::decode(r)?),
            Tag::AuthDone => {
                Self::AuthDone { global_id: r.u64()?, mode: r.u32()?, payload: Bytes::decode(r)? }
            }
            Tag::AuthSignature => Self::AuthSignature(r.array("signature")?),
            Tag::ClientIdent => {
                let (addrs, target) = (EntityAddrVec::decode(r)?, EntityAddr::decode(r)?);
                Self::ClientIdent { ident: Ident::decode_tail(addrs, r)?, target }
            }
            Tag::ServerIdent => {
                let addrs = EntityAddrVec::decode(r)?;
                Self::ServerIdent(Ident::decode_tail(addrs, r)?)
            }
            Tag::IdentMissingFeatures => Self::IdentMissingFeatures(r.u64()?),
            Tag::SessionReconnect => Self::SessionReconnect(Reconnect {
                addrs: EntityAddrVec::decode(r)?,
                client_cookie: r.u64()?,
                server_cookie: r.u64()?,
                global_seq: r.u64()?,
                connect_seq: r.u64()?,
                msg_seq: r.u64()?,
            }),
            Tag::SessionReset => Self::SessionReset { full: bool::decode(r)? },
            Tag::SessionRetry => Self::SessionRetry { connect_seq: r.u64()? },
            Tag::SessionRetryGlobal => Self::SessionRetryGlobal { global_seq: r.u64()? },
            Tag::SessionReconnectOk => Self::SessionReconnectOk { msg_seq: r.u64()? },
            Tag::Wait => Self::Wait,
            Tag::Keepalive2 => Self::Keepalive2(Timestamp { sec: r.u32()?, nsec: r.u32()? }),
            Tag::Keepalive2Ack => Self::Keepalive2Ack(Timestamp { sec: r.u32()?, nsec: r.u32()? }),
            Tag::Ack => Self::Ack { seq: r.u64()? },
            Tag::Message | Tag::CompressionRequest | Tag::CompressionDone => return Ok(None),
        }))
    }
}

impl Ident {
    fn encode_tail(&self, out: &mut Vec<u8>) {
        put(out, &[&self.gid, &self.global_seq, &self.supported, &self.required]);
        put(out, &[&self.flags, &self.cookie]);
    }

    fn decode_tail(addrs: EntityAddrVec, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            addrs,
            gid: r.i64()?,
            global_seq: r.u64()?,
            supported: r.u64()?,
            required: r.u64()?,
            flags: r.u64()?,
            cookie: r.u64()?,
        })
    }
}

fn put(out: &mut Vec<u8>, fields: &[&dyn Encode]) {
    fields.iter().for_each(|field| field.encode(out, F));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(control: Control, len: usize) {
        let bytes = Bytes::from(control.encode());
        assert_eq!(bytes.len(), len, "{control:?}");
        assert_eq!(Control::decode(control.tag(), &bytes), Ok(Some(control.clone())));
        for n in 0..len {
            let cut = Control::decode(control.tag(), &bytes.slice(..n));
            assert!(cut.is_err(), "{control:?} of {n} bytes");
        }
    }

    #[test]
    fn every_control_frame_round_trips() {
        let addr: EntityAddr = "v2:127.0.0.1:3300/7".parse().unwrap();
        let ident = Ident {
            addrs: addr.into(),
            gid: -1,
            global_seq: 3,
            supported: 4,
            required: 5,
            flags: 6,
            cookie: 7,
        };
        let payload = Bytes::from_static(b"xyz");
        check(Control::Hello { type_: EntityType::MON, addr }, 36);
        let modes = vec![2, 1];
        check(
            Control::AuthRequest { method: 2, modes: modes.clone(), payload: payload.clone() },
            23,
        );
        check(
            Control::AuthBadMethod {
                method: 2,
                result: -13,
                allowed_methods: vec![2],
                allowed_modes: modes,
            },
            28,
        );
        check(Control::AuthReplyMore(payload.clone()), 7);
        check(Control::AuthRequestMore(payload.clone()), 7);
        check(Control::AuthDone { global_id: 9, mode: 1, payload }, 19);
        check(Control::AuthSignature([9; 32]), 32);
        check(Control::ClientIdent { ident: ident.clone(), target: addr }, 5 + 35 + 35 + 48);
        check(Control::ServerIdent(ident), 5 + 35 + 48);
        check(Control::IdentMissingFeatures(8), 8);
        check(
            Control::SessionReconnect(Reconnect {
                addrs: addr.into(),
                client_cookie: 1,
                server_cookie: 2,
                global_seq: 3,
                connect_seq: 4,
                msg_seq: 5,
            }),
            5 + 35 + 40,
        );
        check(Control::SessionReset { full: true }, 1);
        check(Control::SessionRetry { connect_seq: 1 }, 8);
        check(Control::SessionRetryGlobal { global_seq: 1 }, 8);
        check(Control::SessionReconnectOk { msg_seq: 1 }, 8);
        check(Control::Wait, 0);
        let stamp = Timestamp::from(Duration::new(5, 6));
        check(Control::Keepalive2(stamp), 8);
        check(Control::Keepalive2Ack(stamp), 8);
        check(Control::Ack { seq: 1 }, 8);
    }
}
