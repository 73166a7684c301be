//! History: the versions of an akey before the newest one, kept while somebody can see them.
//!
//! Under the number of an item's history lie its older single values, or what older operations did to
//! the size of its array, by birth; and the older pieces of its array. A piece is a rectangle of
//! offsets and epochs, and rectangles never overlap. So of those that begin at one offset, only the
//! one born last can be alive at an epoch: reads seek it and do not look at the others.
//! Invariant: a version that is not a piece ends where the next one in this order, the item itself
//! being the last, begins.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_varint};
use crate::epoch::Epoch;
use crate::item::{Piece, SizeOp};
use crate::page::CellValue;
use crate::record::{TABLE_HISTORY, entry_damaged, table_key};
use crate::stage::Stage;
use crate::tree;
use crate::types::ReadError;
use crate::vos::Vos;

pub(crate) const KEY_VERSION: u8 = 1;
pub(crate) const KEY_PIECE: u8 = 2;
/// Pieces are sorted by length first, which bounds how far before a range they can begin.
pub(crate) const CLASS_LEN_MAX: [u64; 5] = [1 << 18, 1 << 26, 1 << 34, 1 << 42, u64::MAX];

pub(crate) const VERSION_VALUE: u8 = 1;
const VERSION_PUNCHED: u8 = 2;
const VERSION_GROW: u8 = 3;
const VERSION_SET: u8 = 4;

/// An older version of an akey.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Version {
    Value(Bytes),
    Punched,
    /// What an operation did to the size of an array, and the size then.
    Size {
        op: SizeOp,
        size: u64,
    },
}

/// An older piece of an array with the epoch at which it was covered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OldPiece {
    pub(crate) piece: Piece,
    pub(crate) death: Epoch,
}

impl Version {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Version::Value(value) => {
                out.push(VERSION_VALUE);
                out.extend_from_slice(value);
            }
            Version::Punched => out.push(VERSION_PUNCHED),
            Version::Size { op, size } => {
                let set = matches!(op, SizeOp::Set(_));
                out.push(if set { VERSION_SET } else { VERSION_GROW });
                put_varint(&mut out, op.value());
                put_varint(&mut out, *size);
            }
        }
        out
    }

    fn parse(value: Bytes) -> Result<Version, Malformed> {
        let mut r = Reader::new(value);
        match r.u8()? {
            VERSION_VALUE => r.take(r.remaining()).map(Version::Value),
            VERSION_PUNCHED => Ok(Version::Punched),
            VERSION_GROW => Ok(Version::Size { op: SizeOp::Grow(r.varint()?), size: r.varint()? }),
            VERSION_SET => Ok(Version::Size { op: SizeOp::Set(r.varint()?), size: r.varint()? }),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn decode(value: Bytes) -> Result<Version, ReadError> {
        Version::parse(value).map_err(|_| entry_damaged(TABLE_HISTORY))
    }
}

impl OldPiece {
    pub(crate) fn key(&self, number: u64) -> Vec<u8> {
        piece_key(number, class_of(self.piece.len()), self.piece.offset, self.piece.epoch)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.death.encode(&mut out);
        self.piece.encode_body(&mut out);
        out
    }

    /// Decodes an entry; `key` is without table and number.
    pub(crate) fn decode(key: &[u8], value: Bytes) -> Result<OldPiece, ReadError> {
        let parse = || {
            let offset = key.get(2..10).and_then(|b| b.try_into().ok()).ok_or(Malformed)?;
            let birth = key.get(10..).and_then(Epoch::from_key).ok_or(Malformed)?;
            let mut r = Reader::new(value);
            let death = Epoch::decode(&mut r)?;
            let piece = Piece::decode_body(u64::from_be_bytes(offset), &mut r)?;
            match piece.epoch == birth && key.get(1) == Some(&class_of(piece.len())) {
                true => Ok(OldPiece { piece, death }),
                false => Err(Malformed),
            }
        };
        parse().map_err(|_: Malformed| entry_damaged(TABLE_HISTORY))
    }
}

fn class_of(len: u64) -> u8 {
    CLASS_LEN_MAX.iter().position(|&max| len <= max).unwrap_or(CLASS_LEN_MAX.len() - 1) as u8
}

fn version_key(number: u64, birth: Epoch) -> Vec<u8> {
    let mut rest = [KEY_VERSION; 11];
    rest[1..].copy_from_slice(&birth.key());
    table_key(TABLE_HISTORY, number, &rest)
}

fn piece_key(number: u64, class: u8, offset: u64, birth: Epoch) -> Vec<u8> {
    let mut rest = [0; 20];
    rest[0] = KEY_PIECE;
    rest[1] = class;
    rest[2..10].copy_from_slice(&offset.to_be_bytes());
    rest[10..].copy_from_slice(&birth.key());
    table_key(TABLE_HISTORY, number, &rest)
}

impl Vos {
    /// The newest version in the history born at or before `at`.
    pub(crate) fn version_at(
        &self,
        number: u64,
        at: Epoch,
    ) -> Result<Option<(Epoch, Version)>, ReadError> {
        let found = tree::floor(&self.pool, self.root, &version_key(number, at))?;
        match found {
            Some((key, value)) if key.starts_with(&version_key(number, Epoch::MIN)[..10]) => {
                let birth = key.get(10..).and_then(Epoch::from_key);
                let birth = birth.ok_or_else(|| entry_damaged(TABLE_HISTORY))?;
                Ok(Some((birth, Version::decode(value)?)))
            }
            _ => Ok(None),
        }
    }

    /// Birth of the oldest version in the history, punches apart, born after `at`.
    pub(crate) fn creation_after(
        &self,
        number: u64,
        at: Epoch,
    ) -> Result<Option<Epoch>, ReadError> {
        let mut found = None;
        self.scan_versions(number, at, &mut |birth, cell| {
            let version = Version::decode(tree::load_value(&self.pool, cell)?)?;
            found = Some(birth).filter(|&b| b > at && version != Version::Punched);
            Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(found)
    }

    /// Birth of the oldest version in the history born after `at`.
    pub(crate) fn birth_after(&self, number: u64, at: Epoch) -> Result<Option<Epoch>, ReadError> {
        let mut found = None;
        self.scan_versions(number, at, &mut |birth, _| {
            found = Some(birth).filter(|&b| b > at);
            Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(found)
    }

    /// Calls `f` for the versions born at `from` or later, oldest first.
    pub(crate) fn scan_versions(
        &self,
        number: u64,
        from: Epoch,
        f: &mut dyn FnMut(Epoch, CellValue<'_>) -> Result<ControlFlow<()>, ReadError>,
    ) -> Result<(), ReadError> {
        let start = version_key(number, from);
        let end = table_key(TABLE_HISTORY, number, &[KEY_VERSION + 1]);
        tree::scan(&self.pool, self.root, &start, Some(&end), &mut |key, cell| {
            let birth = key.get(10..).and_then(Epoch::from_key);
            f(birth.ok_or_else(|| entry_damaged(TABLE_HISTORY))?, cell)
        })
    }

    /// The older pieces that overlap `[from, to)`, of all epochs.
    pub(crate) fn old_pieces(
        &self,
        number: u64,
        from: u64,
        to: u64,
    ) -> Result<Vec<OldPiece>, ReadError> {
        let mut out = Vec::new();
        for (class, &len_max) in CLASS_LEN_MAX.iter().enumerate() {
            let first = (from.saturating_sub(len_max), Epoch::MIN);
            self.scan_pieces((number, class as u8), first, (to, Epoch::MIN), |old| {
                out.extend(Some(old).filter(|o| o.piece.end() > from));
                ControlFlow::Continue(())
            })?;
        }
        Ok(out)
    }

    /// The older pieces that overlap `[from, to)` and are born after `at`, but for some of those that begin
    /// where one born before them covers the whole range, too.
    pub(crate) fn old_pieces_after(
        &self,
        number: u64,
        at: Epoch,
        from: u64,
        to: u64,
    ) -> Result<Vec<OldPiece>, ReadError> {
        let mut out = Vec::new();
        for (class, &len_max) in CLASS_LEN_MAX.iter().enumerate() {
            let (place, mut first) = ((number, class as u8), from.saturating_sub(len_max));
            while let Some(offset) = self.old_offset(place, (first, to), false)? {
                let last = (offset, Epoch::end_of(u64::MAX));
                self.scan_pieces(place, (offset, at), last, |old| {
                    let covers = offset <= from && old.piece.end() >= to && old.piece.epoch > at;
                    let meets = old.piece.end() > from && old.piece.epoch > at;
                    out.extend(Some(old).filter(|_| meets));
                    if covers { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                })?;
                first = offset.saturating_add(1);
            }
        }
        Ok(out)
    }

    /// The older pieces that overlap `[from, to)` and are alive at `at`, unordered.
    pub(crate) fn old_pieces_at(
        &self,
        number: u64,
        at: Epoch,
        from: u64,
        to: u64,
    ) -> Result<Vec<OldPiece>, ReadError> {
        let mut out = Vec::new();
        for (class, &len_max) in CLASS_LEN_MAX.iter().enumerate() {
            let place @ (number, class) = (number, class as u8);
            // Of those that begin before the range only the last one alive can reach into it.
            let (lowest, mut before) = (from.saturating_sub(len_max), from);
            while let Some(offset) = self.old_offset(place, (lowest, before), true)? {
                if let Some(old) = self.old_piece_at(number, class, offset, at)? {
                    out.extend(Some(old).filter(|o| o.piece.end() > from));
                    break;
                }
                before = offset;
            }
            let mut first = from;
            while let Some(offset) = self.old_offset(place, (first, to), false)? {
                out.extend(self.old_piece_at(number, class, offset, at)?);
                first = offset.saturating_add(1);
            }
        }
        Ok(out)
    }

    /// Calls `f` for the older pieces of the class that begin in a range of offsets and births.
    fn scan_pieces(
        &self,
        (number, class): (u64, u8),
        (from, from_birth): (u64, Epoch),
        (to, to_birth): (u64, Epoch),
        mut f: impl FnMut(OldPiece) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let start = piece_key(number, class, from, from_birth);
        let end = piece_key(number, class, to, to_birth);
        tree::scan(&self.pool, self.root, &start, Some(&end), &mut |key, cell| {
            Ok(f(OldPiece::decode(&key[9..], tree::load_value(&self.pool, cell)?)?))
        })
    }

    /// The older piece of the class that begins at an offset and is alive at `at`.
    fn old_piece_at(
        &self,
        number: u64,
        class: u8,
        offset: u64,
        at: Epoch,
    ) -> Result<Option<OldPiece>, ReadError> {
        let key = piece_key(number, class, offset, at);
        match tree::floor(&self.pool, self.root, &key)? {
            Some((found, value)) if found.len() == key.len() && found[..19] == key[..19] => {
                Ok(Some(OldPiece::decode(&found[9..], value)?).filter(|o| o.death > at))
            }
            _ => Ok(None),
        }
    }

    /// `to`, or what is before it of `[from, to)` so that at most `max` offsets of each class lie inside
    /// at which older pieces begin.
    pub(crate) fn old_window(
        &self,
        number: u64,
        (from, mut to): (u64, u64),
        max: usize,
    ) -> Result<u64, ReadError> {
        for class in 0..CLASS_LEN_MAX.len() as u8 {
            let (mut at, mut seen) = (from.saturating_add(1), 0);
            while let Some(offset) = self.old_offset((number, class), (at, to), false)? {
                if seen == max {
                    to = offset;
                    break;
                }
                (at, seen) = (offset.saturating_add(1), seen + 1);
            }
        }
        Ok(to)
    }

    /// The first offset in `[from, to)` at which an older piece of the class begins, or in `reverse` the
    /// last.
    fn old_offset(
        &self,
        (number, class): (u64, u8),
        (from, to): (u64, u64),
        reverse: bool,
    ) -> Result<Option<u64>, ReadError> {
        let mut found = None;
        let start = piece_key(number, class, from, Epoch::MIN);
        let end = piece_key(number, class, to, Epoch::MIN);
        let scan = if reverse { tree::scan_back } else { tree::scan };
        scan(&self.pool, self.root, &start, Some(&end), &mut |key, _| {
            found = offset_of(key);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }
}

fn offset_of(key: &[u8]) -> Option<u64> {
    key.get(11..19).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes)
}

impl Stage<'_> {
    pub(crate) fn put_version(
        &mut self,
        number: u64,
        birth: Epoch,
        version: &Version,
    ) -> Result<(), ReadError> {
        let vos = &mut *self.vos;
        let key = version_key(number, birth);
        tree::insert(&mut vos.pool, &mut vos.root, &key, &version.encode())
    }

    pub(crate) fn remove_version(&mut self, number: u64, birth: Epoch) -> Result<(), ReadError> {
        let vos = &mut *self.vos;
        tree::remove(&mut vos.pool, &mut vos.root, &version_key(number, birth)).map(|_| ())
    }

    pub(crate) fn put_old_piece(&mut self, number: u64, old: &OldPiece) -> Result<(), ReadError> {
        let vos = &mut *self.vos;
        tree::insert(&mut vos.pool, &mut vos.root, &old.key(number), &old.encode())
    }

    pub(crate) fn remove_old_piece(
        &mut self,
        number: u64,
        old: &OldPiece,
    ) -> Result<(), ReadError> {
        let vos = &mut *self.vos;
        tree::remove(&mut vos.pool, &mut vos.root, &old.key(number)).map(|_| ())
    }
}

/// Decodes `bytes` as each kind of history entry.
pub(crate) fn fuzz(bytes: Bytes) {
    let _ = Version::decode(bytes.clone());
    if bytes.len() > 20 {
        let _ = OldPiece::decode(&bytes[..20], bytes.slice(20..));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_classes() {
        let lens = [1, 1 << 18, (1 << 18) + 1, 1 << 26, 1 << 42, 1 << 48, u64::MAX];
        assert_eq!(lens.map(class_of), [0, 0, 1, 1, 3, 4, 4]);
    }
}
