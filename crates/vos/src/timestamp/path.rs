//! Paths into the store, as the timestamp cache knows them.

use std::hash::{DefaultHasher, Hasher};

use crate::types::ContainerId;

/// A level of the store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// A container.
    Container,
    /// An object in it.
    Object,
    /// A dkey of the object.
    Dkey,
    /// An akey of the dkey.
    Akey,
}

impl Level {
    pub(super) const ALL: [Level; 4] = [Level::Container, Level::Object, Level::Dkey, Level::Akey];
    pub(super) const COUNT: usize = Level::ALL.len();
}

/// A container, object, dkey or akey, with all that is below it.
///
/// Only fingerprints are kept, each made of its key and the fingerprint above. Paths that share one
/// are the same to the cache at that level, here and in all below: they may conflict, and never
/// miss it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Path {
    fingerprints: [u64; Level::COUNT],
    level: Level,
}

impl Path {
    /// A whole container.
    pub fn container(cid: ContainerId) -> Path {
        let root = Path { fingerprints: [0; Level::COUNT], level: Level::Container };
        root.with(Level::Container, &cid.0)
    }

    /// A whole object.
    pub fn object(cid: ContainerId, oid: &[u8]) -> Path {
        Path::container(cid).with(Level::Object, oid)
    }

    /// A whole dkey.
    pub fn dkey(cid: ContainerId, oid: &[u8], dkey: &[u8]) -> Path {
        Path::object(cid, oid).with(Level::Dkey, dkey)
    }

    /// An akey.
    pub fn akey(cid: ContainerId, oid: &[u8], dkey: &[u8], akey: &[u8]) -> Path {
        Path::dkey(cid, oid, dkey).with(Level::Akey, akey)
    }

    /// Where the path ends.
    pub fn level(&self) -> Level {
        self.level
    }

    /// An akey of an object.
    pub(crate) fn below(&self, dkey: &[u8], akey: &[u8]) -> Path {
        self.with(Level::Dkey, dkey).with(Level::Akey, akey)
    }

    /// The path, or what of it is not below `level`.
    pub(crate) fn upto(&self, level: Level) -> Path {
        let mut path = Path { level: self.level.min(level), ..*self };
        path.fingerprints[path.level as usize + 1..].fill(0);
        path
    }

    /// That of the end of the path.
    pub(super) fn fingerprint(&self) -> u64 {
        self.fingerprints[self.level as usize]
    }

    /// From the container to the end of the path.
    pub(crate) fn levels(&self) -> impl Iterator<Item = (Level, u64)> + use<> {
        Level::ALL.into_iter().zip(self.fingerprints).take(self.level as usize + 1)
    }

    fn with(mut self, level: Level, key: &[u8]) -> Path {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.fingerprint());
        hasher.write(key);
        self.level = level;
        self.fingerprints[level as usize] = hasher.finish();
        self
    }
}
