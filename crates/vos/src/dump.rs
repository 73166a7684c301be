//! Everything that is kept of an object, seen or not: what the offline tool prints.
//!
//! Unlike a read, a dump knows no epoch: it shows the records as they are, with births and deaths.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::epoch::Epoch;
use crate::history::Version;
use crate::item::{Body, ItemValue, Piece, SizeOp};
use crate::query::Keys;
use crate::record::Incarnation;
use crate::tree;
use crate::tx::TxOp;
use crate::types::{BlockAddr, ContainerId, ObjectKey, ReadError, TxId};
use crate::vos::Vos;

/// An object's record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectDump {
    /// Of the newest change.
    pub epoch: Epoch,
    /// Epochs below it cannot be read unless retained.
    pub horizon: u64,
    /// When it came into being (`true`) and ended, in order.
    pub incarnations: Vec<(Epoch, bool)>,
    /// Retained epochs.
    pub retained: Vec<u64>,
    /// Punches that hide versions still there.
    pub punches: Vec<PunchDump>,
    /// Its akeys.
    pub akeys: Vec<(Bytes, Bytes)>,
}

/// A punch of the akeys from `from` up to, not including, `to` of a dkey.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PunchDump {
    /// The dkey.
    pub dkey: Bytes,
    /// First akey.
    pub from: Bytes,
    /// The akey after the last; `None`: to the end.
    pub to: Option<Bytes>,
    /// When.
    pub epoch: Epoch,
}

/// The versions of an akey, newest first, and what its array consists of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AkeyDump {
    /// Versions; those of an array are what changed its size.
    pub versions: Vec<(Epoch, VersionDump)>,
    /// Extents by offset, then birth.
    pub extents: Vec<ExtentDump>,
}

/// One version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VersionDump {
    /// A single value.
    Value(Bytes),
    /// None from here on.
    Punched,
    /// An array became at least `to` bytes long.
    Grown {
        /// What the operation asked for.
        to: u64,
        /// The size afterwards.
        size: u64,
    },
    /// The size of an array was set.
    Set {
        /// What the operation asked for.
        to: u64,
        /// The size afterwards.
        size: u64,
    },
}

/// A rectangle of offsets and epochs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtentDump {
    /// Offset in the array.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
    /// When it was written.
    pub birth: Epoch,
    /// When it was covered; `None`: it is there.
    pub death: Option<Epoch>,
    /// Where its bytes are.
    pub place: PlaceDump,
}

/// Where the bytes of an extent are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlaceDump {
    /// With the metadata.
    Inline,
    /// In blocks of the device, after `skip` bytes of the first.
    Device {
        /// First block.
        addr: BlockAddr,
        /// How many.
        blocks: u64,
        /// Bytes of the first that belong to something else.
        skip: u16,
    },
    /// Nowhere: punched.
    Punched,
    /// Nowhere: cut off by a truncation.
    CutOff,
}

/// A prepared transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TxDump {
    /// Its epoch.
    pub epoch: u64,
    /// The horizon it brings along.
    pub horizon: u64,
    /// What it will do, and to which object.
    pub operations: Vec<(&'static str, Option<(ContainerId, ObjectKey)>)>,
    /// Blocks that hold its data.
    pub blocks: u64,
    /// Pages kept back for its end.
    pub pages: u64,
}

impl Vos {
    /// A prepared transaction.
    pub fn dump_prepared(&self, id: TxId) -> Result<TxDump, ReadError> {
        let record = self.active_record(id)?;
        let tx = &record.tx;
        let object = |op: &TxOp| tx.objects.get(op.object()? as usize).cloned();
        Ok(TxDump {
            epoch: tx.epoch,
            horizon: tx.horizon(),
            operations: tx.ops.iter().map(|op| (op.name(), object(op))).collect(),
            blocks: record.placed.iter().map(|p| p.run().1).sum(),
            pages: record.prepared.map_or(0, |p| u64::from(p.pages)),
        })
    }

    /// Up to `max` objects of a container that have a record, those that were punched too, from the
    /// first one after `after`.
    pub fn dump_objects(
        &self,
        cid: ContainerId,
        after: Option<&ObjectKey>,
        max: usize,
    ) -> Result<Vec<ObjectKey>, ReadError> {
        let Some(container) = self.containers.get(&cid) else {
            return Ok(Vec::new());
        };
        let from = after.map_or(Vec::new(), |key| [&key.0[..], &[0]].concat());
        let mut out = Vec::new();
        let keys = Keys { from: from.into(), ..Keys::default() };
        self.scan_objects(&container.record, &keys, &mut |key, _| {
            if out.len() >= max {
                return Ok(ControlFlow::Break(()));
            }
            out.push(ObjectKey::copy_from(key));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(out)
    }

    /// The record of an object; `None` if there is none.
    pub fn dump_object(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
    ) -> Result<Option<ObjectDump>, ReadError> {
        let Some(record) = self.object(cid, oid)? else {
            return Ok(None);
        };
        let mut akeys: Vec<(Bytes, Bytes)> = Vec::new();
        self.scan_akeys(&record, &mut |dkey, akey, _| {
            akeys.push((dkey.clone(), Bytes::copy_from_slice(akey)));
            Ok(())
        })?;
        akeys.sort_unstable();
        let log = record.log.0.iter();
        let mut punches = record.punches;
        if record.punched != 0 {
            self.scan_punches(record.punched, &[], None, &mut |_, some| {
                punches.extend(some);
                ControlFlow::Continue(())
            })?;
        }
        Ok(Some(ObjectDump {
            epoch: record.epoch,
            horizon: record.horizon,
            incarnations: log.map(|(e, kind)| (*e, *kind == Incarnation::Create)).collect(),
            retained: record.retained,
            punches: punches
                .into_iter()
                .map(|p| PunchDump { dkey: p.dkey, from: p.from, to: p.to, epoch: p.epoch })
                .collect(),
            akeys,
        }))
    }

    /// All versions of an akey; empty if there is none.
    pub fn dump_akey(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        akey: &[u8],
    ) -> Result<AkeyDump, ReadError> {
        let Some(record) = self.object(cid, oid)? else {
            return Ok(AkeyDump::default());
        };
        let value = self.item(&record, dkey, akey)?;
        value.map_or(Ok(AkeyDump::default()), |value| self.dump_value(&value))
    }

    fn dump_value(&self, value: &ItemValue) -> Result<AkeyDump, ReadError> {
        let mut dump = AkeyDump::default();
        if value.history() != 0 {
            self.scan_versions(value.history(), Epoch::MIN, &mut |birth, cell| {
                let version = Version::decode(tree::load_value(&self.pool, cell)?)?;
                dump.versions.push((birth, version.into()));
                Ok(ControlFlow::Continue(()))
            })?;
        }
        match value {
            ItemValue::Single(single) => {
                let newest = single.value.clone();
                let newest = newest.map_or(VersionDump::Punched, VersionDump::Value);
                dump.versions.push((single.epoch, newest));
            }
            ItemValue::Array(array) => {
                let version = Version::Size { op: array.op, size: array.size };
                dump.versions.push((array.epoch, version.into()));
                let head = self.pieces(&array.extents, 0, u64::MAX)?;
                dump.extents.extend(head.iter().map(|p| extent(p, None)));
                if array.history != 0 {
                    let old = self.old_pieces(array.history, 0, u64::MAX)?;
                    dump.extents.extend(old.iter().map(|o| extent(&o.piece, Some(o.death))));
                }
                dump.extents.sort_by_key(|e| (e.offset, e.birth));
            }
        }
        dump.versions.reverse();
        Ok(dump)
    }
}

impl From<Version> for VersionDump {
    fn from(version: Version) -> VersionDump {
        match version {
            Version::Value(value) => VersionDump::Value(value),
            Version::Punched => VersionDump::Punched,
            Version::Size { op: SizeOp::Grow(to), size } => VersionDump::Grown { to, size },
            Version::Size { op: SizeOp::Set(to), size } => VersionDump::Set { to, size },
        }
    }
}

fn extent(piece: &Piece, death: Option<Epoch>) -> ExtentDump {
    let place = match &piece.body {
        Body::Inline(_) => PlaceDump::Inline,
        Body::Device(d) => {
            PlaceDump::Device { addr: BlockAddr(d.addr), blocks: d.blocks(), skip: d.skip }
        }
        Body::Hole { punched: true, .. } => PlaceDump::Punched,
        Body::Hole { punched: false, .. } => PlaceDump::CutOff,
    };
    ExtentDump { offset: piece.offset, len: piece.len(), birth: piece.epoch, death, place }
}
