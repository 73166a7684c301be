//! Copies of whole objects, for recovery and backfill: taking them out of one store and into another.
//!
//! An object is a head with its clones: all that the store keeps under its key, at its own epochs.
//! - What is here: [`stored_version`], [`list_objects`]; [`digest`] of the content.
//! - At the source: [`read_object`], then [`Outgoing::next`] until it is `None`. The object must not be
//!   written meanwhile (its lock); aggregation waits by itself.
//! - At the destination: an [`Incoming`] for each object, [`Incoming::add`] for each part. The PG's
//!   container must exist; no transaction may write the object meanwhile.
//!   Parts are large: have only a few on their way, the next ones when these are answered.
//! - [`remove`] for what does not exist at its source, or [`remove_object`] in the caller's transaction.
//!
//! Invariant: what is stored in parts exists from the transaction of the last part on. Before that the
//! object is as it was, or [`stored_version`] does not find it: so a crash leaves nothing that looks
//! like what it is not, and the leavings are in [`list_objects`], at version `0'0`.
//!
//! Versions keep the epochs of their source: a PG that has objects from elsewhere must write above the
//! epochs of the log that it took over, or the store refuses.

mod digest;
mod incoming;
mod outgoing;
mod part;

use std::ops::Bound;

use bytes::Bytes;
use spirula_store::{Commit, Store, StoreError};
use spirula_vos::{ContainerId, ObjectKey, ReadError, StageError, Tx, Vos};
use spirula_wire::Decode;
use spirula_wire::types::{EVersion, HObject};
use spirula_xstream::yield_now;

use crate::apply::container_pg;
use crate::errno::{EIO, ENOENT, ENOSPC};
use crate::object::{AKEY, ObjectInfo, WHITEOUT, cursor_key, dkey, object_of_key};
use crate::snap::{SnapClone, clone_of_akey};

pub use digest::digest;
pub use incoming::{Added, Incoming};
pub use outgoing::{Outgoing, read_object};
pub use part::{PART_BYTES, PART_ENTRIES, Part};
pub(crate) use part::{fuzz, seed};

/// The newest state.
const NOW: u64 = u64::MAX;
/// Of transactions that remove objects, and do nothing else: above whatever those were written at, of
/// which nothing is left to meet it.
const REMOVAL_EPOCH: u64 = u64::MAX - 1;
/// Objects listed in one go.
const BATCH: usize = 64;
/// Of an object without a head whose records do not tell: they were made before that was done.
const OLD_WHITEOUT: EVersion = EVersion { epoch: 0, version: 1 };

/// Why an object was not copied. The store is as it was but for the object itself, of which a part may
/// be there.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CopyError {
    /// It cannot be read, or the store has stopped.
    #[error(transparent)]
    Store(StoreError),
    #[error("no space for the copy of an object")]
    NoSpace,
    #[error("the copy of an object was refused: {0}")]
    Refused(StageError),
    #[error("an object changed or went away while it was read")]
    Gone,
    #[error("part {found} of an object came instead of part {expected}")]
    Order { expected: u32, found: u32 },
    #[error("a part of an object is malformed: {0}")]
    Malformed(&'static str),
}

impl CopyError {
    /// What the other end is told (negative).
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoSpace => -ENOSPC,
            Self::Gone => -ENOENT,
            _ => -EIO,
        }
    }

    /// The store does not work any more; otherwise only the object is concerned.
    pub fn stopped(&self) -> Option<StoreError> {
        match self {
            Self::Store(e @ (StoreError::Write(_) | StoreError::NoRoom | StoreError::Closed)) => {
                Some(*e)
            }
            _ => None,
        }
    }
}

impl From<StoreError> for CopyError {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::NoSpace => Self::NoSpace,
            e => Self::Store(e),
        }
    }
}

/// The version of the last change of an object that is wholly here: of the head, or of the deletion that
/// left only clones. `None`: it is not here, or not to the end. `0'0`: its records cannot be understood.
pub fn stored_version(
    vos: &Vos,
    cid: ContainerId,
    oid: &ObjectKey,
) -> Result<Option<EVersion>, ReadError> {
    let Some(object) = vos.at(NOW).open(cid, oid)? else {
        return Ok(None);
    };
    if let Some(raw) = object.fetch(dkey::INFO, AKEY)? {
        return Ok(Some(ObjectInfo::from_bytes(&raw).map(|i| i.version).unwrap_or_default()));
    }
    let raw = object.fetch(dkey::INFO, WHITEOUT)?;
    let version = |raw: Bytes| EVersion::from_bytes(&raw).unwrap_or_default();
    Ok(Some(raw.map_or(OLD_WHITEOUT, version)))
}

/// Up to `max` objects behind `after`, in order, and the object up to which (inclusive) these are all:
/// [`HObject::max`] at the end. What is not wholly here, or cannot be read, has version `0'0`.
pub async fn list_objects(
    store: &Store,
    cid: ContainerId,
    after: &HObject,
    max: usize,
) -> Result<(Vec<(HObject, EVersion)>, HObject), StoreError> {
    let (max, mut from, mut found) = (max.max(1), key_behind(after), Vec::new());
    loop {
        let some = BATCH.min(max - found.len());
        let page = |vos: &Vos| page(vos, cid, &from, some);
        let (last, objects) = store.read(page).await?;
        found.extend(objects);
        let Some(last) = last else {
            return Ok((found, HObject::max()));
        };
        if found.len() >= max {
            let upto = found.last().map_or_else(HObject::max, |(object, _)| object.clone());
            return Ok((found, upto));
        }
        from = [&last.0[..], &[0]].concat().into();
        yield_now().await;
    }
}

type Page = (Option<ObjectKey>, Vec<(HObject, EVersion)>);

/// Of the next `max` keys the objects, and the last key unless there are no more.
fn page(vos: &Vos, cid: ContainerId, from: &Bytes, max: usize) -> Result<Page, ReadError> {
    let (last, keys) = vos.changed_objects(cid, from, 0, max)?;
    let mut objects = Vec::with_capacity(keys.len());
    for key in keys {
        // The PG's own object is none of them.
        if let Some(object) = object_of_key(container_pg(cid).pgid.pool, &key.0) {
            let version = match stored_version(vos, cid, &key) {
                Err(ReadError::Damaged(damage)) => {
                    tracing::error!(%object, %damage, "an object cannot be read");
                    None
                }
                other => other?,
            };
            objects.push((object, version.unwrap_or_default()));
        }
    }
    Ok((last, objects))
}

/// The first key behind an object; a cursor without a name stands before all of its slot.
fn key_behind(after: &HObject) -> Bytes {
    let key = cursor_key(after);
    let names = !(after.is_max() || after.oid.is_empty() && after.key.is_empty());
    if names { [&key[..], &[0]].concat().into() } else { key }
}

/// The clones of an object, oldest first.
async fn clones(
    store: &Store,
    cid: ContainerId,
    oid: &ObjectKey,
) -> Result<Vec<SnapClone>, CopyError> {
    let list = |vos: &Vos| {
        vos.at(NOW).list_akeys(cid, oid, dkey::SNAPSET, Bound::Excluded(AKEY), usize::MAX)
    };
    let records = store.read(list).await?;
    let clone = |(akey, raw): (Bytes, Bytes)| {
        let id = clone_of_akey(&akey)?;
        Some(SnapClone { id, ..SnapClone::from_bytes(&raw).ok()? })
    };
    let clones: Option<Vec<SnapClone>> = records.into_iter().map(clone).collect();
    clones.ok_or(CopyError::Malformed("its snapset"))
}

/// Whether anything is stored under the key.
fn is_stored(vos: &Vos, cid: ContainerId, oid: &ObjectKey) -> Result<bool, ReadError> {
    let (_, found) = vos.changed_objects(cid, &oid.0, 0, 1)?;
    Ok(found.first() == Some(oid))
}

/// Adds to `tx` that nothing of the object stays, clones and parts included. The epoch of `tx` must be
/// above those of all that was done to the object.
pub fn remove_object(tx: &mut Tx, cid: ContainerId, oid: &ObjectKey) {
    tx.retain(cid, oid, &[]);
    tx.punch_object(cid, oid);
}

/// Removes all that is stored of an object.
pub async fn remove(store: &Store, cid: ContainerId, oid: &ObjectKey) -> Result<(), CopyError> {
    match submit_removal(store, cid, oid).await? {
        Some(commit) => Ok(commit.await?),
        None => Ok(()),
    }
}

/// `None`: there is nothing to remove.
async fn submit_removal(
    store: &Store,
    cid: ContainerId,
    oid: &ObjectKey,
) -> Result<Option<Commit>, CopyError> {
    if !store.read(|vos| is_stored(vos, cid, oid)).await? {
        return Ok(None);
    }
    let mut tx = Tx::new(REMOVAL_EPOCH);
    remove_object(&mut tx, cid, oid);
    Ok(Some(submit(store, &mut tx, &|| Some(REMOVAL_EPOCH)).await?))
}

/// Submits `tx` under the epoch that holds in the same turn; `None`: it is not wanted any more.
async fn submit(
    store: &Store,
    tx: &mut Tx,
    epoch: &dyn Fn() -> Option<u64>,
) -> Result<Commit, CopyError> {
    let mut last_try = false;
    loop {
        store.admit().await;
        tx.epoch = epoch().ok_or(CopyError::Gone)?;
        match store.submit(tx) {
            Ok(commit) => return Ok(commit),
            Err(StageError::Missing(pages)) => store.load(pages).await?,
            Err(StageError::NoSpace) if !last_try => {
                store.make_room().await?;
                last_try = true;
            }
            Err(StageError::NoSpace) => return Err(CopyError::NoSpace),
            Err(StageError::Damaged(damage)) => return Err(StoreError::Damaged(damage).into()),
            Err(e) => return Err(CopyError::Refused(e)),
        }
    }
}
