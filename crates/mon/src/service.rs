//! The monitor without I/O: sessions, messages in, messages and log appends out.
//!
//! Methods, by kind:
//! * getters: [`Service::state`], [`Service::poll_timeout`];
//! * inputs: [`Service::session_opened`], [`Service::message`], [`Service::session_closed`],
//!   [`Service::committed`], [`Service::tick`];
//! * outputs: [`Service::poll_action`], to be drained after every input.
//!
//! Invariants: the state changes only in [`Service::committed`], by a proposal that is durable; at
//! most one proposal is under way, and a message that would need another waits behind it; nothing
//! that a proposal promises is sent before it is committed.

mod auth;
mod beacon;
mod boot;
mod commands;
mod failure;
mod full;
mod maps;
mod pool_upkeep;
mod pools;
mod stats;
mod subs;
mod tick;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::SeedableRng;
use spirula_auth::{AuthenticatedPeer, MonAuthConfig};
use spirula_wire::msg::mon::{
    LogEntry, MonGetVersion, MonGetVersionReply, MonMapMsg, log_priority,
};
use spirula_wire::msg::types as msg;
use spirula_wire::types::{
    EntityAddr, EntityAddrVec, EntityName, EntityNameStr, EntityType, UTime,
};
use spirula_wire::{DecodeError, Encode, Features, Message, RawMessage};
use tracing::{debug, warn};

use crate::Now;
use crate::caps::SessionCaps;
use crate::json::Json;
use crate::limits::{COMPACT_EVERY, QUEUE_MAX};
use crate::live::{Live, PeerInfo};
use crate::obj;
use crate::options::Settings;
use crate::state::{Change, Proposal, State};

use subs::Subscription;

pub(crate) use auth::rotation;
pub(crate) use beacon::{drop_active, promote_standby};
pub use commands::CommandResult;

pub type SessionId = u64;

/// What the driver has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    Send(SessionId, RawMessage),
    Close(SessionId),
    /// Carry out the command `.0` on the log's file, then send the reply.
    Log(String, SessionId, RawMessage),
    /// The log may have to follow other debug levels.
    OptionsChanged,
    /// Make the proposal durable as number `.0`, then call [`Service::committed`].
    Append(u64, Bytes),
    /// Replace the snapshot by the state as of proposal `.0`. Nothing waits for it.
    Compact(u64, Bytes),
}

/// How a monitor is set up.
#[derive(Clone, Debug, Default)]
pub struct ServiceConfig {
    /// `a` of `mon.a`.
    pub name: String,
    /// What `mon metadata` shows.
    pub metadata: BTreeMap<String, String>,
    /// Options from the configuration file.
    pub options: BTreeMap<String, String>,
    /// Source of keys and nonces.
    pub seed: [u8; 32],
}

/// Who is at the other end of a session.
#[derive(Clone, Debug)]
pub struct Peer {
    pub auth: AuthenticatedPeer,
    /// What it calls its addresses.
    pub addrs: EntityAddrVec,
    /// Where its socket is.
    pub socket_addr: EntityAddr,
    pub features: u64,
}

struct Session {
    peer: Peer,
    caps: SessionCaps,
    subs: BTreeMap<String, Subscription>,
    /// The options it was sent last.
    config: Option<BTreeMap<String, String>>,
}

impl Session {
    fn name(&self) -> &EntityNameStr {
        &self.peer.auth.name
    }

    /// The number of an OSD's session.
    fn osd(&self) -> Option<i32> {
        (self.name().type_ == EntityType::OSD).then(|| self.name().id.parse().ok())?
    }

    fn features(&self) -> Features {
        Features(self.peer.features)
    }
}

/// A proposal under way and what follows its commit.
struct InFlight {
    version: u64,
    proposal: Proposal,
    replies: Vec<(SessionId, RawMessage)>,
    /// To handle again after the commit.
    again: Option<(SessionId, RawMessage)>,
}

pub struct Service {
    state: State,
    live: Live,
    settings: Settings,
    rng: ChaCha20Rng,
    sessions: BTreeMap<SessionId, Session>,
    in_flight: Option<InFlight>,
    queue: VecDeque<(SessionId, RawMessage)>,
    actions: VecDeque<Action>,
    next_global_id: u64,
    next_tick: Duration,
    next_digest: Duration,
    log_seq: u64,
    /// Entries for the cluster log, proposed with the next tick or change.
    pending_log: Vec<LogEntry>,
    compacted: u64,
}

/// What handling a message came to.
enum Handled {
    Done,
    /// Propose, then send.
    Propose(Vec<Change>, Vec<(SessionId, RawMessage)>),
    /// Propose, then handle the same message again.
    ProposeAndRetry(Vec<Change>),
}

impl Service {
    /// A monitor that serves `state`.
    pub fn new(config: ServiceConfig, state: State, now: Now) -> Self {
        let mut settings = Settings::new(&config.options);
        settings.refresh(&state.config, &config.name);
        let addrs = state.monmap.addrs_of(&config.name);
        let live = Live {
            name: config.name,
            addrs,
            metadata: config.metadata,
            started: now,
            service_map: maps::empty_service_map(now),
            ..Live::default()
        };
        let mut service = Self {
            next_global_id: state.auth.max_global_id + 1,
            compacted: state.version,
            state,
            live,
            settings,
            rng: ChaCha20Rng::from_seed(config.seed),
            sessions: BTreeMap::new(),
            in_flight: None,
            queue: VecDeque::new(),
            actions: VecDeque::new(),
            next_tick: now.mono,
            next_digest: now.mono,
            log_seq: 0,
            pending_log: Vec::new(),
        };
        service.note_osds(now);
        service.tick(now);
        service
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn live(&self) -> &Live {
        &self.live
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// When [`tick`](Self::tick) is due, on the monotonic clock.
    pub fn poll_timeout(&self) -> Duration {
        self.next_tick
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub fn session_opened(&mut self, now: Now, id: SessionId, peer: Peer) {
        let auth = &peer.auth;
        let caps = SessionCaps::of(&peer);
        let info = PeerInfo {
            name: auth.name.clone(),
            global_id: auth.global_id,
            features: peer.features,
            addrs: peer.addrs.clone(),
        };
        debug!(session = id, name = %auth.name, global_id = auth.global_id, "session opened");
        self.live.peers.insert(id, info);
        let session = Session { peer, caps, subs: BTreeMap::new(), config: None };
        if let Some(osd) = session.osd() {
            self.live.osd_gone.remove(&osd);
            self.live.osd_seen.insert(osd, now.mono);
        }
        self.sessions.insert(id, session);
    }

    pub fn session_closed(&mut self, now: Now, id: SessionId) {
        self.live.peers.remove(&id);
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        debug!(session = id, name = %session.name(), "session closed");
        let Some(osd) = session.osd() else { return };
        if !self.sessions.values().any(|s| s.osd() == Some(osd)) {
            self.live.osd_gone.insert(osd, now.mono);
        }
    }

    /// Handles a message, now or after the proposal that is under way.
    pub fn message(&mut self, now: Now, id: SessionId, raw: RawMessage) {
        if !self.sessions.contains_key(&id) {
            return;
        }
        if self.in_flight.is_some() && self.may_propose(&raw) {
            if self.queue.len() >= QUEUE_MAX {
                warn!(session = id, "too many requests wait for the store; session closed");
                self.actions.push_back(Action::Close(id));
                return;
            }
            self.queue.push_back((id, raw));
            return;
        }
        self.handle(now, id, raw);
    }

    /// The proposal under way is durable.
    pub fn committed(&mut self, now: Now, version: u64) {
        let Some(done) = self.in_flight.take_if(|f| f.version == version) else {
            return;
        };
        if let Err(e) = self.state.apply(&done.proposal) {
            // The proposer checked it against this very state.
            warn!(version, error = %e, "a committed proposal does not apply");
        }
        self.after_apply(now, &done.proposal);
        for (id, raw) in done.replies {
            self.send(id, raw);
        }
        self.publish(now);
        if self.state.version - self.compacted >= COMPACT_EVERY {
            self.compacted = self.state.version;
            self.actions.push_back(Action::Compact(self.compacted, self.state.to_bytes(F).into()));
        }
        if let Some((id, raw)) = done.again {
            self.handle(now, id, raw);
        }
        while self.in_flight.is_none()
            && let Some((id, raw)) = self.queue.pop_front()
        {
            self.handle(now, id, raw);
        }
    }

    fn handle(&mut self, now: Now, id: SessionId, raw: RawMessage) {
        if !self.sessions.contains_key(&id) {
            return;
        }
        let type_ = raw.header.type_;
        match self.dispatch(now, id, &raw) {
            Ok(Handled::Done) => {}
            Ok(Handled::Propose(changes, replies)) => self.propose(now, changes, replies, None),
            Ok(Handled::ProposeAndRetry(changes)) => {
                self.propose(now, changes, Vec::new(), Some((id, raw)));
            }
            Err(e) => {
                let name = self.sessions.get(&id).map(|s| s.name().to_string());
                warn!(type_, from = name, error = %e, "undecodable message; session closed");
                self.actions.push_back(Action::Close(id));
            }
        }
    }

    fn dispatch(
        &mut self,
        now: Now,
        id: SessionId,
        raw: &RawMessage,
    ) -> Result<Handled, DecodeError> {
        match raw.header.type_ {
            msg::MON_GETMAP => self.get_monmap(id),
            msg::MON_SUBSCRIBE => return self.subscribe(now, id, raw),
            msg::MON_GET_VERSION => self.get_version(id, raw)?,
            msg::MON_COMMAND => return self.mon_command(now, id, raw),
            msg::COMMAND => return self.tell_command(now, id, raw),
            msg::AUTH => self.auth(now, id, raw)?,
            msg::STATFS => self.statfs(id, raw)?,
            msg::GET_POOL_STATS => self.get_pool_stats(id, raw)?,
            msg::POOL_OP => return self.pool_op(now, id, raw),
            msg::GET_CONFIG => self.get_config(id, raw)?,
            msg::OSD_BOOT => return self.osd_boot(now, id, raw),
            msg::OSD_ALIVE => return self.osd_alive(now, id, raw),
            msg::OSD_BEACON => self.osd_beacon(now, id, raw)?,
            msg::MON_GET_PURGED_SNAPS => self.get_purged_snaps(id, raw)?,
            msg::OSD_FAILURE => return self.osd_failure(now, id, raw),
            msg::OSD_FULL => return self.osd_full(now, id, raw),
            msg::OSD_MARK_ME_DEAD => return self.osd_mark_me_dead(now, id, raw),
            msg::OSD_MARK_ME_DOWN => return self.osd_mark_me_down(now, id, raw),
            msg::OSD_PG_CREATED => return self.pg_created(now, id, raw),
            msg::LOG => return self.log(now, id, raw),
            msg::MGR_BEACON => return self.mgr_beacon(now, id, raw),
            msg::MON_MGR_REPORT => self.mgr_report(now, id, raw)?,
            msg::PING => self.ping(now, id, raw),
            other => {
                debug!(type_ = spirula_wire::msg::name(other), number = other, "message ignored");
            }
        }
        Ok(Handled::Done)
    }

    /// Whether a message may lead to a proposal. Commands are told apart by their permission.
    fn may_propose(&self, raw: &RawMessage) -> bool {
        match raw.header.type_ {
            msg::MON_COMMAND => commands::may_write(raw),
            msg::POOL_OP
            | msg::OSD_BOOT
            | msg::OSD_ALIVE
            | msg::OSD_FAILURE
            | msg::OSD_FULL
            | msg::OSD_MARK_ME_DEAD
            | msg::OSD_MARK_ME_DOWN
            | msg::OSD_PG_CREATED
            | msg::LOG
            | msg::MGR_BEACON => true,
            _ => false,
        }
    }

    fn propose(
        &mut self,
        now: Now,
        mut changes: Vec<Change>,
        replies: Vec<(SessionId, RawMessage)>,
        again: Option<(SessionId, RawMessage)>,
    ) {
        debug_assert!(self.in_flight.is_none(), "one proposal at a time");
        if !self.pending_log.is_empty() {
            changes.push(Change::Log(std::mem::take(&mut self.pending_log)));
        }
        let proposal = Proposal::new(now.wall, changes);
        let version = self.state.version + 1;
        self.actions.push_back(Action::Append(version, proposal.to_bytes(F).into()));
        self.in_flight = Some(InFlight { version, proposal, replies, again });
    }

    fn send(&mut self, id: SessionId, raw: RawMessage) {
        if self.sessions.contains_key(&id) {
            self.actions.push_back(Action::Send(id, raw));
        }
    }

    fn reply(&mut self, id: SessionId, to: &RawMessage, message: &impl Message) {
        let features = self.sessions.get(&id).map_or(F, Session::features);
        self.send(id, message.to_raw(to.header.tid, features));
    }

    /// Adds a line of this monitor to the cluster log; it is kept with the next proposal.
    fn clog(&mut self, now: Now, prio: u16, channel: &str, text: String) {
        self.log_seq += 1;
        debug!(channel, "{text}");
        self.pending_log.push(LogEntry {
            name: EntityNameStr::new(EntityType::MON, self.live.name.clone()),
            rank: EntityName::mon(self.state.monmap.rank_of(&self.live.name)),
            addrs: self.live.addrs.clone(),
            stamp: UTime::from(now.wall),
            seq: self.log_seq,
            prio,
            msg: text,
            channel: channel.to_owned(),
        });
    }

    fn info(&mut self, now: Now, text: String) {
        self.clog(now, log_priority::INFO, "cluster", text);
    }

    fn get_monmap(&mut self, id: SessionId) {
        let reply = MonMapMsg { monmap: self.state.monmap.encoded() };
        self.send(id, reply.to_raw(0, F));
    }

    fn get_version(&mut self, id: SessionId, raw: &RawMessage) -> Result<(), DecodeError> {
        let request = MonGetVersion::from_raw(raw)?;
        let (version, oldest_version) = match request.what.as_str() {
            "osdmap" => (self.state.osd.epoch().into(), self.state.osd.oldest().into()),
            "monmap" => (self.state.monmap.epoch().into(), 1),
            "mgrmap" => (self.state.mgr.epoch().into(), 1),
            "fsmap" | "mdsmap" => (1, 1),
            other => {
                warn!(what = other, "version of an unknown map asked for");
                (0, 0)
            }
        };
        let reply = MonGetVersionReply { handle: request.handle, version, oldest_version };
        self.reply(id, raw, &reply);
        Ok(())
    }

    fn auth_config(&self) -> MonAuthConfig {
        auth::config(&self.settings)
    }
}

const F: Features = Features::PACIFIC;

/// `{"addrvec": [...]}` as every dump shows addresses.
pub(crate) fn addrs_json(addrs: &EntityAddrVec) -> Json {
    let one = |a: &spirula_wire::types::EntityAddr| {
        let addr = a.addr.map_or_else(|| ":/0".to_owned(), |s| s.to_string());
        obj! { "type" => a.type_.name(), "addr" => addr, "nonce" => a.nonce }
    };
    obj! { "addrvec" => addrs.iter().map(one).collect::<Vec<_>>() }
}

/// An address in the form that fields for a single one show: `127.0.0.1:6789/0`.
pub(crate) fn legacy_text(addrs: &EntityAddrVec) -> String {
    let addr = Some(addrs.legacy()).filter(|a| !a.is_blank()).unwrap_or_else(|| addrs.front());
    plain_addr(&addr)
}

/// `ip:port/nonce` without the protocol.
pub(crate) fn plain_addr(addr: &spirula_wire::types::EntityAddr) -> String {
    addr.addr.map_or_else(|| format!(":/{}", addr.nonce), |s| format!("{s}/{}", addr.nonce))
}
