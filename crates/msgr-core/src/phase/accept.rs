//! The accepting side's states.
//!
//! Sessions are lossy, as for every client: nothing is kept when the socket dies, the identification
//! says so (flag and cookie 0), and a RECONNECT is answered with a full SESSION_RESET, on which the
//! peer identifies anew. Of a peer whose session is lossless, [`Ident`] asks the owner, and [`Decide`]
//! waits for what it says.

use bytes::Bytes;
use spirula_auth::{AcceptAuth, AcceptDone, AcceptStep};
use spirula_wire::Features;
use spirula_wire::types::{EntityAddr, EntityName, EntityType};

use super::{Cx, Peer, Phase, known, same_endpoint, unexpected, unwanted};
use crate::control::{Control, Ident as IdentFields, Reconnect, SIGNATURE_LEN};
use crate::crypto::Side;
use crate::error::{AuthFailure, PeerMisbehaved, ProtocolError};
use crate::session::{Answer, SessionEvent, SessionPeer, SessionReconnect};
use crate::wire::same_signature;

/// How often a peer may be told "bad method".
const ATTEMPTS_MAX: u32 = 8;

/// Expects HELLO.
pub(crate) struct Hello {
    pub(crate) auth: Box<dyn AcceptAuth>,
    pub(crate) peer_addr: EntityAddr,
}

impl Hello {
    pub(super) fn step(self, frame: Control, _: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        let Control::Hello { type_, addr } = frame else {
            return unexpected(&frame);
        };
        let Self { auth, peer_addr } = self;
        let session = Session { auth, type_, peer_addr, my_addr: addr, attempts: 0 };
        Ok(Phase::AcceptRequest(Request(session)))
    }
}

/// What is known during authentication.
struct Session {
    auth: Box<dyn AcceptAuth>,
    type_: EntityType,
    peer_addr: EntityAddr,
    my_addr: EntityAddr,
    attempts: u32,
}

/// Expects AUTH_REQUEST.
pub(crate) struct Request(Session);

impl Request {
    pub(super) fn step(self, frame: Control, cx: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        let Control::AuthRequest { method, modes, payload } = frame else {
            return unexpected(&frame);
        };
        let mut session = self.0;
        let step = session.auth.request(cx.now.wall, method, &modes, &payload);
        session.answer(method, step, cx)
    }
}

/// Expects AUTH_REQUEST_MORE.
pub(crate) struct More {
    session: Session,
    method: u32,
}

impl More {
    pub(super) fn step(self, frame: Control, cx: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        let Control::AuthRequestMore(payload) = frame else {
            return unexpected(&frame);
        };
        let mut session = self.session;
        let step = session.auth.more(cx.now.wall, &payload);
        session.answer(self.method, step, cx)
    }
}

impl Session {
    fn answer(
        mut self,
        method: u32,
        step: AcceptStep,
        cx: &mut Cx<'_>,
    ) -> Result<Phase, ProtocolError> {
        match step {
            AcceptStep::More(payload) => {
                cx.wire.send(&Control::AuthReplyMore(payload.into()))?;
                Ok(Phase::AcceptMore(More { session: self, method }))
            }
            AcceptStep::Bad { result, allowed_methods, allowed_modes } => {
                self.attempts += 1;
                if self.attempts > ATTEMPTS_MAX {
                    return Err(PeerMisbehaved::AuthAttempts.into());
                }
                cx.wire.send(&Control::AuthBadMethod {
                    method,
                    result,
                    allowed_methods,
                    allowed_modes,
                })?;
                Ok(Phase::AcceptRequest(Request(self)))
            }
            AcceptStep::NotYet => Err(AuthFailure::NotYet.into()),
            AcceptStep::Done(mut done) => {
                cx.wire.send(&Control::AuthDone {
                    global_id: done.global_id,
                    mode: done.mode as u32,
                    payload: Bytes::from(std::mem::take(&mut done.payload)),
                })?;
                let expected = cx.wire.authenticated(
                    Side::Accept,
                    done.mode,
                    &done.session_key,
                    &done.connection_secret,
                )?;
                let Self { type_, peer_addr, my_addr, .. } = self;
                let proven = Proven { done, type_, peer_addr, my_addr };
                Ok(Phase::AcceptSignature(Signature { proven, expected }))
            }
        }
    }
}

/// What is known after authentication.
struct Proven {
    done: AcceptDone,
    type_: EntityType,
    peer_addr: EntityAddr,
    my_addr: EntityAddr,
}

/// Expects AUTH_SIGNATURE.
pub(crate) struct Signature {
    proven: Proven,
    expected: [u8; SIGNATURE_LEN],
}

impl Signature {
    pub(super) fn step(self, frame: Control, _: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        let Control::AuthSignature(signature) = frame else {
            return unexpected(&frame);
        };
        if !same_signature(&signature, &self.expected) {
            return Err(PeerMisbehaved::Signature.into());
        }
        Ok(Phase::AcceptIdent(Ident(self.proven)))
    }
}

/// Expects CLIENT_IDENT.
pub(crate) struct Ident(Proven);

impl Ident {
    pub(super) fn step(self, frame: Control, cx: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        match frame {
            Control::ClientIdent { ident, target } => self.identify(ident, &target, cx),
            Control::SessionReconnect(r) if self.0.is_lossless(cx) => self.reconnect(r, cx),
            Control::SessionReconnect(_) => {
                cx.wire.send(&Control::SessionReset { full: true })?;
                Ok(Phase::AcceptIdent(self))
            }
            other => unexpected(&other),
        }
    }

    fn identify(
        self,
        ident: IdentFields,
        target: &EntityAddr,
        cx: &mut Cx<'_>,
    ) -> Result<Phase, ProtocolError> {
        let config = cx.config;
        if ident.addrs.front().is_blank() {
            return Err(PeerMisbehaved::NoAddress.into());
        }
        let ours = &config.addrs;
        if !ours.is_empty() && !ours.iter().any(|a| same_endpoint(a, target)) {
            return Err(PeerMisbehaved::WrongTarget.into());
        }
        let missing = config.required.0 & !ident.supported;
        if missing != 0 {
            // The peer closes; it may also identify again.
            cx.wire.send(&Control::IdentMissingFeatures(missing))?;
            return Ok(Phase::AcceptIdent(self));
        }
        if !self.0.is_lossless(cx) {
            send_ident(cx, IdentFields::LOSSY, config.global_seq, 0)?;
            return Ok(self.0.ready(cx, ident, true));
        }
        let entity = self.0.entity(ident.gid)?;
        let features = Features(ident.supported & config.supported.0);
        cx.asked = Some(SessionEvent::ClientIdent {
            peer: SessionPeer { entity, addrs: ident.addrs.clone(), features },
            cookie: ident.cookie,
            global_seq: ident.global_seq,
        });
        Ok(Phase::AcceptDecide(Decide { proven: self.0, ident: Some(ident) }))
    }

    fn reconnect(self, r: Reconnect, cx: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        if r.addrs.front().is_blank() {
            return Err(PeerMisbehaved::NoAddress.into());
        }
        let claim = SessionReconnect {
            client_cookie: r.client_cookie,
            server_cookie: r.server_cookie,
            global_seq: r.global_seq,
            connect_seq: r.connect_seq,
            msg_seq: r.msg_seq,
        };
        let entity = self.0.entity(-1)?;
        cx.asked = Some(SessionEvent::Reconnect { entity, addrs: r.addrs, claim });
        Ok(Phase::AcceptDecide(Decide { proven: self.0, ident: None }))
    }
}

impl Proven {
    fn is_lossless(&self, cx: &Cx<'_>) -> bool {
        cx.config.lossless == Some(self.type_) && self.done.peer.name.type_ == self.type_
    }

    /// The daemon that the handshake proved, which is the one that identifies (-1: it does not say).
    fn entity(&self, gid: i64) -> Result<EntityName, ProtocolError> {
        let proven = self.done.peer.name.id.parse::<i64>().ok();
        match proven.filter(|num| *num >= 0 && (gid < 0 || gid == *num)) {
            Some(num) => Ok(EntityName::new(self.type_, num)),
            None => Err(PeerMisbehaved::WrongIdentity.into()),
        }
    }

    fn ready(self, cx: &Cx<'_>, ident: IdentFields, lossy: bool) -> Phase {
        let Self { done, type_, peer_addr, my_addr } = self;
        let num = if ident.gid < 0 { done.global_id as i64 } else { ident.gid };
        Phase::Ready(Box::new(Peer {
            entity: EntityName::new(type_, num),
            addrs: ident.addrs,
            socket_addr: peer_addr,
            features: Features(ident.supported & cx.config.supported.0),
            global_id: done.global_id,
            global_seq: ident.global_seq,
            mode: done.mode,
            revision: cx.wire.reader.revision,
            my_addr,
            lossy,
            auth: Some(done.peer),
            grant: None,
        }))
    }

    /// The session goes on; what the peer did not say again is known.
    fn resume(self, cx: &Cx<'_>, peer: SessionPeer) -> Phase {
        let (entity, addrs, features) = known(peer);
        let ident = IdentFields {
            addrs,
            gid: entity.num,
            global_seq: 0,
            supported: features.0,
            required: 0,
            flags: 0,
            cookie: 0,
        };
        self.ready(cx, ident, false)
    }
}

/// Waits for the owner of the session; `ident` is there unless the peer wants an old session.
pub(crate) struct Decide {
    proven: Proven,
    ident: Option<IdentFields>,
}

impl Decide {
    pub(super) fn answer(self, answer: Answer, cx: &mut Cx<'_>) -> Result<Phase, ProtocolError> {
        let Self { proven, ident } = self;
        let control = match (answer, ident) {
            (Answer::Accept { cookie, global_seq }, Some(ident)) => {
                send_ident(cx, 0, global_seq, cookie)?;
                return Ok(proven.ready(cx, ident, false));
            }
            (Answer::Resume { peer, in_seq }, None) => {
                cx.wire.send(&Control::SessionReconnectOk { msg_seq: in_seq })?;
                return Ok(proven.resume(cx, peer));
            }
            (Answer::Reset { full }, None) => Control::SessionReset { full },
            (Answer::Retry { connect_seq }, None) => Control::SessionRetry { connect_seq },
            (Answer::RetryGlobal { global_seq }, None) => {
                Control::SessionRetryGlobal { global_seq }
            }
            (Answer::Wait, _) => Control::Wait,
            _ => return unwanted(),
        };
        cx.wire.send(&control)?;
        Ok(Phase::AcceptIdent(Ident(proven)))
    }
}

fn send_ident(
    cx: &mut Cx<'_>,
    flags: u64,
    global_seq: u64,
    cookie: u64,
) -> Result<(), ProtocolError> {
    let config = cx.config;
    cx.wire.send(&Control::ServerIdent(IdentFields {
        addrs: config.addrs.clone(),
        gid: config.name.num,
        global_seq,
        supported: config.supported.0,
        required: config.required.0,
        flags,
        cookie,
    }))
}
