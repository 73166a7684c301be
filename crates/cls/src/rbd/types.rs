//! Stored and transmitted structs that more than one family of methods uses.
//!
//! Where a layout depends on what the cluster's daemons understand, this writes what daemons since
//! Nautilus write (a Pacific cluster has no others) and reads the older ones too.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use spirula_wire::denc::encode_versioned;
use spirula_wire::types::UTime;
use spirula_wire::{Decode, DecodeError, Denc, Encode, Features, Reader};

/// The live image rather than a snapshot of it (`CEPH_NOSNAP`).
pub(super) const HEAD: u64 = u64::MAX - 1;

/// The largest id a snapshot can have (`CEPH_MAXSNAP`).
pub(super) const SNAP_MAX: u64 = u64::MAX - 2;

/// `cls::rbd::ParentImageSpec`.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 1, compat = 1)]
pub(super) struct ParentSpec {
    pub(super) pool: i64,
    pub(super) namespace: Bytes,
    pub(super) image: Bytes,
    pub(super) snap: u64,
}

impl Default for ParentSpec {
    fn default() -> Self {
        Self { pool: -1, namespace: Bytes::new(), image: Bytes::new(), snap: HEAD }
    }
}

impl ParentSpec {
    pub(super) fn exists(&self) -> bool {
        self.pool >= 0 && !self.image.is_empty() && self.snap != HEAD
    }
}

/// `cls_rbd_parent`: where an image was cloned from, and how much of the parent its head still shows.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Parent {
    pub(super) spec: ParentSpec,
    /// Without one only snapshots of the image still need the parent.
    pub(super) head_overlap: Option<u64>,
}

impl Encode for Parent {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, 2, 2, |out| {
            self.spec.pool.encode(out, f);
            self.spec.namespace.encode(out, f);
            self.spec.image.encode(out, f);
            self.spec.snap.encode(out, f);
            self.head_overlap.encode(out, f);
        });
    }
}
impl Decode for Parent {
    const MIN_SIZE: usize = 6;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("cls_rbd_parent", 2, |version, r| {
            let pool = r.i64()?;
            let namespace = if version >= 2 { Bytes::decode(r)? } else { Bytes::new() };
            let spec = ParentSpec { pool, namespace, image: Bytes::decode(r)?, snap: r.u64()? };
            let head_overlap =
                if version == 1 { Some(r.u64()?) } else { Option::<u64>::decode(r)? };
            Ok(Self { spec, head_overlap })
        })
    }
}

/// `cls::rbd::ChildImageSpec`.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 2, compat = 1)]
pub(super) struct ChildSpec {
    pool: i64,
    image: Bytes,
    #[denc(since = 2)]
    namespace: Bytes,
}

/// By pool, namespace and image, which is not the order of the encoding.
impl Ord for ChildSpec {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |spec: &Self| (spec.pool, spec.namespace.clone(), spec.image.clone());
        key(self).cmp(&key(other))
    }
}
impl PartialOrd for ChildSpec {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `cls::rbd::SnapshotNamespace`: what a snapshot is there for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) enum SnapNamespace {
    #[default]
    User,
    Group {
        pool: i64,
        group: Bytes,
        snap: Bytes,
    },
    /// A clone still needs it, and its user has removed it.
    Trash {
        original_name: Bytes,
        original_type: u32,
    },
    Mirror(MirrorSnap),
    /// Of a release after this one; its contents are lost when it is written again, as with Ceph.
    Unknown,
}

/// `cls::rbd::MirrorSnapshotNamespace`.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
pub(super) struct MirrorSnap {
    pub(super) state: u8,
    pub(super) complete: bool,
    pub(super) peers: BTreeSet<Bytes>,
    pub(super) primary_uuid: Bytes,
    /// Of a primary snapshot: the snapshot since which the image is clean.
    pub(super) primary_snap: u64,
    pub(super) last_copied_object: u64,
    pub(super) snap_seqs: BTreeMap<u64, u64>,
}

impl SnapNamespace {
    pub(super) fn is_user(&self) -> bool {
        matches!(self, Self::User)
    }

    pub(super) fn is_trash(&self) -> bool {
        matches!(self, Self::Trash { .. })
    }

    /// The number of the variant on the wire.
    pub(super) fn number(&self) -> u32 {
        match self {
            Self::User => 0,
            Self::Group { .. } => 1,
            Self::Trash { .. } => 2,
            Self::Mirror(_) => 3,
            Self::Unknown => u32::MAX,
        }
    }

    /// Whether a second snapshot of one name would be the same: what was removed is all alike.
    pub(super) fn same(&self, other: &Self) -> bool {
        self == other || (self.is_trash() && other.is_trash())
    }
}

impl Encode for SnapNamespace {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        encode_versioned(out, 1, 1, |out| {
            self.number().encode(out, f);
            match self {
                Self::User | Self::Unknown => {}
                Self::Group { pool, group, snap } => {
                    pool.encode(out, f);
                    group.encode(out, f);
                    snap.encode(out, f);
                }
                Self::Trash { original_name, original_type } => {
                    original_name.encode(out, f);
                    original_type.encode(out, f);
                }
                Self::Mirror(mirror) => mirror.encode(out, f),
            }
        });
    }
}
impl Decode for SnapNamespace {
    const MIN_SIZE: usize = 6;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.versioned("SnapshotNamespace", 1, |_, r| {
            Ok(match r.u32()? {
                0 => Self::User,
                1 => Self::Group {
                    pool: r.i64()?,
                    group: Bytes::decode(r)?,
                    snap: Bytes::decode(r)?,
                },
                2 => Self::Trash { original_name: Bytes::decode(r)?, original_type: r.u32()? },
                3 => Self::Mirror(MirrorSnap::decode(r)?),
                _ => Self::Unknown,
            })
        })
    }
}

/// `cls_rbd_snap`: the entry of one snapshot in an image's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snap {
    pub(super) id: u64,
    pub(super) name: Bytes,
    pub(super) image_size: u64,
    /// Only in entries from before Nautilus; else the header has the parent.
    pub(super) parent: Parent,
    pub(super) protection: u8,
    pub(super) flags: u64,
    pub(super) namespace: SnapNamespace,
    pub(super) timestamp: UTime,
    pub(super) child_count: u32,
    pub(super) parent_overlap: Option<u64>,
}

impl Default for Snap {
    fn default() -> Self {
        Self {
            id: HEAD,
            name: Bytes::new(),
            image_size: 0,
            parent: Parent::default(),
            protection: 0,
            flags: 0,
            namespace: SnapNamespace::User,
            timestamp: UTime::default(),
            child_count: 0,
            parent_overlap: None,
        }
    }
}

impl Snap {
    /// Whether it shows data of a parent image.
    pub(super) fn has_parent(&self) -> bool {
        self.parent.spec.pool != -1 || self.parent_overlap.is_some()
    }
}

impl Encode for Snap {
    fn encode(&self, out: &mut Vec<u8>, f: Features) {
        debug_assert!(!self.parent.spec.exists(), "the parent belongs into the header");
        encode_versioned(out, 8, 8, |out| {
            self.id.encode(out, f);
            self.name.encode(out, f);
            self.image_size.encode(out, f);
            self.protection.encode(out, f);
            self.flags.encode(out, f);
            self.namespace.encode(out, f);
            self.timestamp.encode(out, f);
            self.child_count.encode(out, f);
            self.parent_overlap.encode(out, f);
        });
    }
}
impl Decode for Snap {
    const MIN_SIZE: usize = 6;
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let old = r.peek().get(1).is_some_and(|compat| *compat < 8);
        r.versioned("cls_rbd_snap", 8, |version, r| {
            let mut snap = Self { id: r.u64()?, name: Bytes::decode(r)?, ..Self::default() };
            snap.image_size = r.u64()?;
            if old {
                // The image's features.
                r.skip(8, "cls_rbd_snap")?;
                if version >= 2 {
                    snap.parent = Parent::decode(r)?;
                }
            }
            if version >= 3 {
                snap.protection = r.u8()?;
            }
            if version >= 4 {
                snap.flags = r.u64()?;
            }
            if version >= 5 {
                snap.namespace = SnapNamespace::decode(r)?;
            }
            if version >= 6 {
                snap.timestamp = UTime::decode(r)?;
            }
            if version >= 7 {
                snap.child_count = r.u32()?;
            }
            if version >= 8 {
                snap.parent_overlap = Option::<u64>::decode(r)?;
            }
            Ok(snap)
        })
    }
}

/// `cls::rbd::SnapshotInfo`: what clients are told of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Denc)]
#[denc(version = 1, compat = 1)]
pub(super) struct SnapInfo {
    id: u64,
    namespace: SnapNamespace,
    name: Bytes,
    image_size: u64,
    timestamp: UTime,
    child_count: u32,
}

impl From<Snap> for SnapInfo {
    fn from(snap: Snap) -> Self {
        Self {
            id: snap.id,
            namespace: snap.namespace,
            name: snap.name,
            image_size: snap.image_size,
            timestamp: snap.timestamp,
            child_count: snap.child_count,
        }
    }
}
