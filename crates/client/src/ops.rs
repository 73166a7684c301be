//! Compound operations on one object: all of a [`WriteOp`] happens or nothing of it; all of a
//! [`ReadOp`] sees one state of the object.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use spirula_wire::msg::ops::{OpArgs, OpCode, cmpxattr_mode, cmpxattr_op, op_flag};
use spirula_wire::msg::osd_op::{OsdOp, flag};
use spirula_wire::types::UTime;
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use crate::errno::Errno;
use crate::error::Error;
use crate::objecter::OpReply;

const F: Features = Features::PACIFIC;

/// Changes of one object, in order.
#[derive(Clone, Debug, Default)]
pub struct WriteOp {
    pub(crate) ops: Vec<OsdOp>,
    pub(crate) flags: u32,
}

/// Questions about one object, in order.
#[derive(Clone, Debug, Default)]
pub struct ReadOp {
    pub(crate) ops: Vec<OsdOp>,
    pub(crate) flags: u32,
}

/// What one step of an operation came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpOutput {
    pub rval: i32,
    pub data: Bytes,
}

/// The outcome of an operation that succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpResult {
    /// Of the object, counted by its changes.
    pub version: u64,
    /// In the order of the operation's steps.
    pub outputs: Vec<OpOutput>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub size: u64,
    pub mtime: UTime,
}

impl Stat {
    pub fn modified(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from(self.mtime)
    }
}

impl WriteOp {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub fn write(self, offset: u64, data: impl Into<Bytes>) -> Self {
        let data = data.into();
        let args = OpArgs::extent(offset, data.len() as u64);
        self.op(OpCode::WRITE, args, data)
    }

    /// Replaces all data.
    pub fn write_full(self, data: impl Into<Bytes>) -> Self {
        let data = data.into();
        let args = OpArgs::extent(0, data.len() as u64);
        self.op(OpCode::WRITEFULL, args, data)
    }

    pub fn append(self, data: impl Into<Bytes>) -> Self {
        let data = data.into();
        let args = OpArgs::extent(0, data.len() as u64);
        self.op(OpCode::APPEND, args, data)
    }

    pub fn truncate(self, size: u64) -> Self {
        self.op(OpCode::TRUNCATE, OpArgs::extent(size, 0), Bytes::new())
    }

    pub fn zero(self, offset: u64, length: u64) -> Self {
        self.op(OpCode::ZERO, OpArgs::extent(offset, length), Bytes::new())
    }

    /// `exclusive`: fails with EEXIST if the object is there.
    pub fn create(mut self, exclusive: bool) -> Self {
        self = self.op(OpCode::CREATE, OpArgs::default(), Bytes::new());
        if let Some(op) = self.ops.last_mut().filter(|_| exclusive) {
            op.flags |= op_flag::EXCL;
        }
        self
    }

    pub fn remove(self) -> Self {
        self.op(OpCode::DELETE, OpArgs::default(), Bytes::new())
    }

    pub fn set_xattr(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.ops.push(xattr(OpCode::SETXATTR, name, value.as_ref()));
        self
    }

    pub fn rm_xattr(mut self, name: &str) -> Self {
        self.ops.push(xattr(OpCode::RMXATTR, name, &[]));
        self
    }

    pub fn omap_set<K: Into<String>, V: Into<Bytes>>(
        self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let pairs = pairs.into_iter().map(|(k, v)| (k.into(), v.into()));
        let pairs: BTreeMap<String, Bytes> = pairs.collect();
        self.op(OpCode::OMAP_SET_VALS, OpArgs::default(), encoded(&pairs))
    }

    pub fn omap_rm_keys<K: Into<String>>(self, keys: impl IntoIterator<Item = K>) -> Self {
        let keys: BTreeSet<String> = keys.into_iter().map(Into::into).collect();
        self.op(OpCode::OMAP_RM_KEYS, OpArgs::default(), encoded(&keys))
    }

    pub fn omap_clear(self) -> Self {
        self.op(OpCode::OMAP_CLEAR, OpArgs::default(), Bytes::new())
    }

    pub fn omap_set_header(self, header: impl Into<Bytes>) -> Self {
        self.op(OpCode::OMAP_SET_HEADER, OpArgs::default(), header.into())
    }

    /// The rest happens only if the object has this version.
    pub fn assert_version(self, version: u64) -> Self {
        let args = OpArgs::AssertVer { ver: version };
        self.op(OpCode::ASSERT_VER, args, Bytes::new())
    }

    /// The rest happens only if the object exists.
    pub fn assert_exists(self) -> Self {
        self.op(OpCode::STAT, OpArgs::default(), Bytes::new())
    }

    /// The rest happens only if the xattr has this value; ECANCELED otherwise.
    pub fn cmp_xattr(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.ops.push(cmp_xattr(name, value.as_ref()));
        self
    }

    /// Says how large the object will become and how it is written.
    pub fn alloc_hint(self, object_size: u64, write_size: u64) -> Self {
        let args = OpArgs::AllocHint {
            expected_object_size: object_size,
            expected_write_size: write_size,
            flags: 0,
        };
        let mut this = self.op(OpCode::SET_ALLOC_HINT, args, Bytes::new());
        if let Some(op) = this.ops.last_mut() {
            op.flags |= op_flag::FAILOK;
        }
        this
    }

    /// Fails with ENOSPC or EDQUOT instead of waiting while the pool is full.
    pub fn full_try(mut self) -> Self {
        self.flags |= flag::FULL_TRY;
        self
    }

    fn op(mut self, code: OpCode, args: OpArgs, indata: Bytes) -> Self {
        self.ops.push(OsdOp::new(code, args, indata));
        self
    }
}

impl ReadOp {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// `length` 0 means to the end.
    pub fn read(self, offset: u64, length: u64) -> Self {
        self.op(OpCode::READ, OpArgs::extent(offset, length), Bytes::new())
    }

    /// Output: [`OpOutput::stat`].
    pub fn stat(self) -> Self {
        self.op(OpCode::STAT, OpArgs::default(), Bytes::new())
    }

    pub fn get_xattr(mut self, name: &str) -> Self {
        self.ops.push(xattr(OpCode::GETXATTR, name, &[]));
        self
    }

    /// Output: [`OpOutput::map`].
    pub fn get_xattrs(self) -> Self {
        self.op(OpCode::GETXATTRS, OpArgs::default(), Bytes::new())
    }

    /// Keys after `after` that begin with `prefix`. Output: [`OpOutput::map_page`].
    pub fn omap_get_vals(self, after: &str, max: u64, prefix: &str) -> Self {
        let mut input = Vec::new();
        after.encode(&mut input, F);
        max.encode(&mut input, F);
        prefix.encode(&mut input, F);
        self.op(OpCode::OMAP_GET_VALS, OpArgs::default(), input.into())
    }

    /// Output: [`OpOutput::set_page`].
    pub fn omap_get_keys(self, after: &str, max: u64) -> Self {
        let mut input = Vec::new();
        after.encode(&mut input, F);
        max.encode(&mut input, F);
        self.op(OpCode::OMAP_GET_KEYS, OpArgs::default(), input.into())
    }

    /// Output: [`OpOutput::map`], of the keys that are there.
    pub fn omap_get_by_keys<K: Into<String>>(self, keys: impl IntoIterator<Item = K>) -> Self {
        let keys: BTreeSet<String> = keys.into_iter().map(Into::into).collect();
        let code = OpCode::OMAP_GET_VALS_BY_KEYS;
        self.op(code, OpArgs::default(), encoded(&keys))
    }

    pub fn omap_get_header(self) -> Self {
        self.op(OpCode::OMAP_GET_HEADER, OpArgs::default(), Bytes::new())
    }

    pub fn assert_version(self, version: u64) -> Self {
        let args = OpArgs::AssertVer { ver: version };
        self.op(OpCode::ASSERT_VER, args, Bytes::new())
    }

    pub fn cmp_xattr(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.ops.push(cmp_xattr(name, value.as_ref()));
        self
    }

    fn op(mut self, code: OpCode, args: OpArgs, indata: Bytes) -> Self {
        self.ops.push(OsdOp::new(code, args, indata));
        self
    }
}

impl OpOutput {
    pub fn stat(&self) -> Result<Stat, Error> {
        let mut r = Reader::new(&self.data);
        Ok(Stat { size: r.u64()?, mtime: UTime::decode(&mut r)? })
    }

    /// A map that is all of the answer.
    pub fn map(&self) -> Result<BTreeMap<String, Bytes>, Error> {
        Ok(BTreeMap::decode(&mut Reader::new(&self.data))?)
    }

    /// A page of a map, and whether there is more.
    pub fn map_page(&self) -> Result<(BTreeMap<String, Bytes>, bool), Error> {
        Ok(page(&self.data)?)
    }

    /// A page of a set of keys, and whether there is more.
    pub fn set_page(&self) -> Result<(BTreeSet<String>, bool), Error> {
        Ok(page(&self.data)?)
    }
}

impl OpResult {
    pub(crate) fn of(reply: OpReply) -> Result<Self, Error> {
        if let Some(errno) = Errno::of(reply.result) {
            return Err(Error::Server(errno));
        }
        let outputs = reply.ops.into_iter().map(|op| OpOutput {
            rval: op.rval,
            data: match op.outdata.as_slice() {
                [] => Bytes::new(),
                [one] => one.clone(),
                many => many.concat().into(),
            },
        });
        Ok(Self { version: reply.user_version, outputs: outputs.collect() })
    }

    /// The output of step `i`; EIO if the OSD left it out.
    pub fn output(&self, i: usize) -> Result<&OpOutput, Error> {
        self.outputs.get(i).ok_or(Error::Server(Errno::EIO))
    }
}

fn page<T: Decode>(data: &[u8]) -> Result<(T, bool), DecodeError> {
    let mut r = Reader::new(data);
    Ok((T::decode(&mut r)?, bool::decode(&mut r)?))
}

fn encoded(value: &impl Encode) -> Bytes {
    value.to_bytes(F).into()
}

fn xattr(code: OpCode, name: &str, value: &[u8]) -> OsdOp {
    let args = OpArgs::Xattr {
        name_len: name.len() as u32,
        value_len: value.len() as u32,
        cmp_op: 0,
        cmp_mode: 0,
    };
    OsdOp::new(code, args, [name.as_bytes(), value].concat().into())
}

fn cmp_xattr(name: &str, value: &[u8]) -> OsdOp {
    let mut op = xattr(OpCode::CMPXATTR, name, value);
    if let OpArgs::Xattr { cmp_op, cmp_mode, .. } = &mut op.args {
        *cmp_op = cmpxattr_op::EQ;
        *cmp_mode = cmpxattr_mode::STRING;
    }
    op
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_laid_out_as_ceph_expects() {
        let op = WriteOp::new().set_xattr("a", "bc").omap_set([("k", "v")]).create(true);
        assert_eq!(op.ops[0].indata, "abc");
        assert_eq!(op.ops[1].indata[..], *b"\x01\0\0\0\x01\0\0\0k\x01\0\0\0v");
        assert_eq!(op.ops[2].flags, op_flag::EXCL);
        let read = ReadOp::new().omap_get_vals("", 5, "p");
        let want = b"\0\0\0\0\x05\0\0\0\0\0\0\0\x01\0\0\0p";
        assert_eq!(read.ops[0].indata[..], *want);
    }

    #[test]
    fn hostile_outputs_are_errors() {
        let output = |data: &'static [u8]| OpOutput { rval: 0, data: Bytes::from_static(data) };
        assert!(output(b"\x01").stat().is_err());
        assert!(output(b"\xff\xff\xff\xff").map().is_err());
        assert!(output(b"\0\0\0\0").map_page().is_err());
        assert_eq!(output(b"\0\0\0\0\x01").set_page(), Ok((BTreeSet::new(), true)));
    }
}
