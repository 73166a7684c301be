//! What a monitor hands to a principal: session keys and tickets, and their renewal.
//!
//! Invariants: a [`Ticket`] is only built from a reply that opened under a key the monitor shares
//! with us, so holding one means that the monitor proved itself.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_chacha::rand_core::Rng;
use spirula_wire::types::{EntityNameStr, EntityType};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::crypto::CryptoKey;
use crate::handshake::{AuthError, WallTime};
use crate::protocol::{
    Authenticate, Authorize, AuthorizerHead, Blob, GET_AUTH_SESSION_KEY, GET_PRINCIPAL_SESSION_KEY,
    GET_ROTATING_KEY, ResponseHeader, ServiceTicket, challenge_proof,
};
use crate::rotating::RotatingSecrets;

const F: Features = Features::PACIFIC;
/// Service bit of the AUTH ticket, the one that other tickets are asked for with.
const AUTH: u32 = EntityType::AUTH.0 as u32;
const MGR: u32 = EntityType::MGR.0 as u32;

/// A ticket that only the service can open, with the secret's number (`CephXTicketBlob`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TicketBlob {
    pub secret_id: u64,
    pub blob: Vec<u8>,
}

impl Encode for TicketBlob {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        1u8.encode(out, f);
        self.secret_id.encode(out, f);
        self.blob.as_slice().encode(out, f);
    }
}

impl Decode for TicketBlob {
    const MIN_SIZE: usize = 13;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.u8()?;
        Ok(Self { secret_id: r.u64()?, blob: r.blob("ticket")?.to_vec() })
    }
}

/// A ticket as its owner holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    pub session_key: CryptoKey,
    pub blob: TicketBlob,
    pub renew_after: WallTime,
    pub expires: WallTime,
}

impl Ticket {
    /// An authorizer for `service`; with the answer to its challenge once there is one.
    pub(crate) fn authorizer(
        &self,
        global_id: u64,
        service: u32,
        authorize: &Authorize,
    ) -> Result<Vec<u8>, AuthError> {
        let head = AuthorizerHead { global_id, service, ticket: self.blob.clone() };
        let mut out = head.to_bytes(F);
        self.session_key.seal_into(authorize, &mut out)?;
        Ok(out)
    }
}

/// The outcome of authenticating to a monitor; kept and renewed by the monitor client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonGrant {
    /// The method that was used; 0 before the first success.
    pub method: u32,
    pub global_id: u64,
    /// The monitor's challenge on the open session, for renewing the AUTH ticket there.
    pub server_challenge: u64,
    /// By service (an `EntityType` bit).
    pub tickets: BTreeMap<u32, Ticket>,
}

/// What the answer to an `auth` message brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthReplyContent {
    /// New tickets, already stored in the grant.
    Tickets,
    /// Rotating secrets of the own service.
    Rotating(RotatingSecrets),
}

impl MonGrant {
    /// The services in `want` without a ticket or with one that is due for renewal.
    pub fn needed(&self, now: WallTime, want: u32) -> u32 {
        services(want)
            .filter(|s| self.tickets.get(s).is_none_or(|t| now >= t.renew_after))
            .fold(0, |acc, s| acc | s)
    }

    /// Whether to send a [`renewal_request`](Self::renewal_request) now. A manager's ticket alone
    /// is no reason: a cluster without managers' secrets would be asked for ever.
    pub fn needs_renewal(&self, now: WallTime, want: u32) -> bool {
        let needed = self.needed(now, want);
        needed != 0 && needed != MGR
    }

    /// When [`needed`](Self::needed) can next turn non-empty.
    pub fn renew_at(&self, want: u32) -> Option<WallTime> {
        services(want).map(|s| self.tickets.get(&s).map_or(Duration::ZERO, |t| t.renew_after)).min()
    }

    /// Payload of an `auth` message on the open session that renews what is due.
    pub fn renewal_request(
        &self,
        now: WallTime,
        want: u32,
        key: &CryptoKey,
        rng: &mut impl Rng,
    ) -> Result<Vec<u8>, AuthError> {
        let needed = self.needed(now, want);
        if needed & AUTH != 0 {
            return self.authenticate_request(self.server_challenge, needed, key, rng);
        }
        let auth = self.tickets.get(&AUTH).ok_or(AuthError::NoTicket { service: AUTH })?;
        let mut out = GET_PRINCIPAL_SESSION_KEY.to_bytes(F);
        let authorize = Authorize { nonce: rng.next_u64(), challenge_plus_one: None };
        out.extend(auth.authorizer(self.global_id, AUTH, &authorize)?);
        1u8.encode(&mut out, F);
        needed.encode(&mut out, F);
        Ok(out)
    }

    /// Payload of an `auth` message that asks for the own service's rotating secrets.
    pub fn rotating_request() -> Vec<u8> {
        GET_ROTATING_KEY.to_bytes(F)
    }

    /// Takes the payload of an `auth_reply`.
    pub fn handle_reply(
        &mut self,
        now: WallTime,
        key: &CryptoKey,
        payload: &[u8],
    ) -> Result<AuthReplyContent, AuthError> {
        let mut r = Reader::new(payload);
        let header = ResponseHeader::decode(&mut r)?;
        if header.status < 0 {
            return Err(AuthError::Status(header.status));
        }
        match header.request_type {
            GET_ROTATING_KEY => Ok(AuthReplyContent::Rotating(key.open_from(&mut r)?)),
            GET_PRINCIPAL_SESSION_KEY => {
                let auth = self.tickets.get(&AUTH).ok_or(AuthError::NoTicket { service: AUTH })?;
                let session_key = auth.session_key.clone();
                self.take_tickets(now, &session_key, &mut r)?;
                Ok(AuthReplyContent::Tickets)
            }
            GET_AUTH_SESSION_KEY => {
                self.take_tickets(now, key, &mut r)?;
                self.take_extras(now, &mut r)?;
                Ok(AuthReplyContent::Tickets)
            }
            other => {
                Err(DecodeError::Invalid { what: "cephx reply type", value: other.into() }.into())
            }
        }
    }

    /// CephXAuthenticate behind its header.
    pub(crate) fn authenticate_request(
        &self,
        server_challenge: u64,
        needed: u32,
        key: &CryptoKey,
        rng: &mut impl Rng,
    ) -> Result<Vec<u8>, AuthError> {
        let client_challenge = rng.next_u64();
        let request = Authenticate {
            client_challenge,
            proof: challenge_proof(key, server_challenge, client_challenge)?,
            old_ticket: self.tickets.get(&AUTH).map(|t| t.blob.clone()).unwrap_or_default(),
            services: needed | AUTH,
            may_omit_old_ticket: false,
        };
        let mut out = GET_AUTH_SESSION_KEY.to_bytes(F);
        request.encode(&mut out, F);
        Ok(out)
    }

    /// Reads the tickets of a reply that is sealed with `key` (`verify_service_ticket_reply`).
    pub(crate) fn take_tickets(
        &mut self,
        now: WallTime,
        key: &CryptoKey,
        r: &mut Reader<'_>,
    ) -> Result<(), AuthError> {
        r.u8()?;
        let count = r.count(10, "tickets")?;
        for _ in 0..count {
            let service = r.u32()?;
            r.u8()?;
            let grant: ServiceTicket = key.open_from(r)?;
            let blob = if r.u8()? != 0 {
                let old = self.tickets.get(&service).ok_or(AuthError::NoTicket { service })?;
                old.session_key.open_from::<Blob>(r)?.0
            } else {
                r.blob("ticket")?.to_vec()
            };
            let expires = now + grant.validity;
            let ticket = Ticket {
                session_key: grant.session_key,
                blob: TicketBlob::from_bytes(&blob)?,
                renew_after: expires - grant.validity / 4,
                expires,
            };
            self.tickets.insert(service, ticket);
        }
        Ok(())
    }

    /// Reads what follows the AUTH ticket: connection secret and further tickets, both sealed with
    /// the new session key. Servers older than Nautilus send neither.
    pub(crate) fn take_extras(
        &mut self,
        now: WallTime,
        r: &mut Reader<'_>,
    ) -> Result<Vec<u8>, AuthError> {
        if r.is_empty() {
            return Ok(Vec::new());
        }
        let auth = self.tickets.get(&AUTH).ok_or(AuthError::NoTicket { service: AUTH })?;
        let session_key = auth.session_key.clone();
        let sealed_secret = r.blob("connection secret")?;
        let mut secret = Vec::new();
        if !sealed_secret.is_empty() {
            secret = session_key.open_from::<Blob>(&mut Reader::new(sealed_secret))?.0;
        }
        let extra = r.blob("extra tickets")?;
        if !extra.is_empty() {
            self.take_tickets(now, &session_key, &mut Reader::new(extra))?;
        }
        Ok(secret)
    }
}

/// Identity and key of a principal that connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub name: EntityNameStr,
    pub key: CryptoKey,
}

fn services(mask: u32) -> impl Iterator<Item = u32> {
    (0..u32::BITS).map(|bit| 1 << bit).filter(move |s| mask & s != 0)
}
