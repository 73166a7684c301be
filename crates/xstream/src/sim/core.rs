//! What network and disks of a simulated world share: time, chance, events to come, hosts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::disk::Ticket;
use super::rng::Rng;
use crate::driver::{Key, Output, Raw};

pub(super) type HostId = usize;

/// Something that will happen.
pub(super) enum Event {
    /// The first packet of a wire arrives.
    Wire { from: Raw },
    /// A connection request arrives; it was first sent at `since`.
    Syn { from: Raw, since: Duration },
    /// The answer to a connection request arrives.
    Connected { sock: Raw, errno: Option<i32> },
    /// A reset arrives.
    Reset { sock: Raw },
    /// A disk finishes an operation of a host's incarnation.
    Disk { host: HostId, incarnation: u64, key: Key, done: DiskDone },
}

/// What a disk finishes.
pub(super) enum DiskDone {
    Read { disk: usize, offset: u64, buf: crate::buf::AlignedBuf, len: usize },
    Write { disk: usize, ticket: Ticket },
    Datasync { disk: usize, tickets: Vec<Ticket> },
    Failed(Output),
}

/// The shared part.
pub(super) struct Core {
    pub(super) seed: u64,
    pub(super) rng: Rng,
    pub(super) now: Duration,
    pub(super) hosts: Vec<Host>,
    events: BTreeMap<(Duration, u64), Event>,
    scheduled: u64,
    trace: Trace,
}

/// A simulated machine.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) ip: IpAddr,
    /// Answers on the network; off between a power loss and the next start.
    pub(super) powered: bool,
    /// Changes whenever the host's process ends; outcomes for an earlier one are dropped.
    pub(super) incarnation: u64,
    /// How far its wall clock is ahead.
    pub(super) clock_ahead: Duration,
    /// Outcomes for the runtime to collect.
    pub(super) done: Vec<(Key, Output)>,
}

/// A running hash of everything that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trace {
    pub(super) count: u64,
    pub(super) hash: u64,
}

impl Core {
    pub(super) fn new(seed: u64) -> Core {
        Core {
            seed,
            rng: Rng::new(seed),
            now: Duration::ZERO,
            hosts: Vec::new(),
            events: BTreeMap::new(),
            scheduled: 0,
            trace: Trace { count: 0, hash: seed },
        }
    }

    pub(super) fn schedule(&mut self, at: Duration, event: Event) {
        self.scheduled += 1;
        self.events.insert((at.max(self.now), self.scheduled), event);
    }

    pub(super) fn next_event_at(&self) -> Option<Duration> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes one event that is due.
    pub(super) fn pop_due(&mut self) -> Option<Event> {
        let entry = self.events.first_entry()?;
        let (at, number) = *entry.key();
        if at > self.now {
            return None;
        }
        let event = entry.remove();
        self.note(number);
        Some(event)
    }

    /// Records that something happened.
    pub(super) fn note(&mut self, what: u64) {
        let value = what ^ (self.now.as_nanos() as u64).rotate_left(32);
        let mixed = (self.trace.hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.trace.hash = mixed ^ (mixed >> 29);
        self.trace.count += 1;
    }

    pub(super) fn trace(&self) -> Trace {
        self.trace
    }

    /// Hands an outcome to a host.
    pub(super) fn complete(&mut self, host: HostId, key: Key, output: Output) {
        self.note(key as u64 ^ (host as u64) << 48);
        self.hosts[host].done.push((key, output));
    }

    pub(super) fn host_by_ip(&self, ip: IpAddr) -> Option<HostId> {
        self.hosts.iter().position(|host| host.ip == ip)
    }
}
