//! The quorum through crashes, lost writes, partitions, lost, repeated and late messages, pauses,
//! snapshots and lost disks, all from one seed: no acknowledged proposal is lost, every monitor
//! applies the same, whoever holds a lease knows everything acknowledged, and once the faults end
//! the monitors agree within seconds.
//!
//! `QUORUM_SEEDS=n` plays n seeds, `QUORUM_SEED=n` one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use spirula_mon::quorum::{Output, Quorum, QuorumMessage, Refused, Role};
use spirula_mon::storage::{Snapshot, Write};
use spirula_mon::{MemoryStorage, Storage as _};
use spirula_wire::{Decode as _, Encode as _, Features};

const F: Features = Features::PACIFIC;
const MS: Duration = Duration::from_millis(1);
const COMPACT_EVERY: u64 = 20;

/// A monitor: its store outlives its process.
struct Node {
    storage: MemoryStorage,
    quorum: Option<Quorum>,
    /// Asleep until then.
    paused: Duration,
    writing: Option<(Duration, u64, Vec<Write>)>,
    /// What was applied: the values, and the last entry.
    values: Vec<u64>,
    applied: u64,
    compacted: u64,
    /// Proposed here and not known as committed: entry and term -> value.
    open: BTreeMap<(u64, u64), u64>,
}

struct World {
    rng: ChaCha20Rng,
    now: Duration,
    nodes: BTreeMap<u64, Node>,
    /// By arrival.
    net: Vec<(Duration, u64, u64, Vec<u8>)>,
    cut: BTreeSet<(u64, u64)>,
    faults: bool,
    next_value: u64,
    next_node: u64,
    acked: BTreeSet<u64>,
    /// What the quorum committed, by entry.
    history: BTreeMap<u64, Bytes>,
    /// Members that lost their disk -> who comes in their place.
    replaced: Vec<(u64, u64)>,
}

fn state_of(values: &[u64]) -> Bytes {
    values.to_vec().to_bytes(F).into()
}

impl World {
    fn new(seed: u64, size: u64) -> Self {
        let mut world = Self {
            rng: ChaCha20Rng::seed_from_u64(seed),
            now: Duration::ZERO,
            nodes: BTreeMap::new(),
            net: Vec::new(),
            cut: BTreeSet::new(),
            faults: true,
            next_value: 1,
            next_node: size + 1,
            acked: BTreeSet::new(),
            history: BTreeMap::new(),
            replaced: Vec::new(),
        };
        let members: Vec<u64> = (1..=size).collect();
        for id in &members {
            let mut storage = MemoryStorage::default();
            let first =
                Snapshot { index: 1, term: 1, members: members.clone(), state: state_of(&[]) };
            let vote = Write::Vote { term: 1, vote: None };
            storage.write(&[Write::Node(*id), vote, Write::Snapshot(first)]).unwrap();
            world.add(*id, storage);
            world.start(*id);
        }
        world
    }

    fn add(&mut self, id: u64, storage: MemoryStorage) {
        let node = Node {
            storage,
            quorum: None,
            paused: Duration::ZERO,
            writing: None,
            values: Vec::new(),
            applied: 0,
            compacted: 0,
            open: BTreeMap::new(),
        };
        self.nodes.insert(id, node);
    }

    fn below(&mut self, n: u64) -> u64 {
        self.rng.next_u64() % n
    }

    fn start(&mut self, id: u64) {
        let (seed, now) = (self.rng.next_u64(), self.now);
        let node = self.nodes.get_mut(&id).unwrap();
        let stored = node.storage.load().unwrap();
        let snapshot = stored.snapshot.clone().unwrap_or_default();
        node.values = match snapshot.index {
            0 => Vec::new(),
            _ => Vec::from_bytes(&snapshot.state).unwrap(),
        };
        (node.applied, node.compacted) = (snapshot.index, snapshot.index);
        node.open.clear();
        node.quorum = Some(Quorum::new(&stored, seed, now));
        self.drain(id);
    }

    /// The process ends; a write under way is done or not.
    fn crash(&mut self, id: u64) {
        let done = self.below(2) == 0;
        let node = self.nodes.get_mut(&id).unwrap();
        node.quorum = None;
        if let Some((_, _, writes)) = node.writing.take().filter(|_| done) {
            node.storage.write(&writes).unwrap();
        }
    }

    fn drain(&mut self, id: u64) {
        loop {
            let node = self.nodes.get_mut(&id).unwrap();
            let Some(output) = node.quorum.as_mut().and_then(Quorum::poll_output) else { break };
            match output {
                Output::Write(number, writes) => {
                    let due = self.now + MS * self.below(8) as u32;
                    let node = self.nodes.get_mut(&id).unwrap();
                    assert!(node.writing.is_none(), "one write at a time");
                    node.writing = Some((due, number, writes));
                }
                Output::Send(to, message) => self.send(id, to, &message),
                Output::Committed { index, term, data } => self.committed(id, index, term, data),
                Output::Restore { index, state } => {
                    node.values = Vec::from_bytes(&state).unwrap();
                    (node.applied, node.compacted) = (index, index);
                }
                Output::Role(_) => node.open.clear(),
                Output::Members(_) => {}
            }
        }
        self.check_lease(id);
    }

    fn send(&mut self, from: u64, to: u64, message: &QuorumMessage) {
        let copies = match self.below(20) {
            0 if self.faults => 0,
            1 if self.faults => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let late = if self.faults && self.below(50) == 0 { 700 } else { 0 };
            let due = self.now + MS * (1 + self.below(5) + late) as u32;
            self.net.push((due, from, to, message.to_bytes(F)));
        }
    }

    fn committed(&mut self, id: u64, index: u64, term: u64, data: Bytes) {
        let before = self.history.entry(index).or_insert_with(|| data.clone());
        assert_eq!(*before, data, "entry {index} of two kinds");
        let (now, node) = (self.now, self.nodes.get_mut(&id).unwrap());
        if index <= node.applied {
            return;
        }
        node.applied = index;
        node.values.push(u64::from_bytes(&data).unwrap());
        if let Some(value) = node.open.remove(&(index, term)) {
            self.acked.insert(value);
        }
        if index - node.compacted >= COMPACT_EVERY {
            node.compacted = index;
            let state = state_of(&node.values);
            node.quorum.as_mut().unwrap().compact(now, index, state);
        }
    }

    fn check_lease(&self, id: u64) {
        let leased = |n: &Node| n.quorum.as_ref().is_some_and(|q| q.has_lease(self.now));
        if leased(&self.nodes[&id]) {
            let known: BTreeSet<u64> = self.nodes[&id].values.iter().copied().collect();
            let missing: Vec<_> = self.acked.difference(&known).collect();
            assert!(missing.is_empty(), "{id} reads without {missing:?}");
        }
        let holders: Vec<_> =
            self.nodes.iter().filter(|(_, n)| leased(n)).map(|(i, _)| i).collect();
        assert!(holders.len() <= 1, "leases of {holders:?}");
    }

    /// One millisecond for everyone.
    fn step(&mut self) {
        self.now += MS;
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let now = self.now;
            let node = self.nodes.get_mut(&id).unwrap();
            if node.quorum.is_none() || node.paused > now {
                continue;
            }
            if let Some((_, number, writes)) = node.writing.take_if(|(due, ..)| *due <= now) {
                node.storage.write(&writes).unwrap();
                node.quorum.as_mut().unwrap().written(number);
            }
            let quorum = node.quorum.as_mut().unwrap();
            if now >= quorum.poll_timeout() {
                quorum.tick(now);
            }
            self.drain(id);
        }
        let now = self.now;
        let (due, later) = std::mem::take(&mut self.net).into_iter().partition(|m| m.0 <= now);
        self.net = later;
        let due: Vec<(Duration, u64, u64, Vec<u8>)> = due;
        for (at, from, to, bytes) in due {
            let Some(node) = self.nodes.get_mut(&to).filter(|_| !self.cut.contains(&(from, to)))
            else {
                continue;
            };
            if node.paused > now {
                self.net.push((at, from, to, bytes));
                continue;
            }
            let Some(quorum) = &mut node.quorum else { continue };
            quorum.message(now, from, QuorumMessage::from_bytes(&bytes).unwrap());
            self.drain(to);
        }
    }

    fn propose(&mut self) {
        let value = self.next_value;
        let now = self.now;
        for (id, node) in &mut self.nodes {
            let Some(quorum) = node.quorum.as_mut().filter(|_| node.paused <= now) else {
                continue;
            };
            let data: Bytes = value.to_bytes(F).into();
            if let Ok(at) = quorum.propose(now, data) {
                self.next_value += 1;
                node.open.insert(at, value);
                let id = *id;
                return self.drain(id);
            }
        }
    }

    /// Membership follows the disks that were lost, one change at a time.
    fn mend(&mut self) {
        let Some((old, new)) = self.replaced.first().copied() else { return };
        let now = self.now;
        for (id, node) in &mut self.nodes {
            let Some(quorum) = node.quorum.as_mut().filter(|q| q.role() == Role::Leads) else {
                continue;
            };
            let members = quorum.members().to_vec();
            let done = match (members.contains(&old), members.contains(&new)) {
                (true, _) => quorum.remove(now, old).map(|()| false),
                (_, false) => quorum.add(now, new).map(|()| false),
                _ => Ok(true),
            };
            assert!(!matches!(done, Err(Refused::NotLeader)), "{id} leads");
            if done == Ok(true) {
                self.replaced.remove(0);
            }
            let id = *id;
            return self.drain(id);
        }
    }

    fn fault(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        let id = ids[self.below(ids.len() as u64) as usize];
        match self.below(7) {
            0 | 1 => self.crash(id),
            2 => {
                let other = ids[self.below(ids.len() as u64) as usize];
                self.cut.insert((id, other));
            }
            3 => {
                let side = self.rng.next_u64();
                for a in &ids {
                    for b in &ids {
                        if (side >> a) & 1 != (side >> b) & 1 {
                            self.cut.insert((*a, *b));
                        }
                    }
                }
            }
            4 => self.cut.clear(),
            5 => {
                self.nodes.get_mut(&id).unwrap().paused =
                    self.now + MS * (100 + self.below(2500) as u32);
            }
            _ if self.replaced.is_empty() && ids.len() >= 3 && self.below(3) == 0 => self.wipe(id),
            _ => self.restart_all(),
        }
    }

    /// A disk is lost; its monitor comes back empty, under a number of its own. Only one at a time:
    /// the others have what it had.
    fn wipe(&mut self, old: u64) {
        self.faults = false;
        self.cut.clear();
        self.restart_all();
        self.run(5000);
        self.faults = true;
        self.nodes.remove(&old);
        let new = self.next_node;
        self.next_node += 1;
        let mut storage = MemoryStorage::default();
        storage.write(&[Write::Node(new)]).unwrap();
        self.add(new, storage);
        self.start(new);
        self.replaced.push((old, new));
    }

    fn restart_all(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            if self.nodes[&id].quorum.is_none() {
                self.start(id);
            }
        }
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.step();
            if self.below(40) == 0 {
                self.propose();
            }
            if self.below(100) == 0 {
                self.mend();
            }
            if self.faults && self.below(300) == 0 {
                self.fault();
            }
        }
    }

    fn shape(&self) -> String {
        let one = |(id, n): (&u64, &Node)| {
            let Some(q) = &n.quorum else { return format!("{id}: down") };
            let (role, term, members) = (q.role(), q.term(), q.members());
            format!("{id}: {role:?} in {term} of {members:?}, applied {}", n.applied)
        };
        self.nodes.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// After the faults: everybody is there, agrees, and has what was acknowledged.
    fn settle(&mut self) {
        self.faults = false;
        self.cut.clear();
        self.restart_all();
        let acked = self.acked.len();
        self.run(5000);
        let shape = self.shape();
        assert!(self.acked.len() > acked + 30, "no progress after {acked}: {shape}");
        assert!(self.replaced.is_empty(), "a lost disk was not replaced");
        for _ in 0..1500 {
            self.step();
        }
        let all: Vec<&Node> = self.nodes.values().collect();
        for node in &all {
            assert_eq!(node.values, all[0].values);
            assert_eq!(node.applied, all[0].applied);
        }
        let there: BTreeSet<u64> = all[0].values.iter().copied().collect();
        assert_eq!(there.len(), all[0].values.len(), "a value was applied twice");
        let lost: Vec<_> = self.acked.difference(&there).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    }
}

fn play(seed: u64) {
    let size = [1, 3, 3, 5][(seed % 4) as usize];
    let mut world = World::new(seed, size);
    world.run(6_000);
    world.settle();
}

#[test]
fn agrees_through_anything() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse().ok());
    if let Some(seed) = number("QUORUM_SEED") {
        return play(seed);
    }
    let mut failed = Vec::new();
    for seed in 0..number("QUORUM_SEEDS").unwrap_or(16) {
        if std::panic::catch_unwind(|| play(seed)).is_err() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "seeds {failed:?}");
}

/// A lone monitor needs one write to lead, and one for each proposal.
#[test]
fn a_lone_monitor_leads_at_once() {
    let mut world = World::new(1, 1);
    let node = world.nodes.get_mut(&1).unwrap();
    let (_, number, _) = node.writing.take().expect("the vote and the first entry");
    node.quorum.as_mut().unwrap().written(number);
    world.drain(1);
    assert_eq!(world.nodes[&1].quorum.as_ref().unwrap().role(), Role::Leads);
    world.propose();
    let node = world.nodes.get_mut(&1).unwrap();
    let (_, number, writes) = node.writing.take().expect("the proposal");
    assert_eq!(writes.len(), 1);
    node.quorum.as_mut().unwrap().written(number);
    world.drain(1);
    assert_eq!(world.acked, [1].into());
}

#[test]
fn three_elect_a_leader_fast() {
    let mut world = World::new(2, 3);
    world.faults = false;
    while !world.nodes.values().any(|n| n.quorum.as_ref().unwrap().role() == Role::Leads) {
        world.step();
        assert!(world.now < MS * 300, "no leader");
    }
}

/// A leader that was elected anew while a follower heard nothing must be asked again.
#[test]
fn a_new_term_of_the_same_leader_is_told() {
    let mut world = World::new(3, 3);
    let mut node = world.nodes.remove(&2).unwrap();
    let mut quorum = node.quorum.take().unwrap();
    let mut roles = Vec::new();
    for term in [5, 5, 6] {
        let mut bytes = vec![5];
        for field in [term, 1, 1, 1, 1] {
            u64::encode(&field, &mut bytes, F);
        }
        0u32.encode(&mut bytes, F);
        quorum.message(MS, 1, QuorumMessage::from_bytes(&bytes).unwrap());
        while let Some(output) = quorum.poll_output() {
            match output {
                Output::Write(number, _) => quorum.written(number),
                Output::Role(role) => roles.push(role),
                _ => {}
            }
        }
    }
    assert_eq!(roles, [Role::Follows(1), Role::Follows(1)]);
}
