//! How full the store is by the ratios of the map, and what follows: the monitor is told, and writes
//! that cannot be had are dropped; their clients repeat them when the pool is full no more.
//!
//! Invariants: once the OSD counts as full it does so until the map has shown it, as clients repeat
//! only what they know to have come too early; from the first write that is dropped until then no
//! later one is served, so that their order stays.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use spirula_maps::osd_state::{self, FULLNESS};
use spirula_maps::{OsdMap, flags, pool_flags};
use spirula_wire::msg::Paxos;
use spirula_wire::msg::mon::log_priority;
use spirula_wire::msg::osd::OsdFull;
use spirula_wire::msg::osd_op::{OsdOpMsg, flag};
use spirula_wire::{Features, Message};
use spirula_xstream::sync::Notify;
use spirula_xstream::{now, sleep};

use crate::target::{Target, TargetError};

/// Between two looks at the store.
const LOOK: Duration = Duration::from_secs(1);
/// How long a store that refused a write is not tried again, unless space comes back.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// How much space has come back when it is worth a try: a part of the device, and the most of it.
const REGAINED: (u64, u64) = (64, 64 << 20);

/// From less to more, with Ceph's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    #[default]
    None,
    Nearfull,
    Backfillfull,
    Full,
    /// Nothing is written any more.
    Failsafe,
}

impl Level {
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Self::None,
            "nearfull" => Self::Nearfull,
            "backfillfull" => Self::Backfillfull,
            "full" => Self::Full,
            "failsafe" => Self::Failsafe,
            _ => return None,
        })
    }

    /// As the map says it.
    fn bits(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Nearfull => osd_state::NEARFULL,
            Self::Backfillfull => osd_state::BACKFILLFULL,
            Self::Full | Self::Failsafe => osd_state::FULL,
        }
    }
}

/// The part of space in use from which on each level is reached.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ratios {
    nearfull: f32,
    backfillfull: f32,
    full: f32,
    failsafe: f32,
}

impl Ratios {
    /// None is below the one before it. Without one of the map's there is only the last.
    fn of(map: &OsdMap, failsafe: f32) -> Self {
        let nearfull = map.nearfull_ratio;
        let backfillfull = map.backfillfull_ratio.max(nearfull);
        let full = map.full_ratio.max(backfillfull);
        let failsafe = if failsafe > 1.0 { failsafe / 100.0 } else { failsafe }.max(full);
        match nearfull > 0.0 {
            true => Self { nearfull, backfillfull, full, failsafe },
            false => Self { nearfull: failsafe, backfillfull: failsafe, full: failsafe, failsafe },
        }
    }

    fn level(self, used: f32) -> Level {
        match used {
            used if used > self.failsafe => Level::Failsafe,
            used if used > self.full => Level::Full,
            used if used > self.backfillfull => Level::Backfillfull,
            used if used > self.nearfull => Level::Nearfull,
            _ => Level::None,
        }
    }
}

/// The store had no room for a write.
#[derive(Clone, Copy, Debug)]
struct Refused {
    at: Duration,
    /// Bytes that were free all the same.
    available: u64,
}

/// How full the target is.
#[derive(Default)]
pub struct Fullness {
    level: Cell<Level>,
    /// Set by hand: a level, and for how many writes it counts; below 0 for all.
    injected: Cell<(Level, i64)>,
    refused: Cell<Option<Refused>>,
    /// Pool -> epoch in which it has become full.
    marked: RefCell<BTreeMap<i64, u32>>,
    /// Somebody makes room in the store, and has done so.
    making_room: Cell<bool>,
    made_room: Notify,
}

impl Fullness {
    /// Looks at the store and the map, and tells the monitor if the map does not say what it sees.
    pub fn look(&self, target: &Target) {
        let (map, space) = (target.map(), target.store().statfs());
        let used = space.total.saturating_sub(space.available);
        let used = if space.total == 0 { 0.0 } else { used as f32 / space.total as f32 };
        let state = map.osd(target.config().osd_id).map_or(0, |osd| osd.state);
        let shown = state & osd_state::FULL != 0;
        let regained = (space.total / REGAINED.0).min(REGAINED.1);
        self.refused.set(self.refused.get().filter(|refused| {
            let tries = space.available >= refused.available + regained
                || now().saturating_sub(refused.at) > REFUSED_FOR;
            !(shown && tries)
        }));
        let failsafe = target.with_options(|o| o.float("osd_failsafe_full_ratio")) as f32;
        let mut level = match self.injected.get() {
            (level, count) if level > Level::None && count != 0 => level,
            _ if map.epoch == 0 => Level::None,
            _ => Ratios::of(&map, failsafe).level(used),
        };
        if self.refused.get().is_some() {
            level = Level::Failsafe;
        }
        let old = self.level.get();
        if old >= Level::Full && !shown {
            level = level.max(old);
        }
        if level != old {
            self.level.set(level);
            note_change(target, old, level, used);
        }
        if target.is_up() && state & FULLNESS != level.bits() {
            let epoch = map.epoch;
            let full =
                OsdFull { paxos: Paxos::at(epoch.into()), map_epoch: epoch, state: level.bits() };
            target.mon().send(target, full.to_raw(0, Features::PACIFIC));
        }
    }

    /// Why a request that is ordered as a write is dropped, if so.
    pub fn drops(&self, msg: &OsdOpMsg) -> Option<&'static str> {
        if may_try(msg) {
            return None;
        }
        if self.marked_full(msg.spgid.pgid.pool) > msg.map_epoch {
            return Some("it was sent before its pool was full");
        }
        self.stops_writes().then_some("the device is too full")
    }

    /// Whether a request that waited is dropped, as one before it may have been.
    pub fn drops_late(&self, msg: &OsdOpMsg) -> bool {
        self.is_failsafe() && !may_try(msg)
    }

    /// Whether the device is so full that only those write who insist.
    pub fn is_failsafe(&self) -> bool {
        self.level.get() == Level::Failsafe
    }

    /// As [`Self::is_failsafe`]; uses up what was set by hand.
    fn stops_writes(&self) -> bool {
        match self.injected.get() {
            (Level::Failsafe, count) if count != 0 => {
                self.injected.set((Level::Failsafe, (count - 1).max(-1)));
                true
            }
            _ => self.is_failsafe(),
        }
    }

    /// The epoch in which a pool has become full the last time, or 0.
    pub fn marked_full(&self, pool: i64) -> u32 {
        self.marked.borrow().get(&pool).copied().unwrap_or(0)
    }

    /// Takes note of the pools that became full. Of a first map it is not known since when they are.
    pub fn follow(&self, target: &Target, old: &OsdMap, new: &OsdMap) {
        let mut marked = self.marked.borrow_mut();
        marked.retain(|pool, _| new.pools.contains_key(pool));
        let all = new.has_flag(flags::FULL) && !old.has_flag(flags::FULL);
        for (&id, pool) in &new.pools {
            let was = old.pool(id).is_some_and(|pool| pool.has_flag(pool_flags::FULL));
            if all || pool.has_flag(pool_flags::FULL) && !was {
                marked.insert(id, new.epoch);
            }
        }
        drop(marked);
        self.look(target);
    }

    /// Counts as `level` for `count` writes, below 0 for all.
    pub fn inject(&self, target: &Target, level: Level, count: i64) {
        self.injected.set((level, count));
        self.look(target);
    }

    /// After the store had no room: whether it is worth another try. Whoever is the first makes room.
    pub async fn make_room(&self, target: &Target) -> Result<bool, TargetError> {
        if self.refused.get().is_some() {
            return Ok(false);
        }
        if self.making_room.replace(true) {
            self.made_room.notified().await;
            return Ok(self.refused.get().is_none());
        }
        let made = target.store().make_room().await;
        self.making_room.set(false);
        self.made_room.notify_all();
        made?;
        Ok(true)
    }

    /// The store has no room for a write, and cannot make any.
    pub fn refuse(&self, target: &Target) {
        if self.refused.get().is_none() {
            let available = target.store().statfs().available;
            self.refused.set(Some(Refused { at: now(), available }));
            self.look(target);
        }
    }
}

/// Looks for ever.
pub async fn watch(target: Target) -> Result<(), TargetError> {
    loop {
        sleep(LOOK).await;
        target.fullness().look(&target);
    }
}

/// Whether the client wants to be told, or to write, rather than to wait.
pub fn may_try(msg: &OsdOpMsg) -> bool {
    msg.has_flag(flag::FULL_TRY) || msg.has_flag(flag::FULL_FORCE)
}

fn note_change(target: &Target, old: Level, new: Level, used: f32) {
    tracing::info!(?old, ?new, used, "fullness changes");
    let percent = (used * 100.0).round();
    let text = match (old, new) {
        (_, Level::Failsafe) => {
            format!("full status failsafe engaged, dropping updates, now {percent}% full")
        }
        (Level::Failsafe, _) => format!(
            "full status failsafe disengaged, no longer dropping updates, now {percent}% full"
        ),
        _ => return,
    };
    target.mon().log(target, log_priority::ERROR, text);
}

#[cfg(test)]
mod tests;
