//! Operations on "trivial maps": a header and sorted pairs in the object's data. Nobody writes them any
//! more, but old tools still try.

use std::collections::BTreeMap;

use bytes::Bytes;
use spirula_wire::msg::ops::{OpArgs, OpCode};
use spirula_wire::msg::osd_op::OsdOpResult;
use spirula_wire::{Encode, Features};

use super::cut::Cut;
use super::{Effect, Run, Step, err, ok};
use crate::errno::*;
use crate::op::Extent;
use crate::view::{ObjectView, Viewed};

const F: Features = Features::PACIFIC;
/// TMAP2OMAP of an empty object succeeds.
const NULL_OK: u8 = 1;

/// Commands of TMAPUP.
mod command {
    pub(super) const HEADER: u8 = b'h';
    pub(super) const SET: u8 = b's';
    pub(super) const CREATE: u8 = b'c';
    pub(super) const REMOVE: u8 = b'r';
    pub(super) const REMOVE_SLOPPY: u8 = b'R';
}

/// A decoded map.
#[derive(Default)]
struct Tmap {
    header: Bytes,
    pairs: BTreeMap<Bytes, Bytes>,
}

impl Tmap {
    fn decode<M>(raw: &Bytes) -> Viewed<Self, M> {
        if raw.is_empty() {
            return Ok(Self::default());
        }
        let mut raw = Cut::new(raw);
        let header = raw.blob()?;
        let count = raw.count(8)?;
        let pairs = (0..count).map(|_| Ok((raw.blob()?, raw.blob()?))).collect::<Viewed<_, M>>()?;
        Ok(Self { header, pairs })
    }

    fn encode(&self) -> Bytes {
        let mut raw = self.header.to_bytes(F);
        self.pairs.encode(&mut raw, F);
        raw.into()
    }

    /// Runs the commands of an update.
    fn update<M>(&mut self, mut commands: Cut) -> Step<M> {
        while !commands.is_empty() {
            let command = commands.u8()?;
            let key = commands.blob()?;
            match command {
                command::HEADER => self.header = key,
                command::SET => drop(self.pairs.insert(key, commands.blob()?)),
                command::CREATE if self.pairs.contains_key(&key) => return err(EEXIST),
                command::CREATE => drop(self.pairs.insert(key, commands.blob()?)),
                command::REMOVE if !self.pairs.contains_key(&key) => return err(ENOENT),
                command::REMOVE | command::REMOVE_SLOPPY => drop(self.pairs.remove(&key)),
                _ => return err(EINVAL),
            }
        }
        ok()
    }
}

impl<V: ObjectView> Run<'_, V> {
    pub(super) fn tmap_get(&mut self, out: &mut OsdOpResult) -> Step<V::Missing> {
        out.outdata = vec![self.whole()?];
        ok()
    }

    pub(super) fn tmap_put(&mut self, input: &Bytes) -> Step<V::Missing> {
        let map = Tmap::decode(input)?;
        self.replace(map.encode())
    }

    pub(super) fn tmap_up(&mut self, input: &Bytes) -> Step<V::Missing> {
        if input.is_empty() {
            return ok();
        }
        let stored = self.whole()?;
        let mut map = Tmap::decode(&stored)?;
        map.update(Cut::new(input))?;
        self.replace(map.encode())
    }

    /// The map becomes an omap.
    pub(super) fn tmap_to_omap(&mut self, out: &OsdOpResult) -> Step<V::Missing> {
        if self.info.size == 0 {
            let OpArgs::Raw([flags, ..]) = out.args else {
                return err(EINVAL);
            };
            return if flags & NULL_OK != 0 { ok() } else { err(ENODATA) };
        }
        let stored = self.whole()?;
        let map = Tmap::decode(&stored)?;
        self.run_inside(OpCode::TRUNCATE, Extent::default().into(), Bytes::new())?;
        self.effect(Effect::SetOmapHeader(map.header));
        self.set_omap_pairs(map.pairs.into_iter().collect(), stored.len());
        ok()
    }

    fn whole(&mut self) -> Viewed<Bytes, V::Missing> {
        let out = self.run_inside(OpCode::SYNC_READ, Extent::default().into(), Bytes::new())?;
        Ok(out.outdata.concat().into())
    }

    fn replace(&mut self, data: Bytes) -> Step<V::Missing> {
        let args = OpArgs::extent(0, data.len() as u64);
        self.run_inside(OpCode::WRITEFULL, args, data)?;
        ok()
    }
}
