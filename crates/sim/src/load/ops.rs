//! Requests of the model as RADOS operations, and their replies as answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_client::objecter::OpReply;
use spirula_wire::msg::ops::{OpArgs, OpCode, cmpxattr_mode, cmpxattr_op, op_flag};
use spirula_wire::msg::osd_op::OsdOp;
use spirula_wire::types::{SnapContext, SnapId};
use spirula_wire::{Decode, Encode, Features, Reader};

use crate::check::{Answer, Output, Request, Snaps, Step};
use crate::{Client, Cluster};

const F: Features = Features::PACIFIC;

/// `None`: the client does not know what came of it.
pub(super) async fn carry_out(client: &Client, object: &str, request: &Request) -> Option<Answer> {
    let ops = request.steps.iter().map(op).collect();
    let snaps = match &request.snaps {
        Snaps::Head => (SnapId::HEAD, SnapContext::default()),
        Snaps::At(snap) => (SnapId(*snap), SnapContext::default()),
        Snaps::Context { seq, snaps } => {
            let snaps = snaps.iter().copied().map(SnapId).collect();
            (SnapId::HEAD, SnapContext { seq: SnapId(*seq), snaps })
        }
    };
    let reply = client.op_at(Cluster::POOL, object, ops, request.writes(), snaps).await.ok()?;
    Some(answer(request, &reply))
}

fn op(step: &Step) -> OsdOp {
    let plain = |code| OsdOp::new(code, OpArgs::default(), Bytes::new());
    let data = |code, at, data: &Bytes| {
        OsdOp::new(code, OpArgs::extent(at, data.len() as u64), data.clone())
    };
    let encoded = |code, input: Vec<u8>| OsdOp::new(code, OpArgs::default(), input.into());
    match step {
        Step::Read => OsdOp::new(OpCode::READ, OpArgs::extent(0, 0), Bytes::new()),
        Step::Stat => plain(OpCode::STAT),
        Step::GetXattrs => plain(OpCode::GETXATTRS),
        Step::GetOmap => {
            let mut input = "".to_bytes(F);
            u64::MAX.encode(&mut input, F);
            "".encode(&mut input, F);
            encoded(OpCode::OMAP_GET_VALS, input)
        }
        Step::Guard(name, value) => xattr(OpCode::CMPXATTR, name, value),
        Step::Write(at, bytes) => data(OpCode::WRITE, *at, bytes),
        Step::WriteFull(bytes) => data(OpCode::WRITEFULL, 0, bytes),
        Step::Append(bytes) => data(OpCode::APPEND, 0, bytes),
        Step::Truncate(size) => {
            OsdOp::new(OpCode::TRUNCATE, OpArgs::extent(*size, 0), Bytes::new())
        }
        Step::Create => {
            let mut create = plain(OpCode::CREATE);
            create.flags |= op_flag::EXCL;
            create
        }
        Step::Delete => plain(OpCode::DELETE),
        Step::SetXattr(name, value) => xattr(OpCode::SETXATTR, name, value),
        Step::OmapSet(pairs) => encoded(OpCode::OMAP_SET_VALS, pairs.to_bytes(F)),
        Step::OmapRemove(keys) => {
            let keys: std::collections::BTreeSet<String> = keys.iter().cloned().collect();
            encoded(OpCode::OMAP_RM_KEYS, keys.to_bytes(F))
        }
        Step::OmapClear => plain(OpCode::OMAP_CLEAR),
        Step::Rollback(snap) => {
            OsdOp::new(OpCode::ROLLBACK, OpArgs::Snap { snapid: SnapId(*snap) }, Bytes::new())
        }
    }
}

fn xattr(code: OpCode, name: &str, value: &Bytes) -> OsdOp {
    let args = OpArgs::Xattr {
        name_len: name.len() as u32,
        value_len: value.len() as u32,
        cmp_op: cmpxattr_op::EQ,
        cmp_mode: cmpxattr_mode::STRING,
    };
    OsdOp::new(code, args, [name.as_bytes(), value].concat().into())
}

/// What does not decode is an empty output, which no model explains.
fn answer(request: &Request, reply: &OpReply) -> Answer {
    let result = reply.result.min(0);
    if result < 0 {
        return Answer { result, outputs: Vec::new(), version: 0 };
    }
    let mut outputs = Vec::new();
    let ops = reply.ops.iter().map(|op| Bytes::from(op.outdata.concat()));
    for (step, raw) in request.steps.iter().zip(ops).filter(|_| !request.writes()) {
        outputs.extend(output(step, raw));
    }
    Answer { result, outputs, version: reply.user_version }
}

fn output(step: &Step, raw: Bytes) -> Option<Output> {
    let mut r = Reader::new(&raw);
    Some(match step {
        Step::Stat => Output::Size(r.u64().ok()?),
        Step::GetXattrs | Step::GetOmap => Output::Pairs(BTreeMap::decode(&mut r).ok()?),
        Step::Read => Output::Data(raw),
        _ => return None,
    })
}
