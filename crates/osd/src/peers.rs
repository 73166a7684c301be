//! The links to other OSDs, on the cluster network: lossless sessions, one for each process of a peer.
//!
//! A link is known by the OSD's id. It connects when there is something to send, and is dropped with
//! all that it keeps when the map says that the process is down. What comes in goes to the row of
//! [`HANDLERS`] for its type.
//!
//! Invariant: a message reaches the process that the map named when it was sent, once and in order
//! with the others sent to it, or never: no process gets what was meant for its predecessor.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;

use spirula_maps::OsdMap;
use spirula_msgr::on_xstream::{self, Event, Incoming, Session};
use spirula_msgr::{
    Accepted, Config, Lossless, LosslessAction, LosslessOptions, LosslessPolicy, SendError,
    SessionEvent, SessionId, SessionPeer, Target as Dialed,
};
use spirula_wire::msg::osd::OsdMapMsg;
use spirula_wire::msg::types;
use spirula_wire::types::{EntityAddrVec, EntityName, EntityType};
use spirula_wire::{Features, Message as _, RawMessage};
use spirula_xstream::sync::Notify;
use spirula_xstream::{Class, TcpListener, now};

use crate::boot::messenger_config;
use crate::heartbeat;
use crate::scrub;
use crate::serve::acceptor;
use crate::shard;
use crate::target::Target;

/// Bytes of a transaction that a primary may send, in one segment: an object of `osd_max_object_size`, with
/// all its omap.
const TRANSACTION_MAX: u32 = 512 << 20;

/// Takes a message of the OSD with this id.
pub type Handler = fn(&Target, i32, Incoming);

/// Who takes what other OSDs send, by message type.
const HANDLERS: &[(u16, Handler)] = &[
    (types::OSD_MAP, take_maps),
    (types::OSD_PG_NOTIFY2, shard::drive::take),
    (types::OSD_PG_QUERY2, shard::drive::take),
    (types::OSD_PG_INFO2, shard::drive::take),
    (types::OSD_PG_LOG, shard::drive::take),
    (types::OSD_PG_LEASE, shard::drive::take),
    (types::OSD_PG_LEASE_ACK, shard::drive::take),
    (types::OSD_PG_TRIM, shard::drive::take),
    (types::OSD_PG_BACKFILL, shard::drive::take),
    (types::OSD_PG_REMOVE, shard::drive::take),
    (types::OSD_BACKFILL_RESERVE, shard::drive::take),
    (types::OSD_RECOVERY_RESERVE, shard::drive::take),
    (types::REP_OP, shard::replica::take),
    (types::REP_OP_REPLY, shard::replica::take_reply),
    (types::OBJECT_PUSH, shard::recover::take_push),
    (types::OBJECT_PUSH_REPLY, shard::recover::take_push_reply),
    (types::OBJECT_PULL, shard::recover::take_pull),
    (types::OBJECT_SCAN, shard::recover::take_scan),
    (types::OBJECT_SCAN_REPLY, shard::recover::take_scan_reply),
    (types::SCRUB_RESERVE, scrub::answer::take_reserve),
    (types::SCRUB_REQUEST, scrub::answer::take_request),
    (types::SCRUB_MAP, scrub::answer::take_map),
    (types::SCRUB_REPAIR, scrub::answer::take_repair),
];

/// Sessions of one OSD id that the map does not know: processes that are newer than our map.
const STRANGERS_MAX: usize = 4;

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    #[error("the map says that the OSD is down")]
    Down,
    #[error("the OSD takes nothing, and what waits for it is at its bound")]
    Full,
}

/// The links of a target.
pub struct Peers {
    lossless: RefCell<Lossless>,
    connections: RefCell<BTreeMap<u64, Session>>,
    /// A deadline may have moved.
    stirred: Notify,
    resets: Cell<u64>,
}

impl Peers {
    pub fn new(addrs: EntityAddrVec, seed: u64) -> Self {
        // A peer that had us down for a while keeps its addresses: what it did not get it gets then. What
        // has become void by that it knows by its epoch.
        let policy = LosslessPolicy::LOSSLESS_PEER_REUSE;
        let options = LosslessOptions { policy, ..LosslessOptions::new(addrs, seed) };
        Self {
            lossless: RefCell::new(Lossless::new(options)),
            connections: RefCell::default(),
            stirred: Notify::new(),
            resets: Cell::new(0),
        }
    }

    /// Sends a message to the process that the map has for this OSD.
    pub fn send(&self, target: &Target, osd: i32, message: RawMessage) -> Result<(), PeerError> {
        let map = target.map();
        let up = map.osd(osd).filter(|o| o.is_up() && osd != target.config().osd_id);
        let addrs = up.ok_or(PeerError::Down)?.cluster_addrs.clone();
        let entity = EntityName::osd(osd.into());
        let peer = SessionPeer { entity, addrs, features: Features::PACIFIC };
        let sent = {
            let mut lossless = self.lossless.borrow_mut();
            let session = lossless.session(peer).ok_or(PeerError::Down)?;
            lossless.send(session, message)
        };
        self.drain(target);
        sent.map_err(|e| match e {
            SendError::Full => PeerError::Full,
            SendError::Unknown => PeerError::Down,
        })
    }

    /// How often a peer had forgotten its session while the map had it up: messages were lost.
    pub fn resets(&self) -> u64 {
        self.resets.get()
    }

    /// Has peers forget what they keep for us; now and then is enough.
    pub fn acknowledge(&self, target: &Target) {
        self.lossless.borrow_mut().acknowledge();
        self.drain(target);
    }

    /// Drops the links to processes that are down, and all of them if we are.
    pub fn follow(&self, target: &Target, old: &OsdMap, new: &OsdMap) {
        let has = |map: &OsdMap, peer: &SessionPeer| {
            let osd = i32::try_from(peer.entity.num).ok().and_then(|id| map.osd(id));
            osd.is_some_and(|o| o.is_up() && o.cluster_addrs == peer.addrs)
        };
        let me = target.config().osd_id;
        let fell = old.is_up(me) && !new.is_up(me);
        let mut lossless = self.lossless.borrow_mut();
        let gone: Vec<SessionId> = lossless
            .sessions()
            .filter(|(_, peer)| fell || has(old, peer) && !has(new, peer))
            .map(|(id, _)| id)
            .collect();
        gone.iter().for_each(|id| lossless.close(*id));
        drop(lossless);
        if !gone.is_empty() {
            self.drain(target);
        }
    }

    /// A process that no map of ours has connects: older ones of its id make room.
    fn make_room(&self, target: &Target, peer: &SessionPeer) {
        let map = target.map();
        let known = i32::try_from(peer.entity.num).ok().and_then(|id| map.osd(id));
        let known = known.filter(|o| o.is_up()).map(|o| &o.cluster_addrs);
        let mut lossless = self.lossless.borrow_mut();
        let strangers: Vec<SessionId> = lossless
            .sessions()
            .filter(|(_, p)| p.entity == peer.entity && p.addrs != peer.addrs)
            .filter(|(_, p)| known != Some(&p.addrs))
            .map(|(id, _)| id)
            .collect();
        let over = strangers.len().saturating_sub(STRANGERS_MAX - 1);
        strangers.iter().take(over).for_each(|id| lossless.close(*id));
    }

    /// Does what the sessions want done.
    fn drain(&self, target: &Target) {
        loop {
            let action = self.lossless.borrow_mut().poll_action();
            match action {
                None => break,
                Some(LosslessAction::Dial { session, target: to }) => {
                    self.dial(target, session, to);
                }
                Some(LosslessAction::Answer(conn, answer)) => {
                    self.with_connection(conn, |c| c.answer(answer));
                }
                Some(LosslessAction::Transmit(conn, message)) => {
                    self.with_connection(conn, |c| c.send(message));
                }
                Some(LosslessAction::Close(conn)) => {
                    let connection = self.connections.borrow_mut().remove(&conn);
                    connection.iter().for_each(Session::close);
                }
                Some(LosslessAction::Opened(session)) => {
                    tracing::debug!(osd = self.osd_of(session), "linked");
                }
                Some(LosslessAction::Reset(session)) => {
                    tracing::warn!(
                        osd = self.osd_of(session),
                        "the peer has forgotten the session"
                    );
                    self.resets.set(self.resets.get() + 1);
                }
            }
        }
        self.stirred.notify_all();
    }

    fn with_connection(&self, conn: u64, f: impl FnOnce(&Session)) {
        if let Some(connection) = self.connections.borrow().get(&conn) {
            f(connection);
        }
    }

    fn osd_of(&self, session: SessionId) -> i64 {
        self.lossless.borrow().peer(session).map_or(-1, |p| p.entity.num)
    }

    fn dial(&self, target: &Target, session: SessionId, to: Dialed) {
        let auth = match target.mon().osd_authorizer() {
            Ok(auth) => auth,
            Err(e) => {
                tracing::debug!("no ticket for other OSDs yet: {e}");
                let now = now();
                return self.lossless.borrow_mut().not_dialed(now, session);
            }
        };
        let dispatch = dispatch(target);
        let connection =
            on_xstream::open(Class::Client, cluster_config(target), to, auth, dispatch);
        self.lossless.borrow_mut().dialed(session, connection.id());
        self.connections.borrow_mut().insert(connection.id(), connection);
    }
}

/// Connections of the cluster network.
fn cluster_config(target: &Target) -> Config {
    let mut config = messenger_config(target);
    config.addrs = target.all_addrs().cluster.clone();
    config.lossless = Some(EntityType::OSD);
    config.limits.front_max = TRANSACTION_MAX;
    config.limits.data_max = TRANSACTION_MAX;
    config
}

/// Accepts connections of other OSDs for ever.
pub async fn listen(target: Target, listener: TcpListener) {
    on_xstream::serve(Class::Client, listener, |addr| accept(&target, addr)).await;
}

fn accept(
    target: &Target,
    addr: SocketAddr,
) -> Option<Accepted<impl FnMut(&Session, Event) + use<>>> {
    if target.is_stopping() {
        return None;
    }
    tracing::trace!(%addr, "connection of a peer");
    let (config, auth) = (cluster_config(target), acceptor(target));
    Some(Accepted { config, auth, dispatch: dispatch(target) })
}

/// What happens on a connection, whoever opened it.
fn dispatch(target: &Target) -> impl FnMut(&Session, Event) + use<> {
    let target = target.clone();
    move |connection, event| {
        let (peers, id) = (target.peers(), connection.id());
        match event {
            // Nobody else has business here.
            Event::Ready(peer) if peer.lossy => connection.close(),
            Event::Ready(_) | Event::KeepaliveAck => {}
            Event::Session(asked) => {
                if let SessionEvent::ClientIdent { peer, .. } = &asked {
                    peers.make_room(&target, peer);
                }
                peers.connections.borrow_mut().entry(id).or_insert_with(|| connection.clone());
                peers.lossless.borrow_mut().asked(now(), id, asked);
                peers.drain(&target);
            }
            Event::Message(incoming) => peers.take(&target, id, incoming),
            Event::Closed(reason) => {
                tracing::debug!("connection of a peer ended: {reason}");
                let dialed = peers.lossless.borrow().dialed_addr(id);
                if let Some(addr) = dialed.filter(|_| heartbeat::is_refusal(&reason)) {
                    target.heartbeat().refused(&target, &addr);
                }
                peers.connections.borrow_mut().remove(&id);
                peers.lossless.borrow_mut().closed(now(), id);
                peers.drain(&target);
            }
        }
    }
}

impl Peers {
    fn take(&self, target: &Target, conn: u64, incoming: Incoming) {
        let received = {
            let mut lossless = self.lossless.borrow_mut();
            let session = lossless.received(conn, &incoming.raw.header);
            session.and_then(|id| lossless.peer(id).map(|p| p.entity.num))
        };
        let Some(osd) = received.and_then(|num| i32::try_from(num).ok()) else {
            return;
        };
        let type_ = incoming.raw.header.type_;
        match HANDLERS.iter().find(|(known, _)| *known == type_) {
            Some((_, handler)) => handler(target, osd, incoming),
            None => tracing::debug!(osd, "ignored message {}", spirula_wire::msg::name(type_)),
        }
    }
}

/// Tries again what waits, until the target stops.
pub async fn run(target: Target) {
    let peers = target.peers();
    loop {
        let deadline = peers.lossless.borrow().poll_timeout();
        match deadline {
            Some(at) => {
                let wait = at.saturating_sub(now());
                // Either way the deadline is looked at again.
                let _ = spirula_xstream::timeout(wait, peers.stirred.notified()).await;
            }
            None => peers.stirred.notified().await,
        }
        peers.lossless.borrow_mut().handle_timeout(now());
        let action = peers.lossless.borrow().has_actions();
        if action {
            peers.drain(&target);
        }
    }
}

/// A peer has newer maps than it thinks we have.
fn take_maps(target: &Target, osd: i32, incoming: Incoming) {
    match OsdMapMsg::from_raw(&incoming.raw) {
        Ok(maps) => {
            if target.handle_maps(&maps).is_some() {
                // What is missing between comes from the monitor.
                target.mon().want_maps(target);
            }
            target.boot(false);
        }
        Err(e) => tracing::warn!(osd, "maps of a peer do not decode: {e}"),
    }
}
