//! One OSD: the driver of its [`Peering`], a store that flushes now and then, and the write path.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use spirula_maps::OsdMap;
use spirula_pg::history::span;
use spirula_pg::{
    Action, Config, HeartbeatStamps, LogLimits, PeerMessage, Peering, Recover, SendTo, Slot, Stored,
};
use spirula_wire::Features;
use spirula_wire::types::{
    EVersion, HObject, PgLogEntry, RequestId, SpgId, TimeSpan, log_op, pg_state,
};

use crate::mon::{PGID, Request};

const LEASE: Duration = Duration::from_millis(200);

/// Of logs with so many entries.
pub(crate) fn config(entries: usize) -> Config {
    Config { lease: LEASE, log: LogLimits { entries, batch: 4, dups: 3000, undoes: true } }
}

/// Versions of an object, oldest first: version, epoch of the store, contents.
pub(crate) type Versions = Vec<(EVersion, u64, Option<u64>)>;
type Objects = BTreeMap<HObject, Versions>;

#[derive(Clone, Debug)]
pub(crate) enum Net {
    Peer(PeerMessage),
    Write {
        epoch: u32,
        entry: PgLogEntry,
        value: Option<u64>,
        whole: bool,
        horizon: EVersion,
        trim_to: EVersion,
    },
    WriteAck {
        epoch: u32,
        version: EVersion,
    },
    PullFailed {
        epoch: u32,
        object: HObject,
    },
    Pull {
        epoch: u32,
        object: HObject,
        need: EVersion,
    },
    PullReply {
        epoch: u32,
        object: HObject,
        need: EVersion,
        versions: Versions,
    },
    Push {
        epoch: u32,
        object: HObject,
        versions: Versions,
    },
    PushAck {
        epoch: u32,
        object: HObject,
    },
    Scan {
        epoch: u32,
        begin: HObject,
        upto: HObject,
    },
    ScanReply {
        epoch: u32,
        upto: HObject,
        found: BTreeMap<HObject, EVersion>,
    },
    Ping {
        up_from: u32,
        sent: TimeSpan,
        delta_ub: Option<TimeSpan>,
        reply: bool,
    },
}

/// What a disk holds.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) stored: Stored,
    pub(crate) epoch: u32,
    pub(crate) objects: Objects,
}

/// A client's request that this primary carries out.
#[derive(Clone, Debug)]
struct Write {
    reqid: RequestId,
    ticket: u64,
    waiting: BTreeSet<i32>,
}

/// What a node did that the world must know.
#[derive(Debug)]
pub(crate) enum Effect {
    Send(i32, Net),
    Mon(Request),
    /// The client may be told.
    Done(RequestId, EVersion),
    Undone(usize),
    Clean,
    Count(&'static str),
}

pub(crate) struct Node {
    pub(crate) me: i32,
    pub(crate) pg: Peering,
    pub(crate) objects: Objects,
    submitted: u64,
    flushed: u64,
    images: VecDeque<(u64, Option<Image>)>,
    outbox: VecDeque<(u64, i32, Net)>,
    awaiting: Vec<(u64, u64)>,
    writes: BTreeMap<EVersion, Write>,
    listed: BTreeMap<i32, (HObject, BTreeMap<HObject, EVersion>)>,
    /// Slots that were asked for, and those that were given.
    asked: Vec<Slot>,
    held: Vec<Slot>,
    pulls: BTreeMap<HObject, i32>,
    stamps: BTreeMap<i32, HeartbeatStamps>,
    pinged: Duration,
    pub(crate) effects: Vec<Effect>,
}

impl Node {
    fn with(me: i32, pg: Peering, objects: Objects) -> Self {
        Self {
            me,
            pg,
            objects,
            submitted: 0,
            flushed: 0,
            images: VecDeque::new(),
            outbox: VecDeque::new(),
            awaiting: Vec::new(),
            writes: BTreeMap::new(),
            listed: BTreeMap::new(),
            asked: Vec::new(),
            held: Vec::new(),
            pulls: BTreeMap::new(),
            stamps: BTreeMap::new(),
            pinged: Duration::ZERO,
            effects: Vec::new(),
        }
    }

    fn cancelled(&mut self, slot: Slot) {
        self.asked.retain(|s| *s != slot);
        self.held.retain(|s| *s != slot);
    }

    /// The slots that were asked for are free.
    fn grant(&mut self) {
        for slot in std::mem::take(&mut self.asked) {
            self.held.push(slot);
            self.pg.reserved(slot);
            self.drain();
        }
    }

    /// Another PG is more urgent. Says whether this one lost something.
    pub(crate) fn preempt(&mut self) -> bool {
        let held = std::mem::take(&mut self.held);
        for slot in &held {
            self.pg.preempted(*slot);
            self.drain();
        }
        !held.is_empty()
    }

    /// A new PG is made by who is to hold it.
    pub(crate) fn first(me: i32, map: Arc<OsdMap>, config: Config) -> Self {
        let spgid = SpgId::whole(PGID);
        let here = map.pg_to_up_acting(PGID).acting.contains(&me);
        let make = if here { Peering::create } else { Peering::unknown };
        Self::with(me, make(me, spgid, map, config), Objects::new())
    }

    pub(crate) fn restart(
        me: i32,
        disk: &Option<Image>,
        map: Arc<OsdMap>,
        config: Config,
        now: Duration,
    ) -> Self {
        let Some(image) = disk else {
            return Self::with(
                me,
                Peering::unknown(me, SpgId::whole(PGID), map, config),
                Objects::new(),
            );
        };
        let pg = Peering::load(me, image.stored.clone(), map, config, now);
        Self::with(me, pg, image.objects.clone())
    }

    fn submit(&mut self) -> u64 {
        self.submitted += 1;
        let exists = !self.pg.info().does_not_exist();
        let image = exists.then(|| Image {
            stored: self.pg.stored(),
            epoch: self.pg.map().epoch,
            objects: self.objects.clone(),
        });
        self.images.push_back((self.submitted, image));
        self.submitted
    }

    /// Everything or only a part becomes durable.
    pub(crate) fn flush(&mut self, part: usize, disk: &mut Option<Image>, now: Duration) {
        let part = part.clamp(1, self.images.len().max(1));
        for (ticket, image) in self.images.drain(..part.min(self.images.len())) {
            (self.flushed, *disk) = (ticket, image);
        }
        let (due, later) = self.awaiting.drain(..).partition(|(ticket, _)| *ticket <= self.flushed);
        self.awaiting = later;
        for (_, number) in due {
            self.pg.committed(number, now);
            self.drain();
        }
        let mine: Vec<EVersion> =
            self.writes.iter().filter(|(_, w)| w.ticket <= self.flushed).map(|(v, _)| *v).collect();
        mine.into_iter().for_each(|version| self.acked(self.me, version));
        self.release();
    }

    fn send(&mut self, to: i32, net: Net) {
        self.outbox.push_back((self.submitted, to, net));
        self.release();
    }

    fn release(&mut self) {
        while self.outbox.front().is_some_and(|(ticket, ..)| *ticket <= self.flushed) {
            if let Some((_, to, net)) = self.outbox.pop_front() {
                self.effects.push(Effect::Send(to, net));
            }
        }
    }

    /// Carries out what the PG asks for.
    pub(crate) fn drain(&mut self) {
        while let Some(action) = self.pg.poll() {
            match action {
                Action::Send { to, message } => {
                    let again = PeerMessage::from_raw(&message.to_raw(Features::PACIFIC));
                    assert_eq!(again.as_ref(), Some(&message), "the message survives the wire");
                    self.send(to, Net::Peer(message));
                }
                Action::NewInterval => {
                    self.pulls.clear();
                    self.writes.clear();
                    self.listed.clear();
                }
                Action::Rewind(rewind) => {
                    for object in &rewind.objects {
                        let versions = self.objects.entry(object.clone()).or_default();
                        versions.retain(|(_, epoch, _)| *epoch <= rewind.above_epoch);
                    }
                    self.effects.push(Effect::Undone(rewind.entries.len()));
                }
                Action::Persist { .. } => {
                    self.submit();
                }
                Action::AwaitCommit(number) => self.awaiting.push((self.submitted, number)),
                Action::WantUpThru(epoch) => {
                    self.effects.push(Effect::Mon(Request::UpThru(self.me, epoch)));
                }
                Action::WantPgTemp(osds) => {
                    self.effects.push(Effect::Mon(Request::PgTemp(self.me, osds)));
                }
                Action::Activated => {}
                Action::LocalReserve { .. } => {
                    self.cancelled(Slot::Local);
                    self.asked.push(Slot::Local);
                }
                Action::RemoteReserve { .. } => {
                    self.cancelled(Slot::Remote);
                    self.asked.push(Slot::Remote);
                }
                Action::CancelLocal => self.cancelled(Slot::Local),
                Action::CancelRemote => self.cancelled(Slot::Remote),
                Action::Clean => self.effects.push(Effect::Clean),
                Action::Remove => {
                    let map = self.pg.map().clone();
                    let config = config(self.pg.log().limits().entries);
                    self.pg = Peering::unknown(self.me, self.pg.pgid(), map, config);
                    self.objects.clear();
                    self.submit();
                }
            }
        }
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.pg.map().epoch
    }

    /// Heartbeats to who serves the PG with this OSD.
    pub(crate) fn ping(&mut self, now: Duration) {
        let mut acting = self.pg.mapping().acting_set();
        if now < self.pinged + LEASE / 4 || !acting.remove(&self.me) {
            return;
        }
        self.pinged = now;
        for osd in acting {
            self.send_ping(osd, false, now);
        }
    }

    fn got_ping(
        &mut self,
        from: i32,
        (up_from, sent, delta_ub): (u32, TimeSpan, Option<TimeSpan>),
        is_reply: bool,
        now: Duration,
    ) {
        let stamps = self.stamps.entry(from).or_default();
        stamps.got(up_from, now, sent, delta_ub);
        let (lb, ub) = (stamps.delta_lb, stamps.delta_ub);
        self.pg.hb_stamps(from, lb, ub, now);
        self.drain();
        if !is_reply {
            self.send_ping(from, true, now);
        }
    }

    fn send_ping(&mut self, to: i32, reply: bool, now: Duration) {
        let up_from = self.pg.map().osd(self.me).map_or(0, |o| o.info.up_from);
        let delta_ub = self.stamps.entry(to).or_default().to_send(now, LEASE);
        let ping = Net::Ping { up_from, sent: span(now), delta_ub, reply };
        self.effects.push(Effect::Send(to, ping));
    }

    // --- clients

    /// What a copy that is not the primary answers to a read, if it may.
    pub(crate) fn read_copy(&self, object: &HObject, now: Duration) -> Option<EVersion> {
        let last = self.objects.get(object).and_then(|v| v.last()).filter(|v| v.2.is_some());
        let version = last.map_or(EVersion::default(), |v| v.0);
        self.pg.may_read_here(object, now).then_some(version)
    }

    /// The head of an object that has no write in progress; zero if it is not there.
    pub(crate) fn read(&self, object: &HObject, now: Duration) -> Option<EVersion> {
        let free = self.pg.may_serve(now) && self.pg.holds_up_read(object).is_none();
        let last = self.objects.get(object).and_then(|v| v.last());
        let busy = last.is_some_and(|v| self.writes.contains_key(&v.0));
        let there = last.filter(|v| v.2.is_some());
        (free && !busy).then(|| there.map_or(EVersion::default(), |v| v.0))
    }

    /// Whether the request was taken, or had been carried out before.
    pub(crate) fn write(
        &mut self,
        reqid: RequestId,
        object: &HObject,
        value: Option<u64>,
        clock: u64,
        now: Duration,
    ) -> bool {
        if !self.pg.may_serve(now) {
            return false;
        }
        if let Some(dup) = self.pg.log().find(&reqid) {
            if !self.writes.contains_key(&dup.version) {
                self.effects.push(Effect::Done(reqid, dup.version));
            }
            return true;
        }
        if self.pg.holds_up_write(object).is_some() {
            self.pg.recover_soon(object);
            return false;
        }
        let versions = self.objects.entry(object.clone()).or_default();
        let prior = versions.last().filter(|v| v.2.is_some()).map_or(EVersion::default(), |v| v.0);
        let last = self.pg.log().entries().next_back().and_then(PgLogEntry::store_epoch);
        let mut entry = PgLogEntry {
            op: if value.is_some() { log_op::MODIFY } else { log_op::DELETE },
            object: object.clone(),
            version: self.pg.next_version(),
            prior_version: prior,
            reqid,
            ..Default::default()
        };
        entry.set_store_epoch(clock.max(last.unwrap_or(0) + 1));
        self.store(&entry, value);
        let epoch = self.epoch();
        let horizon = self.pg.horizon();
        let to = self.pg.append(entry.clone());
        self.pg.trim_log();
        let trim_to = self.pg.trim_to();
        let ticket = self.submit();
        let mut waiting = BTreeSet::from([self.me]);
        for member in to {
            let (osd, whole) = match member {
                SendTo::Whole(osd) => (osd, true),
                SendTo::LogOnly(osd) => (osd, false),
            };
            waiting.insert(osd);
            // The write goes out beside the flush.
            let entry = entry.clone();
            let net = Net::Write { epoch, entry, value, whole, horizon, trim_to };
            self.effects.push(Effect::Send(osd, net));
        }
        self.writes.insert(entry.version, Write { reqid, ticket, waiting });
        true
    }

    /// What no acting copy can be rolled back behind is kept but once.
    fn store(&mut self, entry: &PgLogEntry, value: Option<u64>) {
        let horizon = self.pg.horizon();
        let versions = self.objects.entry(entry.object.clone()).or_default();
        versions.push((entry.version, entry.store_epoch().unwrap(), value));
        let kept = versions.iter().rposition(|v| v.0 <= horizon).unwrap_or(0);
        versions.drain(..kept);
    }

    fn acked(&mut self, from: i32, version: EVersion) {
        if let Some(write) = self.writes.get_mut(&version) {
            write.waiting.remove(&from);
        }
        // In order of versions.
        while self.writes.first_key_value().is_some_and(|(_, w)| w.waiting.is_empty()) {
            let (version, write) = self.writes.pop_first().unwrap();
            self.pg.written_everywhere(version);
            self.effects.push(Effect::Done(write.reqid, version));
        }
    }

    // --- messages

    pub(crate) fn handle(&mut self, from: i32, net: Net, now: Duration) {
        let epoch = self.epoch();
        match net {
            Net::Peer(message) => {
                self.pg.handle(from, message, now);
                self.drain();
            }
            Net::Write { epoch, entry, value, whole, horizon, trim_to } => {
                let version = entry.version;
                if self.pg.apply(from, epoch, entry.clone(), horizon) {
                    if whole {
                        self.store(&entry, value);
                    }
                    self.pg.trim_as_told(trim_to);
                    self.submit();
                    self.send(from, Net::WriteAck { epoch, version });
                }
            }
            Net::WriteAck { epoch, version } if self.pg.is_current(epoch) => {
                self.acked(from, version)
            }
            Net::Pull { epoch: asked, object, need } if self.pg.is_current(asked) => {
                if now.subsec_micros().is_multiple_of(16) {
                    self.send(from, Net::PullFailed { epoch, object });
                    return;
                }
                let versions = self.objects.get(&object).cloned().unwrap_or_default();
                self.send(from, Net::PullReply { epoch, object, need, versions });
            }
            Net::PullReply { epoch, object, need, versions }
                if self.pg.is_current(epoch) && self.pg.is_pulling(&object, need) =>
            {
                self.pulls.remove(&object);
                self.objects.insert(object.clone(), versions);
                self.pg.pulled(&object, need);
                self.submit();
                self.progress();
            }
            Net::PullReply { .. } => self.effects.push(Effect::Count("late pulls")),
            Net::PullFailed { epoch, object } if self.pg.is_current(epoch) => {
                self.pg.recovery_failed(&object, from);
                self.pulls.remove(&object);
            }
            Net::Push { epoch: sent, object, versions } if self.pg.is_current(sent) => {
                self.objects.insert(object.clone(), versions);
                self.pg.got_push(&object);
                self.submit();
                self.send(from, Net::PushAck { epoch, object });
            }
            Net::PushAck { epoch, object } if self.pg.is_current(epoch) => {
                self.pg.pushed(from, &object);
                self.progress();
            }
            Net::Scan { epoch: asked, begin, upto } if self.pg.is_current(asked) => {
                let found = self.list(&begin, &upto);
                self.send(from, Net::ScanReply { epoch, upto, found });
            }
            Net::ScanReply { epoch, upto, found } if self.pg.is_current(epoch) => {
                if let Some((_, ours)) = self.listed.remove(&from) {
                    self.pg.backfill_compared(from, upto, &ours, &found);
                    self.progress();
                }
            }
            Net::Ping { up_from, sent, delta_ub, reply } => {
                self.got_ping(from, (up_from, sent, delta_ub), reply, now);
            }
            _ => {}
        }
    }

    fn progress(&mut self) {
        self.pg.check_progress();
        self.drain();
    }

    fn list(&self, begin: &HObject, upto: &HObject) -> BTreeMap<HObject, EVersion> {
        let head = |(o, v): (&HObject, &Versions)| {
            let last = v.last().filter(|v| v.2.is_some())?;
            Some((o.clone(), last.0))
        };
        self.objects.iter().filter(|(o, _)| *o > begin && *o <= upto).filter_map(head).collect()
    }

    /// Recovers a little.
    pub(crate) fn recover(&mut self, impatient: bool) {
        self.grant();
        if self.pg.state_bits(Duration::ZERO) & pg_state::BACKFILL_TOOFULL != 0 {
            self.effects.push(Effect::Count("too full"));
        }
        let map = self.pg.map().clone();
        let slow: Vec<_> = (self.pulls.iter())
            .filter(|(_, from)| impatient || !map.is_up(**from))
            .map(|(object, from)| (object.clone(), *from))
            .collect();
        for (object, from) in slow {
            self.pulls.remove(&object);
            self.pg.recovery_failed(&object, from);
        }
        let epoch = self.epoch();
        for next in self.pg.recover(2) {
            match next {
                Recover::Pull { object, need, from } => {
                    self.effects.push(Effect::Count("pulls"));
                    self.pulls.insert(object.clone(), from[0]);
                    self.send(from[0], Net::Pull { epoch, object, need });
                }
                Recover::Push { object, to } => {
                    let versions = self.objects.get(&object).cloned().unwrap_or_default();
                    for osd in to {
                        let (object, versions) = (object.clone(), versions.clone());
                        self.send(osd, Net::Push { epoch, object, versions });
                    }
                }
            }
        }
        for (osd, begin) in self.pg.backfill_scans() {
            let ours = self.list(&begin, &HObject::max());
            let upto = ours.keys().nth(7).filter(|_| ours.len() > 8).cloned();
            let upto = upto.unwrap_or_else(HObject::max);
            let ours = ours.into_iter().filter(|(o, _)| *o <= upto).collect();
            self.listed.insert(osd, (upto.clone(), ours));
            self.send(osd, Net::Scan { epoch, begin, upto });
        }
        self.progress();
    }
}
