//! Entry points of the fuzz targets; each must return for any input.

use std::convert::Infallible;

use bytes::Bytes;
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::{OsdOp, OsdOpMsg};
use spirula_wire::types::{CopyCursor, CopyData, HObject, ObjectLocator, SnapId};
use spirula_wire::{Decode, Encode, Features, Header, Message, Payload, RawMessage, Reader};

use crate::copy::decode_source;
use crate::filter::Filter;
use crate::object::{Chunk, ObjectInfo, Redirect, cursor_key, object_key, object_of_key};
use crate::op::OpClass;
use crate::pg::log::{DupRecord, LogEntry};
use crate::plan::{Caller, Effect, Request, Source, SourceData, execute};
use crate::remote::Whole;
use crate::snap::trim::decode_purged;
use crate::snap::{SnapClone, SnapHeader};
use crate::stats::StatDelta;
use crate::view::{ObjectView, Viewed};
use crate::watch::{WatchInfo, WatchKey};

/// Records of the store: what decodes must encode and decode again to the same.
pub fn stored(data: &[u8]) {
    round_trip::<ObjectInfo>(data);
    round_trip::<StatDelta>(data);
    round_trip::<DupRecord>(data);
    round_trip::<LogEntry>(data);
    round_trip::<SnapClone>(data);
    round_trip::<SnapHeader>(data);
    let _ = decode_purged(data);
    if let Some(o) = object_of_key(1, data) {
        let key = object_key(o.hash, &o.nspace, &o.key, &o.oid);
        let again = object_of_key(1, &key).map(|o| object_key(o.hash, &o.nspace, &o.key, &o.oid));
        assert_eq!(again, Some(key));
    }
    if let Ok(cursor) = HObject::from_bytes(data) {
        let _ = cursor_key(&cursor);
    }
}

fn round_trip<T: Decode + Encode + PartialEq + std::fmt::Debug>(data: &[u8]) {
    if let Ok(value) = T::from_bytes(data) {
        let again = T::from_bytes(&value.to_bytes(Features::PACIFIC));
        assert_eq!(again.as_ref(), Ok(&value));
    }
}

/// Parts of objects that other OSDs push.
pub fn copies(data: &[u8]) {
    crate::copies::fuzz(data);
}

/// Inputs that are read before a plan is made, and what other OSDs answer; the first byte chooses.
pub fn inputs(data: &[u8]) {
    let Some((&which, body)) = data.split_first() else {
        return;
    };
    let reader = &mut Reader::new(body);
    match which % 4 {
        0 => drop(Filter::decode(reader).map(|_| HObject::decode(reader))),
        1 => drop(decode_source(body, which & 4 != 0)),
        _ => {
            let mut whole = Whole::default();
            while let Ok(part) = CopyData::decode(reader) {
                let _ = whole.add(part);
            }
            if let Ok(Source { data: SourceData::Bytes(pieces), info, .. }) = whole.source(1) {
                assert!(pieces.iter().map(|(_, p)| p.len() as u64).sum::<u64>() <= info.size);
            }
        }
    }
}

/// A request against an object that exists and against none. The framing is that of
/// `spirula_wire::fuzzing::osd_op_messages`, where the first byte says whether the
/// object exists and whether it has a manifest.
pub fn plan(data: &[u8]) {
    let Some((&[exists, version, split_high, split_low], body)) = data.split_first_chunk() else {
        return;
    };
    let split = usize::from(u16::from_be_bytes([split_high, split_low])).min(body.len());
    let (front, data) = body.split_at(split);
    let header = Header { type_: OsdOpMsg::TYPE, version: version.into(), ..Header::default() };
    let payload = Payload {
        front: Bytes::copy_from_slice(front),
        data: vec![Bytes::copy_from_slice(data)],
        ..Payload::default()
    };
    let Ok(msg) = OsdOpMsg::from_raw(&RawMessage { header, payload }) else {
        return;
    };
    let reached: Vec<_> = (0..msg.ops.len()).map(|op| (op, Ok(HObject::default()))).collect();
    let request = Request {
        ops: &msg.ops,
        may_write: OpClass::of(&msg.ops).writes,
        return_vec: exists & 2 != 0,
        mtime: msg.mtime,
        reached: &reached,
        filled: &[(chunk(), Ok(Bytes::from_static(&[9; 40])))],
        ignores_redirects: exists & 8 != 0,
        ..Request::default()
    };
    let (redirect, chunked) = (exists & 4 != 0, exists & 16 != 0);
    let sample = Sample { exists: exists & 1 == 0, redirect, chunked };
    let Ok(done) = execute(&request, &sample);
    assert_eq!(done.outputs.len(), msg.ops.len());
    assert!(done.errand.is_none() || done.change.is_none());
    for effect in done.change.iter().flat_map(|c| &c.effects) {
        let end = match effect {
            Effect::Write { offset, data, .. } => offset.saturating_add(data.len() as u64),
            Effect::Truncate(size) => *size,
            Effect::Zero { offset, length } => offset.saturating_add(*length),
            _ => 0,
        };
        assert!(end <= request.limits.max_object_size, "{effect:?}");
    }
}

/// Inputs to begin with, each with its target's name.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let words = |which: u8, words: &[&str], rest: &[u8]| {
        let mut seed = vec![which];
        words.iter().for_each(|word| word.encode(&mut seed, F));
        ("inputs", [&seed[..], rest].concat())
    };
    let locator =
        ObjectLocator { pool: 2, key: "k".into(), ..ObjectLocator::default() }.to_bytes(F);
    let truncation = [&locator[..], &[7; 12]].concat();
    let target = HObject { oid: "target".into(), hash: 7, pool: 2, ..HObject::default() };
    let redirect = |referenced| {
        let redirect = Some(Box::new(Redirect { target: target.clone(), referenced }));
        ("stored", ObjectInfo { redirect, ..ObjectInfo::default() }.to_bytes(F))
    };
    let chunks = [(100, chunk())].into();
    let chunked = ("stored", ObjectInfo { chunks, ..ObjectInfo::default() }.to_bytes(F));
    let args =
        OpArgs::CopyFrom { snapid: SnapId::HEAD, src_version: 3, flags: 0, src_fadvise_flags: 0 };
    let input = ["target".to_owned().to_bytes(F), locator.clone()].concat();
    let codes = [
        OpCode::UNSET_MANIFEST,
        OpCode::TIER_PROMOTE,
        OpCode::TIER_FLUSH,
        OpCode::TIER_EVICT,
        OpCode::READ,
    ];
    let ops = codes.map(|code| OsdOp { code, ..OsdOp::default() });
    let set = OsdOp::new(OpCode::SET_REDIRECT, args, input.into());
    let chunk = [&[0; 8][..], &8u64.to_le_bytes(), &locator, &"t".to_bytes(F), &[0; 8]].concat();
    let chunk = OsdOp::new(OpCode::SET_CHUNK, OpArgs::default(), chunk.into());
    let requests = [set, chunk].into_iter().chain(ops).flat_map(|op| {
        let msg = OsdOpMsg { ops: vec![op], ..OsdOpMsg::default() };
        let seed = spirula_wire::fuzzing::input_of(&msg.to_raw(1, F)).unwrap_or_default();
        // The object is there, and is a redirect or has a chunk.
        [4, 16].map(|is| ("plan", [&[is], seed.get(1..).unwrap_or_default()].concat()))
    });
    let part = |offset: u64, end: bool| {
        let cursor = CopyCursor {
            attr_complete: true,
            data_offset: offset + 2,
            data_complete: end,
            ..CopyCursor::default()
        };
        let (flags, data_digest) = (CopyData::DATA_DIGEST, !crc32c::crc32c(b"abab"));
        let part = CopyData { size: 4, data: "ab".into(), cursor, flags, ..CopyData::default() };
        CopyData { data_digest, ..part }.to_bytes(F)
    };
    let parts = [vec![2], part(0, false), part(2, true)].concat();
    let tag = b"\x01\x01\x05\0\0\0\x01\0\0\0T";
    let mut seeds = vec![
        words(0, &["pg", "filter", "plain", "_a", "1"], &HObject::min().to_bytes(F)),
        words(0, &["pg", "filter", "cephfs.inode_tag"], &[&tag[..], &target.to_bytes(F)].concat()),
        words(1, &["name"], &locator),
        words(5, &["name"], &truncation),
        ("inputs", parts),
        redirect(false),
        redirect(true),
        ("copies", crate::copies::seed()),
        chunked,
    ];
    seeds.extend(requests);
    seeds
}

const F: Features = Features::PACIFIC;
const SIZE: u64 = 10_000;

/// An object with data, an attribute and an omap; or none.
struct Sample {
    exists: bool,
    redirect: bool,
    chunked: bool,
}

/// The one of the sample.
fn chunk() -> Chunk {
    Chunk { length: 50, missing: true, ..Chunk::default() }
}

impl Sample {
    fn pairs(&self) -> Vec<(Bytes, Bytes)> {
        let name: &[&'static [u8]] = if self.exists { &[b"_a", b"_b"] } else { &[] };
        name.iter().map(|n| (Bytes::from_static(n), Bytes::from_static(b"17"))).collect()
    }
}

impl ObjectView for Sample {
    type Missing = Infallible;

    fn info(&self) -> Viewed<Option<ObjectInfo>, Infallible> {
        Ok(self.exists.then(|| ObjectInfo {
            redirect: self.redirect.then(Box::default),
            chunks: self.chunked.then(|| (100, chunk())).into_iter().collect(),
            size: SIZE,
            user_version: 3,
            omap: true,
            watchers: [(
                WatchKey { cookie: 1, entity: Caller::default().name },
                WatchInfo::default(),
            )]
            .into(),
            ..ObjectInfo::default()
        }))
    }

    fn xattr(&self, name: &[u8]) -> Viewed<Option<Bytes>, Infallible> {
        Ok(self.pairs().into_iter().find(|p| p.0 == name).map(|p| p.1))
    }

    fn xattrs(&self) -> Viewed<Vec<(Bytes, Bytes)>, Infallible> {
        Ok(self.pairs())
    }

    fn omap_header(&self) -> Viewed<Bytes, Infallible> {
        Ok(Bytes::from_static(b"header"))
    }

    fn omap_value(&self, key: &[u8]) -> Viewed<Option<Bytes>, Infallible> {
        self.xattr(key)
    }

    fn omap_range(
        &self,
        from: &[u8],
        after: bool,
        max: usize,
    ) -> Viewed<Vec<(Bytes, Bytes)>, Infallible> {
        let mut pairs = self.pairs();
        pairs.retain(|(k, _)| &k[..] > from || !after && k == from);
        pairs.truncate(max);
        Ok(pairs)
    }

    fn read(&self, offset: u64, len: u64) -> Viewed<Vec<Bytes>, Infallible> {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= SIZE),
            "read of {len} bytes at {offset}"
        );
        Ok(vec![Bytes::from(vec![7; len as usize])])
    }

    fn extents(&self, offset: u64, len: u64) -> Viewed<Vec<(u64, u64)>, Infallible> {
        Ok(if len == 0 { Vec::new() } else { vec![(offset, len)] })
    }
}
