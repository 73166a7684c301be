//! Requests that a monitor answers: kept until answered and sent again on each new session.

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_wire::msg::Paxos;
use spirula_wire::msg::mon::{
    GetPoolStats, GetPoolStatsReply, MonCommand, MonCommandAck, MonGetVersion, MonGetVersionReply,
    PoolOp, PoolOpReply, Statfs, StatfsReply,
};
use spirula_wire::msg::types;
use spirula_wire::types::{SnapId, Uuid};
use spirula_wire::{DecodeError, Features, Message, RawMessage};

/// A question to the monitors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `cmd` is one JSON object.
    Command {
        cmd: String,
        inbl: Bytes,
    },
    /// Newest and oldest version of a map (`osdmap`, `monmap`, `mgrmap`, ..).
    GetVersion {
        what: String,
    },
    PoolOp(PoolRequest),
    /// Of the whole cluster, or of one pool.
    Statfs {
        pool: Option<i64>,
    },
    PoolStats {
        pools: Vec<String>,
    },
}

/// The fields of a `pool_op` that vary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolRequest {
    pub pool: u32,
    /// `wire::msg::mon::pool_op`.
    pub op: u32,
    pub snap: SnapId,
    pub name: String,
    pub crush_rule: i16,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `version` is that of the map the command changed.
    Command {
        r: i32,
        rs: String,
        outbl: Bytes,
        version: u64,
    },
    Version {
        newest: u64,
        oldest: u64,
    },
    PoolOp {
        r: i32,
        epoch: u32,
        data: Option<Bytes>,
    },
    Statfs(StatfsReply),
    PoolStats(GetPoolStatsReply),
}

#[derive(Default)]
pub(crate) struct Requests {
    pending: BTreeMap<u64, Pending>,
}

struct Pending {
    request: Request,
    sent: bool,
}

impl Requests {
    pub(crate) fn add(&mut self, tid: u64, request: Request) {
        self.pending.insert(tid, Pending { request, sent: false });
    }

    pub(crate) fn cancel(&mut self, tid: u64) -> bool {
        self.pending.remove(&tid).is_some()
    }

    pub(crate) fn is_pending(&self, tid: u64) -> bool {
        self.pending.contains_key(&tid)
    }

    /// A new session knows of nothing.
    pub(crate) fn reset(&mut self) {
        self.pending.values_mut().for_each(|p| p.sent = false);
    }

    /// The messages that the session lacks, in the order of the requests.
    pub(crate) fn unsent(&mut self, fsid: Uuid) -> Vec<RawMessage> {
        let unsent = self.pending.iter_mut().filter(|(_, p)| !p.sent);
        unsent
            .map(|(tid, pending)| {
                pending.sent = true;
                encode(*tid, &pending.request, fsid)
            })
            .collect()
    }

    /// Matches an answer with its request. `None`: not an answer, or to nothing we asked.
    pub(crate) fn answered(
        &mut self,
        raw: &RawMessage,
    ) -> Result<Option<(u64, Reply)>, DecodeError> {
        let mut tid = raw.header.tid;
        let reply = match raw.header.type_ {
            types::MON_COMMAND_ACK => {
                let m = MonCommandAck::from_raw(raw)?;
                Reply::Command { r: m.r, rs: m.rs, outbl: m.outbl, version: m.paxos.version }
            }
            types::MON_GET_VERSION_REPLY => {
                let m = MonGetVersionReply::from_raw(raw)?;
                tid = m.handle;
                Reply::Version { newest: m.version, oldest: m.oldest_version }
            }
            types::POOL_OP_REPLY => {
                let m = PoolOpReply::from_raw(raw)?;
                Reply::PoolOp { r: m.reply_code, epoch: m.epoch, data: m.response_data }
            }
            types::STATFS_REPLY => Reply::Statfs(StatfsReply::from_raw(raw)?),
            types::GET_POOL_STATS_REPLY => Reply::PoolStats(GetPoolStatsReply::from_raw(raw)?),
            _ => return Ok(None),
        };
        let fits = self.pending.get(&tid).is_some_and(|p| p.sent && reply.answers(&p.request));
        Ok((fits && self.cancel(tid)).then_some((tid, reply)))
    }
}

impl Reply {
    fn answers(&self, request: &Request) -> bool {
        matches!(
            (self, request),
            (Self::Command { .. }, Request::Command { .. })
                | (Self::Version { .. }, Request::GetVersion { .. })
                | (Self::PoolOp { .. }, Request::PoolOp(_))
                | (Self::Statfs(_), Request::Statfs { .. })
                | (Self::PoolStats(_), Request::PoolStats { .. })
        )
    }
}

fn encode(tid: u64, request: &Request, fsid: Uuid) -> RawMessage {
    let f = Features::PACIFIC;
    let paxos = Paxos::default();
    match request.clone() {
        Request::Command { cmd, inbl } => {
            MonCommand { paxos, fsid, cmd: vec![cmd], inbl }.to_raw(tid, f)
        }
        Request::GetVersion { what } => MonGetVersion { handle: tid, what }.to_raw(tid, f),
        Request::PoolOp(p) => PoolOp {
            paxos,
            fsid,
            pool: p.pool,
            op: p.op,
            auid: 0,
            snapid: p.snap,
            name: p.name,
            pad: 0,
            crush_rule: p.crush_rule,
        }
        .to_raw(tid, f),
        Request::Statfs { pool } => Statfs { paxos, fsid, data_pool: pool }.to_raw(tid, f),
        Request::PoolStats { pools } => GetPoolStats { paxos, fsid, pools }.to_raw(tid, f),
    }
}
