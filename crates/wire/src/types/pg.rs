//! What OSDs tell each other about a placement group: info, past intervals, log, missing objects,
//! queries and read leases.
//!
//! Source of the formats: Ceph's `osd/osd_types.cc` (v16). Senders older than Octopus are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;

use crate::denc::encode_versioned;
use crate::types::{
    EVersion, HObject, PgHistory, PgShard, PgStat, RequestId, ShardId, SnapId, SpgId, TimeSpan,
    UTime,
};
use crate::{Decode, DecodeError, Denc, Encode, Features, Reader};

/// `pg_info_t`: what one copy of a PG is. Everything up to `last_update` is in its log; objects
/// below `last_backfill` are as of then, or in its missing set; it has no others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgInfo {
    pub pgid: SpgId,
    pub last_update: EVersion,
    /// Everything up to here is there, nothing of it missing.
    pub last_complete: EVersion,
    /// The log has every entry after this.
    pub log_tail: EVersion,
    pub stats: PgStat,
    pub history: PgHistory,
    pub purged_snaps: Vec<(SnapId, u64)>,
    /// The last epoch in which this copy was made active.
    pub last_epoch_started: u32,
    pub last_user_version: u64,
    pub hit_set: HitSetHistory,
    pub last_backfill: HObject,
    /// First epoch of the interval in which this copy was last made active.
    pub last_interval_started: u32,
}

/// `pg_hit_set_history_t`, of cache tiers; kept as it came.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct HitSetHistory {
    pub current_last_update: EVersion,
    pub unused_stamp: UTime,
    pub unused_info: HitSetInfo,
    pub history: Vec<HitSetInfo>,
}

/// `pg_hit_set_info_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Denc)]
#[denc(version = 2, compat = 1, oldest = 2)]
pub struct HitSetInfo {
    pub begin: UTime,
    pub end: UTime,
    pub version: EVersion,
    pub using_gmt: bool,
}

impl Default for HitSetInfo {
    fn default() -> Self {
        let (begin, end) = Default::default();
        Self { begin, end, version: EVersion::default(), using_gmt: true }
    }
}

impl PgInfo {
    /// Of a copy that holds everything there is: nothing yet.
    pub fn new(pgid: SpgId) -> Self {
        let zero = EVersion::default();
        Self {
            pgid,
            last_update: zero,
            last_complete: zero,
            log_tail: zero,
            stats: PgStat::default(),
            history: PgHistory::default(),
            purged_snaps: Vec::new(),
            last_epoch_started: 0,
            last_user_version: 0,
            hit_set: HitSetHistory::default(),
            last_backfill: HObject::max(),
            last_interval_started: 0,
        }
    }

    /// Nothing was ever written to it.
    pub fn is_empty(&self) -> bool {
        self.last_update == EVersion::default()
    }

    /// The copy does not exist at all: nobody has told it about the PG yet.
    pub fn does_not_exist(&self) -> bool {
        self.history.epoch_created == 0
    }

    /// Backfill has not brought all objects yet.
    pub fn is_incomplete(&self) -> bool {
        !self.last_backfill.is_max()
    }

    /// Some objects of the log are not there.
    pub fn has_missing(&self) -> bool {
        self.last_complete != self.last_update
    }
}

impl Default for PgInfo {
    fn default() -> Self {
        Self::new(SpgId::default())
    }
}

impl Encode for PgInfo {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, 32, 26, |out| {
            self.pgid.pgid.encode(out, f);
            self.last_update.encode(out, f);
            self.last_complete.encode(out, f);
            self.log_tail.encode(out, f);
            // Where `last_backfill` was when objects sorted otherwise.
            HObject::min().encode(out, f);
            self.stats.encode(out, f);
            self.history.encode(out, f);
            self.purged_snaps.encode(out, f);
            self.last_epoch_started.encode(out, f);
            self.last_user_version.encode(out, f);
            self.hit_set.encode(out, f);
            self.pgid.shard.encode(out, f);
            self.last_backfill.encode(out, f);
            true.encode(out, f);
            self.last_interval_started.encode(out, f);
        });
    }
}

impl Decode for PgInfo {
    const MIN_SIZE: usize = 300;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("pg_info_t", 32, |version, r| {
            if version < 32 {
                return Err(DecodeError::TooOld { what: "pg_info_t", version, oldest: 32 });
            }
            let pgid = Decode::decode(r)?;
            let (last_update, last_complete) = (EVersion::decode(r)?, EVersion::decode(r)?);
            let log_tail = EVersion::decode(r)?;
            let _old_last_backfill = HObject::decode(r)?;
            let mut info = Self {
                pgid: SpgId { pgid, shard: ShardId::NONE },
                last_update,
                last_complete,
                log_tail,
                stats: PgStat::decode(r)?,
                history: PgHistory::decode(r)?,
                purged_snaps: Vec::decode(r)?,
                last_epoch_started: r.u32()?,
                last_user_version: r.u64()?,
                hit_set: HitSetHistory::decode(r)?,
                last_backfill: HObject::min(),
                last_interval_started: 0,
            };
            info.pgid.shard = ShardId::decode(r)?;
            info.last_backfill = HObject::decode(r)?;
            let _bitwise = bool::decode(r)?;
            info.last_interval_started = r.u32()?;
            Ok(info)
        })
    }
}

/// One interval in which the PG may have been written to: the OSDs that would know.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct CompactInterval {
    pub first: u32,
    pub last: u32,
    pub acting: BTreeSet<PgShard>,
}

/// `PastIntervals` (`pi_compact_rep`): the intervals since the PG was last clean. Empty when
/// `last` is 0. `intervals` holds those that may have been written to, but for those whose members
/// all were members of a later one.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PastIntervals {
    pub first: u32,
    /// Inclusive.
    pub last: u32,
    pub all_participants: BTreeSet<PgShard>,
    pub intervals: Vec<CompactInterval>,
}

impl PastIntervals {
    const COMPACT: u8 = 2;

    pub fn is_empty(&self) -> bool {
        self.last == 0
    }
}

impl Encode for PastIntervals {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, 1, 1, |out| {
            out.push(Self::COMPACT);
            encode_versioned(out, 1, 1, |out| {
                self.first.encode(out, f);
                self.last.encode(out, f);
                self.all_participants.encode(out, f);
                self.intervals.encode(out, f);
            });
        });
    }
}

impl Decode for PastIntervals {
    const MIN_SIZE: usize = 7;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("PastIntervals", 1, |_, r| match r.u8()? {
            0 => Ok(Self::default()),
            Self::COMPACT => r.versioned("pi_compact_rep", 1, |_, r| {
                Ok(Self {
                    first: r.u32()?,
                    last: r.u32()?,
                    all_participants: BTreeSet::decode(r)?,
                    intervals: Vec::decode(r)?,
                })
            }),
            kind => Err(DecodeError::Invalid { what: "PastIntervals kind", value: kind.into() }),
        })
    }
}

/// `pg_notify_t`: a copy introduces itself to the primary, or answers a query for its info.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 3, compat = 2, oldest = 3)]
pub struct PgNotify {
    /// Epoch of the query that is answered, or the sender's.
    pub query_epoch: u32,
    pub epoch_sent: u32,
    pub info: PgInfo,
    pub to: ShardId,
    pub from: ShardId,
    pub past_intervals: PastIntervals,
}

/// [`PgQuery::kind`]: what is asked for.
pub mod pg_query {
    pub const INFO: i32 = 0;
    /// The log after [`super::PgQuery::since`].
    pub const LOG: i32 = 1;
    pub const MISSING: i32 = 4;
    pub const FULLLOG: i32 = 5;
}

/// `pg_query_t`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 3, compat = 3)]
pub struct PgQuery {
    pub kind: i32,
    pub since: EVersion,
    pub history: PgHistory,
    pub epoch_sent: u32,
    pub to: ShardId,
    pub from: ShardId,
}

/// [`PgLogEntry::op`].
pub mod log_op {
    pub const MODIFY: i32 = 1;
    pub const CLONE: i32 = 2;
    pub const DELETE: i32 = 3;
    pub const LOST_REVERT: i32 = 5;
    pub const LOST_DELETE: i32 = 6;
    pub const LOST_MARK: i32 = 7;
    pub const PROMOTE: i32 = 8;
    pub const CLEAN: i32 = 9;
    /// Failed, or changed nothing; logged for its result only.
    pub const ERROR: i32 = 10;
}

/// `ObjectCleanRegions`: what of an object an entry did not touch.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 1, compat = 1)]
pub struct CleanRegions {
    /// Offset and length.
    pub clean_offsets: Vec<(u64, u64)>,
    pub clean_omap: bool,
    pub new_object: bool,
}

impl CleanRegions {
    /// Anything may have changed.
    pub fn all_dirty() -> Self {
        Self { clean_offsets: Vec::new(), clean_omap: false, new_object: true }
    }
}

impl Default for CleanRegions {
    fn default() -> Self {
        Self { clean_offsets: vec![(0, u64::MAX)], clean_omap: true, new_object: false }
    }
}

/// `ObjectModDesc`: how Ceph's OSDs undo an entry. Our own keep the epoch of the transaction in
/// the store here, which is all that undoing needs ([`PgLogEntry::store_epoch`]).
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct ModDesc {
    pub can_local_rollback: bool,
    pub rollback_info_completed: bool,
    pub actions: Bytes,
}

/// `pg_log_entry_t`: one logged request.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PgLogEntry {
    pub op: i32,
    pub object: HObject,
    pub version: EVersion,
    /// Version of the object before; zero if there was none.
    pub prior_version: EVersion,
    /// Of LOST_REVERT only: the version that the object has again.
    pub reverting_to: EVersion,
    pub reqid: RequestId,
    pub mtime: UTime,
    /// Of CLONE: the encoded snapshots.
    pub snaps: Bytes,
    pub user_version: u64,
    pub mod_desc: ModDesc,
    /// Further requests that a copy brought along, with their user versions.
    pub extra_reqids: Vec<(RequestId, u64)>,
    /// Index in `extra_reqids` to result.
    pub extra_results: BTreeMap<u32, i32>,
    pub clean_regions: CleanRegions,
    pub result: i32,
    /// Result and returned data per operation; empty unless the client asked for a return vector.
    pub returns: Vec<(i32, Bytes)>,
}

impl PgLogEntry {
    /// Whether the entry changed its object.
    pub fn is_update(&self) -> bool {
        self.op != log_op::ERROR
    }

    /// Whether the object is gone after it.
    pub fn is_delete(&self) -> bool {
        matches!(self.op, log_op::DELETE | log_op::LOST_DELETE)
    }

    /// Epoch of the transaction in the store, which our own OSDs carry along.
    pub fn store_epoch(&self) -> Option<u64> {
        let raw = self.mod_desc.actions.first_chunk()?;
        Some(u64::from_le_bytes(*raw))
    }

    pub fn set_store_epoch(&mut self, epoch: u64) {
        self.mod_desc = ModDesc {
            can_local_rollback: true,
            rollback_info_completed: true,
            actions: Bytes::copy_from_slice(&epoch.to_le_bytes()),
        };
    }
}

impl Encode for PgLogEntry {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, 14, 4, |out| {
            let reverts = self.op == log_op::LOST_REVERT;
            self.op.encode(out, f);
            self.object.encode(out, f);
            self.version.encode(out, f);
            if reverts { self.reverting_to } else { self.prior_version }.encode(out, f);
            self.reqid.encode(out, f);
            self.mtime.encode(out, f);
            if reverts {
                self.prior_version.encode(out, f);
            }
            self.snaps.encode(out, f);
            self.user_version.encode(out, f);
            self.mod_desc.encode(out, f);
            self.extra_reqids.encode(out, f);
            if self.op == log_op::ERROR {
                self.result.encode(out, f);
            }
            if !self.extra_reqids.is_empty() {
                self.extra_results.encode(out, f);
            }
            self.clean_regions.encode(out, f);
            if self.op != log_op::ERROR {
                self.result.encode(out, f);
            }
            self.returns.encode(out, f);
        });
    }
}

impl Decode for PgLogEntry {
    const MIN_SIZE: usize = 100;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("pg_log_entry_t", 14, |version, r| {
            if version < 14 {
                return Err(DecodeError::TooOld { what: "pg_log_entry_t", version, oldest: 14 });
            }
            let mut e = Self { op: r.i32()?, object: HObject::decode(r)?, ..Self::default() };
            e.version = EVersion::decode(r)?;
            e.prior_version = EVersion::decode(r)?;
            e.reqid = RequestId::decode(r)?;
            e.mtime = UTime::decode(r)?;
            if e.op == log_op::LOST_REVERT {
                e.reverting_to = std::mem::replace(&mut e.prior_version, EVersion::decode(r)?);
            }
            e.snaps = Bytes::decode(r)?;
            e.user_version = r.u64()?;
            e.mod_desc = ModDesc::decode(r)?;
            e.extra_reqids = Vec::decode(r)?;
            if e.op == log_op::ERROR {
                e.result = r.i32()?;
            }
            if !e.extra_reqids.is_empty() {
                e.extra_results = BTreeMap::decode(r)?;
            }
            e.clean_regions = CleanRegions::decode(r)?;
            if e.op != log_op::ERROR {
                e.result = r.i32()?;
            }
            e.returns = Vec::decode(r)?;
            Ok(e)
        })
    }
}

/// `version op object by request`, as Ceph's logs have it.
impl fmt::Display for PgLogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, prior_version, object, reqid, op, .. } = self;
        write!(f, "{version} ({prior_version}) op {op} {object} by {reqid}")
    }
}

/// `pg_log_dup_t`: what answers a repeated request after its entry was trimmed.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 2, compat = 1, oldest = 2)]
pub struct PgLogDup {
    pub reqid: RequestId,
    pub version: EVersion,
    pub user_version: u64,
    pub result: i32,
    pub returns: Vec<(i32, Bytes)>,
}

/// `pg_log_t`: a log, or its newer part.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 7, compat = 3, oldest = 7)]
pub struct PgLogMsg {
    pub head: EVersion,
    pub tail: EVersion,
    pub entries: Vec<PgLogEntry>,
    /// Entries after this can be undone.
    pub can_rollback_to: EVersion,
    pub rollback_info_trimmed_to: EVersion,
    pub dups: Vec<PgLogDup>,
}

/// `pg_missing_item`: the object should be at `need`, and is at `have` (zero: is not there).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MissingItem {
    pub need: EVersion,
    pub have: EVersion,
    pub flags: u8,
    pub clean_regions: CleanRegions,
}

impl MissingItem {
    /// In `flags`: at `need` the object is gone.
    pub const DELETE: u8 = 1;
}

/// Two versions that no item needs stand before what releases before Octopus did not have.
impl Encode for MissingItem {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        EVersion::default().encode(out, f);
        EVersion::new(u32::MAX, u64::MAX).encode(out, f);
        self.need.encode(out, f);
        self.have.encode(out, f);
        self.flags.encode(out, f);
        self.clean_regions.encode(out, f);
    }
}

impl Decode for MissingItem {
    const MIN_SIZE: usize = 24;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (zero, max) = (EVersion::decode(r)?, EVersion::decode(r)?);
        if zero != EVersion::default() || max != EVersion::new(u32::MAX, u64::MAX) {
            return Err(DecodeError::Invalid { what: "pg_missing_item", value: zero.version });
        }
        Ok(Self {
            need: EVersion::decode(r)?,
            have: EVersion::decode(r)?,
            flags: r.u8()?,
            clean_regions: CleanRegions::decode(r)?,
        })
    }
}

/// `pg_missing_t`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 5, compat = 2, oldest = 5)]
pub struct PgMissing {
    pub items: BTreeMap<HObject, MissingItem>,
    pub may_include_deletes: bool,
}

/// `pg_lease_t`: until when, by the primary's clock, copies may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct PgLease {
    pub readable_until: TimeSpan,
    /// The most that the primary may ever take it to be.
    pub readable_until_ub: TimeSpan,
    pub interval: TimeSpan,
}

/// `pg_lease_ack_t`: the upper bound that a copy was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
pub struct PgLeaseAck {
    pub readable_until_ub: TimeSpan,
}
