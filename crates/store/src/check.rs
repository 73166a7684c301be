//! The offline check of a store: every checksum, every reference, and that the space adds up.

use spirula_bio::Device;
use spirula_vos::{BLOCK_SIZE, CheckError, CheckSummary, Checker, Extent, ReadError};

use crate::{Expect, OpenError, Options, Store, StoreError};

/// What was found to be wrong.
#[derive(Debug, thiserror::Error)]
pub enum CheckFailure {
    /// The store does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A page or data block cannot be read or is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pages contradict each other.
    #[error(transparent)]
    Structure(#[from] CheckError),
}

/// What a check counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CheckReport {
    /// Pages, entries, extents.
    pub summary: CheckSummary,
    /// Bytes of data whose checksums were verified.
    pub data_bytes: u64,
}

/// Opens the store of a device (which replays its WAL), checks all of it, and closes it.
pub async fn check(device: &Device) -> Result<CheckReport, CheckFailure> {
    let options = Options { zero_ahead: false, ..Options::default() };
    let store = Store::open(device, Expect::default(), options).await?;
    let report = store.check().await;
    store.close().await?;
    report
}

impl Store {
    /// Checks the whole store. Nothing may be submitted meanwhile.
    pub async fn check(&self) -> Result<CheckReport, CheckFailure> {
        self.quiesce().await?;
        // Afterwards nothing changes by itself.
        self.collect_all().await?;
        self.checkpoint().await?;
        let mut report = CheckReport::default();
        let mut checker = Checker::new(&self.inner.vos.borrow());
        loop {
            let step = checker.step(&self.inner.vos.borrow());
            match step {
                Ok(true) => {}
                Ok(false) => break,
                Err(CheckError::Read(ReadError::Missing(pages))) => self.load(pages).await?,
                Err(e) => return Err(e.into()),
            }
            for extent in checker.take_extents() {
                report.data_bytes += extent.block_count() * BLOCK_SIZE;
                self.read_data(&[Extent::Device(extent)]).await?;
            }
        }
        report.summary = checker.finish(&self.inner.vos.borrow())?;
        Ok(report)
    }
}
