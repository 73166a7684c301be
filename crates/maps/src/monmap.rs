//! The MonMap: which monitors there are and where.
//!
//! Source of the format: Ceph's `mon/MonMap.cc`, struct version 9 (read: 6 and later).

use std::collections::{BTreeMap, BTreeSet};

use spirula_wire::denc::encode_versioned;
use spirula_wire::types::{EntityAddrVec, UTime, Uuid};
use spirula_wire::{Decode, DecodeError, Denc, Encode, Features, Reader};

use crate::release::Release;

/// `election_strategy` values.
pub const ELECTION_CLASSIC: u8 = 1;
pub const ELECTION_DISALLOW: u8 = 2;
pub const ELECTION_CONNECTIVITY: u8 = 3;

/// Every persistent feature that a Pacific quorum has: kraken, luminous, mimic, osdmap-prune,
/// nautilus, octopus, pacific, elector-pinging.
pub const FEATURES_PACIFIC: u64 = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x20 | 0x40 | 0x80;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonMap {
    pub fsid: Uuid,
    pub epoch: u32,
    pub last_changed: UTime,
    pub created: UTime,
    pub persistent_features: u64,
    pub optional_features: u64,
    pub mons: BTreeMap<String, MonInfo>,
    /// Names in the order of their ranks.
    pub ranks: Vec<String>,
    pub min_mon_release: Release,
    pub removed_ranks: BTreeSet<u32>,
    pub election_strategy: u8,
    pub disallowed_leaders: BTreeSet<String>,
    pub stretch_mode_enabled: bool,
    pub tiebreaker_mon: String,
    pub stretch_marked_down_mons: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 5, compat = 1)]
pub struct MonInfo {
    pub name: String,
    pub public_addrs: EntityAddrVec,
    #[denc(since = 2)]
    pub priority: u16,
    #[denc(since = 4)]
    pub weight: u16,
    #[denc(since = 5)]
    pub crush_loc: BTreeMap<String, String>,
}

impl MonMap {
    /// A map of epoch 0 without monitors.
    pub fn new(fsid: Uuid, now: UTime) -> Self {
        Self {
            fsid,
            epoch: 0,
            last_changed: now,
            created: now,
            persistent_features: FEATURES_PACIFIC,
            optional_features: 0,
            mons: BTreeMap::new(),
            ranks: Vec::new(),
            min_mon_release: Release::PACIFIC,
            removed_ranks: BTreeSet::new(),
            election_strategy: ELECTION_CLASSIC,
            disallowed_leaders: BTreeSet::new(),
            stretch_mode_enabled: false,
            tiebreaker_mon: String::new(),
            stretch_marked_down_mons: BTreeSet::new(),
        }
    }

    /// Adds a monitor under the next rank; one of the same name only gets the addresses.
    pub fn add(&mut self, name: &str, public_addrs: EntityAddrVec) {
        let info = MonInfo { name: name.to_owned(), public_addrs, ..MonInfo::default() };
        if self.mons.insert(name.to_owned(), info).is_none() {
            self.ranks.push(name.to_owned());
        }
    }

    pub fn rank_of(&self, name: &str) -> Option<usize> {
        self.ranks.iter().position(|n| n == name)
    }

    /// The monitors in the order of their ranks.
    pub fn by_rank(&self) -> impl Iterator<Item = &MonInfo> {
        self.ranks.iter().filter_map(|name| self.mons.get(name))
    }
}

impl Default for MonMap {
    fn default() -> Self {
        Self::new(Uuid::default(), UTime::default())
    }
}

/// `mon_feature_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Denc)]
#[denc(version = 1, compat = 1)]
struct MonFeature {
    bits: u64,
}

impl Encode for MonMap {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, 9, 6, |out| {
            self.fsid.encode(out, f);
            self.epoch.encode(out, f);
            self.last_changed.encode(out, f);
            self.created.encode(out, f);
            MonFeature { bits: self.persistent_features }.encode(out, f);
            MonFeature { bits: self.optional_features }.encode(out, f);
            self.mons.encode(out, f);
            self.ranks.encode(out, f);
            self.min_mon_release.encode(out, f);
            self.removed_ranks.encode(out, f);
            self.election_strategy.encode(out, f);
            self.disallowed_leaders.encode(out, f);
            self.stretch_mode_enabled.encode(out, f);
            self.tiebreaker_mon.encode(out, f);
            self.stretch_marked_down_mons.encode(out, f);
        });
    }
}

impl Decode for MonMap {
    const MIN_SIZE: usize = 6;

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("monmap", 9, |version, r| {
            if version < 6 {
                return Err(DecodeError::TooOld { what: "monmap", version, oldest: 6 });
            }
            let mut map = Self {
                fsid: Decode::decode(r)?,
                epoch: r.u32()?,
                last_changed: Decode::decode(r)?,
                created: Decode::decode(r)?,
                persistent_features: MonFeature::decode(r)?.bits,
                optional_features: MonFeature::decode(r)?.bits,
                mons: Decode::decode(r)?,
                ranks: Decode::decode(r)?,
                ..Self::default()
            };
            if version >= 7 {
                map.min_mon_release = Decode::decode(r)?;
            }
            if version >= 8 {
                map.removed_ranks = Decode::decode(r)?;
                map.election_strategy = r.u8()?;
                map.disallowed_leaders = Decode::decode(r)?;
            }
            if version >= 9 {
                map.stretch_mode_enabled = Decode::decode(r)?;
                map.tiebreaker_mon = Decode::decode(r)?;
                map.stretch_marked_down_mons = Decode::decode(r)?;
            }
            Ok(map)
        })
    }
}
