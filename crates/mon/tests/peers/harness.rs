//! Several monitors in one thread, each over storage in memory; between them sessions that can break
//! one by one. A message takes one step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use spirula_auth::{AuthenticatedPeer, CryptoKey};
use spirula_mon::{
    Action, MemoryStorage, MkfsConfig, Now, Peer, Service, ServiceConfig, Storage as _, mkfs,
    mkfs_join, mkfs_peer, open,
};
use spirula_wire::msg::mon::{MonCommand, MonCommandAck, MonPeer};
use spirula_wire::types::{EntityAddr, EntityAddrVec, EntityNameStr, Uuid};
use spirula_wire::{Features, Message as _, RawMessage};

pub(crate) const F: Features = Features::PACIFIC;
const FSID: Uuid = Uuid([7; 16]);
const START: Duration = Duration::from_secs(1_795_000_000);
const STEP: Duration = Duration::from_millis(10);
/// What one frame may hold (the messenger's limits).
const FRONT_MAX: usize = 16 << 20;
const DATA_MAX: usize = 128 << 20;

/// First bytes of the bodies of messages between monitors.
pub(crate) mod tag {
    pub(crate) const VIEW: u8 = 2;
    pub(crate) const ROUTE: u8 = 6;
}

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) storage: MemoryStorage,
    pub(crate) service: Option<Service>,
    /// What its wall clock is ahead of the others'.
    pub(crate) ahead: Duration,
    /// What its clients were sent.
    pub(crate) sent: Vec<(u64, RawMessage)>,
    /// It stopped since it was taken out of the cluster.
    pub(crate) removed: bool,
}

struct InTransit {
    due: Duration,
    from: usize,
    to: usize,
    session: u64,
    raw: RawMessage,
    /// It goes back on the session, from the one that accepted it.
    answer: bool,
}

/// A message that is lost with the session that carries it, once.
#[derive(Clone, Copy)]
pub(crate) struct Trap {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) tag: u8,
}

pub(crate) struct Mons {
    pub(crate) nodes: Vec<Node>,
    pub(crate) mono: Duration,
    net: Vec<InTransit>,
    /// Who sends and who receives -> the receiver's number for the session.
    links: BTreeMap<(usize, usize), u64>,
    cut: BTreeSet<(usize, usize)>,
    /// Bodies with this tag do not get through.
    pub(crate) mute: Option<u8>,
    pub(crate) trap: Option<Trap>,
    sessions: u64,
    seed: u8,
}

pub(crate) fn addr(text: &str) -> EntityAddrVec {
    EntityAddrVec::one(text.parse::<EntityAddr>().unwrap())
}

pub(crate) fn name_of(n: usize) -> String {
    char::from(b'a' + n as u8).to_string()
}

pub(crate) fn addr_of(n: usize) -> EntityAddrVec {
    addr(&format!("v2:10.0.0.{}:3300/0", n + 1))
}

impl Mons {
    pub(crate) fn new(count: usize) -> Self {
        let key = || CryptoKey::from_secret(START, [1; 16]);
        let config = MkfsConfig {
            fsid: FSID,
            mons: (0..count).map(|n| (name_of(n), addr_of(n))).collect(),
            hostname: "host1".into(),
            admin_key: key(),
            mgrs: vec![("x".into(), key())],
            osds: vec![],
            device_class: "ssd".into(),
            pools: vec![],
            options: BTreeMap::new(),
            seed: [5; 32],
        };
        let now = Now { mono: Duration::ZERO, wall: START };
        let mut stores: Vec<_> = (0..count).map(|_| MemoryStorage::default()).collect();
        let state = mkfs(&config, now, &mut stores[0]).unwrap();
        for (n, store) in stores.iter_mut().enumerate().skip(1) {
            mkfs_peer(&state, &name_of(n), store).unwrap();
        }
        let mut mons = Self {
            nodes: Vec::new(),
            mono: Duration::ZERO,
            net: Vec::new(),
            links: BTreeMap::new(),
            cut: BTreeSet::new(),
            mute: None,
            trap: None,
            sessions: 0,
            seed: 0,
        };
        for (n, storage) in stores.into_iter().enumerate() {
            mons.add_node(n, storage);
            mons.start(n);
        }
        mons
    }

    fn add_node(&mut self, n: usize, storage: MemoryStorage) {
        self.nodes.push(Node {
            name: name_of(n),
            storage,
            service: None,
            ahead: Duration::ZERO,
            sent: Vec::new(),
            removed: false,
        });
    }

    /// A monitor with an empty store, in place of one that was lost or as another.
    pub(crate) fn blank(&mut self, n: usize) -> u64 {
        let any = self.nodes.iter().find_map(|node| node.service.as_ref()).unwrap().state();
        let key = any.auth.get(&EntityNameStr::new(spirula_wire::types::EntityType::MON, ""));
        let (key, mut monmap) = (key.unwrap().key.clone(), any.monmap.map().clone());
        if !monmap.ranks.contains(&name_of(n)) {
            monmap.add(&name_of(n), addr_of(n));
        }
        let mut storage = MemoryStorage::default();
        self.seed += 1;
        mkfs_join(
            monmap,
            key,
            self.now(n.min(self.nodes.len() - 1)),
            [self.seed; 32],
            &mut storage,
        )
        .unwrap();
        let number = storage.load().unwrap().node;
        match self.nodes.get_mut(n) {
            Some(node) => node.storage = storage,
            None => self.add_node(n, storage),
        }
        number
    }

    pub(crate) fn now(&self, n: usize) -> Now {
        Now { mono: self.mono, wall: START + self.mono + self.nodes[n].ahead }
    }

    pub(crate) fn service(&self, n: usize) -> &Service {
        self.nodes[n].service.as_ref().expect("the monitor runs")
    }

    pub(crate) fn start(&mut self, n: usize) {
        let now = self.now(n);
        self.seed += 1;
        let node = &mut self.nodes[n];
        let (state, stored) = open(&mut node.storage, Some(FSID)).unwrap();
        let config = ServiceConfig {
            name: node.name.clone(),
            seed: [self.seed; 32],
            metadata: [("hostname".to_owned(), format!("host{n}"))].into(),
            ..ServiceConfig::default()
        };
        node.service = Some(Service::new(config, state, &stored, now));
        self.pump(n);
    }

    /// Its process ends; the others see their sessions end, if they are told.
    pub(crate) fn crash(&mut self, n: usize, told: bool) {
        self.nodes[n].service = None;
        let gone: Vec<_> = self.links.keys().copied().filter(|(f, t)| *f == n || *t == n).collect();
        for (from, to) in gone {
            if told || to == n {
                self.break_link(from, to);
            } else {
                self.links.remove(&(from, to));
            }
        }
    }

    pub(crate) fn break_link(&mut self, from: usize, to: usize) {
        self.net.retain(|m| (m.from, m.to) != (from, to));
        let Some(session) = self.links.remove(&(from, to)) else { return };
        let now = self.now(to);
        if let Some(service) = &mut self.nodes[to].service {
            service.session_closed(now, session);
        }
        self.pump(to);
    }

    /// Nothing gets from one to the other any more; their session stays, as no one says otherwise.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Cuts a monitor off, both ways.
    pub(crate) fn isolate(&mut self, n: usize) {
        for other in (0..self.nodes.len()).filter(|o| *o != n) {
            self.cut(n, other);
            self.cut(other, n);
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.mono + time;
        while self.mono < end {
            self.step();
        }
    }

    /// Whether `condition` came true within the time.
    pub(crate) fn run_until(
        &mut self,
        time: Duration,
        mut condition: impl FnMut(&mut Self) -> bool,
    ) -> bool {
        let end = self.mono + time;
        while self.mono < end {
            if condition(self) {
                return true;
            }
            self.step();
        }
        condition(self)
    }

    pub(crate) fn step(&mut self) {
        self.mono += STEP;
        self.connect();
        for n in 0..self.nodes.len() {
            let now = self.now(n);
            if let Some(service) = &mut self.nodes[n].service
                && now.mono >= service.poll_timeout()
            {
                service.tick(now);
                self.pump(n);
            }
        }
        let mono = self.mono;
        let (due, later) = std::mem::take(&mut self.net).into_iter().partition(|m| m.due <= mono);
        self.net = later;
        let due: Vec<InTransit> = due;
        for m in due {
            let link = if m.answer { (m.to, m.from) } else { (m.from, m.to) };
            let there = self.links.get(&link) == Some(&m.session);
            if there && !self.cut.contains(&(m.from, m.to)) {
                let now = self.now(m.to);
                match &mut self.nodes[m.to].service {
                    Some(service) if m.answer => service.peer_answer(&m.raw),
                    Some(service) => service.message(now, m.session, m.raw),
                    None => {}
                }
                self.pump(m.to);
            }
        }
    }

    /// Opens the sessions that are missing.
    fn connect(&mut self) {
        for from in 0..self.nodes.len() {
            for to in (0..self.nodes.len()).filter(|to| *to != from) {
                let name = self.nodes[to].name.clone();
                let Some(service) = &self.nodes[from].service else { continue };
                let known = service.monmap().rank_of(&name).is_some();
                let cut = self.cut.contains(&(from, to)) || self.cut.contains(&(to, from));
                let up = self.nodes[to].service.is_some() && !self.links.contains_key(&(from, to));
                if !known || cut || !up {
                    continue;
                }
                let session = self.open(to, "mon.", "allow *");
                self.links.insert((from, to), session);
                let now = self.now(from);
                if let Some(service) = &mut self.nodes[from].service {
                    service.peer_connected(now, &name);
                }
                self.pump(from);
            }
        }
    }

    /// A session of a client, or of another monitor.
    pub(crate) fn open(&mut self, n: usize, name: &str, caps: &str) -> u64 {
        self.sessions += 1;
        let id = self.sessions;
        let auth = AuthenticatedPeer {
            name: name.parse().unwrap(),
            global_id: 5000 + id,
            caps: caps.into(),
            allow_all: false,
            expires: Duration::MAX,
            server_challenge: 1,
        };
        let addrs = addr(&format!("v2:10.0.1.1:{}/7", 1000 + id));
        let peer = Peer { auth, socket_addr: addrs.front(), addrs, features: F.0 };
        let now = self.now(n);
        self.nodes[n].service.as_mut().expect("it runs").session_opened(now, id, peer);
        self.pump(n);
        id
    }

    pub(crate) fn close(&mut self, n: usize, session: u64) {
        let now = self.now(n);
        self.nodes[n].service.as_mut().expect("it runs").session_closed(now, session);
        self.pump(n);
    }

    pub(crate) fn admin(&mut self, n: usize) -> u64 {
        self.open(n, "client.admin", "allow *")
    }

    pub(crate) fn message(&mut self, n: usize, session: u64, raw: RawMessage) {
        let now = self.now(n);
        self.nodes[n].service.as_mut().expect("it runs").message(now, session, raw);
        self.pump(n);
    }

    /// Sends a command; its answer carries `tid`.
    pub(crate) fn send(&mut self, n: usize, session: u64, tid: u64, json: &str) {
        let command = MonCommand { fsid: FSID, cmd: vec![json.into()], ..MonCommand::default() };
        self.message(n, session, command.to_raw(tid, F));
    }

    pub(crate) fn answer(&self, n: usize, session: u64, tid: u64) -> Option<MonCommandAck> {
        let is_it =
            |raw: &RawMessage| raw.header.type_ == MonCommandAck::TYPE && raw.header.tid == tid;
        let found = self.nodes[n].sent.iter().find(|(to, raw)| *to == session && is_it(raw));
        found.map(|(_, raw)| MonCommandAck::from_raw(raw).unwrap())
    }

    /// Runs a command at a monitor: its result, its status and what it printed.
    pub(crate) fn command(&mut self, n: usize, json: &str) -> (i32, String, String) {
        let session = self.admin(n);
        self.send(n, session, 1, json);
        let limit = Duration::from_secs(20);
        assert!(self.run_until(limit, |m| m.answer(n, session, 1).is_some()), "{json}: no answer");
        let ack = self.answer(n, session, 1).unwrap();
        self.close(n, session);
        (ack.r, ack.rs, String::from_utf8_lossy(&ack.outbl).into_owned())
    }

    pub(crate) fn ok(&mut self, n: usize, json: &str) -> String {
        let (r, rs, out) = self.command(n, json);
        assert_eq!(r, 0, "{json}: {rs}");
        if out.is_empty() { rs } else { out }
    }

    /// A message of `from` on its session with `to`, which need not be what `from` would say.
    pub(crate) fn forge(&mut self, from: usize, to: usize, body: Vec<u8>) {
        let number = |m: &Self, n: usize| m.nodes[n].storage.clone().load().unwrap().node;
        let message = MonPeer {
            from: number(self, from),
            to: number(self, to),
            name: self.nodes[from].name.clone(),
            body: body.into(),
        };
        let session = self.links[&(from, to)];
        self.message(to, session, message.to_raw(0, F));
    }

    /// The monitor that leads, as soon as all that run and are not cut off agree on it.
    pub(crate) fn leader(&mut self) -> usize {
        let mut leader = None;
        let agreed = self.run_until(Duration::from_secs(30), |m| {
            leader = m.agreed_leader();
            leader.is_some()
        });
        assert!(agreed, "no leader");
        leader.unwrap()
    }

    fn agreed_leader(&self) -> Option<usize> {
        let reached = |n: &usize| !self.cut.iter().any(|(from, to)| from == n || to == n);
        let running = (0..self.nodes.len()).filter(|n| self.nodes[*n].service.is_some());
        let mut named = running.filter(reached).map(|n| {
            let service = self.service(n);
            let served = service.is_served(self.now(n));
            served.then(|| service.live().quorum.leader.clone()).filter(|l| !l.is_empty())
        });
        let first = named.next()??;
        if !named.all(|other| other.as_ref() == Some(&first)) {
            return None;
        }
        let n = self.nodes.iter().position(|node| node.name == first)?;
        self.nodes[n].service.is_some().then_some(n)
    }

    fn pump(&mut self, n: usize) {
        loop {
            let now = self.now(n);
            let Some(service) = &mut self.nodes[n].service else { return };
            let Some(action) = service.poll_action() else { return };
            match action {
                Action::Send(id, raw) | Action::Log(_, id, raw) => {
                    self.send_back(n, id, raw);
                }
                Action::OptionsChanged | Action::Close(_) => {}
                Action::Write(number, writes) => {
                    let node = &mut self.nodes[n];
                    node.storage.write(&writes).unwrap();
                    if let Some(service) = &mut node.service {
                        service.written(now, number);
                    }
                }
                Action::Peer(name, raw) => self.send_peer(n, &name, raw),
                Action::Fail(why) => panic!("mon.{}: {why}", self.nodes[n].name),
                Action::Removed => {
                    self.nodes[n].removed = true;
                    self.crash(n, true);
                }
            }
        }
    }

    /// To a client, or to the monitor that opened the session.
    fn send_back(&mut self, from: usize, session: u64, raw: RawMessage) {
        match self.links.iter().find(|(link, id)| **id == session && link.1 == from) {
            Some((&(to, _), _)) => {
                let due = self.mono + STEP;
                self.net.push(InTransit { due, from, to, session, raw, answer: true });
            }
            None => self.nodes[from].sent.push((session, raw)),
        }
    }

    fn send_peer(&mut self, from: usize, name: &str, raw: RawMessage) {
        let Some(to) = self.nodes.iter().position(|node| node.name == name) else { return };
        let Some(session) = self.links.get(&(from, to)).copied() else { return };
        assert!(raw.payload.front.len() <= FRONT_MAX, "a front too long for a frame");
        assert!(raw.payload.data_len() <= DATA_MAX, "data too long for a frame");
        let tag = MonPeer::from_raw(&raw).ok().and_then(|m| m.body.first().copied());
        if self.mute.is_some() && tag == self.mute {
            return;
        }
        let trapped = |t: &mut Trap| (t.from, t.to, Some(t.tag)) == (from, to, tag);
        if self.trap.take_if(trapped).is_some() {
            return self.break_link(from, to);
        }
        let due = self.mono + STEP;
        self.net.push(InTransit { due, from, to, session, raw, answer: false });
    }
}

/// The number of sessions under a name that a monitor knows of.
pub(crate) fn sessions_of(service: &Service, name: &str) -> usize {
    service.live().peers.values().filter(|p| p.name.to_string() == name).count()
}
