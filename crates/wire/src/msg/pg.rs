//! Messages of peering, recovery and backfill between the OSDs of a placement group.
//!
//! Source of the formats: Ceph's `messages/MOSDPG*.h`, `MBackfillReserve.h`, `MRecoveryReserve.h`.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::denc::Features;
use crate::message::{PRIO_HIGH, check_compat};
use crate::msg::types;
use crate::types::{
    EVersion, HObject, ObjectStatCollection, PastIntervals, PgId, PgInfo, PgLease, PgLeaseAck,
    PgLogMsg, PgMissing, PgNotify, PgQuery, PgShard, PgStat, ShardId, SpgId,
};
use crate::{Decode, DecodeError, Denc, Encode, Header, Message, Payload, Reader};

/// `pg_notify2`: of one PG.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_PG_NOTIFY2, version = 1, compat = 1, priority = PRIO_HIGH)]
pub struct OsdPgNotify2 {
    pub spgid: SpgId,
    pub notify: PgNotify,
}

/// `pg_notify`: of several PGs, as Ceph's OSDs answer for copies that they do not have.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_PG_NOTIFY, version = 7, compat = 6, oldest = 7, priority = PRIO_HIGH)]
pub struct OsdPgNotify {
    pub epoch: u32,
    pub notifies: Vec<PgNotify>,
}

/// `pg_query2`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_PG_QUERY2, version = 1, compat = 1, priority = PRIO_HIGH)]
pub struct OsdPgQuery2 {
    pub spgid: SpgId,
    pub query: PgQuery,
}

/// `pg_info2`: the primary shares its info; or a copy says that it is active, or what it has.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_PG_INFO2, version = 1, compat = 1, priority = PRIO_HIGH)]
pub struct OsdPgInfo2 {
    pub spgid: SpgId,
    pub epoch_sent: u32,
    /// Older than this receiver's interval: void.
    pub min_epoch: u32,
    pub info: PgInfo,
    pub lease: Option<PgLease>,
    pub lease_ack: Option<PgLeaseAck>,
}

/// `pg_log`: answers a query for the log, or tells a copy to become active with it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_PG_LOG, version = 6, compat = 5, oldest = 6, priority = PRIO_HIGH)]
pub struct OsdPgLog {
    pub epoch: u32,
    pub info: PgInfo,
    pub log: PgLogMsg,
    pub missing: PgMissing,
    pub query_epoch: u32,
    pub past_intervals: PastIntervals,
    pub to: ShardId,
    pub from: ShardId,
    pub lease: Option<PgLease>,
}

/// `pg_lease`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_PG_LEASE, version = 1, compat = 1)]
pub struct OsdPgLease {
    pub epoch: u32,
    pub spgid: SpgId,
    pub lease: PgLease,
}

/// `pg_lease_ack`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_PG_LEASE_ACK, version = 1, compat = 1)]
pub struct OsdPgLeaseAck {
    pub epoch: u32,
    pub spgid: SpgId,
    pub ack: PgLeaseAck,
}

/// `pg_trim`: the log may be cut up to here; or a copy asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_PG_TRIM, version = 2, compat = 2, oldest = 2)]
pub struct OsdPgTrim {
    pub epoch: u32,
    pub pgid: PgId,
    pub trim_to: EVersion,
    pub shard: ShardId,
}

/// `pg_remove`: the PG is clean elsewhere, the receiver's copy is of no use.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_PG_REMOVE, version = 3, compat = 3, oldest = 3)]
pub struct OsdPgRemove {
    pub epoch: u32,
    pub pgs: Vec<SpgId>,
}

/// [`BackfillReserve::kind`] and [`RecoveryReserve::kind`].
pub mod reserve {
    pub const REQUEST: u32 = 0;
    pub const GRANT: u32 = 1;
    /// Of backfill: there is no room.
    pub const BACKFILL_REJECT_TOOFULL: u32 = 2;
    pub const BACKFILL_RELEASE: u32 = 3;
    pub const BACKFILL_REVOKE_TOOFULL: u32 = 4;
    pub const BACKFILL_REVOKE: u32 = 5;
    pub const RECOVERY_RELEASE: u32 = 2;
    pub const RECOVERY_REVOKE: u32 = 3;
}

/// `MBackfillReserve`: a slot of the target for backfill.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_BACKFILL_RESERVE, version = 5, compat = 4, oldest = 5)]
pub struct BackfillReserve {
    pub pgid: PgId,
    pub query_epoch: u32,
    pub kind: u32,
    pub priority: u32,
    pub shard: ShardId,
    pub primary_num_bytes: i64,
    pub shard_num_bytes: i64,
}

/// `MRecoveryReserve`: a slot of a replica for recovery by log.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_RECOVERY_RESERVE, version = 3, compat = 2, oldest = 2)]
pub struct RecoveryReserve {
    pub pgid: PgId,
    pub query_epoch: u32,
    pub kind: u32,
    pub shard: ShardId,
    #[message(since = 3)]
    pub priority: u32,
}

/// [`OsdPgScan::op`].
pub mod scan_op {
    pub const GET_DIGEST: u32 = 1;
    pub const DIGEST: u32 = 2;
}

/// `pg_scan`: asks a backfill target for its objects and their versions from `begin`, or answers
/// (`data`: see [`OsdPgScan::objects`]).
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_PG_SCAN, version = 2, compat = 2, oldest = 2)]
pub struct OsdPgScan {
    pub op: u32,
    pub map_epoch: u32,
    pub query_epoch: u32,
    pub pgid: PgId,
    pub begin: HObject,
    pub end: HObject,
    pub from: PgShard,
    pub shard: ShardId,
    #[message(data)]
    pub data: Bytes,
}

impl OsdPgScan {
    pub fn objects(&self) -> Result<BTreeMap<HObject, EVersion>, DecodeError> {
        BTreeMap::from_bytes(&self.data)
    }

    pub fn with_objects(mut self, objects: &BTreeMap<HObject, EVersion>) -> Self {
        self.data = objects.to_bytes(Features::PACIFIC).into();
        self
    }
}

/// [`OsdPgBackfill::op`].
pub mod backfill_op {
    pub const PROGRESS: u32 = 2;
    pub const FINISH: u32 = 3;
    pub const FINISH_ACK: u32 = 4;
}

/// What an [`OsdPgBackfill`] says.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
struct BackfillBody {
    op: u32,
    map_epoch: u32,
    query_epoch: u32,
    pgid: PgId,
    last_backfill: HObject,
    sums: ObjectStatCollection,
    stats: PgStat,
    shard: ShardId,
}

/// `pg_backfill`: the target has all objects below `last_backfill`. The sums of `stats` are on the
/// wire twice.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OsdPgBackfill {
    pub op: u32,
    pub map_epoch: u32,
    pub query_epoch: u32,
    pub pgid: PgId,
    pub last_backfill: HObject,
    pub stats: PgStat,
    pub shard: ShardId,
}

impl Message for OsdPgBackfill {
    const TYPE: u16 = types::OSD_PG_BACKFILL;
    const VERSION: u16 = 3;
    const COMPAT_VERSION: u16 = 3;

    fn encode_payload(&self, f: Features) -> Payload {
        let body = BackfillBody {
            op: self.op,
            map_epoch: self.map_epoch,
            query_epoch: self.query_epoch,
            pgid: self.pgid,
            last_backfill: self.last_backfill.clone(),
            sums: self.stats.stats.clone(),
            stats: self.stats.clone(),
            shard: self.shard,
        };
        Payload { front: body.to_bytes(f).into(), ..Payload::default() }
    }

    fn decode_payload(header: &Header, payload: &Payload) -> Result<Self, DecodeError> {
        check_compat::<Self>("OsdPgBackfill", header)?;
        let body = BackfillBody::decode(&mut Reader::new(&payload.front))?;
        Ok(Self {
            op: body.op,
            map_epoch: body.map_epoch,
            query_epoch: body.query_epoch,
            pgid: body.pgid,
            last_backfill: body.last_backfill,
            stats: body.stats,
            shard: body.shard,
        })
    }
}
