//! Taking an object out of one store and into another with all its versions, a bounded part at a time.
//!
//! A part is a list of entries and the device extents whose bytes belong to it; the caller reads those
//! and gives both to [`Tx::import`]. Versions keep their epochs, whatever has happened in the other store
//! since. The last part has the object's own history: before it, the object does not exist there.
//! Invariant: what is read at an epoch is the same in both stores; blocks are not shared any more.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_bytes, put_varint};
use crate::epoch::Epoch;
use crate::history::{KEY_PIECE, OldPiece, Version};
use crate::item::{Array, Body, Extents, ItemValue, Piece};
use crate::log::BadRecord;
use crate::record::{ObjectRecord, Punch, TABLE_HISTORY};
use crate::stage::{Stage, check_keys, impossible};
use crate::timestamp::{Level, Path};
use crate::tree;
use crate::tx::{Tx, TxOp};
use crate::types::{ContainerId, DeviceExtent, ObjectKey, ReadError, StageError};
use crate::view::View;
use crate::vos::Vos;

const ENTRY_AKEY: u8 = 1;
const ENTRY_ITEM: u8 = 2;
const ENTRY_VERSION: u8 = 3;
const ENTRY_PIECE: u8 = 4;
const ENTRY_DEVICE: u8 = 5;
const ENTRY_HEAD: u8 = 6;
const ENTRY_PUNCH: u8 = 7;
/// The item has been given, nothing of its history yet.
const INNER_ITEM: u8 = 0;
/// After the history of an array come the pieces at its head.
const INNER_HEAD: u8 = 3;
/// After all akeys come the punches that are not in the record.
const INNER_PUNCHES: u8 = 5;

/// A part of an object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Export {
    /// Everything but the bytes on the device.
    pub entries: Bytes,
    /// Where those are, in the order in which [`Tx::import`] wants them.
    pub data: Vec<DeviceExtent>,
    /// Where the next part begins; `None` after the last one.
    pub next: Option<Anchor>,
}

/// How far an export or [`Vos::iterate`] has come; the default one begins.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Anchor {
    pub(crate) dkey: Bytes,
    pub(crate) akey: Bytes,
    /// Last key done inside the akey.
    pub(crate) inner: Bytes,
}

/// A part as it is taken in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Import {
    pub(crate) bytes: Bytes,
    entries: Vec<Entry>,
    /// Empty when replayed: the record has the places.
    pub(crate) data: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Entry {
    /// What follows belongs to this akey.
    Akey(Bytes, Bytes),
    /// The akey, without extents; whether it has history.
    Item(ItemValue, bool),
    Version(Epoch, Version),
    Piece(Option<Epoch>, Piece),
    /// Offset, length and birth of bytes on the device.
    Device(Option<Epoch>, u64, u64, Epoch),
    Head(ObjectRecord),
    Punch(Punch),
}

/// A part being put together.
struct Part {
    entries: Vec<u8>,
    data: Vec<DeviceExtent>,
    left: usize,
}

impl Part {
    fn add_akey(&mut self, dkey: &[u8], akey: &[u8]) {
        self.entries.push(ENTRY_AKEY);
        put_bytes(&mut self.entries, dkey);
        put_bytes(&mut self.entries, akey);
    }

    fn add_item(&mut self, value: &ItemValue) {
        let bare = match value.clone() {
            ItemValue::Single(single) => {
                ItemValue::Single(crate::item::Single { history: 0, ..single })
            }
            ItemValue::Array(array) => {
                ItemValue::Array(Array { history: 0, extents: Extents::default(), ..array })
            }
        };
        self.entries.extend([ENTRY_ITEM, u8::from(value.history() != 0)]);
        bare.encode(&mut self.entries);
        self.left = self.left.saturating_sub(1);
    }

    fn add_piece(&mut self, piece: &Piece, death: Option<Epoch>) {
        let device = matches!(piece.body, Body::Device(_));
        self.entries.push(if device { ENTRY_DEVICE } else { ENTRY_PIECE });
        self.entries.push(u8::from(death.is_some()));
        death.iter().for_each(|d| d.encode(&mut self.entries));
        put_varint(&mut self.entries, piece.offset);
        match &piece.body {
            Body::Device(d) => {
                put_varint(&mut self.entries, piece.len());
                piece.epoch.encode(&mut self.entries);
                let extent = DeviceExtent { offset: piece.offset, ..DeviceExtent::from(d) };
                self.data.push(extent);
            }
            _ => piece.encode_body(&mut self.entries),
        }
        self.left = self.left.saturating_sub(1);
    }

    fn end(self, next: Option<Anchor>) -> Export {
        Export { entries: self.entries.into(), data: self.data, next }
    }
}

impl View<'_> {
    /// About `budget` entries of an object, from `anchor` on; `None` if there is no object. It must not
    /// change between the parts. All versions are among them, whatever the epoch of the view: that says
    /// which prepared transactions to wait for, and up to when what was found must stay true.
    pub fn export(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        anchor: &Anchor,
        budget: usize,
    ) -> Result<Option<Export>, ReadError> {
        let read = || match self.vos.object(cid, oid)? {
            Some(record) => self.vos.export_object(record, anchor, budget).map(Some),
            None => Ok(None),
        };
        let missing = |found: &Option<_>| found.is_none().then_some(Level::Object);
        self.guarded(|| Path::object(cid, &oid.0), read, missing)
    }
}

impl Vos {
    /// [`View::export`] in the newest state.
    pub fn export(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        anchor: &Anchor,
        budget: usize,
    ) -> Result<Option<Export>, ReadError> {
        self.at(u64::MAX).export(cid, oid, anchor, budget)
    }

    fn export_object(
        &self,
        record: ObjectRecord,
        anchor: &Anchor,
        budget: usize,
    ) -> Result<Export, ReadError> {
        let mut at = anchor.clone();
        let mut part = Part { entries: Vec::new(), data: Vec::new(), left: budget.max(1) };
        while at.inner.first() != Some(&INNER_PUNCHES)
            && let Some((dkey, akey, value)) = self.akey_from(&record, &at.dkey, &at.akey)?
        {
            part.add_akey(&dkey, &akey);
            if at.inner.is_empty() {
                part.add_item(&value);
                at.inner = Bytes::from_static(&[INNER_ITEM]);
            }
            if let Some(inner) = self.export_akey(&value, &at.inner, &mut part)? {
                return Ok(part.end(Some(Anchor { dkey, akey, inner })));
            }
            let akey = [&akey, &[0][..]].concat().into();
            at = Anchor { dkey, akey, inner: Bytes::new() };
            if part.left == 0 {
                return Ok(part.end(Some(at)));
            }
        }
        if record.punched != 0
            && let Some(inner) = self.export_punches(record.punched, &at.inner, &mut part)?
        {
            return Ok(part.end(Some(Anchor { inner, ..at })));
        }
        let head =
            ObjectRecord { moved: Vec::new(), dkeys: 0, punched: 0, items: Vec::new(), ..record };
        part.entries.push(ENTRY_HEAD);
        put_bytes(&mut part.entries, &head.encode());
        Ok(part.end(None))
    }

    /// The rest of the punches; where to go on if the part is full before.
    fn export_punches(
        &self,
        number: u64,
        inner: &[u8],
        part: &mut Part,
    ) -> Result<Option<Bytes>, ReadError> {
        let (from, mut next) = (inner.get(1..).unwrap_or_default(), None);
        self.scan_punches(number, from, None, &mut |key, punches| {
            if part.left == 0 {
                next = Some([&[INNER_PUNCHES], key].concat().into());
                return ControlFlow::Break(());
            }
            for punch in punches {
                part.entries.push(ENTRY_PUNCH);
                punch.encode(&mut part.entries);
            }
            part.left -= 1;
            ControlFlow::Continue(())
        })?;
        Ok(next)
    }

    /// The rest of an akey; where to go on if the part is full before.
    fn export_akey(
        &self,
        value: &ItemValue,
        inner: &Bytes,
        part: &mut Part,
    ) -> Result<Option<Bytes>, ReadError> {
        let mut last = None;
        if value.history() != 0 && inner.first() != Some(&INNER_HEAD) {
            let start = [inner, &[0][..]].concat();
            self.scan_table(TABLE_HISTORY, value.history(), &start, None, &mut |key, cell| {
                if part.left == 0 {
                    return Ok(ControlFlow::Break(()));
                }
                let entry = tree::load_value(&self.pool, cell)?;
                if key.first() != Some(&KEY_PIECE) {
                    part.entries.push(ENTRY_VERSION);
                    put_bytes(&mut part.entries, &key[1..]);
                    put_bytes(&mut part.entries, &entry);
                    part.left -= 1;
                } else {
                    let old = OldPiece::decode(key, entry)?;
                    part.add_piece(&old.piece, Some(old.death));
                }
                last = Some(Bytes::copy_from_slice(key));
                Ok(ControlFlow::Continue(()))
            })?;
            if part.left == 0 {
                return Ok(Some(last.unwrap_or(inner.clone())));
            }
        }
        let ItemValue::Array(array) = value else {
            return Ok(None);
        };
        let head = inner.split_first().filter(|(kind, _)| **kind == INNER_HEAD);
        let from = head.and_then(|(_, at)| at.try_into().ok()).map_or(0, u64::from_be_bytes);
        for piece in self.pieces(&array.extents, from, u64::MAX)? {
            if part.left == 0 {
                return Ok(Some([&[INNER_HEAD][..], &piece.offset.to_be_bytes()].concat().into()));
            }
            part.add_piece(&piece, None);
        }
        Ok(None)
    }
}

impl Import {
    /// Decodes a part; its device bytes are `data`, or in the places of a record.
    pub(crate) fn decode(bytes: Bytes, data: Vec<Bytes>) -> Result<Import, Malformed> {
        let (mut r, mut entries) = (Reader::new(bytes.clone()), Vec::new());
        while r.remaining() > 0 {
            entries.push(Entry::decode(&mut r)?);
        }
        Ok(Import { bytes, entries, data })
    }

    /// Lengths of what belongs on the device.
    fn device_lens(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().filter_map(|e| match e {
            Entry::Device(_, _, len, _) => Some(*len),
            _ => None,
        })
    }

    /// No more bytes are in the record.
    pub(crate) fn log_bytes(&self) -> usize {
        self.bytes.len() + self.device_lens().map(|len| len as usize / 1000 + 32).sum::<usize>()
    }
}

impl Entry {
    fn decode(r: &mut Reader) -> Result<Entry, Malformed> {
        let kind = r.u8()?;
        Ok(match kind {
            ENTRY_AKEY => Entry::Akey(r.bytes()?, r.bytes()?),
            ENTRY_ITEM => {
                let history = r.u8()? != 0;
                match ItemValue::decode(r)? {
                    ItemValue::Array(Array {
                        extents: Extents::List(list), history: 0, ..
                    }) if !list.is_empty() => {
                        return Err(Malformed);
                    }
                    ItemValue::Array(Array { extents: Extents::Tree { .. }, .. }) => {
                        return Err(Malformed);
                    }
                    value if value.history() != 0 => return Err(Malformed),
                    value => Entry::Item(value, history),
                }
            }
            ENTRY_VERSION => {
                let birth = Epoch::from_key(&r.bytes()?).ok_or(Malformed)?;
                Entry::Version(birth, Version::decode(r.bytes()?).map_err(|_| Malformed)?)
            }
            ENTRY_PIECE | ENTRY_DEVICE => {
                let death = if r.u8()? != 0 { Some(Epoch::decode(r)?) } else { None };
                let offset = r.varint()?;
                if kind == ENTRY_PIECE {
                    let piece = Piece::decode_body(offset, r)?;
                    let device = matches!(piece.body, Body::Device(_));
                    let piece = Some(piece).filter(|_| !device).ok_or(Malformed)?;
                    Entry::Piece(death, piece)
                } else {
                    let len: u32 = r.int()?;
                    let sound = len > 0 && offset.checked_add(u64::from(len)).is_some();
                    let epoch = Epoch::decode(r)?;
                    let len = Some(u64::from(len)).filter(|_| sound).ok_or(Malformed)?;
                    Entry::Device(death, offset, len, epoch)
                }
            }
            ENTRY_HEAD => {
                let record = ObjectRecord::decode(r.bytes()?).map_err(|_| Malformed)?;
                let outside = record.dkeys != 0 || record.punched != 0;
                match record.moved.is_empty() && !outside && record.items.is_empty() {
                    true => Entry::Head(record),
                    false => return Err(Malformed),
                }
            }
            ENTRY_PUNCH => Entry::Punch(Punch::decode(r)?),
            _ => return Err(Malformed),
        })
    }
}

impl Stage<'_> {
    /// Takes in a part of an object, which must not exist yet.
    pub(crate) fn import(
        &mut self,
        tx: &Tx,
        object: u32,
        import: &Import,
    ) -> Result<(), StageError> {
        self.look_up(tx, object)?;
        let loaded = &mut self.loaded[object as usize];
        let record = loaded.record.get_or_insert_default().get_or_insert_default();
        // The parts that came before have left no epoch.
        let punched = !record.has_no_punches() && record.epoch > Epoch::MIN;
        if !record.log.0.is_empty() || punched {
            return Err(StageError::Exists);
        }
        loaded.changed = true;
        let (mut dkey, mut akey, mut data) = (Bytes::new(), Bytes::new(), import.data.iter());
        for entry in &import.entries {
            match entry {
                Entry::Akey(d, a) => {
                    check_keys(d, a)?;
                    (dkey, akey) = (d.clone(), a.clone());
                }
                Entry::Item(value, history) => {
                    if self.item(tx, object, &dkey, &akey)?.is_some() {
                        return Err(StageError::Exists);
                    }
                    let number = if *history { self.vos.take_number() } else { 0 };
                    let mut value = value.clone();
                    match &mut value {
                        ItemValue::Single(single) => single.history = number,
                        ItemValue::Array(array) => array.history = number,
                    }
                    self.set_item(object, &dkey, &akey, Some(value))?;
                }
                Entry::Version(birth, version) => {
                    let item = self.item(tx, object, &dkey, &akey)?;
                    let number = item.map(|i| i.history()).filter(|&n| n != 0);
                    let number = number.ok_or(impossible(TABLE_HISTORY))?;
                    self.put_version(number, *birth, version)?;
                }
                Entry::Piece(death, piece) => {
                    let piece = vec![piece.clone()];
                    self.import_pieces(tx, object, (&dkey, &akey), *death, piece)?;
                }
                Entry::Device(death, offset, len, epoch) => {
                    let data = data.next().cloned().unwrap_or_default();
                    let mut pieces = self.place(*offset, *len, &data, None)?;
                    pieces.iter_mut().for_each(|p| p.epoch = *epoch);
                    self.import_pieces(tx, object, (&dkey, &akey), *death, pieces)?;
                }
                Entry::Head(head) => self.import_head(object, head)?,
                Entry::Punch(punch) => {
                    check_keys(&punch.dkey, &punch.from)?;
                    self.add_punch(object, punch.clone())?;
                }
            }
        }
        Ok(())
    }

    fn import_pieces(
        &mut self,
        tx: &Tx,
        object: u32,
        (dkey, akey): (&Bytes, &Bytes),
        death: Option<Epoch>,
        pieces: Vec<Piece>,
    ) -> Result<(), StageError> {
        let Some(ItemValue::Array(mut array)) = self.item(tx, object, dkey, akey)? else {
            return Err(StageError::WrongKind);
        };
        if let Some(death) = death {
            let number = Some(array.history).filter(|&n| n != 0);
            let number = number.ok_or(impossible(TABLE_HISTORY))?;
            return Ok(pieces
                .into_iter()
                .try_for_each(|piece| self.put_old_piece(number, &OldPiece { piece, death }))?);
        }
        self.replace(&mut array, &[], pieces)?;
        self.put_array(object, dkey, akey, array)
    }

    fn import_head(&mut self, object: u32, head: &ObjectRecord) -> Result<(), StageError> {
        if let Some(Some(record)) = &mut self.loaded[object as usize].record {
            let here = std::mem::take(record);
            *record = ObjectRecord {
                moved: here.moved,
                dkeys: here.dkeys,
                items: here.items,
                punches: here.punches,
                punched: here.punched,
                ..head.clone()
            };
        }
        head.punches.iter().try_for_each(|punch| self.add_punch(object, punch.clone()))
    }
}

impl Tx {
    /// Takes in a part of an object as [`View::export`] gave it, with the bytes of its `data`. The parts
    /// come in order, to an object that does not exist. The transaction's epoch does not matter.
    pub fn import(
        &mut self,
        cid: ContainerId,
        oid: &ObjectKey,
        entries: Bytes,
        data: Vec<Bytes>,
    ) -> Result<(), BadRecord> {
        let import = Import::decode(entries, data)?;
        if !import.device_lens().eq(import.data.iter().map(|d| d.len() as u64)) {
            return Err(BadRecord);
        }
        let object = self.object(cid, oid);
        self.ops.push(TxOp::Import { object, import: Box::new(import) });
        Ok(())
    }
}
