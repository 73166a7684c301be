//! The monitor without I/O: sessions, messages in, messages and writes out.
//!
//! Methods, by kind:
//! * getters: [`Service::state`], [`Service::poll_timeout`];
//! * inputs: [`Service::session_opened`], [`Service::message`], [`Service::session_closed`],
//!   [`Service::written`], [`Service::peer_connected`], [`Service::peer_answer`], [`Service::tick`];
//! * outputs: [`Service::poll_action`], to be drained after every input.
//!
//! Invariants: the state changes only by proposals that the quorum committed, in its order; at most
//! one proposal is under way, and a message that would need another waits behind it; nothing that a
//! proposal promises is sent before it is committed. Only the leader proposes.

mod agree;
mod auth;
mod beacon;
mod boot;
mod clocks;
mod commands;
mod creating;
mod failure;
mod full;
mod map_trim;
mod maps;
mod members;
mod peers;
mod pg_temp;
mod pool_pgs;
mod pool_upkeep;
mod pools;
mod stats;
mod subs;
mod tick;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use spirula_auth::{AuthenticatedPeer, MonAuthConfig};
use spirula_maps::MonMap;
use spirula_wire::msg::mon::{
    LogEntry, MonGetVersion, MonGetVersionReply, MonMapMsg, log_priority,
};
use spirula_wire::msg::types as msg;
use spirula_wire::types::{
    EntityAddr, EntityAddrVec, EntityName, EntityNameStr, EntityType, UTime,
};
use spirula_wire::{DecodeError, Features, Message, RawMessage};
use tracing::{debug, warn};

use crate::Now;
use crate::caps::SessionCaps;
use crate::json::Json;
use crate::limits::{GLOBAL_IDS_STEP, QUEUE_MAX};
use crate::live::{Live, PeerInfo};
use crate::mkfs::newest_monmap;
use crate::obj;
use crate::options::Settings;
use crate::peer::PeerMessage;
use crate::quorum::Quorum;
use crate::state::{Change, State};
use crate::storage::{Stored, Write};

use subs::Subscription;

pub(crate) use auth::rotation;
pub(crate) use beacon::{drop_active, promote_standby};
pub use clocks::{Clocks, Skew};
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
    /// Make this durable, all or nothing, then call [`Service::written`] with the number. The next
    /// one comes after that.
    Write(u64, Vec<Write>),
    /// Send to the monitor of this name, or drop it if there is no way.
    Peer(String, RawMessage),
    /// Stop: the reason why this monitor cannot go on.
    Fail(String),
    /// Stop: this monitor was taken out of the monitor map.
    Removed,
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
    index: u64,
    term: u64,
    replies: Vec<(SessionId, RawMessage)>,
    /// The request that it comes from.
    origin: Option<(SessionId, RawMessage)>,
    /// Handle that request again after the commit.
    again: bool,
}

pub struct Service {
    state: State,
    live: Live,
    settings: Settings,
    rng: ChaCha20Rng,
    quorum: Quorum,
    /// The last entry of the quorum's log that the state has.
    applied: u64,
    sessions: BTreeMap<SessionId, Session>,
    /// Sessions that stand for a peer's: its number and its name for the session.
    proxies: BTreeMap<SessionId, (u64, SessionId)>,
    next_proxy: u64,
    /// On which session another monitor was heard last, by its number.
    speaks: BTreeMap<u64, SessionId>,
    /// Requests that the leader has and has not done with.
    forwarded: BTreeMap<u64, (SessionId, RawMessage)>,
    next_forward: u64,
    /// Sessions that the leader knows of.
    announced: BTreeSet<SessionId>,
    /// Requests from while there was nobody to answer them.
    waiting: VecDeque<(SessionId, RawMessage)>,
    /// Names that other monitors call themselves by, by number.
    names: BTreeMap<u64, String>,
    /// Monitors with new stores, by name, on their way into the quorum.
    joining: BTreeMap<String, u64>,
    /// What other monitors say about themselves and the state does not, by name.
    told: BTreeMap<String, BTreeMap<String, String>>,
    /// The newest monitor map of the store at the start, which the state may reach only later.
    stored_monmap: MonMap,
    /// Not in the monitor map any more.
    removed: bool,
    /// When requests were taken last.
    served: Duration,
    /// A follower knows all that was committed when it began to follow.
    caught_up: bool,
    quorum_now: Vec<u64>,
    quorum_since: Duration,
    next_view: Duration,
    in_flight: Option<InFlight>,
    queue: VecDeque<(SessionId, RawMessage)>,
    actions: VecDeque<Action>,
    /// Global ids to hand out.
    own_ids: VecDeque<std::ops::RangeInclusive<u64>>,
    /// Runs of monitors that are short of them, and this one's.
    want_ids: BTreeSet<u64>,
    run: u64,
    asked_ids: Duration,
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
    /// A monitor that goes on from what its store holds; `state` is that of the store's snapshot.
    pub fn new(config: ServiceConfig, state: State, stored: &Stored, now: Now) -> Self {
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
        let mut rng = ChaCha20Rng::from_seed(config.seed);
        let start = stored.snapshot.as_ref().map_or(0, |s| s.index);
        let mut service = Self {
            compacted: start,
            applied: start,
            quorum: Quorum::new(stored, rng.next_u64(), now.mono),
            run: rng.next_u64(),
            live,
            settings,
            rng,
            sessions: BTreeMap::new(),
            proxies: BTreeMap::new(),
            next_proxy: 0,
            speaks: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            next_forward: 0,
            announced: BTreeSet::new(),
            waiting: VecDeque::new(),
            names: BTreeMap::new(),
            joining: BTreeMap::new(),
            told: BTreeMap::new(),
            stored_monmap: newest_monmap(&state, stored),
            removed: false,
            state,
            served: now.mono,
            caught_up: false,
            quorum_now: Vec::new(),
            quorum_since: now.mono,
            next_view: now.mono,
            own_ids: VecDeque::new(),
            want_ids: BTreeSet::new(),
            asked_ids: Duration::ZERO,
            in_flight: None,
            queue: VecDeque::new(),
            actions: VecDeque::new(),
            next_tick: now.mono,
            next_digest: now.mono,
            log_seq: 0,
            pending_log: Vec::new(),
        };
        service.note_osds(now);
        service.settle(now);
        service
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    /// The newest monitor map that this monitor knows of: who to reach and where.
    pub fn monmap(&self) -> &MonMap {
        let current = self.state.monmap.map();
        if self.stored_monmap.epoch > current.epoch { &self.stored_monmap } else { current }
    }

    pub fn live(&self) -> &Live {
        &self.live
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// When [`tick`](Self::tick) is due, on the monotonic clock.
    pub fn poll_timeout(&self) -> Duration {
        self.next_tick.min(self.quorum.poll_timeout())
    }

    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Takes back actions that the driver cannot carry out yet.
    pub fn put_back(&mut self, actions: Vec<Action>) {
        for action in actions.into_iter().rev() {
            self.actions.push_front(action);
        }
    }

    pub fn session_opened(&mut self, now: Now, id: SessionId, peer: Peer) {
        self.add_session(now, id, peer);
        self.announce_osds();
    }

    fn add_session(&mut self, now: Now, id: SessionId, peer: Peer) {
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
        self.session_left(id);
        self.monitor_left(now, id);
        self.drop_session(now, id);
    }

    fn drop_session(&mut self, now: Now, id: SessionId) {
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

    /// Handles a message: at once, after the proposal that is under way, or at the leader.
    pub fn message(&mut self, now: Now, id: SessionId, raw: RawMessage) {
        if !self.sessions.contains_key(&id) {
            return;
        }
        if raw.header.type_ != msg::MON_PEER {
            self.accept(now, id, raw);
        } else if let Err(e) = self.peer_message(now, id, &raw) {
            warn!(error = %e, "undecodable message of a monitor; session closed");
            self.actions.push_back(Action::Close(id));
        }
        self.settle(now);
    }

    /// Handles a message now or after the proposal that is under way.
    fn take(&mut self, now: Now, id: SessionId, raw: RawMessage) {
        if self.in_flight.is_some() && self.may_propose(&raw) {
            if self.queue.len() >= QUEUE_MAX {
                warn!(session = id, "too many requests wait for the store; session closed");
                return self.close(id);
            }
            self.queue.push_back((id, raw));
            return;
        }
        self.handle(now, id, raw);
    }

    fn handle(&mut self, now: Now, id: SessionId, raw: RawMessage) {
        if !self.sessions.contains_key(&id) {
            return;
        }
        let type_ = raw.header.type_;
        match self.dispatch(now, id, &raw) {
            Ok(Handled::Done) => self.done(id, &raw),
            Ok(Handled::Propose(changes, replies)) => {
                self.propose(now, changes, replies, Some((id, raw)), false);
            }
            Ok(Handled::ProposeAndRetry(changes)) => {
                self.propose(now, changes, Vec::new(), Some((id, raw)), true);
            }
            Err(e) => {
                let name = self.sessions.get(&id).map(|s| s.name().to_string());
                warn!(type_, from = name, error = %e, "undecodable message; session closed");
                self.close(id);
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
            msg::MON_GET_OSDMAP => self.get_osdmap(id, raw)?,
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
            msg::OSD_PGTEMP => return self.osd_pg_temp(now, id, raw),
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
            type_ => changes(type_),
        }
    }

    fn send(&mut self, id: SessionId, raw: RawMessage) {
        if let Some((peer, session)) = self.proxies.get(&id).copied() {
            self.tell(peer, &PeerMessage::Route(session, raw));
        } else if self.sessions.contains_key(&id) {
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

/// Whether a message of this type may change the state; of commands only some do.
fn changes(type_: u16) -> bool {
    matches!(
        type_,
        msg::POOL_OP
            | msg::OSD_BOOT
            | msg::OSD_ALIVE
            | msg::OSD_FAILURE
            | msg::OSD_FULL
            | msg::OSD_MARK_ME_DEAD
            | msg::OSD_MARK_ME_DOWN
            | msg::OSD_PG_CREATED
            | msg::OSD_PGTEMP
            | msg::LOG
            | msg::MGR_BEACON
    )
}
