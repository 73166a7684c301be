//! Housekeeping of prepared transactions.

use spirula_vos::StageError;

use crate::limits::{FORGET_BUDGET, ROOM_TRIES_MAX};
use crate::{Store, StoreError};

impl Store {
    /// Forgets how the transactions ended that did so at epochs below `below`: nobody asks for them any
    /// more. After a crash some may be known again.
    pub async fn forget_ended(&self, below: u64) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            self.admit().await;
            if let Some(stopped) = self.stopped() {
                return Err(stopped);
            }
            let forgotten = self.inner.vos.borrow_mut().forget_ended(below, FORGET_BUDGET);
            match forgotten {
                Ok(true) => self.give_way().await?,
                Ok(false) => return Ok(()),
                Err(StageError::Missing(pages)) => self.load_more(pages).await?,
                Err(StageError::NoSpace) if tries < ROOM_TRIES_MAX => {
                    tries += 1;
                    self.make_room().await?;
                }
                Err(StageError::Damaged(damage)) => return Err(damage.into()),
                Err(_) => return Err(StoreError::NoSpace),
            }
        }
    }
}
