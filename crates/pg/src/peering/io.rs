//! What the write path asks and tells: versions, who gets a write and how, what must wait.

use std::time::Duration;

use spirula_wire::msg::pg::OsdPgTrim;
use spirula_wire::types::{EVersion, HObject, PgLogEntry, log_op};

use super::{PeerMessage, Peering, Role, State};
use crate::missing::Missing;

/// Without a write for so long, a PG is quiet.
const SETTLE: Duration = Duration::from_secs(1);

/// What is still to be told of writes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settling {
    /// The horizon at the last look.
    seen: EVersion,
    pub(super) at: Option<Duration>,
}

/// How a member gets a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendTo {
    /// The transaction with its log entry.
    Whole(i32),
    /// The entry alone: backfill has not come to the object yet.
    LogOnly(i32),
}

/// Why a request on an object has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holdup {
    /// This copy lacks it, or (for a write) another one does: [`Peering::recover_soon`].
    Missing,
    /// Backfill is copying it.
    Backfill,
}

impl Peering {
    /// The version of the next write.
    pub fn next_version(&self) -> EVersion {
        let last = self.info.last_update;
        EVersion::new(self.map.epoch.max(last.epoch), last.version.saturating_add(1))
    }

    /// Whether a read of `object` has to wait.
    pub fn holds_up_read(&self, object: &HObject) -> Option<Holdup> {
        self.missing.contains(object).then_some(Holdup::Missing)
    }

    /// Whether a copy that is not the primary may answer a read of `object` (`balanced`, `localized`): it
    /// has the object as all have it, and the primary, which may read, says that all know how long. Where
    /// not, the client is sent to the primary (`-EAGAIN`).
    pub fn may_read_here(&self, object: &HObject, now: Duration) -> bool {
        self.state == State::ReplicaActive
            && self.role() == Role::Replica
            && self.mapping.is_writeable()
            && !self.is_premerge()
            && now + self.lease.slack() >= self.now
            && self.lease.is_readable_here(now)
            && *object <= self.info.last_backfill
            && !self.missing.contains(object)
            && !self.log.after(self.log.horizon()).any(|e| e.object == *object)
    }

    /// Whether a write to `object` has to wait.
    pub fn holds_up_write(&self, object: &HObject) -> Option<Holdup> {
        let lacks = |m: &Missing| m.contains(object);
        let peers = self.members.iter().filter_map(|osd| self.peers.get(osd));
        if lacks(&self.missing) || peers.filter_map(|p| p.missing.as_ref()).any(lacks) {
            return Some(Holdup::Missing);
        }
        self.recovery.copies(object).then_some(Holdup::Backfill)
    }

    /// The primary logs a write, whose transaction it submits in the same turn: to whom else it goes.
    pub fn append(&mut self, entry: PgLogEntry) -> Vec<SendTo> {
        let (object, version) = (entry.object.clone(), entry.version);
        let (updates, reverts) = (entry.is_update(), entry.op == log_op::LOST_REVERT);
        self.info.last_user_version = self.info.last_user_version.max(entry.user_version);
        self.settle_lost(&entry);
        self.log.append(entry);
        self.refresh_info();
        self.dirty_info = false;
        let mut to = Vec::new();
        for &osd in &self.members {
            let Some(peer) = self.peers.get_mut(&osd) else {
                continue;
            };
            peer.info.last_update = version;
            let filled = object <= peer.info.last_backfill;
            // What goes back to what it was here is copied by recovery.
            if reverts {
                to.push(SendTo::LogOnly(osd));
            } else if filled || self.recovery.has_passed(osd, &object) {
                to.push(SendTo::Whole(osd));
            } else {
                to.push(SendTo::LogOnly(osd));
                if updates {
                    self.recovery.touched(osd, &object);
                }
            }
        }
        to
    }

    /// A copy logs what its primary sent, in the transaction that it submits in the same turn. False:
    /// the write is of another interval, or one before it is missing; it is dropped.
    pub fn apply(&mut self, from: i32, epoch: u32, entry: PgLogEntry, horizon: EVersion) -> bool {
        let follows = self.follows(from, epoch, entry.version);
        if follows {
            self.info.last_user_version = self.info.last_user_version.max(entry.user_version);
            self.settle_lost(&entry);
            self.log.append(entry);
            self.log.advance_horizon(horizon);
            self.refresh_info();
            self.dirty_info = false;
        }
        follows
    }

    /// Whether [`Peering::apply`] would take an entry of this version.
    pub fn follows(&self, from: i32, epoch: u32, version: EVersion) -> bool {
        matches!(self.state, State::ReplicaActive | State::ReplicaActivating)
            && from == self.mapping.acting_primary
            && epoch >= self.last_reset
            && version.version == self.next_version().version
    }

    /// All members hold everything up to `version`: it may be acknowledged, and is never undone.
    pub fn written_everywhere(&mut self, version: EVersion) {
        self.log.advance_horizon(version);
        self.settling.at.get_or_insert(self.now + SETTLE);
    }

    /// Goes along with every write: what all acting copies hold.
    pub fn horizon(&self) -> EVersion {
        self.log.horizon()
    }

    /// Cuts the log when that is due, for the transaction of a write. While an object is missing its entry
    /// stays: then whoever has the object can be brought on by this log, and does not become a backfill
    /// target, which is no source.
    pub fn trim_log(&mut self) -> Option<EVersion> {
        let upto = self.log.due_trim(self.info.last_complete)?;
        self.log.trim(upto);
        self.info.log_tail = self.log.tail();
        Some(upto)
    }

    /// Goes along with every write: up to where the primary's log is cut.
    pub fn trim_to(&self) -> EVersion {
        self.log.tail()
    }

    /// A copy cuts its log as its primary did, but for what it needs itself.
    pub fn trim_as_told(&mut self, trim_to: EVersion) -> Option<EVersion> {
        let upto = self.due_as_told(trim_to)?;
        self.trim_upto(upto);
        Some(upto)
    }

    /// Up to where [`Peering::trim_as_told`] would cut: for the transaction that does the same in the store.
    pub fn due_as_told(&self, trim_to: EVersion) -> Option<EVersion> {
        let upto = self.log.allowed_trim(trim_to.min(self.log.head()), self.info.last_complete);
        (upto > self.log.tail()).then_some(upto)
    }

    /// Cuts the log; all acting copies hold everything up to there.
    pub fn trim_upto(&mut self, upto: EVersion) {
        self.log.advance_horizon(upto);
        self.log.trim(upto);
        self.info.log_tail = self.log.tail();
    }

    /// After writes: when none came for a while, the copies are told what all of them hold, which the
    /// next write would have told, and the log is cut.
    pub(super) fn settle(&mut self) {
        if !self.is_primary()
            || !self.is_peered()
            || self.settling.at.is_none_or(|at| at > self.now)
        {
            return;
        }
        let horizon = self.log.horizon();
        let is_quiet = horizon == self.settling.seen && horizon == self.info.last_update;
        self.settling = Settling { seen: horizon, at: (!is_quiet).then_some(self.now + SETTLE) };
        if is_quiet {
            self.share_info();
            self.trim_idle();
        }
    }

    /// Cuts the log without a write, here and at the members.
    pub(super) fn trim_idle(&mut self) {
        if self.trim_log().is_none() {
            return;
        }
        self.dirty_log = true;
        let (epoch, trim_to) = (self.map.epoch, self.log.tail());
        let (pgid, shard) = (self.pgid.pgid, self.pgid.shard);
        for osd in self.members.clone() {
            let trim = OsdPgTrim { epoch, pgid, trim_to, shard };
            self.send(osd, PeerMessage::Trim(trim));
        }
    }
}
