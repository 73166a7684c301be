//! Messages, one file per family, and the table of all message numbers.
//!
//! Source of the formats: Ceph's `messages/*.h`, `msg/Message.h`, `include/ceph_fs.h` (v16). To add
//! a message: a row here, a struct in its family, a word in `fuzzing`.

pub mod auth;
pub mod command;
pub mod copies;
pub mod mgr;
pub mod mon;
pub mod ops;
pub mod osd;
pub mod osd_op;
pub mod perf;
pub mod pg;
pub mod repop;
pub mod scrub;

use crate::Denc;

macro_rules! message_types {
    ($($konst:ident = $number:literal, $name:literal;)*) => {
        /// Message numbers.
        pub mod types {
            $(pub const $konst: u16 = $number;)*
        }

        /// The name that Ceph's logs use for a message number.
        pub fn name(type_: u16) -> &'static str {
            match type_ {
                $($number => $name,)*
                _ => "unknown",
            }
        }
    };
}

message_types! {
    PING = 2, "ping";
    MON_MAP = 4, "mon_map";
    MON_GETMAP = 5, "mon_getmap";
    MON_GET_OSDMAP = 6, "mon_get_osdmap";
    STATFS = 13, "statfs";
    STATFS_REPLY = 14, "statfs_reply";
    MON_SUBSCRIBE = 15, "mon_subscribe";
    MON_SUBSCRIBE_ACK = 16, "mon_subscribe_ack";
    AUTH = 17, "auth";
    AUTH_REPLY = 18, "auth_reply";
    MON_GET_VERSION = 19, "mon_get_version";
    MON_GET_VERSION_REPLY = 20, "mon_get_version_reply";
    MDS_MAP = 21, "mdsmap";
    PAXOS = 40, "paxos";
    OSD_MAP = 41, "osd_map";
    OSD_OP = 42, "osd_op";
    OSD_OP_REPLY = 43, "osd_op_reply";
    WATCH_NOTIFY = 44, "watch-notify";
    FS_MAP = 45, "fsmap";
    FORWARD = 46, "forward";
    ROUTE = 47, "route";
    POOL_OP_REPLY = 48, "pool_op_reply";
    POOL_OP = 49, "pool_op";
    MON_COMMAND = 50, "mon_command";
    MON_COMMAND_ACK = 51, "mon_command_ack";
    LOG = 52, "log";
    LOG_ACK = 53, "log_ack";
    KV_DATA = 54, "kv_data";
    GET_POOL_STATS = 58, "getpoolstats";
    GET_POOL_STATS_REPLY = 59, "getpoolstatsreply";
    MON_GLOBAL_ID = 60, "global_id";
    OSD_BACKOFF = 61, "osd_backoff";
    CONFIG = 62, "config";
    GET_CONFIG = 63, "get_config";
    MON_ELECTION = 65, "election";
    MON_PAXOS = 66, "mon_paxos";
    MON_PROBE = 67, "mon_probe";
    MON_JOIN = 68, "mon_join";
    MON_SYNC = 69, "mon_sync";
    OSD_PING = 70, "osd_ping";
    OSD_BOOT = 71, "osd_boot";
    OSD_FAILURE = 72, "osd_failure";
    OSD_ALIVE = 73, "osd_alive";
    OSD_MARK_ME_DOWN = 74, "osd_mark_me_down";
    OSD_FULL = 75, "osd_full";
    MON_GET_PURGED_SNAPS = 76, "mon_get_purged_snaps";
    MON_GET_PURGED_SNAPS_REPLY = 77, "mon_get_purged_snaps_reply";
    OSD_PGTEMP = 78, "osd_pgtemp";
    OSD_BEACON = 79, "osd_beacon";
    OSD_PG_NOTIFY = 80, "pg_notify";
    OSD_PG_LOG = 83, "pg_log";
    OSD_PG_REMOVE = 84, "pg_remove";
    OSD_PG_TRIM = 86, "pg_trim";
    PG_STATS = 87, "pg_stats";
    PG_STATS_ACK = 88, "pg_stats_ack";
    OSD_PG_SCAN = 94, "pg_scan";
    OSD_PG_BACKFILL = 95, "pg_backfill";
    COMMAND = 97, "command";
    COMMAND_REPLY = 98, "command_reply";
    OSD_BACKFILL_RESERVE = 99, "backfill_reserve";
    MDS_BEACON = 100, "mdsbeacon";
    FS_MAP_USER = 103, "fsmap.user";
    OSD_REPOP = 112, "osd_repop";
    OSD_REPOP_REPLY = 113, "osd_repop_reply";
    OSD_PG_CREATED = 116, "osd_pg_created";
    OSD_PG_CREATE2 = 120, "pg_create2";
    OSD_SCRUB2 = 121, "scrub2";
    OSD_MARK_ME_DEAD = 123, "osd_mark_me_dead";
    OSD_PG_NOTIFY2 = 130, "pg_notify2";
    OSD_PG_QUERY2 = 131, "pg_query2";
    OSD_PG_INFO2 = 132, "pg_info2";
    OSD_PG_LEASE = 133, "pg_lease";
    OSD_PG_LEASE_ACK = 134, "pg_lease_ack";
    MON_PING = 140, "mon_ping";
    OSD_RECOVERY_RESERVE = 150, "recovery_reserve";
    OSD_FORCE_RECOVERY = 151, "force_recovery";
    TIMECHECK2 = 0x609, "timecheck2";
    MON_HEALTH_CHECKS = 0x608, "mon_health_checks";
    MGR_OPEN = 0x700, "mgropen";
    MGR_CONFIGURE = 0x701, "mgrconfigure";
    MGR_REPORT = 0x702, "mgrreport";
    MGR_BEACON = 0x703, "mgrbeacon";
    MGR_MAP = 0x704, "mgrmap";
    MGR_DIGEST = 0x705, "mgrdigest";
    MON_MGR_REPORT = 0x706, "monmgrreport";
    SERVICE_MAP = 0x707, "service_map";
    MGR_CLOSE = 0x708, "mgrclose";
    MGR_COMMAND = 0x709, "mgr_command";
    MGR_COMMAND_REPLY = 0x70a, "mgr_command_reply";
    REP_OP = 0x5310, "rep_op";
    REP_OP_REPLY = 0x5311, "rep_op_reply";
    MON_PEER = 0xf100, "mon_peer";
    OBJECT_PUSH = 0xf101, "object_push";
    OBJECT_PUSH_REPLY = 0xf102, "object_push_reply";
    OBJECT_PULL = 0xf103, "object_pull";
    OBJECT_SCAN = 0xf104, "object_scan";
    OBJECT_SCAN_REPLY = 0xf105, "object_scan_reply";
    SCRUB_RESERVE = 0xf106, "scrub_reserve";
    SCRUB_REQUEST = 0xf107, "scrub_request";
    SCRUB_MAP = 0xf108, "scrub_map";
    SCRUB_REPAIR = 0xf109, "scrub_repair";
}

/// What every message of a mon service begins with (`PaxosServiceMessage`). `version` is what the
/// sender has (or, in a reply, what the mon has); the rest is unused but still on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Denc)]
pub struct Paxos {
    pub version: u64,
    pub session_mon: i16,
    pub session_mon_tid: u64,
}

impl Paxos {
    pub fn at(version: u64) -> Self {
        Self { version, ..Self::default() }
    }
}

impl Default for Paxos {
    fn default() -> Self {
        Self { version: 0, session_mon: -1, session_mon_tid: 0 }
    }
}
