//! The service's side of authentication (OSD, manager, MDS): a ticket sealed with our rotating
//! secret, and an answer to our challenge that proves the peer holds its session key.
//!
//! Invariants: an authorizer is accepted only with the challenge of this very handshake, so a
//! recorded one is worthless; no ticket is accepted after its time.

use std::sync::Arc;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use spirula_wire::types::EntityType;
use spirula_wire::{Decode, DecodeError, Reader};

use crate::accept_mon::none_done;
use crate::crypto::CryptoKey;
use crate::errno::{EACCES, EOPNOTSUPP};
use crate::handshake::{
    AcceptAuth, AcceptDone, AcceptStep, AuthenticatedPeer, ConMode, METHOD_CEPHX, METHOD_NONE,
    WallTime,
};
use crate::protocol::{
    Authorize, AuthorizeReply, AuthorizerHead, SECRET_ID_OWN_KEY, ServerChallenge,
    ServiceTicketInfo,
};
use crate::rotating::RotatingSecrets;

/// What a service requires.
#[derive(Clone, Debug)]
pub struct ServiceAuthConfig {
    /// Which service this is.
    pub service: EntityType,
    /// `auth_service_required`; daemons among themselves use the same here.
    pub methods: Vec<u32>,
    /// `ms_service_mode`.
    pub modes: Vec<ConMode>,
}

impl ServiceAuthConfig {
    /// Cephx, both modes.
    pub fn cephx(service: EntityType) -> Self {
        Self { service, methods: vec![METHOD_CEPHX], modes: vec![ConMode::Crc, ConMode::Secure] }
    }
}

/// The secrets that tickets for this service can be sealed with: a snapshot, replaced as a whole
/// when the monitor sends new ones.
#[derive(Clone, Debug, Default)]
pub struct ServiceSecrets {
    pub rotating: RotatingSecrets,
    /// The service's own key, for tickets that name no rotating secret.
    pub own_key: Option<CryptoKey>,
}

impl ServiceSecrets {
    fn get(&self, secret_id: u64) -> Option<&CryptoKey> {
        match secret_id {
            SECRET_ID_OWN_KEY => self.own_key.as_ref(),
            id => self.rotating.get(id),
        }
    }
}

/// [`AcceptAuth`] of a service, for cephx and `none`.
pub struct ServiceAcceptor {
    config: ServiceAuthConfig,
    secrets: Arc<ServiceSecrets>,
    rng: ChaCha20Rng,
    /// Mode and challenge of an authorizer that waits for its proof.
    pending: Option<(ConMode, u64)>,
    finished: bool,
}

impl ServiceAcceptor {
    pub fn new(config: ServiceAuthConfig, secrets: Arc<ServiceSecrets>, seed: [u8; 32]) -> Self {
        let rng = ChaCha20Rng::from_seed(seed);
        Self { config, secrets, rng, pending: None, finished: false }
    }

    fn bad(&self, result: i32) -> AcceptStep {
        AcceptStep::Bad {
            result,
            allowed_methods: self.config.methods.clone(),
            allowed_modes: self.config.modes.iter().map(|&m| m as u32).collect(),
        }
    }

    fn start(
        &mut self,
        now: WallTime,
        method: u32,
        modes: &[u32],
        payload: &[u8],
    ) -> Result<AcceptStep, i32> {
        if !self.config.methods.contains(&method) {
            return Err(EOPNOTSUPP);
        }
        let allowed = if method == METHOD_NONE { &[ConMode::Crc] } else { &*self.config.modes };
        let mode = ConMode::pick(modes, allowed).ok_or(EOPNOTSUPP)?;
        if method == METHOD_NONE {
            return accept_none(payload).map(AcceptStep::Done).map_err(|_| EACCES);
        }
        let (info, _) = self.open_authorizer(now, payload)?;
        let challenge = self.rng.next_u64();
        let sealed = info.session_key.seal(&ServerChallenge(challenge)).map_err(|_| EACCES)?;
        self.pending = Some((mode, challenge));
        Ok(AcceptStep::More(sealed))
    }

    fn prove(&mut self, now: WallTime, payload: &[u8]) -> Result<AcceptDone, i32> {
        let (mode, challenge) = self.pending.take().ok_or(EACCES)?;
        let (info, authorize) = self.open_authorizer(now, payload)?;
        if authorize.challenge_plus_one != Some(challenge.wrapping_add(1)) {
            return Err(EACCES);
        }
        let mut connection_secret = vec![0; mode.secret_len()];
        self.rng.fill_bytes(&mut connection_secret);
        let reply = AuthorizeReply {
            nonce_plus_one: authorize.nonce.wrapping_add(1),
            connection_secret: connection_secret.clone(),
        };
        let mut out = Vec::new();
        info.session_key.seal_into(&reply, &mut out).map_err(|_| EACCES)?;
        let ticket = info.ticket;
        Ok(AcceptDone {
            global_id: ticket.global_id,
            mode,
            payload: out,
            session_key: info.session_key,
            connection_secret,
            peer: AuthenticatedPeer {
                name: ticket.name,
                global_id: ticket.global_id,
                caps: ticket.caps.text,
                allow_all: ticket.caps.allow_all,
                expires: ticket.expires,
                server_challenge: 0,
            },
        })
    }

    fn open_authorizer(
        &self,
        now: WallTime,
        payload: &[u8],
    ) -> Result<(ServiceTicketInfo, Authorize), i32> {
        let mut r = Reader::new(payload);
        let head = AuthorizerHead::decode(&mut r).map_err(|_| EACCES)?;
        if head.service != u32::from(self.config.service.0) {
            return Err(EACCES);
        }
        let secret = self.secrets.get(head.ticket.secret_id).ok_or(EACCES)?;
        let info: ServiceTicketInfo = secret.open(&head.ticket.blob).map_err(|_| EACCES)?;
        if info.ticket.global_id != head.global_id || now >= info.ticket.expires {
            return Err(EACCES);
        }
        let authorize = info.session_key.open_from(&mut r).map_err(|_| EACCES)?;
        Ok((info, authorize))
    }
}

impl AcceptAuth for ServiceAcceptor {
    fn request(&mut self, now: WallTime, method: u32, modes: &[u32], payload: &[u8]) -> AcceptStep {
        if self.finished || self.pending.is_some() {
            return self.bad(EACCES);
        }
        match self.start(now, method, modes, payload) {
            Ok(step) => {
                self.finished = matches!(step, AcceptStep::Done(_));
                step
            }
            Err(errno) => self.bad(errno),
        }
    }

    fn more(&mut self, now: WallTime, payload: &[u8]) -> AcceptStep {
        match self.prove(now, payload) {
            Ok(done) => {
                self.finished = true;
                AcceptStep::Done(done)
            }
            Err(errno) => self.bad(errno),
        }
    }
}

/// The authorizer of `none`: a version, the name, the global id.
fn accept_none(payload: &[u8]) -> Result<AcceptDone, DecodeError> {
    let mut r = Reader::new(payload);
    r.u8()?;
    let name = Decode::decode(&mut r)?;
    Ok(none_done(name, r.u64()?))
}
