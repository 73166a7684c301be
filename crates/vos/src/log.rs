//! The WAL record of one transaction: its operations, and where its data was put.
//!
//! Replay runs the operations again on the state they met, so that a record has no page images. What
//! must not be decided twice is recorded: the place of data, and which writes were placed on the device.
//! Invariant: decoding is bounded and total; a record that decodes may still not apply, which the
//! replaying store reports as damage.

use bytes::Bytes;

use crate::aggregate::Cursor;
use crate::clone::CloneRange;
use crate::codec::{Malformed, Reader, put_bytes, put_u32, put_u64, put_varint};
use crate::epoch::Epoch;
use crate::export::Import;
use crate::item::{Body, Device, Piece, pack_crcs};
use crate::merge::Merge;
use crate::space::Run;
use crate::tx::{Tx, TxOp};
use crate::types::{BLOCK_SIZE, BlockAddr, ContainerId, EXTENT_BLOCKS_MAX, ObjectKey, TxId};

const FORMAT: u8 = 2;
/// No store has staged that many transactions.
const SEQ_MAX: u64 = 1 << 63;
/// The operations before it are prepared, not applied.
const CODE_PREPARE: u8 = 28;

/// Data of a transaction on the device, as its record tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed {
    /// First block.
    pub addr: BlockAddr,
    /// Bytes from its start; the rest of the last block is zero.
    pub len: u32,
    /// CRC32C of each block's bytes.
    pub crcs: Vec<u32>,
}

impl Placed {
    /// The blocks.
    pub(crate) fn run(&self) -> Run {
        (self.addr, u64::from(self.len).div_ceil(BLOCK_SIZE))
    }

    /// The pieces of an array that hold the bytes, from `offset` on.
    pub(crate) fn pieces(&self, offset: u64, epoch: Epoch) -> impl Iterator<Item = Piece> {
        self.crcs.chunks(EXTENT_BLOCKS_MAX as usize).enumerate().map(move |(i, crcs)| {
            let start = i as u64 * EXTENT_BLOCKS_MAX * BLOCK_SIZE;
            let len = (u64::from(self.len) - start).min(EXTENT_BLOCKS_MAX * BLOCK_SIZE);
            let device = Device {
                addr: self.addr.0 + i as u64 * EXTENT_BLOCKS_MAX,
                skip: 0,
                len: len as u32,
                tail: ((len - 1) % BLOCK_SIZE + 1) as u16,
                crcs: pack_crcs(crcs),
            };
            Piece { offset: offset + start, epoch, body: Body::Device(device) }
        })
    }
}

/// What staging decided about an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Decision {
    /// The bytes of the write went to the device.
    pub(crate) device: bool,
    /// Inline pieces before its end were then gathered into a device extent.
    pub(crate) gathered: bool,
}

/// That a transaction is prepared, not applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Prepared {
    pub(crate) id: TxId,
    /// Pages kept back for its end.
    pub(crate) pages: u32,
}

/// A decoded record.
#[derive(Debug)]
pub struct Record {
    /// Position in the order of staging; a checkpoint holds all records up to one of these.
    pub seq: u64,
    /// Data the record relies on.
    pub placed: Vec<Placed>,
    pub(crate) tx: Tx,
    pub(crate) decisions: Vec<Decision>,
    pub(crate) prepared: Option<Prepared>,
}

/// The bytes are not a WAL record of this format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed WAL record")]
pub struct BadRecord;

impl From<Malformed> for BadRecord {
    fn from(_: Malformed) -> BadRecord {
        BadRecord
    }
}

pub(crate) fn encode(
    seq: u64,
    tx: &Tx,
    decisions: &[Decision],
    placed: &[Placed],
    prepared: Option<Prepared>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(record_len_hint(tx));
    out.push(FORMAT);
    put_u64(&mut out, seq);
    put_u64(&mut out, tx.epoch);
    put_varint(&mut out, tx.epoch.saturating_sub(tx.horizon()));
    put_varint(&mut out, placed.len() as u64);
    for p in placed {
        put_varint(&mut out, p.addr.0);
        put_varint(&mut out, u64::from(p.len));
        p.crcs.iter().for_each(|&crc| put_u32(&mut out, crc));
    }
    put_varint(&mut out, tx.objects.len() as u64);
    for (cid, oid) in &tx.objects {
        out.extend_from_slice(&cid.0);
        put_bytes(&mut out, &oid.0);
    }
    put_varint(&mut out, (decisions.len() + usize::from(prepared.is_some())) as u64);
    for (op, decision) in tx.ops.iter().filter(|op| op.is_logged()).zip(decisions) {
        encode_op(&mut out, op, *decision);
    }
    if let Some(Prepared { id, pages }) = prepared {
        out.push(CODE_PREPARE);
        out.extend_from_slice(&id.0);
        put_varint(&mut out, u64::from(pages));
    }
    out
}

impl Record {
    /// Decodes a record.
    pub fn decode(bytes: Bytes) -> Result<Record, BadRecord> {
        let mut r = Reader::new(bytes);
        if r.u8()? != FORMAT {
            return Err(BadRecord);
        }
        let (seq, epoch) = (r.u64()?, r.u64()?);
        if seq > SEQ_MAX {
            return Err(BadRecord);
        }
        let horizon = epoch.checked_sub(r.varint()?).ok_or(BadRecord)?;
        let count = r.count(6)?;
        let mut placed = Vec::with_capacity(count);
        for _ in 0..count {
            placed.push(decode_placed(&mut r)?);
        }
        let count = r.count(17)?;
        let mut objects = Vec::with_capacity(count);
        for _ in 0..count {
            objects.push((ContainerId(r.array()?), ObjectKey(r.bytes()?)));
        }
        let count = r.count(2)?;
        let (mut ops, mut decisions) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut prepared = None;
        for _ in 0..count {
            let code = r.u8()?;
            if code == CODE_PREPARE {
                prepared = Some(Prepared { id: TxId(r.array()?), pages: r.int()? });
                break;
            }
            let (op, decision) = decode_op(code, &mut r, objects.len())?;
            ops.push(op);
            decisions.push(decision);
        }
        if r.remaining() != 0 || ops.len() + usize::from(prepared.is_some()) != count {
            return Err(BadRecord);
        }
        let mut tx = Tx::logged(epoch, horizon, objects, ops);
        tx.prepare = prepared.map(|p| p.id);
        Ok(Record { seq, placed, tx, decisions, prepared })
    }
}

fn decode_placed(r: &mut Reader) -> Result<Placed, Malformed> {
    let (addr, len) = (r.varint()?, r.int::<u32>()?);
    let blocks = u64::from(len).div_ceil(BLOCK_SIZE);
    if len == 0 || addr.checked_add(blocks).is_none() || blocks as usize * 4 > r.remaining() {
        return Err(Malformed);
    }
    let crcs = (0..blocks).map(|_| r.u32()).collect::<Result<_, _>>()?;
    Ok(Placed { addr: BlockAddr(addr), len, crcs })
}

fn record_len_hint(tx: &Tx) -> usize {
    let inline: usize = tx
        .ops
        .iter()
        .map(|op| match op {
            TxOp::Update { akey, value, .. } => akey.len() + value.len() + 16,
            _ => 64,
        })
        .sum();
    64 + tx.objects.iter().map(|(_, o)| o.0.len() + 20).sum::<usize>() + inline
}

pub(crate) fn head(out: &mut Vec<u8>, code: u8, object: u32) {
    out.push(code);
    put_varint(out, u64::from(object));
}

pub(crate) fn encode_op(out: &mut Vec<u8>, op: &TxOp, decision: Decision) {
    match op {
        TxOp::CreateContainer(_) | TxOp::DestroyContainer(_) | TxOp::RetainContainer { .. } => {
            encode_container_op(out, op)
        }
        TxOp::CreateObject { object } => head(out, 3, *object),
        TxOp::Update { object, dkey, akey, value } => {
            head(out, 4, *object);
            [dkey, akey, value].into_iter().for_each(|b| put_bytes(out, b));
        }
        TxOp::Write { .. } | TxOp::Truncate { .. } | TxOp::PunchRange { .. } => {
            encode_array_op(out, op, decision);
        }
        TxOp::PunchAkey { object, dkey, akey } => {
            head(out, 8, *object);
            put_bytes(out, dkey);
            put_bytes(out, akey);
        }
        TxOp::PunchAkeys { object, dkey, from, to } => {
            head(out, if to.is_some() { 9 } else { 10 }, *object);
            put_bytes(out, dkey);
            put_bytes(out, from);
            to.iter().for_each(|to| put_bytes(out, to));
        }
        TxOp::PunchDkey { object, dkey } => {
            head(out, 11, *object);
            put_bytes(out, dkey);
        }
        TxOp::PunchObject { object } => head(out, 12, *object),
        TxOp::Retain { object, epochs } => {
            head(out, 13, *object);
            encode_epochs(out, epochs);
        }
        TxOp::Aggregate { object, cursor, budget } => {
            head(out, 20, *object);
            cursor.encode(out);
            put_u32(out, *budget);
        }
        TxOp::Merge { object, merge } => {
            head(out, 22, *object);
            merge.encode(decision.device, out);
        }
        TxOp::Discard { .. } => encode_discard(out, op),
        TxOp::Clone { object, clone } => {
            head(out, 24, *object);
            clone.encode(out);
        }
        TxOp::SetProperty { .. }
        | TxOp::CreateContainerIn { .. }
        | TxOp::SplitContainer { .. }
        | TxOp::MergeContainer { .. } => crate::container::encode_op(out, op),
        TxOp::Import { object, import } => {
            head(out, 25, *object);
            put_bytes(out, &import.bytes);
        }
        TxOp::CommitPrepared(id) | TxOp::AbortPrepared(id) => {
            out.push(if matches!(op, TxOp::CommitPrepared(_)) { 29 } else { 30 });
            out.extend_from_slice(&id.0);
        }
        TxOp::Require { .. } => {}
    }
}

fn encode_container_op(out: &mut Vec<u8>, op: &TxOp) {
    match op {
        TxOp::CreateContainer(cid) => {
            out.push(1);
            out.extend_from_slice(&cid.0);
        }
        TxOp::DestroyContainer(cid) => {
            out.push(2);
            out.extend_from_slice(&cid.0);
        }
        TxOp::RetainContainer { cid, epochs } => {
            out.push(14);
            out.extend_from_slice(&cid.0);
            encode_epochs(out, epochs);
        }
        _ => {}
    }
}

fn encode_discard(out: &mut Vec<u8>, op: &TxOp) {
    if let TxOp::Discard { object, from, to, cursor, budget } = op {
        let whole = *budget == u32::MAX && *cursor == Cursor::default();
        head(out, if whole { 21 } else { 23 }, *object);
        put_u64(out, *from);
        put_u64(out, *to);
        if !whole {
            cursor.encode(out);
            put_u32(out, *budget);
        }
    }
}

fn encode_array_op(out: &mut Vec<u8>, op: &TxOp, decision: Decision) {
    match op {
        TxOp::Write { object, dkey, akey, offset, len, data, .. } => {
            head(out, 5, *object);
            out.push(u8::from(decision.device) | u8::from(decision.gathered) << 1);
            put_bytes(out, dkey);
            put_bytes(out, akey);
            put_varint(out, *offset);
            put_varint(out, *len);
            if !decision.device {
                out.extend_from_slice(data);
            }
        }
        TxOp::Truncate { object, dkey, akey, size } => {
            head(out, 6, *object);
            put_bytes(out, dkey);
            put_bytes(out, akey);
            put_varint(out, *size);
        }
        TxOp::PunchRange { object, dkey, akey, offset, len } => {
            head(out, 7, *object);
            put_bytes(out, dkey);
            put_bytes(out, akey);
            put_varint(out, *offset);
            put_varint(out, *len);
        }
        _ => {}
    }
}

pub(crate) fn decode_op(
    code: u8,
    r: &mut Reader,
    objects: usize,
) -> Result<(TxOp, Decision), Malformed> {
    let decision = Decision::default();
    match code {
        1 => return Ok((TxOp::CreateContainer(ContainerId(r.array()?)), decision)),
        2 => return Ok((TxOp::DestroyContainer(ContainerId(r.array()?)), decision)),
        14 => {
            let cid = ContainerId(r.array()?);
            return Ok((TxOp::RetainContainer { cid, epochs: decode_epochs(r)? }, decision));
        }
        29 => return Ok((TxOp::CommitPrepared(TxId(r.array()?)), decision)),
        30 => return Ok((TxOp::AbortPrepared(TxId(r.array()?)), decision)),
        32..=37 => return Ok((crate::container::decode_op(r, code)?, decision)),
        _ => {}
    }
    let object: u32 = r.int()?;
    if object as usize >= objects {
        return Err(Malformed);
    }
    let op = match code {
        3 => TxOp::CreateObject { object },
        4 => TxOp::Update { object, dkey: r.bytes()?, akey: r.bytes()?, value: r.bytes()? },
        5 => return decode_write(r, object),
        6 => TxOp::Truncate { object, dkey: r.bytes()?, akey: r.bytes()?, size: r.varint()? },
        7 => TxOp::PunchRange {
            object,
            dkey: r.bytes()?,
            akey: r.bytes()?,
            offset: r.varint()?,
            len: r.varint()?,
        },
        8 => TxOp::PunchAkey { object, dkey: r.bytes()?, akey: r.bytes()? },
        9 => TxOp::PunchAkeys { object, dkey: r.bytes()?, from: r.bytes()?, to: Some(r.bytes()?) },
        10 => TxOp::PunchAkeys { object, dkey: r.bytes()?, from: r.bytes()?, to: None },
        11 => TxOp::PunchDkey { object, dkey: r.bytes()? },
        12 => TxOp::PunchObject { object },
        20 => TxOp::Aggregate { object, cursor: Cursor::decode(r)?, budget: r.u32()? },
        21 => {
            let (cursor, budget) = (Cursor::default(), u32::MAX);
            TxOp::Discard { object, from: r.u64()?, to: r.u64()?, cursor, budget }
        }
        23 => {
            let (from, to) = (r.u64()?, r.u64()?);
            TxOp::Discard { object, from, to, cursor: Cursor::decode(r)?, budget: r.u32()? }
        }
        22 => {
            let (merge, device) = Merge::decode(r)?;
            let op = TxOp::Merge { object, merge: Box::new(merge) };
            return Ok((op, Decision { device, gathered: false }));
        }
        24 => TxOp::Clone { object, clone: Box::new(CloneRange::decode(r, objects)?) },
        25 => {
            let import = Import::decode(r.bytes()?, Vec::new())?;
            TxOp::Import { object, import: Box::new(import) }
        }
        13 => TxOp::Retain { object, epochs: decode_epochs(r)? },
        _ => return Err(Malformed),
    };
    Ok((op, decision))
}

pub(crate) fn encode_epochs(out: &mut Vec<u8>, epochs: &[u64]) {
    put_varint(out, epochs.len() as u64);
    epochs.iter().for_each(|&e| put_u64(out, e));
}

pub(crate) fn decode_epochs(r: &mut Reader) -> Result<Vec<u64>, Malformed> {
    let count = r.count(8)?;
    (0..count).map(|_| r.u64()).collect()
}

fn decode_write(r: &mut Reader, object: u32) -> Result<(TxOp, Decision), Malformed> {
    let flags = r.u8()?;
    let decision = Decision { device: flags & 1 != 0, gathered: flags & 2 != 0 };
    let (dkey, akey, offset, len) = (r.bytes()?, r.bytes()?, r.varint()?, r.varint()?);
    // Of bytes on the device only the length is known; staging does not look at them.
    let inline_len = if decision.device { 0 } else { len };
    let data = r.take(usize::try_from(inline_len).map_err(|_| Malformed)?)?;
    let op = TxOp::Write { object, dkey, akey, offset, len, data, crcs: None };
    Ok((op, decision))
}
