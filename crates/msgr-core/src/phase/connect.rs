//! The connecting side's states.
//!
//! Sessions are lossy: the identification carries no cookie, and the frames that only answer a
//! RECONNECT (RESET, RETRY, RETRY_GLOBAL, RECONNECT_OK) are out of place. A lossless policy would
//! start in [`Signature`], which would send RECONNECT when it holds a server cookie.

use bytes::Bytes;
use spirula_auth::{AuthRequest, ConMode, ConnectAuth, ConnectDone};
use spirula_wire::Features;
use spirula_wire::types::{AddrType, EntityAddr, EntityAddrVec, EntityName};

use super::{Cx, Peer, Phase, same_endpoint, unexpected};
use crate::config::Target;
use crate::control::{Control, Ident as IdentFields, SIGNATURE_LEN};
use crate::crypto::Side;
use crate::error::{AuthFailure, PeerIncompatible, PeerMisbehaved, ProtocolError};
use crate::wire::same_signature;

/// Rounds of authentication before we give up on a server.
const ROUNDS_MAX: u32 = 16;

/// Expects HELLO.
pub(crate) struct Hello {
    pub(crate) auth: Box<dyn ConnectAuth>,
    pub(crate) target: Target,
}

impl Hello {
    pub(super) fn step(mut self, frame: Control, cx: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        let Control::Hello { type_, addr } = frame else {
            return unexpected(&frame);
        };
        if type_ != self.target.type_ {
            let (got, expected) = (type_.0, self.target.type_.0);
            return Err(PeerMisbehaved::WrongType { got, expected }.into());
        }
        let request = self.auth.request();
        send_request(request, cx)?;
        let Self { auth, target } = self;
        Ok(Phase::ConnectAuth(Auth { auth, target, my_addr: addr, rounds: 0 }))
    }
}

/// Expects AUTH_REPLY_MORE, AUTH_BAD_METHOD or AUTH_DONE.
pub(crate) struct Auth {
    auth: Box<dyn ConnectAuth>,
    target: Target,
    my_addr: EntityAddr,
    rounds: u32,
}

impl Auth {
    pub(super) fn step(mut self, frame: Control, cx: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        self.rounds += 1;
        if self.rounds > ROUNDS_MAX {
            return Err(PeerMisbehaved::AuthAttempts.into());
        }
        match frame {
            Control::AuthReplyMore(payload) => {
                let reply = self.auth.more(&payload)?;
                cx.wire.send(&Control::AuthRequestMore(reply.into()))?;
                Ok(Phase::ConnectAuth(self))
            }
            Control::AuthBadMethod { method, result, allowed_methods, allowed_modes } => {
                let again =
                    self.auth.bad_method(method, result, &allowed_methods, &allowed_modes)?;
                send_request(again, cx)?;
                Ok(Phase::ConnectAuth(self))
            }
            Control::AuthDone { global_id, mode, payload } => {
                self.done(global_id, mode, &payload, cx)
            }
            other => unexpected(&other),
        }
    }

    fn done(
        mut self,
        global_id: u64,
        mode: u32,
        payload: &Bytes,
        cx: &mut Cx<'_>,
    ) -> Result<Phase, ProtocolError> {
        let mode = ConMode::from_wire(mode).ok_or(AuthFailure::UnknownMode(mode))?;
        let done = self.auth.done(cx.now.wall, global_id, mode, payload)?;
        let expected = cx.wire.authenticated(
            Side::Connect,
            mode,
            &done.session_key,
            &done.connection_secret,
        )?;
        let Self { target, my_addr, .. } = self;
        let proven = Proven { done, global_id, mode, target, my_addr };
        Ok(Phase::ConnectSignature(Signature { proven, expected }))
    }
}

/// What is known after authentication.
struct Proven {
    done: ConnectDone,
    global_id: u64,
    mode: ConMode,
    target: Target,
    my_addr: EntityAddr,
}

/// Expects AUTH_SIGNATURE.
pub(crate) struct Signature {
    proven: Proven,
    expected: [u8; SIGNATURE_LEN],
}

impl Signature {
    pub(super) fn step(self, frame: Control, cx: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        let Control::AuthSignature(signature) = frame else {
            return unexpected(&frame);
        };
        if !same_signature(&signature, &self.expected) {
            return Err(PeerMisbehaved::Signature.into());
        }
        let config = cx.config;
        let addrs = if config.addrs.is_empty() {
            learned(self.proven.my_addr, config.nonce)
        } else {
            config.addrs.clone()
        };
        let ident = IdentFields {
            addrs,
            gid: config.name.num,
            global_seq: config.global_seq,
            supported: config.supported.0,
            required: config.required.0,
            flags: IdentFields::LOSSY,
            cookie: 0,
        };
        cx.wire.send(&Control::ClientIdent { ident, target: self.proven.target.addr })?;
        Ok(Phase::ConnectIdent(Ident(self.proven)))
    }
}

/// Expects SERVER_IDENT.
pub(crate) struct Ident(Proven);

impl Ident {
    pub(super) fn step(self, frame: Control, cx: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        let ident = match frame {
            Control::ServerIdent(ident) => ident,
            Control::IdentMissingFeatures(missing) => {
                return Err(PeerIncompatible::RequiredFeatures(missing).into());
            }
            Control::Wait => return Err(PeerMisbehaved::Wait.into()),
            other => return unexpected(&other),
        };
        let Proven { done, global_id, mode, target, my_addr } = self.0;
        if !ident.addrs.iter().any(|a| same_endpoint(a, &target.addr)) {
            return Err(PeerMisbehaved::WrongTarget.into());
        }
        let config = cx.config;
        let lacking = ident.required & !config.supported.0;
        if lacking != 0 {
            return Err(PeerIncompatible::RequiredFeatures(lacking).into());
        }
        let missing = config.required.0 & !ident.supported;
        if missing != 0 {
            return Err(PeerIncompatible::MissingFeatures(missing).into());
        }
        Ok(Phase::Ready(Box::new(Peer {
            entity: EntityName::new(target.type_, ident.gid),
            addrs: ident.addrs,
            socket_addr: target.addr,
            features: Features(ident.supported & config.supported.0),
            global_id,
            global_seq: ident.global_seq,
            mode,
            revision: cx.wire.reader.revision,
            my_addr,
            lossy: ident.flags & IdentFields::LOSSY != 0,
            auth: None,
            grant: done.grant,
        })))
    }
}

fn send_request(request: AuthRequest, cx: &mut Cx<'_>) -> Result<(), ProtocolError> {
    let AuthRequest { method, modes, payload } = request;
    cx.wire.send(&Control::AuthRequest { method, modes, payload: payload.into() })
}

/// The address the server sees us at; its port is not one we listen on.
fn learned(mut seen: EntityAddr, nonce: u32) -> EntityAddrVec {
    if let Some(addr) = &mut seen.addr {
        addr.set_port(0);
    }
    seen.nonce = nonce;
    EntityAddrVec::one(seen.with_type(AddrType::MSGR2))
}
