//! Slots of an OSD for recovery and backfill (`osd_max_backfills` of each [`Slot`](crate::Slot)): few at a
//! time, urgent ones first, and an urgent one takes the slot of one that can wait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Priorities of Ceph: what is at its limit is never preempted.
pub mod priority {
    pub const BACKFILL: u32 = 100;
    pub const BACKFILL_DEGRADED: u32 = 140;
    pub const RECOVERY: u32 = 180;
    /// Too few copies act for writes.
    pub const INACTIVE: u32 = 220;
    pub const MAX: u32 = 253;
    pub const BACKFILL_FORCED: u32 = 254;
    pub const RECOVERY_FORCED: u32 = 255;

    /// A base with what adds to its urgency and the pool's own wish (`recovery_priority`): what is less
    /// urgent by its base stays so.
    pub fn clamped(base: u32, more: u32, wish: i32) -> u32 {
        let most = match base {
            BACKFILL => BACKFILL_DEGRADED - 1,
            BACKFILL_DEGRADED => RECOVERY - 1,
            RECOVERY => INACTIVE - 1,
            _ => MAX,
        };
        base.saturating_add(more).saturating_add_signed(wish).min(most)
    }
}

/// What became of others by a request.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Granted<K> {
    pub granted: Vec<K>,
    /// Had a slot, and has to ask for another one.
    pub revoked: Vec<K>,
}

/// Who has a slot and who waits.
#[derive(Clone, Debug, Default)]
pub struct Reserver<K> {
    slots: usize,
    held: BTreeMap<K, u32>,
    waiting: BTreeSet<(Reverse<u32>, u64, K)>,
    arrivals: u64,
}

impl<K: Ord + Clone> Reserver<K> {
    pub fn new(slots: usize) -> Self {
        Self { slots, held: BTreeMap::new(), waiting: BTreeSet::new(), arrivals: 0 }
    }

    pub fn has(&self, key: &K) -> bool {
        self.held.contains_key(key)
    }

    /// Asked again: only the priority changes.
    pub fn request(&mut self, key: K, priority: u32) -> Granted<K> {
        if let Some(held) = self.held.get_mut(&key) {
            *held = priority;
            return self.give();
        }
        let place = self.waiting.iter().find(|(_, _, k)| *k == key).cloned();
        let arrival = place.as_ref().map(|(_, arrival, _)| *arrival).unwrap_or_else(|| {
            self.arrivals += 1;
            self.arrivals
        });
        place.iter().for_each(|place| {
            self.waiting.remove(place);
        });
        self.waiting.insert((Reverse(priority), arrival, key));
        self.give()
    }

    /// The slot, or the wait, ends.
    pub fn release(&mut self, key: &K) -> Granted<K> {
        self.held.remove(key);
        self.waiting.retain(|(_, _, k)| k != key);
        self.give()
    }

    pub fn resize(&mut self, slots: usize) -> Granted<K> {
        self.slots = slots;
        self.give()
    }

    fn give(&mut self) -> Granted<K> {
        let mut out = Granted { granted: Vec::new(), revoked: Vec::new() };
        while let Some((Reverse(wanted), _, _)) = self.waiting.first() {
            if self.held.len() >= self.slots {
                let least = self.held.iter().min_by_key(|(_, p)| **p).map(|(k, p)| (k.clone(), *p));
                let Some((key, _)) = least.filter(|(_, p)| p < wanted) else {
                    break;
                };
                self.held.remove(&key);
                out.revoked.push(key);
            }
            if let Some((Reverse(priority), _, key)) = self.waiting.pop_first() {
                self.held.insert(key.clone(), priority);
                out.granted.push(key);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_go_by_urgency_then_by_arrival() {
        let mut r = Reserver::new(1);
        assert_eq!(r.request("a", 10).granted, ["a"]);
        assert_eq!(r.request("b", 10), Granted::default());
        assert_eq!(r.request("c", 10), Granted::default());
        assert_eq!(r.request("b", 10), Granted::default());
        assert_eq!(r.request("d", 20), Granted { granted: vec!["d"], revoked: vec!["a"] });
        assert_eq!(r.release(&"d").granted, ["b"]);
        assert_eq!(r.resize(2).granted, ["c"]);
        assert_eq!(r.release(&"x"), Granted::default());
        assert!(r.has(&"b") && r.has(&"c") && !r.has(&"a"));
        assert_eq!(r.request("e", 5), Granted::default());
        assert_eq!(r.request("f", 5), Granted::default());
        assert_eq!(r.request("b", 4), Granted { granted: vec!["e"], revoked: vec!["b"] });
        assert_eq!(r.request("f", 11), Granted { granted: vec!["f"], revoked: vec!["e"] });
    }

    #[test]
    fn what_is_less_urgent_stays_so() {
        use priority::{BACKFILL, BACKFILL_DEGRADED, INACTIVE, RECOVERY, clamped};
        for (base, more, wish, want) in [
            (BACKFILL, 0, 0, 100),
            (BACKFILL, 0, 10, 110),
            (BACKFILL, 0, 90, 139),
            (BACKFILL_DEGRADED, 2, -5, 137),
            (RECOVERY, 0, 10, 190),
            (INACTIVE, 2, 50, 253),
            (BACKFILL, 0, -200, 0),
        ] {
            assert_eq!(clamped(base, more, wish), want);
        }
    }
}
