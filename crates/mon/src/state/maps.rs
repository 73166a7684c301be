//! The maps as the state keeps them: decoded for use here, encoded as they are sent.
//!
//! Invariant: the encoded form is that of the decoded one; the OSD map's carries the checksum that
//! the incremental before it promised.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use spirula_maps::{Incremental, MgrMap, MonMap, OsdMap, osd_state};
use spirula_wire::types::{EntityAddrVec, UTime};
use spirula_wire::{Decode, DecodeError, Encode, Features, Reader};

use super::{ApplyError, Change};
use crate::Now;
use crate::command::{Described, described_from_json};
use crate::fullness::mark_pools;
use crate::limits::FULL_MAP_EVERY;
use crate::temps;

const F: Features = Features::PACIFIC;

/// The OSD map with the epochs before it.
#[derive(Clone, Debug, PartialEq)]
pub struct OsdMaps {
    current: Arc<OsdMap>,
    full: Bytes,
    /// By the epoch that they lead to.
    incrementals: BTreeMap<u32, Bytes>,
    /// Full maps to rebuild others from: the oldest epoch's, then every [`FULL_MAP_EVERY`].
    fulls: BTreeMap<u32, Bytes>,
}

impl Default for OsdMaps {
    fn default() -> Self {
        Self {
            current: Arc::default(),
            full: Bytes::new(),
            incrementals: BTreeMap::new(),
            fulls: BTreeMap::new(),
        }
    }
}

impl OsdMaps {
    pub fn new(map: OsdMap) -> Self {
        let full = Bytes::from(map.to_bytes(F));
        Self {
            fulls: [(map.epoch, full.clone())].into(),
            incrementals: BTreeMap::new(),
            current: Arc::new(map),
            full,
        }
    }

    pub fn map(&self) -> &OsdMap {
        &self.current
    }

    pub fn shared(&self) -> Arc<OsdMap> {
        self.current.clone()
    }

    pub fn epoch(&self) -> u32 {
        self.current.epoch
    }

    /// The oldest epoch that is kept.
    pub fn oldest(&self) -> u32 {
        self.fulls.keys().next().copied().unwrap_or(self.current.epoch)
    }

    pub fn full_encoded(&self) -> Bytes {
        self.full.clone()
    }

    pub fn incremental(&self, epoch: u32) -> Option<Bytes> {
        self.incrementals.get(&epoch).cloned()
    }

    /// The encoded map of an epoch that is kept.
    pub fn full_at(&self, epoch: u32) -> Option<Bytes> {
        if epoch == self.epoch() {
            return Some(self.full_encoded());
        }
        match self.fulls.get(&epoch) {
            Some(full) => Some(full.clone()),
            None => self.map_at(epoch).map(|m| m.to_bytes(F).into()),
        }
    }

    /// The map of an epoch that is kept.
    pub fn map_at(&self, epoch: u32) -> Option<OsdMap> {
        if epoch > self.epoch() {
            return None;
        }
        let (base, full) = self.fulls.range(..=epoch).next_back()?;
        let mut map = OsdMap::from_bytes(full).ok()?;
        for next in base + 1..=epoch {
            let inc = Incremental::from_bytes(self.incrementals.get(&next)?).ok()?;
            map.apply(&inc).ok()?;
        }
        Some(map)
    }

    /// An incremental to the next epoch that changes nothing yet.
    pub fn next(&self, now: Now) -> Incremental {
        Incremental::new(self.current.fsid, self.current.epoch + 1, UTime::from(now.wall))
    }

    /// Completes an incremental: times of change, full flags of pools, and the checksum of the map it
    /// leads to.
    pub fn seal(&self, mut inc: Incremental) -> Result<Change, ApplyError> {
        let flips_up = |bits: &u32| *bits == 0 || bits & osd_state::UP != 0;
        if !inc.new_up_client.is_empty() || inc.new_state.values().any(flips_up) {
            inc.new_last_up_change = inc.modified;
        }
        let in_or_out = |(osd, weight): (&i32, &u32)| self.current.is_in(*osd) != (*weight != 0);
        if inc.new_weight.iter().any(in_or_out) {
            inc.new_last_in_change = inc.modified;
        }
        let mut next = OsdMap::clone(&self.current);
        next.apply(&inc)?;
        let marked = mark_pools(&next, &mut inc);
        if temps::clean(&self.current, &next, &mut inc) || marked {
            next = OsdMap::clone(&self.current);
            next.apply(&inc)?;
        }
        (_, inc.full_crc) = next.encode_with_crc(F);
        Ok(Change::OsdMap(inc.to_bytes(F).into()))
    }

    pub(super) fn advance(&mut self, incremental: &Bytes) -> Result<(), ApplyError> {
        let inc = Incremental::from_bytes(incremental)?;
        let mut next = OsdMap::clone(&self.current);
        next.apply(&inc)?;
        let epoch = next.epoch;
        self.full = next.to_bytes(F).into();
        self.current = Arc::new(next);
        self.incrementals.insert(epoch, incremental.clone());
        if epoch.is_multiple_of(FULL_MAP_EVERY) {
            self.fulls.insert(epoch, self.full.clone());
        }
        Ok(())
    }

    /// The oldest epoch that is left if those before `first` are not needed: one with a full map.
    pub(crate) fn oldest_from(&self, first: u32) -> u32 {
        self.fulls.range(..=first).next_back().map_or(self.oldest(), |(base, _)| *base)
    }

    /// Forgets epochs before the newest full map that is not after `first`.
    pub(super) fn trim_to(&mut self, first: u32) {
        let base = self.oldest_from(first);
        self.fulls = self.fulls.split_off(&base);
        self.incrementals = self.incrementals.split_off(&(base + 1));
    }
}

impl Encode for OsdMaps {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.full.encode(out, f);
        self.incrementals.encode(out, f);
        self.fulls.encode(out, f);
    }
}

impl Decode for OsdMaps {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let full = Bytes::decode(r)?;
        let current = Arc::new(OsdMap::from_bytes(&full)?);
        Ok(Self { current, full, incrementals: Decode::decode(r)?, fulls: Decode::decode(r)? })
    }
}

/// The monitor map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MonMapState(MonMap);

impl MonMapState {
    pub fn new(map: MonMap) -> Self {
        Self(map)
    }

    pub fn map(&self) -> &MonMap {
        &self.0
    }

    pub fn epoch(&self) -> u32 {
        self.0.epoch
    }

    pub fn encoded(&self) -> Bytes {
        self.0.to_bytes(F).into()
    }

    /// Rank of a monitor; -1 for a stranger.
    pub fn rank_of(&self, name: &str) -> i64 {
        self.0.rank_of(name).map_or(-1, |r| r as i64)
    }

    pub fn addrs_of(&self, name: &str) -> EntityAddrVec {
        self.0.mons.get(name).map(|m| m.public_addrs.clone()).unwrap_or_default()
    }

    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        let next = MonMap::from_bytes(bytes)?;
        if next.epoch != self.0.epoch + 1 {
            return Err(ApplyError::Epoch {
                what: "monitor",
                current: self.0.epoch,
                found: next.epoch,
            });
        }
        self.0 = next;
        Ok(())
    }
}

impl Encode for MonMapState {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.0.encode(out, f);
    }
}

impl Decode for MonMapState {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Decode::decode(r).map(Self)
    }
}

/// The manager map and the commands that the active manager answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MgrState {
    map: MgrMap,
    commands_json: String,
    commands: Vec<Described>,
}

impl MgrState {
    pub fn new(map: MgrMap) -> Self {
        Self { map, ..Self::default() }
    }

    pub fn map(&self) -> &MgrMap {
        &self.map
    }

    pub fn epoch(&self) -> u32 {
        self.map.epoch
    }

    pub fn encoded(&self) -> Bytes {
        self.map.to_bytes(F).into()
    }

    pub(crate) fn commands(&self) -> impl Iterator<Item = Described> {
        self.commands.iter().cloned()
    }

    pub(crate) fn commands_json(&self) -> &str {
        &self.commands_json
    }

    pub(super) fn set_commands(&mut self, json: &str) {
        self.commands = described_from_json(json);
        self.commands_json = json.to_owned();
    }

    pub(super) fn advance(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        let next = MgrMap::from_bytes(bytes)?;
        if next.epoch != self.map.epoch + 1 {
            return Err(ApplyError::Epoch {
                what: "manager",
                current: self.map.epoch,
                found: next.epoch,
            });
        }
        self.map = next;
        Ok(())
    }
}

impl Encode for MgrState {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        self.map.encode(out, f);
        self.commands_json.encode(out, f);
    }
}

impl Decode for MgrState {
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut state = Self::new(Decode::decode(r)?);
        state.set_commands(&String::decode(r)?);
        Ok(state)
    }
}
