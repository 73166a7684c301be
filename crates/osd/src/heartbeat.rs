//! Heartbeats between OSDs, on the public and on the cluster network, and what the monitor is told
//! of those who do not answer.
//!
//! A socket that refuses to be connected is the proof that nobody is there any more: that is reported
//! at once, whatever the grace.

mod state;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use spirula_maps::{OsdMap, osd_state};
use spirula_msgr::on_xstream::{self, Event, Incoming, Session};
use spirula_msgr::{Accepted, CloseReason, Config, Target as Dialed};
use spirula_pg::HeartbeatStamps;
use spirula_wire::msg::Paxos;
use spirula_wire::msg::osd::{OsdFailure, OsdPing, ping_op};
use spirula_wire::msg::types;
use spirula_wire::types::{EntityAddr, EntityAddrVec, EntityType, TimeSpan, UTime};
use spirula_wire::{Features, Message as _};
use spirula_xstream::{Class, TcpListener, now, random_u64, sleep};

use crate::boot::{mark_me_dead_message, messenger_config};
use crate::serve::acceptor;
use crate::shard;
use crate::target::{Target, TargetError};
use state::{Choice, Heartbeats, Markdowns, Report};

pub use state::Channel;

const F: Features = Features::PACIFIC;
/// What comes before the size of the padding, and counts.
const PADDED_FROM: u64 = 29;
/// Between two looks at who is late.
const CHECK: Duration = Duration::from_secs(1);
/// Between two reports that the same OSD refuses connections.
const REFUSED_AGAIN: Duration = Duration::from_secs(3);

/// The heartbeats of a target.
#[derive(Default)]
pub struct Heartbeat {
    state: RefCell<Heartbeats>,
    connections: RefCell<BTreeMap<(i32, Channel), Connection>>,
    refused: RefCell<BTreeMap<i32, Duration>>,
    markdowns: RefCell<Markdowns>,
    /// Epochs that peers were sent maps up to.
    told: RefCell<BTreeMap<i32, u32>>,
    ping_due: Cell<Duration>,
    /// How far the clocks of others are ahead, which leases go by.
    stamps: RefCell<BTreeMap<i32, HeartbeatStamps>>,
}

struct Connection {
    addrs: EntityAddrVec,
    session: Session,
}

impl Heartbeat {
    /// The OSDs that are pinged.
    pub fn peers(&self) -> Vec<i32> {
        self.state.borrow().peers().collect()
    }

    /// Takes in a map: other peers, other addresses; and whether it calls this process dead.
    pub fn follow(&self, target: &Target, old: &OsdMap, new: &OsdMap) {
        let me = target.config().osd_id;
        let of_pgs = target.pgs().all();
        let of_pgs = of_pgs.iter().flat_map(|pg| pg.members());
        let wanted = target.with_options(|options| {
            let level = options.get("mon_osd_reporter_subtree_level").unwrap_or_default();
            let choice = Choice {
                peers_min: options.number("osd_heartbeat_min_peers") as usize,
                subtrees_min: options.number("mon_osd_min_down_reporters") as usize,
                level,
            };
            state::choose(new, me, of_pgs, choice)
        });
        let mut state = self.state.borrow_mut();
        state.follow(new, &wanted);
        let stays = |(osd, channel): &(i32, Channel), connection: &mut Connection| {
            let stays = state.addrs(*osd, *channel) == Some(&connection.addrs);
            if !stays {
                connection.session.close();
            }
            stays
        };
        self.connections.borrow_mut().retain(stays);
        self.told.borrow_mut().retain(|osd, _| new.is_up(*osd));
        self.stamps.borrow_mut().retain(|osd, _| new.is_up(*osd));
        let addrs = target.addrs();
        let was_up = old.client_addrs(me) == Some(addrs) && old.is_up(me);
        if was_up && !new.is_up(me) && !target.is_stopping() {
            self.called_dead(target, new.epoch);
        }
        // A mark from before this process booted is not for it.
        let is_marked = |osd: &spirula_maps::Osd| {
            osd.is_up() && osd.client_addrs == *addrs && osd.state & osd_state::STOP != 0
        };
        if new.osd(me).is_some_and(is_marked) && !target.is_stopping() {
            target.stop();
        }
    }

    /// The monitor has us down, but we live: we boot again, unless that happens too often.
    fn called_dead(&self, target: &Target, epoch: u32) {
        let id = target.config().osd_id;
        let since = target.map().osd(id).map_or(epoch, |osd| osd.info.down_at);
        let text = format!("Monitor daemon marked osd.{id} down, but it is still running");
        target.clog().warn(target, text);
        target.clog().debug(target, format!("map e{epoch} wrongly marked me down at e{since}"));
        let count = target.option_number("osd_max_markdown_count");
        let seconds = target.option_number("osd_max_markdown_period");
        let period = Duration::from_secs(seconds);
        target.mon().send(target, mark_me_dead_message(target, epoch));
        if self.markdowns.borrow_mut().again(now(), count as usize, period) {
            target.fail(TargetError::Flapping { count, seconds });
        }
    }

    /// The session with the monitor is a new one.
    pub fn mon_connected(&self) {
        self.state.borrow_mut().report_again();
    }

    /// A connection to an OSD's address was refused: its process is gone.
    pub fn refused(&self, target: &Target, addr: &EntityAddr) {
        let on = target.with_options(|o| o.flag("osd_fast_fail_on_connection_refused"));
        let map = target.map();
        let is_at = |(_, o): &(i32, &spirula_maps::Osd)| {
            let all = [&o.client_addrs, &o.cluster_addrs, &o.hb_back_addrs, &o.hb_front_addrs];
            o.is_up() && all.into_iter().any(|addrs| addrs.contains(addr))
        };
        let Some((osd, known)) = map.existing_osds().find(is_at).filter(|_| on) else {
            return;
        };
        let (now, mut refused) = (now(), self.refused.borrow_mut());
        refused.retain(|_, at| now.saturating_sub(*at) < REFUSED_AGAIN);
        if refused.contains_key(&osd) || !target.is_up() {
            return;
        }
        refused.insert(osd, now);
        drop(refused);
        let grace = target.option_number("osd_heartbeat_grace");
        let failed_for = Duration::from_secs(grace + 1);
        let report = Report { osd, addrs: known.client_addrs.clone(), failed_for };
        send_report(target, report, OsdFailure::FAILED | OsdFailure::IMMEDIATE);
    }

    fn tick(&self, target: &Target, slept: Duration) {
        let options = |name| Duration::from_secs(target.option_number(name));
        let (grace, interval) = (options("osd_heartbeat_grace"), options("osd_heartbeat_interval"));
        let now = now();
        if slept > grace / 2 {
            self.state.borrow_mut().forget_silence();
        }
        let reports = self.state.borrow_mut().check(now, &target.map());
        if target.is_up() {
            reports.into_iter().for_each(|r| send_report(target, r, OsdFailure::FAILED));
        }
        if now >= self.ping_due.get() {
            let part = interval.mul_f64((random_u64() % 10) as f64 / 10.0);
            self.ping_due.set(now + Duration::from_millis(500) + part);
            self.ping(target, now, grace);
            target.peers().acknowledge(target);
        }
    }

    fn ping(&self, target: &Target, now: Duration, grace: Duration) {
        if !target.is_up() {
            return;
        }
        self.state.borrow_mut().pinged(now, grace);
        for osd in self.peers() {
            let delta_ub = self.clock_to_send(target, osd);
            let ping = ping_message(target, ping_op::PING, (now.into(), time_span(now)), delta_ub);
            for channel in Channel::ALL {
                if let Some(session) = self.connection(target, osd, channel) {
                    session.send(ping.to_raw(0, F));
                }
            }
        }
    }

    /// The connection to a peer, opened if there is none.
    fn connection(&self, target: &Target, osd: i32, channel: Channel) -> Option<Session> {
        if let Some(open) = self.connections.borrow().get(&(osd, channel)) {
            return Some(open.session.clone());
        }
        let addrs = self.state.borrow().addrs(osd, channel)?.clone();
        let addr = addrs.msgr2()?;
        let auth = target.mon().osd_authorizer().ok()?;
        let owner = target.clone();
        let dispatch = move |session: &Session, event: Event| match event {
            Event::Message(incoming) => {
                owner.heartbeat().take_answer(&owner, osd, channel, &incoming)
            }
            Event::Closed(reason) => owner.heartbeat().lost(&owner, session, &addr, &reason),
            Event::Ready(_) | Event::KeepaliveAck | Event::Session(_) => {}
        };
        let to = Dialed { type_: EntityType::OSD, addr };
        let session = on_xstream::open(Class::Client, config(target, None), to, auth, dispatch);
        let open = Connection { addrs, session: session.clone() };
        self.connections.borrow_mut().insert((osd, channel), open);
        Some(session)
    }

    fn lost(&self, target: &Target, session: &Session, addr: &EntityAddr, reason: &CloseReason) {
        self.connections.borrow_mut().retain(|_, c| c.session.id() != session.id());
        if is_refusal(reason) {
            self.refused(target, addr);
        }
    }

    fn take_answer(&self, target: &Target, osd: i32, channel: Channel, incoming: &Incoming) {
        let Some(ping) = decode(target, incoming) else {
            return;
        };
        match ping.op {
            ping_op::PING_REPLY => {
                let stamp = ping.ping_stamp.into();
                let back = self.state.borrow_mut().answered(now(), osd, channel, stamp);
                if let Some(report) = back {
                    send_report(target, report, 0);
                }
                self.share_map(target, osd, ping.map_epoch);
                self.clock_heard(target, osd, &ping);
            }
            ping_op::YOU_DIED => {
                tracing::debug!(osd, "a peer says that we are down");
                target.mon().want_maps(target);
            }
            _ => {}
        }
    }

    /// A peer pings us.
    fn take_ping(&self, target: &Target, osd: i32, incoming: &Incoming) {
        let Some(ping) = decode(target, incoming).filter(|p| p.op == ping_op::PING) else {
            return;
        };
        self.clock_heard(target, osd, &ping);
        let answer = |op| {
            let delta_ub = self.clock_to_send(target, osd);
            let stamps = (ping.ping_stamp, ping.mono_ping_stamp);
            let message = ping_message(target, op, stamps, delta_ub);
            incoming.session().send(message.to_raw(0, F));
        };
        answer(ping_op::PING_REPLY);
        let map = target.map();
        if map.is_up(osd) {
            self.share_map(target, osd, ping.map_epoch);
        } else if map.osd(osd).is_none_or(|o| !o.exists() || o.info.down_at > ping.map_epoch) {
            answer(ping_op::YOU_DIED);
        }
    }

    /// What a peer is told of its clock and ours.
    fn clock_to_send(&self, target: &Target, osd: i32) -> Option<TimeSpan> {
        let max_age = target.peering_config().lease;
        self.stamps.borrow().get(&osd).and_then(|stamps| stamps.to_send(now(), max_age))
    }

    /// A peer's message says how its clock and ours differ: so do the PGs that it is a copy of know.
    fn clock_heard(&self, target: &Target, osd: i32, ping: &OsdPing) {
        let (now, known) = (now(), target.map());
        if known.osd(osd).is_none_or(|o| !o.is_up() || o.info.up_from > ping.up_from) {
            return;
        }
        let HeartbeatStamps { delta_lb, delta_ub, .. } = {
            let mut all = self.stamps.borrow_mut();
            let stamps = all.entry(osd).or_default();
            stamps.got(ping.up_from, now, ping.mono_send_stamp, ping.delta_ub);
            *stamps
        };
        for shard in target.shards().all() {
            let jumped = !shard.is_held()
                && shard.machine.borrow_mut().hb_stamps(osd, delta_lb, delta_ub, now);
            if jumped {
                tracing::warn!(osd, pgid = %shard.pgid, "a clock jumped, there or here");
                shard::drive::drive(target, &shard);
            }
        }
    }

    /// Sends a peer what happened since its map, once.
    fn share_map(&self, target: &Target, osd: i32, epoch: u32) {
        let mut told = self.told.borrow_mut();
        let known = told.get(&osd).copied().unwrap_or(0).max(epoch);
        if known >= target.epoch() || !target.map().is_up(osd) {
            return;
        }
        if let Some(maps) = target.maps_since(known) {
            let last = maps.incremental_maps.keys().next_back().copied();
            told.insert(osd, last.unwrap_or(known));
            drop(told);
            // A link that is full gets them with a later ping, or the peer gets them elsewhere.
            let _ = target.peers().send(target, osd, maps.to_raw(0, F));
        }
    }
}

/// Pings and looks who is late, until the target stops.
pub async fn run(target: Target) {
    let mut last = now();
    loop {
        sleep(CHECK).await;
        let at = now();
        target.heartbeat().tick(&target, at.saturating_sub(last));
        last = at;
    }
}

/// Takes pings on one of the networks, for ever.
pub async fn listen(target: Target, listener: TcpListener, channel: Channel) {
    on_xstream::serve(Class::Client, listener, |addr| accept(&target, addr, channel)).await;
}

fn accept(
    target: &Target,
    addr: SocketAddr,
    channel: Channel,
) -> Option<Accepted<impl FnMut(&Session, Event) + use<>>> {
    if target.is_stopping() {
        return None;
    }
    tracing::trace!(%addr, ?channel, "heartbeat connection");
    let (config, auth) = (config(target, Some(channel)), acceptor(target));
    let target = target.clone();
    let mut osd = None;
    let dispatch = move |session: &Session, event: Event| match event {
        Event::Ready(peer) => {
            let name = peer.auth.map(|auth| auth.name).filter(|n| n.type_ == EntityType::OSD);
            osd = name.and_then(|name| name.id.parse().ok());
            if osd.is_none() {
                session.close();
            }
        }
        Event::Message(incoming) => {
            if let Some(osd) = osd {
                target.heartbeat().take_ping(&target, osd, &incoming);
            }
        }
        Event::KeepaliveAck | Event::Session(_) | Event::Closed(_) => {}
    };
    Some(Accepted { config, auth, dispatch })
}

/// Heartbeat connections; the addresses are those of the listener on `channel`, if it is one.
fn config(target: &Target, channel: Option<Channel>) -> Config {
    let mut config = messenger_config(target);
    let addrs = target.all_addrs();
    config.addrs = match channel {
        Some(Channel::Back) => addrs.hb_back.clone(),
        Some(Channel::Front) => addrs.hb_front.clone(),
        None => EntityAddrVec::default(),
    };
    config.nonce = addrs.hb_front.front().nonce;
    config
}

fn ping_message(
    target: &Target,
    op: u8,
    (ping_stamp, mono_ping_stamp): (UTime, TimeSpan),
    delta_ub: Option<TimeSpan>,
) -> OsdPing {
    let map = target.map();
    let up_from = map.osd(target.config().osd_id).map_or(0, |osd| osd.info.up_from);
    let padding = target.option_number("osd_heartbeat_min_size").saturating_sub(PADDED_FROM);
    OsdPing {
        fsid: target.config().fsid,
        map_epoch: map.epoch,
        op,
        ping_stamp,
        up_from,
        mono_ping_stamp,
        mono_send_stamp: time_span(now()),
        delta_ub,
        padding: padding.min(OsdPing::MAX_PADDING.into()) as u32,
    }
}

fn time_span(time: Duration) -> TimeSpan {
    let sec = i32::try_from(time.as_secs()).unwrap_or(i32::MAX);
    TimeSpan { sec, nsec: time.subsec_nanos() as i32 }
}

fn decode(target: &Target, incoming: &Incoming) -> Option<OsdPing> {
    if incoming.raw.header.type_ != types::OSD_PING {
        return None;
    }
    match OsdPing::from_raw(&incoming.raw) {
        Ok(ping) => Some(ping).filter(|p| p.fsid == target.config().fsid),
        Err(e) => {
            tracing::warn!("ping does not decode: {e}");
            None
        }
    }
}

fn send_report(target: &Target, report: Report, flags: u8) {
    let Report { osd, addrs, failed_for } = report;
    let epoch = target.epoch();
    tracing::info!(osd, flags, ?failed_for, "report to the monitor");
    let message = OsdFailure {
        paxos: Paxos::at(epoch.into()),
        fsid: target.config().fsid,
        target_osd: osd,
        target_addrs: addrs,
        epoch,
        flags,
        failed_for: i32::try_from(failed_for.as_secs()).unwrap_or(i32::MAX),
    };
    target.mon().send(target, message.to_raw(0, F));
}

/// Whether nobody listens where we wanted to connect to.
pub fn is_refusal(reason: &CloseReason) -> bool {
    matches!(reason, CloseReason::Io(e) if e.kind() == io::ErrorKind::ConnectionRefused)
}
