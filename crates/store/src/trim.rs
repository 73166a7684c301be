//! TRIM: tells the device of large free space, so that it need not keep what once lay there.
//!
//! For the device a trim is a write: it goes where the allocator could write, and that is held meanwhile.
//! So whatever makes it safe to reuse a block makes it safe to trim it. A device that refuses is not asked
//! again before it is turned off and on.

use spirula_vos::{BLOCK_SIZE, Run};
use spirula_xstream::sleep;

use crate::Store;
use crate::limits::{TRIM_BYTES, TRIM_PAUSE};

/// Whether the device is told of free space.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Trim {
    #[default]
    Off,
    On,
    /// It would be, but the device does not take it.
    Refused,
}

impl Store {
    /// Whether the device is told of free space from now on.
    pub fn set_trim(&self, on: bool) {
        let trim = match (on, self.inner.trim.get()) {
            (false, _) => Trim::Off,
            (true, Trim::Refused) => Trim::Refused,
            (true, _) => Trim::On,
        };
        self.inner.trim.set(trim);
        self.inner.trim_wanted.notify_one();
    }

    /// The trim task.
    pub(crate) async fn run_trim(self) {
        while self.stopped().is_none() {
            let Some((addr, len)) = self.take_trim() else {
                self.inner.trim_wanted.notified().await;
                continue;
            };
            let trimmed = self.inner.device.trim(addr.byte_offset(), len * BLOCK_SIZE).await;
            self.inner.vos.borrow_mut().return_trimmed((addr, len));
            self.inner.progress.notify_all();
            match trimmed {
                Ok(()) => self.count(|c| c.trimmed_bytes += len * BLOCK_SIZE),
                Err(e) => {
                    let device = self.inner.device.path().display();
                    tracing::warn!(%device, "no TRIM from now on, the device refuses it: {e}");
                    self.inner.trim.set(Trim::Refused);
                }
            }
            // This bounds the rate.
            sleep(TRIM_PAUSE).await;
            if self.give_way().await.is_err() {
                return;
            }
        }
    }

    fn take_trim(&self) -> Option<Run> {
        let mut vos = self.inner.vos.borrow_mut();
        // Nothing is held when clients need it.
        let may_trim = self.inner.trim.get() == Trim::On && !vos.is_short_of_space();
        may_trim.then(|| vos.take_trim(TRIM_BYTES))?
    }
}
