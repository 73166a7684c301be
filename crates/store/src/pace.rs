//! How the store's own work gives way to that of clients.
//!
//! The thread is divided by the shares of the classes already. What a step of background work also costs
//! is the device: the pages it changes are written by checkpoints, the records it makes by the WAL. So
//! while client I/O is under way, steps keep a distance, and they never fill the buffer pool with
//! changed pages: clients would have to wait for the checkpoint.

use spirula_xstream::{sleep, yield_now};

use crate::limits::BUSY_PAUSE;
use crate::{Store, StoreError};

impl Store {
    /// Lets others go first, between two steps of background work.
    pub(crate) async fn give_way(&self) -> Result<(), StoreError> {
        let (full, short) = {
            let vos = self.inner.vos.borrow();
            (vos.wants_checkpoint(), vos.is_short_of_space())
        };
        // Clients would rather have space than time.
        if full && !short {
            self.checkpoint().await?;
        } else if self.is_busy() && !short {
            sleep(BUSY_PAUSE).await;
        } else {
            yield_now().await;
        }
        self.stopped().map_or(Ok(()), Err)
    }

    /// Whether client I/O is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.inner.reads.borrow().is_running() || !self.inner.commit.borrow().is_quiet()
    }
}
