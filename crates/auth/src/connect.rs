//! The connecting side: to a monitor with the own key, to a service with a ticket.
//!
//! Both speak cephx and `none`; which one is tried is decided by the configured methods and what
//! the server allows.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use spirula_wire::types::{EntityNameStr, EntityType};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::grant::{MonGrant, Principal, Ticket};
use crate::handshake::{
    AuthError, AuthRequest, ConMode, ConnectAuth, ConnectDone, METHOD_CEPHX, METHOD_NONE, WallTime,
};
use crate::protocol::{
    Authorize, AuthorizeReply, GET_AUTH_SESSION_KEY, MonHello, ResponseHeader, ServerChallenge,
};

const F: Features = Features::PACIFIC;
const AUTH: u32 = EntityType::AUTH.0 as u32;

/// How to authenticate to monitors.
#[derive(Clone, Debug)]
pub struct MonConnectConfig {
    pub principal: Principal,
    /// Preferred first (`auth_client_required`).
    pub methods: Vec<u32>,
    /// Preferred first (`ms_mon_client_mode`).
    pub modes: Vec<ConMode>,
    /// Services to get tickets for; AUTH is implied.
    pub want: u32,
}

/// Authenticates to a monitor. A grant of an earlier session keeps the global id and spares the
/// service tickets that are still good.
pub struct MonConnector {
    config: MonConnectConfig,
    grant: MonGrant,
    rng: ChaCha20Rng,
    method: u32,
    needed: u32,
}

impl MonConnector {
    pub fn new(
        config: MonConnectConfig,
        previous: &MonGrant,
        now: WallTime,
        seed: [u8; 32],
    ) -> Self {
        let method = config.methods.first().copied().unwrap_or(METHOD_CEPHX);
        let needed = previous.needed(now, config.want);
        let grant = MonGrant { server_challenge: 0, ..previous.clone() };
        Self { config, grant, rng: ChaCha20Rng::from_seed(seed), method, needed }
    }
}

impl ConnectAuth for MonConnector {
    fn request(&mut self) -> AuthRequest {
        let hello =
            MonHello { name: self.config.principal.name.clone(), global_id: self.grant.global_id };
        AuthRequest {
            method: self.method,
            modes: modes_for(self.method, &self.config.modes),
            payload: hello.to_payload(),
        }
    }

    fn bad_method(
        &mut self,
        method: u32,
        result: i32,
        allowed_methods: &[u32],
        _allowed_modes: &[u32],
    ) -> Result<AuthRequest, AuthError> {
        let mut later = self.config.methods.iter().skip_while(|&&m| m != self.method).skip(1);
        match later.find(|m| allowed_methods.contains(m)) {
            Some(&next) => {
                self.method = next;
                Ok(self.request())
            }
            None => Err(AuthError::Refused { method, result, allowed: allowed_methods.to_vec() }),
        }
    }

    fn more(&mut self, payload: &[u8]) -> Result<Vec<u8>, AuthError> {
        if self.method != METHOD_CEPHX || self.grant.server_challenge_taken(payload)? {
            return Err(AuthError::OutOfOrder);
        }
        let key = &self.config.principal.key;
        let challenge = self.grant.server_challenge;
        self.grant.authenticate_request(challenge, self.needed, key, &mut self.rng)
    }

    fn done(
        &mut self,
        now: WallTime,
        global_id: u64,
        mode: ConMode,
        payload: &[u8],
    ) -> Result<ConnectDone, AuthError> {
        check_mode(mode, self.method, &self.config.modes)?;
        let mut grant = std::mem::take(&mut self.grant);
        grant.global_id = global_id;
        grant.method = self.method;
        if self.method == METHOD_NONE {
            return Ok(ConnectDone { grant: Some(Box::new(grant)), ..ConnectDone::default() });
        }
        let mut r = Reader::new(payload);
        let header = ResponseHeader::decode(&mut r)?;
        if header.request_type != GET_AUTH_SESSION_KEY || grant.server_challenge == 0 {
            return Err(AuthError::OutOfOrder);
        }
        if header.status < 0 {
            return Err(AuthError::Status(header.status));
        }
        let key = &self.config.principal.key;
        grant.take_tickets(now, key, &mut r)?;
        let connection_secret = grant.take_extras(now, &mut r)?;
        if connection_secret.len() < mode.secret_len() {
            return Err(AuthError::BadProof);
        }
        let auth = grant.tickets.get(&AUTH).ok_or(AuthError::NoTicket { service: AUTH })?;
        let session_key = auth.session_key.clone();
        Ok(ConnectDone { session_key, connection_secret, grant: Some(Box::new(grant)) })
    }
}

impl MonGrant {
    /// Stores the challenge of a new session; true when this session had one already.
    fn server_challenge_taken(&mut self, payload: &[u8]) -> Result<bool, DecodeError> {
        let ServerChallenge(challenge) = Decode::from_bytes(payload)?;
        Ok(std::mem::replace(&mut self.server_challenge, challenge) != 0)
    }
}

/// Authenticates to an OSD, manager or MDS.
pub struct ServiceConnector {
    service: u32,
    global_id: u64,
    credential: Credential,
    modes: Vec<ConMode>,
    nonce: u64,
    challenged: bool,
}

enum Credential {
    Ticket(Ticket),
    None(EntityNameStr),
}

impl ServiceConnector {
    /// `name` is the own name. Fails when `grant` holds no ticket for `service`.
    pub fn new(
        service: EntityType,
        grant: &MonGrant,
        name: &EntityNameStr,
        modes: Vec<ConMode>,
        seed: [u8; 32],
    ) -> Result<Self, AuthError> {
        let service = u32::from(service.0);
        let credential = if grant.method == METHOD_NONE {
            Credential::None(name.clone())
        } else {
            let ticket = grant.tickets.get(&service).ok_or(AuthError::NoTicket { service })?;
            Credential::Ticket(ticket.clone())
        };
        let nonce = ChaCha20Rng::from_seed(seed).next_u64();
        let global_id = grant.global_id;
        Ok(Self { service, global_id, credential, modes, nonce, challenged: false })
    }

    fn method(&self) -> u32 {
        match self.credential {
            Credential::Ticket(_) => METHOD_CEPHX,
            Credential::None(_) => METHOD_NONE,
        }
    }

    fn authorizer(&self, challenge_plus_one: Option<u64>) -> Result<Vec<u8>, AuthError> {
        match &self.credential {
            Credential::Ticket(ticket) => {
                let authorize = Authorize { nonce: self.nonce, challenge_plus_one };
                ticket.authorizer(self.global_id, self.service, &authorize)
            }
            Credential::None(name) => {
                let mut out = 1u8.to_bytes(F);
                name.encode(&mut out, F);
                self.global_id.encode(&mut out, F);
                Ok(out)
            }
        }
    }
}

impl ConnectAuth for ServiceConnector {
    fn request(&mut self) -> AuthRequest {
        // A session key from a decoded ticket always encrypts; an empty payload is refused.
        let payload = self.authorizer(None).unwrap_or_default();
        AuthRequest { method: self.method(), modes: modes_for(self.method(), &self.modes), payload }
    }

    fn bad_method(
        &mut self,
        method: u32,
        result: i32,
        allowed_methods: &[u32],
        _allowed_modes: &[u32],
    ) -> Result<AuthRequest, AuthError> {
        Err(AuthError::Refused { method, result, allowed: allowed_methods.to_vec() })
    }

    fn more(&mut self, payload: &[u8]) -> Result<Vec<u8>, AuthError> {
        let Credential::Ticket(ticket) = &self.credential else {
            return Err(AuthError::OutOfOrder);
        };
        if self.challenged {
            return Err(AuthError::OutOfOrder);
        }
        let ServerChallenge(challenge) = ticket.session_key.open(payload)?;
        self.challenged = true;
        self.authorizer(Some(challenge.wrapping_add(1)))
    }

    fn done(
        &mut self,
        _now: WallTime,
        _global_id: u64,
        mode: ConMode,
        payload: &[u8],
    ) -> Result<ConnectDone, AuthError> {
        check_mode(mode, self.method(), &self.modes)?;
        let Credential::Ticket(ticket) = &self.credential else {
            return Ok(ConnectDone::default());
        };
        let reply: AuthorizeReply = ticket.session_key.open_from(&mut Reader::new(payload))?;
        let proven = reply.nonce_plus_one == self.nonce.wrapping_add(1);
        if !proven || reply.connection_secret.len() < mode.secret_len() {
            return Err(AuthError::BadProof);
        }
        Ok(ConnectDone {
            session_key: ticket.session_key.clone(),
            connection_secret: reply.connection_secret,
            grant: None,
        })
    }
}

/// `none` has no key to encrypt with.
fn modes_for(method: u32, modes: &[ConMode]) -> Vec<u32> {
    modes
        .iter()
        .filter(|&&m| method != METHOD_NONE || m == ConMode::Crc)
        .map(|&m| m as u32)
        .collect()
}

fn check_mode(mode: ConMode, method: u32, modes: &[ConMode]) -> Result<(), AuthError> {
    if modes_for(method, modes).contains(&(mode as u32)) {
        Ok(())
    } else {
        Err(AuthError::BadMode(mode as u32))
    }
}
