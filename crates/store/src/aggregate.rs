//! Aggregation of objects and containers, in small transactions that let others run in between.
//!
//! Invariant: it may be abandoned at any time and begun again; nothing visible changes.

use bytes::Bytes;
use spirula_vos::{ContainerId, Cursor, Keys, ObjectKey, StageError, Tx};

use crate::limits::{AGGREGATE_BUDGET, AGGREGATE_OBJECTS};
use crate::{Store, StoreError};

impl Store {
    /// Removes the versions of an object that are neither retained nor visible at or above `horizon`,
    /// and merges its extents. Afterwards transactions below the horizon are refused. An object that is
    /// held still is aggregated later.
    pub async fn aggregate_object(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        horizon: u64,
    ) -> Result<(), StoreError> {
        self.remove_versions(cid, oid, horizon).await?;
        self.merge_object(cid, oid, horizon).await
    }

    async fn remove_versions(
        &self,
        cid: ContainerId,
        oid: &ObjectKey,
        horizon: u64,
    ) -> Result<(), StoreError> {
        let (mut cursor, mut refused) = (Some(Cursor::default()), false);
        while let Some(at) = cursor.take() {
            self.admit().await;
            if self.puts_off(cid, oid, horizon) {
                return Ok(());
            }
            let mut tx = Tx::new(horizon);
            tx.aggregate(cid, oid, at.clone(), AGGREGATE_BUDGET);
            match self.submit_staged(&tx) {
                Ok((commit, None)) => return commit.await,
                Ok((_, next)) => (cursor, refused) = (next, false),
                Err(StageError::Missing(pages)) => {
                    self.load_more(pages).await?;
                    cursor = Some(at);
                }
                Err(StageError::NoSpace) if !refused => {
                    self.make_room().await?;
                    (cursor, refused) = (Some(at), true);
                }
                Err(StageError::Damaged(damage)) => return Err(damage.into()),
                // The container is gone, or there is no room even for this: another time.
                Err(_) => return Ok(()),
            }
            self.give_way().await?;
        }
        Ok(())
    }

    /// As [`Store::aggregate_object`] for all objects of a container that may need it.
    pub async fn aggregate_container(
        &self,
        cid: ContainerId,
        horizon: u64,
    ) -> Result<(), StoreError> {
        let mut keys = Keys::default();
        loop {
            let (next, found) = {
                let keys = &keys;
                self.read(move |vos| vos.unaggregated(cid, keys, AGGREGATE_OBJECTS)).await?
            };
            for oid in found {
                self.aggregate_object(cid, &oid, horizon).await?;
            }
            match next {
                Some(last) => keys.from = Bytes::from([&last.0, &[0][..]].concat()),
                None => return Ok(()),
            }
        }
    }
}
