//! Sessions between daemons whose connections are cut at any byte, crossed, delayed, and whose
//! processes restart: every message arrives once and in order, unless a reset was told.
//!
//! One seed gives one run; a failure names it.

#[path = "support/ends.rs"]
mod ends;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use spirula_auth::{AcceptAuth, AcceptStep, ConMode, WallTime};
use spirula_msgr_core::{
    Action, Config, ConnId, Connection, Event, InMessage, Lossless, Now, Options, SendError,
    SessionId, SessionPeer, Target,
};
use spirula_wire::types::{EntityAddr, EntityName, EntityNameStr, EntityType};
use spirula_wire::{Features, RawMessage};

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 11) as usize % n.max(1)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// Accepts whom it is told to be.
struct Named(ends::TestAccept, usize);

impl Named {
    fn name(&self, mut step: AcceptStep) -> AcceptStep {
        if let AcceptStep::Done(done) = &mut step {
            done.peer.name = EntityNameStr::new(EntityType::OSD, self.1.to_string());
        }
        step
    }
}

impl AcceptAuth for Named {
    fn request(&mut self, now: WallTime, method: u32, modes: &[u32], payload: &[u8]) -> AcceptStep {
        let step = self.0.request(now, method, modes, payload);
        self.name(step)
    }

    fn more(&mut self, now: WallTime, payload: &[u8]) -> AcceptStep {
        let step = self.0.more(now, payload);
        self.name(step)
    }
}

/// One end of a socket.
struct Conn {
    conn: Connection,
    input: BytesMut,
    /// Bytes on their way to us.
    pipe: VecDeque<u8>,
    /// The stream ends after `pipe`.
    ends: bool,
    other: (usize, ConnId),
}

/// What a message says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Mark {
    /// How often the sender had been restarted.
    life: u64,
    /// How many resets its session had seen.
    stream: u64,
    n: u64,
}

struct Node {
    addr: EntityAddr,
    life: u64,
    lossless: Lossless,
    conns: BTreeMap<ConnId, Conn>,
    /// By address of the peer's process: what the next message to it says.
    next: BTreeMap<EntityAddr, Mark>,
    /// By sender: the last mark.
    got: BTreeMap<usize, Mark>,
    resets: usize,
}

struct World {
    rng: Rng,
    now: Duration,
    nodes: Vec<Node>,
    last_conn: ConnId,
    delivered: usize,
    cuts: usize,
    /// A restarted process keeps its address.
    same_addr: bool,
}

fn peer_of(node: usize, addr: EntityAddr) -> SessionPeer {
    SessionPeer {
        entity: EntityName::osd(node as i64),
        addrs: addr.into(),
        features: Features::PACIFIC,
    }
}

fn fresh(addr: EntityAddr, life: u64) -> Node {
    let mut options = Options::new(addr.into(), life << 32 | u64::from(addr.nonce));
    options.backoff_max = Duration::from_secs(2);
    Node {
        addr,
        life,
        lossless: Lossless::new(options),
        conns: BTreeMap::new(),
        next: BTreeMap::new(),
        got: BTreeMap::new(),
        resets: 0,
    }
}

impl World {
    fn new(seed: u64, count: usize, same_addr: bool) -> Self {
        let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let nodes = (0..count).map(|i| {
            let socket = SocketAddr::from(([10, 0, 0, rng.below(200) as u8], 6800 + i as u16));
            fresh(EntityAddr::msgr2(socket, 1 + rng.below(1000) as u32), 0)
        });
        let nodes = nodes.collect();
        let now = Duration::from_secs(100);
        Self { rng, now, nodes, last_conn: 0, delivered: 0, cuts: 0, same_addr }
    }

    fn at(&self) -> Now {
        Now { mono: self.now, wall: ends::NOW.wall }
    }

    fn config(&self, node: usize) -> Config {
        let mut config = Config::new(EntityName::osd(node as i64), self.nodes[node].addr.into());
        config.lossless = Some(EntityType::OSD);
        config
    }

    /// Queues a message from one node to another.
    fn send(&mut self, from: usize, to: usize) {
        let (addr, len) = (self.nodes[to].addr, self.rng.below(3000));
        let node = &mut self.nodes[from];
        let Some(session) = node.lossless.session(peer_of(to, addr)) else {
            panic!("an address");
        };
        let life = node.life;
        let mark = node.next.entry(addr).or_insert(Mark { life, stream: 0, n: 0 });
        let words = [from as u64, mark.life, mark.stream, mark.n];
        let mut front: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        front.resize(front.len() + len, 7);
        mark.n += 1;
        let mut raw = RawMessage::default();
        raw.header.type_ = 70;
        raw.payload.front = front.into();
        node.lossless.send(session, raw).unwrap();
        self.settle(from);
    }

    /// Carries out what a node's sessions want, until they want nothing.
    fn settle(&mut self, node: usize) {
        while let Some(action) = self.nodes[node].lossless.poll_action() {
            match action {
                Action::Dial { session, target } => self.dial(node, session, target),
                Action::Answer(conn, answer) => {
                    let now = self.at();
                    let Some(end) = self.nodes[node].conns.get_mut(&conn) else {
                        continue;
                    };
                    match end.conn.answer(now, answer) {
                        Ok(()) => self.receive(node, conn, &[]),
                        Err(_) => self.hang_up(node, conn),
                    }
                }
                Action::Transmit(conn, raw) => {
                    if let Some(end) = self.nodes[node].conns.get_mut(&conn) {
                        end.conn.send(raw);
                    }
                }
                Action::Close(conn) => self.hang_up(node, conn),
                Action::Opened(_) => {}
                Action::Reset(session) => self.reset(node, session),
            }
        }
        self.flush(node);
    }

    fn reset(&mut self, node: usize, session: SessionId) {
        let node = &mut self.nodes[node];
        node.resets += 1;
        let addr = node.lossless.peer(session).and_then(|p| p.addrs.msgr2()).unwrap();
        if let Some(mark) = node.next.get_mut(&addr) {
            *mark = Mark { stream: mark.stream + 1, n: 0, ..*mark };
        }
    }

    fn dial(&mut self, from: usize, session: SessionId, target: Target) {
        let (here, there) = (self.last_conn + 1, self.last_conn + 2);
        self.last_conn = there;
        self.nodes[from].lossless.dialed(session, here);
        let at = |n: &Node| n.addr.addr == target.addr.addr;
        let (Some(to), false) = (self.nodes.iter().position(at), self.rng.one_in(20)) else {
            return self.nodes[from].lossless.closed(self.now, here);
        };
        let now = self.at();
        let auth = Box::new(ends::TestConnect);
        let conn = Connection::connect(self.config(from), target, auth, now);
        let auth = Box::new(Named(ends::TestAccept(ConMode::Crc), from));
        let seen = self.nodes[from].addr.addr.unwrap();
        let accepting = Connection::accept(self.config(to), seen, auth, now);
        let end = |conn, other| Conn {
            conn,
            input: BytesMut::new(),
            pipe: VecDeque::new(),
            ends: false,
            other,
        };
        self.nodes[from].conns.insert(here, end(conn, (to, there)));
        self.nodes[to].conns.insert(there, end(accepting, (from, here)));
        self.flush(to);
    }

    /// Moves what connections want to send onto the wire.
    fn flush(&mut self, node: usize) {
        let mut moved = Vec::new();
        let mut failed = Vec::new();
        for (&id, end) in &mut self.nodes[node].conns {
            let mut out: Vec<Bytes> = Vec::new();
            match end.conn.poll_transmit(&mut out) {
                Ok(()) => moved.push((end.other, out)),
                Err(_) => failed.push(id),
            }
        }
        for ((to, conn), out) in moved {
            if let Some(end) = self.nodes[to].conns.get_mut(&conn).filter(|end| !end.ends) {
                end.pipe.extend(out.iter().flatten());
            }
        }
        failed.into_iter().for_each(|id| self.hang_up(node, id));
    }

    /// A node closes its end of a socket.
    fn hang_up(&mut self, node: usize, conn: ConnId) {
        let Some(end) = self.nodes[node].conns.remove(&conn) else {
            return;
        };
        let (other, id) = end.other;
        if let Some(end) = self.nodes[other].conns.get_mut(&id) {
            end.ends = true;
        }
        self.nodes[node].lossless.closed(self.now, conn);
    }

    fn receive(&mut self, node: usize, conn: ConnId, bytes: &[u8]) {
        let now = self.at();
        let Some(end) = self.nodes[node].conns.get_mut(&conn) else {
            return;
        };
        end.input.extend_from_slice(bytes);
        let result = end.conn.handle_input(now, &mut end.input);
        loop {
            let Some(end) = self.nodes[node].conns.get_mut(&conn) else {
                return;
            };
            match end.conn.poll_event() {
                Some(Event::Ready(peer)) => assert!(!peer.lossy),
                Some(Event::Session(asked)) => {
                    self.nodes[node].lossless.asked(self.now, conn, asked);
                }
                Some(Event::Message(message)) => {
                    end.conn.release(1, message.cost);
                    self.take(node, conn, &message);
                }
                Some(Event::KeepaliveAck) => {}
                None => break,
            }
        }
        if result.is_err() {
            self.hang_up(node, conn);
        }
    }

    fn take(&mut self, node: usize, conn: ConnId, message: &InMessage) {
        let node_ = &mut self.nodes[node];
        let Some(session) = node_.lossless.received(conn, &message.raw.header) else {
            return;
        };
        let word = |i: usize| {
            u64::from_le_bytes(message.raw.payload.front[i * 8..][..8].try_into().unwrap())
        };
        let from = word(0) as usize;
        let entity = node_.lossless.peer(session).unwrap().entity;
        assert_eq!(entity, EntityName::osd(from as i64));
        let mark = Mark { life: word(1), stream: word(2), n: word(3) };
        let last = node_.got.insert(from, mark);
        let follows = match last {
            Some(last) if (last.life, last.stream) == (mark.life, mark.stream) => {
                mark.n == last.n + 1
            }
            Some(last) => (last.life, last.stream) < (mark.life, mark.stream) && mark.n == 0,
            None => mark.n == 0,
        };
        assert!(follows, "osd.{node} got {mark:?} of osd.{from} after {last:?}");
        self.delivered += 1;
    }

    /// Some bytes arrive somewhere, or the end of a stream does.
    fn deliver(&mut self) -> bool {
        let waiting: Vec<(usize, ConnId)> = (0..self.nodes.len())
            .flat_map(|n| self.nodes[n].conns.iter().map(move |(id, end)| (n, *id, end)))
            .filter(|(.., end)| end.ends || !end.pipe.is_empty())
            .map(|(n, id, _)| (n, id))
            .collect();
        if waiting.is_empty() {
            return false;
        }
        let (node, conn) = waiting[self.rng.below(waiting.len())];
        let Some(end) = self.nodes[node].conns.get_mut(&conn) else {
            return true;
        };
        if end.pipe.is_empty() {
            self.hang_up(node, conn);
        } else {
            let most = if self.rng.one_in(3) { 40 } else { 20_000 };
            let n = (1 + self.rng.below(most)).min(end.pipe.len());
            let bytes: Vec<u8> = end.pipe.drain(..n).collect();
            self.receive(node, conn, &bytes);
        }
        self.settle(node);
        true
    }

    /// A socket breaks; of what is on its way, each end still gets a part.
    fn cut(&mut self) {
        let all: Vec<(usize, ConnId)> = (0..self.nodes.len())
            .flat_map(|n| self.nodes[n].conns.keys().map(move |id| (n, *id)))
            .collect();
        if all.is_empty() {
            return;
        }
        let (node, conn) = all[self.rng.below(all.len())];
        let other = self.nodes[node].conns[&conn].other;
        for (node, conn) in [(node, conn), other] {
            let Some(end) = self.nodes[node].conns.get_mut(&conn) else {
                continue;
            };
            let keep = self.rng.below(end.pipe.len() + 1);
            end.pipe.truncate(keep);
            end.ends = true;
        }
        self.cuts += 1;
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for node in 0..self.nodes.len() {
            self.nodes[node].lossless.handle_timeout(self.now);
            self.settle(node);
        }
    }

    /// The process of a node ends and begins anew; the others learn it from a map.
    fn restart(&mut self, node: usize) {
        let ids: Vec<ConnId> = self.nodes[node].conns.keys().copied().collect();
        ids.into_iter().for_each(|id| self.hang_up(node, id));
        let old = &self.nodes[node];
        let (mut addr, life) = (old.addr, old.life + 1);
        if !self.same_addr {
            addr.nonce += 1000;
        }
        let old = std::mem::replace(&mut self.nodes[node], fresh(addr, life));
        if self.same_addr {
            return;
        }
        for other in 0..self.nodes.len() {
            let lossless = &mut self.nodes[other].lossless;
            let gone = lossless.session(peer_of(node, old.addr)).unwrap();
            lossless.close(gone);
            self.settle(other);
        }
    }

    fn chaos(&mut self, steps: usize, faults: bool) {
        for _ in 0..steps {
            let count = self.nodes.len();
            match self.rng.below(40) {
                0..10 => {
                    let (from, to) = (self.rng.below(count), self.rng.below(count));
                    if from != to {
                        self.send(from, to);
                    }
                }
                10 if faults => self.cut(),
                11 if faults && self.rng.one_in(40) => {
                    let node = self.rng.below(count);
                    self.restart(node);
                }
                12..15 => {
                    let time = Duration::from_millis(self.rng.below(300) as u64);
                    self.pass(time);
                }
                15 => {
                    let node = self.rng.below(count);
                    self.nodes[node].lossless.acknowledge();
                    self.settle(node);
                }
                _ => drop(self.deliver()),
            }
        }
    }

    /// No more faults: all that was sent and not reset arrives.
    fn calm(&mut self) {
        for _ in 0..200 {
            while self.deliver() {}
            self.pass(Duration::from_millis(500));
        }
        for node in &mut self.nodes {
            node.lossless.acknowledge();
        }
        (0..self.nodes.len()).for_each(|node| self.settle(node));
        while self.deliver() {}
        for (from, sender) in self.nodes.iter().enumerate() {
            for (to, receiver) in self.nodes.iter().enumerate().filter(|(to, _)| *to != from) {
                let Some(next) = sender.next.get(&receiver.addr).filter(|mark| mark.n > 0) else {
                    continue;
                };
                let last = Mark { n: next.n - 1, ..*next };
                assert_eq!(receiver.got.get(&from), Some(&last), "osd.{from} to osd.{to}");
            }
            for (id, peer) in sender.lossless.sessions() {
                assert_eq!(sender.lossless.queued_bytes(id), 0, "osd.{from} to {}", peer.entity);
            }
        }
    }
}

fn run(seed: u64, count: usize, same_addr: bool) -> World {
    let mut world = World::new(seed, count, same_addr);
    world.chaos(3000, true);
    world.calm();
    world
}

fn runs(seeds: std::ops::Range<u64>, count: usize, same_addr: bool) {
    let (mut delivered, mut cuts, mut resets) = (0, 0, 0);
    for seed in seeds {
        let ran = std::panic::catch_unwind(|| run(seed, count, same_addr));
        let Ok(world) = ran else {
            panic!("seed {seed} of {count} nodes, same_addr {same_addr}");
        };
        delivered += world.delivered;
        cuts += world.cuts;
        resets += world.nodes.iter().map(|n| n.resets).sum::<usize>();
    }
    assert!(delivered > 1000 && cuts > 100, "{delivered} messages, {cuts} cuts");
    assert_eq!(resets > 0, same_addr, "{resets} resets");
}

#[test]
fn two_processes() {
    runs(0..60, 2, false);
}

#[test]
fn three_processes() {
    runs(0..40, 3, false);
}

#[test]
fn processes_that_come_back_at_their_address() {
    runs(0..60, 2, true);
}

#[test]
fn both_connect_at_once_and_one_connection_stays() {
    for seed in 0..40 {
        let mut world = World::new(seed, 2, false);
        world.send(0, 1);
        world.send(1, 0);
        world.calm();
        assert_eq!(world.delivered, 2, "seed {seed}");
        for node in &world.nodes {
            assert_eq!(node.conns.len(), 1, "seed {seed}");
        }
    }
}

#[test]
fn the_queue_is_bounded() {
    let addr: EntityAddr = "v2:10.0.0.1:6800/1".parse().unwrap();
    let mut options = Options::new(addr.into(), 1);
    options.queue_bytes_max = 1000;
    let mut lossless = Lossless::new(options);
    let far = "v2:10.0.0.2:6800/1".parse().unwrap();
    let id = lossless.session(peer_of(1, far)).unwrap();
    let message = |len| ends::message(70, len, 0, &[]);
    // One message is always taken.
    assert_eq!(lossless.send(id, message(2000)), Ok(()));
    assert_eq!(lossless.send(id, message(1)), Err(SendError::Full));
    assert_eq!(lossless.queued_bytes(id), 2000);
    lossless.close(id);
    assert_eq!(lossless.send(id, message(1)), Err(SendError::Unknown));
}
