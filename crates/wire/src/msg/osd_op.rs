//! `osd_op` and `osd_op_reply`: a client's request to the primary of a PG, and the answer.
//!
//! Invariants: decoding parses `front` only. Input and output bytes of the ops are slices of the
//! one data buffer (received) or pieces of its gather list (sent): never copied here.

use bytes::Bytes;

use crate::denc::encode_versioned;
use crate::message::check_compat;
use crate::msg::ops::{OpArgs, OpCode};
use crate::msg::types;
use crate::types::{
    EVersion, EntityName, HObject, ObjectLocator, PgId, RequestId, SnapContext, SnapId, SpgId,
    UTime,
};
use crate::{Decode, DecodeError, Denc, Encode, Features, Header, Message, Payload, Reader};

/// Flags of a whole request (`CEPH_OSD_FLAG_*`).
pub mod flag {
    pub const ACK: u32 = 0x1;
    pub const ONNVRAM: u32 = 0x2;
    pub const ONDISK: u32 = 0x4;
    pub const RETRY: u32 = 0x8;
    pub const READ: u32 = 0x10;
    pub const WRITE: u32 = 0x20;
    /// Refuse an old snapshot context.
    pub const ORDERSNAP: u32 = 0x40;
    pub const PEERSTAT_OLD: u32 = 0x80;
    pub const BALANCE_READS: u32 = 0x100;
    pub const PARALLELEXEC: u32 = 0x200;
    pub const PGOP: u32 = 0x400;
    pub const EXEC: u32 = 0x800;
    pub const EXEC_PUBLIC: u32 = 0x1000;
    pub const LOCALIZE_READS: u32 = 0x2000;
    pub const RWORDERED: u32 = 0x4000;
    pub const IGNORE_CACHE: u32 = 0x8000;
    pub const SKIPRWLOCKS: u32 = 0x1_0000;
    pub const IGNORE_OVERLAY: u32 = 0x2_0000;
    pub const FLUSH: u32 = 0x4_0000;
    pub const MAP_SNAP_CLONE: u32 = 0x8_0000;
    pub const ENFORCE_SNAPC: u32 = 0x10_0000;
    pub const REDIRECTED: u32 = 0x20_0000;
    pub const KNOWN_REDIR: u32 = 0x40_0000;
    pub const FULL_TRY: u32 = 0x80_0000;
    pub const FULL_FORCE: u32 = 0x100_0000;
    pub const IGNORE_REDIRECT: u32 = 0x200_0000;
    /// A write may return data and a positive result.
    pub const RETURNVEC: u32 = 0x400_0000;
}

/// Bytes of one encoded op.
const OP_SIZE: usize = 38;

/// One operation of a request.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OsdOp {
    pub code: OpCode,
    /// [`op_flag`](crate::msg::ops::op_flag).
    pub flags: u32,
    pub args: OpArgs,
    pub indata: Bytes,
}

impl OsdOp {
    pub fn new(code: OpCode, args: OpArgs, indata: Bytes) -> Self {
        Self { code, flags: 0, args, indata }
    }
}

/// Trace ids (`blkin_trace_info`): zeros when nothing traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Denc)]
pub struct Trace {
    pub trace_id: i64,
    pub span_id: i64,
    pub parent_span_id: i64,
}

/// `osd_op`. Version 8 is sent; 7 (clients that do not resend on a PG split) and 9 (Squid among
/// itself) are accepted too.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OsdOpMsg {
    pub spgid: SpgId,
    /// Of the object's name, not reduced to the PG count.
    pub hash: u32,
    pub map_epoch: u32,
    /// [`flag`].
    pub flags: u32,
    /// Empty unless the sender asks for another; see [`OsdOpMsg::request_id`].
    pub reqid: RequestId,
    pub trace: Trace,
    pub client_inc: u32,
    pub mtime: UTime,
    pub locator: ObjectLocator,
    pub oid: Bytes,
    pub ops: Vec<OsdOp>,
    pub snap: SnapId,
    pub snapc: SnapContext,
    /// -1 when not known, 0 for the first attempt.
    pub retry_attempt: i32,
    pub features: u64,
}

impl OsdOpMsg {
    /// The object meant, with its place in the PG's order.
    pub fn object(&self) -> HObject {
        HObject {
            // A key equal to the name means no key.
            key: if self.locator.key == self.oid { Bytes::new() } else { self.locator.key.clone() },
            oid: self.oid.clone(),
            snap: self.snap,
            hash: self.hash,
            max: false,
            nspace: self.locator.nspace.clone(),
            pool: self.spgid.pgid.pool,
        }
    }

    /// What identifies this request for ever, retries included.
    pub fn request_id(&self, source: EntityName, tid: u64) -> RequestId {
        if self.reqid.name != EntityName::default() || self.reqid.tid != 0 {
            return self.reqid;
        }
        RequestId { name: source, tid, inc: self.reqid.inc }
    }

    pub fn has_flag(&self, mask: u32) -> bool {
        self.flags & mask != 0
    }
}

impl Message for OsdOpMsg {
    const TYPE: u16 = types::OSD_OP;
    const VERSION: u16 = 8;
    const COMPAT_VERSION: u16 = 3;
    /// `osd_client_op_priority`.
    const PRIORITY: u16 = 63;

    fn encode_payload(&self, f: Features) -> Payload {
        let mut out = Vec::with_capacity(256 + self.oid.len() + OP_SIZE * self.ops.len());
        self.spgid.encode(&mut out, f);
        self.hash.encode(&mut out, f);
        self.map_epoch.encode(&mut out, f);
        self.flags.encode(&mut out, f);
        self.reqid.encode(&mut out, f);
        self.trace.encode(&mut out, f);
        self.client_inc.encode(&mut out, f);
        self.mtime.encode(&mut out, f);
        self.locator.encode(&mut out, f);
        self.oid.encode(&mut out, f);
        (self.ops.len() as u16).encode(&mut out, f);
        for op in &self.ops {
            put_op(op.code, op.flags, &op.args, op.indata.len(), &mut out);
        }
        self.snap.encode(&mut out, f);
        self.snapc.encode(&mut out, f);
        self.retry_attempt.encode(&mut out, f);
        self.features.encode(&mut out, f);
        let data = self.ops.iter().map(|op| op.indata.clone()).filter(|d| !d.is_empty()).collect();
        Payload { front: out.into(), data, ..Payload::default() }
    }

    fn decode_payload(header: &Header, payload: &Payload) -> Result<Self, DecodeError> {
        check_compat::<Self>("OsdOpMsg", header)?;
        let r = &mut Reader::new(&payload.front);
        let mut m = match header.version {
            9 => decode_head_v9(r)?,
            8 => decode_head_v8(r)?,
            7 => decode_head_v7(r)?,
            other => {
                return Err(DecodeError::Invalid { what: "osd_op version", value: other.into() });
            }
        };
        m.client_inc = r.u32()?;
        m.mtime = UTime::decode(r)?;
        m.locator = ObjectLocator::decode(r)?;
        m.oid = Bytes::decode(r)?;
        let count = r.u16()?.into();
        let mut data = DataCursor::new(payload);
        let ops = &mut take_ops(count, r)?;
        m.ops = Vec::with_capacity(count);
        for _ in 0..count {
            let (code, flags, args, len) = next_op(ops)?;
            m.ops.push(OsdOp { code, flags, args, indata: data.take(len)? });
        }
        m.snap = SnapId::decode(r)?;
        m.snapc = SnapContext::decode(r)?;
        m.retry_attempt = r.i32()?;
        m.features = r.u64()?;
        Ok(m)
    }
}

fn decode_head_v8(r: &mut Reader<'_>) -> Result<OsdOpMsg, DecodeError> {
    Ok(OsdOpMsg {
        spgid: SpgId::decode(r)?,
        hash: r.u32()?,
        map_epoch: r.u32()?,
        flags: r.u32()?,
        reqid: RequestId::decode(r)?,
        trace: Trace::decode(r)?,
        ..OsdOpMsg::default()
    })
}

/// As version 8, with an OpenTelemetry span behind the trace ids: whether it is valid, and if so its
/// ids and flags. Nothing here traces, so it is skipped.
fn decode_head_v9(r: &mut Reader<'_>) -> Result<OsdOpMsg, DecodeError> {
    let head = decode_head_v8(r)?;
    r.versioned("span context", 1, |_, _| Ok(()))?;
    Ok(head)
}

/// The PG is raw (its seed is the hash), and a version to replay is in the way.
fn decode_head_v7(r: &mut Reader<'_>) -> Result<OsdOpMsg, DecodeError> {
    let pgid = PgId::decode(r)?;
    let (map_epoch, flags) = (r.u32()?, r.u32()?);
    EVersion::decode(r)?;
    let reqid = RequestId::decode(r)?;
    let spgid = SpgId::whole(pgid);
    Ok(OsdOpMsg { spgid, hash: pgid.seed, map_epoch, flags, reqid, ..OsdOpMsg::default() })
}

/// What came of one operation.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OsdOpResult {
    pub code: OpCode,
    pub flags: u32,
    pub args: OpArgs,
    pub rval: i32,
    /// One piece when received; any number when sent.
    pub outdata: Vec<Bytes>,
}

impl OsdOpResult {
    /// The answer to `op`, without output.
    pub fn of(op: &OsdOp, rval: i32) -> Self {
        Self { code: op.code, flags: op.flags, args: op.args, rval, outdata: Vec::new() }
    }

    pub fn out_len(&self) -> usize {
        self.outdata.iter().map(Bytes::len).sum()
    }
}

/// `request_redirect_t`: where the object really is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Redirect {
    pub locator: ObjectLocator,
    /// The same name if empty.
    pub object: Bytes,
}

impl Encode for Redirect {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, 1, 1, |out| {
            self.locator.encode(out, f);
            self.object.encode(out, f);
            0u32.encode(out, f);
        });
    }
}

impl Decode for Redirect {
    const MIN_SIZE: usize = 6;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("request_redirect_t", 1, |_, r| {
            let redirect = Self { locator: ObjectLocator::decode(r)?, object: Bytes::decode(r)? };
            r.blob("legacy instructions")?;
            Ok(redirect)
        })
    }
}

/// `osd_op_reply`, version 8 (7 and 8 are accepted).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct OsdOpReply {
    pub oid: Bytes,
    pub pgid: PgId,
    pub flags: i64,
    pub result: i32,
    /// For clients that know neither of the two versions below: epoch of the replay version, number
    /// of the user version.
    pub bad_replay_version: EVersion,
    pub map_epoch: u32,
    pub ops: Vec<OsdOpResult>,
    pub retry_attempt: i32,
    pub replay_version: EVersion,
    pub user_version: u64,
    pub redirect: Option<Redirect>,
    pub trace: Trace,
}

impl OsdOpReply {
    /// The reply to `request` with `result` as of `map_epoch`; each op's result 0 and no output.
    pub fn to(request: &OsdOpMsg, result: i32, map_epoch: u32) -> Self {
        let acks = flag::ONDISK | flag::ONNVRAM | flag::ACK;
        Self {
            oid: request.oid.clone(),
            pgid: request.spgid.pgid,
            flags: i64::from(request.flags & !acks | flag::ONDISK | flag::ACK),
            result,
            map_epoch,
            ops: request.ops.iter().map(|op| OsdOpResult::of(op, 0)).collect(),
            retry_attempt: request.retry_attempt,
            ..Self::default()
        }
    }

    /// Sets the versions that a write (or a read of an existing object) returns.
    pub fn set_versions(&mut self, replay: EVersion, user: u64) {
        self.replay_version = replay;
        self.user_version = user;
        self.bad_replay_version = replay;
        if user != 0 {
            self.bad_replay_version.version = user;
        }
    }

    /// The versions of an answer about an object that is not there: nothing to replay.
    pub fn set_absent_versions(&mut self, at: EVersion, user: u64) {
        self.user_version = user;
        self.bad_replay_version = at;
    }
}

impl Message for OsdOpReply {
    const TYPE: u16 = types::OSD_OP_REPLY;
    const VERSION: u16 = 8;
    const COMPAT_VERSION: u16 = 2;

    fn encode_payload(&self, f: Features) -> Payload {
        let mut out = Vec::with_capacity(160 + self.oid.len() + (OP_SIZE + 4) * self.ops.len());
        self.oid.encode(&mut out, f);
        self.pgid.encode(&mut out, f);
        self.flags.encode(&mut out, f);
        self.result.encode(&mut out, f);
        self.bad_replay_version.encode(&mut out, f);
        self.map_epoch.encode(&mut out, f);
        (self.ops.len() as u32).encode(&mut out, f);
        for op in &self.ops {
            put_op(op.code, op.flags, &op.args, op.out_len(), &mut out);
        }
        self.retry_attempt.encode(&mut out, f);
        self.ops.iter().for_each(|op| op.rval.encode(&mut out, f));
        self.replay_version.encode(&mut out, f);
        self.user_version.encode(&mut out, f);
        self.redirect.encode(&mut out, f);
        self.trace.encode(&mut out, f);
        let pieces = self.ops.iter().flat_map(|op| &op.outdata).filter(|d| !d.is_empty());
        Payload { front: out.into(), data: pieces.cloned().collect(), ..Payload::default() }
    }

    fn decode_payload(header: &Header, payload: &Payload) -> Result<Self, DecodeError> {
        check_compat::<Self>("OsdOpReply", header)?;
        if header.version < 7 {
            let version = header.version as u8;
            return Err(DecodeError::TooOld { what: "osd_op_reply", version, oldest: 7 });
        }
        let r = &mut Reader::new(&payload.front);
        let mut reply = Self {
            oid: Bytes::decode(r)?,
            pgid: PgId::decode(r)?,
            flags: r.i64()?,
            result: r.i32()?,
            bad_replay_version: EVersion::decode(r)?,
            map_epoch: r.u32()?,
            ..Self::default()
        };
        let count = r.count(OP_SIZE, "reply ops")?;
        let ops = &mut take_ops(count, r)?;
        reply.retry_attempt = r.i32()?;
        reply.ops = Vec::with_capacity(count);
        let mut data = DataCursor::new(payload);
        for _ in 0..count {
            let (code, flags, args, len) = next_op(ops)?;
            let outdata = if len == 0 { Vec::new() } else { vec![data.take(len)?] };
            reply.ops.push(OsdOpResult { code, flags, args, rval: r.i32()?, outdata });
        }
        reply.replay_version = EVersion::decode(r)?;
        reply.user_version = r.u64()?;
        reply.redirect = Option::decode(r)?;
        if header.version >= 8 {
            reply.trace = Trace::decode(r)?;
        }
        Ok(reply)
    }
}

fn put_op(code: OpCode, flags: u32, args: &OpArgs, payload_len: usize, out: &mut Vec<u8>) {
    let f = Features::default();
    code.encode(out, f);
    flags.encode(out, f);
    args.encode(out);
    (payload_len as u32).encode(out, f);
}

/// The `count` ops that come next, checked to be there whole.
fn take_ops<'a>(count: usize, r: &mut Reader<'a>) -> Result<Reader<'a>, DecodeError> {
    r.take(count.saturating_mul(OP_SIZE), "ops").map(Reader::new)
}

/// Code, flags, arguments, payload length.
fn next_op(r: &mut Reader<'_>) -> Result<(OpCode, u32, OpArgs, usize), DecodeError> {
    let (code, flags) = (OpCode::decode(r)?, r.u32()?);
    let args = OpArgs::decode(code, r.array("op arguments")?)?;
    Ok((code, flags, args, r.u32()? as usize))
}

/// Deals out the data segment piece by piece, sharing the buffer.
struct DataCursor {
    rest: Bytes,
}

impl DataCursor {
    fn new(payload: &Payload) -> Self {
        Self { rest: payload.data_bytes() }
    }

    fn take(&mut self, n: usize) -> Result<Bytes, DecodeError> {
        if n == 0 {
            return Ok(Bytes::new());
        }
        if n > self.rest.len() {
            let (what, remaining) = ("op data", self.rest.len());
            return Err(DecodeError::Truncated { what, needed: n, remaining });
        }
        Ok(self.rest.split_to(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RawMessage;

    fn request() -> OsdOpMsg {
        OsdOpMsg {
            spgid: SpgId::whole(PgId::new(3, 1)),
            hash: 0xdead_beef,
            oid: "obj".into(),
            ops: vec![
                OsdOp::new(OpCode::STAT, OpArgs::default(), Bytes::new()),
                OsdOp::new(OpCode::WRITE, OpArgs::extent(0, 4), "abcd".into()),
                OsdOp::new(OpCode::APPEND, OpArgs::extent(0, 2), "ef".into()),
            ],
            ..OsdOpMsg::default()
        }
    }

    #[test]
    fn input_shares_the_received_buffer() {
        let mut raw = request().to_raw(1, Features::PACIFIC);
        let buffer = raw.payload.data_bytes();
        raw.payload.data = vec![buffer.clone()];
        let back = OsdOpMsg::from_raw(&raw).unwrap();
        assert_eq!(back, request());
        assert_eq!(back.ops[2].indata.as_ptr(), buffer[4..].as_ptr());
    }

    #[test]
    fn a_payload_longer_than_the_data_is_refused() {
        let mut raw = request().to_raw(1, Features::PACIFIC);
        raw.payload.data = vec!["abcde".into()];
        assert!(matches!(OsdOpMsg::from_raw(&raw), Err(DecodeError::Truncated { .. })));
    }

    #[test]
    fn version_7_is_understood() {
        let (f, m) = (Features::PACIFIC, request());
        let mut front = Vec::new();
        PgId::new(3, m.hash).encode(&mut front, f);
        (m.map_epoch, m.flags).encode(&mut front, f);
        EVersion::default().encode(&mut front, f);
        let v8 = m.encode_payload(f).front;
        let head_len = m.spgid.to_bytes(f).len() + 12;
        let reqid_len = m.reqid.to_bytes(f).len();
        front.extend_from_slice(&v8[head_len..head_len + reqid_len]);
        front.extend_from_slice(&v8[head_len + reqid_len + 24..]);
        let mut raw = m.to_raw(1, f);
        raw.header.version = 7;
        raw.payload.front = front.into();
        let back = OsdOpMsg::from_raw(&raw).unwrap();
        assert_eq!(back.spgid.pgid.seed, m.hash);
        assert_eq!(back.object(), m.object());
        assert_eq!(back.ops, m.ops);
    }

    /// `request()` as version 9, with these bytes for a span.
    fn version_9(span: &[u8]) -> RawMessage {
        let f = Features::PACIFIC;
        let mut raw = request().to_raw(1, f);
        let m = request();
        let head = m.spgid.to_bytes(f).len() + 12 + m.reqid.to_bytes(f).len() + 24;
        let (head, tail) = raw.payload.front.split_at(head);
        raw.payload.front = [head, span, tail].concat().into();
        raw.header.version = 9;
        raw
    }

    #[test]
    fn version_9_is_understood_and_its_span_skipped() {
        let invalid = [1, 1, 1, 0, 0, 0, 0];
        let valid = [&[1, 1, 26, 0, 0, 0, 1][..], &[7; 16], &[8; 8], &[1]].concat();
        let later = [&[2, 1, 28, 0, 0, 0, 1][..], &[7; 16], &[8; 8], &[1], &[0xee; 2]].concat();
        for span in [&invalid[..], &valid, &later] {
            assert_eq!(OsdOpMsg::from_raw(&version_9(span)).unwrap(), request(), "{span:?}");
        }
    }

    #[test]
    fn a_span_that_ends_nowhere_or_is_too_new_is_refused() {
        let endless = version_9(&[1, 1, 0xff, 0xff, 0xff, 0xff, 0]);
        assert!(matches!(OsdOpMsg::from_raw(&endless), Err(DecodeError::Truncated { .. })));
        let too_new = version_9(&[2, 2, 1, 0, 0, 0, 0]);
        assert!(matches!(OsdOpMsg::from_raw(&too_new), Err(DecodeError::Incompatible { .. })));
        let mut later = version_9(&[]);
        later.header.version = 10;
        assert!(matches!(OsdOpMsg::from_raw(&later), Err(DecodeError::Invalid { .. })));
    }

    #[test]
    fn replies_gather_and_split() {
        let mut reply = OsdOpReply::to(&request(), 0, 9);
        reply.ops[0].outdata = vec!["si".into(), "ze".into()];
        reply.ops[2].rval = -5;
        reply.set_versions(EVersion::new(9, 7), 6);
        let raw = reply.to_raw(1, Features::PACIFIC);
        assert_eq!(raw.payload.data.len(), 2);
        let back = OsdOpReply::from_raw(&raw).unwrap();
        assert_eq!(back.ops[0].outdata, [Bytes::from("size")]);
        assert_eq!(back.bad_replay_version, EVersion::new(9, 6));
        assert_eq!(back.ops[2].rval, -5);
        assert_eq!(back.to_raw(1, Features::PACIFIC).payload.front, raw.payload.front);
    }
}
