//! Messages of OSDs: to the monitor, to the manager, to each other, and to clients, except the op
//! itself.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::denc::Opaque;
use crate::message::{PRIO_HIGH, check_compat};
use crate::msg::{Paxos, types};
use crate::types::{
    EntityAddrVec, HObject, OsdStat, OsdSuperblock, PgHistory, PgId, PgStat, SpgId, StoreStatfs,
    TimeSpan, UTime, Uuid,
};
use crate::{Decode, DecodeError, Encode, Features, Header, Message, Payload, Reader};

/// `osd_map`: encoded full maps and increments by epoch, and what the sender has.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_MAP, version = 4, compat = 3, oldest = 3)]
pub struct OsdMapMsg {
    pub fsid: Uuid,
    pub incremental_maps: BTreeMap<u32, Bytes>,
    pub maps: BTreeMap<u32, Bytes>,
    pub oldest_map: u32,
    pub newest_map: u32,
    /// By pool, as (start, length). Empty since Octopus.
    #[message(since = 4)]
    pub gap_removed_snaps: BTreeMap<i64, Vec<(u64, u64)>>,
}

/// `osd_boot`.
#[derive(Clone, Debug, PartialEq, Default, Message)]
#[message(ty = types::OSD_BOOT, version = 7, compat = 7, oldest = 7)]
pub struct OsdBoot {
    pub paxos: Paxos,
    pub sb: OsdSuperblock,
    pub hb_back_addrs: EntityAddrVec,
    pub cluster_addrs: EntityAddrVec,
    pub boot_epoch: u32,
    pub hb_front_addrs: EntityAddrVec,
    pub metadata: BTreeMap<String, String>,
    pub osd_features: u64,
}

/// `osd_alive`: asks for `up_thru` of at least `want`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_ALIVE, version = 1, compat = 1)]
pub struct OsdAlive {
    pub paxos: Paxos,
    pub want: u32,
}

/// `mon_get_purged_snaps`: which snapshots were purged in the maps of these epochs, both included?
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MON_GET_PURGED_SNAPS, version = 1, compat = 1)]
pub struct MonGetPurgedSnaps {
    pub paxos: Paxos,
    pub start: u32,
    pub last: u32,
}

/// `mon_get_purged_snaps_reply`: up to `last`; the OSD asks for what comes after it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MON_GET_PURGED_SNAPS_REPLY, version = 1, compat = 1)]
pub struct MonGetPurgedSnapsReply {
    pub paxos: Paxos,
    pub start: u32,
    pub last: u32,
    /// By epoch and pool, as (start, length).
    pub purged_snaps: BTreeMap<u32, BTreeMap<i64, Vec<(u64, u64)>>>,
}

/// `osd_beacon`: proof of life, every few minutes.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_BEACON, version = 3, compat = 1)]
pub struct OsdBeacon {
    pub paxos: Paxos,
    pub pgs: Vec<PgId>,
    pub min_last_epoch_clean: u32,
    #[message(since = 2)]
    pub last_purged_snaps_scrub: UTime,
    #[message(since = 3)]
    pub osd_beacon_report_interval: i32,
}

/// `osd_failure`: a peer does not answer, or (without [`OsdFailure::FAILED`]) answers again.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_FAILURE, version = 4, compat = 4, oldest = 4)]
pub struct OsdFailure {
    pub paxos: Paxos,
    pub fsid: Uuid,
    pub target_osd: i32,
    pub target_addrs: EntityAddrVec,
    pub epoch: u32,
    pub flags: u8,
    pub failed_for: i32,
}

impl OsdFailure {
    pub const FAILED: u8 = 1;
    /// Known to be gone, not merely silent.
    pub const IMMEDIATE: u8 = 2;
}

/// `osd_mark_me_down`: sent at shutdown; the mon answers with the same message if asked to.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_MARK_ME_DOWN, version = 4, compat = 3, oldest = 3)]
pub struct OsdMarkMeDown {
    pub paxos: Paxos,
    pub fsid: Uuid,
    pub target_osd: i32,
    pub target_addrs: EntityAddrVec,
    pub epoch: u32,
    pub request_ack: bool,
    #[message(since = 4)]
    pub down_and_dead: bool,
}

/// `osd_mark_me_dead`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_MARK_ME_DEAD, version = 1, compat = 1)]
pub struct OsdMarkMeDead {
    pub paxos: Paxos,
    pub fsid: Uuid,
    pub target_osd: i32,
    pub epoch: u32,
}

/// `osd_full`: the OSD's full state as OSDMap state bits.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_FULL, version = 1, compat = 1)]
pub struct OsdFull {
    pub paxos: Paxos,
    pub map_epoch: u32,
    pub state: u32,
}

/// `osd_pgtemp`: asks for temporary acting sets.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_PGTEMP, version = 2, compat = 1)]
pub struct OsdPgTemp {
    pub paxos: Paxos,
    pub map_epoch: u32,
    pub pg_temp: BTreeMap<PgId, Vec<i32>>,
    #[message(since = 2)]
    pub forced: bool,
}

/// `scrub2`: the manager has an OSD scrub PGs that it leads.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_SCRUB2, version = 1, compat = 1)]
pub struct OsdScrub2 {
    pub fsid: Uuid,
    pub epoch: u32,
    pub pgs: Vec<SpgId>,
    pub repair: bool,
    pub deep: bool,
}

/// `force_recovery`: the manager has an OSD recover PGs that it leads before others, or no longer.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_FORCE_RECOVERY, version = 1, compat = 1)]
pub struct OsdForceRecovery {
    pub fsid: Uuid,
    pub pgs: Vec<PgId>,
    /// Bits of [`OsdForceRecovery::RECOVERY`] and those behind it.
    pub options: u8,
}

impl OsdForceRecovery {
    pub const RECOVERY: u8 = 1;
    pub const BACKFILL: u8 = 2;
    /// No longer.
    pub const CANCEL: u8 = 4;
}

/// `osd_pg_created`: the PG is active for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_PG_CREATED, version = 1, compat = 1)]
pub struct OsdPgCreated {
    pub paxos: Paxos,
    pub pgid: PgId,
}

/// `pg_create2`: the mon tells a primary to create PGs (epoch and time of creation by PG). In
/// `pg_extra` are history and past intervals of those that are not created at once.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_PG_CREATE2, version = 2, compat = 1, priority = PRIO_HIGH)]
pub struct OsdPgCreate2 {
    pub epoch: u32,
    pub pgs: BTreeMap<SpgId, (u32, UTime)>,
    #[message(since = 2)]
    pub pg_extra: BTreeMap<SpgId, (PgHistory, Opaque)>,
}

/// `pg_stats`: an OSD's statistics for the manager. `had_map_for` is a leftover.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::PG_STATS, version = 2, compat = 1)]
pub struct PgStats {
    pub paxos: Paxos,
    pub fsid: Uuid,
    pub osd_stat: OsdStat,
    pub pg_stat: BTreeMap<PgId, PgStat>,
    pub epoch: u32,
    pub had_map_for: UTime,
    #[message(since = 2)]
    pub pool_stat: BTreeMap<i64, StoreStatfs>,
}

/// `pg_stats_ack`: by PG, the reported sequence and epoch that arrived.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::PG_STATS_ACK, version = 1, compat = 1)]
pub struct PgStatsAck {
    pub pg_stat: BTreeMap<PgId, (u64, u32)>,
}

/// What an [`OsdBackoff`] means.
pub mod backoff_op {
    pub const BLOCK: u8 = 1;
    pub const ACK_BLOCK: u8 = 2;
    pub const UNBLOCK: u8 = 3;
}

/// `osd_backoff`: ops on `[begin, end)` (or on `begin` if they are equal) have to wait.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::OSD_BACKOFF, version = 1, compat = 1)]
pub struct OsdBackoff {
    pub pgid: SpgId,
    pub map_epoch: u32,
    pub op: u8,
    pub id: u64,
    pub begin: HObject,
    pub end: HObject,
}

/// What a [`WatchNotify`] means.
pub mod watch_event {
    pub const NOTIFY: u8 = 1;
    pub const NOTIFY_COMPLETE: u8 = 2;
    pub const DISCONNECT: u8 = 3;
}

/// `watch-notify`: to a watcher, or to the notifier when all have answered.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::WATCH_NOTIFY, version = 3, compat = 1)]
pub struct WatchNotify {
    /// Always 1: the payload is present.
    pub payload_version: u8,
    pub opcode: u8,
    pub cookie: u64,
    pub ver: u64,
    pub notify_id: u64,
    pub payload: Bytes,
    #[message(since = 2)]
    pub return_code: i32,
    #[message(since = 3)]
    pub notifier_gid: u64,
    /// In `NOTIFY_COMPLETE`: the encoded acks (by gid and cookie) and the list of the missing.
    #[message(data)]
    pub acks: Bytes,
}

/// What an [`OsdPing`] means.
pub mod ping_op {
    pub const HEARTBEAT: u8 = 0;
    pub const START_HEARTBEAT: u8 = 1;
    pub const YOU_DIED: u8 = 2;
    pub const STOP_HEARTBEAT: u8 = 3;
    pub const PING: u8 = 4;
    pub const PING_REPLY: u8 = 5;
}

/// `osd_ping`: a heartbeat, padded so that it also tests large frames.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OsdPing {
    pub fsid: Uuid,
    pub map_epoch: u32,
    pub op: u8,
    pub ping_stamp: UTime,
    pub up_from: u32,
    pub mono_ping_stamp: TimeSpan,
    pub mono_send_stamp: TimeSpan,
    pub delta_ub: Option<TimeSpan>,
    /// Bytes of zeros at the end.
    pub padding: u32,
}

impl OsdPing {
    /// The most padding that is sent or believed.
    pub const MAX_PADDING: u32 = 64 << 10;
}

impl Message for OsdPing {
    const TYPE: u16 = types::OSD_PING;
    const VERSION: u16 = 5;
    const COMPAT_VERSION: u16 = 4;

    fn encode_payload(&self, f: Features) -> Payload {
        let mut out = Vec::new();
        let padding = self.padding.min(Self::MAX_PADDING);
        self.fsid.encode(&mut out, f);
        self.map_epoch.encode(&mut out, f);
        self.op.encode(&mut out, f);
        self.ping_stamp.encode(&mut out, f);
        padding.encode(&mut out, f);
        self.up_from.encode(&mut out, f);
        self.mono_ping_stamp.encode(&mut out, f);
        self.mono_send_stamp.encode(&mut out, f);
        self.delta_ub.encode(&mut out, f);
        out.resize(out.len() + padding as usize, 0);
        Payload { front: out.into(), ..Payload::default() }
    }

    fn decode_payload(header: &Header, payload: &Payload) -> Result<Self, DecodeError> {
        check_compat::<Self>("OsdPing", header)?;
        let r = &mut Reader::new(&payload.front);
        let (fsid, map_epoch, op) = (Uuid::decode(r)?, r.u32()?, r.u8()?);
        let (ping_stamp, padding) = (UTime::decode(r)?, r.u32()?);
        if padding > Self::MAX_PADDING {
            return Err(DecodeError::Invalid { what: "ping padding", value: padding.into() });
        }
        let mut ping = Self { fsid, map_epoch, op, ping_stamp, padding, ..Self::default() };
        if header.version >= 5 {
            ping.up_from = r.u32()?;
            ping.mono_ping_stamp = TimeSpan::decode(r)?;
            ping.mono_send_stamp = TimeSpan::decode(r)?;
            ping.delta_ub = Option::decode(r)?;
        }
        r.skip(padding as usize, "ping padding")?;
        Ok(ping)
    }
}
