//! The only place that knows the wire form of a request: decodes `osd_op`, encodes its reply.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use spirula_msgr::on_xstream::Incoming;
use spirula_wire::msg::osd_op::{OsdOpMsg, OsdOpReply, OsdOpResult, flag};
use spirula_wire::types::{EVersion, PgLogDup, RequestId};
use spirula_wire::{DecodeError, Message, RawMessage};

use crate::op::OpClass;
use crate::plan::untouched_outputs;
use crate::session::Session;

/// A decoded request, not yet admitted.
#[derive(Debug)]
pub struct OpRequest {
    pub msg: OsdOpMsg,
    pub tid: u64,
    pub reqid: RequestId,
    pub class: OpClass,
    pub received: Duration,
    pub session: Rc<Session>,
    /// Holds the message's share of the dispatch throttle.
    incoming: Incoming,
}

impl OpRequest {
    /// Decodes without touching the payload.
    pub fn decode(
        incoming: Incoming,
        session: Rc<Session>,
        received: Duration,
    ) -> Result<Self, DecodeError> {
        let msg = OsdOpMsg::from_raw(&incoming.raw)?;
        let tid = incoming.raw.header.tid;
        Ok(Self {
            reqid: msg.request_id(session.entity, tid),
            class: OpClass::of(&msg.ops),
            tid,
            received,
            session,
            incoming,
            msg,
        })
    }

    /// Checksums of each 4 KiB of the data segment.
    pub fn data_crcs(&self) -> &[u32] {
        &self.incoming.data_crcs
    }

    /// The input of an operation that is the whole data segment, so that the messenger's checksums
    /// of the segment are those of its data.
    pub fn whole_data(&self) -> Option<&Bytes> {
        let mut inputs = self.msg.ops.iter().map(|o| &o.indata).filter(|data| !data.is_empty());
        inputs.next().filter(|_| inputs.next().is_none())
    }

    /// Sends the reply. It leaves with whatever else this turn of the loop queues.
    pub fn answer(&self, reply: Reply, map_epoch: u32) {
        self.session.link.send(reply.encode(self, map_epoch));
        if !self.session.after_reply.borrow().is_empty() {
            let behind = self.session.after_reply.take();
            behind.into_iter().for_each(|message| self.session.link.send(message));
        }
    }
}

/// What a request is answered with.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub result: i32,
    pub outputs: Vec<OsdOpResult>,
    pub versions: Versions,
    /// Where in its page the data begins, for the receiver's alignment.
    pub data_offset: u64,
    /// CRC-32C of all outputs together, if known already.
    pub data_crc: Option<u32>,
    /// A request that was not executed echoes the client's ack flags, all others set both.
    pub executed: bool,
}

/// The three version fields of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Versions {
    pub replay: EVersion,
    pub bad_replay: EVersion,
    pub user: u64,
}

impl Versions {
    /// Of an object that exists. Old clients look only at `bad_replay`.
    pub fn of(replay: EVersion, user: u64) -> Self {
        let version = if user == 0 { replay.version } else { user };
        Self { replay, bad_replay: EVersion { version, ..replay }, user }
    }

    /// Of an absent object: a floor for its next user version.
    pub fn absent(self, last_update: EVersion, last_user: u64) -> Self {
        Self { bad_replay: last_update, user: last_user, ..self }
    }
}

impl Reply {
    /// A refusal before anything was executed; `errno` is negative.
    pub fn refusal(request: &OpRequest, errno: i32) -> Self {
        Self {
            result: errno,
            outputs: untouched_outputs(&request.msg.ops),
            versions: Versions::default(),
            data_offset: 0,
            data_crc: None,
            executed: false,
        }
    }

    /// The recorded answer of a repeated request.
    pub fn recorded(request: &OpRequest, dup: &PgLogDup) -> Self {
        let mut reply = Self::refusal(request, dup.result);
        reply.versions = Versions::of(dup.version, dup.user_version);
        for (out, (rval, data)) in reply.outputs.iter_mut().zip(&dup.returns) {
            out.rval = *rval;
            out.outdata = vec![data.clone()];
        }
        reply
    }

    fn encode(self, request: &OpRequest, map_epoch: u32) -> RawMessage {
        const ACKS: u32 = flag::ACK | flag::ONNVRAM | flag::ONDISK;
        let msg = &request.msg;
        let done = flag::ACK | flag::ONDISK;
        let acks = if self.executed { done } else { msg.flags & done };
        let reply = OsdOpReply {
            oid: msg.oid.clone(),
            pgid: msg.spgid.pgid,
            flags: i64::from(msg.flags & !ACKS | acks),
            result: self.result,
            bad_replay_version: self.versions.bad_replay,
            map_epoch,
            ops: self.outputs,
            retry_attempt: msg.retry_attempt,
            replay_version: self.versions.replay,
            user_version: self.versions.user,
            ..OsdOpReply::default()
        };
        let mut raw = reply.to_raw(request.tid, request.session.features);
        raw.header.data_off = self.data_offset as u16;
        raw.payload.data_crc = self.data_crc;
        raw
    }
}

/// What of a reply's outputs the log keeps for repetitions.
pub fn returns_of(outputs: &[OsdOpResult]) -> Vec<(i32, Bytes)> {
    outputs.iter().map(|o| (o.rval, o.outdata.concat().into())).collect()
}
