//! Requests: what was asked, how it looks on the wire, and what came back.

use std::time::Duration;

use bytes::Bytes;
use spirula_wire::msg::command::{Command, CommandReply};
use spirula_wire::msg::osd_op::{OsdOp, OsdOpMsg, OsdOpReply, OsdOpResult, flag};
use spirula_wire::types::{EVersion, ObjectLocator, PgId, SnapContext, SnapId, SpgId, UTime, Uuid};
use spirula_wire::{Features, Message, RawMessage};

use super::Objecter;

const EAGAIN: i32 = -11;

/// What to do.
#[derive(Clone, Debug)]
pub enum Work {
    Op(OpRequest),
    /// `ceph tell`; `cmd` is one JSON object.
    Command {
        target: CommandTarget,
        cmd: String,
        inbl: Bytes,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandTarget {
    Osd(i32),
    /// Whichever OSD leads this PG.
    Pg(PgId),
}

#[derive(Clone, Debug)]
pub struct OpRequest {
    pub target: OpTarget,
    pub ops: Vec<OsdOp>,
    pub flags: u32,
    pub snap: SnapId,
    pub snapc: SnapContext,
    pub mtime: UTime,
}

#[derive(Clone, Debug)]
pub enum OpTarget {
    Object {
        locator: ObjectLocator,
        oid: Bytes,
    },
    /// A PG by itself; the seed may be a whole hash.
    Pg {
        pg: PgId,
        nspace: Bytes,
    },
}

/// What an OSD answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpReply {
    pub result: i32,
    pub ops: Vec<OsdOpResult>,
    pub user_version: u64,
    pub replay_version: EVersion,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Op(OpReply),
    Command(CommandReply),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    NoPool,
    NoOsd,
    TimedOut,
}

/// Where an OSD said that the object really is.
#[derive(Clone, Debug)]
pub(super) struct Redirected {
    pub(super) locator: ObjectLocator,
    pub(super) oid: Bytes,
}

/// A request and how far it is.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) work: Work,
    pub(super) deadline: Option<Duration>,
    pub(super) redirected: Option<Redirected>,
    /// A copy could not answer: it is for the primary.
    pub(super) bounced: bool,
    /// Whose session it belongs to.
    pub(super) osd: Option<i32>,
    pub(super) pg: SpgId,
    pub(super) hash: u32,
    pub(super) attempts: i32,
    /// When it went out on the present session.
    pub(super) sent_at: Option<Duration>,
}

/// Flags of reads that any copy may answer.
const ANY_COPY: u32 = flag::BALANCE_READS | flag::LOCALIZE_READS;

impl Op {
    /// Whether any copy may answer it.
    pub(super) fn is_for_any_copy(&self) -> bool {
        let Work::Op(request) = &self.work else { return false };
        let is_object = matches!(request.target, OpTarget::Object { .. });
        !self.bounced
            && is_object
            && request.flags & ANY_COPY != 0
            && request.flags & flag::WRITE == 0
    }

    pub(super) fn new(work: Work, deadline: Option<Duration>) -> Self {
        Self {
            work,
            deadline,
            redirected: None,
            bounced: false,
            osd: None,
            pg: SpgId::default(),
            hash: 0,
            attempts: 0,
            sent_at: None,
        }
    }

    /// The message for the next attempt.
    pub(super) fn encode(&self, tid: u64, epoch: u32, fsid: Uuid) -> RawMessage {
        let features = Features::PACIFIC;
        match &self.work {
            Work::Command { cmd, inbl, .. } => {
                Command { fsid, cmd: vec![cmd.clone()], inbl: inbl.clone() }.to_raw(tid, features)
            }
            Work::Op(request) => self.message(request, epoch, features).to_raw(tid, features),
        }
    }

    /// The place in the PG's order that a backoff is compared with.
    pub(super) fn message(&self, request: &OpRequest, epoch: u32, features: Features) -> OsdOpMsg {
        let (mut locator, mut oid) = match &request.target {
            OpTarget::Object { locator, oid } => (locator.clone(), oid.clone()),
            OpTarget::Pg { pg, nspace } => {
                let locator =
                    ObjectLocator { nspace: nspace.clone(), ..ObjectLocator::pool(pg.pool) };
                (locator, Bytes::new())
            }
        };
        let mut flags = request.flags | flag::KNOWN_REDIR;
        if let Some(redirected) = &self.redirected {
            locator = redirected.locator.clone();
            oid = redirected.oid.clone();
            flags |= flag::REDIRECTED | flag::IGNORE_CACHE | flag::IGNORE_OVERLAY;
        }
        if self.attempts > 0 {
            flags |= flag::RETRY;
        }
        if self.bounced {
            flags &= !ANY_COPY;
        }
        OsdOpMsg {
            spgid: self.pg,
            hash: self.hash,
            map_epoch: epoch,
            flags,
            mtime: request.mtime,
            locator,
            oid,
            ops: request.ops.clone(),
            snap: request.snap,
            snapc: request.snapc.clone(),
            retry_attempt: self.attempts,
            features: features.0,
            ..OsdOpMsg::default()
        }
    }
}

impl Objecter {
    pub(super) fn handle_op_reply(&mut self, now: Duration, osd: i32, tid: u64, reply: OsdOpReply) {
        let Some(op) = self.ops.get_mut(&tid).filter(|op| op.osd == Some(osd)) else {
            return;
        };
        // An answer to an earlier attempt says nothing about the present one.
        if reply.retry_attempt >= 0 && reply.retry_attempt != op.attempts - 1 {
            return;
        }
        if let (Some(redirect), Work::Op(request)) = (&reply.redirect, &op.work) {
            let oid = match &request.target {
                OpTarget::Object { oid, .. } if redirect.object.is_empty() => oid.clone(),
                _ => redirect.object.clone(),
            };
            op.redirected = Some(Redirected { locator: redirect.locator.clone(), oid });
            return self.replace(now, tid);
        }
        if reply.result == EAGAIN {
            op.bounced = true;
            return self.replace(now, tid);
        }
        let reply = OpReply {
            result: reply.result,
            ops: reply.ops,
            user_version: reply.user_version,
            replay_version: reply.replay_version,
        };
        self.finish(tid, Ok(Reply::Op(reply)));
    }

    pub(super) fn handle_command_reply(&mut self, osd: i32, tid: u64, reply: CommandReply) {
        let is_ours = |op: &Op| op.osd == Some(osd) && matches!(op.work, Work::Command { .. });
        if self.ops.get(&tid).is_some_and(is_ours) {
            self.finish(tid, Ok(Reply::Command(reply)));
        }
    }

    /// Finds a request's place anew and sends it there, even if it is the same.
    fn replace(&mut self, now: Duration, tid: u64) {
        self.unassign(tid);
        self.place(now, tid);
    }
}
