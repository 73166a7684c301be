//! The monitor's side of authentication: proof of the key, global ids, tickets, rotating secrets.
//!
//! Invariants: a global id is only given to who never had one (a new id) or who presents the AUTH
//! ticket that names it; a refused peer learns nothing but the error code, the same for an unknown
//! entity and a wrong key.

use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use spirula_wire::types::{EntityNameStr, EntityType};
use spirula_wire::{Decode, Encode, Features, Reader};

use crate::crypto::CryptoKey;
use crate::errno::{EACCES, EINVAL, EIO, EOPNOTSUPP};
use crate::grant::{MonGrant, Ticket, TicketBlob};
use crate::handshake::{
    AcceptAuth, AcceptDone, AcceptStep, AuthenticatedPeer, ConMode, METHOD_CEPHX, METHOD_NONE,
    WallTime,
};
use crate::keyring::EntityAuth;
use crate::protocol::{
    AuthCapsInfo, AuthTicket, Authenticate, Authorize, AuthorizerHead, Blob, GET_AUTH_SESSION_KEY,
    GET_PRINCIPAL_SESSION_KEY, GET_ROTATING_KEY, MODE_MON, MODE_MON_MAX, MonHello, ResponseHeader,
    ServerChallenge, ServiceTicket, ServiceTicketInfo, challenge_proof,
};
use crate::rotating::{RotatingSecrets, SealingKey};

const F: Features = Features::PACIFIC;
const AUTH: u32 = EntityType::AUTH.0 as u32;

/// The monitor's auth database, as this handshake needs it.
pub trait KeyServer: Send {
    fn auth_of(&self, name: &EntityNameStr) -> Option<EntityAuth>;

    /// Rotating secrets of a service; `None` for what is no service.
    fn rotating(&self, service: EntityType) -> Option<RotatingSecrets>;

    /// Whether the monitor can let this entity in now. One that cannot hangs up, which makes
    /// clients try another.
    fn serves(&self, _name: &EntityNameStr) -> bool {
        true
    }

    /// A global id that was never given out; `None` while the monitor cannot give one.
    fn assign_global_id(&mut self) -> Option<u64>;
}

/// What a monitor requires and grants.
#[derive(Clone, Debug)]
pub struct MonAuthConfig {
    /// For daemons (`auth_cluster_required`).
    pub cluster_methods: Vec<u32>,
    /// For clients (`auth_service_required`).
    pub service_methods: Vec<u32>,
    /// `ms_mon_service_mode`.
    pub modes: Vec<ConMode>,
    /// Life of an AUTH ticket (`auth_mon_ticket_ttl`).
    pub mon_ticket_ttl: Duration,
    /// Life of a service ticket (`auth_service_ticket_ttl`).
    pub service_ticket_ttl: Duration,
    /// Lets clients from before their fix take their id back without a ticket.
    pub allow_insecure_global_id_reclaim: bool,
}

impl Default for MonAuthConfig {
    fn default() -> Self {
        Self {
            cluster_methods: vec![METHOD_CEPHX],
            service_methods: vec![METHOD_CEPHX],
            modes: vec![ConMode::Secure, ConMode::Crc],
            mon_ticket_ttl: Duration::from_secs(72 * 3600),
            service_ticket_ttl: Duration::from_secs(3600),
            allow_insecure_global_id_reclaim: false,
        }
    }
}

/// [`AcceptAuth`] of a monitor, for cephx and `none`.
pub struct MonAcceptor<K> {
    config: MonAuthConfig,
    keys: K,
    rng: ChaCha20Rng,
    state: State,
}

enum State {
    Fresh,
    Challenged(Challenged),
    Finished,
}

struct Challenged {
    principal: Session,
    new_id: bool,
    mode: ConMode,
}

/// Whom an open monitor session belongs to.
struct Session {
    name: EntityNameStr,
    global_id: u64,
    server_challenge: u64,
}

impl<K: KeyServer> MonAcceptor<K> {
    pub fn new(config: MonAuthConfig, keys: K, seed: [u8; 32]) -> Self {
        Self { config, keys, rng: ChaCha20Rng::from_seed(seed), state: State::Fresh }
    }

    fn bad(&self, result: i32, daemon: bool) -> AcceptStep {
        let methods =
            if daemon { &self.config.cluster_methods } else { &self.config.service_methods };
        AcceptStep::Bad {
            result,
            allowed_methods: methods.clone(),
            allowed_modes: self.config.modes.iter().map(|&m| m as u32).collect(),
        }
    }

    fn start(&mut self, method: u32, modes: &[u32], payload: &[u8]) -> Result<AcceptStep, Refusal> {
        let client = |errno| Refusal { errno, daemon: false };
        let allowed = if method == METHOD_NONE { &[ConMode::Crc] } else { &*self.config.modes };
        let mode = ConMode::pick(modes, allowed).ok_or(client(EOPNOTSUPP))?;
        if !payload.first().is_some_and(|m| (MODE_MON..=MODE_MON_MAX).contains(m)) {
            return Err(client(EACCES));
        }
        let hello = MonHello::from_payload(payload).map_err(|_| client(EACCES))?;
        let daemon = is_daemon(hello.name.type_);
        let refuse = |errno| Refusal { errno, daemon };
        let methods =
            if daemon { &self.config.cluster_methods } else { &self.config.service_methods };
        if !methods.contains(&method) {
            return Err(refuse(EOPNOTSUPP));
        }
        if !self.keys.serves(&hello.name) {
            return Ok(AcceptStep::NotYet);
        }
        let new_id = hello.global_id == 0;
        let assigned = match hello.global_id {
            // Monitors must reach each other before there can be ids to give.
            0 if hello.name.type_ == EntityType::MON => self.keys.assign_global_id().or(Some(0)),
            0 => self.keys.assign_global_id(),
            id => Some(id),
        };
        let Some(global_id) = assigned else {
            return Ok(AcceptStep::NotYet);
        };
        if method == METHOD_NONE {
            return Ok(AcceptStep::Done(none_done(hello.name, global_id)));
        }
        if method != METHOD_CEPHX {
            return Err(refuse(EOPNOTSUPP));
        }
        let server_challenge = self.rng.next_u64().max(1);
        let principal = Session { name: hello.name, global_id, server_challenge };
        self.state = State::Challenged(Challenged { principal, new_id, mode });
        Ok(AcceptStep::More(ServerChallenge(server_challenge).to_bytes(F)))
    }

    fn prove(
        &mut self,
        now: WallTime,
        ctx: &Challenged,
        payload: &[u8],
    ) -> Result<AcceptDone, i32> {
        let mut r = Reader::new(payload);
        if r.u16().map_err(|_| EACCES)? != GET_AUTH_SESSION_KEY {
            return Err(EINVAL);
        }
        let mut issuer = Issuer { config: &self.config, keys: &self.keys, now, rng: &mut self.rng };
        let secret_len = Some(ctx.mode.secret_len());
        let granted = issuer.authenticate(&ctx.principal, ctx.new_id, &mut r, secret_len)?;
        Ok(AcceptDone {
            global_id: ctx.principal.global_id,
            mode: ctx.mode,
            payload: granted.reply,
            session_key: granted.session_key,
            connection_secret: granted.connection_secret,
            peer: AuthenticatedPeer {
                name: ctx.principal.name.clone(),
                global_id: ctx.principal.global_id,
                caps: granted.mon_caps,
                allow_all: false,
                expires: granted.expires,
                server_challenge: ctx.principal.server_challenge,
            },
        })
    }
}

impl<K: KeyServer> AcceptAuth for MonAcceptor<K> {
    fn request(
        &mut self,
        _now: WallTime,
        method: u32,
        modes: &[u32],
        payload: &[u8],
    ) -> AcceptStep {
        if !matches!(self.state, State::Fresh) {
            return self.bad(EACCES, false);
        }
        match self.start(method, modes, payload) {
            Ok(step) => {
                if matches!(step, AcceptStep::Done(_)) {
                    self.state = State::Finished;
                }
                step
            }
            Err(refusal) => self.bad(refusal.errno, refusal.daemon),
        }
    }

    fn more(&mut self, now: WallTime, payload: &[u8]) -> AcceptStep {
        let State::Challenged(ctx) = std::mem::replace(&mut self.state, State::Finished) else {
            return self.bad(EACCES, false);
        };
        match self.prove(now, &ctx, payload) {
            Ok(done) => AcceptStep::Done(done),
            Err(errno) => {
                self.state = State::Fresh;
                self.bad(errno, is_daemon(ctx.principal.name.type_))
            }
        }
    }
}

/// Answers the payload of an `auth` message on an open monitor session: renewal of tickets, and
/// rotating secrets for daemons. Returns result and payload of the `auth_reply`.
pub fn handle_auth_message<K: KeyServer>(
    config: &MonAuthConfig,
    keys: &K,
    now: WallTime,
    rng: &mut ChaCha20Rng,
    peer: &AuthenticatedPeer,
    payload: &[u8],
) -> (i32, Vec<u8>) {
    let mut r = Reader::new(payload);
    let mut issuer = Issuer { config, keys, now, rng };
    let answer = match r.u16() {
        Ok(GET_AUTH_SESSION_KEY) if peer.server_challenge != 0 => {
            let session = Session {
                name: peer.name.clone(),
                global_id: peer.global_id,
                server_challenge: peer.server_challenge,
            };
            issuer.authenticate(&session, false, &mut r, None).map(|g| (0, g.reply))
        }
        Ok(GET_PRINCIPAL_SESSION_KEY) => issuer.renew(&mut r),
        Ok(GET_ROTATING_KEY) => issuer.rotating(&peer.name).map(|reply| (0, reply)),
        Ok(_) => Err(EINVAL),
        Err(_) => Err(EACCES),
    };
    answer.unwrap_or_else(|errno| (errno, Vec::new()))
}

/// What a monitor holds for its own session to a service, whose secrets it has: it need ask nobody.
/// `None` without secrets.
pub fn own_grant(
    name: &EntityNameStr,
    service: EntityType,
    secrets: &RotatingSecrets,
    ttl: Duration,
    now: WallTime,
    rng: &mut ChaCha20Rng,
) -> Option<MonGrant> {
    let sealing = secrets.sealing_key(now, ttl)?;
    let ticket = AuthTicket {
        name: name.clone(),
        global_id: 0,
        created: now,
        expires: now + sealing.ttl,
        caps: AuthCapsInfo { text: "allow *".to_owned(), ..AuthCapsInfo::default() },
        flags: 0,
    };
    let session_key = CryptoKey::generate(now, rng);
    let info = ServiceTicketInfo { ticket, session_key: session_key.clone() };
    let blob = TicketBlob { secret_id: sealing.secret_id, blob: sealing.key.seal(&info).ok()? };
    let expires = now + sealing.ttl;
    let ticket = Ticket { session_key, blob, renew_after: expires, expires };
    let tickets = [(u32::from(service.0), ticket)].into();
    Some(MonGrant { method: METHOD_CEPHX, tickets, ..MonGrant::default() })
}

struct Refusal {
    errno: i32,
    daemon: bool,
}

fn is_daemon(type_: EntityType) -> bool {
    [EntityType::MON, EntityType::OSD, EntityType::MDS, EntityType::MGR].contains(&type_)
}

pub(crate) fn none_done(name: EntityNameStr, global_id: u64) -> AcceptDone {
    AcceptDone {
        global_id,
        mode: ConMode::Crc,
        payload: Vec::new(),
        session_key: CryptoKey::default(),
        connection_secret: Vec::new(),
        peer: AuthenticatedPeer {
            name,
            global_id,
            caps: String::new(),
            allow_all: true,
            expires: WallTime::MAX,
            server_challenge: 0,
        },
    }
}

/// Makes tickets at one moment.
struct Issuer<'a, K> {
    config: &'a MonAuthConfig,
    keys: &'a K,
    now: WallTime,
    rng: &'a mut ChaCha20Rng,
}

struct Granted {
    reply: Vec<u8>,
    session_key: CryptoKey,
    connection_secret: Vec<u8>,
    mon_caps: String,
    expires: WallTime,
}

/// A ticket before it is sealed.
struct Issue {
    service: u32,
    sealing: SealingKey,
    info: ServiceTicketInfo,
}

impl<K: KeyServer> Issuer<'_, K> {
    /// Checks CephXAuthenticate and makes the AUTH ticket with the others that were asked for.
    /// `secret_len` is absent on an open session, where no connection secret is due.
    fn authenticate(
        &mut self,
        session: &Session,
        new_id: bool,
        r: &mut Reader<'_>,
        secret_len: Option<usize>,
    ) -> Result<Granted, i32> {
        let request = Authenticate::decode(r).map_err(|_| EACCES)?;
        let auth = self.keys.auth_of(&session.name).ok_or(EACCES)?;
        let proof = challenge_proof(&auth.key, session.server_challenge, request.client_challenge)
            .map_err(|_| EACCES)?;
        if request.proof != proof {
            return Err(EACCES);
        }
        let old_key = self.check_reclaim(session.global_id, new_id, &request)?;
        let mon_caps = auth.caps_for("mon");
        if mon_caps.is_empty() {
            return Err(EACCES);
        }

        let auth_issue = self.auth_ticket(session)?;
        let ticket = auth_issue.info.ticket.clone();
        let session_key = auth_issue.info.session_key.clone();
        let header = ResponseHeader { request_type: GET_AUTH_SESSION_KEY, status: 0 };
        let mut reply = header.to_bytes(F);
        seal_tickets(&mut reply, &auth.key, &[auth_issue], old_key.as_ref()).map_err(|_| EIO)?;
        let mut connection_secret = Vec::new();
        if request.services != 0 {
            let mut sealed = Vec::new();
            if let Some(len) = secret_len {
                connection_secret.resize(len, 0);
                self.rng.fill_bytes(&mut connection_secret);
                let blob = Blob(connection_secret.clone());
                session_key.seal_into(&blob, &mut sealed).map_err(|_| EIO)?;
            }
            sealed.as_slice().encode(&mut reply, F);
            let issues: Vec<_> = services(request.services & !AUTH)
                .filter_map(|service| self.service_ticket(service, &ticket).ok())
                .collect();
            let mut extra = Vec::new();
            if !issues.is_empty() {
                seal_tickets(&mut extra, &session_key, &issues, None).map_err(|_| EIO)?;
            }
            extra.as_slice().encode(&mut reply, F);
        }
        Ok(Granted {
            reply,
            session_key,
            connection_secret,
            mon_caps: mon_caps.to_owned(),
            expires: ticket.expires,
        })
    }

    /// The rules of CVE-2021-20288: who names an old global id must present its ticket. Returns the
    /// key to hide the new ticket under.
    fn check_reclaim(
        &self,
        global_id: u64,
        new_id: bool,
        request: &Authenticate,
    ) -> Result<Option<CryptoKey>, i32> {
        let presented = !request.old_ticket.blob.is_empty();
        if new_id {
            return if presented { Err(EINVAL) } else { Ok(None) };
        }
        let old = presented.then(|| self.open_auth_ticket(&request.old_ticket)).flatten();
        match old {
            Some(old) if old.ticket.global_id == global_id => Ok(Some(old.session_key)),
            _ if self.config.allow_insecure_global_id_reclaim && request.may_omit_old_ticket => {
                Ok(None)
            }
            _ => Err(EACCES),
        }
    }

    fn open_auth_ticket(&self, blob: &TicketBlob) -> Option<ServiceTicketInfo> {
        let secrets = self.keys.rotating(EntityType::AUTH)?;
        let info: ServiceTicketInfo = secrets.get(blob.secret_id)?.open(&blob.blob).ok()?;
        (self.now < info.ticket.expires).then_some(info)
    }

    fn auth_ticket(&mut self, session: &Session) -> Result<Issue, i32> {
        let secrets = self.keys.rotating(EntityType::AUTH).ok_or(EIO)?;
        let sealing = secrets.sealing_key(self.now, self.config.mon_ticket_ttl).ok_or(EIO)?;
        let ticket = AuthTicket {
            name: session.name.clone(),
            global_id: session.global_id,
            created: self.now,
            expires: self.now + sealing.ttl,
            caps: AuthCapsInfo::default(),
            flags: 0,
        };
        let session_key = CryptoKey::generate(self.now, self.rng);
        Ok(Issue { service: AUTH, sealing, info: ServiceTicketInfo { ticket, session_key } })
    }

    fn service_ticket(&mut self, service: u32, parent: &AuthTicket) -> Result<Issue, i32> {
        let type_ = EntityType(u8::try_from(service).map_err(|_| EACCES)?);
        let secrets = self.keys.rotating(type_).ok_or(EACCES)?;
        let sealing =
            secrets.sealing_key(self.now, self.config.service_ticket_ttl).ok_or(EACCES)?;
        let mut caps = AuthCapsInfo::default();
        // A monitor looks capabilities up itself.
        if type_ != EntityType::MON {
            let auth = self.keys.auth_of(&parent.name).ok_or(EINVAL)?;
            caps.text = auth.caps_for(type_.name()).to_owned();
        }
        let ticket = AuthTicket {
            created: self.now,
            expires: self.now + sealing.ttl,
            caps,
            ..parent.clone()
        };
        let session_key = CryptoKey::generate(self.now, self.rng);
        Ok(Issue { service, sealing, info: ServiceTicketInfo { ticket, session_key } })
    }

    /// CEPHX_GET_PRINCIPAL_SESSION_KEY: an authorizer made from the AUTH ticket, then the services.
    fn renew(&mut self, r: &mut Reader<'_>) -> Result<(i32, Vec<u8>), i32> {
        let head = AuthorizerHead::decode(r).map_err(|_| EACCES)?;
        let auth = self.open_auth_ticket(&head.ticket).ok_or(EACCES)?;
        if auth.ticket.global_id != head.global_id {
            return Err(EACCES);
        }
        // Opening it proves the session key; there is no challenge on an authenticated session.
        auth.session_key.open_from::<Authorize>(r).map_err(|_| EACCES)?;
        r.u8().map_err(|_| EACCES)?;
        let wanted = r.u32().map_err(|_| EACCES)?;
        let mut issues = Vec::new();
        let mut status = 0;
        for service in services(wanted) {
            match self.service_ticket(service, &auth.ticket) {
                Ok(issue) => issues.push(issue),
                Err(errno) => status = errno,
            }
        }
        if !issues.is_empty() {
            status = 0;
        }
        let header = ResponseHeader { request_type: GET_PRINCIPAL_SESSION_KEY, status };
        let mut reply = header.to_bytes(F);
        seal_tickets(&mut reply, &auth.session_key, &issues, None).map_err(|_| EIO)?;
        Ok((status, reply))
    }

    fn rotating(&self, name: &EntityNameStr) -> Result<Vec<u8>, i32> {
        let auth = self.keys.auth_of(name).ok_or(EACCES)?;
        let secrets = self.keys.rotating(name.type_).ok_or(EACCES)?;
        let header = ResponseHeader { request_type: GET_ROTATING_KEY, status: 0 };
        let mut reply = header.to_bytes(F);
        auth.key.seal_into(&secrets, &mut reply).map_err(|_| EIO)?;
        Ok(reply)
    }
}

/// Writes a ticket reply: per service the session key under `principal`, and the ticket under the
/// service's secret, hidden once more under `hide` when that is given.
fn seal_tickets(
    out: &mut Vec<u8>,
    principal: &CryptoKey,
    issues: &[Issue],
    hide: Option<&CryptoKey>,
) -> Result<(), crate::CryptoError> {
    1u8.encode(out, F);
    (issues.len() as u32).encode(out, F);
    for issue in issues {
        issue.service.encode(out, F);
        1u8.encode(out, F);
        let ticket = ServiceTicket {
            session_key: issue.info.session_key.clone(),
            validity: issue.sealing.ttl,
        };
        principal.seal_into(&ticket, out)?;
        let blob = TicketBlob {
            secret_id: issue.sealing.secret_id,
            blob: issue.sealing.key.seal(&issue.info)?,
        };
        hide.is_some().encode(out, F);
        let blob = Blob(blob.to_bytes(F));
        match hide {
            Some(key) => key.seal_into(&blob, out)?,
            None => blob.encode(out, F),
        }
    }
    Ok(())
}

fn services(mask: u32) -> impl Iterator<Item = u32> {
    (0..u32::BITS).map(|bit| 1 << bit).filter(move |s| mask & s != 0)
}
