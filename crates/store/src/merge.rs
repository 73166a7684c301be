//! The last step of aggregation: an object's many small extents become few, by reading and writing them.
//!
//! Invariant: what is written is what the transaction finds: it is staged only if the extents are still
//! those that were read.

use std::ops::Range;

use bytes::Bytes;
use spirula_vos::{ContainerId, Extent, Keys, ObjectKey, ReadError, StageError, Tx, View, Vos};

use crate::limits::MERGE_KEYS;
use crate::{Store, StoreError};

/// An array whose extents may be merged.
struct Array<'a> {
    cid: ContainerId,
    oid: &'a ObjectKey,
    dkey: &'a [u8],
    akey: &'a [u8],
}

impl Array<'_> {
    fn extents(&self, vos: &Vos, range: &Range<u64>) -> Result<Vec<Extent>, ReadError> {
        let len = range.end - range.start;
        newest(vos).extents(self.cid, self.oid, self.dkey, self.akey, range.start, len)
    }
}

impl Store {
    /// Merges the extents of all arrays of an object, which nobody reads below `horizon` but at
    /// retained epochs.
    pub(crate) async fn merge_object(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        horizon: u64,
    ) -> Result<(), StoreError> {
        let mut keys = Some(Keys::default());
        while let Some(from) = &keys {
            let list = move |vos: &Vos| newest(vos).dkeys(cid, oid, from, MERGE_KEYS);
            let some = self.read(list).await?;
            for dkey in &some {
                self.merge_dkey(cid, oid, dkey, horizon).await?;
            }
            keys = page_after(some.len(), some.last());
        }
        Ok(())
    }

    async fn merge_dkey(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        dkey: &[u8],
        horizon: u64,
    ) -> Result<(), StoreError> {
        let mut keys = Some(Keys::default());
        while let Some(from) = &keys {
            let list = move |vos: &Vos| newest(vos).akeys(cid, oid, dkey, from, MERGE_KEYS);
            let some = self.read(list).await?;
            for (akey, _) in &some {
                self.merge_array(&Array { cid, oid, dkey, akey }, horizon).await?;
            }
            keys = page_after(some.len(), some.last().map(|(akey, _)| akey));
        }
        Ok(())
    }

    async fn merge_array(&self, array: &Array<'_>, horizon: u64) -> Result<(), StoreError> {
        let Array { cid, oid, dkey, akey } = *array;
        let mut from = Some(0);
        while let Some(at) = from {
            let look = move |vos: &Vos| newest(vos).mergeable(cid, oid, dkey, akey, at, horizon);
            let step = self.read(look).await?;
            if let Some(range) = step.range {
                self.merge_range(array, range, horizon).await?;
                self.give_way().await?;
            }
            from = step.next;
        }
        Ok(())
    }

    async fn merge_range(
        &self,
        array: &Array<'_>,
        range: Range<u64>,
        horizon: u64,
    ) -> Result<(), StoreError> {
        let extents = self.read(|vos| array.extents(vos, &range)).await?;
        let data = Bytes::from(self.read_data(&extents).await?.concat());
        if data.len() as u64 != range.end - range.start {
            return Ok(());
        }
        let mut tx = Tx::new(horizon);
        tx.merge(array.cid, array.oid, array.dkey, array.akey, range.start, data);
        loop {
            self.admit().await;
            if self.read(|vos| array.extents(vos, &range)).await? != extents {
                return Ok(());
            }
            if self.puts_off(array.cid, array.oid, horizon) {
                return Ok(());
            }
            match self.submit(&tx) {
                Ok(commit) => return commit.await,
                Err(StageError::Missing(pages)) => self.load_more(pages).await?,
                Err(StageError::Damaged(damage)) => return Err(damage.into()),
                // It is something else by now, or there is no room: another time.
                Err(_) => return Ok(()),
            }
        }
    }
}

/// What is committed: a prepared transaction that writes there refuses the merge itself.
fn newest(vos: &Vos) -> View<'_> {
    vos.at(u64::MAX).committed()
}

/// The keys behind a list of `count` that ends with `last`; `None` if it was not full.
fn page_after(count: usize, last: Option<&Bytes>) -> Option<Keys> {
    let last = last.filter(|_| count == MERGE_KEYS)?;
    Some(Keys { from: [last, &[0][..]].concat().into(), ..Keys::default() })
}
