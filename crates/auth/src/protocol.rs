//! The structures of cephx on the wire, as Pacific encodes them.
//!
//! Most carry one leading version byte and no length, so they are not versioned structs in the
//! sense of [`spirula_wire::Reader::versioned`]: a tail cannot be skipped.

use spirula_wire::types::EntityNameStr;
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::crypto::{CryptoError, CryptoKey, decode_time, encode_time};
use crate::grant::TicketBlob;
use crate::handshake::WallTime;

/// `CEPHX_GET_AUTH_SESSION_KEY`.
pub const GET_AUTH_SESSION_KEY: u16 = 0x0100;
/// `CEPHX_GET_PRINCIPAL_SESSION_KEY`.
pub const GET_PRINCIPAL_SESSION_KEY: u16 = 0x0200;
/// `CEPHX_GET_ROTATING_KEY`.
pub const GET_ROTATING_KEY: u16 = 0x0400;

/// First payload byte of an AUTH_REQUEST to a service (`AUTH_MODE_AUTHORIZER`).
pub const MODE_AUTHORIZER: u8 = 1;
/// First payload byte of an AUTH_REQUEST to a monitor (`AUTH_MODE_MON`).
pub const MODE_MON: u8 = 10;
/// Last value that means the same as [`MODE_MON`].
pub const MODE_MON_MAX: u8 = 19;

/// `secret_id` of a ticket sealed with the service's own key instead of a rotating one.
pub const SECRET_ID_OWN_KEY: u64 = u64::MAX;

/// `CEPH_AUTH_UID_DEFAULT`, the retired auid field of tickets.
const AUID_DEFAULT: u64 = u64::MAX;

const F: Features = Features::PACIFIC;

/// First payload of a client to a monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MonHello {
    pub(crate) name: EntityNameStr,
    /// 0 asks for a new one.
    pub(crate) global_id: u64,
}

impl MonHello {
    pub(crate) fn to_payload(&self) -> Vec<u8> {
        let mut out = vec![MODE_MON];
        self.name.encode(&mut out, F);
        self.global_id.encode(&mut out, F);
        out
    }

    pub(crate) fn from_payload(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(payload);
        let mode = r.u8()?;
        if !(MODE_MON..=MODE_MON_MAX).contains(&mode) {
            return Err(DecodeError::Invalid { what: "auth mode", value: mode.into() });
        }
        Ok(Self { name: Decode::decode(&mut r)?, global_id: r.u64()? })
    }
}

/// `CephXServerChallenge` and `CephXAuthorizeChallenge`, which look alike.
pub(crate) struct ServerChallenge(pub(crate) u64);

impl Encode for ServerChallenge {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        1u8.encode(out, f);
        self.0.encode(out, f);
    }
}

impl Decode for ServerChallenge {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.u8()?;
        Ok(Self(r.u64()?))
    }
}

/// `CephXResponseHeader`.
pub(crate) struct ResponseHeader {
    pub(crate) request_type: u16,
    pub(crate) status: i32,
}

impl Encode for ResponseHeader {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.request_type.encode(out, f);
        self.status.encode(out, f);
    }
}

impl Decode for ResponseHeader {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { request_type: r.u16()?, status: r.i32()? })
    }
}

/// `CephXAuthenticate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authenticate {
    pub(crate) client_challenge: u64,
    pub(crate) proof: u64,
    pub(crate) old_ticket: TicketBlob,
    /// Services to send tickets for at once; 0 from clients older than Nautilus.
    pub(crate) services: u32,
    /// Clients before version 3 of the struct forget their ticket when they reconnect.
    pub(crate) may_omit_old_ticket: bool,
}

impl Encode for Authenticate {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        let version: u8 = if self.may_omit_old_ticket { 2 } else { 3 };
        version.encode(out, f);
        self.client_challenge.encode(out, f);
        self.proof.encode(out, f);
        self.old_ticket.encode(out, f);
        self.services.encode(out, f);
    }
}

impl Decode for Authenticate {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = r.u8()?;
        Ok(Self {
            client_challenge: r.u64()?,
            proof: r.u64()?,
            old_ticket: Decode::decode(r)?,
            services: if version >= 2 { r.u32()? } else { 0 },
            may_omit_old_ticket: version < 3,
        })
    }
}

/// What a principal computes from both challenges to prove that it holds `key`
/// (`cephx_calc_client_server_challenge`).
pub(crate) fn challenge_proof(
    key: &CryptoKey,
    server_challenge: u64,
    client_challenge: u64,
) -> Result<u64, CryptoError> {
    let mut sealed = Vec::new();
    key.seal_into(&(server_challenge, client_challenge), &mut sealed)?;
    // The XOR runs over whole words of the length-prefixed ciphertext; its tail is left out.
    let (words, _) = sealed.as_chunks::<8>();
    Ok(words.iter().fold(0, |acc, w| acc ^ u64::from_le_bytes(*w)))
}

/// `CephXServiceTicket`: the half of a grant that the principal can open.
pub(crate) struct ServiceTicket {
    pub(crate) session_key: CryptoKey,
    pub(crate) validity: WallTime,
}

impl Encode for ServiceTicket {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        1u8.encode(out, f);
        self.session_key.encode(out, f);
        encode_time(self.validity, out);
    }
}

impl Decode for ServiceTicket {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.u8()?;
        Ok(Self { session_key: Decode::decode(r)?, validity: decode_time(r)? })
    }
}

/// `AuthTicket`: who the principal is, for how long, and what it may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthTicket {
    pub name: EntityNameStr,
    pub global_id: u64,
    pub created: WallTime,
    pub expires: WallTime,
    pub caps: AuthCapsInfo,
    pub flags: u32,
}

impl Encode for AuthTicket {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        2u8.encode(out, f);
        self.name.encode(out, f);
        self.global_id.encode(out, f);
        AUID_DEFAULT.encode(out, f);
        encode_time(self.created, out);
        encode_time(self.expires, out);
        self.caps.encode(out, f);
        self.flags.encode(out, f);
    }
}

impl Decode for AuthTicket {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = r.u8()?;
        let name = Decode::decode(r)?;
        let global_id = r.u64()?;
        if version >= 2 {
            r.u64()?;
        }
        Ok(Self {
            name,
            global_id,
            created: decode_time(r)?,
            expires: decode_time(r)?,
            caps: Decode::decode(r)?,
            flags: r.u32()?,
        })
    }
}

/// `AuthCapsInfo`: capabilities for one service inside a ticket. The text is a string inside a
/// byte string, except that no capabilities at all are zero bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthCapsInfo {
    pub allow_all: bool,
    pub text: String,
}

impl Encode for AuthCapsInfo {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        1u8.encode(out, f);
        self.allow_all.encode(out, f);
        let inner = if self.text.is_empty() { Vec::new() } else { self.text.to_bytes(f) };
        inner.as_slice().encode(out, f);
    }
}

impl Decode for AuthCapsInfo {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.u8()?;
        let allow_all = bool::decode(r)?;
        let inner = r.blob("caps")?;
        let text = if inner.is_empty() { String::new() } else { String::from_bytes(inner)? };
        Ok(Self { allow_all, text })
    }
}

/// `CephXServiceTicketInfo`: the half of a grant that only the service can open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceTicketInfo {
    pub(crate) ticket: AuthTicket,
    pub(crate) session_key: CryptoKey,
}

impl Encode for ServiceTicketInfo {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        1u8.encode(out, f);
        self.ticket.encode(out, f);
        self.session_key.encode(out, f);
    }
}

impl Decode for ServiceTicketInfo {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.u8()?;
        Ok(Self { ticket: Decode::decode(r)?, session_key: Decode::decode(r)? })
    }
}

/// The clear part of an authorizer; its first byte doubles as [`MODE_AUTHORIZER`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthorizerHead {
    pub(crate) global_id: u64,
    pub(crate) service: u32,
    pub(crate) ticket: TicketBlob,
}

impl Encode for AuthorizerHead {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        MODE_AUTHORIZER.encode(out, f);
        self.global_id.encode(out, f);
        self.service.encode(out, f);
        self.ticket.encode(out, f);
    }
}

impl Decode for AuthorizerHead {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.u8()?;
        Ok(Self { global_id: r.u64()?, service: r.u32()?, ticket: Decode::decode(r)? })
    }
}

/// `CephXAuthorize`: the sealed part of an authorizer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Authorize {
    pub(crate) nonce: u64,
    /// Answer to the service's challenge: the challenge plus one.
    pub(crate) challenge_plus_one: Option<u64>,
}

impl Encode for Authorize {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        2u8.encode(out, f);
        self.nonce.encode(out, f);
        self.challenge_plus_one.is_some().encode(out, f);
        self.challenge_plus_one.unwrap_or(0).encode(out, f);
    }
}

impl Decode for Authorize {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = r.u8()?;
        let nonce = r.u64()?;
        let mut challenge_plus_one = None;
        if version >= 2 {
            let present = bool::decode(r)?;
            let value = r.u64()?;
            challenge_plus_one = present.then_some(value);
        }
        Ok(Self { nonce, challenge_plus_one })
    }
}

/// `CephXAuthorizeReply`.
pub(crate) struct AuthorizeReply {
    pub(crate) nonce_plus_one: u64,
    pub(crate) connection_secret: Vec<u8>,
}

impl Encode for AuthorizeReply {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        let has_secret = !self.connection_secret.is_empty();
        (1 + u8::from(has_secret)).encode(out, f);
        self.nonce_plus_one.encode(out, f);
        if has_secret {
            self.connection_secret.as_slice().encode(out, f);
        }
    }
}

impl Decode for AuthorizeReply {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = r.u8()?;
        let nonce_plus_one = r.u64()?;
        let secret = if version >= 2 { r.blob("connection secret")? } else { &[] };
        Ok(Self { nonce_plus_one, connection_secret: secret.to_vec() })
    }
}

/// A byte string, for sealing and opening one that stands alone.
pub(crate) struct Blob(pub(crate) Vec<u8>);

impl Encode for Blob {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.0.as_slice().encode(out, f);
    }
}

impl Decode for Blob {
    const MIN_SIZE: usize = 4;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(r.blob("blob")?.to_vec()))
    }
}
