//! Merging: many small pieces of an array, once nobody tells them apart, become one extent; and where
//! bytes lie, in the metadata or on the device, is decided again by the length they now have.
//!
//! The caller reads the bytes and gives them back in a logged operation. Pieces that may go together lie
//! side by side, are visible, and have no observer between their epochs; the array keeps no history.
//! Invariant: nothing visible changes, at no epoch that may be read.

use std::ops::Range;

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::epoch::{Epoch, Scene};
use crate::item::{Array, Body, Extents, ItemValue, Piece};
use crate::log::Decision;
use crate::stage::{Stage, inline_pieces};
use crate::tx::Tx;
use crate::types::{BLOCK_SIZE, ContainerId, ObjectKey, ReadError, StageError};
use crate::view::View;

/// Length of an array looked at in one step, and of what one merge writes.
const WINDOW: u64 = 1 << 20;
/// Fewer pieces are not worth writing their bytes again...
const PIECES_MIN: usize = 4;
/// ...nor are pieces of this length on average.
const PIECE_LEN_MAX: u64 = 64 << 10;

/// The bytes of a range that become one extent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Merge {
    pub(crate) dkey: Bytes,
    pub(crate) akey: Bytes,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// The bytes; a replayed record leaves them out when they are on the device.
    pub(crate) data: Bytes,
}

impl Merge {
    pub(crate) fn encode(&self, device: bool, out: &mut Vec<u8>) {
        out.push(u8::from(device));
        put_bytes(out, &self.dkey);
        put_bytes(out, &self.akey);
        put_varint(out, self.offset);
        put_varint(out, self.len);
        if !device {
            out.extend_from_slice(&self.data);
        }
    }

    /// The operation, and whether its bytes are on the device.
    pub(crate) fn decode(r: &mut Reader) -> Result<(Merge, bool), Malformed> {
        let device = r.u8()? != 0;
        let (dkey, akey, offset, len) = (r.bytes()?, r.bytes()?, r.varint()?, r.varint()?);
        let inline_len = if device { 0 } else { len };
        let data = r.take(usize::try_from(inline_len).map_err(|_| Malformed)?)?;
        offset.checked_add(len).ok_or(Malformed)?;
        Ok((Merge { dkey, akey, offset, len, data }, device))
    }

    pub(crate) fn log_bytes(&self, inline_threshold: u32) -> usize {
        let inline = self.len < u64::from(inline_threshold);
        let body = if inline { self.len } else { self.len / 1000 + 32 };
        self.dkey.len() + self.akey.len() + body as usize + 64
    }
}

/// What one step of a search for ranges to merge found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MergeStep {
    /// A range to read and to give to [`Tx::merge`].
    pub range: Option<Range<u64>>,
    /// Where to look next; `None` at the end.
    pub next: Option<u64>,
}

impl View<'_> {
    /// The next range of an array from offset `from` on that is worth merging, when nobody reads below
    /// `horizon` but at retained epochs.
    pub fn mergeable(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        akey: &[u8],
        from: u64,
        horizon: u64,
    ) -> Result<MergeStep, ReadError> {
        let nothing = MergeStep { range: None, next: None };
        let Some(record) = self.record(cid, oid)? else {
            return Ok(nothing);
        };
        let value = self.vos.item(&record, dkey, akey)?;
        let Some(ItemValue::Array(array)) = value.filter(|v| v.history() == 0) else {
            return Ok(nothing);
        };
        let observers = self.vos.observers(cid, Some(&record), horizon);
        let scene = Scene { observers, punches: self.vos.punches_of(&record, dkey, akey)? };
        let mut pieces = self.vos.pieces(&array.extents, from, from.saturating_add(WINDOW))?;
        pieces.retain(|p| p.offset >= from);
        let threshold = u64::from(self.vos.config.inline_threshold);
        let mut rest = &pieces[..];
        while !rest.is_empty() {
            let run = run_len(rest, &scene);
            let (some, others) = rest.split_at(run.max(1));
            if run > 0 && is_worthwhile(some, threshold) {
                let (start, end) = (some[0].offset, some[some.len() - 1].end());
                return Ok(MergeStep { range: Some(start..end), next: Some(end) });
            }
            rest = others;
        }
        let beyond = pieces.last().map_or(from.saturating_add(WINDOW), Piece::end);
        let next = self.vos.pieces(&array.extents, beyond, u64::MAX)?;
        let next = next.into_iter().map(|p| p.offset).find(|&at| at >= beyond);
        Ok(MergeStep { next, ..nothing })
    }
}

impl Stage<'_> {
    /// Puts one extent in the place of the pieces of a range.
    pub(crate) fn merge(
        &mut self,
        tx: &Tx,
        object: u32,
        merge: &Merge,
        recorded: Option<Decision>,
    ) -> Result<Decision, StageError> {
        let Merge { dkey, akey, offset, len, data } = merge;
        let scene = self.scene(tx, object, dkey, akey)?;
        let Some(ItemValue::Array(mut array)) = self.item(tx, object, dkey, akey)? else {
            return Err(StageError::NotTogether);
        };
        let end = offset + len;
        let old = self.vos.pieces(&array.extents, *offset, end)?;
        let whole = array.history == 0
            && run_len(&old, &scene) == old.len()
            && old.first().is_some_and(|p| p.offset == *offset)
            && old.last().is_some_and(|p| p.end() == end);
        if !whole {
            return Err(StageError::NotTogether);
        }
        let device = match recorded {
            Some(decision) => decision.device,
            None => *len >= u64::from(self.vos.config.inline_threshold),
        };
        let mut new = match device {
            true => self.place(*offset, *len, data, None)?,
            false => inline_pieces(*offset, self.epoch, data),
        };
        let newest = old.iter().map(|p| p.epoch).max().unwrap_or(self.epoch);
        new.iter_mut().for_each(|p| p.epoch = newest);
        // A block may hold visible bytes on either side, too.
        let (lo, hi) = (offset.saturating_sub(BLOCK_SIZE), end.saturating_add(BLOCK_SIZE));
        let mut around = self.vos.pieces(&array.extents, lo, hi)?;
        around.retain(|p| p.offset < *offset || p.offset >= end);
        self.free_difference(&old, around.iter().chain(&new));
        self.replace(&mut array, &old, new)?;
        self.raise_horizon(tx, object);
        self.put_array(object, dkey, akey, array)?;
        Ok(Decision { device, gathered: false })
    }
}

/// Whether an array may have something to merge.
pub(crate) fn may_merge(array: &Array, inline_threshold: u32) -> bool {
    match &array.extents {
        Extents::Tree { .. } => true,
        Extents::List(list) => {
            let short = |p: &Piece| p.end() - p.offset < u64::from(inline_threshold);
            list.len() >= PIECES_MIN || list.iter().any(|p| is_device(p) && short(p))
        }
    }
}

/// How many pieces at the front can become one, up to a window of bytes; 0: not even the first.
fn run_len(pieces: &[Piece], scene: &Scene) -> usize {
    let Some(first) = pieces.first() else {
        return 0;
    };
    let (mut oldest, mut newest, mut at) = (first.epoch, first.epoch, first.offset);
    for (i, piece) in pieces.iter().enumerate() {
        let hole = matches!(piece.body, Body::Hole { .. });
        let hidden = scene.punches.hide(piece.epoch, Epoch::end_of(u64::MAX));
        let long = i > 0 && piece.end() - first.offset > WINDOW;
        (oldest, newest) = (oldest.min(piece.epoch), newest.max(piece.epoch));
        if hole || hidden || long || piece.offset != at || !scene.alike(oldest, newest) {
            return i;
        }
        at = piece.end();
    }
    pieces.len()
}

fn is_worthwhile(run: &[Piece], inline_threshold: u64) -> bool {
    let len: u64 = run.iter().map(|p| p.end() - p.offset).sum();
    let many = run.len() >= PIECES_MIN && len / (run.len() as u64) < PIECE_LEN_MAX;
    many || len < inline_threshold && run.iter().any(is_device)
}

fn is_device(piece: &Piece) -> bool {
    matches!(piece.body, Body::Device(_))
}
