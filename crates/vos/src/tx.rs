//! Transactions: what a caller wants changed, all or nothing.
//!
//! A [`Tx`] names each object once; operations refer to it by index, here and in the WAL record.
//! Invariant: building a transaction reads no state and cannot fail; [`crate::Vos::stage`] judges it.

use bytes::Bytes;

use crate::aggregate::Cursor;
use crate::clone::CloneRange;
use crate::codec::key_of;
use crate::export::Import;
use crate::merge::Merge;
use crate::types::{ContainerId, ObjectKey, TxId};

/// A transaction over any number of objects, stamped with the epoch its caller gave it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tx {
    /// The epoch of every version the transaction writes.
    pub epoch: u64,
    /// Below the epoch: from where on all epochs stay readable.
    pub(crate) horizon: Option<u64>,
    pub(crate) objects: Vec<(ContainerId, ObjectKey)>,
    pub(crate) ops: Vec<TxOp>,
    pub(crate) reclaims: bool,
    /// It is to be prepared under this id, not applied.
    pub(crate) prepare: Option<TxId>,
    /// Who stages it, for the timestamp cache, and the end of the uncertainty of its epoch.
    pub(crate) stamp: Option<(TxId, u64)>,
}

/// One operation; `object` is an index into the transaction's objects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum TxOp {
    CreateContainer(ContainerId),
    /// For a range of keys only.
    CreateContainerIn {
        cid: ContainerId,
        from: Bytes,
        to: Option<Bytes>,
    },
    DestroyContainer(ContainerId),
    SplitContainer {
        cid: ContainerId,
        at: Bytes,
        upper: ContainerId,
    },
    MergeContainer {
        cid: ContainerId,
        upper: ContainerId,
    },
    CreateObject {
        object: u32,
    },
    Update {
        object: u32,
        dkey: Bytes,
        akey: Bytes,
        value: Bytes,
    },
    Write {
        object: u32,
        dkey: Bytes,
        akey: Bytes,
        offset: u64,
        /// Length of `data`, which a replayed record leaves out when it is on the device.
        len: u64,
        data: Bytes,
        crcs: Option<Vec<u32>>,
    },
    Truncate {
        object: u32,
        dkey: Bytes,
        akey: Bytes,
        size: u64,
    },
    PunchRange {
        object: u32,
        dkey: Bytes,
        akey: Bytes,
        offset: u64,
        len: u64,
    },
    PunchAkey {
        object: u32,
        dkey: Bytes,
        akey: Bytes,
    },
    PunchAkeys {
        object: u32,
        dkey: Bytes,
        from: Bytes,
        to: Option<Bytes>,
    },
    PunchDkey {
        object: u32,
        dkey: Bytes,
    },
    PunchObject {
        object: u32,
    },
    Retain {
        object: u32,
        epochs: Vec<u64>,
    },
    RetainContainer {
        cid: ContainerId,
        epochs: Vec<u64>,
    },
    Aggregate {
        object: u32,
        cursor: Cursor,
        budget: u32,
    },
    Merge {
        object: u32,
        merge: Box<Merge>,
    },
    Discard {
        object: u32,
        from: u64,
        to: u64,
        cursor: Cursor,
        budget: u32,
    },
    Clone {
        object: u32,
        clone: Box<CloneRange>,
    },
    Import {
        object: u32,
        import: Box<Import>,
    },
    SetProperty {
        cid: ContainerId,
        name: Bytes,
        value: Option<Bytes>,
    },
    CommitPrepared(TxId),
    AbortPrepared(TxId),
    /// Judged when the transaction is staged; not in the WAL.
    Require {
        object: u32,
        target: Target,
        must: Must,
    },
}

/// What a condition is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The object.
    Object,
    /// A dkey: it exists if one of its akeys does.
    Dkey(Bytes),
    /// An akey of a dkey.
    Akey(Bytes, Bytes),
}

/// What a condition demands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Must {
    /// Else [`crate::StageError::NonExistent`].
    Exist,
    /// Else [`crate::StageError::Exists`].
    NotExist,
}

impl TxOp {
    /// Whether it is in the WAL and has a place in the order of the transaction.
    pub(crate) fn is_logged(&self) -> bool {
        !matches!(self, TxOp::Require { .. })
    }

    /// The containers it changes, those of its object apart.
    pub(crate) fn containers(&self) -> [Option<ContainerId>; 2] {
        match self {
            TxOp::CreateContainer(cid)
            | TxOp::CreateContainerIn { cid, .. }
            | TxOp::DestroyContainer(cid)
            | TxOp::RetainContainer { cid, .. }
            | TxOp::SetProperty { cid, .. } => [Some(*cid), None],
            TxOp::SplitContainer { cid, upper, .. } | TxOp::MergeContainer { cid, upper } => {
                [Some(*cid), Some(*upper)]
            }
            _ => [None, None],
        }
    }

    /// What it is called where people read it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            TxOp::CreateContainer(_) | TxOp::CreateContainerIn { .. } => "create container",
            TxOp::SplitContainer { .. } => "split container",
            TxOp::MergeContainer { .. } => "merge container",
            TxOp::DestroyContainer(_) => "destroy container",
            TxOp::CreateObject { .. } => "create",
            TxOp::Update { .. } => "update",
            TxOp::Write { .. } => "write",
            TxOp::Truncate { .. } => "truncate",
            TxOp::PunchRange { .. } => "punch range",
            TxOp::PunchAkey { .. } => "punch akey",
            TxOp::PunchAkeys { .. } => "punch akeys",
            TxOp::PunchDkey { .. } => "punch dkey",
            TxOp::PunchObject { .. } => "punch object",
            TxOp::Retain { .. } => "retain",
            TxOp::RetainContainer { .. } => "retain container",
            TxOp::Aggregate { .. } => "aggregate",
            TxOp::Merge { .. } => "merge",
            TxOp::Discard { .. } => "discard",
            TxOp::Clone { .. } => "clone",
            TxOp::Import { .. } => "import",
            TxOp::SetProperty { .. } => "set property",
            TxOp::CommitPrepared(_) => "commit",
            TxOp::AbortPrepared(_) => "abort",
            TxOp::Require { .. } => "require",
        }
    }

    /// Whether it ends a prepared transaction.
    pub(crate) fn ends_prepared(&self) -> bool {
        matches!(self, TxOp::CommitPrepared(_) | TxOp::AbortPrepared(_))
    }

    /// Index of the object it is about.
    pub(crate) fn object(&self) -> Option<u32> {
        match self {
            TxOp::CreateObject { object }
            | TxOp::Update { object, .. }
            | TxOp::Write { object, .. }
            | TxOp::Truncate { object, .. }
            | TxOp::PunchRange { object, .. }
            | TxOp::PunchAkey { object, .. }
            | TxOp::PunchAkeys { object, .. }
            | TxOp::PunchDkey { object, .. }
            | TxOp::PunchObject { object }
            | TxOp::Retain { object, .. }
            | TxOp::Aggregate { object, .. }
            | TxOp::Merge { object, .. }
            | TxOp::Discard { object, .. }
            | TxOp::Clone { object, .. }
            | TxOp::Import { object, .. }
            | TxOp::Require { object, .. } => Some(*object),
            TxOp::CreateContainer(_)
            | TxOp::DestroyContainer(_)
            | TxOp::CreateContainerIn { .. }
            | TxOp::SplitContainer { .. }
            | TxOp::MergeContainer { .. }
            | TxOp::RetainContainer { .. }
            | TxOp::SetProperty { .. }
            | TxOp::CommitPrepared(_)
            | TxOp::AbortPrepared(_) => None,
        }
    }
}

impl Tx {
    /// An empty transaction at `epoch`.
    pub fn new(epoch: u64) -> Tx {
        Tx { epoch, ..Tx::default() }
    }

    /// A transaction as it was logged.
    pub(crate) fn logged(
        epoch: u64,
        horizon: u64,
        objects: Vec<(ContainerId, ObjectKey)>,
        ops: Vec<TxOp>,
    ) -> Tx {
        Tx { epoch, horizon: Some(horizon), objects, ops, reclaims: true, ..Tx::default() }
    }

    /// All epochs from `horizon` on stay readable, and older transactions down to it may still come.
    /// Without it that holds from the transaction's own epoch on, and what it covers is gone unless
    /// retained. The horizon of an object never moves back.
    pub fn set_horizon(&mut self, horizon: u64) {
        self.horizon = Some(horizon);
    }

    pub(crate) fn horizon(&self) -> u64 {
        self.horizon.unwrap_or(self.epoch)
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// No WAL record of the transaction is longer, whatever goes inline.
    pub fn log_bytes_max(&self, inline_threshold: u32) -> usize {
        let op_bytes = |op: &TxOp| match op {
            TxOp::Update { dkey, akey, value, .. } => dkey.len() + akey.len() + value.len(),
            TxOp::Write { dkey, akey, len, .. } => {
                let inline = *len < u64::from(inline_threshold);
                let body = if inline { *len } else { len / 1000 + 32 };
                // An inline write may gather the pieces before it: their checksums count too.
                dkey.len() + akey.len() + body as usize + 64
            }
            TxOp::Truncate { dkey, akey, .. }
            | TxOp::PunchRange { dkey, akey, .. }
            | TxOp::PunchAkey { dkey, akey, .. } => dkey.len() + akey.len(),
            TxOp::PunchAkeys { dkey, from, to, .. } => {
                dkey.len() + from.len() + to.as_ref().map_or(0, Bytes::len)
            }
            TxOp::PunchDkey { dkey, .. } => dkey.len(),
            TxOp::Retain { epochs, .. } | TxOp::RetainContainer { epochs, .. } => epochs.len() * 8,
            TxOp::CreateContainer(_)
            | TxOp::DestroyContainer(_)
            | TxOp::MergeContainer { .. }
            | TxOp::CreateObject { .. }
            | TxOp::PunchObject { .. }
            | TxOp::CommitPrepared(_)
            | TxOp::AbortPrepared(_)
            | TxOp::Require { .. } => 0,
            TxOp::CreateContainerIn { from, to, .. } => {
                from.len() + to.as_ref().map_or(0, Bytes::len)
            }
            TxOp::SplitContainer { at, .. } => at.len(),
            TxOp::Aggregate { cursor, .. } | TxOp::Discard { cursor, .. } => cursor.len(),
            TxOp::Merge { merge, .. } => merge.log_bytes(inline_threshold),
            TxOp::Clone { clone, .. } => clone.key_bytes(),
            TxOp::Import { import, .. } => import.log_bytes(),
            TxOp::SetProperty { name, value, .. } => {
                name.len() + value.as_ref().map_or(0, Bytes::len)
            }
        };
        let objects: usize = self.objects.iter().map(|(_, oid)| oid.0.len() + 32).sum();
        64 + objects + self.ops.iter().map(|op| op_bytes(op) + 64).sum::<usize>()
    }

    /// Lets the transaction use the space kept back for deletions: for those that, on the whole,
    /// free space. Punches of objects imply it.
    pub fn use_reserve(&mut self) {
        self.reclaims = true;
    }

    /// Makes an empty container; it must not exist.
    pub fn create_container(&mut self, cid: ContainerId) {
        self.ops.push(TxOp::CreateContainer(cid));
    }

    /// Removes a container with all objects at once; their space returns in the background.
    pub fn destroy_container(&mut self, cid: ContainerId) {
        self.reclaims = true;
        self.ops.push(TxOp::DestroyContainer(cid));
    }

    /// Makes the object exist. Every other update of an object does so too.
    pub fn create_object(&mut self, cid: ContainerId, oid: &ObjectKey) {
        let object = self.object(cid, oid);
        self.ops.push(TxOp::CreateObject { object });
    }

    /// Sets a single value.
    pub fn update(
        &mut self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        akey: &[u8],
        value: Bytes,
    ) {
        let object = self.object(cid, oid);
        let (dkey, akey) = (key_of(dkey), key_of(akey));
        self.ops.push(TxOp::Update { object, dkey, akey, value });
    }

    /// Writes bytes of an array, growing it when they end past its size. `crcs` are the CRC32C of
    /// each 4 KiB of `data` (the last one of what remains), if the caller has them.
    pub fn write(
        &mut self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        akey: &[u8],
        offset: u64,
        data: Bytes,
        crcs: Option<Vec<u32>>,
    ) {
        let object = self.object(cid, oid);
        let (dkey, akey) = (key_of(dkey), key_of(akey));
        let len = data.len() as u64;
        self.ops.push(TxOp::Write { object, dkey, akey, offset, len, data, crcs });
    }

    /// Sets the size of an array: what is beyond it is gone, what is new reads as zeros.
    pub fn truncate(
        &mut self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        akey: &[u8],
        size: u64,
    ) {
        let object = self.object(cid, oid);
        let (dkey, akey) = (key_of(dkey), key_of(akey));
        self.ops.push(TxOp::Truncate { object, dkey, akey, size });
    }

    /// Makes a hole in an array; its size stays.
    pub fn punch_range(
        &mut self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        akey: &[u8],
        offset: u64,
        len: u64,
    ) {
        let object = self.object(cid, oid);
        let (dkey, akey) = (key_of(dkey), key_of(akey));
        self.ops.push(TxOp::PunchRange { object, dkey, akey, offset, len });
    }

    /// Removes one akey, single value or array.
    pub fn punch_akey(&mut self, cid: ContainerId, oid: &ObjectKey, dkey: &[u8], akey: &[u8]) {
        let object = self.object(cid, oid);
        let (dkey, akey) = (key_of(dkey), key_of(akey));
        self.ops.push(TxOp::PunchAkey { object, dkey, akey });
    }

    /// Removes the akeys of a dkey from `from` up to, not including, `to` (`None`: to the end).
    pub fn punch_akeys(
        &mut self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        from: &[u8],
        to: Option<&[u8]>,
    ) {
        let object = self.object(cid, oid);
        let (dkey, from) = (key_of(dkey), key_of(from));
        let to = to.map(key_of);
        self.ops.push(TxOp::PunchAkeys { object, dkey, from, to });
    }

    /// Removes everything under a dkey at once.
    pub fn punch_dkey(&mut self, cid: ContainerId, oid: &ObjectKey, dkey: &[u8]) {
        let object = self.object(cid, oid);
        self.ops.push(TxOp::PunchDkey { object, dkey: key_of(dkey) });
    }

    /// Removes the object at once; nothing happens when it does not exist. A large object that was changed
    /// at later epochs is not looked through: [`crate::StageError::Restart`].
    pub fn punch_object(&mut self, cid: ContainerId, oid: &ObjectKey) {
        let object = self.object(cid, oid);
        self.reclaims = true;
        self.ops.push(TxOp::PunchObject { object });
    }

    /// Sets the retained epochs of an object: each stays readable whatever the horizon. Those that
    /// are new must not be below the object's horizon, which earlier operations of the transaction on
    /// the object have raised to that of the transaction.
    pub fn retain(&mut self, cid: ContainerId, oid: &ObjectKey, epochs: &[u64]) {
        let object = self.object(cid, oid);
        self.ops.push(TxOp::Retain { object, epochs: epochs.to_vec() });
    }

    /// Sets the retained epochs of a container, which hold for all its objects. A new one must not be
    /// below the horizon of any of them.
    pub fn retain_container(&mut self, cid: ContainerId, epochs: &[u64]) {
        self.ops.push(TxOp::RetainContainer { cid, epochs: epochs.to_vec() });
    }

    /// Removes what nobody sees from an object, looking at about `budget` entries from `cursor` on;
    /// [`crate::Staged::aggregated`] tells where to go on. The transaction's horizon becomes the
    /// object's, its epoch does not matter.
    pub fn aggregate(&mut self, cid: ContainerId, oid: &ObjectKey, cursor: Cursor, budget: u32) {
        let object = self.object(cid, oid);
        self.reclaims = true;
        self.ops.push(TxOp::Aggregate { object, cursor, budget });
    }

    /// Writes the bytes of a range that [`crate::View::mergeable`] named again, as one extent, without
    /// changing what anybody sees; [`crate::StageError::NotTogether`] if the range is such a one no more.
    /// `data` must be what the range holds now.
    pub fn merge(
        &mut self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        akey: &[u8],
        offset: u64,
        data: Bytes,
    ) {
        let object = self.object(cid, oid);
        let (dkey, akey) = (key_of(dkey), key_of(akey));
        self.reclaims = true;
        let merge = Merge { dkey, akey, offset, len: data.len() as u64, data };
        self.ops.push(TxOp::Merge { object, merge: Box::new(merge) });
    }

    /// Makes all operations on an object from epoch `from` to `to` undone, as if they had never been.
    /// `from` must be above the object's horizon.
    pub fn discard(&mut self, cid: ContainerId, oid: &ObjectKey, from: u64, to: u64) {
        let object = self.object(cid, oid);
        self.reclaims = true;
        let (cursor, budget) = (Cursor::default(), u32::MAX);
        self.ops.push(TxOp::Discard { object, from, to, cursor, budget });
    }

    /// As [`Tx::discard`], but from the cursor on, and no more once about `budget` akeys, versions and
    /// extents were looked at: [`crate::Staged::aggregated`] tells where to go on. Until the last step
    /// the object is in between: nobody may read or write it.
    pub fn discard_some(
        &mut self,
        cid: ContainerId,
        oid: &ObjectKey,
        (from, to): (u64, u64),
        cursor: Cursor,
        budget: u32,
    ) {
        let object = self.object(cid, oid);
        self.ops.push(TxOp::Discard { object, from, to, cursor, budget });
    }

    /// Fails the transaction unless `target` exists, or does not, at its epoch with the operations
    /// before this one applied.
    pub fn require(&mut self, cid: ContainerId, oid: &ObjectKey, target: Target, must: Must) {
        let object = self.object(cid, oid);
        self.ops.push(TxOp::Require { object, target, must });
    }

    /// Index of the object among those named so far.
    pub(crate) fn object(&mut self, cid: ContainerId, oid: &ObjectKey) -> u32 {
        let known = self.objects.iter().rposition(|(c, o)| *c == cid && o == oid);
        let index = known.unwrap_or_else(|| {
            self.objects.push((cid, oid.clone()));
            self.objects.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }
}
