//! Messages between a client (or daemon) and a monitor, except authentication.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::denc::Reader;
use crate::message::PRIO_HIGH;
use crate::msg::{Paxos, types};
use crate::types::{EntityAddrVec, EntityName, EntityNameStr, PoolStat, SnapId, UTime, Uuid};
use crate::{DecodeError, Denc, Encode, Features, Header, Message, Payload};

/// `mon_getmap`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MON_GETMAP, version = 1, compat = 1)]
pub struct MonGetMap {}

/// `mon_get_osdmap`: the maps, and the increments, of ranges of epochs; 0: none. Answered by an
/// `osd_map` with those that are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MON_GET_OSDMAP, version = 1, compat = 1)]
pub struct MonGetOsdMap {
    pub paxos: Paxos,
    pub full_first: u32,
    pub full_last: u32,
    pub inc_first: u32,
    pub inc_last: u32,
}

/// `mon_map`: an encoded MonMap.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MON_MAP, version = 1, compat = 1, priority = PRIO_HIGH)]
pub struct MonMapMsg {
    pub monmap: Bytes,
}

/// One wish of a [`MonSubscribe`]: everything from version `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Denc)]
pub struct SubscribeItem {
    pub start: u64,
    pub flags: u8,
}

impl SubscribeItem {
    pub const ONETIME: u8 = 1;

    pub fn onetime(&self) -> bool {
        self.flags & Self::ONETIME != 0
    }
}

/// `mon_subscribe`: by name of what is wanted (`osdmap`, `monmap`, `config`, ...).
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MON_SUBSCRIBE, version = 3, compat = 1, oldest = 2)]
pub struct MonSubscribe {
    pub what: BTreeMap<String, SubscribeItem>,
    #[message(since = 3)]
    pub hostname: String,
}

/// `mon_subscribe_ack`: only old clients, without stateful subscriptions, need it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MON_SUBSCRIBE_ACK, version = 1, compat = 1, priority = PRIO_HIGH)]
pub struct MonSubscribeAck {
    pub interval: u32,
    pub fsid: Uuid,
}

/// `mon_command`: `cmd` is one JSON object (several strings are joined).
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MON_COMMAND, version = 1, compat = 1)]
pub struct MonCommand {
    pub paxos: Paxos,
    pub fsid: Uuid,
    pub cmd: Vec<String>,
    #[message(data)]
    pub inbl: Bytes,
}

/// `mon_command_ack`: the command is repeated, the output is the data.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MON_COMMAND_ACK, version = 1, compat = 1, priority = PRIO_HIGH)]
pub struct MonCommandAck {
    pub paxos: Paxos,
    pub r: i32,
    pub rs: String,
    pub cmd: Vec<String>,
    #[message(data)]
    pub outbl: Bytes,
}

/// `mon_get_version`: `what` is `osdmap`, `monmap`, ...
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MON_GET_VERSION, version = 1, compat = 1)]
pub struct MonGetVersion {
    pub handle: u64,
    pub what: String,
}

/// `mon_get_version_reply`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MON_GET_VERSION_REPLY, version = 2, compat = 2, priority = PRIO_HIGH)]
pub struct MonGetVersionReply {
    pub handle: u64,
    pub version: u64,
    #[message(since = 2)]
    pub oldest_version: u64,
}

/// `mon_peer`: what our monitors tell each other, in place of Ceph's elections and Paxos. Numbers
/// are those of the quorum; the body is the monitor's own (`docs/protocol-mon.md`) and may be longer
/// than what a front holds.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::MON_PEER, version = 2, compat = 2, oldest = 2, priority = PRIO_HIGH)]
pub struct MonPeer {
    pub from: u64,
    /// 0: whoever gets it.
    pub to: u64,
    /// Name of the sender.
    pub name: String,
    #[message(data)]
    pub body: Bytes,
}

/// `statfs`: of the cluster, or of the pool that a file system's data is in.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::STATFS, version = 2, compat = 1)]
pub struct Statfs {
    pub paxos: Paxos,
    pub fsid: Uuid,
    #[message(since = 2)]
    pub data_pool: Option<i64>,
}

/// `statfs_reply`: sizes in KiB.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::STATFS_REPLY, version = 1, compat = 1, priority = PRIO_HIGH)]
pub struct StatfsReply {
    pub fsid: Uuid,
    pub version: u64,
    pub kb: u64,
    pub kb_used: u64,
    pub kb_avail: u64,
    pub num_objects: u64,
}

/// `getpoolstats`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::GET_POOL_STATS, version = 1, compat = 1)]
pub struct GetPoolStats {
    pub paxos: Paxos,
    pub fsid: Uuid,
    pub pools: Vec<String>,
}

/// `getpoolstatsreply`: `per_pool` says that `store_stats` are by pool, as all current OSDs report.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::GET_POOL_STATS_REPLY, version = 2, compat = 1, priority = PRIO_HIGH)]
pub struct GetPoolStatsReply {
    pub paxos: Paxos,
    pub fsid: Uuid,
    pub pool_stats: BTreeMap<String, PoolStat>,
    #[message(since = 2)]
    pub per_pool: bool,
}

/// What a [`PoolOp`] asks for (`POOL_OP_*`).
pub mod pool_op {
    pub const CREATE: u32 = 0x01;
    pub const DELETE: u32 = 0x02;
    pub const AUID_CHANGE: u32 = 0x03;
    pub const CREATE_SNAP: u32 = 0x11;
    pub const DELETE_SNAP: u32 = 0x12;
    pub const CREATE_UNMANAGED_SNAP: u32 = 0x21;
    pub const DELETE_UNMANAGED_SNAP: u32 = 0x22;
}

/// `pool_op`. `auid` and `pad` are leftovers of older versions.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::POOL_OP, version = 4, compat = 2, oldest = 4)]
pub struct PoolOp {
    pub paxos: Paxos,
    pub fsid: Uuid,
    pub pool: u32,
    pub op: u32,
    pub auid: u64,
    pub snapid: SnapId,
    pub name: String,
    pub pad: u8,
    pub crush_rule: i16,
}

/// `pool_op_reply`: the caller waits for the OSDMap of `epoch`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::POOL_OP_REPLY, version = 1, compat = 1, priority = PRIO_HIGH)]
pub struct PoolOpReply {
    pub paxos: Paxos,
    pub fsid: Uuid,
    pub reply_code: i32,
    pub epoch: u32,
    pub response_data: Option<Bytes>,
}

impl PoolOpReply {
    /// The id that `CREATE_UNMANAGED_SNAP` returns.
    pub fn with_snap(self, id: SnapId) -> Self {
        Self { response_data: Some(id.to_bytes(Features::default()).into()), ..self }
    }
}

/// `config`: the options of the mon's database that concern this client.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::CONFIG, version = 1, compat = 1, priority = PRIO_HIGH)]
pub struct Config {
    pub config: BTreeMap<String, String>,
}

/// `get_config`: answered by a [`Config`].
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::GET_CONFIG, version = 1, compat = 1)]
pub struct GetConfig {
    pub name: EntityNameStr,
    pub host: String,
    pub device_class: String,
}

/// Severity of a [`LogEntry`] (`clog_type`).
pub mod log_priority {
    pub const DEBUG: u16 = 0;
    pub const INFO: u16 = 1;
    pub const SEC: u16 = 2;
    pub const WARN: u16 = 3;
    pub const ERROR: u16 = 4;
}

/// One line of the cluster log.
#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 5, compat = 5, oldest = 5)]
pub struct LogEntry {
    pub name: EntityNameStr,
    pub rank: EntityName,
    pub addrs: EntityAddrVec,
    pub stamp: UTime,
    pub seq: u64,
    pub prio: u16,
    pub msg: String,
    pub channel: String,
}

/// `log`: to the mon for the cluster log, or from it to whoever subscribed to `log-info` and such.
#[derive(Clone, Debug, PartialEq, Eq, Default, Message)]
#[message(ty = types::LOG, version = 1, compat = 1)]
pub struct Log {
    pub paxos: Paxos,
    pub fsid: Uuid,
    pub entries: Vec<LogEntry>,
}

/// `log_ack`: entries up to `last` are in the cluster log.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LogAck {
    pub fsid: Uuid,
    pub last: u64,
    pub channel: String,
}

/// By hand, because the channel may be missing at the same version.
impl Message for LogAck {
    const TYPE: u16 = types::LOG_ACK;
    const VERSION: u16 = 1;
    const COMPAT_VERSION: u16 = 1;

    fn encode_payload(&self, f: Features) -> Payload {
        let mut front = Vec::new();
        self.fsid.encode(&mut front, f);
        self.last.encode(&mut front, f);
        self.channel.encode(&mut front, f);
        Payload { front: front.into(), ..Payload::default() }
    }

    fn decode_payload(header: &Header, payload: &Payload) -> Result<Self, DecodeError> {
        use crate::Decode;
        crate::message::check_compat::<Self>("LogAck", header)?;
        let mut r = Reader::new(&payload.front);
        let (fsid, last) = (Uuid::decode(&mut r)?, r.u64()?);
        let channel = if r.is_empty() { String::new() } else { String::decode(&mut r)? };
        Ok(Self { fsid, last, channel })
    }
}
