//! An object being stored, a part at a time.

use bytes::Bytes;
use spirula_store::{Still, Store};
use spirula_vos::{ContainerId, ObjectKey, Tx, Vos};
use spirula_wire::types::EVersion;

use super::part::Content;
use super::{CopyError, Part, remove, stored_version, submit, submit_removal};
use crate::apply::meta_object;
use crate::object::dkey;

/// An object on its way in. It replaces whatever is there: that goes when the first part comes.
pub struct Incoming {
    store: Store,
    cid: ContainerId,
    oid: ObjectKey,
    /// The part that comes next.
    next: u32,
    _still: Still,
}

/// What a part has led to; it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// More parts are to come.
    Part,
    /// The object is here, at this version.
    Whole(EVersion),
}

impl Incoming {
    pub fn new(store: &Store, cid: ContainerId, oid: &ObjectKey) -> Self {
        let _still = store.hold_still(cid, oid);
        Self { store: store.clone(), cid, oid: oid.clone(), next: 0, _still }
    }

    /// Stores the next part; part 0 begins anew. `epoch` is asked in the turn in which a transaction is
    /// submitted: it tells that of the PG's newest one (`last_epoch`), since the last part also changes
    /// the PG's index of snapshots, and neither may be before the other; or that the object is not wanted any
    /// more, as it was written to.
    ///
    /// After an error only part 0 is taken. If there is no space nothing of the object is here any more.
    pub async fn add(
        &mut self,
        part: Part,
        epoch: impl Fn() -> Option<u64>,
    ) -> Result<Added, CopyError> {
        let added = self.store_part(part, &epoch).await;
        if added == Err(CopyError::NoSpace) {
            remove(&self.store, self.cid, &self.oid).await?;
        }
        added
    }

    async fn store_part(
        &mut self,
        part: Part,
        epoch: &dyn Fn() -> Option<u64>,
    ) -> Result<Added, CopyError> {
        let Part { number, last, data } = part;
        if number != 0 && number != self.next {
            return Err(CopyError::Order { expected: self.next, found: number });
        }
        self.next = 0;
        let (store, cid) = (&self.store, self.cid);
        let content = Content::decode(&joined(data))?;
        epoch().ok_or(CopyError::Gone)?;
        let removed = match number {
            0 => submit_removal(store, cid, &self.oid).await?,
            _ => None,
        };
        let mut tx = Tx::new(0);
        let malformed = |_| CopyError::Malformed("its entries");
        tx.import(cid, &self.oid, content.entries, content.pieces).map_err(malformed)?;
        if last {
            // Entries of clones that were here before may stay: they are for what an object has, or had.
            let meta = meta_object(cid);
            for snap in &content.snaps {
                tx.update(cid, &meta, &dkey::snap(*snap), &self.oid.0, Bytes::new());
            }
        }
        let commit = submit(store, &mut tx, epoch).await?;
        if let Some(removed) = removed {
            removed.await?;
        }
        commit.await?;
        if !last {
            self.next = number + 1;
            return Ok(Added::Part);
        }
        let oid = &self.oid;
        let version = store.read(|vos: &Vos| stored_version(vos, cid, oid)).await?;
        Ok(Added::Whole(version.ok_or(CopyError::Malformed("its end is missing"))?))
    }
}

/// Free if it is one piece, as where it was received.
fn joined(mut data: Vec<Bytes>) -> Bytes {
    match data.len() {
        1 => data.remove(0),
        _ => data.concat().into(),
    }
}
