//! The connecting side's states.
//!
//! Sessions are lossy: the identification carries no cookie, and the frames that only answer a
//! RECONNECT (RESET, RETRY, RETRY_GLOBAL, RECONNECT_OK) are out of place. Where the server's type has
//! lossless sessions, [`Signature`] asks the owner whether to identify or to reconnect, and each answer
//! of the server is put to the owner, too: [`Decide`] waits for what it says.

use bytes::Bytes;
use spirula_auth::{AuthRequest, ConMode, ConnectAuth, ConnectDone};
use spirula_wire::Features;
use spirula_wire::types::{AddrType, EntityAddr, EntityAddrVec, EntityName};

use super::{Cx, Peer, Phase, known, same_endpoint, unexpected, unwanted};
use crate::config::Target;
use crate::control::{Control, Ident as IdentFields, Reconnect, SIGNATURE_LEN};
use crate::crypto::Side;
use crate::error::{AuthFailure, PeerIncompatible, PeerMisbehaved, ProtocolError};
use crate::session::{Answer, SessionEvent, SessionPeer, SessionReconnect};
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
        let proven = self.proven;
        if proven.is_lossless(cx) {
            cx.asked = Some(SessionEvent::Authenticated);
            return Ok(Phase::ConnectDecide(Decide { proven, ident: None }));
        }
        proven.identify(IdentFields::LOSSY, cx.config.global_seq, 0, cx)
    }
}

impl Proven {
    fn is_lossless(&self, cx: &Cx<'_>) -> bool {
        cx.config.lossless == Some(self.target.type_)
    }

    fn addrs(&self, cx: &Cx<'_>) -> EntityAddrVec {
        if cx.config.addrs.is_empty() {
            return learned(self.my_addr, cx.config.nonce);
        }
        cx.config.addrs.clone()
    }

    fn identify(
        self,
        flags: u64,
        global_seq: u64,
        cookie: u64,
        cx: &mut Cx<'_>,
    ) -> Result<Phase, ProtocolError> {
        let config = cx.config;
        let ident = IdentFields {
            addrs: self.addrs(cx),
            gid: config.name.num,
            global_seq,
            supported: config.supported.0,
            required: config.required.0,
            flags,
            cookie,
        };
        cx.wire.send(&Control::ClientIdent { ident, target: self.target.addr })?;
        Ok(Phase::ConnectIdent(Ident(self)))
    }

    fn reconnect(self, claim: &SessionReconnect, cx: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        cx.wire.send(&Control::SessionReconnect(Reconnect {
            addrs: self.addrs(cx),
            client_cookie: claim.client_cookie,
            server_cookie: claim.server_cookie,
            global_seq: claim.global_seq,
            connect_seq: claim.connect_seq,
            msg_seq: claim.msg_seq,
        }))?;
        Ok(Phase::ConnectIdent(Ident(self)))
    }

    fn ready(self, cx: &Cx<'_>, peer: SessionPeer, global_seq: u64, lossy: bool) -> Phase {
        let Self { done, global_id, mode, target, my_addr } = self;
        let (entity, addrs, features) = known(peer);
        Phase::Ready(Box::new(Peer {
            entity,
            addrs,
            socket_addr: target.addr,
            features,
            global_id,
            global_seq,
            mode,
            revision: cx.wire.reader.revision,
            my_addr,
            lossy,
            auth: None,
            grant: done.grant,
        }))
    }
}

/// Expects SERVER_IDENT, or an answer to RECONNECT.
pub(crate) struct Ident(Proven);

impl Ident {
    pub(super) fn step(self, frame: Control, cx: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        let lossless = self.0.is_lossless(cx);
        let asked = match frame {
            Control::ServerIdent(ident) => return self.identified(ident, cx),
            Control::IdentMissingFeatures(missing) => {
                return Err(PeerIncompatible::RequiredFeatures(missing).into());
            }
            Control::Wait if !lossless => return Err(PeerMisbehaved::Wait.into()),
            Control::Wait => SessionEvent::Wait,
            Control::SessionReconnectOk { msg_seq } => SessionEvent::ReconnectOk { msg_seq },
            Control::SessionReset { full } => SessionEvent::Reset { full },
            Control::SessionRetry { connect_seq } => SessionEvent::Retry { connect_seq },
            Control::SessionRetryGlobal { global_seq } => SessionEvent::RetryGlobal { global_seq },
            other => return unexpected(&other),
        };
        if !lossless {
            return Err(PeerMisbehaved::Lossy.into());
        }
        cx.asked = Some(asked);
        Ok(Phase::ConnectDecide(Decide { proven: self.0, ident: None }))
    }

    fn identified(self, ident: IdentFields, cx: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        let proven = self.0;
        if !ident.addrs.iter().any(|a| same_endpoint(a, &proven.target.addr)) {
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
        let lossy = ident.flags & IdentFields::LOSSY != 0;
        let peer = SessionPeer {
            entity: EntityName::new(proven.target.type_, ident.gid),
            addrs: ident.addrs.clone(),
            features: Features(ident.supported & config.supported.0),
        };
        if !proven.is_lossless(cx) {
            return Ok(proven.ready(cx, peer, ident.global_seq, lossy));
        }
        if lossy || ident.cookie == 0 {
            return Err(PeerMisbehaved::Lossy.into());
        }
        let (cookie, global_seq) = (ident.cookie, ident.global_seq);
        cx.asked = Some(SessionEvent::ServerIdent { peer, cookie, global_seq });
        Ok(Phase::ConnectDecide(Decide { proven, ident: Some(ident) }))
    }
}

/// Waits for the owner of the session; `ident` is there when a new session begins.
pub(crate) struct Decide {
    proven: Proven,
    ident: Option<IdentFields>,
}

impl Decide {
    pub(super) fn answer(self, answer: Answer, cx: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        match answer {
            Answer::Identify { cookie, global_seq } => {
                self.proven.identify(0, global_seq, cookie, cx)
            }
            Answer::Reconnect(claim) => self.proven.reconnect(&claim, cx),
            Answer::Open { peer, .. } => {
                let global_seq = self.ident.map_or(0, |ident| ident.global_seq);
                Ok(self.proven.ready(cx, peer, global_seq, false))
            }
            _ => unwanted(),
        }
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
