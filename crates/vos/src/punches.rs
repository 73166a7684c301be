//! The punches of an object's akeys: in its record while they are few, else in entries of their own.
//!
//! The entries of a dkey lie together: first those of ranges of akeys, then those of single akeys by a
//! checksum of the akey. So whoever looks at an akey meets the ranges of its dkey and its own punches only,
//! however many others there are.
//! Invariants: all punches of an object are in one place; in a record they are at most [`PUNCHES_LEN_MAX`]
//! bytes.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_bytes};
use crate::epoch::{Epoch, Observers, Punches};
use crate::query::Keys;
use crate::record::{ObjectRecord, Punch, TABLE_OBJECT, TABLE_PUNCH, entry_damaged, table_key};
use crate::stage::{Stage, impossible};
use crate::tree;
use crate::types::{ReadError, StageError};
use crate::vos::Vos;

/// Longest list of punches in a record.
pub(crate) const PUNCHES_LEN_MAX: usize = 300;

/// In keys, before and after the epoch of ranges of akeys, and of single ones.
const RANGES: u8 = 0;
const SINGLE: u8 = 1;
/// Length of an epoch at the end of a key.
const EPOCH_LEN: usize = 10;

/// In values: what follows of a punch.
const TO_END: u8 = 0;
const TO_KEY: u8 = 1;
const ONE_KEY: u8 = 2;

/// Key, without table and number and epoch, of the ranges of a dkey, or of the punches of one akey.
fn prefix(dkey: &[u8], akey: Option<&[u8]>) -> Vec<u8> {
    let mut out = Vec::with_capacity(dkey.len() + 17);
    out.extend_from_slice(&(dkey.len() as u16).to_be_bytes());
    out.extend_from_slice(dkey);
    match akey {
        None => out.push(RANGES),
        Some(akey) => {
            out.push(SINGLE);
            out.extend_from_slice(&crc32c::crc32c(akey).to_be_bytes());
        }
    }
    out
}

impl Punch {
    /// The akey, if there can be only one.
    fn only_akey(&self) -> Option<&[u8]> {
        let one = self.to.as_ref()?.strip_suffix(&[0])?;
        (*one == *self.from).then_some(one)
    }

    fn prefix(&self) -> Vec<u8> {
        prefix(&self.dkey, self.only_akey())
    }

    fn key(&self) -> Vec<u8> {
        [&self.prefix()[..], &self.epoch.key()].concat()
    }
}

/// Encodes the punches of one key.
fn encode(punches: &[Punch]) -> Vec<u8> {
    let mut out = Vec::new();
    for punch in punches {
        let one = punch.only_akey().is_some();
        out.push(match &punch.to {
            None => TO_END,
            Some(_) if one => ONE_KEY,
            Some(_) => TO_KEY,
        });
        put_bytes(&mut out, &punch.from);
        punch.to.iter().filter(|_| !one).for_each(|to| put_bytes(&mut out, to));
    }
    out
}

/// Decodes an entry; `key` is without table and number.
pub(crate) fn decode(key: &[u8], value: Bytes) -> Result<Vec<Punch>, ReadError> {
    parse(key, value).map_err(|_| entry_damaged(TABLE_PUNCH))
}

fn parse(key: &[u8], value: Bytes) -> Result<Vec<Punch>, Malformed> {
    let (len, rest) = key.split_first_chunk().ok_or(Malformed)?;
    let len = usize::from(u16::from_be_bytes(*len));
    let dkey = Bytes::copy_from_slice(rest.get(..len).ok_or(Malformed)?);
    let epoch = epoch_of(key).ok_or(Malformed)?;
    let (mut r, mut out) = (Reader::new(value), Vec::new());
    while r.remaining() > 0 {
        let kind = r.u8()?;
        let from = r.bytes()?;
        let punch = match kind {
            TO_END => Punch { dkey: dkey.clone(), from, to: None, epoch },
            TO_KEY => Punch { dkey: dkey.clone(), from, to: Some(r.bytes()?), epoch },
            ONE_KEY => Punch::of_akey(&dkey, &from, epoch),
            _ => return Err(Malformed),
        };
        if punch.key() != key {
            return Err(Malformed);
        }
        out.push(punch);
    }
    if out.is_empty() { Err(Malformed) } else { Ok(out) }
}

fn epoch_of(key: &[u8]) -> Option<Epoch> {
    Epoch::from_key(&key[key.len().checked_sub(EPOCH_LEN)?..])
}

impl Vos {
    /// The epochs at which an akey was punched, or what it is in.
    pub(crate) fn punches_of(
        &self,
        record: &ObjectRecord,
        dkey: &[u8],
        akey: &[u8],
    ) -> Result<Punches, ReadError> {
        let mut all = record.punched_at();
        let covering = record.punches.iter().filter(|p| p.covers(dkey, akey));
        all.extend(covering.map(|p| p.epoch));
        if record.punched != 0 {
            for from in [prefix(dkey, None), prefix(dkey, Some(akey))] {
                let to = [&from[..], &[u8::MAX; EPOCH_LEN + 1]].concat();
                self.scan_punches(record.punched, &from, Some(&to), &mut |key, punches| {
                    all.extend(
                        punches.iter().find(|p| p.covers(dkey, akey)).and_then(|_| epoch_of(key)),
                    );
                    ControlFlow::Continue(())
                })?;
            }
        }
        all.sort_unstable();
        Ok(Punches(all))
    }

    /// Calls `f` for the entries of a table of punches.
    pub(crate) fn scan_punches(
        &self,
        number: u64,
        from: &[u8],
        to: Option<&[u8]>,
        f: &mut dyn FnMut(&[u8], Vec<Punch>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.scan_table(TABLE_PUNCH, number, from, to, &mut |key, cell| {
            Ok(f(key, decode(key, tree::load_value(&self.pool, cell)?)?))
        })
    }
}

impl Stage<'_> {
    /// Notes a punch in a record that has been touched.
    pub(crate) fn add_punch(&mut self, object: u32, punch: Punch) -> Result<(), StageError> {
        let Some(Some(record)) = &mut self.loaded[object as usize].record else {
            return Err(impossible(TABLE_OBJECT));
        };
        record.punches.push(punch);
        let vos = &mut *self.vos;
        if record.punched == 0 {
            let len: usize = record.punches.iter().map(Punch::encoded_len).sum();
            if len <= PUNCHES_LEN_MAX {
                return Ok(());
            }
            record.punched = vos.take_number();
        }
        for punch in record.punches.drain(..) {
            let key = table_key(TABLE_PUNCH, record.punched, &punch.key());
            let mut all = match tree::get(&vos.pool, vos.root, &key)? {
                Some(value) => decode(&key[9..], value)?,
                None => Vec::new(),
            };
            if !all.contains(&punch) {
                all.push(punch);
                tree::insert(&mut vos.pool, &mut vos.root, &key, &encode(&all))?;
            }
        }
        Ok(())
    }

    /// Forgets punches of the same keys as `new` that hid what it hides, if nobody saw that; of those in
    /// entries only the last one, because that one was noted like this.
    pub(crate) fn forget_before(
        &mut self,
        object: u32,
        new: &Punch,
        observers: &Observers,
    ) -> Result<(), StageError> {
        let Some(Some(record)) = &mut self.loaded[object as usize].record else {
            return Err(impossible(TABLE_OBJECT));
        };
        let needless = |p: &Punch| {
            p.same_keys(new) && p.epoch <= new.epoch && !observers.see(p.epoch, new.epoch)
        };
        record.punches.retain(|p| !needless(p));
        if record.punched == 0 {
            return Ok(());
        }
        let (vos, from) = (&mut *self.vos, new.prefix());
        let to = [&from[..], &new.epoch.key(), &[0]].concat();
        let keys = Keys { from: from.into(), to: Some(to.into()), reverse: true, changed_from: 0 };
        let mut last = None;
        vos.scan_keys(TABLE_PUNCH, record.punched, &keys, &mut |key, cell| {
            last = Some((key.to_vec(), decode(key, tree::load_value(&vos.pool, cell)?)?));
            Ok(ControlFlow::Break(()))
        })?;
        let Some((key, mut punches)) = last.filter(|(_, p)| p.iter().any(needless)) else {
            return Ok(());
        };
        punches.retain(|p| !needless(p));
        let key = table_key(TABLE_PUNCH, record.punched, &key);
        match punches.is_empty() {
            true => drop(tree::remove(&mut vos.pool, &mut vos.root, &key)?),
            false => tree::insert(&mut vos.pool, &mut vos.root, &key, &encode(&punches))?,
        }
        Ok(())
    }

    /// Removes the punches of unwanted epochs among the next `max` entries from the key `from` on; where
    /// to go on. Those in the record are few: all of them at once.
    pub(crate) fn sweep_punches(
        &mut self,
        object: u32,
        from: &[u8],
        max: usize,
        unwanted: &dyn Fn(Epoch) -> bool,
    ) -> Result<Option<Bytes>, StageError> {
        let Some(Some(record)) = &mut self.loaded[object as usize].record else {
            return Ok(None);
        };
        record.punches.retain(|p| !unwanted(p.epoch));
        if record.punched == 0 {
            return Ok(None);
        }
        let (vos, number) = (&mut *self.vos, record.punched);
        let (mut gone, mut next, mut seen) = (Vec::new(), None, 0);
        vos.scan_table(TABLE_PUNCH, number, from, None, &mut |key, _| {
            if seen == max {
                next = Some(Bytes::copy_from_slice(key));
                return Ok(ControlFlow::Break(()));
            }
            seen += 1;
            let epoch = epoch_of(key).ok_or_else(|| entry_damaged(TABLE_PUNCH))?;
            gone.extend(unwanted(epoch).then(|| table_key(TABLE_PUNCH, number, key)));
            Ok(ControlFlow::Continue(()))
        })?;
        for key in gone {
            tree::remove(&mut vos.pool, &mut vos.root, &key)?;
        }
        if next.is_none() && vos.is_bare(TABLE_PUNCH, number)? {
            record.punched = 0;
        }
        Ok(next)
    }
}

/// Decodes `bytes` as an entry.
pub(crate) fn fuzz(bytes: &Bytes) {
    let len = bytes.first().map_or(0, |&len| usize::from(len));
    if len < bytes.len()
        && let Ok(punches) = decode(&bytes[1..=len], bytes.slice(len + 1..))
    {
        assert_eq!(decode(&bytes[1..=len], encode(&punches).into()), Ok(punches));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn punch(dkey: &'static str, from: &'static str, to: Option<&'static str>) -> Punch {
        Punch { dkey: dkey.into(), from: from.into(), to: to.map(Bytes::from), epoch: Epoch::MIN }
    }

    #[test]
    fn entries_are_what_was_noted() {
        let ranges = [punch("d", "", None), punch("d", "a", Some("b")), punch("d", "", Some(""))];
        let single = [punch("d", "a", Some("a\0"))];
        for punches in [&ranges[..], &single] {
            let key = punches[0].key();
            assert_eq!(decode(&key, encode(punches).into()), Ok(punches.to_vec()));
            assert!(decode(&key, Bytes::new()).is_err(), "no entry is empty");
            assert!(decode(&key[..key.len() - 1], encode(punches).into()).is_err());
        }
        assert_ne!(ranges[0].prefix(), single[0].prefix());
        assert!(decode(&ranges[0].key(), encode(&single).into()).is_err());
        assert!(decode(&punch("e", "", None).key(), encode(&single).into()).is_err());
    }
}
