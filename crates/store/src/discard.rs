//! Discard of a container's newest epochs, object by object.

use bytes::Bytes;
use spirula_vos::{ContainerId, Cursor, ObjectKey, StageError, Tx};

use crate::limits::{AGGREGATE_OBJECTS, DISCARD_BUDGET, ROOM_TRIES_MAX};
use crate::{Store, StoreError};

impl Store {
    /// Undoes all operations on the objects of a container from epoch `from` to `to`, as if they had never
    /// been. `from` must be above the horizon of each object changed since. It is several transactions,
    /// more than one for a large object: after an error or a crash call it again, before anybody reads.
    pub async fn discard_container(
        &self,
        cid: ContainerId,
        from: u64,
        to: u64,
    ) -> Result<(), StoreError> {
        let mut next = Some(Bytes::new());
        while let Some(start) = next {
            let changed =
                |vos: &spirula_vos::Vos| vos.changed_objects(cid, &start, from, AGGREGATE_OBJECTS);
            let (last, found) = self.read(changed).await?;
            for oid in found {
                self.discard_object(cid, &oid, from, to).await?;
                self.give_way().await?;
            }
            next = last.map(|last| [&last.0, &[0][..]].concat().into());
        }
        Ok(())
    }

    async fn discard_object(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        from: u64,
        to: u64,
    ) -> Result<(), StoreError> {
        let (mut cursor, mut tries) = (Cursor::default(), 0);
        loop {
            self.admit().await;
            let mut tx = Tx::new(from);
            tx.discard_some(cid, oid, (from, to), cursor.clone(), DISCARD_BUDGET);
            match self.submit_staged(&tx) {
                Ok((commit, None)) => return commit.await,
                Ok((_, Some(next))) => {
                    (cursor, tries) = (next, 0);
                    self.give_way().await?;
                }
                Err(StageError::Missing(pages)) => self.load_more(pages).await?,
                Err(StageError::NoSpace) if tries < ROOM_TRIES_MAX => {
                    tries += 1;
                    self.make_room().await?;
                }
                Err(StageError::Damaged(damage)) => return Err(damage.into()),
                Err(StageError::EpochTooOld { epoch, horizon }) => {
                    return Err(StoreError::EpochTooOld { epoch, horizon });
                }
                Err(StageError::InProgress { id }) => return Err(StoreError::InProgress { id }),
                // The container is gone.
                Err(StageError::NoContainer(_)) => return Ok(()),
                Err(_) => return Err(StoreError::NoSpace),
            }
        }
    }
}
