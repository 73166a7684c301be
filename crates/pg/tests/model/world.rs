//! The world: network, time, faults, clients, and what must hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use spirula_maps::WEIGHT_IN;
use spirula_pg::{Config, State};
use spirula_wire::types::{EVersion, EntityName, HObject, RequestId, SnapId};

use crate::mon::{Mon, PGID, Request};
use crate::node::{Effect, Image, Net, Node, config};

const OSDS: usize = 5;
/// Of faults. Those that mend others are in every seed.
const KINDS: u32 = 19;
const MENDING: [u32; 5] = [2, 3, 4, 17, 18];
const FAULTY_STEPS: u32 = 6000;
const CALM_STEPS: u32 = 60_000;

#[derive(Debug, Clone)]
struct Op {
    object: HObject,
    value: Option<u64>,
    done: Option<EVersion>,
}

struct Envelope {
    net: Net,
    /// The life of the receiver that it was sent to.
    up_from: u32,
}

/// How often what is to be tested came about.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    counts: BTreeMap<&'static str, u64>,
}

impl Seen {
    fn count(&mut self, what: &'static str, n: u64) {
        *self.counts.entry(what).or_default() += n;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        other.counts.iter().for_each(|(what, n)| self.count(what, *n));
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [
            "writes",
            "reads",
            "undone",
            "crashes",
            "clean",
            "down",
            "backfill",
            "repeated",
            "wiped",
            "epochs",
            "preempted",
            "resized",
            "pulls",
            "copy reads",
        ];
        all.into_iter().map(|what| (what, self.counts.get(what).copied().unwrap_or(0)))
    }
}

pub(crate) struct World {
    rng: ChaCha8Rng,
    now: u64,
    /// Nobody's clock agrees with another's.
    offsets: [u64; OSDS],
    /// Nor do they run alike: so many parts in 10,000 faster.
    rates: [u64; OSDS],
    mon: Mon,
    nodes: Vec<Option<Node>>,
    disks: Vec<Option<Image>>,
    /// What a node says to the monitor waits while it is cut off.
    asks: Vec<Vec<Request>>,
    links: BTreeMap<(i32, i32), VecDeque<Envelope>>,
    cut: BTreeSet<(i32, i32)>,
    mon_cut: BTreeSet<i32>,
    ops: BTreeMap<RequestId, Op>,
    /// The newest version of each object that a client has heard of.
    heard: BTreeMap<HObject, EVersion>,
    /// A disk was wiped, and the PG was not clean since: another may not be.
    wiped: bool,
    faulty: bool,
    /// Of all kinds, those that this seed has: few let other things come about than many.
    faults: Vec<u32>,
    /// So many objects, and so long logs.
    objects: u64,
    config: Config,
    seen: Seen,
}

fn object(n: u64) -> HObject {
    let name = format!("object{n}");
    let hash = (n as u32).wrapping_mul(0x9e37_79b9);
    HObject { oid: name.into(), hash, snap: SnapId::HEAD, pool: PGID.pool, ..HObject::min() }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let size = rng.random_range(2..5);
        let min_size = rng.random_range(1..size.min(3));
        let often = rng.random_range(1..5);
        let faults = (0..KINDS)
            .filter(|kind| MENDING.contains(kind) || rng.random_range(0..4) < often)
            .collect();
        let objects = [5, 15, 40][rng.random_range(0..3)];
        let config = config([8, 30][rng.random_range(0..2)]);
        let mon = Mon::new(OSDS, size, min_size);
        let nodes = (0..OSDS as i32).map(|me| Some(Node::first(me, mon.current().clone(), config)));
        let mut world = Self {
            offsets: std::array::from_fn(|_| rng.random_range(0..1_000_000)),
            rates: std::array::from_fn(|_| rng.random_range(0..40)),
            rng,
            now: 1000,
            nodes: nodes.collect(),
            mon,
            disks: vec![None; OSDS],
            asks: vec![Vec::new(); OSDS],
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            mon_cut: BTreeSet::new(),
            ops: BTreeMap::new(),
            heard: BTreeMap::new(),
            wiped: false,
            faulty: true,
            faults,
            objects,
            config,
            seen: Seen::default(),
        };
        for osd in 0..OSDS {
            world.on(osd, |node, now| {
                node.pg.activate_map(now);
                node.drain();
            });
        }
        world
    }

    pub(crate) fn play(mut self) -> Seen {
        for _ in 0..FAULTY_STEPS {
            self.step();
            if self.chance(150) {
                self.fault();
            }
        }
        self.calm_down();
        let settled = (0..CALM_STEPS).any(|n| {
            self.step();
            n % 16 == 0 && self.is_settled()
        });
        assert!(settled, "does not become clean: {}", self.describe());
        self.check();
        let epochs = self.mon.maps.len() as u64;
        self.seen.count("epochs", epochs);
        self.seen
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.random_range(0..one_in) == 0
    }

    fn pick(&mut self) -> usize {
        self.rng.random_range(0..OSDS)
    }

    fn local(&self, osd: usize) -> Duration {
        let micros = self.now * (10_000 + self.rates[osd]) / 10;
        Duration::from_millis(self.offsets[osd]) + Duration::from_micros(micros)
    }

    /// Does something at a node that runs, and what follows from it.
    fn on<R>(&mut self, osd: usize, f: impl FnOnce(&mut Node, Duration) -> R) -> Option<R> {
        let now = self.local(osd);
        let node = self.nodes[osd].as_mut()?;
        let out = f(node, now);
        let effects = std::mem::take(&mut node.effects);
        let map = node.pg.map().clone();
        for effect in effects {
            match effect {
                Effect::Send(to, net) => {
                    let up_from = map.osd(to).map_or(0, |o| o.info.up_from);
                    let link = self.links.entry((osd as i32, to)).or_default();
                    link.push_back(Envelope { net, up_from });
                }
                Effect::Mon(request) => self.asks[osd].push(request),
                Effect::Done(reqid, version) => self.done(reqid, version),
                Effect::Undone(n) => self.seen.count("undone", n as u64),
                Effect::Count(what) => self.seen.count(what, 1),
                Effect::Clean => {
                    self.wiped = false;
                    self.seen.count("clean", 1);
                }
            }
        }
        Some(out)
    }

    fn done(&mut self, reqid: RequestId, version: EVersion) {
        let op = self.ops.get_mut(&reqid).expect("asked for");
        match op.done {
            Some(before) => assert_eq!(before, version, "{reqid} was carried out twice"),
            None => op.done = Some(version),
        }
        let heard = self.heard.entry(op.object.clone()).or_default();
        *heard = version.max(*heard);
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..45 => self.deliver(),
            45..60 => self.flush(),
            60..68 => self.share_map(),
            68..72 => self.monitor(),
            72..82 => self.write(),
            82..87 => self.read(),
            87..93 => {
                let osd = self.pick();
                let impatient = self.chance(10);
                self.on(osd, |node, _| node.recover(impatient));
                if self.faulty
                    && self.chance(20)
                    && self.on(osd, |node, _| node.preempt()) == Some(true)
                {
                    self.seen.count("preempted", 1);
                }
            }
            _ => self.pass_time(),
        }
    }

    fn deliver(&mut self) {
        let full = self.links.iter().filter(|(k, l)| !l.is_empty() && !self.cut.contains(*k));
        let full: Vec<(i32, i32)> = full.map(|(k, _)| *k).collect();
        if full.is_empty() {
            return;
        }
        let (from, to) = full[self.rng.random_range(0..full.len())];
        let Some(envelope) = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front) else {
            return;
        };
        let Some(node) = &self.nodes[to as usize] else {
            return;
        };
        let known = node.pg.map().osd(to).filter(|o| o.is_up()).map_or(0, |o| o.info.up_from);
        if known < envelope.up_from {
            // It is about to come up.
            self.links.entry((from, to)).or_default().push_front(envelope);
            return;
        }
        if known > envelope.up_from {
            return;
        }
        if matches!(envelope.net, Net::Peer(_)) && self.chance(20) {
            let again = Envelope { net: envelope.net.clone(), ..envelope };
            self.links.entry((from, to)).or_default().push_back(again);
            self.seen.count("repeated", 1);
        }
        self.on(to as usize, |node, now| node.handle(from, envelope.net, now));
    }

    fn flush(&mut self) {
        let (osd, part) = (self.pick(), self.rng.random_range(1..6));
        let mut disk = std::mem::take(&mut self.disks[osd]);
        self.on(osd, |node, now| node.flush(part, &mut disk, now));
        self.disks[osd] = disk;
    }

    fn share_map(&mut self) {
        let osd = self.pick();
        let newest = self.mon.current().epoch;
        let few = self.rng.random_range(1..4);
        let Some(known) = self.nodes[osd].as_ref().map(Node::epoch) else {
            return;
        };
        if self.mon_cut.contains(&(osd as i32)) || known == newest {
            return;
        }
        for epoch in known + 1..=newest.min(known + few) {
            let map = self.mon.map(epoch);
            self.on(osd, |node, now| node.pg.advance(map, now));
        }
        self.on(osd, |node, now| {
            node.pg.activate_map(now);
            node.drain();
        });
        let boot = Request::Boot(osd as i32);
        let is_up = self.mon.current().is_up(osd as i32);
        if !is_up && !self.asks[osd].contains(&boot) && !self.mon.requests.contains(&boot) {
            self.asks[osd].push(boot);
        }
    }

    fn monitor(&mut self) {
        for osd in 0..OSDS {
            if !self.mon_cut.contains(&(osd as i32)) {
                let asks = std::mem::take(&mut self.asks[osd]);
                self.mon.requests.extend(asks);
            }
        }
        for osd in 0..OSDS as i32 {
            if self.nodes[osd as usize].is_none() && self.mon.current().is_up(osd) && self.chance(3)
            {
                let dead = self.chance(2);
                let request = self.mon.down(osd, dead);
                self.mon.requests.push(request);
            }
        }
        if !self.mon.requests.is_empty() {
            self.mon.propose();
        }
    }

    fn pass_time(&mut self) {
        // Long enough for a target that was full to be asked again.
        let leaps = !self.faulty && self.chance(100);
        let leap = if leaps { 31_000 } else { 0 };
        self.now += self.rng.random_range(1..6) + leap;
        for osd in 0..OSDS {
            self.on(osd, |node, now| {
                if leaps {
                    node.pg.set_too_full(false);
                }
                node.pg.tick(now);
                node.ping(now);
                node.drain();
            });
        }
    }

    // --- clients

    fn write(&mut self) {
        let osd = self.pick();
        self.write_at(osd);
    }

    fn write_at(&mut self, osd: usize) {
        let waiting: Vec<RequestId> =
            self.ops.iter().filter(|(_, op)| op.done.is_none()).map(|(r, _)| *r).collect();
        let reqid = if waiting.len() < 4 && self.ops.len() < 400 {
            let tid = self.ops.len() as u64 + 1;
            let reqid = RequestId { name: EntityName::client(1), tid, inc: 0 };
            let value = if self.chance(5) { None } else { Some(self.rng.next_u64()) };
            let object = object(self.rng.random_range(0..self.objects));
            self.ops.insert(reqid, Op { object, value, done: None });
            self.seen.count("writes", 1);
            reqid
        } else if waiting.is_empty() {
            return;
        } else {
            waiting[self.rng.random_range(0..waiting.len())]
        };
        let (op, clock) = (self.ops[&reqid].clone(), self.now);
        self.on(osd, |node, now| node.write(reqid, &op.object, op.value, clock, now));
    }

    /// Reads show at least what any client has heard of.
    fn read(&mut self) {
        // What was just written to tells most.
        let fresh = self.ops.values().rev().find(|op| op.done.is_none());
        let fresh = fresh.or(self.ops.values().next_back()).map(|op| op.object.clone());
        let object = match fresh.filter(|_| !self.chance(3)) {
            Some(fresh) => fresh,
            None => object(self.rng.random_range(0..self.objects)),
        };
        for _ in 0..3 {
            self.read_somewhere(object.clone());
        }
    }

    fn read_somewhere(&mut self, object: HObject) {
        // Stale reads come from those who hear nothing.
        let osd = match self.mon_cut.first().copied() {
            Some(cut) if self.chance(2) => cut as usize,
            _ => self.pick(),
        };
        let Some((here, copy)) = self
            .on(osd, |node, now| (node.read(&object, now), node.read_copy(&object, now)))
            .filter(|(here, copy)| here.is_some() || copy.is_some())
        else {
            return;
        };
        self.seen.count(if copy.is_some() { "copy reads" } else { "reads" }, 1);
        let version = here.or(copy).unwrap_or_default();
        let heard = self.heard.get(&object).copied().unwrap_or_default();
        if version == EVersion::default() {
            // What is not there has no version: some delete must be as new as what was heard of.
            let deletes = |op: &Op| op.object == object && op.value.is_none();
            let newest = |op: &Op| op.done.is_none_or(|at| at >= heard);
            let gone = self.ops.values().any(|op| deletes(op) && newest(op));
            assert!(gone || heard == version, "osd.{osd} read no {object}, which was at {heard}");
            return;
        }
        assert!(version >= heard, "osd.{osd} read {object} at {version}, not {heard}");
        self.heard.insert(object, version);
    }

    // --- faults

    fn fault(&mut self) {
        let osd = self.pick();
        let id = osd as i32;
        let kind = self.rng.random_range(0..KINDS);
        if !self.faults.contains(&kind) {
            return;
        }
        match kind {
            0 | 1 => self.crash(osd),
            2..5 => (0..OSDS).for_each(|osd| self.restart(osd)),
            5 => {
                let request = self.mon.down(id, false);
                self.mon.requests.push(request);
                self.seen.count("down", 1);
            }
            6 => {
                let weight = if self.chance(3) { 0 } else { WEIGHT_IN };
                self.mon.requests.push(Request::Weight(id, weight));
            }
            7 => self.isolate(),
            8 => self.wipe(osd),
            9..12 => self.tear(),
            12 | 13 => {
                // One way only.
                let to = self.pick() as i32;
                self.cut.insert((id, to));
            }
            16 => {
                self.on(osd, |node, _| {
                    node.pg.set_too_full(true);
                    node.drain();
                });
            }
            14 => {
                let size = self.rng.random_range(2..5);
                let min_size = self.rng.random_range(1..size + 1);
                self.mon.requests.push(Request::Pool { size, min_size });
                self.seen.count("resized", 1);
            }
            15 => {
                let up = (0..OSDS as i32).filter(|osd| self.mon.current().is_up(*osd));
                let mut osds: Vec<i32> = up.collect();
                let first = osd % osds.len().max(1);
                osds.rotate_left(first);
                osds.truncate(self.rng.random_range(1..4));
                if !osds.is_empty() {
                    self.mon.requests.push(Request::Temp(osds));
                }
            }
            _ => self.heal(),
        }
    }

    /// An OSD, often the primary, hears no map any more, and others nothing of it.
    fn isolate(&mut self) {
        let primary = self.mon.current().pg_to_up_acting(PGID).acting_primary;
        let id = if primary >= 0 && self.chance(2) { primary } else { self.pick() as i32 };
        self.mon_cut.insert(id);
        for other in 0..OSDS as i32 {
            self.cut.insert((id, other));
            if self.chance(2) {
                self.cut.insert((other, id));
            }
        }
        if self.chance(2) {
            let request = self.mon.down(id, false);
            self.mon.requests.push(request);
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
        self.mon_cut.clear();
    }

    /// All that is not on its disk is gone, and so is what was under way from and to it.
    fn crash(&mut self, osd: usize) {
        let running = self.nodes.iter().flatten().count();
        if running > 2 && self.nodes[osd].take().is_some() {
            self.seen.count("crashes", 1);
            self.asks[osd].clear();
            self.links.retain(|(from, to), _| *from != osd as i32 && *to != osd as i32);
        }
    }

    /// A primary dies with writes that few or none of its copies have got.
    fn tear(&mut self) {
        let leads = |n: &&Node| n.pg.is_primary() && n.pg.is_peered();
        let Some(osd) = self.nodes.iter().flatten().find(leads).map(|n| n.me as usize) else {
            return;
        };
        for _ in 0..6 {
            self.write_at(osd);
        }
        for _ in 0..self.rng.random_range(0..6) {
            self.deliver();
        }
        let mut disk = std::mem::take(&mut self.disks[osd]);
        self.on(osd, |node, now| node.flush(usize::MAX, &mut disk, now));
        self.disks[osd] = disk;
        self.crash(osd);
        // Only of whoever is gone a connection is refused.
        let dead = self.nodes[osd].is_none() && self.chance(2);
        let request = self.mon.down(osd as i32, dead);
        self.mon.requests.push(request);
    }

    /// A disk is lost while all copies are whole.
    fn wipe(&mut self, osd: usize) {
        let map = self.mon.current().clone();
        let primary = map.pg_to_up_acting(PGID).acting_primary;
        let node = self.nodes.get(primary as usize).and_then(Option::as_ref);
        let clean = node.is_some_and(|n| n.epoch() == map.epoch && n.pg.state() == State::Clean);
        if clean && !self.wiped {
            self.crash(osd);
            if self.nodes[osd].is_none() {
                self.disks[osd] = None;
                self.wiped = true;
                self.seen.count("wiped", 1);
            }
        }
    }

    fn restart(&mut self, osd: usize) {
        if self.nodes[osd].is_some() {
            return;
        }
        let disk = &self.disks[osd];
        let map = match disk {
            Some(image) => self.mon.map(image.epoch),
            None => self.mon.current().clone(),
        };
        self.nodes[osd] = Some(Node::restart(osd as i32, disk, map, self.config, self.local(osd)));
        self.asks[osd] = vec![Request::Boot(osd as i32)];
    }

    fn calm_down(&mut self) {
        self.faulty = false;
        self.heal();
        for osd in 0..OSDS {
            self.restart(osd);
            self.mon.requests.push(Request::Weight(osd as i32, WEIGHT_IN));
        }
    }

    // --- what must hold in the end

    fn is_settled(&mut self) -> bool {
        let map = self.mon.current().clone();
        let found = map.pg_to_up_acting(PGID);
        let backfills = |n: &Node| !n.pg.backfill_targets().is_empty();
        if self.nodes.iter().flatten().any(backfills) {
            self.seen.count("backfill", 1);
        }
        let followed =
            self.nodes.iter().flatten().all(|n| n.epoch() == map.epoch && map.is_up(n.me));
        let quiet = self.mon.requests.is_empty() && self.asks.iter().all(Vec::is_empty);
        let done = self.ops.values().all(|op| op.done.is_some());
        let clean = self.nodes.get(found.acting_primary as usize).and_then(Option::as_ref);
        followed && quiet && done && clean.is_some_and(|n| n.pg.state() == State::Clean)
    }

    fn check(&mut self) {
        for _ in 0..10_000 {
            self.deliver();
            self.flush();
        }
        let found = self.mon.current().pg_to_up_acting(PGID);
        let size = usize::from(self.mon.current().pool(PGID.pool).unwrap().size);
        assert_eq!(found.acting.len(), size, "all are up and in");
        let node = |osd: i32| self.nodes[osd as usize].as_ref().unwrap();
        let primary = node(found.acting_primary);
        let history: BTreeMap<EVersion, HObject> = self
            .ops
            .iter()
            .map(|(reqid, op)| {
                let kept =
                    primary.pg.log().find(reqid).unwrap_or_else(|| panic!("{reqid} is lost"));
                assert_eq!(Some(kept.version), op.done, "{reqid} is recorded as it was answered");
                (kept.version, op.object.clone())
            })
            .collect();
        assert_eq!(history.len(), self.ops.len(), "each request has a version of its own");
        let all: BTreeMap<EVersion, &Op> =
            self.ops.values().map(|op| (op.done.unwrap(), op)).collect();
        for osd in found.acting {
            let copy = node(osd);
            assert!(copy.pg.missing().is_empty() && !copy.pg.info().is_incomplete());
            assert_eq!(copy.pg.info().last_update, primary.pg.info().last_update);
            for n in 0..self.objects {
                let object = object(n);
                let last = all.iter().rev().find(|(_, op)| op.object == object);
                let want = last.and_then(|(version, op)| Some((*version, op.value?)));
                let versions = copy.objects.get(&object).cloned().unwrap_or_default();
                let have = versions.last().and_then(|(v, _, value)| Some((*v, (*value)?)));
                assert_eq!(have, want, "{object} on osd.{osd}: {versions:?}");
                // Backfill does not look at what is deleted on both sides, nor at what was before.
                let alive = versions.iter().rev().take_while(|v| v.2.is_some());
                let stray = alive.into_iter().find(|v| !history.contains_key(&v.0));
                assert_eq!(stray, None, "{object} on osd.{osd} has what was undone");
            }
        }
    }

    fn describe(&self) -> String {
        let mut text = format!("{:?}\n", self.mon.current().pg_to_up_acting(PGID));
        for node in self.nodes.iter().flatten() {
            let pg = &node.pg;
            text += &format!(
                "osd.{} epoch {} {:?} last {} missing {} members {:?} unfound {}\n",
                node.me,
                node.epoch(),
                pg.state(),
                pg.info().last_update,
                pg.missing().len(),
                pg.members(),
                pg.unfound().len(),
            );
        }
        let left = self.ops.values().filter(|op| op.done.is_none()).count();
        let queued: Vec<_> = self.links.iter().map(|(k, l)| (k, l.len())).collect();
        text + &format!("ops left {left}, asked {:?}, links {queued:?}", self.mon.requests)
    }
}
