//! Slots for recovery and backfill: first one of this OSD's own, then one of each member's, in the order
//! of their ids, so that two PGs never wait for each other. Few PGs recover at a time, urgent ones first.
//!
//! The driver has two [`Reserver`](crate::reserve::Reserver)s: what the PGs that it leads ask for, and what
//! those ask for that others lead. One that grants everything at once works too.
//!
//! Source of the rules: Ceph's `PeeringState` (v16). What clients wait for needs no slot, and a batch
//! of a backfill that was begun is ended without one: writes wait for it.
//!
//! Invariant: slots are held only in an interval in which the PG is active and has something to recover.

use std::collections::BTreeSet;
use std::time::Duration;

use spirula_maps::{flags, osd_state};
use spirula_wire::msg::pg::{BackfillReserve, RecoveryReserve, reserve};

use super::{Action, PeerMessage, Peering, State};
use crate::reserve::priority;

/// Until a target that was too full is asked again (`osd_backfill_retry_interval`,
/// `osd_recovery_retry_interval`).
const RETRY: Duration = Duration::from_secs(30);

/// What a slot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveKind {
    Recovery,
    Backfill,
}

/// Of which of the driver's reservers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// For a PG that this OSD leads.
    Local,
    /// For one that another OSD leads.
    Remote,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Stage {
    #[default]
    Idle,
    /// Waits for the slot here.
    Local(ReserveKind),
    /// Waits for the slot of the member that was asked last.
    Remote(ReserveKind),
    Running(ReserveKind),
    /// Somebody has no room: again at that time.
    TooFull(ReserveKind, Duration),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Reserving {
    stage: Stage,
    /// Members whose slots were asked for.
    asked: BTreeSet<i32>,
    forced_recovery: bool,
    forced_backfill: bool,
    /// A copy's slot, and whether it was granted.
    remote: Option<(ReserveKind, bool)>,
    /// This OSD takes no backfill.
    too_full: bool,
}

impl Reserving {
    fn kind(&self) -> Option<ReserveKind> {
        match self.stage {
            Stage::Idle => None,
            Stage::Local(kind)
            | Stage::Remote(kind)
            | Stage::Running(kind)
            | Stage::TooFull(kind, _) => Some(kind),
        }
    }

    fn asks(&self) -> bool {
        matches!(self.stage, Stage::Local(_) | Stage::Remote(_) | Stage::Running(_))
    }

    pub(super) fn retry_at(&self) -> Option<Duration> {
        match self.stage {
            Stage::TooFull(_, at) => Some(at),
            _ => None,
        }
    }
}

impl Peering {
    // --- inputs

    /// The slot that was asked for is given.
    pub fn reserved(&mut self, slot: Slot) {
        match (slot, self.reserving.stage, self.reserving.remote) {
            (Slot::Local, Stage::Local(kind), _) => {
                self.reserving.stage = Stage::Remote(kind);
                self.reserve_next(kind);
            }
            (Slot::Remote, _, Some((kind, false))) => {
                self.reserving.remote = Some((kind, true));
                self.answer_reserve(kind, reserve::GRANT);
            }
            _ => {}
        }
    }

    /// The slot, or the place in the queue, is somebody else's now.
    pub fn preempted(&mut self, slot: Slot) {
        match (slot, self.reserving.kind(), self.reserving.remote) {
            (Slot::Local, Some(kind), _) if self.reserving.asks() => {
                self.release_members(kind);
                self.reserve_local(kind);
            }
            (Slot::Remote, _, Some((kind, _))) => {
                self.reserving.remote = None;
                self.answer_reserve(kind, revocation(kind));
            }
            _ => {}
        }
    }

    /// Whether this OSD has no room for what backfill would bring.
    pub fn set_too_full(&mut self, too_full: bool) {
        self.reserving.too_full = too_full;
        if let Some((ReserveKind::Backfill, held)) =
            self.reserving.remote.filter(|(kind, _)| too_full && *kind == ReserveKind::Backfill)
        {
            let word = if held {
                reserve::BACKFILL_REVOKE_TOOFULL
            } else {
                reserve::BACKFILL_REJECT_TOOFULL
            };
            self.cancel_remote();
            self.answer_reserve(ReserveKind::Backfill, word);
        }
    }

    /// An operator puts this PG's recovery or backfill first, or takes that back. False: there is
    /// nothing to recover, or it was so already.
    pub fn force(&mut self, kind: ReserveKind, on: bool) -> bool {
        let useful = !on || (self.state == State::Active && !self.is_recovered());
        let forced = match kind {
            ReserveKind::Recovery => &mut self.reserving.forced_recovery,
            ReserveKind::Backfill => &mut self.reserving.forced_backfill,
        };
        if !useful || *forced == on {
            return false;
        }
        *forced = on;
        if let Some(kind) = self.reserving.kind().filter(|_| self.reserving.asks()) {
            let priority = self.reserve_priority(kind);
            self.out.push_back(Action::LocalReserve { kind, priority });
        }
        true
    }

    // --- what may run

    /// Objects are recovered in the background.
    pub(crate) fn may_recover(&self) -> bool {
        matches!(self.reserving.stage, Stage::Running(_)) && self.map.flags & flags::NORECOVER == 0
    }

    /// The next batch of a backfill may begin.
    pub(crate) fn may_backfill(&self) -> bool {
        let stops = flags::NORECOVER | flags::NOBACKFILL;
        let moves_only = self.map.flags & flags::NOREBALANCE != 0 && !self.is_degraded();
        self.reserving.stage == Stage::Running(ReserveKind::Backfill)
            && self.map.flags & stops == 0
            && !moves_only
    }

    pub(super) fn reserving_bits(&self) -> u64 {
        use spirula_wire::types::pg_state as bit;
        let stage = match self.reserving.stage {
            Stage::Idle => 0,
            Stage::Running(ReserveKind::Recovery) => bit::RECOVERING,
            Stage::Running(ReserveKind::Backfill) => bit::BACKFILLING,
            Stage::TooFull(ReserveKind::Recovery, _) => bit::RECOVERY_TOOFULL,
            Stage::TooFull(ReserveKind::Backfill, _) => bit::BACKFILL_TOOFULL,
            Stage::Local(ReserveKind::Recovery) | Stage::Remote(ReserveKind::Recovery) => {
                bit::RECOVERY_WAIT
            }
            Stage::Local(ReserveKind::Backfill) | Stage::Remote(ReserveKind::Backfill) => {
                bit::BACKFILL_WAIT
            }
        };
        let recovery = if self.reserving.forced_recovery { bit::FORCED_RECOVERY } else { 0 };
        let backfill = if self.reserving.forced_backfill { bit::FORCED_BACKFILL } else { 0 };
        stage | recovery | backfill
    }

    // --- the primary's side

    /// Asks for, changes or gives up slots by what there is to do.
    pub(super) fn follow_reservation(&mut self) {
        use ReserveKind::{Backfill, Recovery};
        let wanted = self.wanted_slot();
        match (self.reserving.kind(), wanted) {
            (None, Some(kind)) => self.reserve_local(kind),
            (Some(_), None) => self.release(),
            // What turns up while backfill runs is recovered with its slots.
            (Some(Backfill), Some(Recovery))
                if self.reserving.stage == Stage::Running(Backfill) => {}
            (Some(has), Some(kind)) if has != kind => {
                self.release();
                self.reserve_local(kind);
            }
            (Some(_), Some(kind)) if self.reserving.retry_at().is_some_and(|at| at <= self.now) => {
                self.reserve_local(kind);
            }
            _ => {}
        }
        if self.is_recovered() {
            (self.reserving.forced_recovery, self.reserving.forced_backfill) = (false, false);
        }
    }

    fn wanted_slot(&self) -> Option<ReserveKind> {
        if self.state != State::Active {
            return None;
        }
        if self.recovers_by_log() {
            // Not where all that is left is unfound.
            return self.can_recover().then_some(ReserveKind::Recovery);
        }
        self.needs_backfill().then_some(ReserveKind::Backfill)
    }

    fn reserve_local(&mut self, kind: ReserveKind) {
        let is_full =
            |osd: &i32| self.map.osd(*osd).is_some_and(|o| o.state & osd_state::FULL != 0);
        let full = is_full(&self.me) || self.members.iter().any(is_full);
        if kind == ReserveKind::Recovery && full {
            self.reserving.stage = Stage::TooFull(kind, self.now + RETRY);
            return;
        }
        self.reserving.stage = Stage::Local(kind);
        let priority = self.reserve_priority(kind);
        self.out.push_back(Action::LocalReserve { kind, priority });
    }

    /// Asks the next member, or begins.
    fn reserve_next(&mut self, kind: ReserveKind) {
        let filled = |osd: &i32| self.peers.get(osd).is_some_and(|p| !p.info.is_incomplete());
        let last = self.reserving.asked.last().copied();
        let next = self
            .members
            .iter()
            .copied()
            .find(|osd| Some(*osd) > last && (kind == ReserveKind::Recovery || !filled(osd)));
        let Some(osd) = next else {
            self.reserving.stage = Stage::Running(kind);
            return;
        };
        self.reserving.asked.insert(osd);
        let priority = self.reserve_priority(kind);
        self.send_reserve(osd, kind, reserve::REQUEST, priority);
    }

    fn release_members(&mut self, kind: ReserveKind) {
        for osd in std::mem::take(&mut self.reserving.asked) {
            let word = match kind {
                ReserveKind::Recovery => reserve::RECOVERY_RELEASE,
                ReserveKind::Backfill => reserve::BACKFILL_RELEASE,
            };
            self.send_reserve(osd, kind, word, 0);
        }
    }

    fn release(&mut self) {
        let Some(kind) = self.reserving.kind() else {
            return;
        };
        self.release_members(kind);
        if self.reserving.asks() {
            self.out.push_back(Action::CancelLocal);
        }
        self.reserving.stage = Stage::Idle;
    }

    /// An interval ended, and with it all reservations, here and elsewhere.
    pub(super) fn drop_reservations(&mut self) {
        if self.reserving.asks() {
            self.out.push_back(Action::CancelLocal);
        }
        self.cancel_remote();
        self.reserving = Reserving { too_full: self.reserving.too_full, ..Reserving::default() };
    }

    pub(super) fn on_reserve_answer(&mut self, from: i32, kind: ReserveKind, word: u32) {
        if self.reserving.kind() != Some(kind) || !self.reserving.asked.contains(&from) {
            return;
        }
        let waits = self.reserving.stage == Stage::Remote(kind);
        if word == reserve::GRANT {
            if waits && self.reserving.asked.last() == Some(&from) {
                self.reserve_next(kind);
            }
        } else if word == revocation(kind) {
            // Back to the end of the queue here too.
            self.release();
            self.reserve_local(kind);
        } else if kind == ReserveKind::Backfill
            && matches!(word, reserve::BACKFILL_REJECT_TOOFULL | reserve::BACKFILL_REVOKE_TOOFULL)
        {
            self.release();
            self.reserving.stage = Stage::TooFull(kind, self.now + RETRY);
        }
    }

    /// Ceph's `get_recovery_priority` and `get_backfill_priority`.
    fn reserve_priority(&self, kind: ReserveKind) -> u32 {
        let acting = self.mapping.acting_set();
        let (size, min_size) = (self.mapping.size, self.mapping.min_size);
        let (base, more) = match kind {
            ReserveKind::Recovery if self.reserving.forced_recovery => {
                return priority::RECOVERY_FORCED;
            }
            ReserveKind::Backfill if self.reserving.forced_backfill => {
                return priority::BACKFILL_FORCED;
            }
            ReserveKind::Recovery => {
                let whole = |osd: &&i32| {
                    let peer = self.missing_of(**osd);
                    let own = (**osd == self.me).then_some(&self.missing);
                    own.or(peer).is_some_and(|m| m.is_empty())
                };
                match acting.iter().filter(whole).count() {
                    n if n < min_size => (priority::INACTIVE, min_size - n),
                    _ => (priority::RECOVERY, 0),
                }
            }
            ReserveKind::Backfill if acting.len() < min_size => {
                (priority::INACTIVE, min_size - acting.len())
            }
            ReserveKind::Backfill if acting.len() < size => {
                (priority::BACKFILL_DEGRADED, size - acting.len())
            }
            ReserveKind::Backfill if self.is_degraded() => (priority::BACKFILL_DEGRADED, 0),
            ReserveKind::Backfill => (priority::BACKFILL, 0),
        };
        let pool = self.map.pool(self.pgid.pgid.pool);
        let wish = pool.and_then(|p| p.opts.get("recovery_priority")?.as_f64()).unwrap_or(0.0);
        priority::clamped(base, u32::try_from(more).unwrap_or(0), wish as i32)
    }

    // --- a copy's side

    pub(super) fn on_reserve(&mut self, kind: ReserveKind, word: u32, priority: u32) {
        if self.state != State::ReplicaActive {
            return;
        }
        let release = match kind {
            ReserveKind::Recovery => reserve::RECOVERY_RELEASE,
            ReserveKind::Backfill => reserve::BACKFILL_RELEASE,
        };
        if word == reserve::REQUEST {
            self.cancel_remote();
            if kind == ReserveKind::Backfill && self.reserving.too_full {
                return self.answer_reserve(kind, reserve::BACKFILL_REJECT_TOOFULL);
            }
            self.reserving.remote = Some((kind, false));
            self.out.push_back(Action::RemoteReserve { kind, priority });
        } else if word == release && self.reserving.remote.is_some_and(|(k, _)| k == kind) {
            self.cancel_remote();
        }
    }

    fn cancel_remote(&mut self) {
        if self.reserving.remote.take().is_some() {
            self.out.push_back(Action::CancelRemote);
        }
    }

    fn answer_reserve(&mut self, kind: ReserveKind, word: u32) {
        self.send_reserve(self.mapping.acting_primary, kind, word, 0);
    }

    fn send_reserve(&mut self, to: i32, kind: ReserveKind, word: u32, priority: u32) {
        let (pgid, shard, query_epoch) = (self.pgid.pgid, self.pgid.shard, self.map.epoch);
        let message = match kind {
            ReserveKind::Recovery => PeerMessage::RecoveryReserve(RecoveryReserve {
                pgid,
                query_epoch,
                kind: word,
                shard,
                priority,
            }),
            ReserveKind::Backfill => PeerMessage::BackfillReserve(BackfillReserve {
                pgid,
                query_epoch,
                kind: word,
                priority,
                shard,
                primary_num_bytes: self.info.stats.stats.sum.num_bytes,
                shard_num_bytes: 0,
            }),
        };
        self.send(to, message);
    }
}

fn revocation(kind: ReserveKind) -> u32 {
    match kind {
        ReserveKind::Recovery => reserve::RECOVERY_REVOKE,
        ReserveKind::Backfill => reserve::BACKFILL_REVOKE,
    }
}
