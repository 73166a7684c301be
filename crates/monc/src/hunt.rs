//! Which monitor to try next, and when.
//!
//! Invariant: every known monitor is tried once per round, in an order drawn anew for each round;
//! between failed rounds the pause doubles from `backoff_min` to `backoff_max`.

use std::net::SocketAddr;
use std::time::Duration;

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::Rng;
use spirula_maps::MonMap;

use crate::config::Timing;

pub(crate) struct Hunt {
    known: Vec<SocketAddr>,
    /// What is left of this round; taken from the end.
    round: Vec<SocketAddr>,
    backoff: Duration,
    /// No attempt before this (monotonic).
    not_before: Duration,
}

impl Hunt {
    pub(crate) fn new(mons: Vec<SocketAddr>) -> Self {
        Self { known: mons, round: Vec::new(), backoff: Duration::ZERO, not_before: Duration::ZERO }
    }

    pub(crate) fn learn(&mut self, monmap: &MonMap) {
        let addrs: Vec<_> = monmap
            .by_rank()
            .filter_map(|m| m.public_addrs.msgr2())
            .filter_map(|a| a.addr)
            .collect();
        if !addrs.is_empty() {
            self.round.retain(|a| addrs.contains(a));
            self.known = addrs;
        }
    }

    /// The next monitor, if its time has come.
    pub(crate) fn next(&mut self, now: Duration, rng: &mut ChaCha20Rng) -> Option<SocketAddr> {
        if now < self.not_before || self.known.is_empty() {
            return None;
        }
        if self.round.is_empty() {
            self.round.clone_from(&self.known);
            shuffle(&mut self.round, rng);
        }
        self.round.pop()
    }

    pub(crate) fn next_at(&self) -> Option<Duration> {
        (!self.known.is_empty()).then_some(self.not_before)
    }

    /// An attempt failed; after the last of a round comes a pause.
    pub(crate) fn failed(&mut self, now: Duration, timing: &Timing) {
        if self.round.is_empty() {
            self.backoff = (self.backoff * 2).clamp(timing.backoff_min, timing.backoff_max);
            self.not_before = now + self.backoff;
        }
    }

    /// A session that worked ended; all monitors are worth another try, this one too.
    pub(crate) fn lost(&mut self, now: Duration) {
        self.round.clear();
        self.not_before = now;
    }

    pub(crate) fn succeeded(&mut self) {
        self.backoff = Duration::ZERO;
        self.round.clear();
    }
}

fn shuffle(addrs: &mut [SocketAddr], rng: &mut ChaCha20Rng) {
    for i in (1..addrs.len()).rev() {
        let j = (rng.next_u64() % (i as u64 + 1)) as usize;
        addrs.swap(i, j);
    }
}
