//! Going through the versions of an object: what each akey held, from when to when.
//!
//! A view answers for one epoch; here are all versions born in a range of epochs. Their order is that of
//! the dkeys, the akeys, then births or, in arrays, offsets and then births; or exactly the other way
//! round. What was aggregated is not there: above the object's horizon the list is complete.
//! Invariant: a call looks at a bounded number of entries, and the next one goes on behind them.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::epoch::{Epoch, Punches};
use crate::export::Anchor;
use crate::history::{CLASS_LEN_MAX, KEY_PIECE, KEY_VERSION, OldPiece, Version as Old};
use crate::item::{Array, Body, Extents, ItemValue, Piece, Single};
use crate::query::Keys;
use crate::record::{ObjectRecord, TABLE_EXTENT, TABLE_HISTORY, entry_damaged, extent_offset};
use crate::timestamp::{Level, Path};
use crate::tree;
use crate::types::{ContainerId, DeviceExtent, Extent, ObjectKey, ReadError};
use crate::view::View;
use crate::vos::Vos;

const FOREVER: Epoch = Epoch { hlc: u64::MAX, minor: u16::MAX };

/// In anchors: values and punches of an akey, then its extents, then what is behind it.
const VERSIONS: u8 = 1;
const EXTENTS: u8 = 2;
const DONE: u8 = 3;

/// Which versions are wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Range {
    /// The lowest dkey.
    pub from: Bytes,
    /// The dkey after the highest; `None`: to the end.
    pub to: Option<Bytes>,
    /// Everything from the last to the first.
    pub reverse: bool,
    /// First and last clock of the births.
    pub epochs: (u64, u64),
    /// Of the single values of an akey only the oldest one of these. (The newest up to an epoch is what is
    /// visible.)
    pub oldest: bool,
    /// Of these.
    pub show: Show,
}

/// What is to be shown of the versions born in a range of epochs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Show {
    /// Those that a reader at the last epoch sees.
    pub visible: bool,
    /// Those that ended before.
    pub covered: bool,
    /// Punches of an akey and of all that is above it.
    pub punched: bool,
    /// Extents without bytes: punched ranges, and what a truncation cut off.
    pub holes: bool,
}

/// A version, alive from its birth up to, not including, its death.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// The dkey.
    pub dkey: Bytes,
    /// The akey.
    pub akey: Bytes,
    /// When it was written.
    pub birth: Epoch,
    /// When it was covered, punched or cut off; `None`: it is there.
    pub death: Option<Epoch>,
    /// What it is.
    pub kind: VersionKind,
}

/// What a version is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VersionKind {
    /// A single value.
    Value(Bytes),
    /// A punch: nothing older is seen after it.
    Punched,
    /// A part of an array.
    Extent(Extent),
}

/// A part of the versions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Iterated {
    /// In order.
    pub versions: Vec<Version>,
    /// Where to go on; `None` after the last part.
    pub next: Option<Anchor>,
}

/// A place in the order inside an akey: offset, birth.
type Place = (u64, Epoch);

/// What was found at a place: when it ended, and what it was.
struct Entry {
    place: Place,
    death: Epoch,
    kind: VersionKind,
}

/// Which entries of an akey are looked at.
struct Window {
    /// Only those behind this place.
    after: Option<Place>,
    reverse: bool,
    /// So many of each kind.
    limit: usize,
    epochs: (Epoch, Epoch),
}

impl Show {
    /// Everything.
    pub const ALL: Show = Show { visible: true, covered: true, punched: true, holes: true };
    /// What a reader sees.
    pub const VISIBLE: Show = Show { visible: true, covered: false, punched: false, holes: false };
}

impl Default for Range {
    fn default() -> Range {
        let (from, to, epochs) = (Bytes::new(), None, (0, u64::MAX));
        Range { from, to, reverse: false, epochs, oldest: false, show: Show::ALL }
    }
}

impl Range {
    /// The dkey, if there can be only one.
    fn only_dkey(&self) -> Option<&[u8]> {
        let to = self.to.as_ref()?;
        let one = to.strip_suffix(&[0]).is_some_and(|dkey| dkey == self.from);
        one.then_some(&self.from)
    }

    fn wants(&self, entry: &Entry) -> bool {
        let birth = entry.place.1.hlc;
        let visible = entry.death == FOREVER || entry.death > Epoch::end_of(self.epochs.1);
        let kind = match &entry.kind {
            VersionKind::Punched => self.show.punched,
            VersionKind::Extent(Extent::Hole { .. }) => self.show.holes,
            _ => true,
        };
        let seen = if visible { self.show.visible } else { self.show.covered };
        let punch = matches!(entry.kind, VersionKind::Punched);
        (self.epochs.0..=self.epochs.1).contains(&birth) && kind && (seen || punch)
    }
}

impl Window {
    fn has(&self, place: Place) -> bool {
        match self.after {
            None => true,
            Some(after) if self.reverse => place < after,
            Some(after) => place > after,
        }
    }

    /// The part of the offsets in which to look.
    fn offsets(&self) -> (u64, u64) {
        match self.after {
            Some((offset, _)) if self.reverse => (0, offset),
            Some((offset, _)) => (offset, u64::MAX),
            None => (0, u64::MAX),
        }
    }
}

impl View<'_> {
    /// The versions of an object in `range`, and no later than the view, from `anchor` on, that are among
    /// the next `budget` ones. It is a read of the object, or of the dkey if `range` has only one, at the
    /// last epoch.
    pub fn iterate(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        range: &Range,
        anchor: &Anchor,
        budget: usize,
    ) -> Result<Iterated, ReadError> {
        let epochs = (range.epochs.0, range.epochs.1.min(self.epoch().hlc));
        let (view, range) = (self.upto(epochs.1), Range { epochs, ..range.clone() });
        let path = || match range.only_dkey() {
            Some(dkey) => Path::dkey(cid, &oid.0, dkey),
            None => Path::object(cid, &oid.0),
        };
        let read = || match self.vos.object(cid, oid)? {
            Some(record) => Ok(Some(self.vos.iterate_object(&record, &range, anchor, budget)?)),
            None => Ok(None),
        };
        let missing = |found: &Option<_>| found.is_none().then_some(Level::Object);
        view.guarded(path, read, missing).map(Option::unwrap_or_default)
    }
}

impl Vos {
    /// [`View::iterate`] in the newest state.
    pub fn iterate(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        range: &Range,
        anchor: &Anchor,
        budget: usize,
    ) -> Result<Iterated, ReadError> {
        self.at(u64::MAX).iterate(cid, oid, range, anchor, budget)
    }

    fn iterate_object(
        &self,
        record: &ObjectRecord,
        range: &Range,
        anchor: &Anchor,
        budget: usize,
    ) -> Result<Iterated, ReadError> {
        let (mut out, mut at, mut left) = (Iterated::default(), anchor.clone(), budget.max(1));
        while let Some((dkey, akey, value)) = self.next_item(record, range, &at)? {
            let same = at.dkey == dkey && at.akey == akey && at.inner.first() != Some(&DONE);
            let inner = if same { at.inner.clone() } else { Bytes::new() };
            let first = out.versions.len();
            let punches = self.punches_of(record, &dkey, &akey)?;
            let (cost, next) =
                self.iterate_akey(range, &value, &punches, &inner, left, &mut out.versions)?;
            for version in &mut out.versions[first..] {
                (version.dkey, version.akey) = (dkey.clone(), akey.clone());
            }
            left = left.saturating_sub(cost.max(1));
            at = Anchor { dkey, akey, inner: next.unwrap_or(Bytes::from_static(&[DONE])) };
            if left == 0 {
                out.next = Some(at);
                break;
            }
        }
        Ok(out)
    }

    /// The akey at which to go on.
    fn next_item(
        &self,
        record: &ObjectRecord,
        range: &Range,
        at: &Anchor,
    ) -> Result<Option<(Bytes, Bytes, ItemValue)>, ReadError> {
        let reverse = range.reverse;
        let every = Keys { reverse, ..Keys::default() };
        let mut dkeys = Keys { from: range.from.clone(), to: range.to.clone(), ..every.clone() };
        if let Some(&phase) = at.inner.first() {
            let behind = Bytes::from([&at.akey, &[0][..]].concat());
            let akeys = match (reverse, phase == DONE) {
                (false, true) => Keys { from: behind, ..every.clone() },
                (false, false) => Keys { from: at.akey.clone(), ..every.clone() },
                (true, true) => Keys { to: Some(at.akey.clone()), ..every.clone() },
                (true, false) => Keys { to: Some(behind), ..every.clone() },
            };
            let number = self.moved_to(record, &at.dkey)?;
            if let Some((akey, value)) = self.first_akey(record, &at.dkey, number, &akeys)? {
                return Ok(Some((at.dkey.clone(), akey, value)));
            }
            dkeys = dkeys.after(&at.dkey);
        }
        while let Some((dkey, number)) = self.next_dkey(record, &dkeys)? {
            if let Some((akey, value)) = self.first_akey(record, &dkey, number, &every)? {
                return Ok(Some((dkey, akey, value)));
            }
            dkeys = dkeys.after(&dkey);
        }
        Ok(None)
    }

    /// Some versions of an akey; how many were looked at, and where to go on inside it.
    fn iterate_akey(
        &self,
        range: &Range,
        value: &ItemValue,
        punches: &Punches,
        inner: &Bytes,
        budget: usize,
        out: &mut Vec<Version>,
    ) -> Result<(usize, Option<Bytes>), ReadError> {
        let mut phases = [VERSIONS, EXTENTS];
        if range.reverse {
            phases.reverse();
        }
        let begin = phases.iter().position(|p| Some(p) == inner.first()).unwrap_or(0);
        let epochs = (Epoch::new(range.epochs.0, 0), Epoch::end_of(range.epochs.1));
        let mut cost = 0;
        for (i, &phase) in phases.iter().enumerate().skip(begin) {
            let limit = budget - cost;
            if limit == 0 {
                return Ok((cost, Some(Bytes::copy_from_slice(&[phase]))));
            }
            let after = if i == begin { decode_place(inner) } else { None };
            let window = Window { after, reverse: range.reverse, limit, epochs };
            // Each source has its first ones, so the first of all are among them.
            let (mut entries, mut full) = (Vec::new(), false);
            match (phase, value) {
                (VERSIONS, ItemValue::Single(single)) if range.oldest => {
                    entries.extend(self.oldest_single(single, punches, epochs)?);
                }
                (VERSIONS, ItemValue::Single(single)) => {
                    full = self.singles(single, punches, &window, &mut entries)?;
                }
                (EXTENTS, ItemValue::Array(array)) => {
                    full = self.extents_of(array, punches, &window, &mut entries)?;
                }
                _ => {}
            }
            if phase == VERSIONS {
                entries.extend(punches.0.iter().map(|&p| punch_at(p)));
            }
            entries.retain(|e| window.has(e.place));
            entries.sort_by_key(|e| e.place);
            if range.reverse {
                entries.reverse();
            }
            let more = full || entries.len() > limit;
            entries.truncate(limit);
            cost += entries.len();
            let last = entries.last().map(|e| e.place);
            let wanted = entries.into_iter().filter(|e| range.wants(e));
            out.extend(wanted.map(Version::from));
            if let Some(place) = last.filter(|_| more) {
                return Ok((cost, Some(encode_place(phase, place))));
            }
        }
        Ok((cost, None))
    }

    /// The versions of a single value; whether there may be more.
    fn singles(
        &self,
        single: &Single,
        punches: &Punches,
        window: &Window,
        out: &mut Vec<Entry>,
    ) -> Result<bool, ReadError> {
        let (mut lowest, mut highest) = window.epochs;
        match window.after {
            Some((_, epoch)) if window.reverse => highest = highest.min(epoch),
            Some((_, epoch)) => lowest = lowest.max(epoch),
            None => {}
        }
        let newest = Old::from(single.value.clone());
        let mut found: Vec<(Epoch, Old)> = Vec::new();
        if (lowest..=highest).contains(&single.epoch) && window.has((0, single.epoch)) {
            found.push((single.epoch, newest));
        }
        let mut full = false;
        if single.history != 0 {
            let from = [&[KEY_VERSION][..], &lowest.key()].concat().into();
            let to = Some([&[KEY_VERSION][..], &highest.key(), &[0]].concat().into());
            let keys = Keys { from, to, reverse: window.reverse, changed_from: 0 };
            self.scan_keys(TABLE_HISTORY, single.history, &keys, &mut |key, cell| {
                let birth = Epoch::from_key(&key[1..]);
                let birth = birth.ok_or_else(|| entry_damaged(TABLE_HISTORY))?;
                if window.has((0, birth)) {
                    found.push((birth, Old::decode(tree::load_value(&self.pool, cell)?)?));
                }
                full = found.len() > window.limit;
                Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
        }
        for (birth, version) in found {
            out.push(self.single_entry(single, punches, birth, version)?);
        }
        Ok(full)
    }

    /// The oldest version of a single value, punches apart, that was born in a range.
    fn oldest_single(
        &self,
        single: &Single,
        punches: &Punches,
        (from, to): (Epoch, Epoch),
    ) -> Result<Option<Entry>, ReadError> {
        let mut found = None;
        if single.history != 0 {
            self.scan_versions(single.history, from, &mut |birth, cell| {
                let version = Old::decode(tree::load_value(&self.pool, cell)?)?;
                found = Some((birth, version)).filter(|(_, v)| *v != Old::Punched);
                Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
        }
        let newest = single.value.clone().map(|value| (single.epoch, Old::Value(value)));
        let oldest = found.or(newest).filter(|(birth, _)| (from..=to).contains(birth));
        oldest.map(|(birth, v)| self.single_entry(single, punches, birth, v)).transpose()
    }

    fn single_entry(
        &self,
        single: &Single,
        punches: &Punches,
        birth: Epoch,
        version: Old,
    ) -> Result<Entry, ReadError> {
        let death = match single.history {
            _ if birth == single.epoch => FOREVER,
            number => self.birth_after(number, birth)?.unwrap_or(single.epoch),
        };
        let kind = match version {
            Old::Value(value) => VersionKind::Value(value),
            Old::Punched | Old::Size { .. } => VersionKind::Punched,
        };
        Ok(Entry { place: (0, birth), death: punches.death(birth, death), kind })
    }

    /// The extents of an array; whether there may be more.
    fn extents_of(
        &self,
        array: &Array,
        punches: &Punches,
        window: &Window,
        out: &mut Vec<Entry>,
    ) -> Result<bool, ReadError> {
        let (lowest, highest) = window.offsets();
        let mut full = false;
        let mut add = |piece: &Piece, death: Epoch, count: &mut usize| {
            let place = (piece.offset, piece.epoch);
            if window.has(place) {
                let death = punches.death(piece.epoch, death);
                out.push(Entry { place, death, kind: VersionKind::Extent(extent(piece)) });
                *count += 1;
            }
            full |= *count > window.limit;
            if *count > window.limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let keys = |prefix: &[u8], epoch: bool| {
            let end: &[u8] = if epoch { &[0xff; 11] } else { &[0] };
            let from = [prefix, &lowest.to_be_bytes()].concat().into();
            let to = Some([prefix, &highest.to_be_bytes(), end].concat().into());
            Keys { from, to, reverse: window.reverse, changed_from: 0 }
        };
        let mut count = 0;
        match &array.extents {
            Extents::List(list) => {
                // They are in memory: all of them.
                let _ = list.iter().try_for_each(|p| add(p, FOREVER, &mut 0));
            }
            Extents::Tree { number, .. } => {
                self.scan_keys(TABLE_EXTENT, *number, &keys(&[], false), &mut |key, cell| {
                    let offset = extent_offset(&[&[0; 9], key].concat())?;
                    let mut r = crate::codec::Reader::new(tree::load_value(&self.pool, cell)?);
                    let piece = Piece::decode_body(offset, &mut r);
                    let piece = piece.map_err(|_| entry_damaged(TABLE_EXTENT))?;
                    Ok(add(&piece, FOREVER, &mut count))
                })?;
            }
        }
        for class in 0..CLASS_LEN_MAX.len() as u8 {
            if array.history == 0 {
                break;
            }
            let (mut count, keys) = (0, keys(&[KEY_PIECE, class], true));
            self.scan_keys(TABLE_HISTORY, array.history, &keys, &mut |key, cell| {
                let old = OldPiece::decode(key, tree::load_value(&self.pool, cell)?)?;
                Ok(add(&old.piece, old.death, &mut count))
            })?;
        }
        Ok(full)
    }
}

impl From<Entry> for Version {
    fn from(entry: Entry) -> Version {
        let death = Some(entry.death).filter(|&d| d != FOREVER);
        let (dkey, akey) = (Bytes::new(), Bytes::new());
        Version { dkey, akey, birth: entry.place.1, death, kind: entry.kind }
    }
}

fn punch_at(epoch: Epoch) -> Entry {
    Entry { place: (0, epoch), death: FOREVER, kind: VersionKind::Punched }
}

fn extent(piece: &Piece) -> Extent {
    let offset = piece.offset;
    match &piece.body {
        Body::Inline(data) => Extent::Inline { offset, data: data.clone() },
        Body::Device(d) => Extent::Device(DeviceExtent { offset, ..DeviceExtent::from(d) }),
        Body::Hole { len, punched } => Extent::Hole { offset, len: *len, punched: *punched },
    }
}

fn encode_place(phase: u8, (offset, birth): Place) -> Bytes {
    [&[phase][..], &offset.to_be_bytes(), &birth.key()].concat().into()
}

fn decode_place(inner: &[u8]) -> Option<Place> {
    let offset = inner.get(1..9)?.try_into().ok().map(u64::from_be_bytes)?;
    Some((offset, Epoch::from_key(inner.get(9..)?)?))
}
