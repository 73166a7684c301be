//! The monitor client itself: session life, dispatch of what arrives, and the queue of actions.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use spirula_auth::{
    AuthError, ConnectAuth, METHOD_NONE, MonConnectConfig, MonConnector, MonGrant,
    ServiceConnector, ServiceSecrets,
};
use spirula_maps::MonMap;
use spirula_msgr_core::Now;
use spirula_wire::msg::auth::AuthReply;
use spirula_wire::msg::mgr::MgrMapMsg;
use spirula_wire::msg::mon::{Config as ConfigMsg, Log, LogAck, LogEntry, MonGetMap, MonMapMsg};
use spirula_wire::msg::osd::OsdMapMsg;
use spirula_wire::msg::{Paxos, types};
use spirula_wire::types::{EntityAddrVec, EntityName, EntityType, Uuid};
use spirula_wire::{Decode, DecodeError, Features, Message, RawMessage, Reader};

use crate::config::Config;
use crate::hunt::Hunt;
use crate::requests::{PoolRequest, Reply, Request, Requests};
use crate::subs::Subs;
use crate::tickets::{Refreshed, Tickets};

const F: Features = Features::PACIFIC;
const EACCES: i32 = -13;
const EINVAL: i32 = -22;
/// Messages kept for the first session; more are dropped, oldest first.
const WAITING_MAX: usize = 4096;
/// Cluster log lines kept until a monitor acknowledges them; more are dropped, oldest first.
const LOG_MAX: usize = 1024;

/// Names one connection attempt and the session it becomes.
pub type ConnId = u64;

/// What the driver has to do, in this order.
pub enum Action {
    /// Open a connection to a monitor. It reports back with [`MonClient::handle_connected`] or
    /// [`MonClient::handle_closed`].
    Connect {
        conn: ConnId,
        addr: SocketAddr,
        auth: Box<dyn ConnectAuth>,
    },
    Send {
        conn: ConnId,
        message: RawMessage,
    },
    /// Send a KEEPALIVE2.
    Keepalive {
        conn: ConnId,
    },
    /// Close the connection, or stop opening it; nothing more is expected from it.
    Close {
        conn: ConnId,
    },
    Event(Event),
}

/// What the owner of the client learns.
#[derive(Debug)]
pub enum Event {
    /// A session is open; messages that the owner sent on an earlier one may be lost.
    Connected {
        global_id: u64,
    },
    /// The session ended; the client is looking for another.
    Disconnected,
    /// A monitor refused us. The client goes on trying; the owner may give up.
    AuthFailed(AuthError),
    MonMap(Arc<MonMap>),
    Config(BTreeMap<String, String>),
    OsdMap(OsdMapMsg),
    /// An encoded MgrMap.
    MgrMap(Bytes),
    Reply {
        tid: u64,
        reply: Reply,
    },
    /// New secrets to accept sessions with.
    RotatingKeys(Arc<ServiceSecrets>),
    /// Any other message.
    Message(RawMessage),
}

enum Session {
    Idle,
    Connecting {
        conn: ConnId,
        deadline: Duration,
    },
    /// `unanswered`: when the oldest keepalive went out that has had no answer.
    Open {
        conn: ConnId,
        keepalive_at: Duration,
        unanswered: Option<Duration>,
    },
}

/// The monitor client.
///
/// * Getters: [`is_open`](Self::is_open), [`session`](Self::session),
///   [`global_id`](Self::global_id), [`monmap`](Self::monmap), [`grant`](Self::grant), [`authorizer_for`](Self::authorizer_for),
///   [`poll_timeout`](Self::poll_timeout).
/// * Inputs: [`handle_connected`](Self::handle_connected),
///   [`handle_message`](Self::handle_message), [`handle_closed`](Self::handle_closed),
///   [`handle_keepalive_ack`](Self::handle_keepalive_ack),
///   [`handle_timeout`](Self::handle_timeout).
/// * Commands: [`subscribe`](Self::subscribe), [`request`](Self::request) and its short forms,
///   [`send`](Self::send), [`log`](Self::log), [`close`](Self::close).
/// * Output: [`poll_action`](Self::poll_action).
///
/// Order for a driver: call [`handle_timeout`](Self::handle_timeout) once to begin; after every
/// input or command drain the actions, then wait until [`poll_timeout`](Self::poll_timeout).
pub struct MonClient {
    config: Config,
    rng: ChaCha20Rng,
    session: Session,
    last_conn: ConnId,
    closed: bool,
    hunt: Hunt,
    tickets: Tickets,
    monmap: Option<Arc<MonMap>>,
    subs: Subs,
    requests: Requests,
    last_tid: u64,
    waiting: VecDeque<RawMessage>,
    log: VecDeque<LogEntry>,
    log_seq: u64,
    log_unsent: usize,
    actions: VecDeque<Action>,
}

impl MonClient {
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let mut subs = Subs::default();
        subs.want("config", 0, false);
        subs.want("monmap", 0, false);
        Self {
            rng: ChaCha20Rng::from_seed(seed),
            session: Session::Idle,
            last_conn: 0,
            closed: false,
            hunt: Hunt::new(config.mons.clone()),
            tickets: Tickets::new(),
            monmap: None,
            subs,
            requests: Requests::default(),
            last_tid: 0,
            waiting: VecDeque::new(),
            log: VecDeque::new(),
            log_seq: 0,
            log_unsent: 0,
            actions: VecDeque::new(),
            config,
        }
    }

    pub fn is_open(&self) -> bool {
        self.session().is_some()
    }

    /// The connection of the open session.
    pub fn session(&self) -> Option<ConnId> {
        match self.session {
            Session::Open { conn, .. } => Some(conn),
            _ => None,
        }
    }

    /// 0 before the first session.
    pub fn global_id(&self) -> u64 {
        self.tickets.grant.global_id
    }

    pub fn monmap(&self) -> Option<&Arc<MonMap>> {
        self.monmap.as_ref()
    }

    pub fn grant(&self) -> &MonGrant {
        &self.tickets.grant
    }

    /// Credentials for one connection to an OSD, manager or MDS.
    pub fn authorizer_for(&mut self, service: EntityType) -> Result<ServiceConnector, AuthError> {
        let seed = self.seed();
        let name = &self.config.principal.name;
        // Managers carry commands as monitors do, and are treated alike.
        let modes = match service {
            EntityType::MGR => self.config.mon_modes.clone(),
            _ => self.config.service_modes.clone(),
        };
        ServiceConnector::new(service, &self.tickets.grant, name, modes, seed)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due (monotonic). `now` relates the clocks.
    pub fn poll_timeout(&self, now: Now) -> Option<Duration> {
        if self.closed {
            return None;
        }
        match self.session {
            Session::Idle => self.hunt.next_at(),
            Session::Connecting { deadline, .. } => Some(deadline),
            Session::Open { keepalive_at, .. } => {
                let due = self.tickets.due_at(&self.config);
                let auth = due.map(|wall| now.mono + wall.saturating_sub(now.wall));
                Some(auth.map_or(keepalive_at, |at| at.min(keepalive_at)))
            }
        }
    }

    /// The handshake of `conn` is complete; `grant` is what it brought.
    pub fn handle_connected(&mut self, now: Now, conn: ConnId, grant: Option<Box<MonGrant>>) {
        if !matches!(self.session, Session::Connecting { conn: c, .. } if c == conn) {
            // Too late: given up while the handshake went on.
            self.actions.push_back(Action::Close { conn });
            return;
        }
        let keepalive_at = now.mono + self.config.timing.keepalive;
        self.session = Session::Open { conn, keepalive_at, unanswered: None };
        self.hunt.succeeded();
        if let Some(grant) = grant {
            self.tickets.session_opened(*grant);
        }
        self.subs.reset();
        self.requests.reset();
        self.log_unsent = self.log.len();
        self.event(Event::Connected { global_id: self.tickets.grant.global_id });
        if self.monmap.is_none() {
            self.transmit(MonGetMap {}.to_raw(0, F));
        }
        for message in std::mem::take(&mut self.waiting) {
            self.transmit(message);
        }
        self.flush(now);
    }

    /// `conn` could not be opened or has ended; `refused` says that the monitor did not let us in.
    pub fn handle_closed(&mut self, now: Now, conn: ConnId, refused: Option<AuthError>) {
        match self.session {
            Session::Connecting { conn: c, .. } if c == conn => {
                self.session = Session::Idle;
                match refused {
                    // The monitors may have forgotten our ticket; without it we are new to them.
                    Some(AuthError::Refused { result: EACCES | EINVAL, .. })
                        if self.tickets.grant != MonGrant::default() =>
                    {
                        self.tickets.grant = MonGrant::default();
                        self.hunt.lost(now.mono);
                    }
                    Some(error) => {
                        self.hunt.failed(now.mono, &self.config.timing);
                        self.event(Event::AuthFailed(error));
                    }
                    None => self.hunt.failed(now.mono, &self.config.timing),
                }
            }
            Session::Open { conn: c, .. } if c == conn => {
                self.session = Session::Idle;
                self.tickets.session_closed();
                self.hunt.lost(now.mono);
                self.event(Event::Disconnected);
            }
            _ => return,
        }
        self.hunt_on(now);
    }

    /// The peer acknowledged a keepalive. The session is given up when none comes.
    pub fn handle_keepalive_ack(&mut self, conn: ConnId) {
        if let Session::Open { conn: c, unanswered, .. } = &mut self.session
            && *c == conn
        {
            *unanswered = None;
        }
    }

    /// Takes a message. One that does not decode ends the session.
    pub fn handle_message(&mut self, now: Now, conn: ConnId, raw: RawMessage) {
        if !matches!(self.session, Session::Open { conn: c, .. } if c == conn) {
            return;
        }
        if self.dispatch(now, raw).is_err() {
            self.actions.push_back(Action::Close { conn });
            self.handle_closed(now, conn, None);
            return;
        }
        self.flush(now);
    }

    pub fn handle_timeout(&mut self, now: Now) {
        match &mut self.session {
            Session::Idle => self.hunt_on(now),
            Session::Connecting { conn, deadline } if now.mono >= *deadline => {
                let conn = *conn;
                self.actions.push_back(Action::Close { conn });
                self.handle_closed(now, conn, None);
            }
            Session::Connecting { .. } => {}
            Session::Open { conn, keepalive_at, unanswered } => {
                let conn = *conn;
                let timeout = self.config.timing.keepalive_timeout;
                if unanswered.is_some_and(|since| now.mono >= since + timeout) {
                    self.actions.push_back(Action::Close { conn });
                    self.handle_closed(now, conn, None);
                } else if now.mono >= *keepalive_at {
                    *keepalive_at = now.mono + self.config.timing.keepalive;
                    unanswered.get_or_insert(now.mono);
                    self.actions.push_back(Action::Keepalive { conn });
                }
                self.flush(now);
            }
        }
    }

    /// Wants `what` (`osdmap`, `mgrmap`, `log-info`, ..) from version `start` on, once or for ever.
    pub fn subscribe(&mut self, now: Now, what: &str, start: u64, onetime: bool) {
        self.subs.want(what, start, onetime);
        self.flush(now);
    }

    pub fn unsubscribe(&mut self, what: &str) {
        self.subs.unwant(what);
    }

    /// Version `version` of `what` has arrived by another way, so that it is not asked for again.
    pub fn got(&mut self, what: &str, version: u64) {
        self.subs.got(what, version);
    }

    /// Asks; the answer is an [`Event::Reply`] with the returned tid, however many sessions later.
    pub fn request(&mut self, now: Now, request: Request) -> u64 {
        self.last_tid += 1;
        self.requests.add(self.last_tid, request);
        self.flush(now);
        self.last_tid
    }

    pub fn command(&mut self, now: Now, cmd: impl Into<String>, inbl: Bytes) -> u64 {
        self.request(now, Request::Command { cmd: cmd.into(), inbl })
    }

    pub fn get_version(&mut self, now: Now, what: &str) -> u64 {
        self.request(now, Request::GetVersion { what: what.to_owned() })
    }

    pub fn pool_op(&mut self, now: Now, op: PoolRequest) -> u64 {
        self.request(now, Request::PoolOp(op))
    }

    /// Forgets a request; false if it was answered already.
    pub fn cancel(&mut self, tid: u64) -> bool {
        self.requests.cancel(tid)
    }

    pub fn is_pending(&self, tid: u64) -> bool {
        self.requests.is_pending(tid)
    }

    /// Sends on this session or, while there is none, on the next.
    pub fn send(&mut self, message: RawMessage) {
        if self.is_open() {
            self.transmit(message);
            return;
        }
        if self.waiting.len() == WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(message);
    }

    /// Writes a line to the cluster log. `priority` is one of `wire::msg::mon::log_priority`.
    pub fn log(&mut self, now: Now, channel: &str, priority: u16, text: impl Into<String>) {
        self.log_seq += 1;
        if self.log.len() == LOG_MAX {
            self.log.pop_front();
        }
        let name = self.config.principal.name.clone();
        let num = match name.type_ {
            EntityType::CLIENT => i64::try_from(self.global_id()).unwrap_or(-1),
            _ => name.id.parse().unwrap_or(0),
        };
        self.log.push_back(LogEntry {
            rank: EntityName::new(name.type_, num),
            name,
            addrs: EntityAddrVec::default(),
            stamp: now.wall.into(),
            seq: self.log_seq,
            prio: priority,
            msg: text.into(),
            channel: channel.to_owned(),
        });
        self.log_unsent = (self.log_unsent + 1).min(self.log.len());
        self.flush(now);
    }

    /// A service refused our ticket: asks for a new one at once.
    pub fn invalidate_ticket(&mut self, now: Now, service: EntityType) {
        if self.tickets.grant.method != METHOD_NONE {
            self.tickets.grant.tickets.remove(&u32::from(service.0));
        }
        self.flush(now);
    }

    /// Ends the session, for good.
    pub fn close(&mut self) {
        self.closed = true;
        let session = std::mem::replace(&mut self.session, Session::Idle);
        if let Session::Connecting { conn, .. } | Session::Open { conn, .. } = session {
            self.actions.push_back(Action::Close { conn });
        }
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn dispatch(&mut self, now: Now, raw: RawMessage) -> Result<(), DecodeError> {
        if let Some((tid, reply)) = self.requests.answered(&raw)? {
            self.event(Event::Reply { tid, reply });
            return Ok(());
        }
        match raw.header.type_ {
            types::MON_MAP => self.take_monmap(&MonMapMsg::from_raw(&raw)?)?,
            types::CONFIG => self.event(Event::Config(ConfigMsg::from_raw(&raw)?.config)),
            types::OSD_MAP => {
                let maps = OsdMapMsg::from_raw(&raw)?;
                let last = maps.maps.keys().chain(maps.incremental_maps.keys()).max();
                if let Some(&last) = last {
                    self.subs.got("osdmap", last.into());
                }
                self.event(Event::OsdMap(maps));
            }
            types::MGR_MAP => {
                let map = MgrMapMsg::from_raw(&raw)?.map;
                // The epoch is the first field.
                let epoch = Reader::new(&map).versioned("mgrmap", u8::MAX, |_, r| r.u32())?;
                self.subs.got("mgrmap", epoch.into());
                self.event(Event::MgrMap(map));
            }
            types::AUTH_REPLY => self.take_auth_reply(now, &AuthReply::from_raw(&raw)?),
            types::LOG_ACK => {
                let ack = LogAck::from_raw(&raw)?;
                let before = self.log.len();
                self.log.retain(|e| e.seq > ack.last);
                let dropped = before - self.log.len();
                let sent = before - self.log_unsent;
                self.log_unsent -= dropped.saturating_sub(sent);
            }
            // Answers to what was cancelled, and what only old clients need.
            types::MON_COMMAND_ACK
            | types::MON_GET_VERSION_REPLY
            | types::POOL_OP_REPLY
            | types::STATFS_REPLY
            | types::GET_POOL_STATS_REPLY
            | types::MON_SUBSCRIBE_ACK => {}
            _ => self.event(Event::Message(raw)),
        }
        Ok(())
    }

    fn take_monmap(&mut self, message: &MonMapMsg) -> Result<(), DecodeError> {
        let map = MonMap::from_bytes(&message.monmap)?;
        self.subs.got("monmap", map.epoch.into());
        if self.monmap.as_ref().is_none_or(|old| map.epoch > old.epoch) {
            self.hunt.learn(&map);
            let map = Arc::new(map);
            self.monmap = Some(Arc::clone(&map));
            self.event(Event::MonMap(map));
        }
        Ok(())
    }

    fn take_auth_reply(&mut self, now: Now, reply: &AuthReply) {
        match self.tickets.handle_reply(now.wall, &self.config, reply) {
            Ok(Some(Refreshed::Secrets(secrets))) => self.event(Event::RotatingKeys(secrets)),
            Ok(Some(Refreshed::Tickets) | None) => {}
            Err(error) => self.event(Event::AuthFailed(error)),
        }
    }

    /// Brings the open session up to date with what is wanted.
    fn flush(&mut self, now: Now) {
        if !self.is_open() {
            return;
        }
        if let Some(subscribe) = self.subs.renew(&self.config.hostname) {
            self.transmit(subscribe.to_raw(0, F));
        }
        let epoch = self.monmap.as_ref().map_or(0, |m| m.epoch);
        match self.tickets.due(now.wall, &self.config, &mut self.rng, epoch) {
            Ok(Some(auth)) => self.transmit(auth),
            Ok(None) => {}
            Err(error) => self.event(Event::AuthFailed(error)),
        }
        // Requests name the cluster, which the first monmap tells.
        let Some(fsid) = self.monmap.as_ref().map(|m| m.fsid) else {
            return;
        };
        for message in self.requests.unsent(fsid) {
            self.transmit(message);
        }
        self.flush_log(fsid);
    }

    fn flush_log(&mut self, fsid: Uuid) {
        if self.log_unsent == 0 {
            return;
        }
        let from = self.log.len() - self.log_unsent;
        let entries = self.log.range(from..).cloned().collect();
        self.log_unsent = 0;
        self.transmit(Log { paxos: Paxos::default(), fsid, entries }.to_raw(0, F));
    }

    fn hunt_on(&mut self, now: Now) {
        if self.closed {
            return;
        }
        let Some(addr) = self.hunt.next(now.mono, &mut self.rng) else {
            return;
        };
        self.last_conn += 1;
        let conn = self.last_conn;
        let deadline = now.mono + self.config.timing.connect_timeout;
        self.session = Session::Connecting { conn, deadline };
        let config = MonConnectConfig {
            principal: self.config.principal.clone(),
            methods: self.config.methods.clone(),
            modes: self.config.mon_modes.clone(),
            want: self.config.want,
        };
        let seed = self.seed();
        let auth = MonConnector::new(config, &self.tickets.grant, now.wall, seed);
        self.actions.push_back(Action::Connect { conn, addr, auth: Box::new(auth) });
    }

    fn transmit(&mut self, message: RawMessage) {
        if let Session::Open { conn, .. } = self.session {
            self.actions.push_back(Action::Send { conn, message });
        }
    }

    fn event(&mut self, event: Event) {
        self.actions.push_back(Action::Event(event));
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }
}
